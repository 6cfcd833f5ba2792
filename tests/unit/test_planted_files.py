"""What others have put into a directory is neither followed nor opened nor deleted by anybody."""

import os
import re
import time
from pathlib import Path

import pytest

from estat.audit import dlq_reader
from estat.cli import main
from estat.config import loading
from estat.disk import dlq_dir, dlq_file, files, server_directory
from estat.disk.dlq import PENDING, DeadLetterQueue
from estat.disk.server_directory import ServerDirectory
from estat.disk.slots import slot_of
from estat.errors import DiskError, ObjectExists, ObjectRefused
from estat.stores import Stores
from tests.support import forged, forgeries
from tests.support.forgeries import Place
from tests.unit.batches import STREAM, batch
from tests.unit.journals import journal


def places(root):
    return {str(p.relative_to(root)) for p in Path(root).rglob("*") if not p.is_dir()}


# --- every forgery, through every command that reads


@pytest.fixture
def beside(tmp_path):
    """A server's directory with an honest file and an honest journal, of the server's user."""
    forgeries.open_way(tmp_path)
    place = Place(tmp_path / "dlq" / "servers" / f"{STREAM[:12]}{99:016x}", tmp_path / "target")
    queue = DeadLetterQueue(str(place.root))
    queue.create()
    honest = batch(bucket=f"file:{tmp_path}/store")
    queue.write(honest, dlq_file.pack(honest, "put_failed", ""))
    journal(range(11, 16), stream=HONEST, bucket=f"file:{tmp_path}/store").write(str(place.root))
    forgeries.make_target(place.target)
    (tmp_path / "store").mkdir()
    return place


HONEST = f"{STREAM[:12]}{98:016x}"
HONEST_FILE = dlq_file.file_name(batch())

