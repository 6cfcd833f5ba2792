"""Which tests run, and the fixtures of those that run the real server.

``--tier`` chooses by cost:

- ``quick`` is what ``make test`` runs. It needs Python only, and takes a few minutes: every test
  under tests/unit and tests/property, with few examples, and elsewhere what is marked ``quick``.
- ``rest`` is everything else, and the property tests once more with all of their examples.
- ``all`` is both, and the default: whoever names a file to pytest gets all of its tests.

What needs packages of npm, or Go, or syslog-ng, lies in tests/senders and runs in
``make test-senders`` alone.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest

from estat import build
from estat.disk.dlq import DeadLetterQueue
from tests.support.ceph import Ceph, ceph_missing
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket, Endpoint, Moto, moto_server_path
from tests.support.server import CONFIG, STOCK, Server
from tests.support.swift import Swift, memcached_path, swift_path, with_extended_attributes

Serve = Callable[..., Server]

# a job in the background ignores SIGINT, and so does every program that it starts
signal.signal(signal.SIGINT, signal.default_int_handler)

# how long an example takes says something about the machine only
hypothesis.settings.register_profile("all", deadline=None, max_examples=100)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=12)

_TESTS = Path(__file__).parent
#: Where every test is quick.
_QUICK_DIRECTORIES = ("unit", "property")


@pytest.fixture
def dlq(tmp_path: Path) -> DeadLetterQueue:
    """Return an empty DLQ."""
    queue = DeadLetterQueue(str(tmp_path / "dlq"))
    queue.create()
    return queue


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=("quick", "all"), default="all", help="which tests, by cost")


def pytest_configure(config: pytest.Config) -> None:
    quick = config.option.tier == "quick"
    hypothesis.settings.load_profile("quick" if quick else "all")


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.option.tier == "quick":
        return "what needs more than Python, or more time, is left out: make test-all runs it"
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files without a chosen test alone: they may import what is not installed."""
    if not collection_path.match("test_*.py"):
        return None
    if collection_path.parent.name == "senders" and not _is_for_all(collection_path, config):
        return True
    text = collection_path.read_text()
    if STOCK and "both_workers" not in text:
        return True
    quick = _in_quick_directory(collection_path) or "mark.quick" in text
    return True if config.option.tier == "quick" and not quick else None


def _is_for_all(path: Path, config: pytest.Config) -> bool:
    """Tell whether a test of senders runs here: those beyond Python run where they are named."""
    named = any("tests/senders" in argument for argument in config.args)
    return named or path.name == "test_python_clients.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    chosen = {item for item in items if _is_chosen(item, config.option.tier)}
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    # another S3 takes long to start: its tests come first, so that one process has them all
    chosen_items = [item for item in items if item in chosen]
    items[:] = sorted(chosen_items, key=lambda item: not _needs_another_s3(item))


def _is_chosen(item: pytest.Function, tier: str) -> bool:
    if STOCK and (_needs_another_s3(item) or not item.get_closest_marker("both_workers")):
        return False
    if build() == "compiled" and item.get_closest_marker("interpreted"):
        return False
    return tier == "all" or _is_quick(item)


def _is_quick(item: pytest.Function) -> bool:
    if _needs_another_s3(item):
        return False
    return _in_quick_directory(item.path) or item.get_closest_marker("quick") is not None


def _needs_another_s3(item: pytest.Function) -> bool:
    """Tell whether a test is for another S3 than moto."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(name in ("swift", "ceph") for name in (*item.fixturenames, *parameters))


def _in_quick_directory(path: Path) -> bool:
    return path.relative_to(_TESTS).parts[0] in _QUICK_DIRECTORIES


def need(available: object, what: str) -> None:
    """Skip the test where a tool is missing; in CI that is a failure."""
    if not available:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is missing")
        pytest.skip(f"{what} is missing")


#: Marks tests that TEST_WORKER=stock runs. What they show passes through what a worker class does:
#: it reads requests and writes answers, and it begins, ends and dies. All else is the same code.
both_workers = pytest.mark.both_workers


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """One moto_server for all tests; each has a bucket of its own."""
    need(moto_server_path(), "moto_server")
    with Moto(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """One OpenStack Swift for all tests; each has a bucket of its own."""
    need(swift_path(), "swift")
    need(memcached_path(), "memcached")
    candidates = (tmp_path_factory.getbasetemp(), Path("/var/tmp"))
    place = with_extended_attributes(candidates)
    need(place, f"a directory with extended attributes (of {', '.join(map(str, candidates))})")
    with (
        TemporaryDirectory(prefix="swift-", dir=place, ignore_cleanup_errors=True) as directory,
        Swift(Path(directory)) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """One Ceph for all tests; each has a bucket of its own."""
    need(not ceph_missing(), " ".join(ceph_missing()))
    with Ceph(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """The S3 of this test: moto, unless the test is for every S3."""
    found: Endpoint = request.getfixturevalue(getattr(request, "param", "moto"))
    return found


#: All S3s that others wrote.
EVERY_S3 = ("moto", "swift", "ceph")

#: Marks tests that run against each of them.
every_s3 = pytest.mark.parametrize("endpoint", EVERY_S3, indirect=True)


@pytest.fixture
def bucket(endpoint: Endpoint) -> Bucket:
    return endpoint.new_bucket()


@pytest.fixture
def s3(endpoint: Endpoint) -> Iterator[FaultyS3]:
    """A faulty S3 in front of the real one, healthy at first."""
    with FaultyS3(endpoint.port) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path, endpoint: Endpoint, bucket: Bucket) -> Iterator[Serve]:
    """Start servers that share a directory and a bucket; all are gone at the end of the test."""
    with ExitStack() as running:

        def start(
            *,
            via: FaultyS3 | None = None,
            workers: int = 1,
            gunicorn: str = "",
            config: Path = CONFIG,
            kind: type[Server] = Server,
            **settings: str,
        ) -> Server:
            defaults = endpoint.environ | {"RAW_BUCKET": bucket.name}
            if via:
                defaults["AWS_ENDPOINT_URL_S3"] = via.url
            server = kind(
                tmp_path, defaults | settings, workers=workers, gunicorn=gunicorn, config=config
            )
            return running.enter_context(server)

        yield start


@pytest.fixture
def namespaces() -> None:
    """Be where servers can have namespaces of their own (``Isolated``)."""
    need(os.geteuid() == 0, "root, for namespaces,")
    for program in ("unshare", "nsenter"):
        need(shutil.which(program), f"{program} (util-linux)")
