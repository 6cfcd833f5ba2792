"""The OpenAPI description of the HTTP interface: static/openapi.json, made true for one server.

The file describes what the application answers. It gets the limits of this server, the
refusals of ``errors.REFUSALS`` and the kind of body that the server takes. Requests that
gunicorn's parser refuses get gunicorn's own pages.
"""

import json
import re
from importlib import resources
from itertools import groupby
from typing import Any

from estat.config.settings import Settings
from estat.errors import REFUSALS

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_RETRY_AFTER = {"required": True, "schema": {"type": "integer", "minimum": 1}}
_NOT_HERE = {"responses": {"404": {"description": "Nothing to read.", "content": _ERROR}}}
_BELOW = {
    "parameters": [{"name": "rest", "in": "path", "required": True, "schema": {"type": "string"}}],
    "get": _NOT_HERE,
    "head": {"responses": {"404": {"description": "Nothing to read."}}},
}
_KEPT = {"const": "disk", "description": "Not in the store yet: the server has them on its disk."}
_ANY_TEXT = {"type": "string", "minLength": 1, "description": "Any text is one event."}

Json = dict[str, Any]


def document(settings: Settings) -> Json:
    """Return the OpenAPI 3.1 document of a server with these settings."""
    template = (
        resources.files("estat.web").joinpath("static/openapi.json").read_text(encoding="utf-8")
    )
    found: Json = json.loads(_with_limits(template, settings))
    collect, pixel = found["paths"]["/collect"], found["paths"]["/collect.gif"]
    collect["post"]["responses"][settings.accepted_status] = collect["post"]["responses"].pop("202")
    for operation in (collect["post"], collect["get"], pixel["get"]):
        operation["responses"] |= _refusals()
        if not settings.write_keys:
            del operation["security"]
    if not settings.write_keys:
        del found["components"]["securitySchemes"]
    if settings.durability.stored:
        for answer in found["components"]["schemas"]["Accepted"]["oneOf"]:
            answer["properties"]["kept"] = _KEPT
    if settings.event_format == "raw":
        collect["post"]["requestBody"]["content"] = {"*/*": {"schema": _ANY_TEXT}}
    if not settings.receipts:
        for answer in found["components"]["schemas"]["Accepted"]["oneOf"]:
            del answer["properties"]["ids"]
            answer["required"].remove("ids")
    pixel |= {method: collect[method] for method in ("post", "options")}
    found["paths"]["/collect/{rest}"] = {**pixel, **_BELOW}
    return found


def _with_limits(template: str, settings: Settings) -> str:
    """Replace the names of settings by their values; a name alone in quotes becomes a number."""
    return re.sub(
        r'"(MAX_[A-Z_]+)"|(MAX_[A-Z_]+)', lambda name: settings.text(name[1] or name[2]), template
    )


def _refusals() -> Json:
    """Return an answer for each status that a request to /collect may be refused with."""
    ordered = sorted(REFUSALS.values(), key=lambda refusal: refusal.status)
    answers: Json = {}
    for status, group in groupby(ordered, key=lambda refusal: refusal.status):
        refusals = list(group)
        titles = "; ".join(refusal.title for refusal in refusals)
        answer: Json = {"description": f"{titles}.", "content": _ERROR}
        if any(refusal.retry_after_seconds for refusal in refusals):
            answer["headers"] = {"Retry-After": _RETRY_AFTER}
        answers[str(status)] = answer
    return answers
