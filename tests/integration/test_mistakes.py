"""The first screen of a start, and mistakes that newcomers make with the answer that they get."""

import os
import pty
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from estat.cli import main
from tests.conftest import need
from tests.support.command import run
from tests.support.eventually import eventually
from tests.support.server import BIN, CONFIG, DEFAULTS, Server, free_port

LINES = '{"n":1}\n{"n":\n\n[2]\nn=3\n'


class Mistake(NamedTuple):
    """What is typed, the end status, and what is printed, among other things and in this order."""

    typed: str
    answers: list[str]
    status: int = 2
    env_file: str = "RAW_BUCKET=file:data\nDLQ_DIR=dlq\n"


PORT = "{port}"  # of a server that runs
CLOSED = "{closed}"  # where nobody listens
MISTAKES = [
    Mistake("", ["usage: estat [-h] [--version] {{init,serve,demo,check,", "required: COMMAND"]),
    Mistake("sevre", ["usage: estat [-h]", "invalid choice: 'sevre'"]),
    Mistake("serve --port 9000", ["usage: estat serve", "unrecognized arguments: --port 9000"]),
    Mistake("audit --wait", ["usage: estat audit", "--wait and --give-up are for an --hour"]),
    Mistake("serve", ["RAW_BUCKET is not set; it must be an S3 bucket's name"], env_file=""),
    Mistake(
        "serve",
        ["RAW_BUCKET is not set", "RAW_BUKET is no setting; did you mean RAW_BUCKET?"],
        env_file="RAW_BUKET=data\n",
    ),
    Mistake(
        "check",
        ["FAIL setting: RAW_BUCKET='s3://b/raw'", "perhaps you mean RAW_BUCKET=b RAW_PREFIX=raw/"],
        env_file="RAW_BUCKET=s3://b/raw\n",
    ),
    Mistake(
        "check",
        [".env, line 4 can't be read; write FLUSH_INTERVAL=value, without blanks in the name"],
        env_file="\r\nRAW_BUCKET=file:data\r\n\r\nFLUSH INTERVAL=1s\r\n",
    ),
    Mistake(
        "serve",
        [".env, line 1 can't be read; write RAW_BUCKET=value"],
        env_file="RAW_BUCKET: file:data\n",
    ),
    Mistake(
        "serve",
        [".env, line 2 can't be read; write STORED_STRICT=value"],
        env_file="RAW_BUCKET=file:data\nSTORED_STRICT\n",
    ),
    Mistake(
        "serve",
        [".env, line 2 can't be read; write DLQ_DIR=value", "with quotes around the whole value"],
        env_file='RAW_BUCKET=file:data\nDLQ_DIR="dlq\n',
    ),
    Mistake(
        "serve",
        [
            "HTTP_ADDR='localhost:99999' is not valid; it must be HOST:PORT or :PORT, the port",
            "FLUSH_INTERVAL='120' is not valid",
            "perhaps you mean FLUSH_INTERVAL=120s",
        ],
        env_file="RAW_BUCKET=file:data\nFLUSH_INTERVAL=120\nHTTP_ADDR=localhost:99999\n",
    ),
    Mistake(
        "check",
        ["EVENT_SCHEMA='none.json' is not valid", "No such file"],
        env_file="RAW_BUCKET=file:data\nEVENT_SCHEMA=none.json\n",
    ),
    Mistake(
        "check",
        ["FAIL bucket: can't write to file:", "make it a directory that the server's user may"],
        status=1,
        env_file="RAW_BUCKET=file:lines/data\nDLQ_DIR=dlq\n",
    ),
    Mistake(
        "check",
        ["FAIL dlq", "make DLQ_DIR a directory that the server may write to"],
        status=1,
        env_file="RAW_BUCKET=file:data\nDLQ_DIR=lines/dlq\n",
    ),
    Mistake("dlq ls", ["RAW_BUCKET is not set", "or name the directory with --dlq"], env_file=""),
    Mistake("audit", ["RAW_BUCKET is not set", "or name what to audit: s3://"], env_file=""),
    Mistake("dlq ls --limit 0", ["usage: estat dlq ls", "'0' is not a whole number of at least 1"]),
    Mistake("health", [f"no answer from 127.0.0.1:{CLOSED}: "], 1, f"HTTP_ADDR=127.0.0.1:{CLOSED}"),
    Mistake("send none", ["cannot read none: No such file or directory"]),
    Mistake(
        f"send lines --retries 1 --url http://127.0.0.1:{CLOSED}/collect",
        ["Connection refused; start the server", "trying again"],
        status=1,
    ),
    Mistake(
        f"send lines --retries 0 --url https://127.0.0.1:{PORT}/collect",
        ["perhaps the server has no TLS: try http://"],
        status=1,
    ),
    Mistake(
        f"send lines --url http://127.0.0.1:{PORT}",
        [
            " 3  405 Method Not Allowed",
            f"events are taken at /collect: try --url http://127.0.0.1:{PORT}/coll",
        ],
        status=1,
    ),
    Mistake(
        f"send lines --url http://127.0.0.1:{PORT}/collect",
        ["accepted", " 1", "400 Invalid JSON  (line 2, and others)", "the first is line 4"],
        status=1,
    ),
    Mistake(
        f"send lines --batch 9 --url http://127.0.0.1:{PORT}/collect",
        ["accepted", " 1", "(line 2, and others)", "the first is line 4"],
        status=1,
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, {"RAW_BUCKET": f"file:{directory}/data"}) as running:
        yield running


@pytest.fixture
def newcomer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """A directory and an environment without settings; fills ports in."""
    ports = {"port": server.port, "closed": free_port()}
    for name in set(os.environ) - {"PATH", "HOME", "COLUMNS"}:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("lines").write_text(LINES)
    return lambda text: text.format(**ports)


@pytest.mark.quick
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.typed} {m.env_file[:60]!r}")
def test_a_newcomers_mistake_is_answered_with_what_to_do(
    mistake: Mistake, newcomer: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".env").write_text(newcomer(mistake.env_file), newline="")
    try:
        status: object = main.main(newcomer(mistake.typed).split())
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert status == mistake.status, text
    found = [re.escape(newcomer(answer)) for answer in mistake.answers]
    assert re.search("(?s)" + ".*".join(found), text), text
    assert "Traceback" not in text
    assert "AWS_REGION" not in text
    left = {path.name for path in Path().rglob("*") if path.is_file()}
    assert left == {".env", "lines"}


