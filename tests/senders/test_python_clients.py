"""Python clients as their users run them: the lines of docs/senders.md, and then events."""

import importlib.metadata
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from secrets import token_hex
from typing import ClassVar, NamedTuple, TypeAlias

import pytest

from tests.conftest import Serve
from tests.senders.documented import SENDERS
from tests.senders.program import Program
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server

ServerFor: TypeAlias = Callable[[dict[str, str]], Server]


class Use(NamedTuple):
    """What a program does with a client: before all, with the event ``n``, to send, at the end."""

    event: str
    flush: str = ""
    close: str = ""
    before: str = ""


_BATCH = "send([{'n': n}])"

USES = {
    "posthog": Use(
        "client.capture('signup', distinct_id='u1', properties={'n': n})",
        "client.flush()",
        "client.shutdown()",
        "client.on_error = lambda error, _: print(error)",
    ),
    "segment-analytics-python": Use(
        "analytics.track('u1', 'signup', {'n': n})",
        "analytics.flush()",
        "analytics.shutdown()",
        "analytics.on_error = lambda error, _: print(error)",
    ),
    "rudder-sdk-python": Use(
        "analytics.track('u1', 'signup', {'n': n})",
        "analytics.flush()",
        "analytics.shutdown()",
        "analytics.on_error = lambda error, _: print(error)",
    ),
    "snowplow-tracker": Use(
        "tracker.track(StructuredEvent('shop', 'signup', label=n))",
        "tracker.flush()",
        "while waits(): time.sleep(0.1)",
        "import time; from snowplow_tracker import StructuredEvent\n"
        "emitter.on_failure = lambda *_: print('not sent')\n"
        "def waits():\n"
        "    with emitter.lock:\n"
        "        return emitter.event_store.size() or emitter.retry_timer.is_active()",
    ),
    "opentelemetry-exporter-otlp-json-http": Use(
        "provider.get_tracer('shop').start_span(n).end()",
        "provider.force_flush()",
        "provider.shutdown()",
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(BatchSpanProcessor(exporter))",
    ),
    "amplitude-analytics": Use(
        "client.track(BaseEvent('signup', user_id='user-1', event_properties={'n': n}))",
        "[sent.exception() for sent in client.flush()]",
        "client.shutdown()",
        "from amplitude import BaseEvent",
    ),
    "cloudevents": Use("send({'n': n})"),
    "requests": Use(_BATCH),
    "httpx": Use(_BATCH),
    "aiohttp": Use(f"asyncio.run({_BATCH})", before="import asyncio"),
    "logging.handlers.HTTPHandler": Use(
        "logger.warning(n)", before="logger = logging.getLogger('shop'); logger.addHandler(handler)"
    ),
}

#: Those that send again what was answered with 503, or not at all.
RETRYING = (
    "posthog",
    "segment-analytics-python",
    "rudder-sdk-python",
    "snowplow-tracker",
    "opentelemetry-exporter-otlp-json-http",
    "requests",
)

#: What a sender says of an answer of 401.
TOLD = {
    "posthog": "No valid write key",
    "segment-analytics-python": "No valid write key",
    "rudder-sdk-python": "'code'",
    "snowplow-tracker": "not sent",
    "opentelemetry-exporter-otlp-json-http": "code: 401",
    "cloudevents": "401",
    "requests": "401",
    "httpx": "401",
    "aiohttp": "401",
}


def started(lines: str, use: Use) -> Program:
    """Start a client that sends the events whose names it is given."""
    source = (
        f"import sys\n{lines}\n{use.before}\n"
        f"for line in sys.stdin:\n    for n in line.split():\n        {use.event}\n"
        f"    {use.flush}\n    print('sent', flush=True)\n{use.close}"
    )
    return Program([sys.executable, "-c", source])


def run(lines: str, use: Use, names: list[str]) -> str:
    """Let a program send events; return what it says."""
    with started(lines, use) as program:
        program.give(names)
        return program.end()


@pytest.fixture(scope="module")
def server_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFor]:
    """Return a server with settings; who needs the same share one."""
    servers: dict[frozenset[tuple[str, str]], Server] = {}
    with ExitStack() as running:

        def find(environ: dict[str, str]) -> Server:
            settings = frozenset(environ.items())
            if settings not in servers:
                directory = tmp_path_factory.mktemp("server")
                store = {"RAW_BUCKET": f"file:{directory / 'store'}"}
                servers[settings] = running.enter_context(Server(directory, environ | store))
            return servers[settings]

        yield find


@pytest.mark.parametrize("name", USES)
def test_each_event_is_stored_once_where_the_page_says(name: str, server_for: ServerFor) -> None:
    sender = SENDERS[name]
    server = server_for(sender.environ)
    names = [f"{name}-{i}" for i in range(20)]
    assert run(sender.lines(server), USES[name], names).endswith("sent\nended with 0")
    assert sender.found(server.stored(), name) == Counter(names)


@pytest.mark.parametrize("name", TOLD)
def test_a_sender_is_told_that_its_events_are_refused(name: str, server_for: ServerFor) -> None:
    server = server_for({"WRITE_KEYS": "another"})
    lines = SENDERS[name].lines(server)
    hasty = lines.replace("analytics.write_key", "analytics.max_retries = 0; analytics.write_key")
    assert TOLD[name] in run(hasty, USES[name], [name])
    assert server.metrics()["events_accepted_total"] == 0


