"""What ``estat send`` makes of each answer, and of none, from a real HTTP server."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from estat.cli.send_pool import REQUESTS_PER_POSTER, Pool
from estat.cli.send_tally import Request, Tally
from tests.support.counterpart import Counterpart, Play, accept, hang_up, hold, refuse
from tests.support.eventually import eventually
from tests.unit.sending import Send, lines

_DEADLINE_SECONDS = 20
_REQUEST = Request(b"{}", {"Content-Type": b"application/json"}, [1])


def test_503_is_sent_again_after_the_time_it_asks_for(
    server: Counterpart, estat_send: Send
) -> None:
    server.plays = [refuse(503, "Queue full", "0"), refuse(429, "Slow down", "0")]
    sent = estat_send(lines(1), "--concurrency", "1")
    assert server.bodies == [b'{"n":0}'] * 3
    assert (sent.code, sent.summary["accepted"], sent.summary["retries"]) == (0, 1, 2)


def answering(status: int, body: dict[str, int] | None = None) -> Play:
    return lambda handler, _: handler.answer(status, body)


TOO_LARGE = refuse(413, "Too large")
FULL = refuse(503, "Queue full", "0")
BATCH = ["--batch", "4"]


@pytest.mark.parametrize(
    ("plays", "options", "requests", "reasons"),
    [
        ([FULL] * 4, [*BATCH, "--retries", "3"], 4, {"refused": {"503 Queue full": 4}}),
        ([refuse(400, "No"), TOO_LARGE], [], 4, {"refused": {"400 No": 1, "413 Too large": 1}}),
        ([TOO_LARGE, TOO_LARGE], [], 4, {"refused": {"413 Too large": 2}}),
        ([answering(404)], [], 4, {"refused": {"404 Not Found": 1}}),
        ([TOO_LARGE], BATCH, 1, {"refused": {"413 Too large": 4}}),
        ([answering(204)], BATCH, 1, {}),
        (
            [answering(202, {"accepted": 9})],
            BATCH,
            1,
            {"unanswered": {"202, but its counts can't be right": 4}},
        ),
        ([refuse(504, "")], BATCH, 1, {"unanswered": {"504 Gateway Timeout": 4}}),
    ],
)
def test_what_is_not_accepted_is_counted_by_reason_and_only_503_is_sent_again(
    plays: list[Play],
    options: list[str],
    requests: int,
    reasons: dict[str, dict[str, int]],
    server: Counterpart,
    estat_send: Send,
) -> None:
    server.plays = plays
    sent = estat_send(lines(4), *options)
    assert len(server.requests) == requests
    assert sent.code == bool(reasons)
    for fate in ("refused", "unanswered", "unsent"):
        assert sent.summary[f"{fate}_by_reason"] == reasons.get(fate, {})


def test_events_refused_within_a_batch_are_counted_by_similar_reasons(
    server: Counterpart, estat_send: Send
) -> None:
    errors = [{"index": n, "reason": f"Expecting value (char {n})"} for n in range(2)]
    server.plays = [
        lambda handler, _: handler.answer(202, {"accepted": 2, "rejected": 3, "errors": errors})
    ]
    sent = estat_send(lines(5), "--batch", "5")
    assert sent.code == 1
    assert (sent.summary["accepted"], sent.summary["refused"]) == (2, 3)
    assert sent.summary["refused_by_reason"] == {
        "in a batch: Expecting value (char #)": 2,
        "in a batch: reason not in the answer": 1,
    }


def test_a_request_without_an_answer_is_unanswered_and_not_sent_again(
    server: Counterpart, estat_send: Send
) -> None:
    server.plays = [accept, hang_up]  # on a connection that served before
    sent = estat_send(lines(3), "--concurrency", "1")
    assert server.bodies == lines(3).splitlines()
    assert sent.code == 1
    assert (sent.summary["accepted"], sent.summary["unanswered"]) == (2, 1)


def test_an_answer_that_is_too_late_leaves_the_request_unanswered(
    server: Counterpart, estat_send: Send
) -> None:
    server.plays = [hold]
    sent = estat_send(lines(2), "--concurrency", "1", "--timeout", "0.2")
    assert len(server.requests) == 2
    assert sent.summary["unanswered_by_reason"] == {"no answer within 0.2s": 1}


def test_an_answer_that_ends_the_connection_costs_no_event(
    server: Counterpart, estat_send: Send
) -> None:
    server.otherwise = lambda handler, _: handler.answer(
        202, {"accepted": 1}, {"Connection": "close"}
    )
    sent = estat_send(lines(20), "--concurrency", "2")
    assert (sent.code, sent.summary["accepted"]) == (0, 20)
    assert len({got.connection for got in server.requests}) == 20


def test_a_server_that_comes_up_late_gets_every_event() -> None:
    """A refused connection is tried again: nothing was sent on it."""
    with Counterpart(activate=False) as late, ExitStack() as serving:
        late.server_bind()  # has a port that refuses connections until it listens
        tally = Tally()

        def requests() -> Iterator[Request]:
            yield _REQUEST
            eventually(lambda: tally.retries, _DEADLINE_SECONDS, "the first is tried again")
            late.server_activate()
            serving.enter_context(late.serving())
            yield from repeat(_REQUEST, 19)

        Pool(urlsplit(late.url), 2, 50, 10, tally).post_all(requests())
    assert tally.retries > 0
    assert (tally.read, tally.accepted, len(late.requests)) == (20, 20, 20)


def test_a_server_that_stays_away_ends_the_run_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    sent = Send(f"http://127.0.0.1:{port}/", tmp_path, capsys)(lines(5000), "--retries", "0")
    assert sent.code == 1
    assert sent.summary["read"] < 100
    assert sent.summary["unsent"] == sent.summary["read"]
    told = f"estat send: cannot connect to 127.0.0.1:{port}: Connection refused; start the server"
    assert sent.stderr.startswith(told)
    assert sent.stderr.count("\n") == 1


def test_no_more_is_read_than_the_posters_can_take(server: Counterpart) -> None:
    concurrency = 3
    tally = Tally()

    def requests() -> Iterator[Request]:
        for _ in range(200):
            assert tally.read - tally.accepted <= concurrency * REQUESTS_PER_POSTER
            yield _REQUEST

    Pool(urlsplit(server.url), concurrency, 0, 10, tally).post_all(requests())
    assert tally.read == tally.accepted == 200
