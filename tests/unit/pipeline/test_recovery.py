"""What dead processes left in their journals becomes DLQ files, and the books close on them."""

import errno
import gzip
import os
import time
from pathlib import Path

import pytest

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.config import loading
from estat.disk import directory_lock, dlq_file, journal_file
from estat.disk.directory_lock import LOCK
from estat.disk.dlq import EXPIRED, PENDING, QUARANTINE
from estat.disk.journal import DIRECTORY, Journals
from estat.disk.journal_file import Header
from estat.disk.slots import slot_of
from estat.errors import DiskError, NotOurs, ObjectRefused, StoreUnavailable
from estat.events import ids
from estat.pipeline import recovery
from estat.pipeline.recovery import pending_events
from estat.stores import Stores
from tests.support.parts import Parts, load
from tests.unit.batches import batch, lines

OPENED = 1763017800.0
EARLIER = "0199c1b2f3a4" + "ab" * 8  # of another run of the server: it was taken over
LATER_STILL = "0199c1b2f3a5" + "ab" * 8
QUIET_LOOKS = 8  # more than are needed before the accounting is closed

DEAD, LEADER = 1, 2  # slots


class Nowhere:
    """No store."""

    def get(self, bucket):
        raise StoreUnavailable("no store here")


class Everywhere:
    """One directory, for all buckets."""

    def __init__(self, path):
        self.store = Stores(load(path)).get(f"file:{path}/store")

    def get(self, bucket):
        return self.store


class Server:
    """The parts that a leading worker recovers with, and the journals of dead ones."""

    def __init__(self, path):
        self.stores = Nowhere()
        self.settings = loading.load(
            {"RAW_BUCKET": "events", "DLQ_DIR": str(path), "INSTANCE_ID": "web-1"}, env_file=""
        )
        self.root = path
        self.page = metrics.page()
        self.stream = f"{int(time.time() * 1000) + 50:012x}" + "cd" * 8  # of this life
        self.lead()
        self.dlq.create()

    def lead(self):
        """Let a worker lead that knows nothing of what another one did."""
        self.worker = worker = Parts(self.settings, self.page, LEADER)
        worker.stores = self.stores
        self.dlq, self.counts = worker.dlq, worker.counts
        self.admission, self.recovery = worker.admission, worker.recovery

    def look(self, times=1):
        for _ in range(times):
            self.worker.now += 3
            self.recovery.turn()

    def journals(self):
        return sorted(Path(self.root, DIRECTORY).rglob("*.journal"))

    def names(self, area):
        return sorted(path.name for path in Path(self.root, area).rglob("*") if path.is_file())

    def pending(self):
        """Return the batches in the DLQ, by their streams and numbers."""
        entries = self.dlq.scan(PENDING, 10**11).due
        found = []
        for entry in entries:
            with self.dlq.claim(entry) as claim:
                found.append(claim.read())
        return sorted(found, key=lambda batch: (batch.stream, batch.first))

    @property
    def terms(self):
        return ledger.terms(self.page)

    def booked(self):
        rows = self.page.used_rows()
        cells = (metrics.DLQ_FILES, metrics.DLQ_EVENTS, metrics.DLQ_BYTES)
        return tuple(sum(row.cells[cell] for row in rows) for cell in cells)

    def orphans(self, events):
        """Let a worker have died with so many events pending."""
        books = Ledger(Metrics(self.page.rows[DEAD]))
        books.accept(events)
        books.orphan()

    def leave(self, stream, *groups, seq=1, sealed=False):
        """Leave the journal of a batch behind, as a process does that dies."""
        events = [number for group in groups for number in group]
        header = header_of(stream, events, seq)
        name = f"{stream}.1" if stream == EARLIER else stream
        path = Path(self.root, DIRECTORY, name, f"{seq:06d}.journal")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(LOCK).touch()
        path.write_bytes(
            journal_file.pack_header(header)
            + b"".join(
                journal_file.pack_group(lines(numbers, stream).splitlines(keepends=True))
                for numbers in groups
            )
            + (journal_file.pack_seal(header, len(events)) if sealed else b"")
        )
        return path

    def in_dlq(self, *args, **kwargs):
        """Write a batch to the DLQ that its process did not enter into the books any more."""
        found = batch(*args, **kwargs)
        return self.dlq.write(found, dlq_file.pack(found, "put_failed", ""))

    def while_it_is_counted(self, happens):
        """Let something happen each time that the files of the DLQ are counted."""
        walk = self.dlq.walk

        def walk_meanwhile(*args):
            found = walk(*args)
            happens()
            return found

        self.dlq.walk = walk_meanwhile

    def replay(self, stream, books):
        """Do with one file of a stream what another worker's replay does, if one is left."""
        for entry in self.dlq.scan(PENDING, 10**11).due:
            with self.dlq.claim(entry) as claim:
                if claim.read().stream == stream:
                    books.replay(entry.events, claim.size_bytes)
                    claim.remove()
                    return

    def expire(self):
        (entry,) = self.dlq.scan(PENDING, 10**11).due
        with self.dlq.claim(entry) as claim:
            self.dlq.expire(claim, OPENED)


