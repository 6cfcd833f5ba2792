"""The HTTP resources: a request in, an answer out, and the counts of both."""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import falcon
import gevent

from estat import event, metrics, openapi
from estat.cors import Cors
from estat.errors import REFUSALS, Refused
from estat.excerpt import excerpt
from estat.inflater import inflate
from estat.intake import Events, Intake
from estat.log import Seldom
from estat.origin import Origins
from estat.pipeline import Pipeline
from estat.raw_intake import RawIntake
from estat.write_keys import WriteKeys

#: Bytes that must arrive within READ_TIMEOUT; a larger body gets it again for each of them.
_PIECE_BYTES = 64 * 1024

#: What is read of a body that is refused unread, so that its sender sees the answer.
_DISCARD_BYTES = 8 * 1024 * 1024

_OK_ONE = b'{"accepted":1}'

_PLAIN_CODINGS, _GZIP_CODINGS = ("", "identity"), ("gzip", "x-gzip")

#: One transparent pixel.
_GIF = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)


class _BodyTimeoutError(Exception):
    """The body did not arrive in time. No gevent.Timeout: gunicorn's chunked reader survives it."""


class Collect:
    """``POST /collect`` takes the events of a body, ``GET`` the one that the query is."""

    def __init__(self, pipeline: Pipeline) -> None:
        settings = pipeline.settings
        self._pipeline = pipeline
        self._counts = pipeline.counts
        self._intake: Intake | RawIntake = (
            RawIntake(settings.max_body_size)
            if settings.event_format == "raw"
            else Intake(
                settings.max_body_size, settings.max_batch_events, settings.event_schema or None
            )
        )
        self._origins = Origins(settings)
        self._max_bytes = settings.max_batch_body_size
        self._read_seconds = settings.read_timeout
        self._seldom = Seldom(logging.getLogger(__name__))
        self._cors = Cors(settings.allowed_origins)
        self._keys = WriteKeys(settings.write_keys) if settings.write_keys else None
        methods = ("GET", "HEAD", "OPTIONS", "POST")
        self._methods = ", ".join(m for m in methods if hasattr(self, f"on_{m.lower()}"))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 202 when the events are accepted, an error when they are refused."""
        events = self._take(req, self._posted)
        resp.status = falcon.HTTP_202
        resp.content_type = falcon.MEDIA_JSON
        resp.data = _answer(events) if events.batch else _OK_ONE

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 204 when the query is accepted as an event, an error when it is refused."""
        resp.set_header("Cache-Control", "no-store")  # a cache would swallow the next event
        self._take(req, self._queried)
        resp.status = falcon.HTTP_204

    def _take(self, req: falcon.Request, read: Callable[[falcon.Request], Events]) -> Events:
        """Accept what ``read`` finds in a request, and count what became of it. Raises Refused."""
        started = time.perf_counter()
        counts = self._counts
        counts.count(metrics.REQUESTS)
        try:
            key = self._key(req) if self._keys else None
            events = read(req)
            self._pipeline.accept(self._origins.of(req.env, key), events.bodies)
        except Refused as refused:
            counts.count(metrics.REQUESTS_REJECTED[refused.reason])
            if refused.reason == "queue_full":
                counts.count(metrics.REQUESTS_QUEUE_FULL)
            self._seldom.warning("requests_refused", refused.reason, example=refused.description)
            raise
        except Exception:
            counts.count(metrics.REQUESTS_REJECTED["internal_error"])
            raise
        counts.count(metrics.REQUESTS_ACCEPTED)
        if key:
            counts.count(metrics.accepted_by_key(key), len(events.bodies))
        if events.rejected:
            counts.count(metrics.EVENTS_REJECTED, events.rejected)
        counts.observe(metrics.REQUEST_SECONDS, time.perf_counter() - started)
        return events

    def _posted(self, req: falcon.Request) -> Events:
        encoding = req.env.get("HTTP_CONTENT_ENCODING")
        gzipped = _is_gzip(encoding) if encoding else False
        body = self._body(req)
        self._pipeline.check_room()
        if gzipped:
            body = inflate(body, self._max_bytes)
        return self._intake.read(body, req.env.get("CONTENT_TYPE"))

    def _queried(self, req: falcon.Request) -> Events:
        self._pipeline.check_room()
        return self._intake.read_query(req.env["QUERY_STRING"].encode("latin-1"))

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight, or whoever asks for the methods."""
        resp.status = falcon.HTTP_204
        resp.set_header("Allow", self._methods)
        for name, value in self._cors.preflight(req.env.get("HTTP_ORIGIN"), self._methods):
            resp.set_header(name, value)

    def _key(self, req: falcon.Request) -> str:
        """Return the name of the request's write key. Raises Refused."""
        name = self._keys.find(req.env) if self._keys else None
        if name:
            return name
        with contextlib.suppress(Refused):
            self._body(req)  # else the connection would have to end with this answer
        raise Refused(
            "unauthorized",
            "send a valid write key as Authorization: Bearer, as X-Write-Key or as ?key=",
        )

    def _body(self, req: falcon.Request) -> bytes:
        body: bytes | None = req.env.get("estat.body")
        if body is not None:  # it is here, all of it
            if len(body) > self._max_bytes:
                raise Refused(
                    "too_large", f"the body has {len(body)} bytes; at most {self._max_bytes}"
                )
            return body
        length = req.content_length
        if length is None:
            # chunked, or no body at all; one byte more than allowed tells too large
            body = self._read(req, self._max_bytes + 1)
            if len(body) > self._max_bytes:
                _close_after_answer(req)
                raise Refused("too_large", f"the body has over {self._max_bytes} bytes")
            return body
        if length > self._max_bytes:
            self._discard(req, length)
            raise Refused("too_large", f"the body has {length} bytes; at most {self._max_bytes}")
        body = self._read(req, length)
        if len(body) < length:
            raise Refused("incomplete_body", f"{len(body)} bytes of {length} arrived")
        return body

    def _read(self, req: falcon.Request, size: int) -> bytes:
        """Read at most ``size`` bytes, each piece in time. Raises Refused."""
        pieces = []
        while size > 0:
            wanted = min(size, _PIECE_BYTES)
            try:
                with gevent.Timeout(self._read_seconds, _BodyTimeoutError):
                    piece: bytes = req.stream.read(wanted)
            except _BodyTimeoutError as exc:
                _close_after_answer(req)
                raise Refused(
                    "body_timeout", f"the body did not arrive within {self._read_seconds:g}s"
                ) from exc
            except Exception as exc:
                # what the server's reader raises on a body that is cut off or malformed
                # (chunks) has no common base; where the next request begins is not known
                _close_after_answer(req)
                raise Refused(
                    "incomplete_body", f"the body could not be read: {type(exc).__name__}"
                ) from exc
            pieces.append(piece)
            size -= len(piece)
            if len(piece) < wanted:
                break
        return b"".join(pieces)

    def _discard(self, req: falcon.Request, size: int) -> None:
        """Read a body that is refused anyway: closing on it would cost its sender the answer."""
        if size > _DISCARD_BYTES:
            _close_after_answer(req)
            return
        for start in range(0, size, _PIECE_BYTES):
            self._read(req, min(size - start, _PIECE_BYTES))


