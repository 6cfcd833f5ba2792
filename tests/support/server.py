"""The real server as a subprocess: gunicorn with the production configuration."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self, TypeVar

from tests.support import accounting
from tests.support.eventually import eventually
from tests.support.lines import gunzip_lines

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

#: The configuration that gunicorn is started with in production.
CONFIG = ROOT / "conf" / "gunicorn.conf.py"

T = TypeVar("T")

_START_SECONDS = 30
#: Tells a hang from work on a busy machine, where a store may be tried again only after 30 s.
_HANG_SECONDS = 60
_ANSWER_SECONDS = 20

#: What tests run with unless they say otherwise: everything happens soon.
DEFAULTS = {
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "BATCH_SIZE": "100",
    "FLUSH_INTERVAL": "100ms",
    "S3_TIMEOUT": "500ms",
    "S3_APP_RETRIES": "1",
    "SHUTDOWN_TIMEOUT": "20s",
    "UPLOAD_QUEUE": "100",  # else a burst of small batches goes to the DLQ untried
    "INSTANCE_ID": "test-1.example",
    "TRUSTED_PROXIES": "1",
}

#: TEST_WORKER=stock runs gunicorn's own gevent worker instead of the server's.
STOCK = os.environ.get("TEST_WORKER") == "stock"

_SAMPLE = re.compile(r"(?P<name>\w+)(?P<labels>\{[^}]*\})? (?P<value>\S+)")


class Bucket(Protocol):
    """Where a server's events are stored."""

    def stored(self) -> list[dict[str, Any]]:
        """Return every stored line."""


