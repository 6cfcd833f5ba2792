"""Whose DLQ_DIR is: every way in which a server and its directory may have other users.

Whatever the platform does, what was accepted is stored by the next run, and root's commands
leave nothing behind that the server's user can't read, move or delete.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import need
from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.forgeries import open_way
from tests.support.lines import gunzip_lines
from tests.support.server import BIN, Server
from tests.support.users import OfUser, owners, squashed

USER, OTHER, TEAM, VOLUMES = 61001, 61002, 61003, 61004

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")


class Platform(NamedTuple):
    """How a platform prepares a directory, and whom it lets a server be."""

    owner: int
    group: int
    mode: int
    user: int = USER  # of the server
    extra_group: int = 0
    #: How the volume says otherwise whose files are, to bindfs.
    squash: tuple[str, ...] = ()


PLATFORMS = {
    "a volume of the server's user": Platform(USER, USER, 0o755),
    "an emptyDir": Platform(0, 0, 0o777),
    "an emptyDir with fsGroup": Platform(0, TEAM, 0o2775, extra_group=TEAM),
    # which lets everybody do everything, in the access point's user's name
    "an EFS access point": Platform(
        USER, USER, 0o755, squash=(f"--force-user={VOLUMES}", "--perms=a+rwX")
    ),
    "root_squash": Platform(0, 0, 0o777, user=0, squash=("--map=0/65534",)),
}


class Host:
    """A host on which servers run one after the other, with a directory in place of S3."""

    def __init__(self, tmp_path: Path) -> None:
        open_way(tmp_path)
        self.path = tmp_path
        self.path.chmod(0o1777)  # as /tmp, where DLQ_DIR is by default
        self.dlq_dir, self.store = tmp_path / "dlq", tmp_path / "store"
        self.store.touch()  # an outage: it is no directory
        self.client = Client()
        self.settings = {
            "RAW_BUCKET": f"file:{self.store}",
            "DLQ_DIR": str(self.dlq_dir),
            "BATCH_SIZE": "10",
            "FLUSH_INTERVAL": "10m",
        }

    def leave_events(self, server: Server) -> None:
        """Start a server that is killed with 20 events in its DLQ and 3 in a journal."""
        with server:
            self.client.must_send(server, count=10, requests=2)
            eventually(server.all_on_disk, 20, "the batches are in the DLQ")
            self.client.must_send(server, count=3)

    def outage_ends(self, user: int) -> None:
        self.store.unlink()
        self.store.mkdir()
        os.chown(self.store, user, user)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run one of root's commands."""
        return subprocess.run(
            [str(BIN / "estat"), *words],
            env=self.settings | {"PATH": os.environ["PATH"], "HOME": "/root"},
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def check_all_is_stored(self, server: Server) -> None:
        """Start a server that stores all that is left."""
        with server:
            eventually(server.settled, 30, "all is stored", last_words=server.log_text)
            assert server.stop() == 0
            accounting.check_stopped(server.logs())
        paths = sorted((self.store / "raw").rglob("*.jsonl.gz"))
        accounting.check(
            self.client.accepted, [line for p in paths for line in gunzip_lines(p.read_bytes())]
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@contextmanager
def prepared(host: Host, platform: Platform) -> Iterator[Callable[[], OfUser]]:
    """Prepare DLQ_DIR as a platform does; yield what makes a server there."""
    host.dlq_dir.mkdir()
    os.chown(host.dlq_dir, platform.owner, platform.group)
    host.dlq_dir.chmod(platform.mode)
    volume: AbstractContextManager[None] = nullcontext()
    if platform.squash:
        need(shutil.which("bindfs"), "bindfs")
        volume = squashed(host.dlq_dir, *platform.squash)
    with volume:
        yield lambda: OfUser(host.path, host.settings, platform.user, group=platform.extra_group)


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)
def test_wherever_a_server_runs_the_next_one_stores_what_it_left_and_root_leaves_nothing(
    host: Host, platform: Platform
) -> None:
    with prepared(host, platform) as server:
        host.leave_events(server())
        before = owners(host.dlq_dir)
        for words in (
            ["dlq", "ls"],
            ["dlq", "verify"],
            ["dlq", "replay", "--dry-run"],
            ["dlq", "export", "--to", f"{host.path}/out"],
            ["check"],
            ["audit", "--dlq", str(host.dlq_dir)],
        ):
            if words == ["check"]:
                host.outage_ends(platform.user)
            done = host.command(*words)
            assert "Traceback" not in done.stderr, done
            assert re.search(r"2[03] events|writable, 2 files wait|23", done.stdout), done
            assert owners(host.dlq_dir) == before, words
        host.check_all_is_stored(server())
        assert owners(host.dlq_dir, host.store) <= before | {platform.user}


def test_root_replays_and_removes_as_the_servers_user(host: Host) -> None:
    with prepared(host, PLATFORMS["an emptyDir"]) as server:
        host.leave_events(server())
        host.outage_ends(USER)
        done = host.command("dlq", "replay")
        assert "stored: 2 files, 20 events" in done.stdout, done
        assert owners(host.store, host.dlq_dir) == {USER}
        host.check_all_is_stored(server())


@pytest.mark.parametrize("given", ["nothing", "the top alone", "everything"])
def test_a_server_of_another_user_stores_what_it_was_given_or_says_what_it_lacks(
    host: Host, given: str
) -> None:
    """systemd's DynamicUser gives everything to the user of the next start."""
    with prepared(host, Platform(USER, USER, 0o700)):
        host.leave_events(OfUser(host.path, host.settings, USER))
        paths = {"nothing": [], "the top alone": [host.dlq_dir]}.get(
            given, [host.dlq_dir, *host.dlq_dir.rglob("*")]
        )
        for path in paths:
            os.chown(path, OTHER, OTHER)
        host.outage_ends(OTHER)
        second = OfUser(host.path, host.settings, OTHER)
        if given != "everything":
            assert second.launch().wait() == 2
            assert f"user {OTHER}" in second.log_text()
            for path in (host.dlq_dir, *host.dlq_dir.rglob("*")):
                os.chown(path, OTHER, OTHER)
        host.check_all_is_stored(OfUser(host.path, host.settings, OTHER))


# --- directories that others have made


def made_by(tmp_path: Path, owner: int, mode: int, parent_mode: int) -> Server:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(parent_mode)
    (parent / "dlq").mkdir()
    os.chown(parent / "dlq", owner, owner)
    (parent / "dlq").chmod(mode)
    settings = {"RAW_BUCKET": f"file:{tmp_path}/store", "DLQ_DIR": str(parent / "dlq")}
    return Server(tmp_path, settings)


@pytest.mark.parametrize("parent_mode", [0o777, 0o1777])
def test_a_dlq_dir_that_anybody_may_have_made_is_refused(tmp_path: Path, parent_mode: int) -> None:
    server = made_by(tmp_path, OTHER, 0o777, parent_mode).launch()
    assert server.wait() == 2
    assert f"belongs to user {OTHER}" in server.log_text()
    assert list((tmp_path / "parent" / "dlq").iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_dlq_dir_of_another_user_in_a_safe_place_is_warned_of(tmp_path: Path, mode: int) -> None:
    with made_by(tmp_path, OTHER, mode, 0o755) as server:
        told = [line["problem"] for line in server.events("dlq_dir_not_safe")]
        assert any(f"belongs to user {OTHER}" in problem for problem in told)
        Client().must_send(server, count=10)
        assert server.stop() == 0
        accounting.check_stopped(server.logs())


def test_a_link_to_a_dlq_dir_that_anybody_may_have_made_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o1777)
    (tmp_path / "own").mkdir()
    (parent / "dlq").symlink_to(tmp_path / "own")
    os.lchown(parent / "dlq", OTHER, OTHER)
    settings = {"RAW_BUCKET": "events", "DLQ_DIR": str(parent / "dlq")}
    assert Server(tmp_path, settings).launch().wait() == 2
    assert list((tmp_path / "own").iterdir()) == []


def test_in_a_directory_for_everybody_nobody_else_makes_the_servers_directories(
    tmp_path: Path,
) -> None:
    servers = tmp_path / "dlq" / "servers"
    servers.mkdir(parents=True)
    (tmp_path / "dlq").chmod(0o1777)
    os.chown(servers, OTHER, OTHER)
    server = Server(tmp_path, {"RAW_BUCKET": "events"}).launch()
    assert server.wait() == 2
    assert "servers" in server.log_text()
