"""The OpenAPI description of the HTTP interface, made of what the code goes by.

Statuses and headers of refusals come from ``errors.REFUSALS``, limits and whether
a write key is asked for from the settings. It describes what the application
answers; requests that gunicorn's parser refuses get gunicorn's pages.
"""

from itertools import groupby
from typing import Any

from estat.errors import REFUSALS
from estat.intake import MAX_ERRORS
from estat.metrics import CONTENT_TYPE
from estat.settings import Settings

TITLE = "Estat Ingest"

#: Of the interface, not of the software.
_VERSION = "1"

_JSON, _TEXT = "application/json", "text/plain"
_FORM = "application/x-www-form-urlencoded"
_LINE_TYPES = ("application/x-ndjson", "application/jsonl")

_EVENT = {"$ref": "#/components/schemas/Event"}
_ERROR = {"$ref": "#/components/schemas/Error"}
_FAILED = {"description": "An unexpected error.", "content": {_JSON: {"schema": _ERROR}}}
# gunicorn's parser refuses it, with a page of its own
_TOO_LONG = {
    "description": "The request line has over 4,094 bytes.",
    "content": {"text/html": {"schema": {"type": "string"}}},
}
_PROBLEMS = ("disk_error", "dlq_full", "queue_full", "s3_down")

Json = dict[str, Any]


def document(settings: Settings) -> Json:
    """Return the OpenAPI 3.1 document of a server with these settings."""
    found: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": _VERSION,
            "description": "Takes events over HTTP. An event answered with 202 is stored once. "
            "With METRICS_ADDR, /metrics and /openapi.json are at that address only.",
        },
        "paths": {
            "/": _both({"200": _json("What this is.", _closed(name=_STRING, events=_STRING))}),
            "/collect": {
                "post": _collect(settings),
                "get": _query(settings, {"204": {"description": "Accepted.", **_UNCACHED}}),
                "options": _OPTIONS,
            },
            "/collect.gif": {"get": _query(settings, {"200": _PIXEL})},
            "/estat.js": _both({"200": _SCRIPT, "304": {"description": "Not changed."}}),
            "/health": _both(_HEALTH),
            "/ready": _both(_READY),
            "/metrics": {"get": {"responses": _METRICS}},
            "/openapi.json": _both({"200": _json("This document.", {"type": "object"})}),
        },
        "components": {"schemas": _schemas(settings)},
    }
    if settings.write_keys:
        found["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-Write-Key"},
            "query": {"type": "apiKey", "in": "query", "name": "key"},
        }
    return found


def _collect(settings: Settings) -> Json:
    operation: Json = {
        "summary": "Take events.",
        "description": (
            f"A body has {settings.max_batch_body_size} bytes at most, an event "
            f"{settings.max_body_size}, a request {settings.max_batch_events} events."
        ),
        "parameters": [_CODING],
        "requestBody": {"required": True, "content": _bodies(settings)},
        "responses": {
            "202": _json("Accepted.", {"$ref": "#/components/schemas/Accepted"}),
            **_refusals(),
            "500": _FAILED,
        },
    }
    return operation | _security(settings)


def _query(settings: Settings, accepted: Json) -> Json:
    operation: Json = {
        "summary": "Take the query as an event.",
        "parameters": [
            {
                "name": "fields",
                "in": "query",
                "description": f"Any; {settings.max_body_size} bytes at most, as sent.",
                "schema": {"type": "object", "additionalProperties": _STRING, "minProperties": 1},
            }
        ],
        "responses": {**accepted, **_refusals(), "414": _TOO_LONG, "500": _FAILED},
    }
    return operation | _security(settings)


def _security(settings: Settings) -> Json:
    if not settings.write_keys:
        return {}
    return {"security": [{"bearer": []}, {"header": []}, {"query": []}]}


def _bodies(settings: Settings) -> Json:
    if settings.event_format == "raw":
        text = {"type": "string", "minLength": 1, "description": "Any text is one event."}
        return {"*/*": {"schema": text}}
    array = {
        "type": "array",
        "items": _EVENT,
        "minItems": 1,
        "maxItems": settings.max_batch_events,
    }
    lines = {"type": "string", "description": "One JSON object a line."}
    return {
        _JSON: {"schema": {"oneOf": [_EVENT, array]}},
        **{media_type: {"schema": lines} for media_type in _LINE_TYPES},
        _TEXT: {"schema": {"type": "string", "description": "Read as JSON, or as lines of it."}},
        _FORM: {"schema": {"type": "object", "additionalProperties": _STRING}},
    }


