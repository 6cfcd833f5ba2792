"""``estat audit`` as a person runs it, on a directory, on S3, and behind a real server."""

import json
import os
import re
import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from estat.config import loading
from estat.disk import dlq_file
from estat.disk.dlq import DeadLetterQueue
from estat.disk.journal_file import pack_group
from estat.events import ids
from estat.events.batch import crc32_of
from estat.events.gzip import Encoder, gzip
from estat.stores import Stores
from tests.support import accounting
from tests.support.client import Client, Load
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.server import BIN, DEFAULTS
from tests.unit.batches import STREAM, batch, lines
from tests.unit.journals import JournalFile, journal

OTHER = "0199c1b2f3a4" + "cd" * 8
CREDENTIALS = {name: value for name, value in DEFAULTS.items() if name.startswith("AWS_")}


class Directory:
    """A ``file:`` bucket, written as plain files."""

    def __init__(self, root):
        self.root = root
        self.target = str(root)
        self.environ = {}

    def part(self, rest):
        return f"{self.target}/raw/{rest}"

    def write(self, key, body, metadata):
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


class S3:
    """A bucket in moto, with metadata."""

    def __init__(self, moto):
        self.bucket = moto.new_bucket()
        self.target = f"s3://{self.bucket.name}/raw"
        self.environ = CREDENTIALS | {"AWS_ENDPOINT_URL_S3": moto.url}

    def part(self, rest):
        return f"{self.target}/{rest}"

    def write(self, key, body, metadata):
        self.bucket._client.put_object(
            Bucket=self.bucket.name, Key=key, Body=body, Metadata=metadata
        )


@pytest.fixture
def directory(tmp_path):
    return Directory(tmp_path / "data")


@pytest.fixture
def s3(moto):
    return S3(moto)


@pytest.fixture
def faulty_s3(moto):
    """A faulty S3 in front of the real one, healthy at first."""
    with FaultyS3(moto.port) as running:
        yield running


@pytest.fixture(params=["directory", "s3"])
def store(request):
    return request.getfixturevalue(request.param)


def put(store, *batches):
    for one in batches:
        store.write(one.key, one.payload, one.metadata)


def end(store, last, stream=STREAM):
    """Write a stream's record."""
    store.write(ids.record_key("raw", stream), record_of(last, stream), {})


def record_of(last, stream=STREAM):
    return json.dumps(
        {
            "stream": stream,
            "instance": "web-1",
            "host": "web-1",
            "events": last,
            "last_id": f"{stream}-{last}",
            "started": 1763017800.0,
            "ended": 1763017900.0,
        }
    ).encode()


def run(*arguments, cwd=None, most_bytes=resource.RLIM_INFINITY, **environ):
    """Run the command, in so much memory at most."""
    environ |= {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    return subprocess.run(
        [BIN / "estat", "audit", *arguments],
        cwd=cwd or "/",
        env=environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def audit(store, *arguments, target=None, **limit):
    """Return the exit code and the JSON report."""
    result = run(target or store.target, "--json", *arguments, **store.environ, **limit)
    assert result.returncode in (0, 1, 3), result.stderr
    report = json.loads(result.stdout)
    assert report["exit_code"] == result.returncode
    assert result.stderr == ""
    return result.returncode, report


def in_day(day, numbers, seq, **more):
    """Return a batch of another partition."""
    one = batch(numbers, seq=seq, **more)
    return replace(one, key=one.key.replace("dt=2025-11-13", f"dt=2025-11-{day}"))


def test_a_stream_that_ended_with_all_its_ids_is_complete(store):
    put(store, batch(range(1, 6)), batch(range(6, 11), seq=2), batch([1], stream=OTHER))
    end(store, 10)
    end(store, 1, OTHER)
    code, report = audit(store)
    assert code == 0
    assert report["states"] == {"complete": 2}
    assert (report["objects"], report["objects_read"], report["events"]) == (3, 0, 11)


@pytest.mark.quick
def test_missing_ids_are_gaps_at_the_end_too(store):
    put(store, batch(range(1, 4)), batch(range(6, 9), seq=2))
    end(store, 10)
    code, report = audit(store)
    assert (code, report["states"]) == (1, {"gaps": 1})
    assert report["streams"][0]["missing"] == [[4, 5], [9, 10]]
    assert report["missing_events"] == 4


@pytest.mark.quick
def test_ids_in_two_objects_are_repeats_and_both_keys_are_named(store):
    first, second = batch(range(1, 6)), batch(range(4, 9), seq=2)
    put(store, first, second)
    end(store, 8)
    code, report = audit(store)
    assert (code, report["states"]) == (1, {"repeats": 1})
    assert report["streams"][0]["repeats"] == [
        {"first": 4, "last": 5, "keys": [first.key, second.key]}
    ]


def test_rests_fill_the_gaps_of_the_object_they_belong_to(store):
    whole = batch([1, 2, 5])
    put(store, whole)
    store.write(ids.rest_key(whole.key, 1), gzip(lines([3, 4])), batch([3, 4]).metadata)
    end(store, 5)
    code, report = audit(store)
    assert (code, report["states"]) == (0, {"complete": 1})
    assert report["objects_read"] >= 1  # three events over five ids are not believed


def test_a_partition_is_cut_off_where_streams_cross_its_edges(store):
    put(store, in_day(12, range(1, 6), 1), in_day(13, range(6, 11), 2), in_day(14, [11], 3))
    put(store, in_day(13, range(1, 4), 1, stream=OTHER))
    end(store, 11)
    end(store, 3, OTHER)
    code, report = audit(store, target=store.part("dt=2025-11-13"))
    assert code == 3
    assert {s["stream"]: s["states"] for s in report["streams"]} == {
        STREAM: ["cut off"],
        OTHER: ["complete"],
    }
    assert report["partial"] is True
    code, report = audit(store, target=store.part("dt=2025-11-1"))
    assert (code, report["states"]) == (0, {"complete": 2})
    assert audit(store)[0] == 0


def test_a_damaged_object_is_unreadable_and_its_ids_are_missing_when_it_is_read(store):
    whole, damaged = batch(range(1, 6)), batch(range(6, 11), seq=2)
    put(store, whole, replace(damaged, payload=damaged.payload[:-9]))
    end(store, 10)
    code, report = audit(store, "--deep")
    assert (code, report["missing_events"], report["unreadable_objects"]) == (1, 5, 1)
    assert report["unreadable"] == [{"place": damaged.key, "line": None, "reason": "gzip cut off"}]


@pytest.mark.quick
def test_deep_finds_a_bad_line_that_metadata_hides(s3):
    bad = batch(range(1, 6))
    text = lines(range(1, 6)).replace(b'{"n":3}', b'{"n":NaN}')
    s3.write(bad.key, gzip(text), bad.metadata)
    end(s3, 5)
    assert audit(s3)[0] == 0
    code, report = audit(s3, "--deep")
    assert code == 1
    assert report["streams"][0]["missing"] == [[3, 3]]
    assert [(found["place"], found["line"]) for found in report["unreadable"]] == [(bad.key, 3)]


def test_an_object_that_is_shorter_than_its_metadata_says_is_read_and_told(s3):
    one = batch(range(1, 6))
    described = one.metadata | {"bytes": str(len(one.payload))}
    s3.write(one.key, one.payload, described)
    end(s3, 5)
    assert audit(s3)[1]["objects_read"] == 0
    s3.write(one.key, one.payload[:-9], described)
    code, report = audit(s3)
    assert (code, report["missing_events"], report["unreadable_objects"]) == (1, 5, 1)


def test_an_object_is_read_that_has_no_metadata_or_is_empty_whatever_they_say(s3):
    one, empty = batch(range(1, 6)), batch(range(6, 11), seq=2)
    s3.write(one.key, one.payload, {})
    s3.write(empty.key, b"", empty.metadata)  # without its length, as earlier versions wrote them
    end(s3, 10)
    code, report = audit(s3)
    assert (code, report["objects_read"]) == (1, 2)
    assert (report["streams"][0]["missing"], report["unreadable_objects"]) == ([[6, 10]], 1)


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_an_object_that_is_readable_and_of_another_length_is_told(s3, deep):
    one = batch(range(1, 6))
    s3.write(one.key, one.payload, one.metadata | {"bytes": "1234567"})
    end(s3, 5)
    code, report = audit(s3, *deep)
    assert (code, report["states"], report["unreadable"]) == (1, {"complete": 1}, [])
    (told,) = report["differing"]
    assert told["place"] == one.key
    assert told["reason"] == f"has {len(one.payload)} bytes, its metadata says 1234567"
    text = run(s3.target, *deep, **s3.environ).stdout
    assert f"not as their metadata says\n    {one.key}: has" in text


@pytest.mark.parametrize(
    ("numbers", "change"),
    [([1, 2, 3, 5, 6], {}), (range(1, 6), {"first-id": f"{OTHER}-1", "last-id": f"{OTHER}-5"})],
)
def test_deep_tells_an_object_whose_metadata_does_not_cover_its_ids(s3, numbers, change):
    one = batch(range(1, 6))
    s3.write(one.key, batch(numbers).payload, one.metadata | change)
    end(s3, 5)
    code, report = audit(s3, "--deep")
    assert code == 1
    (told,) = report["differing"]
    assert told["place"] == one.key
    assert (
        f"its lines {len(numbers)}, {STREAM}-{numbers[0]} to {STREAM}-{numbers[-1]}"
        in told["reason"]
    )


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_an_object_that_inflates_to_half_a_gigabyte_takes_no_such_memory(directory, deep):
    encoder = Encoder()
    for _ in range(32):
        encoder.feed([bytes(16 * 1024 * 1024)])
    whole, bomb = batch(range(1, 6)), batch(range(6, 11), seq=2)
    put(directory, whole, replace(bomb, payload=encoder.finish([])[0]))
    end(directory, 10)
    code, report = audit(directory, *deep, most_bytes=400 * 1024 * 1024)
    assert (code, report["missing_events"]) == (1, 5)
    (told,) = report["unreadable"]
    assert (told["place"], told["reason"]) == (bomb.key, "a line is longer than 32 MiB")


def test_a_record_that_can_not_be_read_is_told_and_leaves_its_stream_open(store):
    put(store, batch(range(1, 6)))
    store.write(ids.record_key("raw", STREAM), b"{", {})
    code, report = audit(store)
    assert (code, report["states"], report["unreadable_objects"]) == (1, {"open": 1}, 1)


def test_other_files_are_mentioned_and_prove_nothing(store):
    put(store, batch(range(1, 6)))
    end(store, 5)
    store.write("raw/dt=2025-11-13/_SUCCESS", b"", {})
    store.write("raw_dlq/x.jsonl.gz", b"", {})
    store.write("raw2/x.jsonl.gz", b"", {})
    code, report = audit(store)
    assert (code, report["other_objects"]) == (0, ["raw/dt=2025-11-13/_SUCCESS"])


def test_a_half_written_file_is_no_object(directory):
    put(directory, batch(range(1, 6)))
    end(directory, 5)
    directory.write("raw/dt=2025-11-13/hr=07/.x.jsonl.gz.1-1.tmp", b"half", {})
    code, report = audit(directory)
    assert (code, report["objects"], report["other_objects"]) == (0, 1, [])


# --- the DLQ


def spill(dlq, one, store, reason="put_failed"):
    bucket = f"file:{store.root}" if isinstance(store, Directory) else store.bucket.name
    dlq.write(replace(one, bucket=bucket), dlq_file.pack(replace(one, bucket=bucket), reason, "x"))


def record_batch(last, stream=STREAM):
    payload = gzip(record_of(last, stream))
    return replace(
        batch([last], stream=stream),
        key=ids.record_key("raw", stream),
        events=0,
        payload=payload,
        crc32=crc32_of(payload),
    )


@pytest.mark.quick
def test_ids_on_disk_are_waiting_and_not_missing(store, dlq):
    put(store, batch(range(1, 6)))
    spill(dlq, batch(range(6, 11), seq=2), store)
    end(store, 10)
    assert audit(store)[0] == 1
    code, report = audit(store, "--dlq", dlq.root)
    assert (code, report["states"]) == (3, {"waiting": 1})
    assert report["streams"][0]["waiting"] == [[6, 10]]
    assert report["dlq"]["files"] == 1


def test_the_directories_of_several_hosts_are_taken_together(directory, dlq, tmp_path):
    put(directory, batch(range(1, 6)))
    other = DeadLetterQueue(str(tmp_path / "other"))
    other.create()
    spill(dlq, batch(range(6, 8), seq=2), directory)
    spill(other, batch(range(8, 11), seq=3), directory)
    end(directory, 10)
    code, report = audit(directory, "--dlq", dlq.root, "--dlq", other.root)
    assert (code, report["states"], report["waiting_events"]) == (3, {"waiting": 1}, 5)


def kept(store, *numbers, **more):
    """Return a journal of the store's bucket, with a group for each of the numbers."""
    bucket = f"file:{store.root}" if isinstance(store, Directory) else store.bucket.name
    made = JournalFile(first=numbers[0][0], bucket=bucket, **more)
    for group in numbers:
        made.group(group)
    return made


def test_ids_in_a_journal_are_waiting_and_not_missing(store, dlq):
    put(store, batch(range(1, 6)), batch(range(11, 14), seq=3))
    kept(store, [6, 7], [8, 9, 10], seq=2).write(dlq.root)
    code, report = audit(store, "--dlq", dlq.root)
    assert (code, report["states"]) == (3, {"waiting": 1, "open": 1})
    assert report["streams"][0]["waiting"] == [[6, 10]]
    assert (report["dlq"]["journals"], report["dlq"]["files"]) == (1, 0)


def test_what_is_in_a_journal_and_stored_or_in_the_dlq_is_no_repeat(store, dlq):
    put(store, batch(range(1, 6)))
    spill(dlq, batch(range(6, 11), seq=2), store)
    kept(store, range(1, 6)).write(dlq.root)
    kept(store, range(6, 11), seq=2).write(dlq.root)
    end(store, 10)
    code, report = audit(store, "--dlq", dlq.root)
    assert (code, report["states"], report["waiting_events"]) == (3, {"waiting": 1}, 5)
    assert (report["repeated_events"], report["replaying_events"]) == (0, 5)


def test_a_damaged_range_of_a_journal_is_unreadable_and_fills_no_gap(directory, dlq):
    put(directory, batch(range(1, 6)))
    path = kept(directory, [6], [7, 8], [9], seq=2).flip(b'{"n":7}').write(dlq.root)
    end(directory, 9)
    code, report = audit(directory, "--dlq", dlq.root)
    (stream,) = report["streams"]
    assert (code, stream["states"]) == (1, ["gaps", "waiting"])
    assert (stream["missing"], stream["waiting"]) == ([[7, 8]], [[6, 6], [9, 9]])
    assert (stream["quarantined_events"], report["unreadable_objects"]) == (2, 1)
    (fault,) = report["unreadable"]
    assert (fault["place"], fault["reason"][:18]) == (path, "damaged from byte ")


def test_a_range_in_quarantine_is_told_with_its_events(directory, dlq):
    put(directory, batch(range(1, 6)))
    end(directory, 8)
    dlq.put_aside(f"{batch(seq=2).name}-bad321", 3, b"garbage")
    code, report = audit(directory, "--dlq", dlq.root)
    assert (code, report["missing_events"], report["quarantined_events"]) == (1, 3, 3)
    (fault,) = report["unreadable"]
    assert fault["reason"] == "damaged range of a journal: 3 events by its name"


def test_a_file_may_have_any_name_and_is_told_on_any_terminal(directory, dlq):
    put(directory, batch(range(1, 6)))
    end(directory, 5)
    with open(os.fsencode(os.path.join(dlq.root, "quarantine")) + b"/\xff\x1b[31m", "wb"):
        pass
    found = run(directory.target, "--dlq", dlq.root, PYTHONIOENCODING="utf-8:strict")
    assert (found.returncode, found.stderr) == (1, "")
    assert r"/\udcff\x1b[31m" in found.stdout


def test_a_write_that_was_cut_off_by_a_crash_is_no_damage_in_quarantine_either(directory, dlq):
    put(directory, batch(range(1, 6)))
    end(directory, 5)
    dlq.put_aside(f"{batch().name}-bad321", 0, lines([6])[:-9])
    assert audit(directory, "--dlq", dlq.root)[0] == 0
    dlq.put_aside(f"{batch().name}-bad400", 0, kept(directory, [6]).flip(b'{"n":6}').data)
    assert audit(directory, "--dlq", dlq.root)[0] == 1


def test_a_journal_without_its_first_line_counts_where_its_stream_is_stored(directory, dlq):
    put(directory, batch(range(1, 6)))
    kept(directory, [6, 7], seq=2).flip(b"estat_journal").write(dlq.root)
    kept(directory, [1], stream=OTHER).flip(b"estat_journal").write(dlq.root)
    code, report = audit(directory, "--dlq", dlq.root)
    (stream,) = report["streams"]
    assert (code, stream["waiting"], report["dlq"]["left_out_files"]) == (1, [[6, 7]], 1)
    assert len(report["unreadable"]) == 2


def test_deep_reads_the_lines_in_a_journal(directory, dlq):
    put(directory, batch(range(1, 6)))
    made = kept(directory, [6], seq=2)
    made.data += pack_group([lines([7]), b"bad\n", lines([9])])
    path = made.write(dlq.root)
    assert audit(directory, "--dlq", dlq.root)[0] == 3
    code, report = audit(directory, "--dlq", dlq.root, "--deep")
    assert code == 1
    assert report["streams"][0]["missing"] == [[8, 8]]
    assert report["unreadable"][0]["place"] == path


def test_of_a_directory_those_of_all_servers_are_read(directory, tmp_path):
    put(directory, batch(range(1, 6)))
    end(directory, 10)
    servers = tmp_path / "shared" / "servers"
    (servers / "new").mkdir(parents=True)
    kept(directory, [6, 7], seq=2).write(str(servers / STREAM))
    other = DeadLetterQueue(str(servers / OTHER))
    other.create()
    spill(other, batch(range(8, 11), seq=3), directory)
    code, report = audit(directory, "--dlq", str(tmp_path / "shared"))
    assert (code, report["states"], report["waiting_events"]) == (3, {"waiting": 1}, 5)


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_what_is_on_disk_and_stored_is_no_repeat(store, dlq, deep):
    put(store, batch(range(1, 6)))
    spill(dlq, batch(range(1, 6)), store)
    kept(store, range(1, 6)).seal(5).write(dlq.root)
    end(store, 5)
    code, report = audit(store, "--dlq", dlq.root, *deep)
    assert (code, report["states"], report["replaying_events"]) == (0, {"complete": 1}, 5)


def test_a_stream_with_its_record_on_disk_is_waiting(store, dlq):
    put(store, batch(range(1, 6)))
    spill(dlq, record_batch(5), store)
    code, report = audit(store, "--dlq", dlq.root)
    assert (code, report["states"]) == (3, {"waiting": 1})
    assert report["streams"][0]["record"] == 5


@pytest.mark.parametrize("target", ["data", "data/raw", "data/raw/dt=2025-11-13"])
@pytest.mark.parametrize("write", ["spill", "journal"])
def test_a_path_where_nothing_is_stored_yet_is_what_the_dlq_says(tmp_path, target, write):
    directory = Directory(tmp_path / "data")
    # in the data's directory, as in a first trial, or elsewhere: then the data's is not there
    dlq = DeadLetterQueue(str(tmp_path / {"spill": "data/dlq", "journal": "dlq"}[write]))
    dlq.create()
    if write == "spill":
        spill(dlq, batch(range(1, 6)), directory)
    else:
        kept(directory, range(1, 6)).write(dlq.root)
    result = run(target, "--json", "--dlq", dlq.root, cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    report = json.loads(result.stdout)
    assert report["waiting_events"] == 5
    assert report["target"].startswith(f"{tmp_path}/data/raw/")


def test_what_is_on_disk_alone_is_found_by_the_settings_and_in_s3_too(s3, dlq):
    spill(dlq, batch(range(1, 6)), s3)
    settings = {"RAW_BUCKET": s3.bucket.name, "RAW_PREFIX": "raw"}
    for target in ([], [s3.target], [s3.part("dt=2025-11-13")]):
        result = run(*target, "--dlq", dlq.root, **s3.environ, **settings)
        assert result.returncode == 3, result.stderr


def test_a_file_of_a_dlq_below_the_directory_is_not_stored(tmp_path):
    dlq = DeadLetterQueue(str(tmp_path / "data" / "dlq"))
    dlq.create()
    spill(dlq, batch(range(1, 6)), Directory(tmp_path / "data"))
    result = run("data", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "wrong prefix?" in result.stderr


def test_a_prefix_of_several_parts_is_known_by_the_settings(tmp_path, dlq):
    one = batch(range(1, 6))
    spill(dlq, replace(one, key=f"web/{one.key}"), Directory(tmp_path / "data"))
    settings = {"RAW_BUCKET": "events", "RAW_PREFIX": "web/raw"}
    for target in ("data", "data/web/raw"):
        result = run(target, "--dlq", dlq.root, cwd=tmp_path, **settings)
        assert result.returncode == 3, result.stderr


def test_a_directory_is_the_same_under_another_name(tmp_path, dlq):
    directory = Directory(tmp_path / "data")
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    spill(dlq, batch(range(1, 6)), Directory(tmp_path / "link"))
    code, report = audit(directory, "--dlq", dlq.root)
    assert (code, report["waiting_events"]) == (3, 5)


def test_a_prefix_of_which_nothing_is_on_disk_either_is_exit_2(directory, dlq):
    directory.root.mkdir()
    spill(dlq, batch(range(1, 6)), directory)
    result = run(f"{directory.target}/web", "--dlq", dlq.root)
    assert (result.returncode, result.stdout) == (2, "")
    assert "wrong prefix? (--dlq has 1 files for other ranges)" in result.stderr


def test_files_and_journals_for_other_buckets_and_ranges_are_left_out(directory, dlq):
    put(directory, batch(range(1, 6)))
    end(directory, 5)
    dlq.write(batch(stream=OTHER), dlq_file.pack(batch(stream=OTHER), "put_failed", "x"))
    spill(dlq, in_day(14, range(6, 11), 2), directory)
    journal(stream=OTHER).write(dlq.root)
    kept(directory, range(6, 11), seq=2, day="14").write(dlq.root)
    code, report = audit(directory, "--dlq", dlq.root, target=directory.part("dt=2025-11-13"))
    assert (code, report["dlq"]["left_out_files"], report["dlq"]["journals"]) == (0, 4, 2)


def test_deep_reads_the_lines_on_disk(directory, dlq):
    put(directory, batch(range(1, 6)))
    one = batch(range(6, 9), seq=2)
    payload = gzip(lines([6]) + b"bad\n" + lines([8]))
    spill(dlq, replace(one, payload=payload, crc32=crc32_of(payload)), directory)
    end(directory, 8)
    assert audit(directory, "--dlq", dlq.root)[0] == 3
    code, report = audit(directory, "--dlq", dlq.root, "--deep")
    assert (code, report["unreadable_lines"]) == (1, 1)
    assert report["streams"][0]["missing"] == [[7, 7]]


@pytest.mark.parametrize("area", ["pending/2025-11-13T07", "quarantine"])
def test_an_unreadable_file_on_disk_fills_no_gap_and_is_told(directory, dlq, area):
    put(directory, batch(range(1, 6)))
    end(directory, 10)
    lost = batch(range(6, 11), seq=2)
    path = os.path.join(dlq.root, area, dlq_file.file_name(lost))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"damaged")
    code, report = audit(directory, "--dlq", dlq.root)
    assert (code, report["missing_events"], report["quarantined_events"]) == (1, 5, 5)
    assert [found["place"] for found in report["unreadable"]] == [path]


def test_the_audit_changes_nothing_on_disk(directory, dlq, tmp_path):
    put(directory, batch(range(1, 6)))
    spill(dlq, batch(range(6, 11), seq=2), directory)
    kept(directory, [12], seq=3).write(dlq.root)  # and a gap before it, so all is read twice

    def state():
        return sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))

    before = state()
    assert audit(directory, "--dlq", dlq.root, "--deep")[0] == 1
    assert state() == before


# --- targets, errors and text


@pytest.mark.parametrize("target", ["data", "data/", "data/raw", "file:data", "data/raw/dt="])
def test_a_directory_may_be_the_bucket_or_its_prefix(directory, target):
    put(directory, batch(range(1, 6)))
    end(directory, 5)
    result = run(target, cwd=directory.root.parent)
    assert (result.returncode, result.stderr) == (0, "")


def test_without_a_target_the_settings_tell(directory):
    put(directory, batch(range(1, 6)))
    end(directory, 5)
    result = run(cwd=directory.root.parent, RAW_BUCKET="file:data")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing-here"], "no such directory"),
        (["data/raw/dt=2024-01-01"], "holds no events"),
        (["data/ra"], "no such directory"),
        (["gs://bucket/raw"], "not s3://"),
        (["s3://Not_A_Bucket/raw"], "Not_A_Bucket"),
        (["s3://bucket/dt=2025-11-13"], "prefix before dt= is missing"),
        (["data", "--dlq", "nothing-here"], "no DLQ directory"),
        (["data", "--dlq", "data"], "no DLQ directory"),
    ],
)
def test_a_target_that_can_not_be_audited_is_one_line_and_exit_2(directory, arguments, told):
    put(directory, batch(range(1, 6)))
    result = run(*arguments, cwd=directory.root.parent)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(f"estat audit: .*{re.escape(told)}.*\n", result.stderr)


