"""Reads the events out of a request's body or query: bytes in, finished JSON out.

A rule without I/O. How a body is read:

    A byte order mark is passed over. The body is one JSON value, or lines, or values one after
    the other. It is lines if the type names lines, or if the first line that is not blank is one
    or more whole values: then each line is read by itself, and one that is not whole values is
    rejected whole. Otherwise the text is read from its beginning, and refused whole where its
    syntax breaks, behind the last value, too. Nothing is read from the inside of a value that
    was refused. An array stands for its elements, at the top only.

An event that can't be taken is rejected alone, with its index in the order of the text. If it is
the only value, and no array, it refuses the request.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar

from estat.errors import Refused
from estat.events import charsets, form, json_text
from estat.events.json_text import MAX_DEPTH, TooDeep
from estat.events.schema import Mismatch, Schema
from estat.text import shown

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"  # RFC 8259, 8.1

_LINES, _TEXT, _FORM = "lines", "text", "form"

#: The media types of each kind.
_KINDS = {
    _LINES: re.compile(r"(application|text)/(x-)?(nd-?json|ld-?json|json-?lines?|jsonl|json-?seq)"),
    _TEXT: re.compile(
        r"|(application|text)/(x-)?json|[^/]+/[^/]+\+json|application/(csp-report|octet-stream)"
        r"|text/plain"
    ),
    _FORM: re.compile(r"application/x-www-form-urlencoded"),
}

#: After so many events others may have their turn.
_TURN_EVENTS = 4

_CHARSET = re.compile(r"""(?i);\s*charset\s*=\s*["']?([^"';]+)""")

#: Errors that an answer lists; the rest is only counted.
MAX_ERRORS = 20


class Events(NamedTuple):
    """The events of one request."""

    bodies: list[bytes]
    batch: bool  # whether the answer counts them, for they did not come as one single object
    #: The rejected ones, with their index among all.
    refused: list[tuple[int, Refused]] = []  # noqa: RUF012 - replaced, never changed

    @property
    def errors(self) -> list[tuple[int, str]]:
        """What an answer tells of them."""
        return [(index, one.description) for index, one in self.refused[:MAX_ERRORS]]


#: What comes of one event: its JSON, or why it is rejected.
_Outcome: TypeAlias = bytes | Refused


class Intake:
    """Reads bodies and queries within the limits of the settings (bytes, events).

    With a schema an event must be as that says, too. ``charset`` is the codec for fields of
    queries and forms that are not UTF-8 and name no encoding. ``give_turn`` is called now and
    then while a large body is read.
    """

    def __init__(
        self,
        max_event_bytes: int,
        max_events: int,
        schema: Schema | None = None,
        charset: str | None = None,
        give_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_event_bytes = max_event_bytes
        self._max_events = max_events
        self._schema = schema
        self._charset = charset
        self._give_turn = give_turn

    def read(self, body: bytes, content_type: str | None) -> Events:
        """Return the events of a body. Raises Refused with the reason."""
        kind = _kind(content_type)
        body = body.removeprefix(_BOM)
        if not body or body.isspace():
            raise Refused("empty_body", "the request has no event")
        if kind is _FORM:
            return self._form(body.strip(), content_type or "")
        if kind is _LINES:
            return self._batch(self._lines(body))
        try:
            value = json_text.load(body)
        except ValueError:
            outcomes = self._lines(body) if self._is_lines(body) else self._text(body)
        else:
            if type(value) is dict:
                return Events([self._event(value, body)], batch=False)
            outcomes = self._value(value, body)
        if len(outcomes) == 1 and body.lstrip()[:1] != b"[":
            (outcome,) = outcomes
            if isinstance(outcome, Refused):
                raise outcome
            return Events([outcome], batch=False)
        return self._batch(outcomes)

    def read_query(self, query: bytes) -> Events:
        """Return the event that a query is. Raises Refused with the reason."""
        return self._fields(query, self._charset)

    def _form(self, body: bytes, content_type: str) -> Events:
        if not form.is_form(body):
            raise Refused(
                "invalid_form", "this is no form; for JSON send Content-Type: application/json"
            )
        named = _CHARSET.search(content_type)
        return self._fields(body, (named and charsets.codec(named[1])) or self._charset)

    def _fields(self, data: bytes, charset: str | None) -> Events:
        self._check_size(data)
        return Events([self._checked(form.parse(data, charset))], batch=False)

    def _is_lines(self, body: bytes) -> bool:
        """Tell whether the first line that is not blank is one or more whole values."""
        try:
            for _ in self._first(json_text.pieces(json_text.decode(next(_lines(body))))):
                pass
        except ValueError:
            return False
        return True

    def _lines(self, body: bytes) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        for number, line in enumerate(_lines(body)):
            if number % _TURN_EVENTS == 0:
                self._give_turn()
            try:
                value = json_text.load(line)
                if type(value) is dict:
                    outcomes.append(self._event(value, line))
                else:
                    outcomes += self._value(value, line)
            except ValueError:
                outcomes += self._line(line)
            except Refused as refusal:
                refusal.source = line
                outcomes.append(refusal)
            if len(outcomes) > self._max_events:
                break
        return outcomes

    def _line(self, line: bytes) -> list[_Outcome]:
        """Take a line that is not one value as ``load`` reads it, or reject it whole."""
        try:
            return self._text(line)
        except Refused as refusal:
            refusal.source = line
            return [refusal]

    def _text(self, source: bytes) -> list[_Outcome]:
        """Take one or more values. Raises Refused if the text is anything else."""
        try:
            pieces = list(self._first(json_text.pieces(json_text.decode(source))))
        except ValueError as exc:
            if source.lstrip()[:1] == b"{":
                self._check_size(source)
            raise Refused("invalid_json", str(exc)) from exc
        return list(self._first(outcome for piece in pieces for outcome in self._piece(piece)))

    def _piece(self, piece: str) -> Iterable[_Outcome]:
        """Take a value that ``load`` may not be able to read."""
        try:
            data = json_text.checked(piece)
        except ValueError as exc:
            if piece[0] != "[" or isinstance(exc, TooDeep):
                return [Refused("invalid_json", str(exc), json_text.encode(piece))]
            elements = json_text.elements(piece)
            return self._elements(self._element_text, elements, json_text.encode(piece))
        return self._value(json_text.load_exactly(data), data)

    def _value(self, value: Any, source: bytes) -> list[_Outcome]:
        """Take the events that a value at the top stands for; ``source`` is its text."""
        if type(value) is not list:
            try:
                return [self._event(value, source)]
            except Refused as refusal:
                refusal.source = source
                return [refusal]
        outcomes = self._elements(self._element, value, source)
        if self._schema or any(map(_may_be_rounded, outcomes)):
            return self._elements(self._element, json_text.load_exactly(source), source)
        return outcomes

    def _elements(
        self, take: Callable[[T], _Outcome], elements: Iterable[T], source: bytes
    ) -> list[_Outcome]:
        """Take the elements of an array; one that is nested too deeply concerns all of it."""
        outcomes = []
        for number, element in enumerate(self._first(elements)):
            if number % _TURN_EVENTS == 0:
                self._give_turn()
            try:
                outcomes.append(take(element))
            except TooDeep as exc:
                return [Refused("invalid_json", str(exc), source)]
        return outcomes

    def _element_text(self, element: str) -> _Outcome:
        try:
            return self._element(json_text.load_exactly(json_text.checked(element)))
        except TooDeep:
            raise
        except ValueError as exc:
            return Refused("invalid_json", str(exc), json_text.encode(element))

    def _element(self, value: Any) -> _Outcome:
        """Take an element of an array. Raises TooDeep, which concerns the whole array."""
        try:
            encoded = self._checked(value, MAX_DEPTH - 1)
            self._check_size(encoded)
        except Refused as refusal:
            refusal.source = value
            return refusal
        return encoded

    def _event(self, value: Any, source: bytes) -> bytes:
        """Return a value at the top as an event. Raises Refused."""
        if len(source) > self._max_event_bytes:
            self._check_size(source.strip())
        try:
            encoded = self._checked(value)
            if self._schema or json_text.may_be_rounded(encoded):
                encoded = self._checked(json_text.load_exactly(source))
        except TooDeep as exc:
            raise Refused("invalid_json", str(exc)) from exc
        return encoded

    def _checked(self, value: Any, levels: int = MAX_DEPTH) -> bytes:
        if type(value) is not dict:
            raise Refused("not_an_object", "an event must be a JSON object")
        encoded = json_text.dump(value, levels)
        if self._schema:
            try:
                self._schema.check(value)
            except Mismatch as exc:
                raise Refused("schema_mismatch", str(exc)) from exc
        return encoded

    def _check_size(self, source: bytes) -> None:
        if len(source) > self._max_event_bytes:
            raise Refused(
                "too_large", f"the event has {len(source)} bytes; at most {self._max_event_bytes}"
            )

    def _first(self, items: Iterable[T]) -> Iterable[T]:
        """Return as many items as may come in one request, and one more, which tells of others."""
        return islice(items, self._max_events + 1)

    def _batch(self, outcomes: list[_Outcome]) -> Events:
        """Return what came of several events. Raises Refused if none of them is valid."""
        if len(outcomes) > self._max_events:
            raise Refused("too_many_events", f"more than {self._max_events} events in one request")
        bodies = [outcome for outcome in outcomes if type(outcome) is bytes]
        if len(bodies) == len(outcomes):
            if not bodies:
                raise Refused("empty_body", "the array has no event")
            return Events(bodies, True)
        refused = [(n, one) for n, one in enumerate(outcomes) if isinstance(one, Refused)]
        if not bodies:
            index, first = refused[0]
            reason = f"no event is valid; event {index}: {first.description}"
            raise Refused("no_valid_event", reason)
        return Events(bodies, True, refused)


def _lines(body: bytes) -> Iterator[bytes]:
    """Yield the lines that are not blank, one by one: very many would take much memory."""
    return (line for line in BytesIO(body) if not line.isspace())


def _may_be_rounded(outcome: _Outcome) -> bool:
    return type(outcome) is bytes and json_text.may_be_rounded(outcome)


@lru_cache(maxsize=256)
def _kind(content_type: str | None) -> str:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    for kind, pattern in _KINDS.items():
        if pattern.fullmatch(media_type):
            return kind
    raise Refused(
        "unsupported_type",
        f"{shown(media_type, 100)} is not supported; send application/json or application/x-ndjson",
    )
