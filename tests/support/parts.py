"""A worker's parts for tests, put together as ``Pipeline`` does, each made when it is asked for.

A test puts another one in a part's place by assigning it, before it asks for what uses it.
"""

from functools import cached_property
from typing import Any

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger, Terms
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import SharedPage
from estat.config import loading
from estat.config.settings import Settings
from estat.disk import dlq_file
from estat.disk.dlq import DeadLetterQueue
from estat.disk.journal import Journals
from estat.disk.leader import Leader
from estat.events.batch import Batch
from estat.pipeline.admission import Accounts, Admission, Disk
from estat.pipeline.answers import Answers
from estat.pipeline.closing import Closing
from estat.pipeline.collector import Collector
from estat.pipeline.delivery import Delivery
from estat.pipeline.hours import Hours
from estat.pipeline.queue import SubmissionQueue
from estat.pipeline.reconcile import Reconciliation
from estat.pipeline.recovery import Recovery
from estat.pipeline.replayer import Replayer
from estat.pipeline.sealer import Sealer
from estat.pipeline.takeover import Takeover
from estat.pipeline.uploader import Uploader
from estat.stores import Stores
from estat.threads import Offload


def load(root: object, **given: str) -> Settings:
    """Return settings with a store and a DLQ below a directory."""
    environ = {"RAW_BUCKET": f"file:{root}/store", "DLQ_DIR": f"{root}/dlq", **given}
    return loading.load(environ, env_file="")


class Parts:
    """The parts of one worker; its stages do not run."""

    def __init__(
        self, settings: Settings, page: SharedPage | None = None, slot: int = 1, threads: Any = None
    ) -> None:
        self.settings = settings
        self.page = page or metrics.page()
        self.counts = Metrics(self.page.rows[slot])
        self.ledger = Ledger(self.counts)
        self.threads = threads or Offload(2)
        self.dlq = DeadLetterQueue(settings.dlq_dir, Stores(settings).check)
        self.disk = Disk(self.dlq, self.threads)
        self.leader: Any = Leader(settings.dlq_dir)
        self.journals = Journals(settings.dlq_dir, settings.durability, self.counts)
        self.queue = SubmissionQueue(settings.channel_size, settings.queue_bytes, self.counts)
        #: The time by which the accounting is compared with the disk; a test lets it pass.
        self.now = 0.0

    @cached_property
    def stores(self) -> Any:
        return Stores(self.settings)

    @cached_property
    def admission(self) -> Any:
        return Admission(self.disk, self.page, self.counts, self.settings)

    @cached_property
    def accounts(self) -> Accounts:
        return Accounts(self.counts, self.ledger, self.admission, self.hours)

    @cached_property
    def hours(self) -> Hours:
        return Hours(self.settings, self.counts, self.threads)

    @cached_property
    def delivery(self) -> Delivery:
        settings = self.settings
        return Delivery(self.stores, settings.raw_bucket, settings.s3_timeout, self.counts)

    @cached_property
    def uploader(self) -> Uploader:
        return Uploader(self.delivery, self.journals, self.disk, self.accounts, self.settings)

    @cached_property
    def sealer(self) -> Any:
        return Sealer(self.uploader, self.journals, self.accounts, self.threads)

    @cached_property
    def collector(self) -> Collector:
        answers = Answers(self.delivery.breaker, self.counts, self.settings, self.queue.wake)
        return Collector(
            self.queue,
            self.journals,
            self.sealer,
            self.accounts,
            self.threads,
            self.settings,
            answers if self.settings.durability.stored else None,
        )

    @cached_property
    def reconciliation(self) -> Reconciliation:
        return Reconciliation(self.disk, self.ledger, self.page, lambda: self.now)

    def compare(self, seconds: float = 30) -> None:
        """Compare the accounting with the disk, at once and again and again for so long."""
        until = self.now + seconds
        while self.now <= until:
            self.reconciliation.look(recovered=True)
            self.now += 1

    @property
    def counted(self) -> tuple[int, int, int]:
        """The DLQ's files, events and bytes by the accounting."""
        return ledger.in_dlq(self.page.used_rows())

    @cached_property
    def recovery(self) -> Recovery:
        return Recovery(
            self.disk, self.leader, self.reconciliation, self.delivery, self.accounts, self.settings
        )

    @cached_property
    def takeover(self) -> Takeover:
        return Takeover(self.disk, self.leader, self.accounts)

    @cached_property
    def closing(self) -> Closing:
        return Closing(
            self.disk, self.leader, self.delivery, self.accounts, self.settings, self.page
        )

    @cached_property
    def replayer(self) -> Replayer:
        return Replayer(self.disk, self.leader, self.delivery, self.accounts, self.settings)

    @property
    def terms(self) -> Terms:
        """The accounting of all processes of the page."""
        return ledger.terms(self.page)

    def spill(self, batch: Batch) -> None:
        """Accept a batch's events and write them to the DLQ."""
        self.ledger.accept(batch.events)
        parts = dlq_file.pack(batch, "put_failed", "")
        self.ledger.spill(batch.events, self.dlq.write(batch, parts))
