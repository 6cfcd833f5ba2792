"""The resources that take events: reading a request, its answer, and the counts of both."""

import gc
import logging
import ssl
import time
from collections.abc import Callable, Iterable
from wsgiref.types import InputStream, WSGIEnvironment

import falcon
import gevent
from gevent.lock import BoundedSemaphore

from estat.accounting import metrics
from estat.errors import Refused
from estat.events import charsets, json_text
from estat.events.gzip import inflate, is_gzip
from estat.events.ids import EventId
from estat.events.parser import Events, Intake
from estat.events.raw_parser import RawIntake
from estat.log import Seldom
from estat.pipeline.pipeline import Pipeline
from estat.pipeline.queue import Submission
from estat.text import shown
from estat.web import cors
from estat.web.cors import Origins
from estat.web.environ import BODY, ERROR, UNREAD_BYTES
from estat.web.request_context import RequestContext
from estat.web.turns import give_turn_if_due
from estat.web.write_keys import WriteKeys

_NO_KEY = (
    "send a valid write key as Authorization: Bearer, as the user of Authorization: Basic, as "
    "X-Write-Key or as ?key="
)
_OK_ONE = b'{"accepted":1}'
_METHODS = "GET, OPTIONS, POST"

#: Bytes that must arrive within READ_TIMEOUT. A larger body has READ_TIMEOUT for each piece.
_PIECE_BYTES = 64 * 1024

#: How much of a body that is too large is read, so that its sender sees the answer.
_TOO_LARGE_BYTES = 8 * 1024 * 1024

#: Reasons that are not about the content, so nobody would learn from it.
_OF_THE_WHOLE = {"empty_body", "too_many_events"}

_PLAIN_CODINGS, _GZIP_CODINGS = ("", "identity"), ("gzip", "x-gzip")


