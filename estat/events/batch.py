"""A batch: the events of one object, under the one key it will ever have.

``OpenBatch`` grows, compressed as it grows; ``seal`` turns it into a ``Batch``,
which never changes again, whether it waits, is uploaded or lies in the DLQ.
"""

from dataclasses import dataclass

from isal import isal_zlib

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.disk.journal import Journal
from estat.events import ids
from estat.events.gzip import Encoder
from estat.threads import Offload, Result

#: Lines wait for the compressor until they are so many bytes: one hop to its
#: thread costs some 40 µs, which is lost among a few hundred lines.
_PIECE_BYTES = 128 * 1024

NDJSON = "application/x-ndjson"
JSON = "application/json"


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
    #: What keeps the events meanwhile; None: nothing but memory or the DLQ.
    journal: Journal | None = None

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


class OpenBatch:
    """A batch that still takes events."""

    def __init__(
        self,
        bucket: str,
        key: str,
        stream: str,
        first: int,
        opened: float,
        journal: Journal | None = None,
    ) -> None:
        self.key = key
        self.events = 0
        self.raw_bytes = 0
        self.journal = journal
        self._bucket = bucket
        self._stream = stream
        self._first = first
        self._opened = opened
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._encoder = Encoder()
        self._piece: Result[None] | None = None
        self._accepted_at: list[tuple[int, int]] = []

    def add(self, lines: list[bytes], size_bytes: int, accepted: float) -> None:
        """Append finished lines that were accepted at one time."""
        self._lines += lines
        self.events += len(lines)
        self._waiting_bytes += size_bytes
        self.raw_bytes += size_bytes
        marks, second = self._accepted_at, int(accepted)
        if marks and marks[-1][0] == second:
            marks[-1] = (second, marks[-1][1] + len(lines))
        else:
            marks.append((second, len(lines)))

    def compress(self, threads: Offload) -> None:
        """Begin to compress what waits, if that is worth the hop and the last piece is done."""
        if self._piece and self._piece.ready():
            self._piece.get()  # an error must not be lost with it: its lines would be missing
            self._piece = None
        if self._waiting_bytes >= _PIECE_BYTES and not self._piece:
            lines, self._lines, self._waiting_bytes = self._lines, [], 0
            self._piece = threads.start(self._encoder.feed, lines)

    def seal(self, threads: Offload, counts: Metrics) -> Batch:
        """Compress the rest, waiting for it, and return the finished batch."""
        if self._piece:
            self._piece.get()
        payload, crc32 = threads.run(self._encoder.finish, self._lines)
        counts.observe(metrics.ENCODE_SECONDS, self._encoder.seconds)
        counts.observe(metrics.BATCH_EVENTS, self.events)
        counts.observe(metrics.BATCH_BYTES, len(payload))
        return Batch(
            bucket=self._bucket,
            key=self.key,
            name=ids.stem(self.key),
            stream=self._stream,
            first=self._first,
            last=self._first + self.events - 1,
            events=self.events,
            payload=payload,
            crc32=crc32,
            opened=self._opened,
            accepted_at=tuple(self._accepted_at),
            journal=self.journal,
        )


def crc32_of(payload: bytes) -> int:
    """Return the checksum that ``Batch.crc32`` holds."""
    return isal_zlib.crc32(payload)