def header_of(stream, events, seq=1):
    key = batch(range(1, 2), stream=stream, seq=seq).key
    first = events[0] if events else 1
    return Header("events", key, ids.stem(key), stream, first, OPENED)


def spoil(path, group):
    """Flip a byte of one group."""
    data = bytearray(path.read_bytes())
    data[journal_file.parse(bytes(data)).groups[group].start + 40] ^= 1
    path.write_bytes(bytes(data))


def in_the_way(*paths):
    """Put files where directories must be; return what takes them away again."""
    for path in paths:
        path.write_bytes(b"")

    def away():
        for path in paths:
            path.unlink()

    return away


def no_pending_files(server):
    """Let the DLQ take no file; return what ends that."""
    now = time.time()
    slots = {slot_of(now), slot_of(now + 3600)}
    return in_the_way(*(server.root / PENDING / slot for slot in slots))


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path / "dlq")


def test_a_dead_streams_journals_become_dlq_files_with_keys_of_their_own_and_go(server):
    server.leave(server.stream, range(1, 4), range(4, 6), seq=1, sealed=True)
    server.leave(server.stream, range(6, 8), seq=2)
    server.look()
    found = server.pending()
    assert [(b.first, b.last, b.events) for b in found] == [(1, 5, 5), (6, 7, 2)]
    assert [b.key for b in found] == [batch(stream=server.stream, seq=seq).key for seq in (1, 2)]
    assert gzip.decompress(found[0].payload) == lines(range(1, 6), server.stream)
    assert os.listdir(server.root / DIRECTORY) == []


def test_where_removed_files_stay_while_they_are_open_the_books_are_closed_too(
    server, silly_renames
):
    server.orphans(5)
    server.leave(server.stream, range(1, 4))
    server.look(1 + QUIET_LOOKS)
    assert os.listdir(server.root / DIRECTORY) == []
    assert (server.terms.pending, server.terms.in_dlq, server.terms.lost) == (0, 3, 2)


def test_the_streams_of_living_processes_are_left_alone(server):
    journals = Journals(str(server.root), server.settings.durability, Metrics(server.page.rows[3]))
    journal = journals.open(header_of(server.stream, [1]), 1)
    journals.append(journal, lines(range(1, 4), server.stream).splitlines(keepends=True))
    server.look()
    assert len(server.journals()) == 1
    assert server.pending() == []
    journals.close()
    server.look()
    assert [b.events for b in server.pending()] == [3]


def test_a_stream_whose_lock_somebody_deleted_is_left_to_its_owner_for_a_lease(server, monkeypatch):
    lock = server.leave(server.stream, range(1, 4)).with_name(LOCK)
    lock.unlink()
    server.look(QUIET_LOOKS)
    assert (len(server.journals()), server.pending()) == (1, [])
    later = recovery.now() + recovery.LEASE_SECONDS + 1
    monkeypatch.setattr(recovery, "now", lambda: later)
    server.look()
    assert (server.journals(), [b.events for b in server.pending()]) == ([], [3])


def test_what_is_no_streams_directory_is_left_alone(server):
    other = Path(server.root, DIRECTORY, "lost+found")
    other.mkdir(parents=True)
    server.look()
    assert list(other.iterdir()) == []


def test_nothing_is_recovered_any_more_once_it_shall_end(server):
    server.leave(server.stream, range(1, 4))
    server.recovery.end()
    server.look()
    assert len(server.journals()) == 1
    assert server.pending() == []


