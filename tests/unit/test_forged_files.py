"""What a DLQ file or journal says is data: it is never an order to write elsewhere."""

import gzip
import json
import time
from pathlib import Path

import pytest

from estat.cli import main
from estat.config import loading
from estat.disk import dlq_file, journal_file
from estat.disk.dlq import PENDING, DeadLetterQueue
from estat.disk.dlq_file import name_for
from estat.disk.journal_recovery import recover_journal
from estat.disk.slots import slot_of
from estat.errors import NotOurs, Unreadable
from estat.events import ids
from estat.stores import Stores
from tests.support import forged
from tests.support.parts import Parts, load
from tests.unit.batches import STREAM, batch
from tests.unit.journals import journal

CHANGES = forged.changes("/home/x/.ssh")
SETTINGS = loading.load({"RAW_BUCKET": "events"}, env_file="")

HEADER = journal().header


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_dlq_file_that_this_server_would_not_write_is_not_obeyed(change):
    with pytest.raises(NotOurs):
        dlq_file.unpack(forged.dlq_bytes(batch(), **change))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_journal_that_this_server_would_not_write_is_not_obeyed_but_still_counted(change):
    data = forged.journal_bytes(HEADER, range(1, 11), **change)
    content = journal_file.parse(data)
    assert content.header is None
    assert content.not_ours
    assert sum(group.events for group in content.groups) == 10
    with pytest.raises(NotOurs):
        recover_journal(data, STREAM, 1, SETTINGS)


def test_a_seal_is_obeyed_no_more_than_a_header():
    sealed = journal().seal(10).data
    first_line, seal = sealed.index(b"\n") + 1, sealed.index(b"#sealed ")
    facts = forged.journal_bytes(HEADER, range(1, 2), name=forged.ESCAPED, last=10)
    data = sealed[first_line:seal] + b"#sealed " + facts.partition(b"\n")[0] + b"\n"
    assert journal_file.parse(data).not_ours


def test_a_journal_without_its_header_is_recovered_whatever_its_lines_say_of_time():
    start = b'{"id":"%b-1"' % STREAM.encode()
    for rest in (b"}\n", b',"ts":1e300}\n', b',"ts":"x"}\n', b',"ts":NaN}\n', b"\n"):
        data = journal_file.pack_group([start + rest])
        found = recover_journal(data, STREAM, 1, SETTINGS).batch
        assert found.events == 1
        assert found.opened == ids.started_at(STREAM)


@pytest.mark.parametrize(
    "prefix",
    ["raw", "a/b/c", "raw=1", "!_.*'()=-", "dt=2025-11-13/hr=07", "..a/b..", "x" * 512, "..."],
)
def test_whatever_raw_prefix_was_its_files_are_ours(prefix):
    settings = loading.load({"RAW_BUCKET": "events", "RAW_PREFIX": prefix}, env_file="")
    key = ids.object_key(
        settings.raw_prefix, "dt=2025-11-13/hr=07", 1763017800, "A.b-1", STREAM, 1234567
    )
    ids.check("events", key, ids.stem(key), STREAM)
    rest = ids.rest_key(key, 3)
    ids.check("events", rest, ids.stem(rest), STREAM)
    record = ids.record_key(settings.raw_prefix, STREAM)
    ids.check("file:/a b/\u00e9", record, ids.stem(key), STREAM)


@pytest.mark.parametrize("prefix", ["..", "a/../b", ".", "./raw", "raw/."])
def test_a_prefix_that_leads_elsewhere_is_refused(prefix):
    with pytest.raises(Exception, match="RAW_PREFIX"):
        loading.load({"RAW_BUCKET": "events", "RAW_PREFIX": prefix}, env_file="")


@pytest.mark.parametrize("digits", [10, 200])
def test_a_name_that_counts_beyond_all_measure_holds_no_events_of_ours(digits):
    name = batch().name
    assert dlq_file.parse_name(f"{name}.{'9' * digits}.jsonl.gz") == (0, None)
    assert dlq_file.parse_name(f"{'9' * digits}9999{name}.5.jsonl.gz") == (0, None)
    assert dlq_file.parse_name(f"{name}.\u0665.jsonl.gz") == (0, None)


def test_a_header_that_inflates_beyond_measure_is_unreadable():
    with pytest.raises(Unreadable):
        dlq_file.unpack(gzip.compress(b"[" * 10**8))


# --- buckets


