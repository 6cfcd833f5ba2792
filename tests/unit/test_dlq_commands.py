"""``estat dlq`` on real directories: which files are meant, what is told of them, what is bad."""

import json
import os
import re
import sys
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from estat.audit import dlq_reader
from estat.cli import dlq_ls, main
from estat.cli.dlq_files import CommandError, select
from estat.cli.dlq_read import RECOVERED, examine
from estat.cli.dlq_replay import paced
from estat.disk import dlq_file, locks
from estat.disk.dlq import PENDING, DeadLetterQueue
from estat.disk.server_directory import ServerDirectory
from estat.disk.slots import later_slot
from estat.errors import Unreadable
from estat.events import ids
from estat.events.batch import crc32_of
from estat.events.gzip import gzip
from tests.support import forged
from tests.unit.batches import STREAM, batch, lines
from tests.unit.journals import JournalFile, journal

NOW = 1763017800.0


def write(dlq, error="503 SlowDown", **kwargs):
    """Write a file and return its name."""
    written = batch(**kwargs)
    dlq.write(written, dlq_file.pack(written, "put_failed", error))
    return dlq_file.file_name(written)


def claimed(dlq, name):
    (entry,) = select(dlq, [name])
    return dlq.claim(entry)


def run(dlq, command, *arguments):
    return main.main(["dlq", command, "--dlq", dlq.root, *arguments])


def listed(dlq, capsys, *arguments):
    assert run(dlq, "ls", "--json", *arguments) == 0
    return json.loads(capsys.readouterr().out)


def vanish_once_found(dlq, path, monkeypatch):
    """Remove a journal when it is found and not read yet."""
    found = list(dlq_reader.journals(dlq.root))
    os.unlink(path)
    monkeypatch.setattr(dlq_reader, "journals", lambda root: iter(found))


# --- which files are meant


def test_without_names_all_files_of_all_areas_are_meant_oldest_first(dlq):
    names = [write(dlq, seq=seq, opened=NOW + age) for seq, age in [(1, 2), (2, 0), (3, 1)]]
    with claimed(dlq, names[0]) as claim:
        dlq.quarantine(claim)
    with claimed(dlq, names[1]) as claim:
        dlq.expire(claim, NOW)
    assert [(entry.area, entry.name) for entry in select(dlq, [])] == [
        ("expired", names[1]),
        ("pending", names[2]),
        ("quarantine", names[0]),
    ]


def test_a_file_is_meant_by_its_name_or_any_path_to_it(dlq, monkeypatch):
    name = write(dlq)
    (entry,) = dlq.every()
    monkeypatch.chdir(os.path.dirname(dlq.root))
    for given in (
        name,
        entry.path,
        f"dlq/pending/{entry.slot}/{name}",
        f"pending/{entry.slot}/{name}",
    ):
        assert select(dlq, [given, name]) == [entry]


@pytest.mark.parametrize("given", ["nothing.jsonl.gz", "/etc/passwd", "expired/2025-11-13T07/{}"])
def test_what_is_not_a_file_of_the_dlq_is_an_error(dlq, given):
    name = write(dlq)
    with pytest.raises(CommandError, match="no such file"):
        select(dlq, [given.format(name)])


def test_half_written_files_and_strays_outside_of_slots_are_no_files_of_the_dlq(dlq):
    name = write(dlq)
    (entry,) = dlq.every()
    for path in (f"{os.path.dirname(entry.path)}/.x.tmp", f"{dlq.root}/pending/stray"):
        with open(path, "w"):
            pass
    assert [entry.name for entry in select(dlq, [])] == [name]


# --- what is told of them