def test_a_journal_without_events_goes_and_leaves_nothing(server):
    server.leave(server.stream)
    server.leave(server.stream, seq=2).write_bytes(b"")
    server.look()
    assert server.journals() == []
    assert server.dlq.walk() == server.booked() == (0, 0, 0)


@pytest.mark.parametrize("expired", [False, True])
def test_a_journal_whose_batch_is_in_the_dlq_already_only_goes(server, expired):
    server.leave(server.stream, range(1, 4), sealed=True)
    size = server.in_dlq(range(1, 4), stream=server.stream)
    if expired:
        server.expire()
    server.look(QUIET_LOOKS)
    assert server.journals() == []
    assert server.dlq.walk() == (1, 3, size)
    assert len(server.names(EXPIRED if expired else PENDING)) == 1


def link(path):
    path.symlink_to("/etc/passwd")


def a_pipe(path):
    os.mkfifo(path)


def empty(path):
    path.touch()


def cut_off(path):
    made = batch(range(1, 4), stream=path.name.partition("-1-")[2].partition("_")[0])
    path.write_bytes(b"".join(dlq_file.pack(made, "put_failed", ""))[:-1])


def with_other_events(path):
    made = batch(range(2, 5), stream=path.name.partition("-1-")[2].partition("_")[0])
    path.write_bytes(b"".join(dlq_file.pack(made, "put_failed", "")))


@pytest.mark.parametrize("hours", [0, 1000])
@pytest.mark.parametrize("make", [Path.mkdir, link, a_pipe, empty, cut_off, with_other_events])
def test_what_has_only_the_name_of_a_batchs_file_does_not_make_its_journal_go(server, make, hours):
    server.leave(server.stream, range(1, 4), sealed=True)
    slot = server.root / PENDING / slot_of(time.time() - 3600 * hours)
    slot.mkdir()
    there = slot / dlq_file.file_name(batch(range(1, 4), stream=server.stream))
    make(there)
    server.look(QUIET_LOOKS)
    assert there.lstat()
    assert server.journals() == []
    good = []
    for entry in server.dlq.scan(PENDING, 10**11).due:
        if entry.path != str(there):
            with server.dlq.claim(entry) as claim:
                good.append(claim.read())
    assert [(found.stream, found.first, found.last) for found in good] == [(server.stream, 1, 3)]


def test_a_dead_process_that_had_not_booked_its_dlq_file_gets_it_booked(server):
    server.orphans(3)
    server.leave(server.stream, range(1, 4), sealed=True)
    server.in_dlq(range(1, 4), stream=server.stream)
    server.look(QUIET_LOOKS)
    assert server.booked()[:2] == server.dlq.walk()[:2] == (1, 3)
    assert (server.terms.pending, server.terms.lost) == (0, 0)


def test_a_dead_process_that_had_booked_its_dlq_file_does_not_get_it_booked_again(server):
    books = Ledger(Metrics(server.page.rows[DEAD]))
    books.accept(3)
    server.leave(server.stream, range(1, 4), sealed=True)
    books.spill(3, server.in_dlq(range(1, 4), stream=server.stream))
    books.orphan()
    server.look(QUIET_LOOKS)
    assert server.booked() == server.dlq.walk()
    assert (server.terms.adopted, server.terms.lost) == (0, 0)


def test_a_dlq_file_without_an_entry_is_not_told_as_lost_while_replays_change_the_books(server):
    server.orphans(3)
    server.in_dlq(range(1, 4), stream=server.stream)
    books = Ledger(Metrics(server.page.rows[LEADER + 1]))
    for seq in range(1, QUIET_LOOKS + 1):
        books.adopt(1, 1, server.in_dlq(range(1, 2), stream=EARLIER, seq=seq))
    server.while_it_is_counted(lambda: server.replay(EARLIER, books))
    server.look(QUIET_LOOKS)
    assert (server.terms.pending, server.terms.lost) == (3, 0)
    server.look(QUIET_LOOKS)
    assert server.booked() == server.dlq.walk()
    assert (server.terms.pending, server.terms.in_dlq, server.terms.lost) == (0, 3, 0)


