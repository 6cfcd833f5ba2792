"""A real OpenStack Swift with its S3 API: another S3 than moto, which takes nothing on trust.

It keeps objects on disk, and refuses wrong keys, signatures and checksums. One node with
one replica: a proxy (s3api before tempauth), an account, a container and an object server,
and memcached, where the proxy keeps what it knows about containers. Swift itself comes
with the test extra in setup.cfg, memcached from Debian.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.support.eventually import eventually
from tests.support.s3 import Endpoint, listens, running
from tests.support.server import BIN, hold_port

_START_SECONDS = 60
_DEVICE = "disk"

_SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = tests
"""

_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {directory}
user = {user}
workers = 0
"""

_BACKEND = """
[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
devices = {directory}/srv
mount_check = false
# a listing has every object: no update is left to the updater, which does not run here
container_update_timeout = 30
"""

_PROXY = """
[pipeline:main]
pipeline = catch_errors cache s3api tempauth proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached_port}

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
# short pages, so that whoever lists has to ask for the next one
max_bucket_listing = 10

[filter:tempauth]
use = egg:swift#tempauth
user_{account_user} = {secret_key} .admin
"""

# a process of its own, because swift patches the one that imports it
_MAKE_RINGS = """
import sys
from swift.common.ring import RingBuilder

directory, device, *servers = sys.argv[1:]
for server in servers:
    kind, port = server.split("=")
    builder = RingBuilder(part_power=2, replicas=1, min_part_hours=0)
    builder.add_dev({
        "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": device,
        "replication_ip": "127.0.0.1", "replication_port": int(port), "weight": 1,
    })
    builder.rebalance()
    builder.get_ring().save(f"{directory}/{kind}.ring.gz")
"""


def memcached_path() -> str | None:
    """Return where memcached is installed, if it is."""
    return shutil.which("memcached")


def swift_path(kind: str = "proxy") -> str | None:
    """Return where one of Swift's servers is installed, if it is."""
    return shutil.which(f"swift-{kind}-server", path=str(BIN))


def with_extended_attributes(candidates: Iterable[Path]) -> Path | None:
    """Return the first directory whose files can have the attributes that Swift wants."""
    for candidate in candidates:
        try:
            with tempfile.NamedTemporaryFile(dir=candidate) as probe:
                os.setxattr(probe.name, "user.swift.metadata", bytes(1000))
        except OSError:
            continue
        return candidate
    return None


class Swift(Endpoint):
    """One node for the whole test run; ``directory`` is made and removed by the caller."""

    access_key = "test:tester"  # account and user
    secret_key = "a-key-that-is-verified"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._log = directory / "swift.log"
        self._memcached_port = hold_port(self)
        self._backends = {kind: hold_port(self) for kind in ("account", "container", "object")}
        self._processes = ExitStack()

    def __enter__(self) -> Self:
        self._configure()
        memcached = memcached_path()
        assert memcached, "memcached is not installed"
        commands = [[memcached, "-l", "127.0.0.1", "-p", str(self._memcached_port), "-u", _user()]]
        for kind in (*self._backends, "proxy"):
            path = swift_path(kind)
            assert path, "swift is not installed"
            commands.append([path, str(self._conf(kind)), "--verbose"])
        ports = [self._memcached_port, *self._backends.values(), self.port]
        with ExitStack() as processes, self._log.open("wb") as log:
            for command in commands:
                processes.enter_context(running(command, log))
            eventually(
                lambda: all(map(listens, ports)),
                _START_SECONDS,
                "Swift listens",
                last_words=self._log.read_text,
            )
            processes.enter_context(self._connected())
            self._processes = processes.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def _conf(self, kind: str) -> Path:
        return self._directory / f"{kind}-server.conf"

    def _configure(self) -> None:
        """Write the settings and the rings."""
        common = {"directory": self._directory, "user": _user()}
        (self._directory / "srv" / _DEVICE).mkdir(parents=True)
        (self._directory / "swift.conf").write_text(_SWIFT_CONF)
        for kind, port in self._backends.items():
            self._conf(kind).write_text((_COMMON + _BACKEND).format(kind=kind, port=port, **common))
        self._conf("proxy").write_text(
            (_COMMON + _PROXY).format(
                port=self.port,
                memcached_port=self._memcached_port,
                account_user=self.access_key.replace(":", "_"),
                secret_key=self.secret_key,
                **common,
            )
        )
        subprocess.run(
            [
                sys.executable,
                "-c",
                _MAKE_RINGS,
                self._directory,
                _DEVICE,
                *(f"{kind}={port}" for kind, port in self._backends.items()),
            ],
            check=True,
            timeout=_START_SECONDS,
        )


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