def test_ls_tells_area_slot_age_events_size_object_and_reason(dlq, capsys):
    name = write(dlq)
    (entry,) = dlq.every()
    now = time.time()
    with claimed(dlq, name) as claim:
        dlq.defer(claim, now)
    slot = later_slot(now)
    (told,) = listed(dlq, capsys)["files"]
    assert told.pop("age_seconds") > 0
    assert told == {
        "area": "pending",
        "slot": slot,
        "due": False,
        "opened": NOW,
        "events": 10,
        "size_bytes": os.path.getsize(f"{dlq.root}/pending/{slot}/{name}"),
        "bucket": "events",
        "key": batch().key,
        "stream": STREAM,
        "owner_alive": None,
        "file": name,
        "path": f"pending/{slot}/{name}",
        "reason": "put_failed",
        "error": "503 SlowDown",
    }
    assert entry.area == PENDING


def test_ls_lists_no_more_than_the_limit_and_the_total_of_all(dlq, capsys):
    names = [write(dlq, seq=seq, opened=NOW + seq) for seq in (3, 1, 2)]
    found = listed(dlq, capsys, "--limit", "2")
    assert [told["file"] for told in found["files"]] == [names[1], names[2]]
    assert found["total"]["files"] == 3
    assert found["total"]["events"] == 30


def test_ls_opens_only_the_files_that_it_lists(dlq, capsys, monkeypatch):
    for seq in range(5):
        write(dlq, seq=seq)
    opened = []
    monkeypatch.setattr(
        "estat.audit.dlq_reader.dlq_file.read_header", lambda head: opened.append(head) or {}
    )
    listed(dlq, capsys, "--limit", "2")
    assert len(opened) == 2


def test_a_file_that_vanishes_between_walk_and_reading_is_no_error(dlq, capsys, monkeypatch):
    write(dlq)
    every = list(dlq.every())
    real_stat = os.stat

    def stat_then_unlink(path, *args, **kwargs):
        status = real_stat(path, *args, **kwargs)
        if path == every[0].path:
            os.unlink(path)
        return status

    monkeypatch.setattr("os.stat", stat_then_unlink)
    assert listed(dlq, capsys)["files"] == []


def test_what_is_no_text_in_a_header_is_not_listed(dlq, capsys):
    name = write(dlq)
    (entry,) = dlq.every()
    with open(entry.path, "wb") as file:
        file.write(forged.dlq_bytes(batch(), error=5, reason=[1], set_aside=1, owner_alive="x"))
    (told,) = listed(dlq, capsys)["files"]
    assert (told["file"], told["reason"], told["error"]) == (name, None, None)
    assert run(dlq, "ls") == 0
    assert name in capsys.readouterr().out


def test_a_file_in_quarantine_is_listed_with_what_is_wrong_with_it(dlq, capsys):
    name = write(dlq)
    with claimed(dlq, name) as claim:
        dlq.quarantine(claim)
    path = f"{dlq.root}/quarantine/{name}"
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)
    (told,) = listed(dlq, capsys)["files"]
    size = len(batch().payload)
    assert (told["reason"], told["error"]) == ("unreadable", f"{size - 1} bytes of {size}")
    assert told["key"] == batch().key


def test_on_a_terminal_a_files_name_and_the_whole_reason_have_lines_of_their_own(
    dlq, capsys, monkeypatch
):
    name = write(dlq, error="x" * 200)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run(dlq, "ls")
    numbers, file, why, total = capsys.readouterr().out.splitlines()[3:]
    assert len(numbers) <= 80
    assert (file.strip(), total[:14]) == (name, "total: 1 file,")
    assert why.endswith("x" * 200)


@pytest.mark.parametrize(("options", "shown"), [(["--events", "2"], 2), ([], 3), (["--all"], 10)])
def test_show_prints_the_header_and_events_as_json_lines(dlq, capsysbinary, options, shown):
    name = write(dlq)
    assert run(dlq, "show", name, *options) == 0
    header, *events = capsysbinary.readouterr().out.splitlines(keepends=True)
    about = json.loads(header)
    assert (about["reason"], about["key"], about["area"]) == ("put_failed", batch().key, "pending")
    assert b"".join(events) == lines(range(1, shown + 1))