class Collect:
    """``POST /collect`` takes the events in a body; ``GET`` takes its query as one event."""

    def __init__(self, pipeline: Pipeline) -> None:
        settings = pipeline.settings
        self._pipeline = pipeline
        self._counts = pipeline.counts
        self._intake: Intake | RawIntake = (
            RawIntake(settings.max_body_size)
            if settings.event_format == "raw"
            else Intake(
                settings.max_body_size,
                settings.max_batch_events,
                settings.event_schema,
                charsets.codec(settings.fallback_charset),
                give_turn_if_due,
            )
        )
        #: The status of an answer to accepted events.
        self.accepted = falcon.code_to_http_status(int(settings.accepted_status))
        self._rejections = pipeline.rejections
        self._context = RequestContext(settings)
        self._max_bytes = settings.max_batch_body_size
        self._body = _RequestBody(self._max_bytes, settings.read_timeout)
        #: What a large body is read into takes much memory, and others have their turn meanwhile.
        self._reading = BoundedSemaphore(1)
        self._seldom = Seldom(logging.getLogger(__name__))
        self._origins = Origins(settings.allowed_origins)
        self._keys = WriteKeys(settings.write_keys) if settings.write_keys else None

    def post(self, environ: WSGIEnvironment) -> bytes:
        """Take the events of a body; return the answer's body. Raises Refused."""
        events, accepted = self._take(environ, self._posted)
        plain = not (events.batch or accepted.first or accepted.on_disk_alone)
        return _OK_ONE if plain else _answer(events, accepted)

    def on_post(self, req: falcon.Request, resp: falcon.Response, **_rest: str) -> None:
        """Answer ACCEPTED_STATUS when the events are accepted, an error when they are refused."""
        error = req.env.pop(ERROR, None)
        if error:
            raise error
        resp.data = self.post(req.env)
        resp.status = self.accepted
        resp.content_type = falcon.MEDIA_JSON

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 204 when the query is accepted as an event, an error when it is refused."""
        resp.set_header("Cache-Control", "no-store")  # a cache would swallow the next event
        self._take(req.env, self._queried)
        resp.status = falcon.HTTP_204

    def _take(
        self, environ: WSGIEnvironment, read: Callable[[WSGIEnvironment], Events]
    ) -> tuple[Events, Submission]:
        """Accept the events that ``read`` finds in a request, and count the result.

        Return them, and what became of them. Raises Refused.
        """
        started = time.perf_counter()
        counts = self._counts
        counts.count(metrics.REQUESTS)
        try:
            self._origins.check(environ)
            key = self._keys.find(environ) if self._keys else None
            if self._keys and not key:
                raise Refused("unauthorized", _NO_KEY)
            events = read(environ)
            accepted = self._pipeline.accept(self._context.of(environ, key), events.bodies)
        except Refused as refused:
            counts.count(metrics.REQUESTS_REJECTED[refused.reason])
            if refused.reason == "queue_full":
                counts.count(metrics.REQUESTS_QUEUE_FULL)
            self._seldom.warning("requests_refused", refused.reason, example=refused.description)
            self._keep(environ, [(None, refused)])
            raise
        except Exception as exc:
            counts.count(metrics.REQUESTS_REJECTED["internal_error"])
            self._seldom.exception("request_failed")
            raise Refused("internal_error", "the server failed; send it again later") from exc
        counts.count(metrics.REQUESTS_ACCEPTED)
        if key:
            counts.count(metrics.accepted_by_key(key), accepted.events)
        if events.refused:
            counts.count(metrics.EVENTS_REJECTED, len(events.refused))
            self._keep(environ, events.refused)
        counts.observe(metrics.REQUEST_SECONDS, time.perf_counter() - started)
        return events, accepted

    def _posted(self, environ: WSGIEnvironment) -> Events:
        gzipped = _names_gzip(environ)
        body = self._body.read(environ)
        content_type = environ.get("CONTENT_TYPE")
        if not body and environ.get("QUERY_STRING") and not content_type:
            return self._queried(environ)  # a beacon that is its URL alone
        self._pipeline.check_room()
        if gzipped or is_gzip(body):  # beacons can't name an encoding, and no text begins so
            body = inflate(body, self._max_bytes, give_turn_if_due)
        try:
            if len(body) <= _PIECE_BYTES:
                return self._intake.read(body, content_type)
            with self._reading:
                gc.disable()  # JSON has no cycles, and to look for some takes a third of the time
                try:
                    return self._intake.read(body, content_type)
                finally:
                    gc.enable()
        except Refused as refused:
            refused.source = body
            raise

    def _queried(self, environ: WSGIEnvironment) -> Events:
        self._pipeline.check_room()
        query = environ.get("QUERY_STRING", "").encode("latin-1")
        environ["QUERY_STRING"] = ""  # it is the event, and stands nowhere beside it
        try:
            return self._intake.read_query(query)
        except Refused as refused:
            refused.source = query
            raise

    def _keep(
        self, environ: WSGIEnvironment, refused: Iterable[tuple[int | None, Refused]]
    ) -> None:
        """Keep what was refused for its content, where REJECTED_PREFIX asks for it."""
        if not self._rejections:
            return
        key = self._keys.find(environ) if self._keys else None
        address = self._context.address(environ)
        for index, one in refused:
            if one.source is not None and one.reason not in _OF_THE_WHOLE:
                self._rejections.keep(one, index, key, address)
                give_turn_if_due()

    def on_options(self, req: falcon.Request, resp: falcon.Response, **_rest: str) -> None:
        """Answer a preflight, or a client that asks for the methods."""
        resp.status = falcon.HTTP_204
        resp.set_header("Allow", _METHODS)
        for name, value in cors.preflight(req.env, _METHODS):
            resp.set_header(name, value)


class _BodyTimeoutError(Exception):
    """The body did not arrive in time.

    It is no gevent.Timeout, which gunicorn's reader of chunks would survive.
    """


class _RequestBody:
    """Reads bodies of at most ``max_bytes``, each piece within ``read_seconds``."""

    def __init__(self, max_bytes: int, read_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._read_seconds = read_seconds

    def read(self, environ: WSGIEnvironment) -> bytes:
        """Return a request's body as it came, under either worker. Raises Refused."""
        body: bytes | None = environ.get(BODY)
        length = _content_length(environ) if body is None else len(body)
        if length and length > self._max_bytes:
            raise self._too_large(environ, f"{length} bytes; at most")
        if body is None:
            # chunked, or no body at all; one byte more than allowed tells that it is too large
            wanted = self._max_bytes + 1 if length is None else length
            body = self._read(environ["wsgi.input"], wanted)
            if len(body) > self._max_bytes:
                raise self._too_large(environ, "over")
            if length and len(body) < length:
                raise Refused("incomplete_body", f"{len(body)} bytes of {length} arrived")
        return body

    def _read(self, stream: InputStream, size: int) -> bytes:
        """Read at most ``size`` bytes, each piece in time. Raises Refused."""
        pieces = []
        while size > 0:
            wanted = min(size, _PIECE_BYTES)
            try:
                with gevent.Timeout(self._read_seconds, _BodyTimeoutError):
                    piece: bytes = stream.read(wanted)
            except _BodyTimeoutError as late:
                raise Refused(
                    "body_timeout", f"the body did not arrive within {self._read_seconds:g}s"
                ) from late
            except Exception as exc:
                if not _is_the_clients(exc):
                    raise
                raise Refused(
                    "incomplete_body", f"the body could not be read: {type(exc).__name__}"
                ) from exc
            pieces.append(piece)
            size -= len(piece)
            if len(piece) < wanted:
                break
        return b"".join(pieces)

    def _too_large(self, environ: WSGIEnvironment, found: str) -> Refused:
        """Return the refusal of a body, and let more of it be read than of others unwanted."""
        environ[UNREAD_BYTES] = _TOO_LARGE_BYTES
        return Refused("too_large", f"the body has {found} {self._max_bytes} (MAX_BATCH_BODY_SIZE)")


def _is_the_clients(error: Exception) -> bool:
    """Tell whether a client caused what reading its body raised; else it may send it again.

    gunicorn's errors about a body that is malformed or cut off have no base of their own.
    """
    return (
        isinstance(error, ConnectionError | TimeoutError | ssl.SSLError)
        or type(error).__module__.startswith("gunicorn.http")  # and http2
    )


def _content_length(environ: WSGIEnvironment) -> int | None:
    """Return the length that a request names; None if it names none. Raises Refused."""
    text = environ.get("CONTENT_LENGTH")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise Refused("incomplete_body", "Content-Length is no number")
    return int(text)


def _names_gzip(environ: WSGIEnvironment) -> bool:
    """Tell whether a request names gzip as its encoding, or none. Raises Refused for others."""
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    name = encoding.strip().lower()
    if name in _PLAIN_CODINGS:
        return False
    if name not in _GZIP_CODINGS:
        raise Refused(
            "unsupported_encoding",
            f"{shown(encoding, 100)} is not supported; send gzip or nothing",
            environ.get(BODY, b""),
        )
    return True


def _answer(events: Events, accepted: Submission) -> bytes:
    count, first = accepted.events, accepted.first
    told: dict[str, object] = {"accepted": count}
    if events.batch:
        told["rejected"] = len(events.refused)
        told["errors"] = [{"index": index, "reason": reason} for index, reason in events.errors]
    if first:
        last = EventId(first.stream, first.number + count - 1)
        told["ids"] = [str(first), str(last)]
    if accepted.on_disk_alone:
        told["kept"] = "disk"
    return json_text.dump(told)
