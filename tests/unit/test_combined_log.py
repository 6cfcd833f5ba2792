"""An access log's line becomes an event, with its escapes undone."""

import json
from typing import Any

import pytest

from estat.cli import combined_log

_START = b'192.0.2.1 - - [17/May/2024:10:05:03 +0000] "GET / HTTP/1.1" 200 5 '


def _event(line: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(combined_log.hit_of(line).event)
    return event


def _referrer(field: bytes) -> Any:
    return _event(_START + b'"' + field + b'" "-"')["referrer"]


def _request(field: bytes) -> dict[str, Any]:
    line = b'192.0.2.1 - - [17/May/2024:10:05:03 +0000] "' + field + b'" 400 0 "-" "-"'
    event = _event(line)
    return {name: event[name] for name in event if name not in {"time", "status", "bytes"}}


@pytest.mark.parametrize(
    ("logged", "meant"),
    [
        (rb"a\"b", 'a"b'),
        (rb"a\\b", "a\\b"),
        (rb"a\\x41", "a\\x41"),
        (rb"\x41\x22", 'A"'),
        (rb"caf\xc3\xa9", "café"),
        (rb"\xe4", "\N{REPLACEMENT CHARACTER}"),
        (b"\xe4", "\N{REPLACEMENT CHARACTER}"),
        (rb"a\tb\n", "a\tb\n"),
        (rb"a\qb", r"a\qb"),
        (b"", ""),
    ],
)
def test_escapes_of_the_web_server_are_undone(logged: bytes, meant: str) -> None:
    assert _referrer(logged) == meant


def test_an_event_is_utf_8() -> None:
    assert "café".encode() in combined_log.hit_of(_START + rb'"caf\xc3\xa9" "-"').event


@pytest.mark.parametrize(
    "request_line", [rb"\x16\x03\x01", b"-", b"", b"GET /", b"GET /a b HTTP/1.1", b"GET / FTP/1"]
)
def test_a_request_line_of_another_form_is_kept_whole(request_line: bytes) -> None:
    event = _request(request_line)
    assert set(event) == {"request", "referrer"}
    assert event["request"].encode() == request_line.replace(rb"\x16\x03\x01", b"\x16\x03\x01")


def test_a_user_with_blanks_is_passed_over() -> None:
    hit = combined_log.hit_of(_START.replace(b"- - ", b"- John [x] Doe ") + b'"-" "-"')
    assert json.loads(hit.event)["time"] == "17/May/2024:10:05:03 +0000"


def test_a_line_cut_off_within_the_agent_is_a_hit() -> None:
    hit = combined_log.hit_of(_START + b'"-" "Mozilla/5.0 (compat')
    assert (hit.agent, hit.address) == (b"Mozilla/5.0 (compat", b"192.0.2.1")


def test_control_characters_never_get_into_a_header() -> None:
    assert combined_log.hit_of(_START + rb'"-" "a\r\nb\x00\x7fc"').agent == b"abc"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        _START,
        _START + b'"-"',
        _START + b'"-" "agent" "more"',
        _START.replace(b"200", b"ok") + b'"-" "-"',
        _START.replace(b" 5 ", b" -5 ") + b'"-" "-"',
    ],
)
def test_a_line_of_another_form_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not in the combined log format"):
        combined_log.hit_of(line)
