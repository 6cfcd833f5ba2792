"""Cuts a long text of JSON into short ones, so that others have their turn. A rule without I/O.

Only quotes, brackets and the commas between elements are looked at. What is JSON is left to whoever
reads the short texts, which come to the same events, and break where the long one breaks.
"""

import re
from collections.abc import Callable, Iterator

from estat.events.json_text import MAX_DEPTH

#: Bytes that are read at once; a longer element of an array is read alone.
PART_BYTES = 8 * 1024

#: A part that is longer is one value, or an array of one.
MOST_PART_BYTES = 2 * PART_BYTES + 2

#: Values that are read in about two milliseconds.
_FEW_VALUES = 16 * 1024

#: After so many matches, which take microseconds, others may have their turn.
_TURN_MATCHES = 16

# What is looked for: a match takes a bounded time, so it may end in front of a mark. No group is
# possessive: Python before 3.11.5 matches too little then.
# https://github.com/python/cpython/issues/106052
_PLAIN = rb'(?:[^"\[\]{}]++|"[^"]*+")'
_AT_TOP = re.compile(rb"%b|([\[{])" % _PLAIN)
_IN_ARRAY = re.compile(rb'(?:[^"\[\]{},]++|"[^"]*+"){0,500}([\[\]{},])?')
_INSIDE = re.compile(
    rb"(?:%b|\[%b{0,20}\]|\{%b{0,20}\}){0,100}([\[{]++|[\]}]++)?" % (_PLAIN, _PLAIN, _PLAIN)
)
_DEEPEST = re.compile(rb"%b{0,500}([\[\]{}])?" % _PLAIN)


def has_few_values(data: bytes) -> bool:
    """Tell whether all of a text of a MiB is read in a few milliseconds, if it is JSON."""
    most = len(data) // 2
    return most <= _FEW_VALUES or sum(map(data.count, (b",", b"[", b"{"))) <= _FEW_VALUES


def parts(data: bytes, give_turn: Callable[[], None]) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield short texts, each behind the places where its value and it begin.

    An array at the top comes as several, with an element of more than PART_BYTES alone in one.
    None stands for a value that is nested too deeply. Raises ValueError where nothing can be cut
    off.
    """
    value = start = element = 0
    in_array = False
    for at, mark in _marks(data, give_turn):
        end = at - 1
        if not mark:
            yield value, start, None
        elif mark in b"[{":
            value, in_array = end, mark == b"["
            start = element = at if in_array else end
        elif not in_array:
            if data[start:at].strip(b" \t\r\n"):
                yield value, start, data[start:at]
            value = start = at
        else:
            if element > start and end - element > PART_BYTES:
                yield value, start - 1, _array(data, start, element - 1)
                start = element
            if mark != b",":
                is_empty = start == value + 1 and not data[start:end].strip()
                last = data[value:at] if is_empty else _array(data, start, end, mark)
                yield value, start - 1, last
                value, start, in_array = at, at, False
            elif end - start > PART_BYTES:
                yield value, start - 1, _array(data, start, end)
                start = at
            element = at


def _array(data: bytes, start: int, end: int, closing: bytes = b"]") -> bytes:
    """Return some elements of an array as one. Raises ValueError if there are none."""
    elements = data[start:end]
    if not elements.strip():
        raise ValueError(f"Expecting value: char {start}")
    return b"[%b%b" % (elements, closing)


def _marks(data: bytes, give_turn: Callable[[], None]) -> Iterator[tuple[int, bytes]]:
    """Yield what begins or ends something at the top, behind the place where that is done.

    It is a bracket there, a comma in an array there, a space for a text between values, or nothing
    for a bracket that is nested too deeply. Raises ValueError.
    """
    marked = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")  # no quote within a string
    at = depth = steps = 0
    in_array = False
    while at < len(data):
        steps += 1
        if steps % _TURN_MATCHES == 0:
            give_turn()
        mark, at = _next(_pattern(depth, in_array), marked, at)
        if mark[0] in b"[{":
            depth += len(mark)
            if depth == 1:
                in_array = mark == b"["
            elif depth > MAX_DEPTH:
                mark = b""
            else:
                continue
        elif mark[0] in b"]}":
            closed = min(len(mark), depth - in_array or 1)
            at += closed - len(mark)
            depth -= closed
            if depth:
                continue
            mark = data[at - 1 : at]
        elif mark == b" " and depth:
            continue
        yield at, mark
    if depth:
        raise ValueError(f"the text ends within a value: char {at}")


def _pattern(depth: int, in_array: bool) -> re.Pattern[bytes]:
    if not depth:
        return _AT_TOP
    if depth == in_array:
        return _IN_ARRAY
    return _INSIDE if depth != MAX_DEPTH else _DEEPEST


def _next(pattern: re.Pattern[bytes], marked: bytes, at: int) -> tuple[bytes, int]:
    found = pattern.match(marked, at)
    if not found or found.end() == at:
        what = "Unterminated string starting at" if marked[at] == ord('"') else "Expecting value"
        raise ValueError(f"{what}: char {at}")
    return found[1] or b" ", found.end()
