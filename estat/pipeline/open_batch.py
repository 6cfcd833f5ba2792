"""A batch that still takes events, compressed as it grows; ``seal`` makes a ``Batch`` of it."""

from dataclasses import asdict

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.disk.journal import Journal
from estat.disk.journal_file import Header
from estat.events.batch import Batch
from estat.events.gzip import Encoder
from estat.pipeline.answers import Waiting
from estat.threads import Offload, Result

#: Lines wait for the compressor until they are so many bytes: one hop to its
#: thread costs some 40 µs, which is lost among a few hundred lines.
_PIECE_BYTES = 128 * 1024


class OpenBatch:
    """A batch that still takes events."""

    def __init__(
        self, header: Header, journal: Journal | None = None, waiting: Waiting | None = None
    ) -> None:
        self.events = 0
        self.raw_bytes = 0
        self.journal = journal
        self.waiting = waiting
        self._header = header
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._encoder = Encoder()
        self._piece: Result[None] | None = None
        self._accepted_at: list[tuple[int, int]] = []

    @property
    def key(self) -> str:
        """The key of its object."""
        return self._header.key

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
            **asdict(self._header),
            last=self._header.first + self.events - 1,
            events=self.events,
            payload=payload,
            crc32=crc32,
            accepted_at=tuple(self._accepted_at),
        )
