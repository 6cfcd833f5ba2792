"""The data path of one worker, put together: start, accept, drain.

    resource -> accept -> SubmissionQueue -> Collector -> Sealer -> Uploader -> Delivery -> store
                                       |                       |
                                    Journals                 Spill
                                       |                       |
                                    Recovery ---------------> DLQ -> Replayer -> Delivery -> store

Every part gets its collaborators here, and here alone.
A pipeline is made after fork, because its stream must be unlike any other.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import gevent

from estat.accounting import metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import SERVING, SharedPage
from estat.config.settings import Settings
from estat.disk.dlq import DeadLetterQueue
from estat.disk.journal import Journals
from estat.disk.leader import Leader
from estat.disk.server_directory import ServerDirectory
from estat.errors import Refused, StoreError
from estat.pipeline.admission import Accounts, Admission, Disk
from estat.pipeline.answers import Answers
from estat.pipeline.closing import Closing
from estat.pipeline.collector import Collector
from estat.pipeline.delivery import Delivery
from estat.pipeline.hours import Hours
from estat.pipeline.leader_loop import LeaderLoop
from estat.pipeline.lease import Lease
from estat.pipeline.queue import Submission, SubmissionQueue
from estat.pipeline.reconcile import Reconciliation
from estat.pipeline.recovery import Recovery
from estat.pipeline.rejections import Rejections
from estat.pipeline.replayer import Replayer
from estat.pipeline.sealer import Sealer
from estat.pipeline.takeover import Takeover
from estat.pipeline.uploader import Uploader
from estat.stores import Stores
from estat.threads import Offload

log = logging.getLogger(__name__)

Stage: TypeAlias = "gevent.Greenlet[..., None]"

_ENCODER_THREADS = 2  # the open batch, and the one that is being sealed
_DISK_THREADS = 4

#: What the last steps of a drain may take beyond the last upload: the stream's record.
_RECORD_SECONDS = 0.5


class Pipeline:
    """Everything between an accepted request and its object, in one worker.

    ``settings.dlq_dir`` is the path of the server's own ``directory``, if it has one.
    """

    def __init__(
        self, settings: Settings, page: SharedPage, slot: int, directory: ServerDirectory | None
    ) -> None:
        self.settings = settings
        self.page = page
        self.counts = Metrics(page.rows[slot])
        self.broken: str | None = None
        self.on_broken: Callable[[], object] = lambda: None
        self.rejections: Rejections | None = None  # without REJECTED_PREFIX
        self._accepting = False
        self._journaled = settings.durability.journaled
        self._stored = settings.durability.stored
        self._collecting: list[Stage] = []  # each ends by itself when it is told to
        self._leading: list[Stage] = []
        self._endless: list[Stage] = []
        # of an attempt, half is left for the request itself
        self._stores = Stores(settings, wait_seconds=settings.s3_timeout / 2)
        self._lease = lease = Lease(directory, settings.dlq_dir, page)
        lease.on_over = self._break
        dlq = DeadLetterQueue(settings.dlq_dir, self._stores.check)
        disk = Disk(dlq, Offload(_DISK_THREADS))
        self._admission = Admission(disk, page, self.counts, settings, lease.renew)
        self._ledger = Ledger(self.counts)
        self._hours = Hours(settings, self.counts)
        accounts = Accounts(self.counts, self._ledger, self._admission, self._hours)
        self._build_way_in(disk, accounts)
        self._build_way_back(disk, accounts)

    def _build_way_in(self, disk: Disk, accounts: Accounts) -> None:
        """Put together what takes events from a request to the store, or to the DLQ.

        From the end to the beginning, for a stage is given the one that comes after it.
        """
        settings, counts, lease = self.settings, self.counts, self._lease
        encoder = Offload(_ENCODER_THREADS)
        self._journals = Journals(settings.dlq_dir, settings.durability, counts, lease.check)
        self._delivery = Delivery(self._stores, settings.raw_bucket, settings.s3_timeout, counts)
        self._delivery.on_stored = self._hours.stored
        self._breaker = self._delivery.breaker
        self._submissions = SubmissionQueue(settings.channel_size, settings.queue_bytes, counts)
        self._uploader = Uploader(self._delivery, self._journals, disk, accounts, settings)
        self._uploader.may_be_stored = lambda: lease.gone
        self._sealer = Sealer(self._uploader, self._journals, accounts, encoder)
        self._answers = Answers(self._breaker, counts, settings, self._submissions.wake)
        self._breaker.on_open = partial(self._answers.settle_all, "breaker_open")
        answers = self._answers if self._stored else None
        self._collector = Collector(
            self._submissions, self._journals, self._sealer, accounts, encoder, settings, answers
        )
        self._journals.on_lost = self._collector.flush
        if settings.rejected_prefix:
            self.rejections = Rejections(self._delivery, settings, counts, encoder)

    def _build_way_back(self, disk: Disk, accounts: Accounts) -> None:
        """Put together what one worker does for all: it brings what lies on disk to the store."""
        settings, page, delivery = self.settings, self.page, self._delivery
        self._leader = leader = Leader(settings.dlq_dir, self._lease.check)
        self._replayer = replayer = Replayer(disk, leader, delivery, accounts, settings)
        delivery.breaker.on_close = self._end_outage
        own_thread = Disk(disk.dlq, Offload(1))
        found = Reconciliation(own_thread, accounts.ledger, page)
        recovery = Recovery(own_thread, leader, found, delivery, accounts, settings)
        takeover = Takeover(own_thread, leader, accounts)
        self._closing = Closing(own_thread, leader, delivery, accounts, settings, page)
        self._leader_loops: list[LeaderLoop] = [replayer, recovery, takeover, self._closing]

    def start(self) -> None:
        """Open the store and start every stage; nothing here waits for the network."""
        self._stores.start(self._breaker.credentials_came)
        try:
            self._stores.get(self.settings.raw_bucket)
        except StoreError as exc:
            # batches go to the DLQ until it can be opened
            log.error("store_not_opened", extra={"error": str(exc)})
        self._admission.refresh()
        uploader, uploads = self._uploader, self.settings.upload_concurrency
        self._collecting = [self._spawn(self._collector.run)]
        self._leading = [self._spawn(loop.run) for loop in self._leader_loops]
        if self.rejections:
            self._leading.append(self._spawn(self.rejections.run))
        self._endless = [
            self._spawn(
                self._admission.watch,
                self._journals.mend,
                uploader.resume,
                uploader.spill.make_room,
                self._hours.write,
            ),
            self._spawn(self._sealer.run),
            *(self._spawn(uploader.run) for _ in range(uploads)),
        ]
        self._accepting = True
        self.counts.set(metrics.BEGINS_BATCHES, 1)
        log.info("worker_started", extra={"stream": self._collector.streams[-1].name})

    def check_room(self) -> None:
        """Raise Refused if not a single event could be accepted: spares parsing a request."""
        self._check_accepting()
        if self._journals.stalled:
            raise self._admission.refusal()
        if self._submissions.full_for(1, 1):
            gevent.sleep(0)  # give the collector a turn before refusing
            self._submissions.check(1, 1)

    def accept(self, origin: bytes, bodies: list[bytes]) -> Submission:
        """Accept a request's events, all or none; return when they are kept as DURABILITY says.

        What comes back tells where they are and, with RECEIPTS, the id of the first one. It may
        take long, so ``bodies`` are taken over: none are left in the list. Raises Refused, and
        nothing is left behind.
        """
        submission = Submission(origin, bodies)
        if self._submissions.full_for(submission.events, submission.size_bytes):
            # give the collector a turn before refusing: connections that were busy may have run
            # one after the other since it last had one, and it may be waiting for more
            self._submissions.wake()
            gevent.sleep(0)
            self._submissions.check(submission.events, submission.size_bytes)
        # from here until they are queued nothing yields: what was checked holds
        self._check_accepting()
        self._admission.admit(submission.size_bytes)
        self._admission.expose(submission.size_bytes, files=1)
        if not self._journaled:
            self._ledger.accept(submission.events)
        self._submissions.put(submission)
        if self._journaled:
            submission.wait()
        return submission

    def _check_accepting(self) -> None:
        if not self._accepting or self.broken:
            raise Refused("unavailable", "the server is starting or stopping")
        if self.settings.stored_strict and self._breaker.seconds_to_probe:
            raise Refused("store_down", "the store is down, and nothing is kept on disk alone")

    @property
    def ready(self) -> bool:
        """Whether a balancer should send requests here."""
        return self._accepting and self.page.state == SERVING and not self.broken

    def problems(self) -> list[str]:
        """Name what is wrong while the server goes on serving."""
        found = {
            "queue_full": self._submissions.full,
            "dlq_full": self._admission.full,
            "disk_error": self._admission.failing or self._journals.stalled,
            "s3_down": self._breaker.open and not self._breaker.lacks_credentials,
            "credentials": self._stores.lack_credentials,
        }
        return [name for name, holds in found.items() if holds]

    def flush(self) -> None:
        """Begin to empty the pipeline while the last requests are still being served."""
        self._answers.hurry()
        self._collector.flush()

    def answer_waiting(self) -> bool:
        """Let no request wait for the store any more; tell whether there were any that did."""
        return self._answers.stop()

    def relieve(self) -> None:
        """Answer the requests that wait for the store, for their connections are needed."""
        self._answers.settle_all("connections_used_up")

    def hurry(self) -> None:
        """Make no further attempt to upload: what is left goes to disk at once."""
        self._delivery.end_attempts(time.monotonic())

    def drain(self, upload_until: float, deadline: float, *, last: bool) -> int:
        """Empty the pipeline; return how many events are left in memory alone.

        Uploads go on until ``upload_until``, then what is left is written to the
        DLQ, until ``deadline`` (both ``time.monotonic``). If the whole server ends in
        order (``last``), FALLBACK_BUCKET takes what lies there. The order matters: no
        more events come in, the collector seals the last batch, the uploaders
        empty their queue, and only then is the number of the last event known to
        be final and the stream's record written. What could go nowhere stays in its
        journal, if it has one, where the next run finds it.
        """
        self._accepting = False
        for loop in self._leader_loops:
            loop.end()
        if self.rejections:
            self.rejections.end()
        self._collector.end()
        if not self._delivery.over:
            self._delivery.end_attempts(upload_until)
        gevent.joinall(self._collecting, timeout=_left(deadline))
        self._sealer.join(_left(deadline))
        self._uploader.join(_left(deadline))
        gevent.joinall(self._leading, timeout=_left(deadline))
        if not self._pending():
            self._upload_records(deadline)
        if last and self.settings.fallback_bucket:
            self._delivery.end_attempts(deadline)
            self._replayer.hand_over(self.settings.fallback_bucket, deadline)
        self._closing.finish(deadline, last=last)
        self._leader.release()
        gevent.killall(self._endless, timeout=0)
        self._journals.close()
        self._stores.close()
        return 0 if self._journaled else self._pending()

    def _end_outage(self) -> None:
        """Let what an outage has delayed go on."""
        self._replayer.nudge()
        if self._stored:
            self._collector.flush()  # its batch was to wait for the next probe

    def _upload_records(self, deadline: float) -> None:
        """Store each stream's record: no more events come, and this was the last id."""
        for stream in self._collector.streams:
            if stream.events:
                until = min(time.monotonic() + _RECORD_SECONDS, deadline)
                self._uploader.upload_record(stream.record(self.settings), until)

    def _pending(self) -> int:
        return self.counts.row.cells[metrics.PENDING]

    def _spawn(self, run: Callable[..., None], *args: object) -> Stage:
        greenlet = gevent.spawn(run, *args)
        greenlet.link_exception(self._stage_died)
        return greenlet

    def _stage_died(self, greenlet: Stage) -> None:
        """Stop accepting and say so: a stage must never end by an error."""
        facts = {"stage": str(greenlet), "error": repr(greenlet.exception)}
        log.critical("stage_died", extra=facts)
        self._break(str(greenlet))

    def _break(self, reason: str) -> None:
        """Accept nothing more, and have the worker replaced."""
        if not self.broken:
            self.broken = reason
            self.on_broken()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
