"""Commands trust nothing that they read: neither a name, nor a size, nor a kind of file."""

import gzip
import os
import resource
from pathlib import Path

import pytest

from estat.cli import main
from tests.unit.batches import STREAM

NAME = "n\x1b[31m\nforged\u202e\udcff.jsonl.gz"
FOREIGN = '{"estat_dlq":1,"bucket":"b\\u001b[2J","key":"raw/x","error":"http://u:hunter22@h/"}\n'
BOMB = f"1763017200_a-{STREAM}_000003.5.jsonl.gz"
HUGE_BYTES = 1 << 40

#: What a command may take beyond what it has at its start.
MEMORY_BYTES = 1 << 30


def bomb() -> bytes:
    """Return gzip that inflates to 2 GiB of one line."""
    return gzip.compress(bytes(1 << 20), 9) * 2048


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a store and a DLQ with files of strangers, and look at them with little memory."""
    store, dlq = tmp_path / "store/raw/dt=2025-11-13/hr=07", tmp_path / "dlq/pending/2025-11-13T07"
    records = tmp_path / "store/raw_streams"
    for made in (store, dlq, records):
        made.mkdir(parents=True)
    (tmp_path / "dlq").chmod(0o700)
    os.mkfifo(store / f"1763017200_a-{STREAM}_000001.jsonl.gz")
    huge = store / f"1763017200_a-{STREAM}_000002.jsonl.gz"
    huge.touch()
    os.truncate(huge, HUGE_BYTES)
    (store / f"1763017200_a-{STREAM}_000003.jsonl.gz").write_bytes(bomb())
    (dlq / BOMB).write_bytes(gzip.compress(FOREIGN.encode()) + bomb())
    for place in (store, dlq):
        (place / NAME).write_bytes(gzip.compress(FOREIGN.encode()) + gzip.compress(b"\xff\x9b\n"))
    os.mkfifo(records / f"{STREAM}.json")
    monkeypatch.setenv("RAW_BUCKET", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("DLQ_DIR", str(tmp_path / "dlq"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("audit", 1),
        ("audit --deep --dlq dlq", 1),
        ("audit --json --dlq dlq", 1),
        ("dlq ls", 0),
        ("dlq ls --json", 0),
        ("dlq verify", 1),
        ("dlq export --to out", 0),
        ("dlq export --events --to out", 1),
        ("dlq rm FILE", 1),
        ("dlq show FILE", 0),
        (f"dlq show {BOMB}", 1),
        ("dlq show nothing\x1b[31m", 2),
    ],
)
def test_a_command_holds_little_hangs_nowhere_and_prints_only_what_is_harmless(
    directory: Path, capsys: pytest.CaptureFixture[str], command: str, code: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, before[1]))
    try:
        arguments = [NAME if word == "FILE" else word for word in command.split(" ")]
        assert main.main(arguments) == code
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    out, err = capsys.readouterr()
    for line in (out + err).splitlines():
        assert line.isprintable(), line
        assert not line.startswith("forged")
    if "show" not in command:  # which shows what a file says
        assert "hunter22" not in out + err