def test_show_prints_a_damaged_file_up_to_the_damage_and_says_so(dlq, capsysbinary):
    name = write(dlq)
    (entry,) = dlq.every()
    os.truncate(entry.path, os.path.getsize(entry.path) - 4)
    assert run(dlq, "show", name, "--all") == 1
    out, err = capsysbinary.readouterr()
    assert json.loads(out.splitlines()[0])["key"] == batch().key
    assert b"damaged from here on" in err


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (61, "1m01s"), (7500, "2h05m"), (90000, "1d01h")]
)
def test_an_age_has_its_two_largest_units(seconds, shown):
    assert dlq_ls.age(seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(0, "0 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")]
)
def test_a_size_has_a_unit(size_bytes, shown):
    assert dlq_ls.size(size_bytes) == shown


# --- what is bad


def packed(payload_lines, reason="put_failed", **changes):
    """Return a file whose checksum is right, whatever its lines are."""
    payload = gzip(payload_lines)
    made = SimpleNamespace(**asdict(batch()) | {"payload": payload, "crc32": crc32_of(payload)})
    vars(made).update(changes)
    return dlq_file.file_name(made), b"".join(dlq_file.pack(made, reason, ""))


def test_a_good_file_has_as_many_events_as_it_says():
    assert examine(*packed(lines(range(1, 11)))) == 10


def test_a_streams_record_has_no_events_and_is_good():
    assert examine(*packed(b'{"last":7}', events=0, key=ids.record_key("raw", STREAM))) == 0


@pytest.mark.parametrize(
    ("payload_lines", "changes", "problem"),
    [
        (lines(range(1, 10)), {}, "9 lines of 10"),
        (lines(range(1, 11))[:-1], {}, "last line is cut off"),
        (lines([1, 2, 3, 4, 5, 6, 7, 8, 9, 11]), {}, "id .*-11' after .*-9"),
        (lines([2, 1, *range(3, 11)]), {}, "id .*-1' after .*-2"),
        (lines(range(2, 12)), {}, "id .*-11' after .*-10"),
        (lines([1, 3]), {"events": 2, "last": 3}, "ids 1 to 3 are not 2"),
        (lines(range(1, 11), "0" * 28), {}, "after"),
        (lines(range(1, 10)) + b'{"id":"%b-10","x":NaN}\n' % STREAM.encode(), {}, "not JSON"),
        (lines(range(1, 10)) + b"\xff\n", {}, "not JSON"),
        (lines(range(1, 10)) + b"[]\n", {}, "id None"),
        (b"{", {"events": 0, "key": ids.record_key("raw", STREAM)}, "record is not JSON"),
        (lines(range(1, 11)), {"first": "1"}, "first is '1'"),
    ],
)
def test_lines_that_are_not_the_headers_are_bad_under_a_right_checksum(
    payload_lines, changes, problem
):
    with pytest.raises(Unreadable, match=problem):
        examine(*packed(payload_lines, **changes))


def test_a_name_that_tells_another_count_is_bad_because_the_books_go_by_names():
    name, data = packed(lines(range(1, 11)))
    with pytest.raises(Unreadable, match="its name does not tell"):
        examine(name.replace(".10.", ".11."), data)


def test_a_payload_that_is_no_gzip_is_bad():
    made = replace(batch(), payload=b"what", crc32=crc32_of(b"what"))
    data = b"".join(dlq_file.pack(made, "put_failed", ""))
    with pytest.raises(Unreadable, match="gzip"):
        examine(dlq_file.file_name(made), data)


