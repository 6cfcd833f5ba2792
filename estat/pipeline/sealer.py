"""Finishes batches: waits for the compressor, so that the collector need not.

One batch is finished at a time and one more may wait; then the collector waits,
the queue fills, and requests are refused. So a disk or a store that can't take
batches any more bounds memory instead of filling it.
"""

from gevent.queue import JoinableQueue

from estat.disk.journal import Journals
from estat.errors import DiskError
from estat.pipeline.admission import Accounts
from estat.pipeline.open_batch import OpenBatch
from estat.pipeline.uploader import Upload, Uploader
from estat.threads import Offload


class Sealer:
    """The loop from open batches to the uploader."""

    def __init__(
        self, uploader: Uploader, journals: Journals, accounts: Accounts, encoder: Offload
    ) -> None:
        self._uploader = uploader
        self._journals = journals
        self._counts, _, self._admission, _ = accounts
        self._encoder = encoder
        self._queue: JoinableQueue[OpenBatch] = JoinableQueue(maxsize=1)

    def submit(self, batch: OpenBatch) -> None:
        """Take over a batch that takes no more events; waits while another one waits."""
        self._queue.put(batch)

    def run(self) -> None:
        """Seal batches for ever; the drain kills it in the end."""
        while True:
            self.seal(self._queue.get())
            self._queue.task_done()

    def seal(self, open_batch: OpenBatch) -> None:
        """Finish one batch and hand it to the uploader."""
        batch, journal = open_batch.seal(self._encoder, self._counts), open_batch.journal
        if journal:
            try:
                self._journals.seal(journal, batch.events)
            except DiskError as exc:
                self._admission.failed(exc)  # the events are safe: each group says so for itself
        self._admission.expose(len(batch.payload) - open_batch.raw_bytes)
        self._uploader.submit(Upload(batch, journal, open_batch.waiting))

    def join(self, timeout_seconds: float) -> None:
        """Wait until every batch is with the uploader, at most so long."""
        self._queue.join(timeout=timeout_seconds)