@pytest.mark.quick
@pytest.mark.parametrize(
    "command", ["estat serve", f"gunicorn -c {CONFIG} estat.wsgi:app", f"estat demo --port {PORT}"]
)
def test_a_taken_port_is_told_in_one_line(
    command: str, newcomer: Callable[[str], str], tmp_path: Path
) -> None:
    program, *arguments = newcomer(command).split()
    address = newcomer(f"127.0.0.1:{PORT}")
    given = {"RAW_BUCKET": "file:data", "DLQ_DIR": "dlq", "HTTP_ADDR": address}
    result = run(
        [BIN / program, *arguments], cwd=tmp_path, env={"PATH": os.environ["PATH"], **given}
    )
    told = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert (result.returncode, len(told)) == (1, 1), result.stderr
    assert told[0].startswith(f"estat: can't listen on {address}: Address already in use; stop")
    assert "Retrying" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


def test_on_a_terminal_a_start_says_what_to_try_and_that_works(tmp_path: Path) -> None:
    need(shutil.which("curl"), "curl")
    terminal, slave = pty.openpty()
    given = DEFAULTS | {"RAW_BUCKET": "file:data", "DLQ_DIR": "dlq", "HTTP_ADDR": "127.0.0.1:0"}
    environ = {"PATH": os.environ["PATH"], **given}
    process = subprocess.Popen(
        [BIN / "estat", "serve"], cwd=tmp_path, env=environ, stdout=slave, stderr=slave
    )
    os.close(slave)
    shown: list[bytes] = []

    def look() -> None:
        try:
            while data := os.read(terminal, 65536):
                shown.append(data)
        except OSError:  # EIO: the last process has closed it
            pass

    person = threading.Thread(target=look)
    person.start()

    def screen() -> str:
        return b"".join(shown).decode().replace("\r\n", "\n")

    try:
        need_screen = lambda: "worker_started" in screen()  # noqa: E731
        eventually(need_screen, 30, "it serves", last_words=screen)
        (curl,) = re.findall(r"^  Try +(.+)$", screen(), re.MULTILINE)
        (zcat,) = re.findall(r"^  After 100ms +(.+)$", screen(), re.MULTILINE)
        answer = run(["sh", "-c", f"{curl} -s"])
        assert answer.stdout == '{"accepted":1}'
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    person.join(timeout=60)
    os.close(terminal)
    assert '"body":{"hello":"world"}' in run(["sh", "-c", zcat]).stdout
    assert "  Setting      FLUSH_INTERVAL=100ms\n" in screen()
    assert "QUEUE_BYTES" not in screen()
    assert "{" not in screen().replace(curl, "")
    assert max(len(line) for line in screen().replace(curl, "").splitlines()) <= 200