class Answer(NamedTuple):
    """An HTTP answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def hold_port(owner: object) -> int:
    """Return a port that goes to nobody who asks for any free one, as long as ``owner`` lives.

    Who asks for this very port can listen on it, as gunicorn does.
    """
    holder = socket.socket()
    weakref.finalize(owner, holder.close)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    return port


class Server:
    """One start of the server, in ``directory``; a context manager that leaves nothing running."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        *,
        workers: int = 1,
        gunicorn: str = "",
        config: Path = CONFIG,
    ) -> None:
        if STOCK and "--worker-class" not in gunicorn:
            gunicorn += " --worker-class gevent"
        # held also while it is down: clients that go on must not meet another server there
        self.port = hold_port(self)
        self.workers = workers
        self.dlq_dir = directory / "dlq"
        self._directory = directory
        self._config = config
        environ = {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "TMPDIR") if k in os.environ}
        environ |= DEFAULTS
        environ |= {
            "HTTP_ADDR": f"127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": str(workers),
            "DLQ_DIR": str(self.dlq_dir),
            "GUNICORN_CMD_ARGS": gunicorn,
        }
        environ |= settings
        self.environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / f"server-{self.port}.log"

    @property
    def own_dir(self) -> Path:
        """This server's directory in DLQ_DIR, the one that it made last."""
        return Path(self.events("directory_made")[-1]["directory"])

    def launch(self) -> Self:
        """Start it."""
        with self._open_log() as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def _open_log(self) -> IO[bytes]:
        return self._log.open("wb")

    def _command(self) -> list[str]:
        return [str(BIN / "gunicorn"), "-c", str(self._config), "estat.wsgi:app"]

    def start(self) -> Self:
        """Start it and wait until every worker is ready."""
        self.launch()
        eventually(self.is_up, _START_SECONDS, "the server is ready", last_words=self.log_text)
        return self

    def is_up(self) -> bool:
        """Tell whether every worker is ready, or the server has ended."""
        if self.process.poll() is not None:
            return True  # the next request will fail, with the log in its message
        started = len(self.events("worker_started"))
        return started >= self.workers and self.get("/ready").status == 200

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "the server was never started"
        return self._process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- requests

    def connection(self) -> http.client.HTTPConnection:
        """Return a keep-alive connection; the caller closes it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make one request on a connection of its own."""
        connection = self.connection()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def refuses_connections(self) -> bool:
        """Tell whether nobody listens there any more."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except ConnectionRefusedError:
            return True
        return False

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(
        self, body: bytes | str, content_type: str = "application/json", **headers: str
    ) -> Answer:
        data = body.encode() if isinstance(body, str) else body
        return self.request("POST", "/collect", data, {"Content-Type": content_type, **headers})

    def metrics(self) -> dict[str, float]:
        """Return all samples of a scrape, by name and labels as they are written there."""
        answer = self.get("/metrics")
        assert answer.status == 200, answer
        samples = {}
        for line in answer.body.decode().splitlines():
            if line and not line.startswith("#"):
                match = _SAMPLE.fullmatch(line)
                assert match, f"not a sample: {line!r}"
                samples[match["name"] + (match["labels"] or "")] = float(match["value"])
        return samples

    def rejected(self, reason: str) -> float:
        return self.metrics()[f'http_requests_rejected_total{{reason="{reason}"}}']

    def stored(self) -> list[dict[str, Any]]:
        """Wait until all is stored in the directory that is the bucket; return the lines."""
        self.until(self.settled, "everything is stored")
        store = Path(self._directory, self.environ["RAW_BUCKET"].removeprefix("file:"))
        files = store.rglob("raw/dt=*/**/*.jsonl.gz")
        return [line for path in files for line in gunzip_lines(path.read_bytes())]

    def problems(self) -> list[str]:
        """Return what /ready names as wrong; it must be 200 all the while."""
        answer = self.get("/ready")
        assert answer.status == 200, answer
        found: list[str] = answer.json["problems"]
        return found

    def settled(self) -> bool:
        """Tell whether every event is stored: none is pending, none in the DLQ.

        What another run of the server left counts as soon as it was taken over.
        """
        if self.foreign():
            return False
        found = self.metrics()
        return found["events_pending"] == found["dlq_files_current"] == 0

    def foreign(self) -> list[Path]:
        """Return the files of other runs in DLQ_DIR that are not counted yet."""
        root, own = Path(self.environ["DLQ_DIR"]), self.own_dir
        return [
            path
            for path in root.rglob("*")
            if path.suffix in (".gz", ".journal")
            and path.is_file()
            and not path.is_symlink()
            and (own not in path.parents or "." in path.parent.name)
        ]

    def until(
        self, condition: Callable[[], T], what: str, deadline_seconds: float = _HANG_SECONDS
    ) -> T:
        """Wait for a condition and return it; a failure shows the log."""
        return eventually(condition, deadline_seconds, what, last_words=self.log_text)

    def must_store(self, accepted: Iterable[str], bucket: Bucket) -> None:
        """Wait until all is stored, each accepted event once, and the accounting closes."""
        self.until(self.settled, "all is stored")
        accounting.check(accepted, bucket.stored())
        accounting.check_equation(self.metrics())

    def all_on_disk(self) -> bool:
        """Tell whether what is not stored lies in the DLQ, all of it."""
        found = self.metrics()
        return found["events_pending"] == 0 and found["dlq_files_current"] > 0

    # --- processes

    @property
    def arbiter_pid(self) -> int:
        return self.process.pid

    def worker_pids(self) -> list[int]:
        return children(self.arbiter_pid)

    def worker_of(self, connection: http.client.HTTPConnection) -> int:
        """Return the pid of the worker that has accepted a connection."""

        def find() -> int | None:
            inode = _server_inode(self.port, connection.sock.getsockname()[1])
            return next((p for p in self.worker_pids() if inode in _socket_inodes(p)), None)

        found = eventually(find, 5, "a worker has accepted the connection")
        assert found
        return found

    def connection_to_each_worker(self) -> dict[int, http.client.HTTPConnection]:
        """Return a keep-alive connection to every worker, by its pid; the caller closes them."""
        found: dict[int, http.client.HTTPConnection] = {}

        def try_one() -> bool:
            connection = self.connection()
            assert ask(connection, "GET", "/health").status == 200
            worker = self.worker_of(connection)
            if worker in found:
                connection.close()
            else:
                found[worker] = connection
            return len(found) == self.workers

        eventually(try_one, 30, "there is a connection to each worker")
        return found

    def kill_worker(self, pid: int | None = None) -> int:
        """Kill -9 one worker and return its pid once the arbiter has replaced it."""
        before = self.worker_pids()
        victim = pid or before[0]
        started = len(self.events("worker_started"))
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: (
                victim not in self.worker_pids() and len(self.events("worker_started")) > started
            ),
            _START_SECONDS,
            "the killed worker is replaced",
            last_words=self.log_text,
        )
        return victim

    def send_signal(self, number: int) -> None:
        os.kill(self.arbiter_pid, number)

    def wait(self, deadline_seconds: float = 40) -> int:
        """Wait for the end and return the exit code."""
        eventually(
            lambda: self.process.poll() is not None,
            deadline_seconds,
            "the server has ended",
            last_words=self.log_text,
        )
        return self.process.returncode

    def stop(self, number: int = signal.SIGTERM, deadline_seconds: float = 40) -> int:
        self.send_signal(number)
        return self.wait(deadline_seconds)

    def must_stop(self) -> dict[str, Any]:
        """Stop it; it must have lost nothing. Return its line about the accounting."""
        assert self.stop() == 0, self.log_text()
        return accounting.check_stopped(self.logs())

    def kill(self) -> None:
        """Kill -9 everything at once: arbiter and workers."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait(timeout=20)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let no process of the server run, for as long as the block."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    # --- log

    def log_text(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else "(no log)"

    def logs(self) -> list[dict[str, Any]]:
        """Return the log's lines; each must be JSON by then."""
        return [
            json.loads(line)
            for line in self.log_text().splitlines(keepends=True)
            if line.endswith("\n") and line.startswith("{")
        ]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        return [line for line in self.logs() if line.get("event") == name]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Make a request on a connection that stays open."""
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    return Answer(answer.status, answer.headers, answer.read())


def children(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _server_inode(server_port: int, client_port: int) -> str | None:
    """Find the server's end of a connection in /proc/net/tcp."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(address.split(":")[1], 16) for address in fields[1:3]]
        if ports == [server_port, client_port]:
            return fields[9]
    return None


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes
