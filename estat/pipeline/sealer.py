"""Finishes batches: waits for the compressor, so that the collector need not.

One batch is finished at a time and one more may wait; then the collector waits,
the queue fills, and requests are refused. So a disk or a store that can't take
batches any more bounds memory instead of filling it.
"""

from gevent.queue import JoinableQueue

from estat.accounting.metrics import Metrics
from estat.disk.journal import Journal, Journals
from estat.errors import DiskError
from estat.pipeline.admission import Admission
from estat.pipeline.open_batch import OpenBatch
from estat.pipeline.uploader import Upload, Uploader
from estat.threads import Offload


class Sealer:
    """The loop from open batches to the uploader."""

    def __init__(
        self,
        uploader: Uploader,
        journals: Journals,
        admission: Admission,
        threads: Offload,
        counts: Metrics,
    ) -> None:
        self._uploader = uploader
        self._journals = journals
        self._admission = admission
        self._threads = threads
        self._counts = counts
        self._queue: JoinableQueue[OpenBatch] = JoinableQueue(maxsize=1)

    def submit(self, batch: OpenBatch) -> None:
        """Take over a batch that takes no more events; waits while another one waits."""
        self._queue.put(batch)

    def run(self) -> None:
        """Seal batches for ever; the drain kills it in the end."""
        while True:
            open_batch = self._queue.get()
            batch = open_batch.seal(self._threads, self._counts)
            if open_batch.journal:
                self._seal_journal(open_batch.journal, batch.events)
            self._admission.expose(len(batch.payload) - open_batch.raw_bytes)
            self._uploader.submit(Upload(batch, open_batch.journal))
            self._queue.task_done()

    def _seal_journal(self, journal: Journal, events: int) -> None:
        try:
            self._journals.seal(journal, events)
        except DiskError as exc:
            self._admission.failed(exc)  # the events are safe: each group says so for itself

    def join(self, timeout_seconds: float) -> None:
        """Wait until every batch is with the uploader, at most so long."""
        self._queue.join(timeout=timeout_seconds)