def test_a_recovered_file_may_lack_ids_in_its_middle_if_it_says_so():
    numbers = [1, 2, 5, 10]
    assert examine(*packed(lines(numbers), RECOVERED, events=4)) == 4


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ([1, 5, 2, 10], "id .*-2' after .*-5"),
        ([1, 2, 2, 10], "id .*-2' after .*-2"),
        ([1, 2, 5, 9], "its ids are not 1 to 10"),
        ([2, 3, 5, 10], "its ids are not 1 to 10"),
        ([1, 2, 5, 11], "id .*-11' after"),
        ([1, 2, 10], "3 lines of 4"),
    ],
)
def test_the_ids_of_a_recovered_file_increase_from_its_first_to_its_last(numbers, problem):
    with pytest.raises(Unreadable, match=problem):
        examine(*packed(lines(numbers), RECOVERED, events=4))


# --- journals


def test_ls_tells_of_a_journal_what_its_lines_tell(dlq, capsys):
    path = journal(opened=NOW).group(range(11, 14)).write(dlq.root)
    found = listed(dlq, capsys)
    (told,) = found["files"]
    assert told.pop("age_seconds") > 0
    assert told == {
        "area": "journal",
        "slot": None,
        "due": False,
        "opened": NOW,
        "events": 13,
        "size_bytes": os.path.getsize(path),
        "bucket": "events",
        "key": batch().key,
        "stream": STREAM,
        "owner_alive": False,
        "file": f"{STREAM}/000001.journal",
        "path": f"journal/{STREAM}/000001.journal",
        "reason": "not stored yet",
        "error": None,
    }
    assert (found["total"]["files"], found["total"]["events"]) == (1, 13)


def test_ls_tells_whether_the_owner_of_a_journal_lives(dlq, capsys):
    held = locks.lock(os.path.join(dlq.root, "lock"), create=True)
    journal().write(dlq.root)
    assert listed(dlq, capsys)["files"][0]["owner_alive"] is True
    run(dlq, "ls")
    assert capsys.readouterr().out.splitlines()[1].endswith("not stored yet, its server lives")
    os.close(held)
    run(dlq, "ls")
    assert capsys.readouterr().out.splitlines()[1].endswith("not stored yet, its server is dead")


def test_ls_tells_what_is_damaged_in_a_journal(dlq, capsys):
    JournalFile().group([1]).group([2, 3]).group([4]).flip(b'{"n":2}').write(dlq.root)
    (told,) = listed(dlq, capsys)["files"]
    assert (told["events"], told["reason"]) == (2, "not stored yet")
    assert told["error"].startswith("damaged from byte ")
    assert told["error"].endswith(", 2 events")


def test_ls_lists_journals_and_files_together_the_oldest_batch_first(dlq, capsys):
    young = write(dlq, seq=3, opened=NOW + 3)
    journal(seq=2, opened=NOW + 2).write(dlq.root)
    old = write(dlq, seq=1, opened=NOW + 1)
    found = listed(dlq, capsys)
    names = [told["file"] for told in found["files"]]
    assert names == [old, f"{STREAM}/000002.journal", young]
    assert (found["total"]["files"], found["total"]["events"]) == (3, 30)


def test_a_journal_that_is_gone_when_it_is_read_is_not_listed(dlq, capsys, monkeypatch):
    vanish_once_found(dlq, journal().write(dlq.root), monkeypatch)
    assert listed(dlq, capsys) == {"files": [], "total": {"files": 0, "events": 0, "size_bytes": 0}}


@pytest.mark.parametrize(
    "given",
    [
        "{root}/journal/{stream}/000001.journal",
        "journal/{stream}/000001.journal",
        "{stream}/000001.journal",
        "000001.journal",
    ],
)
def test_a_journal_is_meant_by_its_stream_and_name_or_any_path_to_it(dlq, given):
    path = journal().write(dlq.root)
    journal(seq=2).write(dlq.root)
    (entry,) = select(dlq, [given.format(root=dlq.root, stream=STREAM)])
    assert entry.path == path