def test_a_prefix_without_anything_is_exit_2_not_complete(s3):
    result = run(s3.target, **s3.environ)
    assert (result.returncode, result.stdout) == (2, "")
    assert "holds no events" in result.stderr


def test_a_bucket_that_is_not_there_is_one_line_and_exit_2(s3):
    result = run("s3://no-such-bucket-here/raw", **s3.environ)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "NoSuchBucket" in result.stderr


def test_the_text_tells_what_is_wrong_and_cuts_long_lists(directory):
    put(directory, *[batch([n], seq=n) for n in range(1, 61, 2)])
    end(directory, 60)
    result = run(directory.target)
    assert result.returncode == 1
    assert f"stream {STREAM} of web-1: gaps" in result.stdout
    assert "30 ids: 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, … and 20 more ranges" in result.stdout
    assert re.search(r"^missing +30$", result.stdout, re.MULTILINE)


def test_a_listing_of_many_pages_is_whole(s3):
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: put(s3, batch([n], seq=n)), range(1, 1002)))
    end(s3, 1001)
    code, report = audit(s3, "--concurrency", "4")
    assert (code, report["objects"], report["events"]) == (0, 1001, 1001)


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        ("", "", ["a", "raw-1/x", "raw/dt=1/hr=2/x", "raw/dt=1/hr=2/y", "raw/dt=12/x", "raw2"]),
        ("raw/", "", ["raw/dt=1/hr=2/x", "raw/dt=1/hr=2/y", "raw/dt=12/x"]),
        ("raw/dt=1/", "", ["raw/dt=1/hr=2/x", "raw/dt=1/hr=2/y"]),
        ("raw/dt=1", "raw/dt=1/hr=2/x", ["raw/dt=1/hr=2/y", "raw/dt=12/x"]),
        ("raw", "raw/dt=1/hr=3", ["raw/dt=12/x", "raw2"]),
        ("raw/dt=1/hr=2/y", "", ["raw/dt=1/hr=2/y"]),
        ("nothing/", "", []),
        ("raw22", "", []),
    ],
)
def test_both_stores_list_the_same_keys_in_the_same_order(
    directory, s3, monkeypatch, prefix, after, expected
):
    for key in ("raw2", "raw/dt=12/x", "raw/dt=1/hr=2/y", "raw/dt=1/hr=2/x", "raw-1/x", "a"):
        directory.write(key, b"x", {})
        s3.write(key, b"x", {})
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    for bucket in (f"file:{directory.root}", s3.bucket.name):
        store = Stores(loading.load({"RAW_BUCKET": bucket}, env_file="")).get(bucket)
        assert list(store.list(prefix, after)) == expected


