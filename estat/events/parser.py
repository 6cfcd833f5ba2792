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
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import groupby, islice
from json import JSONDecodeError
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from estat.errors import Refused
from estat.events import charsets, form, json_text, long_text, media_type
from estat.events.json_text import MAX_DEPTH, TooDeep
from estat.events.schema import Mismatch, Schema

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"  # RFC 8259, 8.1
_RS = b"\x1e"  # begins each text of a sequence (RFC 7464)

#: Lines that are read at once, which takes a millisecond at most; others have their turn between.
_LINES_BYTES = 16 * 1024

#: An event of more than so many times MAX_BODY_SIZE, without white space, is not read. A sixth
#: may be left of escapes.
_BY_FAR = 6

_NO_EVENT = re.compile(r"\[[ \t\r\n]*\]")

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
        self._short_bytes = max(max_event_bytes, long_text.MOST_PART_BYTES)
        self._max_events = max_events
        self._schema = schema
        self._charset = charset
        self._give_turn = give_turn

    def read(self, body: bytes, content_type: str | None) -> Events:
        """Return the events of a body. Raises Refused with the reason."""
        kind = media_type.kind(content_type)
        body = body.removeprefix(_BOM)
        if not body or body.isspace():
            raise Refused("empty_body", "the request has no event")
        if kind is media_type.FORM:
            return self._form(body.strip(), content_type or "")
        if kind is media_type.LINES:
            if _RS in body:
                body = body.removeprefix(_RS).replace(b"\n" + _RS, b"\n")
            return self._batch(self._lines(BytesIO(body), []))
        if event := self._plain(body):
            return Events([event], batch=False)
        if len(body) > self._short_bytes and not long_text.has_few_values(body):
            outcomes = self._values(body)
        else:
            try:
                outcomes = self._value(json_text.load(body), body)
            except ValueError:
                outcomes = self._values(body)
        if len(outcomes) == 1 and body.lstrip()[:1] != b"[":
            (outcome,) = outcomes
            if isinstance(outcome, Refused):
                raise outcome
            return Events([outcome], batch=False)
        return self._batch(outcomes)

    def read_query(self, query: bytes) -> Events:
        """Return the event that a query is. Raises Refused with the reason."""
        return self._fields(query, self._charset)

    def _plain(self, source: bytes) -> bytes | None:
        """Return an event that is one plain object; None for what must be looked at closely."""
        if source[:1] != b"{" or len(source) > self._max_event_bytes or self._schema:
            return None
        try:
            encoded = json_text.dump(json_text.load(source))
        except ValueError:
            return None
        return None if json_text.may_be_rounded(encoded) else encoded

    def _form(self, body: bytes, content_type: str) -> Events:
        if not form.is_form(body):
            raise Refused(
                "invalid_form", "this is no form; for JSON send Content-Type: application/json"
            )
        named = _CHARSET.search(content_type)
        return self._fields(body, (named and charsets.codec(named[1])) or self._charset)

    def _fields(self, data: bytes, charset: str | None) -> Events:
        check_size(data, self._max_event_bytes)
        return Events([self._checked(form.parse(data, charset))], batch=False)

    def _values(self, body: bytes) -> list[_Outcome]:
        """Take lines, or other values. It is lines if the first one is one or more whole values."""
        self._give_turn()
        lines = BytesIO(body)
        lines.seek(body.rfind(b"\n", 0, len(body) - len(body.lstrip())) + 1)
        first = lines.readline()  # that is not blank
        if len(first) == len(body):
            return self._text(body)
        try:
            outcomes = self._text(first)
        except Refused:
            return self._text(body)
        return self._lines(lines, outcomes)

    def _lines(self, body: BytesIO, outcomes: list[_Outcome]) -> list[_Outcome]:
        """Take lines, some at a time: very many would take much memory."""
        while len(outcomes) <= self._max_events and (lines := body.readlines(_LINES_BYTES)):
            self._give_turn()
            may_be_plain = not self._schema and max(map(len, lines)) <= self._max_event_bytes
            if may_be_plain and (events := self._plain_events(json_text.load_all(lines))):
                outcomes += events
            else:
                self._each(lines, outcomes)
        return outcomes

    def _plain_events(self, values: list[Any]) -> list[bytes]:
        """Return values that are events; none if one of them must be looked at closely."""
        if self._schema or set(map(type, values)) != {dict} or len(values) > self._max_events:
            return []
        events = json_text.dump_all(values)
        return events if max(map(len, events), default=0) <= self._max_event_bytes else []

    def _each(self, lines: list[bytes], outcomes: list[_Outcome]) -> None:
        """Add what comes of lines one by one, those that are blank left out."""
        for line in lines:
            if line.isspace():
                continue
            self._give_turn()
            event = self._plain(line)
            try:
                outcomes += [event] if event else self._text(line)
            except Refused as refusal:
                outcomes.append(_rejected(refusal, line))
            if len(outcomes) > self._max_events:
                return

    def _text(self, source: bytes) -> list[_Outcome]:
        """Take one or more values. Raises Refused if the text is anything else."""
        try:
            if len(source) <= self._short_bytes:
                with suppress(TooDeep):  # where that value ends, brackets tell
                    return self._short(source)
            elif long_text.has_few_values(source):
                with suppress(ValueError):
                    return self._value(json_text.load(source), source)
            return self._long(source)
        except ValueError as exc:
            if source.lstrip()[:1] == b"{":
                check_size(source, self._max_event_bytes)
            raise Refused("invalid_json", str(exc)) from exc

    def _short(self, source: bytes) -> list[_Outcome]:
        """Take one or more values at once. Raises ValueError if the text is anything else."""
        try:
            value = json_text.load(source)
        except ValueError:
            pieces = list(self._first(self._pieces(source)))
            return list(self._first(outcome for piece in pieces for outcome in self._piece(piece)))
        return self._value(value, source)

    def _pieces(self, source: bytes) -> Iterator[str]:
        """Yield the text of each value that is no empty array. Raises ValueError."""
        for piece in json_text.pieces(json_text.decode(source)):
            self._give_turn()
            if not _NO_EVENT.fullmatch(piece):
                yield piece

    def _long(self, source: bytes) -> list[_Outcome]:
        """Take one or more values bit by bit. Raises ValueError if the text is anything else."""
        self._give_turn()
        outcomes: list[_Outcome] = []
        for value, group in groupby(long_text.parts(source, self._give_turn), itemgetter(0)):
            found: list[_Outcome] = []
            end = 0  # of a value that is nested too deeply
            for _, start, part in group:
                self._give_turn()
                if part is None or end:
                    end = start + len(part or b"")
                    continue
                try:
                    found += self._unread(part) or self._short(part)
                except JSONDecodeError as exc:
                    raise ValueError(f"{exc.msg}: char {start + exc.pos}") from exc
                if len(outcomes) + len(found) > self._max_events:
                    return outcomes + found
            if end:
                found = [Refused("invalid_json", str(TooDeep()), source[value:end])]
            outcomes += found
        return outcomes

    def _unread(self, part: bytes) -> list[_Outcome]:
        """Reject a single value that is by far too large, or return nothing."""
        if len(part) <= long_text.MOST_PART_BYTES:
            return []
        bare = part.translate(None, b" \t\r\n").removeprefix(b"[")
        if len(bare) <= _BY_FAR * self._max_event_bytes:
            return []
        if bare[:1] == b"{":
            refused = _too_large(len(bare), self._max_event_bytes)
        elif bare[0] in b'["-0123456789':
            refused = _no_object()
        else:
            return []
        refused.source = bare
        return [refused]

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
                return [_rejected(refusal, source)]
        self._give_turn()
        if events := self._plain_events(value):
            return [*events]
        outcomes = self._elements(self._element, value, source)
        if self._schema or any(map(_may_be_rounded, outcomes)):
            return self._elements(self._element, json_text.load_exactly(source), source)
        return outcomes

    def _elements(
        self, take: Callable[[T], _Outcome], elements: Iterable[T], source: bytes
    ) -> list[_Outcome]:
        """Take the elements of an array; one that is nested too deeply concerns all of it."""
        outcomes = []
        for element in self._first(elements):
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
            check_size(encoded, self._max_event_bytes)
        except Refused as refusal:
            # not the value itself: that takes thirty times as much memory
            return _rejected(refusal, json_text.dump(value, sys.maxsize))
        return encoded

    def _event(self, value: Any, source: bytes) -> bytes:
        """Return a value at the top as an event. Raises Refused."""
        if len(source) > self._max_event_bytes:
            check_size(source.strip(), self._max_event_bytes)
        try:
            encoded = self._checked(value)
            if self._schema or json_text.may_be_rounded(encoded):
                encoded = self._checked(json_text.load_exactly(source))
        except TooDeep as exc:
            raise Refused("invalid_json", str(exc)) from exc
        return encoded

    def _checked(self, value: Any, levels: int = MAX_DEPTH) -> bytes:
        encoded = json_text.dump(value, levels)
        if type(value) is not dict:
            raise _no_object()
        if self._schema:
            try:
                self._schema.check(value)
            except Mismatch as exc:
                raise Refused("schema_mismatch", str(exc)) from exc
        return encoded

    def _first(self, items: Iterable[T]) -> Iterable[T]:
        """Return as many items as may come in one request, and one more, which tells of others."""
        return islice(items, self._max_events + 1)

    def _batch(self, outcomes: list[_Outcome]) -> Events:
        """Return what came of several events. Raises Refused if none of them is valid."""
        if len(outcomes) > self._max_events:
            raise Refused(
                "too_many_events", f"more than {self._max_events} events (MAX_BATCH_EVENTS)"
            )
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


def check_size(event: bytes, max_bytes: int) -> None:
    """Raise Refused if an event has more than ``max_bytes``."""
    if len(event) > max_bytes:
        raise _too_large(len(event), max_bytes)


def _rejected(refusal: Refused, source: bytes) -> Refused:
    """Return a caught refusal of an event anew: its traceback would keep all that is read."""
    return Refused(refusal.reason, refusal.description, source)


def _too_large(size_bytes: int, max_bytes: int) -> Refused:
    text = f"the event has {size_bytes} bytes; at most {max_bytes} (MAX_BODY_SIZE)"
    return Refused("too_large", text)


def _no_object() -> Refused:
    return Refused("not_an_object", "an event must be a JSON object")


def _may_be_rounded(outcome: _Outcome) -> bool:
    return type(outcome) is bytes and json_text.may_be_rounded(outcome)
