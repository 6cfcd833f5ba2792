"""conf/systemd/estat.service: systemd understands it, and the server can live with what it forbids.

No systemd runs where the tests do: the limits are compared with what the server does without them.
"""

import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from estat.config import loading
from tests.conftest import need
from tests.support.command import run
from tests.support.eventually import eventually
from tests.support.page import read
from tests.support.server import BIN, ROOT, Server
from tests.support.strace import strace_path

UNIT = (ROOT / "conf" / "systemd" / "estat.service").read_text()
INSTALLED = "/opt/estat/bin/estat"

#: In tenths; what it has left is the network, and the boot id, which is read in /proc.
_EXPOSURE = 15


def values(name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = shutil.which("systemd-analyze")
    need(path, "systemd-analyze")
    return run([str(path), *arguments])


@pytest.fixture
def unit(tmp_path: Path) -> str:
    """Return the unit's path, with the server where it is installed here."""
    path = tmp_path / "estat.service"
    path.write_text(UNIT.replace(INSTALLED, str(BIN / "estat")))
    return str(path)


def test_systemd_finds_no_fault(unit):
    done = analyze("verify", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_is_little_exposed(unit):
    done = analyze("security", "--offline=true", f"--threshold={_EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_function_for_commands_names_what_the_service_names():
    (told,) = re.findall(r"(?s)( systemd-run .*?) \"\$@\"", read("docs/deploy.md"))
    (user,), (group,), (directory,), (environment,) = map(
        values, ("User", "Group", "WorkingDirectory", "EnvironmentFile")
    )
    assert told.replace("\\\n", " ").split() == [
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        "--collect",
        f"--uid={user}",
        f"--gid={group}",
        "-p",
        f"WorkingDirectory={directory}",
        "-p",
        f"EnvironmentFile={environment}",
        INSTALLED,
    ]


def test_systemds_patience_is_longer_than_a_stop():
    (patience,) = values("TimeoutStopSec")
    stop = loading.load({"RAW_BUCKET": "my-bucket"}, env_file="").shutdown_timeout
    assert int(patience) >= stop + 3


def served(tmp_path: Path, **others: str) -> Server:
    """Return a server whose environment starts `estat serve` as the unit does."""
    return Server(tmp_path, {"RAW_BUCKET": f"file:{tmp_path}/data"} | others)


def test_the_process_that_systemd_starts_says_that_it_is_ready(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        server = served(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify"))
        process = subprocess.Popen(
            [BIN / "estat", "serve"], env=server.environ, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:
            message, credentials, *_ = notified.recvmsg(4096, 1024)
            assert b"READY=1" in message.splitlines()
            pid = int.from_bytes(credentials[0][2][:4], "little")
            assert pid == process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert process.returncode == 0


def test_a_server_that_can_not_use_its_directory_never_says_that_it_is_ready(tmp_path):
    (tmp_path / "dlq").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        server = served(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify"))
        ended = run([BIN / "estat", "serve"], env=server.environ, cwd=tmp_path)
        assert ended.returncode == 2
        assert f"DLQ_DIR='{server.dlq_dir}' can't be used" in ended.stderr
        notified.setblocking(False)
        with pytest.raises(BlockingIOError):
            notified.recv(4096)


def test_the_server_makes_no_system_call_that_the_unit_forbids(tmp_path):
    need(strace_path(), "strace")
    allowed = allowed_calls()
    counts = tmp_path / "counts"
    server = served(tmp_path, DURABILITY="fsync")
    process = subprocess.Popen(
        [str(strace_path()), "-f", "-c", "-o", counts, BIN / "estat", "serve"],
        env=server.environ,
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        eventually(lambda: server.get("/ready").status == 200, 60, "the server is ready")
        assert server.post('{"n":1}').status == 202
        eventually(lambda: list(tmp_path.glob("data/raw/*/*/*")), 30, "the event is stored")
        subprocess.run(["kill", f"-{signal.SIGTERM}", *children.read_text().split()], check=True)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait(timeout=20)
    made = set(re.findall(r"(?m)^ *[\d.]+ +[\d.]+ +\d+ +\d+ +(?:\d+ +)?(\w+)$", counts.read_text()))
    assert {"execve", "fdatasync", "sendto"} & made
    assert made - allowed - {"total"} == set()


def allowed_calls() -> set[str]:
    """Work out what SystemCallFilter lets through, from systemd's own lists."""
    allowed: set[str] = set()
    for value in values("SystemCallFilter"):
        calls = {call for name in value.lstrip("~").split() for call in expanded(name)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def expanded(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    done = analyze("syscall-filter", name)
    assert done.returncode == 0, done.stderr
    listed = [line.strip() for line in done.stdout.splitlines()[1:]]
    return {call for each in listed if each and not each.startswith("#") for call in expanded(each)}