def test_a_transient_error_is_tried_again_and_a_lasting_one_ends_the_audit(s3, moto):
    put(s3, batch(range(1, 6)))
    end(s3, 5)
    with FaultyS3(moto.port) as faulty:
        through = CREDENTIALS | {"AWS_ENDPOINT_URL_S3": faulty.url}
        for method in ("GET", "HEAD"):
            faulty.fail("503", method=method, times=2)
        assert run(s3.target, **through).returncode == 0
        faulty.heal()
        faulty.fail("403", method="HEAD")
        result = run(s3.target, **through)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


# --- behind a real server


def first_time(*endings):
    """Match each key with one of these endings once: its replay goes well."""
    seen = set()

    def matches(key):
        if not key.endswith(tuple(f"{ending}.jsonl.gz" for ending in endings)) or key in seen:
            return False
        seen.add(key)
        return True

    return matches


def against(bucket, moto, *arguments):
    result = run(
        f"s3://{bucket.name}/raw", "--json", *arguments, **CREDENTIALS, AWS_ENDPOINT_URL_S3=moto.url
    )
    return result.returncode, json.loads(result.stdout)


@pytest.mark.quick
def test_what_a_server_stored_until_it_was_stopped_is_complete(serve, bucket, moto):
    server = serve(workers=2)
    client = Client()
    client.must_send(server, count=7, requests=60)
    assert server.stop() == 0
    code, report = against(bucket, moto, "--deep", "--dlq", str(server.dlq_dir))
    assert code == 0, report
    assert set(report["states"]) == {"complete"}
    assert report["events"] == len(client.accepted) == 420


