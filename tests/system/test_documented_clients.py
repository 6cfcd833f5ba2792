"""Every client in docs/senders.md sends what it is given once, waits, and tells what is refused."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support.command import run
from tests.support.counterpart import Counterpart, Got, Handler, hang_up, refuse
from tests.support.page import Block, blocks, sections
from tests.support.server import Server, ask

PAGE = "docs/senders.md"

#: How an example is run, by its language.
COMMANDS = {
    "sh": ("sh",),
    "python": (sys.executable, "-W", "error"),
    "js": ("node",),
    "go": ("go", "run"),
    "php": ("php", "-d", "error_reporting=-1", "-d", "display_errors=stderr"),
}
SUFFIXES = {"js": "mjs"}

CLIENTS = [b for b in blocks(PAGE) if b.code in sections(PAGE)["A client of your own"]]

KEY = "a-key-of-this-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("documented-clients")
    settings = {"RAW_BUCKET": f"file:{directory / 'store'}", "WRITE_KEYS": f"test:{KEY}"}
    with Server(directory, settings) as running:
        yield running


@pytest.fixture(params=CLIENTS, ids=[f"{b.section}-{i}" for i, b in enumerate(CLIENTS)])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> "Client":
    block: Block = request.param
    program = COMMANDS[block.language][0]
    need(shutil.which(program), program)
    source = tmp_path / f"client.{SUFFIXES.get(block.language, block.language)}"
    source.write_text(block.code)
    return Client(source, COMMANDS[block.language])


class Client:
    """One of the page's examples, as a program of its own."""

    def __init__(self, source: Path, command: tuple[str, ...]) -> None:
        self._source = source
        self._command = command

    def send(
        self, url: str, lines: list[str], key: str = KEY
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        environ = {"PATH": os.environ["PATH"], "ESTAT_URL": url, "ESTAT_KEY": key}
        environ["GOCACHE"] = str(self._source.parent / "go")
        environ["TMPDIR"] = str(self._source.parent)
        return run(
            [*self._command, str(self._source)],
            input="".join(f"{line}\n" for line in lines),
            env=environ,
        )


def lines(name: str) -> list[str]:
    """Return events that JSON of several languages writes in as many ways."""
    return [json.dumps({"n": f"{name} {i}", "text": "é </안녕>", "of": {}}) for i in range(60)]


def check_stored_once(server: Server, sent: list[str]) -> None:
    """Each line is stored once, whole."""
    stored = Counter(json.dumps(line["body"], sort_keys=True) for line in server.stored())
    expected = [json.dumps(json.loads(line), sort_keys=True) for line in sent]
    assert [stored[text] for text in expected] == [1] * len(sent)


def test_the_page_has_a_client_in_each_language() -> None:
    assert {block.language for block in CLIENTS} == COMMANDS.keys()


def test_all_events_of_a_batch_are_stored_once(
    client: Client, server: Server, request: pytest.FixtureRequest
) -> None:
    sent = lines(request.node.name)
    done = client.send(f"{server.url}/collect", sent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    check_stored_once(server, sent)


def test_an_event_that_is_rejected_is_told_and_the_others_are_stored(
    client: Client, server: Server, request: pytest.FixtureRequest
) -> None:
    sent = lines(request.node.name)
    done = client.send(f"{server.url}/collect", [*sent[:7], "7", *sent[7:]])
    assert done.returncode == 1
    assert "an event must be a JSON object" in done.stderr
    assert "7" in done.stderr
    check_stored_once(server, sent)


def test_what_is_refused_for_good_is_told_and_not_sent_again(
    client: Client, server: Server, request: pytest.FixtureRequest
) -> None:
    before = server.rejected("unauthorized")
    done = client.send(f"{server.url}/collect", lines(request.node.name), "a-key-of-others")
    assert done.returncode != 0
    assert "401" in done.stderr
    assert "send a valid write key" in done.stderr
    assert server.rejected("unauthorized") == before + 1


def test_the_same_bytes_are_sent_until_they_are_accepted(
    client: Client, server: Server, request: pytest.FixtureRequest
) -> None:
    opens_at: list[float] = []

    def busy_for_a_second(handler: Handler, got: Got) -> None:
        if not opens_at:
            opens_at.append(time.monotonic() + 1)
        if time.monotonic() < opens_at[0]:
            refuse(503, "Queue full", "1")(handler, got)
            return
        connection = server.connection()
        answer = ask(connection, "POST", got.path, got.body, got.headers)
        connection.close()
        handler.answer(answer.status, answer.json)

    between = Counterpart()
    between.plays = [hang_up, refuse(503, "Unavailable")]
    between.otherwise = busy_for_a_second
    sent = lines(request.node.name)
    with between.serving():
        done = client.send(between.url, sent)
    assert done.returncode == 0, done.stderr
    assert len(between.requests) == 4, "it has waited as long as it was told"
    assert len(set(between.bodies)) == 1
    check_stored_once(server, sent)