#: By command: its arguments, and what it says of what is honest.
READERS = {
    "ls": (["ls"], HONEST_FILE),
    "ls as JSON": (["ls", "--json"], HONEST_FILE),
    "show": (["show", HONEST_FILE, "FORGED"], f'"name": "{batch().name}"'),
    "verify": (["verify"], "good: 2 files, 15 events"),
    "export": (["export", "--to", "OUT"], "exported to"),
    "export of events": (["export", "--events", "--to", "OUT"], "exported to"),
    "rm": (["rm", "--yes", HONEST_FILE], "deleted 1 file, 10 events; not deleted: 0"),
    "audit": (["audit", "STORE", "--deep", "--dlq", "DLQ"], f"{STREAM}"),
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("kind", forgeries.kinds())
def test_no_command_obeys_or_follows_what_others_have_put_there(
    beside, tmp_path, monkeypatch, capfd, kind, command
):
    path = forgeries.plant(beside, kind)
    forgeries.give(tmp_path / "dlq")
    before = forgeries.snapshot(beside.target)
    known = places(tmp_path)
    monkeypatch.setenv("RAW_BUCKET", f"file:{tmp_path}/store")
    monkeypatch.setenv("DLQ_DIR", str(tmp_path / "dlq"))
    monkeypatch.chdir(tmp_path)
    shown = [entry.path for entry in dlq_reader.every(str(tmp_path / "dlq"))]
    words = {"OUT": str(tmp_path / "out"), "STORE": "store", "DLQ": "dlq"}
    given, expected = READERS[command]
    arguments = [words.get(word, word) for word in given]
    if "FORGED" in arguments:
        arguments[2:] = [str(path)] if str(path) in shown else []
    code = main.main(arguments if command == "audit" else ["dlq", *arguments])
    out, err = capfd.readouterr()
    assert code in (0, 1, 3), err
    assert expected in out
    assert not {"\x1b", "precious", "Traceback"} & set(
        re.findall("\x1b|precious|Traceback", out + err)
    )
    assert os.path.lexists(path)
    assert forgeries.snapshot(beside.target) == before
    new = places(tmp_path) - known
    assert {name.split("/")[0] for name in new} <= {"out"}
    if os.geteuid() == 0:
        roots = [p for p in (tmp_path / "dlq").rglob("*") if p.lstat().st_uid == 0]
        assert [p for p in roots if p.lstat().st_nlink == 1 or p.is_dir()] == []


def test_a_directory_that_may_not_be_read_is_named_and_hides_no_other(
    beside, tmp_path, monkeypatch, capsys
):
    if os.geteuid():
        pytest.skip("only root can give files away")
    closed = beside.root.with_name(f"{STREAM[:12]}{97:016x}")
    (closed / PENDING).mkdir(parents=True, mode=0o700)
    closed.chmod(0o700)
    forgeries.give(tmp_path / "dlq")
    os.chown(closed, forgeries.STRANGER, forgeries.STRANGER)
    monkeypatch.setenv("RAW_BUCKET", f"file:{tmp_path}/store")
    monkeypatch.chdir(tmp_path)
    for command, expected in (
        (["dlq", "verify", "--dlq", "dlq"], "good: 2 files, 15 events; bad: 1"),
        (["dlq", "ls", "--dlq", "dlq"], HONEST_FILE),
        (["audit", "store", "--dlq", "dlq"], STREAM),
    ):
        main.main(command)
        out = capsys.readouterr().out
        assert expected in out
        assert closed.name in out
        assert "Permission denied" in out


def test_what_a_server_may_not_read_of_anothers_directory_is_told_and_hides_nothing(
    beside, tmp_path
):
    if os.geteuid():
        pytest.skip("only root can give files away")
    note = beside.root / PENDING / "note"
    note.touch()
    closed = beside.root.with_name(f"{STREAM[:12]}{97:016x}") / PENDING
    closed.mkdir(parents=True)
    closed.chmod(0o700)
    root = str(tmp_path / "dlq")
    forgeries.give(tmp_path / "dlq")
    os.chown(closed, forgeries.STRANGER, forgeries.STRANGER)
    with dlq_dir.acting_as_owner(root):
        found = server_directory.passed_over(root)
    assert found == {
        str(closed): ("not_followed", "Permission denied"),
        str(note): ("unknown", "no rule knows it"),
    }


# --- links, FIFOs, what strangers made


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = str(tmp_path / "file")
    if kind == "link":
        (tmp_path / "target").write_bytes(b"secret")
        os.symlink(tmp_path / "target", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.mkdir(path)
    with pytest.raises(DiskError):
        files.read_whole(path)
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT):
        with pytest.raises(OSError):  # noqa: PT011 - whatever the kernel says
            files.open_file(path, flags)


def test_what_earlier_versions_left_open_is_closed_to_others(tmp_path):
    dlq_dir = tmp_path / "dlq"
    slot = dlq_dir / PENDING / slot_of(time.time())
    slot.mkdir(parents=True)
    path = slot / dlq_file.file_name(batch())
    path.write_bytes(forged.dlq_bytes(batch()))
    for each in (path, slot, slot.parent, dlq_dir):
        each.chmod(each.stat().st_mode | 0o044)
    directory = ServerDirectory.make(str(dlq_dir))
    assert dlq_dir.stat().st_mode & 0o777 == 0o700
    assert DeadLetterQueue(str(dlq_dir)).walk().files == 1
    assert path.stat().st_mode & 0o777 == 0o600
    directory.release()


def test_where_everybody_may_write_what_strangers_made_is_passed_over(tmp_path):
    if os.geteuid():
        pytest.skip("only root can give files away")
    tmp_path.chmod(0o777)
    for name, user in (("ours", 0), ("theirs", 65534)):
        (tmp_path / name).touch()
        os.chown(tmp_path / name, user, user)
    assert [entry.name for entry in files.entries(str(tmp_path))] == ["ours"]
    ((path, why),) = files.not_followed(str(tmp_path))
    assert (path, "65534" in why) == (str(tmp_path / "theirs"), True)
    with pytest.raises(DiskError):
        files.read_whole(str(tmp_path / "theirs"))
    tmp_path.chmod(0o755)
    assert len(list(files.entries(str(tmp_path)))) == 2
    assert list(files.not_followed(str(tmp_path))) == []


# --- a directory in place of a bucket, and the target of an export


def _in_place_of_an_object(store, target):
    forgeries._link(store / batch().key, target / forgeries.name(70))


def _in_place_of_a_partition(store, target):
    forgeries._link((store / batch().key).parent, target)


def _pipe(store, target):
    del target
    forgeries._fifo(forgeries.made((store / batch().key).parent) / f"{batch().name}.jsonl.gz")


@pytest.mark.parametrize("plant", [_in_place_of_an_object, _in_place_of_a_partition, _pipe])
def test_a_store_refuses_what_is_no_object_and_goes_on(tmp_path, plant):
    target = tmp_path / "target"
    forgeries.make_target(target)
    plant(tmp_path / "store", target)
    before = forgeries.snapshot(target)
    bucket = f"file:{tmp_path}/store"
    store = Stores(loading.load({"RAW_BUCKET": bucket}, env_file="")).get(bucket)
    for ask in (
        lambda: store.put(batch().key, b"", 0, "", {}),
        lambda: store.put(batch().key, b"", 0, "", {}, replaces="1-2-3"),
        lambda: store.get(batch().key),
        lambda: store.head(batch().key),
    ):
        with pytest.raises((ObjectExists, ObjectRefused)):
            ask()
    assert list(store.list("raw/")) == []
    store.put("raw/other.jsonl.gz", b"x", 0, "", {})
    assert list(store.list("raw/")) == ["raw/other.jsonl.gz"]
    assert forgeries.snapshot(target) == before


def test_an_object_beyond_all_measure_is_told_by_its_size_and_not_read(tmp_path):
    path = tmp_path / "store" / "raw" / "x.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, 2**40)
    bucket = f"file:{tmp_path}/store"
    store = Stores(loading.load({"RAW_BUCKET": bucket}, env_file="")).get(bucket)
    assert store.head("raw/x.jsonl.gz").size_bytes == 2**40
    with pytest.raises(ObjectRefused, match="512 MiB"):
        store.get("raw/x.jsonl.gz")


def test_an_export_follows_no_link_in_its_target(beside, tmp_path, capsys):
    out = tmp_path / "out"
    forgeries._link(out / "servers", beside.target)
    before = forgeries.snapshot(beside.target)
    assert main.main(["dlq", "export", "--dlq", str(tmp_path / "dlq"), "--to", str(out)]) == 1
    assert "not exported: 2" in capsys.readouterr().out
    assert forgeries.snapshot(beside.target) == before