def test_show_prints_what_is_known_of_a_journal_and_its_events(dlq, capsysbinary):
    journal().seal(10).write(dlq.root)
    assert run(dlq, "show", "000001.journal", "--events", "2") == 0
    header, *events = capsysbinary.readouterr().out.splitlines(keepends=True)
    about = json.loads(header)
    assert (about["area"], about["reason"], about["key"]) == (
        "journal",
        "not stored yet",
        batch().key,
    )
    assert (about["first"], about["last"], about["events"], about["sealed"]) == (1, 10, 10, True)
    assert b"".join(events) == lines([1, 2])


def test_show_prints_the_good_groups_of_a_damaged_journal_and_says_what_is_damaged(
    dlq, capsysbinary
):
    JournalFile().group([1]).group([2, 3]).group([4]).flip(b'{"n":2}').write(dlq.root)
    assert run(dlq, "show", "000001.journal", "--all") == 1
    out, err = capsysbinary.readouterr()
    assert out.endswith(lines([1, 4]))
    assert b"damaged from byte" in err


def test_show_of_a_journal_that_is_gone_meanwhile_says_so(dlq, capsys, monkeypatch):
    vanish_once_found(dlq, journal().write(dlq.root), monkeypatch)
    assert run(dlq, "show", "000001.journal") == 1
    assert "is gone: stored or moved meanwhile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "events"),
    [
        (journal().group(range(11, 14)), 13),
        (journal().seal(10), 10),
        (JournalFile(), 0),
        (JournalFile(first=7).group([7, 8]), 2),
    ],
)
def test_a_good_journal_has_the_events_of_its_groups(dlq, capsys, made, events):
    made.write(dlq.root)
    assert run(dlq, "verify") == 0
    count = "1 event" if events == 1 else f"{events} events"
    assert capsys.readouterr().out == f"good: 1 file, {count}; bad: 0\n"


@pytest.mark.parametrize("left", [0, 20, -1, -200])
def test_a_journal_that_is_still_being_written_is_good(dlq, left):
    made = journal().group(range(11, 21))
    made.data = made.data[:left]
    made.write(dlq.root)
    assert run(dlq, "verify") == 0


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (journal().group([11]).flip(b'{"n":2}'), "damaged from byte .*, 10 events"),
        (journal().flip(b"estat_journal"), "damaged from byte 0 to"),
        (JournalFile().group([1, 2]).group([4]), "1 event is missing at byte"),
        (JournalFile().group([1, 3]), "id .*-3' after .*-1"),
        (JournalFile().group([2]), "1 event is missing at byte"),
        (journal().seal(11), "1 event is missing at byte"),
        (JournalFile().group([1]).flip(b'{"n":1}'), "damaged from byte"),
    ],
)
def test_a_journal_is_bad_by_its_checksums_ids_and_seal(dlq, capsys, made, problem):
    made.write(dlq.root)
    assert run(dlq, "verify") == 1
    assert re.search(
        f"^bad   journal/{STREAM}/000001.journal: .*{problem}", capsys.readouterr().out
    )


def test_a_journal_in_another_streams_directory_is_bad(dlq, capsys):
    made = journal()
    made.stream = "0199c1b2f3a4" + "cd" * 8
    made.write(dlq.root)
    assert run(dlq, "verify") == 1
    assert f"its events are of the stream {STREAM}" in capsys.readouterr().out