def test_a_server_that_was_killed_leaves_open_streams(serve, bucket, moto):
    server = serve()
    client = Client()
    client.must_send(server, count=7, requests=60)
    server.until(server.settled, "everything is stored")
    client.must_send(server, count=7)  # these may be stored by then or not
    server.kill()
    code, report = against(bucket, moto)
    assert (code, report["states"]) == (3, {"open": 1})
    assert report["events"] in (420, 427)
    assert report["streams"][0]["instance"] == "test-1.example"


def test_while_a_server_works_and_its_s3_fails_now_and_then_no_audit_finds_a_gap_or_repeat(
    serve, faulty_s3, bucket, moto
):
    server = serve(via=faulty_s3, workers=2, BATCH_SIZE="500", S3_APP_RETRIES="0")
    faulty_s3.fail("503", key=first_time(1, 5))
    faulty_s3.fail("lands_then_resets", key=first_time(3))
    faulty_s3.fail("lands_then_hangs", key=first_time(8))
    states = set()
    with Load(server, clients=2) as load:
        for number in range(6):
            sent = len(load.accepted)
            eventually(lambda least=sent + 50: len(load.accepted) > least, 20, "the load runs")
            if number == 3:
                server.kill_worker()
            deep = ["--deep"] if number == 2 else []
            code, report = against(bucket, moto, "--dlq", str(server.dlq_dir), *deep)
            found = set(report["states"])
            assert not found & {"gaps", "repeats", "past record"}, report["streams"]
            assert report["unreadable"] == []
            assert code == 3
            states |= found
    assert "waiting" in states, "events were seen on disk"
    faulty_s3.heal()
    server.until(server.settled, "everything is stored")
    accounting.check(load.accepted, bucket.stored(), unanswered=load.unanswered)
    assert server.stop() == 0
    code, report = against(bucket, moto, "--dlq", str(server.dlq_dir))
    # the killed worker had no time for its record
    assert set(report["states"]) <= {"open", "complete"}
    assert (code, report["waiting_events"]) == (3 if "open" in report["states"] else 0, 0)


