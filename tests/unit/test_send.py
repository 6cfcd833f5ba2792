"""``estat send`` as a command: what it reads, posts and prints, against a real HTTP server."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import hits
from tests.support.counterpart import Counterpart, hang_up, hold, refuse
from tests.support.eventually import eventually
from tests.support.server import ROOT
from tests.unit.sending import Send, lines, run

_DEADLINE_SECONDS = 20


# JSON lines


def test_each_line_is_posted_as_it_is_in_a_request_of_its_own(
    server: Counterpart, estat_send: Send
) -> None:
    sent = estat_send(b'{"a": 1.50}\r\n\n  {"b":"\xc3\xa9"}', "--concurrency", "1")
    assert sent.code == 0
    assert server.bodies == [b'{"a": 1.50}', b'{"b":"\xc3\xa9"}']
    assert {got.headers["Content-Type"] for got in server.requests} == {"application/json"}
    assert {got.path for got in server.requests} == {"/collect"}


def test_a_batch_is_posted_as_lines_of_json(server: Counterpart, estat_send: Send) -> None:
    sent = estat_send(lines(5), "--batch", "2", "--concurrency", "1")
    assert server.bodies == [b'{"n":0}\n{"n":1}\n', b'{"n":2}\n{"n":3}\n', b'{"n":4}\n']
    assert {got.headers["Content-Type"] for got in server.requests} == {"application/x-ndjson"}
    assert (sent.code, sent.summary["read"], sent.summary["accepted"]) == (0, 5, 5)


def test_a_batch_never_grows_beyond_what_a_server_takes(
    server: Counterpart, estat_send: Send
) -> None:
    event = b'{"text":"%b"}\n' % (b"x" * 300_000)
    sent = estat_send(event * 7, "--batch", "1000")
    assert sorted(len(body) // len(event) for body in server.bodies) == [1, 3, 3]
    assert sent.summary["accepted"] == 7


def test_every_event_is_sent_once_over_as_many_connections_as_asked(
    server: Counterpart, estat_send: Send
) -> None:
    sent = estat_send(lines(500), "--concurrency", "4")
    assert sorted(server.bodies) == sorted(lines(500).splitlines())
    assert len({got.connection for got in server.requests}) <= 4
    assert sent.summary["accepted"] == 500


def test_a_gzip_file_is_known_by_its_first_bytes(server: Counterpart, estat_send: Send) -> None:
    assert estat_send(gzip.compress(lines(3))).code == 0
    assert sorted(server.bodies) == lines(3).splitlines()


def test_the_limit_ends_the_file(server: Counterpart, estat_send: Send) -> None:
    sent = estat_send(lines(10), "--limit", "3")
    assert (sent.code, sent.summary["read"], len(server.requests)) == (0, 3, 3)


def test_an_array_is_not_sent_since_the_server_would_take_it_for_a_batch(
    server: Counterpart, estat_send: Send
) -> None:
    sent = estat_send(b'{"n":0}\n[{"n":1},{"n":2}]\n')
    assert server.bodies == [b'{"n":0}']
    assert sent.code == 1
    assert (sent.summary["unreadable_lines"], sent.summary["first_unreadable_line"]) == (1, 2)


def test_an_empty_file_is_no_error(server: Counterpart, estat_send: Send) -> None:
    sent = estat_send(b"")
    assert (sent.code, sent.summary["read"], server.requests) == (0, 0, [])


# access logs


def test_a_hit_is_posted_with_its_own_client_headers(server: Counterpart, estat_send: Send) -> None:
    line = (
        b'192.0.2.7 - - [17/May/2024:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 304 - '
        b'"-" "Bot \\"x\\" \\xc3\\xa9\\x0d\\x0aX-Evil: 1"\n'
    )
    assert estat_send(line, "--combined-log").code == 0
    (got,) = server.requests
    assert json.loads(got.body) == {
        "time": "17/May/2024:10:05:03 +0000",
        "method": "GET",
        "path": "/a?b=c",
        "protocol": "HTTP/1.1",
        "status": 304,
        "bytes": None,
        "referrer": None,
    }
    assert got.headers["X-Forwarded-For"] == "192.0.2.7"
    # http.server reads headers as latin-1
    assert got.headers["User-Agent"].encode("latin-1") == b'Bot "x" \xc3\xa9X-Evil: 1'
    assert "X-Evil" not in got.headers


def test_a_hit_without_an_agent_is_posted_without_one(
    server: Counterpart, estat_send: Send
) -> None:
    line = b'192.0.2.7 - - [17/May/2024:10:05:03 +0000] "GET / HTTP/1.1" 200 5 "-" "-"\n'
    assert estat_send(line, "--combined-log").code == 0
    assert "User-Agent" not in server.requests[0].headers


def test_only_consecutive_hits_of_one_client_share_a_batch(
    server: Counterpart, estat_send: Send
) -> None:
    log = "".join(line + "\n" for line in hits.combined_log_lines(300)).encode()
    sent = estat_send(log, "--combined-log", "--batch", "50")
    assert (sent.code, sent.summary["accepted"]) == (0, 300)
    addresses = [got.headers["X-Forwarded-For"] for got in server.requests]
    hits_of_address = {
        address: sum(
            got.body.count(b"\n")
            for got in server.requests
            if got.headers["X-Forwarded-For"] == address
        )
        for address in addresses
    }
    logged = [line.split()[0] for line in log.decode().splitlines()]
    assert hits_of_address == {address: logged.count(address) for address in logged}
    assert len(server.requests) < 300


def test_every_hit_of_an_access_log_is_an_event(
    server: Counterpart, tmp_path: Path, estat_send: Send
) -> None:
    log = Path(hits.access_log(tmp_path)).read_bytes()
    sent = estat_send(log, "--combined-log", "--limit", "1000")
    assert (sent.code, sent.summary["accepted"]) == (0, 1000)
    assert all(set(json.loads(body)) >= {"time", "status", "path"} for body in server.bodies)


def test_unreadable_lines_are_counted_and_make_the_run_fail(
    server: Counterpart, estat_send: Send
) -> None:
    good = "\n".join(hits.combined_log_lines(2))
    sent = estat_send(f"{good}\nno hit\n\nnor this\n".encode(), "--combined-log")
    assert sent.code == 1
    assert (sent.summary["accepted"], sent.summary["unreadable_lines"]) == (2, 2)
    assert sent.summary["first_unreadable_line"] == 3


# the command


def test_the_summary_for_people_names_every_reason(
    server: Counterpart, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plays = [refuse(400, "Invalid JSON"), hang_up]
    path = tmp_path / "events"
    path.write_bytes(lines(4) + b"[]\n")
    assert run(str(path), "--url", server.url, "--concurrency", "1") == 1
    printed = capsys.readouterr()
    assert [line.split()[:3] for line in printed.out.splitlines()] == [
        ["read", "4"],
        ["accepted", "2"],
        ["refused", "1"],
        ["1", "400", "Invalid"],
        ["unanswered", "1"],
        ["1", "connection", "closed"],
        ["unreadable", "1", "the"],
        ["in", *printed.out.splitlines()[-1].split()[1:3]],
    ]
    assert printed.err == ""  # not a terminal, so no progress is shown


def test_a_file_that_breaks_off_is_sent_as_far_as_it_goes(
    server: Counterpart, estat_send: Send
) -> None:
    text = b"".join(b'{"n":"%b"}\n' % os.urandom(8).hex().encode() for _ in range(5000))
    zipped = gzip.compress(text)
    sent = estat_send(zipped[: len(zipped) // 2], "--batch", "1000")
    assert sent.code == 2
    assert 0 < sent.summary["accepted"] < 5000
    assert b"".join(sorted(server.bodies)).count(b"\n") == sent.summary["accepted"]
    assert "cannot read" in sent.stderr
    assert sent.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--url", "ftp://example.com/"],
        ["--url", "example.com/collect"],
        ["--url", "http://example.com:x/"],
        ["--url", "http://example.com:65536/"],
        ["--url", "http://example.com/a b"],
        ["--url", "http://me@example.com/"],
        ["--batch", "0"],
        ["--concurrency", "x"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--retries", "-1"],
    ],
    ids=" ".join,
)
def test_an_option_that_cannot_be_meant_is_a_usage_error(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("file", *options)
    assert exit_.value.code == 2
    assert options[0] in capsys.readouterr().err.splitlines()[-1]


def start(url: str, *options: str) -> "subprocess.Popen[bytes]":
    """Start ``estat send -`` in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "estat", "send", "-", "--json", "--url", url]
    return subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_standard_input_is_read_to_its_end(server: Counterpart) -> None:
    with start(server.url) as process:
        out, err = process.communicate(gzip.compress(lines(10)), timeout=_DEADLINE_SECONDS)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["accepted"] == len(server.requests) == 10


