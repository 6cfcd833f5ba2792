"""Names are unique, sort by age, and tell what they are."""

import re
from zoneinfo import ZoneInfo

import pytest

from estat.events import ids


def test_streams_sort_by_time_and_never_repeat():
    streams = [ids.new_stream() for _ in range(1000)]
    assert len(set(streams)) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{28}", stream) for stream in streams)
    assert [s[:12] for s in streams] == sorted(s[:12] for s in streams)


@pytest.mark.parametrize(
    ("zone", "path"),
    [
        ("UTC", "dt=2025-11-13/hr=07"),
        ("Asia/Seoul", "dt=2025-11-13/hr=16"),
        ("Asia/Kathmandu", "dt=2025-11-13/hr=12"),
        ("America/Los_Angeles", "dt=2025-11-12/hr=23"),
    ],
)
def test_partitions_follow_the_time_zone(zone, path):
    assert ids.partition(1763017800, ZoneInfo(zone)) == path


def test_keys_match_the_contract():
    key = ids.object_key("raw", "dt=2025-11-13/hr=07", 1763017800.9, "web-1.eu", "ab" * 14, 7)
    assert key == f"raw/dt=2025-11-13/hr=07/1763017800_web-1.eu-{'ab' * 14}_000007.jsonl.gz"
    assert ids.rest_key(key, 1).endswith("_000007-r1.jsonl.gz")
    assert ids.record_key("raw", "ab" * 14) == f"raw_streams/{'ab' * 14}.json"


def test_the_time_is_read_back_from_a_name_of_ours_alone():
    stream = "ab" * 14
    name = f"1763017800_web-1.eu-{stream}_000007"
    opened = (1763017800, "web-1.eu", stream)
    assert ids.read_name(f"raw/dt=2025-11-13/hr=07/{name}.jsonl.gz") == (*opened, False, None)
    assert ids.read_name(f"{name}-r1.10.jsonl.gz") == (*opened, False, 10)
    assert ids.read_name(f"{name}-r1-bad17.3.jsonl.gz") == (*opened, True, 3)
    assert ids.read_name("core.1234") is None
    assert ids.read_name(f"{name}-x.jsonl.gz") is None