def exported(dlq, tmp_path, *arguments):
    """Return the exit code and the files of an export, by their paths."""
    out = tmp_path / "out"
    code = run(dlq, "export", "--to", str(out), *arguments)
    return code, {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def test_an_exported_journal_is_its_lines(dlq, tmp_path):
    journal().group(range(11, 14)).seal(13).write(dlq.root)
    name = journal().header.name
    assert exported(dlq, tmp_path, "--events") == (0, {f"{name}.13.jsonl": lines(range(1, 14))})


def test_a_journal_is_exported_whole_to_where_a_server_would_recover_it(dlq, tmp_path):
    made = journal()
    made.write(dlq.root)
    found = {f"journal/{STREAM}/000001.journal": made.data}
    assert exported(dlq, tmp_path) == (0, found)


def test_of_a_damaged_journal_the_good_groups_are_exported_and_the_rest_is_told(
    dlq, capsys, tmp_path
):
    JournalFile().group([1]).group([2]).group([3]).flip(b'{"n":2}').write(dlq.root)
    code, found = exported(dlq, tmp_path, "--events")
    assert (code, list(found.values())) == (1, [lines([1, 3])])
    assert re.search(
        "not exported journal/.*: damaged from byte .*; the rest is exported",
        capsys.readouterr().out,
    )


def test_a_journal_without_events_has_nothing_to_export(dlq, tmp_path):
    JournalFile().write(dlq.root)
    assert exported(dlq, tmp_path, "--events") == (0, {})


@pytest.mark.parametrize("lock", [True, False])
def test_rm_refuses_a_journal_and_deletes_nothing_else_then(dlq, capsys, lock):
    name = write(dlq)
    path = journal().write(dlq.root, lock=lock)
    assert run(dlq, "rm", name, path, "--yes") == 2
    assert "000001.journal is a journal: only the server works on it" in capsys.readouterr().err
    assert os.path.exists(path)
    assert len(list(dlq.every())) == 1


# --- damaged ranges in quarantine


@pytest.fixture
def range_name(dlq):
    """A damaged range in quarantine, as the recovery puts it there."""
    name = f"{batch().name}-bad321"
    dlq.put_aside(name, 3, lines([4]) + b"\xff\x00garbage\n" + lines([6]))
    return dlq_file.name_for(name, 3)


def test_a_damaged_range_is_listed_as_what_it_is(dlq, capsys, range_name):
    (told,) = listed(dlq, capsys)["files"]
    assert (told["area"], told["file"], told["events"]) == ("quarantine", range_name, 3)
    assert (told["reason"], told["error"]) == ("damaged range of a journal", None)


def test_a_damaged_range_is_shown_as_it_is(dlq, capsysbinary, range_name):
    assert run(dlq, "show", range_name) == 0
    about, first, second, third = capsysbinary.readouterr().out.splitlines(keepends=True)
    assert json.loads(about)["reason"] == "damaged range of a journal"
    assert (first, third) == (lines([4]), lines([6]))
    assert json.loads(second)["not_json"] == "\ufffd\x00garbage\n"


def test_a_damaged_range_is_exported_as_it_is(dlq, tmp_path, range_name):
    code, found = exported(dlq, tmp_path, "--events")
    data = lines([4]) + b"\xff\x00garbage\n" + lines([6])
    assert (code, found) == (0, {range_name.replace(".jsonl.gz", ".damaged"): data})
    code, found = exported(dlq, tmp_path)
    assert code == 0
    assert found[f"quarantine/{range_name}"] == gzip(data)


def test_a_damaged_range_is_no_good_file(dlq, capsys, range_name):
    assert run(dlq, "verify") == 1
    assert f"bad   quarantine/{range_name}: damaged range of a journal" in capsys.readouterr().out


# --- the pace


def test_files_come_at_the_rate_and_never_in_a_burst_after_a_slow_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("estat.cli.dlq_replay.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "estat.cli.dlq_replay.gevent.sleep",
        lambda seconds: clock.__setitem__(0, clock[0] + seconds),
    )
    times = []
    for number in paced(range(5), 2):
        times.append(clock[0])
        if number == 1:
            clock[0] += 10
    assert times == [0, 0.5, 10.5, 11, 11.5]


def test_nothing_is_taken_away_from_a_server_that_lives_though_no_worker_leads(tmp_path, capsys):
    server = ServerDirectory.make(str(tmp_path))
    queue = DeadLetterQueue(server.path)
    name = write(queue)
    rm = ["dlq", "rm", "--dlq", str(tmp_path), name, "--yes"]
    assert main.main(rm) == 1
    assert "a server is working on" in capsys.readouterr().err
    assert queue.walk().files == 1
    server.close()
    assert main.main(rm) == 0
    assert queue.walk().files == 0