def _refusals() -> Json:
    """Return an answer for each status that a request to /collect may be refused with."""
    ordered = sorted(REFUSALS.values(), key=lambda refusal: refusal.status)
    answers: Json = {}
    for status, group in groupby(ordered, key=lambda refusal: refusal.status):
        refusals = list(group)
        headers: Json = {}
        if any(refusal.retry_after_seconds for refusal in refusals):
            headers["Retry-After"] = {"required": True, "schema": {"type": "integer", "minimum": 1}}
        if any(refusal.challenge for refusal in refusals):
            headers["WWW-Authenticate"] = {"required": True, "schema": _STRING}
        titles = "; ".join(refusal.title for refusal in refusals)
        answers[str(status)] = _json(f"{titles}.", _ERROR, headers)
    return answers


def _schemas(settings: Settings) -> Json:
    return {
        "Event": {"type": "object", "description": f"{settings.max_body_size} bytes at most."},
        "Accepted": {
            "oneOf": [
                _closed(accepted={"const": 1}),
                _closed(
                    accepted={"type": "integer", "minimum": 1},
                    rejected={"type": "integer", "minimum": 0},
                    errors={
                        "type": "array",
                        "maxItems": MAX_ERRORS,
                        "items": _closed(index={"type": "integer", "minimum": 0}, reason=_STRING),
                    },
                ),
            ]
        },
        "Error": _closed(title=_STRING, description=_STRING),
    }


def _json(description: str, schema: Json, headers: Json | None = None) -> Json:
    answer = {"description": description, "content": {_JSON: {"schema": schema}}}
    return answer | {"headers": headers} if headers else answer


def _closed(**properties: Json) -> Json:
    """Return the schema of an object with these properties, all of them and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _both(responses: Json) -> Json:
    """Return a path of GET, and of HEAD, whose answers have no body."""
    heads = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in responses.items()
    }
    return {
        "get": {"responses": {**responses, "500": responses.get("500", _FAILED)}},
        "head": {"responses": {**heads, "500": {"description": _FAILED["description"]}}},
    }


_STRING: Json = {"type": "string"}
_NOT_CACHED: Json = {"Cache-Control": {"required": True, "schema": {"const": "no-store"}}}
_UNCACHED: Json = {"headers": _NOT_CACHED}
_PIXEL: Json = {
    "description": "Accepted: a transparent pixel.",
    "content": {"image/gif": {"schema": {"type": "string", "format": "binary"}}},
    **_UNCACHED,
}
_SCRIPT: Json = {
    "description": "The browser client.",
    "content": {"text/javascript": {"schema": _STRING}},
}
_CODING: Json = {
    "name": "Content-Encoding",
    "in": "header",
    "schema": {"enum": ["gzip", "identity"]},
}
_OPTIONS: Json = {
    "summary": "A CORS preflight, or a question for the methods.",
    "responses": {
        "204": {
            "description": "The methods, and the CORS fields for an allowed origin.",
            "headers": {"Allow": {"required": True, "schema": _STRING}},
        },
        "500": _FAILED,
    },
}
_STATUS = _closed(status={"enum": ["ok", "broken"]})
_HEALTH: Json = {
    "200": _json("The process works.", _STATUS, _NOT_CACHED),
    "500": _json("It does not.", {"oneOf": [_STATUS, _ERROR]}, _NOT_CACHED),
}
_READINESS = _closed(
    ready={"type": "boolean"}, problems={"type": "array", "items": {"enum": list(_PROBLEMS)}}
)
_READY: Json = {
    "200": _json("Send requests here.", _READINESS, _NOT_CACHED),
    "503": _json("Starting or draining.", _READINESS, _NOT_CACHED),
}
_METRICS: Json = {
    "200": {
        "description": "The metrics of all workers.",
        "content": {CONTENT_TYPE: {"schema": _STRING}},
        "headers": _NOT_CACHED,
    },
    "500": _FAILED,
}
