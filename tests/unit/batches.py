"""Batches for tests: small, with real lines."""

from estat.events import ids
from estat.events.batch import Batch, crc32_of
from estat.events.gzip import gzip

STREAM = "0199c1b2f3a4" + "ab" * 8


def lines(numbers: range | list[int], stream: str = STREAM) -> bytes:
    return b"".join(
        b'{"id":"%b-%d","ts":1763017800.000,"body":{"n":%d}}\n' % (stream.encode(), n, n)
        for n in numbers
    )


def batch(
    numbers: range | list[int] = range(1, 11),
    *,
    bucket: str = "events",
    seq: int = 1,
    opened: float = 1763017800.0,
    stream: str = STREAM,
) -> Batch:
    payload = gzip(lines(numbers, stream))
    key = ids.object_key("raw", "dt=2025-11-13/hr=07", opened, "web-1", stream, seq)
    return Batch(
        bucket=bucket,
        key=key,
        name=key.rpartition("/")[2].removesuffix(ids.SUFFIX),
        stream=stream,
        first=numbers[0],
        last=numbers[-1],
        events=len(numbers),
        payload=payload,
        crc32=crc32_of(payload),
        opened=opened,
    )