def test_a_bad_range_goes_to_the_quarantine_and_what_is_good_around_it_to_the_dlq(server):
    path = server.leave(server.stream, range(1, 3), range(3, 7), range(7, 9), sealed=True)
    spoil(path, 1)
    bad = journal_file.parse(path.read_bytes()).bad[0]
    expected = path.read_bytes()[bad.start : bad.end]
    server.look()
    (found,) = server.pending()
    assert gzip.decompress(found.payload) == lines([1, 2, 7, 8], server.stream)
    (name,) = server.names(QUARANTINE)
    assert dlq_file.parse_name(name).events == 4
    assert gzip.decompress(Path(server.root, QUARANTINE, name).read_bytes()) == expected
    assert server.journals() == []


def test_a_bad_range_is_counted_with_its_events(server):
    server.orphans(8)
    spoil(server.leave(server.stream, range(1, 3), range(3, 7), range(7, 9), sealed=True), 1)
    server.look()
    assert server.counts.row.cells[metrics.DLQ_QUARANTINED] == 1
    assert server.booked() == server.dlq.walk()
    assert (server.terms.in_dlq, server.terms.pending, server.terms.lost) == (8, 0, 0)


def emptied(path):
    path.write_bytes(b"")


def with_zeros_at_its_end(path):
    data = path.read_bytes()
    path.write_bytes(data[:-100] + bytes(100))


def cut_off_behind_its_first_line(path):
    path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")


@pytest.mark.parametrize("spoil", [emptied, with_zeros_at_its_end, cut_off_behind_its_first_line])
def test_what_a_journal_lost_at_its_end_is_told_by_the_one_behind_it(server, spoil, caplog):
    server.orphans(8)
    spoil(server.leave(server.stream, range(1, 4), seq=1))
    spoil(server.leave(server.stream, range(4, 6), seq=2))
    server.leave(server.stream, range(6, 9), seq=3)
    server.look()
    assert [(b.first, b.events) for b in server.pending()] == [(6, 3)]
    told = [record.events for record in caplog.records if record.message == "journal_damaged"]
    assert sum(told) == 5
    assert [dlq_file.parse_name(name).events for name in server.names(QUARANTINE)] == told
    assert (server.terms.in_dlq, server.terms.pending, server.terms.lost) == (8, 0, 0)
    assert server.booked() == server.dlq.walk()


def test_the_last_journal_of_a_stream_is_never_gone_in_silence(server, caplog):
    server.orphans(6)
    emptied(server.leave(server.stream, range(1, 4), seq=1))
    other = server.stream[:-1] + "e"
    with_zeros_at_its_end(server.leave(other, range(1, 4), seq=1))
    server.look(QUIET_LOOKS)
    told = [(record.message, record.levelname) for record in caplog.records]
    assert ("journal_empty", "ERROR") in told
    assert ("journal_damaged", "ERROR") in told
    # nobody but the books knows of the first, and of the second two lines could be read
    assert (server.terms.in_dlq, server.terms.lost) == (2, 4)


def test_a_torn_write_is_told_as_one(server, caplog):
    path = server.leave(server.stream, range(1, 4), range(4, 6))
    path.write_bytes(path.read_bytes()[:-3])
    server.look()
    assert [b.events for b in server.pending()] == [3]
    (told,) = [record for record in caplog.records if record.message == "journal_damaged"]
    assert (told.levelname, told.events, told.torn) == ("WARNING", 0, True)


def test_a_journal_that_its_reader_fails_on_hides_none_of_the_others(server, monkeypatch, caplog):
    strange = server.leave(EARLIER, range(1, 4), seq=1)
    server.leave(EARLIER, range(4, 6), seq=2)
    server.leave(server.stream, range(1, 6))
    parse = journal_file.parse

    def fails(data, *numbers):
        if data == strange.read_bytes():
            raise KeyError("last")
        return parse(data, *numbers)

    monkeypatch.setattr(journal_file, "parse", fails)
    server.look(QUIET_LOOKS)
    assert [b.events for b in server.pending()] == [2, 5]
    assert server.journals() == [strange]
    (told,) = [record for record in caplog.records if record.message == "journal_not_understood"]
    assert told.file == str(strange)
    assert server.counts.row.cells[metrics.DLQ_QUARANTINED] == 1
    monkeypatch.undo()
    server.lead()
    server.look()
    assert server.journals() == []


