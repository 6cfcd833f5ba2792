"""A real Ceph with its S3 gateway: a third S3, whose answers differ from those of the others.

The ETag is the MD5 and the checksum is not named; If-Match is compared without quotes. It
refuses wrong keys and signatures, and can be frozen. One monitor, one OSD that keeps objects
in memory, and the gateway; no manager, which only reports. All files are in one directory.
"""

import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.support.command import run
from tests.support.eventually import eventually
from tests.support.s3 import Endpoint, listens, running
from tests.support.server import hold_port

_START_SECONDS = 60

_CEPH_CONF = """\
[global]
fsid = {cluster}
mon host = v2:127.0.0.1:{monitor_port}
public addr = 127.0.0.1
ms bind msgr1 = false
keyring = {directory}/keyring
run dir = {directory}
admin socket = {directory}/$name.asok
log file =
mon cluster log file =
mon data = {directory}/mon
osd data = {directory}/osd
osd objectstore = memstore
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
# the monitor decides at once, instead of once a second: the gateway serves after two seconds
paxos propose interval = 0.01
paxos min wait = 0.01
rgw frontends = beast endpoint=127.0.0.1:{gateway_port}
rgw thread pool size = 32
# short pages, so that whoever lists has to ask for the next one
rgw max listing results = 10
"""

_KEYS = {
    "mon.": ("mon",),
    "client.admin": ("mon", "osd"),
    "osd.0": ("mon", "osd"),
    "client.rgw": ("mon", "osd"),
}


def ceph_missing() -> list[str]:
    """Return the programs that are not installed."""
    needed = ("ceph-mon", "ceph-osd", "radosgw", "ceph")
    return [program for program in needed if not shutil.which(program)]


class Ceph(Endpoint):
    """One node for the whole test run; ``directory`` is made and removed by the caller."""

    access_key = "tester"
    secret_key = "a-key-that-is-verified"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._log = directory / "ceph.log"
        self._monitor_port = hold_port(self)
        self._gateway: subprocess.Popen[bytes] | None = None
        self._processes = ExitStack()

    def __enter__(self) -> Self:
        osd = str(uuid.uuid4())
        self._configure()
        with ExitStack() as processes, self._log.open("wb") as log:
            processes.enter_context(running(self._command("ceph-mon", "-d", "-i", "a"), log))
            self._run("ceph", "osd", "new", osd, "0")
            self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
            processes.enter_context(running(self._command("ceph-osd", "-d", "-i", "0"), log))
            self._gateway = processes.enter_context(
                running(self._command("radosgw", "-d", "-n", "client.rgw"), log)
            )
            eventually(
                lambda: listens(self.port),
                _START_SECONDS,
                "the gateway listens",
                last_words=self._log.read_text,
            )
            self._make_user()
            processes.enter_context(self._connected())
            self._processes = processes.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have the gateway take requests and do nothing about them, for as long as the block."""
        assert self._gateway, "the gateway was never started"
        self._gateway.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._gateway.send_signal(signal.SIGCONT)

    def _configure(self) -> None:
        """Write the settings, the keys, and what the monitor starts from."""
        cluster, keyring, monmap = str(uuid.uuid4()), self._path("keyring"), self._path("monmap")
        self._directory.joinpath("ceph.conf").write_text(
            _CEPH_CONF.format(
                cluster=cluster,
                directory=self._directory,
                monitor_port=self._monitor_port,
                gateway_port=self.port,
            )
        )
        for kind in ("mon", "osd"):
            (self._directory / kind).mkdir()
        self._run("ceph-authtool", "--create-keyring", keyring)
        for name, parts in _KEYS.items():
            caps = [word for part in parts for word in ("--cap", part, "allow *")]
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *caps)
        address = f"[v2:127.0.0.1:{self._monitor_port}]"
        self._run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)

    def _make_user(self) -> None:
        keys = ("--access-key", self.access_key, "--secret-key", self.secret_key)
        name = ("--uid", "tester", "--display-name", "tester")
        self._run("radosgw-admin", "-n", "client.rgw", "user", "create", *name, *keys)

    def _path(self, name: str) -> str:
        return str(self._directory / name)

    def _command(self, *argv: str) -> list[str]:
        return [*argv, "--conf", self._path("ceph.conf")]

    def _run(self, *argv: str) -> None:
        done = run(self._command(*argv), timeout=_START_SECONDS)
        assert done.returncode == 0, done
