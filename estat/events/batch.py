"""A batch: the events of one object, under the one key it will ever have. A plain value.

It never changes, whether it waits, is uploaded or lies in the DLQ.
"""

from dataclasses import dataclass

from isal import isal_zlib

from estat.events import ids

NDJSON = "application/x-ndjson"
JSON = "application/json"
BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Batch:
    """The finished object: gzip bytes, and what is known of them."""

    bucket: str
    key: str
    name: str  # the DLQ file's, without directory or suffix
    stream: str
    first: int  # number of the first event
    last: int
    events: int  # 0: a stream's record
    payload: bytes
    crc32: int  # of the payload
    opened: float  # unix seconds
    #: Events by the second in which they were accepted, for the lag; may be empty.
    accepted_at: tuple[tuple[int, int], ...] = ()

    @property
    def content_type(self) -> str:
        """The object's content type."""
        return NDJSON if self.key.endswith(ids.SUFFIX) else JSON

    @property
    def metadata(self) -> dict[str, str]:
        """The object's metadata, by which its events are told without reading it."""
        return {
            "events": str(self.events),
            "first-id": f"{self.stream}-{self.first}",
            "last-id": f"{self.stream}-{self.last}",
        }


def crc32_of(payload: bytes) -> int:
    """Return the checksum that ``Batch.crc32`` holds."""
    return isal_zlib.crc32(payload)