def test_ctrl_c_while_reading_ends_with_the_summary(server: Counterpart) -> None:
    with start(server.url) as process:
        assert process.stdin is not None
        process.stdin.write(lines(2))
        process.stdin.flush()
        eventually(lambda: len(server.requests) == 2, _DEADLINE_SECONDS, "both are sent")
        process.send_signal(signal.SIGINT)
        # the pipe is still open, so it was no end of file
        assert process.wait(_DEADLINE_SECONDS) == 130
        out, err = process.communicate()
    assert err == b""
    assert json.loads(out)["read"] == json.loads(out)["accepted"] == 2


def test_ctrl_c_gives_up_on_requests_that_get_no_answer(server: Counterpart) -> None:
    server.otherwise = hold
    with start(server.url, "--concurrency", "2") as process:
        assert process.stdin is not None
        process.stdin.write(lines(3))
        process.stdin.flush()
        eventually(lambda: len(server.requests) == 2, _DEADLINE_SECONDS, "two are sent")
        process.send_signal(signal.SIGINT)
        assert process.wait(_DEADLINE_SECONDS) == 130
        out, err = process.communicate()
    assert err == b""
    summary = json.loads(out)
    assert (summary["read"], summary["unanswered"], summary["unsent"]) == (3, 2, 1)
