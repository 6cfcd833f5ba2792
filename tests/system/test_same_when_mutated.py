"""The server's own worker answers what nobody would write as gunicorn's gevent worker does.

As ``test_same_as_stock``, with connections that Hypothesis makes up: requests of the
corpus, one behind the other, with changed bytes, in pieces; and regular ones with
changed bodies and queries. The same few thousand each time. ``make fuzz`` runs as many
others as one likes, and compares the compiled build with the interpreted one so.
"""

import gzip
import os
import random
import re
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import http_corpus, raw_http
from tests.support.eventually import eventually
from tests.support.examples import examples
from tests.support.mutations import mutated
from tests.support.pair import Pair, comparable
from tests.support.raw_http import PROBE, RawConnection

pytestmark = [
    pytest.mark.quick,
    pytest.mark.usefixtures("same_counts"),
    # Hypothesis tells whole what it has found, and that may be long
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

#: How many connections each test makes up; without it a fixed few.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 0)
SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))

#: What both workers read at once.
READ_BYTES = 8192

#: What our loop allows a head to have, line and fields together.
MAX_HEAD_BYTES = 64 * 1024

#: An answer that needs no body comes later from the fast loop if the body does not come: the
#: loop gives that a second, since most clients send it right behind the head, and then gunicorn.
ANSWER_SECONDS = 5

#: Larger ones are slow, and no other decisions are taken about them.
MAX_BYTES = 1500

CORPUS = [case.data for case in http_corpus.all_cases() if len(case.data) <= MAX_BYTES]
PLAIN = [case.data for case in http_corpus.representative()[:3]]
of_the_corpus = st.one_of(st.sampled_from(PLAIN), st.sampled_from(CORPUS))

tails = st.sampled_from([PROBE, b""])

#: Bodies and queries are some of these, one behind the other, with changes.
CARRIED = [
    *(b'{"event":"click","n":[1,-2.50,{}]}\n', b'[{"a":1},{"b":true}]', b'\xef\xbb\xbf{"a":1}'),
    *(b'{"x":NaN}\n', b'{"x":1e400}\n', b'{"x":-0.0,"y":1.5e-7,"x":null}\n', b"[" * 1001, b"[1]"),
    *(b'{"x":%s}\n' % digits for digits in (b"9" * 30, b"9" * 4300, b"9" * 4301)),
    *(b'{"s":"%s"}\n' % text for text in (b"\\ud800\\u0000", "안😀".encode(), b"\xff")),
    *(b'{"s":"%s"}\n' % (b"x" * 17_000), b"\r\n"),
    *(b"a=b&", b"key=k&", b"%ff=%C3%A9+%00&", b"_charset_=euc-kr&a=%BE%C8&"),
]
TYPES = [
    *("application/json", "application/x-ndjson", "text/plain", "application/octet-stream", ""),
    *("application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=euc-kr"),
    *("application/csp-report", "multipart/form-data", "Application/JSON;charset=utf-8"),
]
contents = mutated(st.sampled_from(CARRIED), most=1)
queries = mutated(st.sampled_from(CARRIED[-4:]), most=1) | st.just(b"")


def posted(body: bytes, content_type: str, query: bytes, zipped: bool) -> bytes:
    """Return a request that is regular but for what it carries."""
    body = gzip.compress(body, mtime=0) if zipped else body
    return http_corpus.request(
        *([f"Content-Type: {content_type}"] if content_type else []),
        *(["Content-Encoding: gzip"] if zipped else []),
        f"Content-Length: {len(body)}",
        line=b"POST /collect?%s HTTP/1.1" % re.sub(rb"[^!-~]", b"", query),
        body=body,
    )


posts = st.builds(posted, contents, st.sampled_from(TYPES), queries, st.booleans())


def repeatable(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try so many, always the same; in a long run as many as asked for, from the seed."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        limits = hypothesis.settings(
            max_examples=EXAMPLES or examples(count),
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
        )
        return limits(hypothesis.seed(SEED)(test) if EXAMPLES else test)

    return decorate


@pytest.fixture(scope="module", autouse=True)
def told(pair: Pair) -> None:
    if EXAMPLES:
        print(f"\nour worker, {pair.own.build}, and gunicorn's, {pair.stock.build}: ", end="")
        print(f"{EXAMPLES} connections for each test, FUZZ_SEED={SEED}")


def answered_alike(pair: Pair, data: bytes) -> None:
    own, stock = (raw_http.exchange(side.port, data) for side in pair)
    assert stock.closed
    if len(data) > MAX_HEAD_BYTES and own.answers and own.answers[-1].status == 431:
        # a head that is too long as a whole: gunicorn's parser has no limit for it
        before = own.answers[:-1]
        assert own.closed
        assert [a.head for a in before] == [a.head for a in stock.answers[: len(before)]], data
        return
    at_once = len(data) <= READ_BYTES
    assert comparable(own, at_once=at_once) == comparable(stock, at_once=at_once), data


@repeatable(1500)
@given(data=mutated(of_the_corpus, most=4), tail=tails)
def test_changed_requests_are_answered_alike(pair, data, tail):
    answered_alike(pair, data + tail)


@repeatable(500)
@given(data=st.lists(posts, min_size=1, max_size=4).map(b"".join))
def test_whatever_a_regular_request_carries_is_answered_alike(pair, data):
    answered_alike(pair, data + PROBE)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) or 1) for cut in cuts} - {0})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


@repeatable(500)
@given(
    data=mutated(of_the_corpus, most=2), cuts=st.lists(st.integers(1, 600), max_size=3), tail=tails
)
def test_requests_in_pieces_are_answered_alike_before_and_after_the_end(pair, data, cuts, tail):
    hypothesis.assume(len(data + tail) <= MAX_HEAD_BYTES)  # see answered_alike
    with RawConnection(pair.own.port) as own, RawConnection(pair.stock.port) as stock:
        for piece in pieces_of(data, cuts):
            for connection, side in ((own, pair.own), (stock, pair.stock)):
                connection.send(piece)
                side.pulse.beat()

        def alike() -> bool:
            mine, other = (comparable(end.arrived(last_has_no_body=True)) for end in (own, stock))
            assert mine == other
            return True

        eventually(alike, ANSWER_SECONDS, "both say the same while the client's side is open")
        for connection in (own, stock):
            connection.send(tail)
            connection.half_close()
        assert comparable(own.read_all()) == comparable(stock.read_all())


def test_what_was_accepted_of_it_is_stored_alike(pair):
    """All tests above have sent the same to both sides; without them, this sends a little."""
    for data in PLAIN:
        answered_alike(pair, data)
    own, stock = pair.own.stored(), pair.stock.stored()
    assert own == stock
    assert sum(own.values()) == pair.own.counts()["events_accepted_total"] > 0
