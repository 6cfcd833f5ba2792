"""Real traffic for tests, or invented traffic of the same shape.

``access_log`` finds the real access log; ``combined_log_lines`` invents one for
whoever doesn't have it. What is the same in both, since it decides how batches
compress and how headers repeat: visits of one client with one agent, pages that
bring their style sheets and images with them, a heavy tail of paths, robots
without a referrer, readers that poll one feed, hourly bursts of time stamps.
Every name in it is invented: addresses of RFC 5737 and RFC 3849, hosts under
example.com, browsers that nobody ever ran.

Imports nothing from estat, so that system tests can use it.
"""

import gzip
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple

_GENERATED_HITS = 10_000

#: Hits of one burst; the real log has one an hour.
_HITS_PER_HOUR = 119
_FIRST_HOUR = datetime(2024, 5, 17, 10, 5, tzinfo=UTC)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_WORDS = tuple(
    first + second
    for first in ("am", "bir", "co", "dun", "fer", "gar", "ha", "ju")
    for second in ("ber", "ch", "ral", "e", "n", "net", "ven", "tor")
)

#: Fetched with nearly every page: path and size.
_SHARED_ASSETS = (
    ("/favicon.ico", 3211),
    ("/assets/base.css", 5120),
    ("/assets/plain.css", 1190),
    ("/images/birds-wide.png", 48802),
    ("/images/harbor.png", 11734),
)

_FRONT_PAGES = ("/", "/blog/", "/projects/tide/", "/articles/field-guide/")

_COMMON_REFERRERS = ("http://search.example.net/", "http://www.example.org/", "http://example.com/")

# what a referrer in a legacy Cyrillic encoding looks like once Apache has escaped it
_ODD_REFERRER = r"http://\xef\xf0\xe8\xec\xe5\xf0-\xf1\xe0\xe9\xf2.example/"
_ODD_AGENT = r"Voyager \"Night\" build\\7 (ExampleOS; caf\xc3\xa9)"


class _Visitor(NamedTuple):
    address: str
    agent: str
    kind: str


def combined_log_lines(count: int, seed: int = 20240517) -> Iterator[str]:
    """Yield ``count`` lines, without line ends; the same ones for the same seed."""
    return islice(_lines(random.Random(seed)), count)


def access_log(directory: str | os.PathLike[str]) -> str:
    """Return the path of an access log, gzipped, in the combined format.

    ``ESTAT_TEST_LOG`` names it; else it is the real one beside the repository;
    else 10,000 generated hits are written into ``directory``.
    """
    named = os.environ.get("ESTAT_TEST_LOG")
    if named:
        return named
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    real = os.path.normpath(os.path.join(root, "..", "shared", "data", "access.log.gz"))
    if os.path.exists(real):
        return real
    path = os.path.join(directory, "access.log.gz")
    with gzip.open(path, "wt", encoding="ascii", newline="\n") as file:
        file.writelines(line + "\n" for line in combined_log_lines(_GENERATED_HITS))
    return path


def _lines(rng: random.Random) -> Iterator[str]:
    number = 0
    while True:
        visitor = _visitor(rng)
        for request, status, size, referrer in _visit(rng, visitor):
            yield (
                f'{visitor.address} - - [{_time(rng, number)}] "{request}" {status} {size} '
                f'"{referrer}" "{visitor.agent}"'
            )
            number += 1


def _visit(rng: random.Random, visitor: _Visitor) -> Iterator[tuple[str, int, str, str]]:
    """Yield request line, status, size and referrer of each hit of a visit."""
    if visitor.kind == "feed":
        # one reader polls one feed, whatever the day
        number = len(visitor.agent) % 7
        for _ in range(rng.randint(1, 3)):
            yield _hit(rng, f"/feeds/{_WORDS[number]}?format=rss", 15210 + number, "-")
        return
    if visitor.kind == "robot":
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if rng.random() < 0.12:
                yield _hit(rng, "/robots.txt", 157, "-")
            else:
                yield _hit(rng, *_page(_rank(rng, 2500)), "-")
        return
    path, size = _page(_rank(rng, 500))
    yield _hit(rng, path, size, _referrer(rng))
    page = f"http://www.example.com{path}"
    if rng.random() < 0.47:
        for asset, asset_size in _SHARED_ASSETS:
            if rng.random() < 0.9:
                yield _hit(rng, asset, asset_size, page)
        for _ in range(_rank(rng, 10)):
            yield _hit(rng, *_image(_rank(rng, 600)), page)


def _hit(rng: random.Random, path: str, size: int, referrer: str) -> tuple[str, int, str, str]:
    draw = rng.random()
    method = "HEAD" if rng.random() < 0.004 else "POST" if rng.random() < 0.0008 else "GET"
    protocol = "HTTP/1.0" if rng.random() < 0.07 else "HTTP/1.1"
    request = f"{method} {path} {protocol}"
    if draw < 0.045:
        return request, 304, "-", referrer
    if draw < 0.066:
        gone = f"{method} /{_word(_rank(rng, 3000))}.php {protocol}"
        return gone, 404, str(rng.randint(280, 340)), referrer
    if draw < 0.082:
        return request.replace(" /", " //", 1), 301, str(300 + len(path)), referrer
    if draw < 0.0865:
        return request, 206, str(rng.randint(1, size)), referrer
    if draw < 0.0873:
        return request, rng.choice((403, 416, 500)), "-", referrer
    if method == "HEAD" or draw < 0.107:
        return request, 200, "-", referrer
    return request, 200, str(size), referrer