@pytest.mark.quick
def test_what_a_killed_server_has_left_in_its_journals_is_waiting_and_then_stored(
    serve, bucket, moto
):
    server = serve(workers=2, BATCH_SIZE="1000", FLUSH_INTERVAL="10m")
    client = Client()
    for _ in range(40):
        client.must_send(server, count=5)
    server.kill()
    code, report = against(bucket, moto, "--dlq", str(server.dlq_dir), "--deep")
    assert (code, report["waiting_events"], report["missing_events"]) == (3, 200, 0)
    assert (report["dlq"]["journals"], report["unreadable"]) == (len(report["streams"]), [])

    second = serve(workers=2)
    second.until(lambda: len(bucket.stored()) == 200, "all of it is stored")
    accounting.check(client.accepted, bucket.stored())
    assert second.stop() == 0
    code, report = against(bucket, moto, "--dlq", str(server.dlq_dir))
    assert (code, report["events"], report["waiting_events"]) == (3, 200, 0)
    assert set(report["states"]) == {"open"}


# --- receipts


def receipts(store, *options, **environ):
    """Return the exit code, and what was found of each receipt."""
    result = run(store.target, "--json", *options, **store.environ, **environ)
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["exit_code"] == result.returncode
    return result.returncode, [
        [(found["state"], found["first"], found["last"]) for found in one["found"]]
        for one in report["receipts"]
    ]