def test_what_is_protobuf_or_an_envelope_is_refused_and_told(server_for: ServerFor) -> None:
    server = server_for({})
    name = "opentelemetry-exporter-otlp-json-http"
    protobuf = SENDERS[name].lines(server).replace(".json.", ".proto.")
    assert "code: 415" in run(protobuf, USES[name], ["protobuf"])
    host = server.url.removeprefix("http://")
    dsn = f"import sentry_sdk; sentry_sdk.init('http://KEY@{host}/collect/1', debug=True)"
    envelope = Use("sentry_sdk.capture_message(n)", "sentry_sdk.flush()")
    assert "application/x-sentry-envelope is not supported" in run(dsn, envelope, ["envelope"])
    assert not {"protobuf", "envelope"} & set(json.dumps(server.stored()).split('"'))


def test_a_wrapped_batch_that_is_larger_than_an_event_may_be_is_told(server_for: ServerFor) -> None:
    server = server_for({})
    name = "segment-analytics-python"
    names = [f"{name}-{i}" for i in range(200)]
    assert "at most 16384 (MAX_BODY_SIZE)" in run(SENDERS[name].lines(server), USES[name], names)


def test_a_binary_cloudevent_is_its_data_and_captured_headers(server_for: ServerFor) -> None:
    server = server_for({"CAPTURE_HEADERS": "ce-id,ce-type,ce-source"})
    lines = SENDERS["cloudevents"].lines(server).replace("structured", "binary")
    run(lines, USES["cloudevents"], ["binary-1"])
    (line,) = server.stored()
    assert (line["body"], line["ce_type"]) == ({"n": "binary-1"}, "shop.signup")
    assert line["ce_id"]


class Crowd:
    """All clients that send again, side by side on one server that serves them all."""

    settings: ClassVar = {
        "WRITE_KEYS": "senders:KEY",
        "ACCEPTED_STATUS": "200",
        "MAX_BODY_SIZE": "1MiB",
    }

    def __init__(self, server: Server, running: ExitStack) -> None:
        self._server = server
        self._given = Counter[str]()
        self._programs = {
            name: running.enter_context(started(SENDERS[name].lines(server), USES[name]))
            for name in RETRYING
        }

    def give(self) -> None:
        """Give each ten events more."""
        for name, program in self._programs.items():
            names = [f"{name}-{len(self._given) + i}" for i in range(10)]
            self._given.update(names)
            program.give(names)

    def wait_until_sent(self) -> None:
        for program in self._programs.values():
            program.wait_until_it_says("sent\n")

    def check(self, bucket: Bucket) -> None:
        """Each event is stored once when all programs have ended."""
        said = [program.end() for program in self._programs.values()]
        self._server.until(self._server.settled, "all is stored")
        found = Counter[str]()
        for name in self._programs:
            found += SENDERS[name].found(bucket.stored(), name)
        assert found == self._given, "\n".join(said)


def test_a_stop_in_the_middle_costs_and_doubles_nothing(serve: Serve, bucket: Bucket) -> None:
    server = serve(**Crowd.settings)
    with ExitStack() as running:
        crowd = Crowd(server, running)
        crowd.give()
        crowd.wait_until_sent()
        server.must_stop()
        crowd.give()
        server.start()
        crowd.check(bucket)


def test_a_spell_of_503_costs_and_doubles_nothing(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DLQ_MAX_SIZE_BYTES="40KiB", S3_APP_RETRIES="0", **Crowd.settings)
    s3.fail("503")

    def is_full_for(size: int) -> bool:
        answer = server.post(json.dumps({"x": token_hex(size)}), Authorization="Bearer KEY")
        return answer.status == 503 and server.metrics()["events_pending"] == 0

    for size in (1000, 1):  # soon, and then for the smallest event too
        server.until(partial(is_full_for, size), "the DLQ is full")
    with ExitStack() as running:
        crowd = Crowd(server, running)
        before = server.rejected("dlq_full")
        crowd.give()
        server.until(
            lambda: server.rejected("dlq_full") >= before + len(RETRYING), "all are refused"
        )
        s3.heal()
        crowd.check(bucket)


def test_all_that_waited_in_an_outage_may_come_in_one_request(serve: Serve, bucket: Bucket) -> None:
    name = "snowplow-tracker"
    sender = SENDERS[name]
    server = serve(**sender.environ)
    names = [f"{name}-{i}" for i in range(6000)]
    with started(sender.lines(server), USES[name]) as program:
        server.must_stop()
        program.give(names)
        program.wait_until_it_says("\nsent\n")
        server.start()
        said = program.end()
    server.until(server.settled, "all is stored")
    assert sender.found(bucket.stored(), name) == Counter(names), said[-1000:]


@pytest.mark.parametrize("name", [name for name in USES if name != "logging.handlers.HTTPHandler"])
def test_the_version_is_the_one_that_the_page_names(name: str) -> None:
    assert f"{importlib.metadata.version(name)}.".startswith(f"{SENDERS[name].version}.")
