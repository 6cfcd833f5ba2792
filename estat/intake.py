"""Reads the events out of a request's body: bytes in, finished JSON out.

A rule without I/O. Events that are not valid are refused by themselves when
the body is a batch (a JSON array or NDJSON) and refuse the request otherwise.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from estat import event
from estat.errors import Refused

_JSON = ("application/json",)
_NDJSON = ("application/x-ndjson", "application/jsonl")
_EITHER = ("", "text/plain")  # navigator.sendBeacon sends text/plain
_ALL = _JSON + _NDJSON + _EITHER

#: Errors that an answer lists; the rest is only counted.
MAX_ERRORS = 20


class Events(NamedTuple):
    """The events of one request."""

    bodies: list[bytes]
    batch: bool
    rejected: int = 0
    errors: list[tuple[int, str]] = []  # noqa: RUF012 - replaced, never changed


class Intake:
    """Parses and checks request bodies within the limits of the settings (bytes, events)."""

    def __init__(self, max_event_bytes: int, max_events: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._max_events = max_events

    def read(self, body: bytes, content_type: str | None) -> Events:
        """Return the events of a body. Raises Refused with the reason."""
        media_type = _media_type(content_type)
        if media_type not in _ALL:
            raise Refused(
                "unsupported_type",
                f"{media_type[:100]} is not supported; send application/json or "
                "application/x-ndjson",
            )
        if not body or body.isspace():
            raise Refused("empty_body", "the request has no event")
        if media_type in _NDJSON:
            return self._lines(body)
        try:
            return self._value(event.parse(_text(body)), len(body))
        except ValueError as exc:
            if media_type in _EITHER and b"\n" in body.strip():
                return self._lines(body)
            raise Refused("invalid_json", str(exc)) from exc

    def _value(self, value: Any, size: int) -> Events:
        if isinstance(value, dict):
            if size > self._max_event_bytes:
                raise Refused("too_large", self._too_large(size))
            return Events([event.encode(value)], batch=False)
        if not isinstance(value, list):
            raise Refused("not_an_object", "an event must be a JSON object")
        if not value:
            raise Refused("empty_body", "the array has no event")
        self._check_count(len(value))
        return self._check_each(value, self._element)

    def _lines(self, body: bytes) -> Events:
        lines = [line for line in body.split(b"\n") if line and not line.isspace()]
        self._check_count(len(lines))
        return self._check_each(lines, self._line)

    def _check_each(self, items: list[Any], read: Any) -> Events:
        bodies: list[bytes] = []
        errors: list[tuple[int, str]] = []
        rejected = 0
        for index, item in enumerate(items):
            try:
                bodies.append(read(item))
            except ValueError as exc:
                rejected += 1
                if len(errors) < MAX_ERRORS:
                    errors.append((index, str(exc)))
        if not bodies:
            index, reason = errors[0]
            raise Refused("no_valid_event", f"no event is valid; event {index}: {reason}")
        return Events(bodies, True, rejected, errors)

    def _line(self, line: bytes) -> bytes:
        if len(line) > self._max_event_bytes:
            size = len(line.rstrip(b"\r"))
            if size > self._max_event_bytes:
                raise ValueError(self._too_large(size))
        return self._object(event.parse(_text(line)))

    def _element(self, value: Any) -> bytes:
        encoded = self._object(value)
        if len(encoded) > self._max_event_bytes:
            raise ValueError(self._too_large(len(encoded)))
        return encoded

    @staticmethod
    def _object(value: Any) -> bytes:
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - a client's error, not a type's
        return event.encode(value)

    def _check_count(self, count: int) -> None:
        if count > self._max_events:
            raise Refused(
                "too_many_events", f"{count} events; at most {self._max_events} in one request"
            )

    def _too_large(self, size: int) -> str:
        return f"the event has {size} bytes; at most {self._max_event_bytes}"


@lru_cache(maxsize=256)
def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"not UTF-8: {exc.reason} (byte {exc.start})") from exc