@pytest.mark.quick
def test_a_receipt_is_stored_or_on_disk_or_unknown(store, dlq):
    put(store, batch(range(1, 11)), batch(range(11, 21), seq=2))
    spill(dlq, batch(range(21, 26), seq=3), store)
    spill(dlq, batch(range(1, 4), stream=OTHER), store)
    kept(store, [26, 27], seq=4).write(dlq.root)
    asked = [f"--receipt={STREAM}-{ids}" for ids in ("3..12", "20..22", "25..27", "28")]
    stored = [("stored", 3, 10), ("stored", 11, 12)]
    assert receipts(store, asked[0], "--dlq", dlq.root) == (0, [stored])
    both = [("stored", 20, 20), ("on disk", 21, 22)]
    # without --dlq it is the disk of the server's settings
    assert receipts(store, *asked[:2], DLQ_DIR=dlq.root, RAW_BUCKET="events") == (3, [stored, both])
    on_disk = [("on disk", 25, 25), ("on disk", 26, 27)]
    unknown = [("unknown", 28, 28)]
    found = receipts(store, *asked, "--deep", "--dlq", dlq.root)
    assert (found[0], sorted(found[1][2]), found[1][3]) == (1, on_disk, unknown)


def test_a_receipt_says_where_its_events_are_in_lines_for_people(directory, dlq):
    put(directory, batch(range(1, 11)))
    (path,) = [kept(directory, [11, 12], seq=2).write(dlq.root)]
    result = run(directory.target, f"--receipt={STREAM}-10..12", "--dlq", dlq.root)
    assert result.stdout.splitlines() == [
        f"stored   {STREAM}-10  {batch().key}",
        f"on disk  {STREAM}-11..12  {path}",
        f"looked at {directory.target}/raw/ and {dlq.root}",
    ]


@pytest.mark.parametrize("wrong", ["", "x\x1b[31m", f"{STREAM}-2..1", f"{STREAM}-1..{OTHER}-1"])
def test_a_mistyped_receipt_is_a_usage_error_and_nothing_is_looked_at(wrong):
    result = run("s3://events/raw", "--receipt", wrong, AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")
    assert (result.returncode, result.stdout) == (2, "")
    assert "argument --receipt" in result.stderr
    assert "\x1b" not in result.stderr