def test_a_later_versions_journal_stays_and_is_set_aside_by_each_leader(server, caplog):
    path = server.leave(EARLIER, range(1, 4))
    data = path.read_bytes().replace(b'"estat_journal":1', b'"estat_journal":2')
    path.write_bytes(data)
    for _ in range(2):
        server.look(QUIET_LOOKS)
        terms = server.terms
        assert (terms.adopted, terms.set_aside, terms.in_dlq, terms.lost) == (3, 3, 0, 0)
        assert server.counts.row.cells[metrics.SET_ASIDE["later_version"]] == 3
        metrics.forget_process(server.counts.row)
        server.lead()
    assert path.read_bytes() == data
    told = [record.reason for record in caplog.records if record.message == "journal_set_aside"]
    assert told == ["later_version"] * 2


def test_a_journal_that_lost_its_first_line_is_recovered_under_its_path(server):
    path = server.leave(server.stream, range(1, 4), seq=7)
    data = path.read_bytes()
    path.write_bytes(b"?" + data[1:])
    server.look()
    (found,) = server.pending()
    assert found.bucket == "events"
    assert found.key.endswith(f"{server.stream}_000007.jsonl.gz")
    assert found.events == 3


def test_what_was_pending_in_this_life_moves_from_orphans_to_the_dlq(server):
    server.orphans(5)
    server.leave(server.stream, range(1, 6))
    server.look()
    assert server.terms == ledger.Terms(
        accepted=5, adopted=0, stored=0, pending=0, in_dlq=5, set_aside=0, handed_over=0, dropped=0
    )
    assert server.booked() == server.dlq.walk()


def test_a_stream_that_began_when_the_clock_was_set_back_is_of_this_life(server):
    stream = f"{int((time.time() - 3600) * 1000):012x}" + "cd" * 8
    server.orphans(5)
    server.leave(stream, range(1, 6))
    assert pending_events(str(server.root)) == 5
    server.look(QUIET_LOOKS)
    assert (server.terms.adopted, server.terms.in_dlq, server.terms.lost) == (0, 5, 0)


def test_what_an_earlier_life_left_is_adopted(server):
    server.leave(EARLIER, range(1, 6))
    server.look()
    assert (server.terms.accepted, server.terms.adopted, server.terms.in_dlq) == (0, 5, 5)
    assert server.terms.lost == 0
    assert server.booked() == server.dlq.walk()


def test_what_no_journal_holds_is_told_as_lost_once_nothing_is_left_to_recover(server):
    server.orphans(5)
    server.leave(server.stream, range(1, 4))
    server.look()
    assert (server.terms.pending, server.terms.lost) == (2, 0)
    server.look(QUIET_LOOKS)
    assert (server.terms.pending, server.terms.in_dlq, server.terms.lost) == (0, 3, 2)


def test_nothing_is_told_as_lost_while_a_journal_can_not_be_read(server):
    server.orphans(5)
    path = server.leave(server.stream, range(1, 6))
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    server.look(QUIET_LOOKS)
    assert (server.terms.pending, server.terms.lost) == (5, 0)
    path.rmdir()
    path.write_bytes(content)
    server.look(QUIET_LOOKS)
    assert (server.terms.pending, server.terms.in_dlq, server.terms.lost) == (0, 5, 0)


def test_more_orphans_begin_the_wait_anew(server):
    server.orphans(5)
    server.look(2)
    server.orphans(1)
    server.look(1)
    assert (server.terms.pending, server.terms.lost) == (6, 0)


def test_a_journal_that_held_more_than_the_books_knew_of_is_adopted(server):
    server.orphans(3)
    server.leave(server.stream, range(1, 6))  # the group was written, and then not booked
    server.look(QUIET_LOOKS)
    assert (server.terms.accepted, server.terms.adopted, server.terms.in_dlq) == (3, 2, 5)
    assert (server.terms.pending, server.terms.lost) == (0, 0)


def test_a_journal_that_can_not_be_read_does_not_hide_those_behind_it(server):
    path = server.leave(server.stream, range(1, 4))
    path.unlink()
    path.mkdir()  # which reading refuses
    server.leave(server.stream, range(4, 6), seq=2)
    server.leave(f"f{server.stream[1:]}", range(1, 2))
    server.look()
    assert sorted(b.events for b in server.pending()) == [1, 2]
    assert not server.admission.failing