def _visitor(rng: random.Random) -> _Visitor:
    rank = _rank(rng, 6000)
    # a visitor is always the same, so its traits come from its rank and not from the draw
    traits = random.Random(rank)
    kind = traits.choices(("person", "robot", "feed"), (50, 42, 8))[0]
    agent = _agent(kind, _rank(traits, 2500))
    if rng.random() < 0.015:
        agent = "-"
    elif rng.random() < 0.0005:
        agent = _ODD_AGENT
    return _Visitor(_address(rank), agent, kind)


def _address(rank: int) -> str:
    if rank < 750:
        network, host = divmod(rank * 7 % 750, 250)
        return f"{('192.0.2', '198.51.100', '203.0.113')[network]}.{host + 1}"
    # RFC 5737 has no more
    return f"2001:db8::{rank * 40503 % 65536:x}"


def _agent(kind: str, rank: int) -> str:
    traits = random.Random(f"{kind}{rank}")
    system = traits.choice(
        (
            "ExampleOS 6.1; x64",
            "ExampleOS 5.1",
            "Meadow; Intel Meadow 10_9_1",
            "X12; Tern i686",
            "X12; Tern x86_64",
            "Pocket; CPU Pocket 7_0_4 like Meadow",
        )
    )
    version = f"{traits.randint(20, 34)}.0.{traits.randint(1000, 1999)}.{traits.randint(0, 140)}"
    if kind == "feed":
        return f"{_word(rank).title()}Reader/{version} (feeds; http://reader.example.org/)"
    if kind == "robot":
        bot = f"{_WORDS[rank % 64].title()}Bot/{traits.randint(1, 5)}.{traits.randint(0, 9)}"
        return traits.choice(
            (
                f"Mozilla/5.0 (compatible; {bot}; +http://www.example.net/{bot.lower()}.html)",
                f"{bot} (+http://example.org/about/robots)",
                f"{bot} libexample/{version}",
            )
        )
    if rank % 3:
        engine = f"{traits.randint(531, 538)}.{traits.randint(1, 76)}"
        return (
            f"Mozilla/5.0 ({system}) ExampleKit/{engine} (EHTML, like Lizard) "
            f"Voyager/{version} Plover/{engine}"
        )
    if rank % 9 == 0:
        # the long ones: every installed component adds its name
        parts = "; ".join(f".EXR {n}.{traits.randint(0, 50727)}" for n in range(_rank(traits, 14)))
        return f"Mozilla/4.0 (compatible; Harbor 8.0; {system}; Anchor/4.0; {parts})"
    return f"Mozilla/5.0 ({system}; rv:{version[:4]}) Lizard/20100101 Raven/{version[:4]}"


def _page(rank: int) -> tuple[str, int]:
    traits = random.Random(f"page{rank}")
    if rank < 4:
        return _FRONT_PAGES[rank], 9000 + rank * 7919
    size = int(200 * 400 ** traits.random())
    section = traits.choice(("blog/geology", "blog/boats", "articles", "projects", "files/tide"))
    path = f"/{section}/{_word(rank)}{traits.choice(('', '.html', '.html', '/'))}"
    if traits.random() < 0.12:
        path = f"/?page={rank}&sort={_WORDS[rank % 64]}&from=%2F{section}"
    if traits.random() < 0.03:
        return f"/search?q={'+'.join(traits.choices(_WORDS, k=traits.randint(5, 60)))}", size
    return path, size


def _image(rank: int) -> tuple[str, int]:
    traits = random.Random(f"image{rank}")
    folder = traits.choice(("images", "articles/field-guide/images", "blog/pictures"))
    kind = traits.choice(("png", "png", "jpg", "js"))
    return f"/{folder}/{_word(rank)}.{kind}", int(900 * 300 ** traits.random())


def _referrer(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.42:
        return "-"
    if draw < 0.422:
        return _ODD_REFERRER
    if draw < 0.75:
        query = "+".join(rng.choices(_WORDS, k=rng.randint(1, 4)))
        token = f"{rng.getrandbits(rng.choice((60, 300, 700))):x}"
        return f"http://search.example.net/url?sa=t&source=web&q={query}&ei={token}"
    return rng.choice(_COMMON_REFERRERS)


def _time(rng: random.Random, number: int) -> str:
    # the hits of a burst are not in order, as in the real log
    at = _FIRST_HOUR + timedelta(hours=number // _HITS_PER_HOUR, seconds=rng.randrange(60))
    return f"{at:%d}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000"


def _word(rank: int) -> str:
    first, second = divmod(rank, len(_WORDS))
    return f"{_WORDS[second]}-{_WORDS[(first * 7 + second) % len(_WORDS)]}{first or ''}"


def _rank(rng: random.Random, size: int) -> int:
    """Draw from 0 to size-1, each about inversely to its rank: a few often, most hardly ever."""
    return int(size ** rng.random()) - 1
