"""A real haproxy in front of servers, with the configuration that conf/ gives to users.

It behaves as an ALB does: connections to the servers stay open, and nothing is sent twice. So
whatever a server does to a request is seen by the client, and told by the log.
"""

import http.client
import re
import shutil
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.eventually import eventually
from tests.support.s3 import listens, running
from tests.support.server import ROOT, free_port

CONFIG = ROOT / "conf" / "haproxy" / "haproxy.cfg"

#: A server gets no new request after so many red checks.
FALL = 2

# of two threads that log at the same time one may drop its line
_GLOBAL = "    nbthread 1\n"

_ANSWER_SECONDS = 70  # longer than haproxy waits for a server
_STATE_SECONDS = 30

#: `option httplog`, with the request's id as the one captured field.
_LINE = re.compile(
    r"\S+ \[[^\]]*\] collect estat/(?P<server>\S+) \S+ (?P<status>-?\d+) \d+ - - "
    r"(?P<termination>\S{4}) \S+ \S+ \{(?P<request>[^}]*)\} "
)


def haproxy_path() -> str | None:
    """Return where haproxy is installed, if it is; Debian keeps it off a user's path."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


class Logged(NamedTuple):
    """What the log says about a request."""

    request: str
    server: str
    status: int  # -1: the client's connection was closed without an answer
    termination: str  # who ended it, and when; "--" for a whole answer

    @property
    def was_sent(self) -> bool:
        """Whether the server may have got it: not with a connection that could not be opened."""
        return self.termination[1] != "C"


class Haproxy:
    """One haproxy; a context manager that leaves nothing running.

    It checks every server each ``check_seconds``; an idle connection to one may be closed after
    ``purge_delay``.
    """

    def __init__(
        self, directory: Path, ports: Mapping[str, int], check_seconds: float, purge_delay: str
    ) -> None:
        self.port = free_port()
        self._ports = ports
        self._socket = directory / "haproxy.sock"
        self._log = directory / "haproxy.log"
        self._config = directory / "haproxy.cfg"
        self._config.write_text(self._here(CONFIG.read_text(), check_seconds, purge_delay))
        self._processes = ExitStack()

    def _here(self, text: str, check_seconds: float, purge_delay: str) -> str:
        """Return the configuration for these servers, with other times and a control socket."""
        head, _, _ = text.partition("    server estat1 ")
        for given, wanted in {
            "bind :80": f"bind 127.0.0.1:{self.port}",
            "inter 2s fall 2": f"inter {check_seconds * 1000:.0f}ms fall {FALL}",
            "pool-purge-delay 60s": f"pool-purge-delay {purge_delay}",
            "\nglobal\n": f"\nglobal\n{_GLOBAL}    stats socket {self._socket} level admin\n",
        }.items():
            assert head.count(given) == 1, given
            head = head.replace(given, wanted)
        servers = [f"    server {name} 127.0.0.1:{port}\n" for name, port in self._ports.items()]
        return head + "".join(servers)

    def __enter__(self) -> Self:
        path = haproxy_path()
        assert path, "haproxy is not installed"
        with ExitStack() as processes, self._log.open("wb") as log:
            argv = [path, "-db", "-f", str(self._config)]
            processes.enter_context(running(argv, log))
            eventually(lambda: listens(self.port), 10, "haproxy listens", last_words=self.log_text)
            self._processes = processes.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def connection(self) -> http.client.HTTPConnection:
        """Return a keep-alive connection; the caller closes it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS)

    # --- servers

    def state(self, name: str) -> str:
        """Return UP, DOWN or DRAIN, with a count while checks begin to say otherwise."""
        return self._stats()[name]["status"]

    def served(self) -> dict[str, int]:
        """Return how many requests each server has answered with 2xx."""
        return {name: int(stats["hrsp_2xx"] or 0) for name, stats in self._stats().items()}

    def await_state(self, name: str, state: str) -> None:
        """Wait until a server is UP, DOWN or in DRAIN, by as many checks as that takes."""
        eventually(
            lambda: self.state(name) == state,
            _STATE_SECONDS,
            f"haproxy has {name} as {state}",
            last_words=self.log_text,
        )

    def deregister(self, name: str) -> None:
        """Send a server no new request, and wait until none is left at it."""
        self._command(f"set server estat/{name} state drain")
        eventually(
            lambda: self._stats()[name]["scur"] == "0", _STATE_SECONDS, f"no request is at {name}"
        )

    def _stats(self) -> dict[str, dict[str, str]]:
        head, *rows = self._command("show stat").removeprefix("# ").strip().splitlines()
        found = [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]
        return {row["svname"]: row for row in found if row["svname"] in self._ports}

    def _command(self, text: str) -> str:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_ANSWER_SECONDS)
            control.connect(str(self._socket))
            control.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: control.recv(65536), b"")).decode()

    # --- log

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def requests(self) -> dict[str, Logged]:
        """Return what was logged of each request, by its id.

        haproxy logs nothing of a request that fails when both it and the connection to the server
        are not the first of theirs: it closes the client's connection, which is to try again.
        """
        found = {}
        for match in _LINE.finditer(self.log_text()):
            found[match["request"]] = Logged(
                match["request"], match["server"], int(match["status"]), match["termination"]
            )
        return found