def test_a_journal_that_can_not_be_deleted_is_recovered_once_and_hides_none_behind_it(
    server, monkeypatch
):
    server.orphans(4)
    path = str(server.leave(server.stream, range(1, 4)))
    server.leave(f"f{server.stream[1:]}", range(1, 2))

    def refuse(target, **kwargs):
        if target == path:
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        unlink(target, **kwargs)

    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", refuse)
    server.look()
    assert sorted(b.events for b in server.pending()) == [1, 3]
    server.replay(server.stream, Ledger(server.counts))
    server.look(QUIET_LOOKS)
    assert [b.events for b in server.pending()] == [1]
    monkeypatch.undo()
    server.look()
    assert server.journals() == []
    assert (server.terms.stored, server.terms.in_dlq, server.terms.lost) == (3, 1, 0)


def test_a_stream_that_can_not_be_opened_does_not_hide_those_behind_it(server):
    server.leave(LATER_STILL, range(1, 4))
    Path(server.root, DIRECTORY, EARLIER).write_bytes(b"")  # no directory
    server.look()
    assert [b.events for b in server.pending()] == [3]


def test_a_dlq_that_can_not_be_written_leaves_the_journal_for_later(server):
    server.orphans(3)
    path = server.leave(server.stream, range(1, 4))
    before = path.read_bytes()
    away = no_pending_files(server)
    with pytest.raises(DiskError, match="write"):
        server.look()
    assert path.read_bytes() == before
    assert (server.terms.pending, server.terms.in_dlq) == (3, 0)
    away()
    server.look()
    assert server.booked() == server.dlq.walk()
    assert (server.terms.pending, server.terms.in_dlq, server.terms.lost) == (0, 3, 0)


