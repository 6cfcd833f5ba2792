"""Reads the events out of a request's body or query: bytes in, finished JSON out.

A rule without I/O. Events that are not valid are refused by themselves when
the body is a batch (a JSON array or NDJSON) and refuse the request otherwise.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from estat.errors import Refused
from estat.events import form, stored_line
from estat.events.schema import Mismatch, Schema
from estat.events.text import excerpt

_JSON = ("application/json",)
_NDJSON = ("application/x-ndjson", "application/jsonl")
_EITHER = ("", "text/plain")  # navigator.sendBeacon sends text/plain
_FORM = ("application/x-www-form-urlencoded",)
_LINE = re.compile(rb"\S[^\n]*")  # that is not blank
_ALL = _JSON + _NDJSON + _EITHER + _FORM

#: After so many events others may have their turn.
_TURN_EVENTS = 4

#: Errors that an answer lists; the rest is only counted.
MAX_ERRORS = 20


class Events(NamedTuple):
    """The events of one request."""

    bodies: list[bytes]
    batch: bool
    rejected: int = 0
    errors: list[tuple[int, str]] = []  # noqa: RUF012 - replaced, never changed


class Intake:
    """Parses and checks request bodies within the limits of the settings (bytes, events).

    With a schema an event must be as that says, too. ``give_turn`` is called now and then while
    a large body is read.
    """

    def __init__(
        self,
        max_event_bytes: int,
        max_events: int,
        schema: Schema | None = None,
        give_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_event_bytes = max_event_bytes
        self._max_events = max_events
        self._schema = schema
        self._give_turn = give_turn
        self._encode = self._checked if schema else stored_line.encode

    def read(self, body: bytes, content_type: str | None) -> Events:
        """Return the events of a body. Raises Refused with the reason."""
        media_type = _media_type(content_type)
        if media_type not in _ALL:
            raise Refused(
                "unsupported_type",
                f"{excerpt(media_type, 100)} is not supported; send application/json or "
                "application/x-ndjson",
            )
        if not body or body.isspace():
            raise Refused("empty_body", "the request has no event")
        if media_type in _NDJSON:
            return self._lines(body)
        if media_type in _FORM:
            return self._form(body)
        if len(body) > self._max_event_bytes and media_type in _JSON and _begins_object(body):
            raise Refused("too_large", self._too_large(len(body)))  # spares parsing it
        try:
            return self._json(body)
        except Mismatch as exc:
            raise Refused("schema_mismatch", str(exc)) from exc
        except ValueError as exc:
            if media_type in _EITHER and b"\n" in body.strip():
                return self._lines(body)
            raise Refused("invalid_json", str(exc)) from exc

    def read_query(self, query: bytes) -> Events:
        """Return the event that a query is. Raises Refused with the reason."""
        if len(query) > self._max_event_bytes:
            raise Refused("too_large", self._too_large(len(query)))
        try:
            return Events([self._encode(form.parse(query))], batch=False)
        except Mismatch as exc:
            raise Refused("schema_mismatch", str(exc)) from exc

    def _form(self, body: bytes) -> Events:
        if body.lstrip()[:1] in (b"{", b"["):  # a form escapes them
            raise Refused(
                "invalid_form", "this is no form; for JSON send Content-Type: application/json"
            )
        return self.read_query(body)

    def _json(self, body: bytes) -> Events:
        if self._schema is None:  # which has to see the exact numbers
            try:
                events = self._value(stored_line.parse_quickly(body), len(body))
            except ValueError:
                pass
            else:
                if not any(map(stored_line.may_be_rounded, events.bodies)):
                    return events
        return self._value(stored_line.parse(_text(body)), len(body))

    def _value(self, value: Any, size: int) -> Events:
        if isinstance(value, dict):
            if size > self._max_event_bytes:
                raise Refused("too_large", self._too_large(size))
            return Events([self._encode(value)], batch=False)
        if not isinstance(value, list):
            raise Refused("not_an_object", "an event must be a JSON object")
        if not value:
            raise Refused("empty_body", "the array has no event")
        self._check_count(len(value))
        return self._check_each(value, self._element)

    def _lines(self, body: bytes) -> Events:
        # one by one: far too many would take far too much memory
        lines = [found[0] for found in islice(_LINE.finditer(body), self._max_events + 1)]
        self._check_count(len(lines))
        return self._check_each(lines, self._line)

    def _check_each(self, items: list[Any], read: Any) -> Events:
        bodies: list[bytes] = []
        errors: list[tuple[int, str]] = []
        rejected = 0
        for index, item in enumerate(items):
            if index % _TURN_EVENTS == 0:
                self._give_turn()
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
            size = len(line.rstrip(b"\r\n"))
            if size > self._max_event_bytes:
                raise ValueError(self._too_large(size))
        if self._schema is None:
            try:
                encoded = self._object(stored_line.parse_quickly(line))
            except ValueError:
                pass
            else:
                if not stored_line.may_be_rounded(encoded):
                    return encoded
        return self._object(stored_line.parse(_text(line)))

    def _element(self, value: Any) -> bytes:
        encoded = self._object(value)
        if len(encoded) > self._max_event_bytes:
            raise ValueError(self._too_large(len(encoded)))
        return encoded

    def _object(self, value: Any) -> bytes:
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - a client's error, not a type's
        return self._encode(value)

    def _checked(self, value: Any) -> bytes:
        encoded = stored_line.encode(value)
        if self._schema:
            self._schema.check(value, encoded)
        return encoded

    def _check_count(self, count: int) -> None:
        if count > self._max_events:
            raise Refused(
                "too_many_events",
                f"at least {count} events; at most {self._max_events} in one request",
            )

    def _too_large(self, size: int) -> str:
        return f"the event has {size} bytes; at most {self._max_event_bytes}"


@lru_cache(maxsize=256)
def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _begins_object(data: bytes) -> bool:
    return data.lstrip()[:1] == b"{"


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"not UTF-8: {exc.reason} (byte {exc.start})") from exc
