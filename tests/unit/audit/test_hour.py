"""What the markers and objects of an hour prove."""

import json
import time

import pytest

from estat.audit import hour
from estat.audit.hour import COMPLETE, GAP, OPEN
from estat.audit.reader import Reader
from estat.audit.target import Target
from estat.events.closed_hour import CLOSED, STOPPED, Marker
from estat.events.spans import Span
from estat.stores.directory import DirectoryStore
from tests.unit.batches import STREAM, batch

PARTITION = "dt=2025-11-13/hr=07"
SERVER = "0199c1b2f3a4" + "1" * 16
OTHER = "0199c1b2f3a4" + "2" * 16


@pytest.fixture
def bucket(tmp_path):
    """Return a bucket's directory in which a server has closed an hour with ten events."""
    put(tmp_path, batch())
    tell(tmp_path)
    return tmp_path


def put(root, *batches):
    for one in batches:
        write(root, one.key, one.payload)


def write(root, key, body):
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def tell(root, server=SERVER, state=CLOSED, streams=None, **more):
    streams = {STREAM: [Span(1, 10)]} if streams is None else streams
    said = {"instance": "web-1", "revision": 1, "time": 1763019000.0} | more
    marker = Marker(server, PARTITION, "UTC", state=state, streams=streams, **said)
    write(root, f"raw_closed/{PARTITION}/{server}.json", marker.pack())


def read(root):
    target = Target("file:", "raw", f"{PARTITION}/")
    reader = Reader(DirectoryStore(str(root)), 0)
    return hour.read_hour(target, reader, "UTC")


def give_up(root, server):
    write(root, *hour.give_up(Target("file:", "raw", f"{PARTITION}/"), server))


def test_an_hour_is_complete_that_its_server_has_closed_and_whose_ids_are_there(bucket):
    report = read(bucket)
    assert (report.state, report.exit_code, report.events, report.objects) == (COMPLETE, 0, 10, 1)


@pytest.mark.parametrize("state", [hour.OPEN, STOPPED])
def test_one_server_that_has_not_closed_it_keeps_an_hour_open_until_it_is_given_up(bucket, state):
    tell(bucket, OTHER, state, {})
    assert (read(bucket).state, read(bucket).exit_code) == (OPEN, 3)
    give_up(bucket, OTHER)
    report = read(bucket)
    assert report.state == COMPLETE
    assert any("given up at" in line for line in report.as_lines())


def test_who_was_given_up_and_came_back_is_told_as_both(bucket):
    give_up(bucket, SERVER)
    (server,) = read(bucket).servers
    assert server.marker.state == CLOSED
    assert server.given_up is not None


@pytest.mark.parametrize("fate", ["", "dropped", "handed_over"])
def test_an_id_that_a_server_tells_and_no_object_has_is_a_gap(bucket, fate):
    lost = {STREAM: [Span(11, 12)]}
    tell(bucket, streams={STREAM: [Span(1, 12)]}, elsewhere={fate: lost} if fate else {})
    report = read(bucket)
    assert (report.state, report.exit_code) == (GAP, 1)
    assert report.servers[0].missing == lost
    assert any("11-12" in line and fate in line for line in report.as_lines())
    put(bucket, batch([11, 12], seq=2))
    assert read(bucket).state == COMPLETE, "it was copied home"


def test_no_id_is_missing_of_a_stream_that_two_servers_tell_of(bucket):
    tell(bucket, streams={STREAM: [Span(1, 4)]})
    tell(bucket, OTHER, streams={STREAM: [Span(5, 10)]})
    assert read(bucket).state == COMPLETE


def test_of_an_open_server_the_ids_in_between_and_the_last_one_are_told(bucket):
    put(bucket, batch(range(21, 31), seq=3))
    tell(bucket, state=hour.OPEN, streams={STREAM: []})
    report = read(bucket)
    assert report.state == OPEN
    assert report.servers[0].missing == {STREAM: [Span(11, 20)]}
    assert any(f"of stream {STREAM} nothing is known after id 30" in x for x in report.as_lines())


def test_a_stream_of_which_no_marker_tells_is_one_of_an_open_server_of_its_instance(bucket):
    put(bucket, batch([1], stream="ab" * 13 + "cd"))
    assert [server.marker.server for server in read(bucket).servers] == [SERVER, "ab" * 13 + "cd"]
    assert read(bucket).state == OPEN
    tell(bucket, OTHER, hour.OPEN, {})
    assert [server.marker.server for server in read(bucket).servers] == [SERVER, OTHER]


def test_an_hour_with_objects_alone_is_open_and_its_streams_can_be_given_up(tmp_path):
    put(tmp_path, batch())
    assert read(tmp_path).state == OPEN
    give_up(tmp_path, STREAM)
    assert read(tmp_path).state == COMPLETE


@pytest.mark.parametrize(
    "change",
    [
        {"server": OTHER},
        {"partition": "dt=2025-11-13/hr=08"},
        {"tz": "Nowhere"},
        {"state": "fine"},
        {"revision": "1"},
        {"streams": {STREAM: [[0, 4]]}},
        {"streams": {STREAM: [[4, 1]]}},
        {"streams": {"x": []}},
        {"streams": []},
        {"elsewhere": {"dropped": 1}},
        None,
    ],
)
def test_a_marker_that_no_server_writes_is_told_and_is_no_reason_to_begin(bucket, change):
    path = bucket / f"raw_closed/{PARTITION}/{SERVER}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change) if change else "{")
    report = read(bucket)
    assert report.state == GAP
    assert report.faults[0].place == f"raw_closed/{PARTITION}/{SERVER}.json"
    give_up(bucket, SERVER)
    assert read(bucket).state == OPEN, "whose stream it is nobody knows now"
    give_up(bucket, STREAM)
    assert read(bucket).state == COMPLETE


def test_a_field_of_a_later_version_is_passed_over(bucket):
    path = bucket / f"raw_closed/{PARTITION}/{SERVER}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new": 1}))
    assert read(bucket).state == COMPLETE


@pytest.mark.parametrize(
    ("zone", "begins"), [("UTC", "07:00"), ("Asia/Kolkata", "01:30"), ("America/New_York", "12:00")]
)
def test_an_hour_is_over_a_minute_after_its_end_in_the_servers_zone(
    bucket, monkeypatch, zone, begins
):
    path = bucket / f"raw_closed/{PARTITION}/{SERVER}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tz": zone}))
    hours, minutes = map(int, begins.split(":"))
    end = 1762992000 + hours * 3600 + minutes * 60 + 3600  # from 2025-11-13 00:00 UTC on
    for now, state in ((end + 59, OPEN), (end + 61, COMPLETE)):
        monkeypatch.setattr(time, "time", lambda now=now: float(now))
        assert read(bucket).state == state