def test_what_the_dlq_has_no_room_for_is_stored_at_once(server, tmp_path):
    server.stores = Everywhere(tmp_path)
    server.lead()
    server.orphans(3)
    server.leave(server.stream, range(1, 4))
    server.leave(EARLIER, range(1, 5))
    no_pending_files(server)
    server.look(QUIET_LOOKS)
    assert server.journals() == []
    stored = [gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.jsonl.gz")]
    assert sorted(stored) == sorted(
        [lines(range(1, 4), server.stream), lines(range(1, 5), EARLIER)]
    )
    terms = server.terms
    assert (terms.stored, terms.adopted, terms.pending, terms.lost) == (7, 4, 0, 0)
    assert server.booked() == (0, 0, 0)


def test_a_damaged_journal_is_stored_at_once_where_the_disk_has_no_room(server, tmp_path):
    server.stores = Everywhere(tmp_path)
    server.lead()
    server.orphans(6)
    spoil(server.leave(EARLIER, range(1, 3), range(3, 5), sealed=True), 0)
    spoil(server.leave(server.stream, range(1, 4), range(4, 7), sealed=True), 1)
    no_pending_files(server)
    (server.root / QUARANTINE).rmdir()
    away = in_the_way(server.root / QUARANTINE)
    with pytest.raises(DiskError, match="quarantine"):
        server.look()
    assert server.journals() == []
    away()
    server.look(QUIET_LOOKS)
    terms = server.terms
    assert (terms.stored, terms.dropped, terms.adopted) == (2 + 3, 2 + 3, 4)
    assert (terms.pending, terms.lost) == (0, 0)
    damaged = [path for path in tmp_path.rglob("*-bad*") if "store" in path.parts]
    assert len(damaged) == 2
    assert all(path.parent.name == "raw_dlq" for path in damaged)


def test_a_damaged_range_that_is_stored_counts_once_although_its_batch_has_to_wait(
    server, tmp_path, monkeypatch
):
    server.stores = Everywhere(tmp_path)
    server.lead()
    server.orphans(4)
    spoil(server.leave(server.stream, range(1, 3), range(3, 5), sealed=True), 0)
    no_pending_files(server)
    (server.root / QUARANTINE).rmdir()
    mend = in_the_way(server.root / QUARANTINE)
    with monkeypatch.context() as patched:
        patched.setattr(server.recovery._delivery, "attempt", away)
        with pytest.raises(DiskError, match="write"):
            server.look()
    mend()
    server.look(QUIET_LOOKS)
    terms = server.terms
    assert (terms.stored, terms.dropped, terms.adopted) == (2, 2, 0)
    assert (terms.pending, terms.lost) == (0, 0)


def away(_batch, **_):
    raise StoreUnavailable("no store here")


@pytest.mark.parametrize("error", [ObjectRefused("400"), NotOurs("elsewhere")])
def test_a_journal_that_can_be_neither_kept_nor_stored_hides_none_of_the_others(
    server, tmp_path, monkeypatch, error
):
    server.stores = Everywhere(tmp_path)
    server.lead()
    server.leave(EARLIER, range(1, 5))
    bad = server.leave(EARLIER, range(5, 6), seq=2)
    server.leave(EARLIER, range(6, 9), seq=3)
    server.leave(LATER_STILL, range(1, 4))
    no_pending_files(server)
    attempt = server.recovery._delivery.attempt

    def refuses(found, **given):
        if found.first == 5:
            raise error
        attempt(found, **given)

    monkeypatch.setattr(server.recovery._delivery, "attempt", refuses)
    server.look()
    assert server.admission.failing
    assert server.journals() == [bad]
    assert (server.terms.stored, server.terms.lost) == (7 + 3, 0)


def test_a_quarantine_that_can_not_be_written_leaves_the_journal_for_later(server):
    path = server.leave(server.stream, range(1, 3), range(3, 5), sealed=True)
    spoil(path, 0)
    before = path.read_bytes()
    (server.root / QUARANTINE).rmdir()
    away = in_the_way(server.root / QUARANTINE)
    with pytest.raises(DiskError, match="scan"):
        server.look()
    assert path.read_bytes() == before
    away()
    server.look()
    assert (server.terms.in_dlq, len(server.names(QUARANTINE))) == (4, 1)


def test_a_bad_range_is_booked_once_although_the_rest_of_its_journal_had_to_wait(server):
    server.orphans(4)
    spoil(server.leave(server.stream, range(1, 3), range(3, 5), sealed=True), 0)
    away = no_pending_files(server)
    for _ in range(2):
        with pytest.raises(DiskError, match="write"):
            server.look()
    away()
    server.look(QUIET_LOOKS)
    assert server.booked() == server.dlq.walk()
    assert (server.terms.adopted, server.terms.in_dlq, server.terms.lost) == (0, 4, 0)


def test_a_leader_that_dies_before_it_could_close_the_books_makes_nothing_look_lost(server):
    server.orphans(3)
    server.leave(server.stream, range(1, 4), sealed=True)
    server.in_dlq(range(1, 4), stream=server.stream)
    server.look()
    server.lead()
    server.look(QUIET_LOOKS)
    assert (server.terms.pending, server.terms.lost) == (0, 0)


def test_a_dlq_file_of_an_earlier_life_hides_no_loss_of_this_one(server):
    size = server.in_dlq(range(1, 4), stream=EARLIER)
    Ledger(server.counts).adopt(3, 1, size)  # as every start does
    server.leave(EARLIER, range(1, 4), sealed=True)
    server.orphans(3)
    server.look(QUIET_LOOKS)
    assert server.booked() == server.dlq.walk()
    assert server.terms.lost == 3


def test_events_in_the_journals_of_this_life_are_counted_without_touching_them(server):
    server.leave(EARLIER, range(1, 10))
    server.leave(server.stream, range(1, 4), range(4, 6))
    server.leave(server.stream, range(6, 7), seq=2)
    assert pending_events(str(server.root)) == 6
    assert len(server.journals()) == 3
    assert directory_lock.streams(str(server.root / DIRECTORY)) == [f"{EARLIER}.1", server.stream]


def test_a_journal_that_its_reader_fails_on_hides_none_that_is_counted_at_the_end(
    server, monkeypatch, caplog
):
    strange = server.leave(server.stream, range(1, 4))
    server.leave(server.stream, range(4, 6), seq=2)
    parse = journal_file.parse

    def fails(data):
        if data == strange.read_bytes():
            raise KeyError("last")
        return parse(data)

    monkeypatch.setattr(journal_file, "parse", fails)
    assert pending_events(str(server.root)) == 2
    (told,) = [record for record in caplog.records if record.message == "journal_not_understood"]
    assert told.file == str(strange)


def test_nothing_is_pending_where_no_journal_was_ever_made(tmp_path):
    assert pending_events(str(tmp_path)) == 0