class Pixel:
    """``GET /collect.gif``: as ``/collect``, for an image element, which asks for no preflight."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with a transparent pixel, or with an error as JSON."""
        self._collect.on_get(req, resp)
        resp.status = falcon.HTTP_200
        resp.content_type = "image/gif"
        resp.data = _GIF


class Health:
    """``GET /health``: whether the process works."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or 500 when a stage died and only a restart can help."""
        del req
        broken = self._pipeline.broken
        resp.status = falcon.HTTP_500 if broken else falcon.HTTP_200
        resp.media = {"status": "broken" if broken else "ok"}
        _never_cached(resp)

    on_head = on_get


class Ready:
    """``GET /ready``: whether to send requests here. Red only while starting and draining."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 or 503; the body names what is wrong."""
        del req
        ready = self._pipeline.ready
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {"ready": ready, "problems": self._pipeline.problems()}
        _never_cached(resp)

    on_head = on_get


class Exposition:
    """``GET /metrics``: the metrics of all workers."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._page = pipeline.page

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the Prometheus text format."""
        del req
        resp.content_type = metrics.CONTENT_TYPE
        resp.data = metrics.render(self._page)
        _never_cached(resp)


class Description:
    """``GET /openapi.json``: the HTTP interface, for tools."""

    def __init__(self, pipeline: Pipeline) -> None:
        document = openapi.document(pipeline.settings)
        self._data = event.encode(document)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the OpenAPI description."""
        del req
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._data

    on_head = on_get


class Root:
    """``GET /``: what this is, for whoever comes by."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the name and where events go."""
        del req
        resp.media = {"name": openapi.TITLE, "events": "POST /collect"}

    on_head = on_get


def refuse(req: falcon.Request, resp: falcon.Response, ex: Refused, params: Any) -> None:
    """Turn Refused into its HTTP error (a Falcon error handler)."""
    del req, resp, params
    refusal = REFUSALS[ex.reason]
    headers = {}
    if refusal.retry_after_seconds:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.challenge:
        headers["WWW-Authenticate"] = refusal.challenge
    if ex.reason == "unsupported_encoding":
        headers["Accept-Encoding"] = "gzip"  # RFC 9110, 12.5.3
    raise falcon.HTTPError(
        refusal.status, title=refusal.title, description=ex.description, headers=headers
    ) from ex


def _never_cached(resp: falcon.Response) -> None:
    resp.set_header("Cache-Control", "no-store")


def _is_gzip(encoding: str) -> bool:
    """Tell whether a body is gzip, or as it is. Raises Refused for what is neither."""
    name = encoding.strip().lower()
    if name in _PLAIN_CODINGS:
        return False
    if name not in _GZIP_CODINGS:
        raise Refused(
            "unsupported_encoding",
            f"{excerpt(encoding, 100)} is not supported; send gzip or nothing",
        )
    return True


def _answer(events: Events) -> bytes:
    errors = [{"index": index, "reason": reason} for index, reason in events.errors]
    return event.encode(
        {"accepted": len(events.bodies), "rejected": events.rejected, "errors": errors}
    )


def _close_after_answer(req: falcon.Request) -> None:
    """End the connection with this answer: where the next request begins is not known."""
    close = req.env.get("estat.close_connection")
    if close:
        close()
