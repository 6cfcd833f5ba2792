"""The server's own worker answers every request as gunicorn's gevent worker does.

Two servers run with the same settings, one with each worker. The same bytes go
to both; every byte that comes back must be the same but for dates and the
numbers of /metrics: status lines, fields and their order, bodies, and when the
connection ends. Then what was counted and stored is the same.
"""

import json
import os
from collections.abc import Iterator
from itertools import takewhile

import pytest

from tests.support import http_corpus, raw_http
from tests.support.http_corpus import Case
from tests.support.pair import Pair, Side, comparable
from tests.support.raw_http import PROBE, Answer, Outcome, RawConnection

CASES = http_corpus.all_cases()
REPRESENTATIVE = http_corpus.representative()

#: Requests are cut at every so many bytes; EVERY_BYTE=1 asks for all, which takes minutes.
STEP = 1 if os.environ.get("EVERY_BYTE") else 23

#: Connections that wait at a time while requests are sent in pieces.
AT_A_TIME = 40

pytestmark = pytest.mark.usefixtures("same_counts")


def alone(side: Side, case: Case) -> Outcome:
    """Send a case and nothing more."""
    return raw_http.exchange(side.port, case.data)


def followed(side: Side, case: Case) -> Outcome:
    """Send a case and, in one piece with it, another request."""
    return raw_http.exchange(side.port, case.data + PROBE)


def followed_alike(pair: Pair, case: Case) -> Outcome:
    """Send a case and another request to both sides; return what the stock worker answers."""
    own, stock = followed(pair.own, case), followed(pair.stock, case)
    assert comparable(own) == comparable(stock)
    return stock


def _common(some: list[Answer], others: list[Answer]) -> int:
    """Return how many answers both begin with."""
    pairs = zip(some, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def answered(side: Side, case: Case, count: int, *, more: bool) -> Outcome:
    """Send a case and read its answers, and only then the end or, if more is wanted, the rest."""
    with RawConnection(side.port) as connection:
        connection.send(case.data)
        if count:
            connection.read_answers(count, last_has_no_body=case.ends_with_head)
        if more:
            connection.send(PROBE)
            connection.half_close()
        return connection.read_all()


@pytest.mark.quick
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_request_and_what_follows_it_are_answered_alike(pair, case):
    stock = followed(pair.stock, case)
    assert stock.closed
    assert comparable(followed(pair.own, case)) == comparable(stock)
    own_alone, stock_alone = alone(pair.own, case), alone(pair.stock, case)
    assert comparable(own_alone) == comparable(stock_alone)
    if case.waits:
        return
    # answers that come whatever follows; then the server ends the connection, or wants more
    count = _common(stock.answers, stock_alone.answers)
    more = len(stock.answers) > count or not stock.answers[-1].closes
    own_after, stock_after = (
        answered(side, case, count, more=more) for side in (pair.own, pair.stock)
    )
    assert own_after.closed == stock_after.closed
    assert comparable(own_after) == comparable(stock_after)


ENVIRON_CASES = [
    case._replace(data=case.data.replace(b"/collect", b"/environ"))
    for case in CASES
    if b"/collect" in case.data and not case.waits
]


@pytest.mark.parametrize("case", ENVIRON_CASES, ids=[case.name for case in ENVIRON_CASES])
def test_the_application_is_given_the_same(pair, case):
    own, stock = followed(pair.own, case), followed(pair.stock, case)
    for mine, other in zip(own.answers, stock.answers, strict=False):
        if mine.body.startswith(b"{") and other.body.startswith(b"{"):
            assert json.loads(mine.body) == json.loads(other.body)
    assert comparable(own) == comparable(stock)


def in_groups(items: list[list[bytes]]) -> Iterator[list[list[bytes]]]:
    for start in range(0, len(items), AT_A_TIME):
        yield items[start : start + AT_A_TIME]


def check_pieces(pair: Pair, pieces: list[list[bytes]], expected: Outcome | None) -> None:
    """Each request is answered alike, and as the expected one if there is such."""
    for group in in_groups(pieces):
        own, stock = (raw_http.exchange_pieces(side.port, side.pulse, group) for side in pair)
        for sent, mine, other in zip(group, own, stock, strict=True):
            assert comparable(mine) == comparable(other), sent
            if expected:
                assert comparable(other) == comparable(expected), sent


@pytest.mark.parametrize("case", REPRESENTATIVE, ids=[case.name for case in REPRESENTATIVE])
def test_a_request_split_at_any_byte_is_answered_as_in_one_piece(pair, case):
    data = case.data + PROBE
    check_pieces(
        pair,
        [[data[:at], data[at:]] for at in range(1, len(data), STEP)],
        followed_alike(pair, case),
    )


@pytest.mark.parametrize("case", REPRESENTATIVE[:3], ids=[case.name for case in REPRESENTATIVE[:3]])
def test_a_request_that_comes_byte_by_byte_is_answered_as_in_one_piece(pair, case):
    data = case.data + PROBE
    check_pieces(pair, [[data[at : at + 1] for at in range(len(data))]], followed_alike(pair, case))


@pytest.mark.parametrize("case", REPRESENTATIVE, ids=[case.name for case in REPRESENTATIVE])
def test_a_request_cut_off_at_any_byte_ends_alike(pair, case):
    check_pieces(pair, [[case.data[:at]] for at in range(0, len(case.data), STEP)], None)
    for at in range(0, len(case.data), STEP):
        cut = Case(case.name, case.data[:at])
        own, stock = alone(pair.own, cut), alone(pair.stock, cut)
        assert comparable(own) == comparable(stock), cut


@pytest.mark.quick
def test_what_was_accepted_is_stored_alike(pair):
    """All tests above have sent the same to both sides; without them, this sends a little."""
    for side in pair:
        for case in REPRESENTATIVE:
            alone(side, case)
    own, stock = pair.own.stored(), pair.stock.stored()
    assert own == stock
    assert sum(own.values()) == pair.own.counts()["events_accepted_total"] > 0