def test_a_directory_is_written_to_only_if_the_settings_name_it(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    named = {"RAW_BUCKET": f"file:{tmp_path}/store", "FALLBACK_BUCKET": f"file:{tmp_path}/other"}
    stores = Stores(loading.load(named, env_file=""))
    for path in ("store", "store/", "link", "x/../store", "other"):
        stores.check(f"file:{tmp_path}/{path}")
    for path in ("", "store/below", "stor", "elsewhere", "store\0", "store\udcff"):
        with pytest.raises(NotOurs):
            stores.get(f"file:{tmp_path}/{path}")
    stores.check("another-bucket")
    Stores(SETTINGS, [f"file:{tmp_path}/elsewhere"]).check(f"file:{tmp_path}/elsewhere")


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a/..", "..", "a\0"])
def test_a_directory_holds_no_key_that_leads_out_of_it(tmp_path, key):
    store = Stores(loading.load({"RAW_BUCKET": f"file:{tmp_path}/a/b"}, env_file="")).get(
        f"file:{tmp_path}/a/b"
    )
    for work in (
        lambda: store.put(key, b"x", 0, "", {}),
        lambda: store.get(key),
        lambda: store.head(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(Exception, match="is no key"):
            work()
    assert not list(tmp_path.rglob("x"))


def test_the_fallback_takes_no_file_of_a_directory_that_nobody_named(tmp_path):
    fallback = f"file:{tmp_path}/fallback"
    worker = Parts(load(tmp_path, RAW_BUCKET="events", FALLBACK_BUCKET=fallback))
    worker.dlq.create()
    for seq, bucket in enumerate(("events", f"file:{tmp_path}/evil"), 1):
        worker.spill(batch(seq=seq, bucket=bucket))
    worker.replayer.hand_over(fallback, time.monotonic() + 20)
    terms = worker.terms
    assert (terms.handed_over, terms.in_dlq, terms.lost) == (10, 10, 0)
    assert not (tmp_path / "evil").exists()
    assert len(list((tmp_path / "fallback").rglob("*.gz"))) == 1


# --- commands


@pytest.fixture
def dlq(tmp_path):
    """A DLQ with a file for each change, and one that is as it should be."""
    queue = DeadLetterQueue(str(tmp_path / "dlq"))
    queue.create()
    slot = Path(queue.root, PENDING, slot_of(time.time()))
    slot.mkdir()
    for seq, change in enumerate(forged.changes(f"{tmp_path}/home").values(), 2):
        made = batch(seq=seq)
        data = forged.dlq_bytes(made, **change)
        (slot / name_for(made.name, made.events)).write_bytes(data)
    good = batch(bucket=f"file:{tmp_path}/store")
    queue.write(good, dlq_file.pack(good, "put_failed", ""))
    stranger = batch(seq=90, bucket=f"file:{tmp_path}/stranger")
    queue.write(stranger, dlq_file.pack(stranger, "put_failed", ""))
    (slot / name_for(batch(seq=91).name, 10)).write_bytes(forged.dlq_bytes(batch(seq=92)))
    return queue


BAD = len(CHANGES) + 2


@pytest.fixture
def run(dlq, tmp_path, monkeypatch, capsys):
    for name in ("RAW_BUCKET", "DLQ_DIR", "FALLBACK_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAW_BUCKET", f"file:{tmp_path}/store")
    monkeypatch.chdir(tmp_path)

    def running(*arguments):
        code = main.main(["dlq", "--dlq", dlq.root, *arguments])
        return code, capsys.readouterr().out

    return running


def places(root):
    return {str(p.relative_to(root)) for p in Path(root).rglob("*") if not p.is_dir()}


def test_every_command_takes_forged_files_for_data(dlq, run, tmp_path):
    before = places(tmp_path)
    code, out = run("ls", "--json")
    told = json.loads(out)["files"]
    assert code == 0
    assert sorted(found["reason"] for found in told) == ["put_failed"] + ["set aside"] * BAD
    assert all(found["error"] for found in told if found["reason"] == "set aside")
    assert run("ls")[0] == 0
    code, out = run("verify")
    assert (code, out.splitlines()[-1]) == (1, f"good: 1 file, 10 events; bad: {BAD}")
    names = [entry.name for entry in dlq.every()]
    run("show", *names)
    assert run("rm", *names)[0] == 1  # without --yes
    assert places(tmp_path) == before
    code, out = run("export", "--to", str(tmp_path / "out"), "--events")
    assert code == 1
    assert places(tmp_path / "out") == {
        name.replace(".jsonl.gz", ".jsonl")
        for name in names
        if name in {name_for(batch(seq=seq).name, 10) for seq in (1, 90, 91)}
    }
    assert places(tmp_path) - before == {f"out/{name}" for name in places(tmp_path / "out")}


def test_no_command_changes_what_a_later_version_wrote(dlq, run, tmp_path):
    made = batch(seq=95)
    path = Path(dlq.root, PENDING, slot_of(time.time()), name_for(made.name, made.events))
    path.write_bytes(forged.dlq_bytes(made, estat_dlq=2))
    later = Path(journal().write(dlq.root))
    later.write_bytes(forged.journal_bytes(HEADER, range(1, 11), estat_journal=2))
    contents = {each: each.read_bytes() for each in (path, later)}
    told = {found["path"]: found for found in json.loads(run("ls", "--json")[1])["files"]}
    for each in contents:
        found = told[str(each.relative_to(dlq.root))]
        assert (found["reason"], found["set_aside"]) == ("set aside", "later_version")
        assert "later version" in found["error"]
        for command in ("show", "verify"):
            assert run(command, str(each))[0] == 1
    assert "set aside (later_version): it has the format of a later version" in run("ls")[1]
    code, out = run("rm", "--yes", str(path))
    assert (code, "later version" in out) == (1, True)
    target = tmp_path / "out"
    assert run("export", "--to", str(target), *map(str, contents))[0] == 0
    copies = [target / each.relative_to(dlq.root) for each in contents]
    assert [copy.read_bytes() for copy in copies] == list(contents.values())
    assert {each: each.read_bytes() for each in contents} == contents


def test_a_journal_whose_name_leads_elsewhere_is_exported_to_where_it_belongs(run, dlq, tmp_path):
    path = journal().write(dlq.root)
    Path(path).write_bytes(forged.journal_bytes(HEADER, range(1, 11), name=forged.ESCAPED))
    code, _ = run("export", "--to", str(tmp_path / "a/b/c/d/e/f/out"), "--events", path)
    assert code == 1
    out = {p for p in places(tmp_path) if p.startswith("a/")}
    assert out == {f"a/b/c/d/e/f/out/{STREAM}_000001.10.jsonl"}
    assert run("verify", path)[0] == 1
    assert json.loads(run("ls", "--json")[1])["files"][-1]["path"]
