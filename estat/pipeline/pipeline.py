"""The data path of one worker, put together: start, accept, drain.

    resource -> accept -> SubmissionQueue -> Collector -> Sealer -> Uploader -> Delivery -> store
                                       |                       |
                                    Journals                 Spill
                                       |                       |
                                    Recovery ---------------> DLQ -> Replayer -> Delivery -> store

The composition root: every part gets its collaborators here, and here alone.
A pipeline is made after fork, because its stream must be unlike any other.
"""

import errno
import logging
import socket
import time
from collections.abc import Callable

import gevent

from estat.accounting import ledger, metrics
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import SERVING, SharedPage
from estat.config.settings import Settings
from estat.disk.dlq import DeadLetterQueue
from estat.disk.journal import Journals
from estat.disk.leader import Leader
from estat.disk.server_directory import Lease
from estat.errors import DiskError, Refused, StoreError
from estat.events import ids, stored_line
from estat.events.batch import Batch, crc32_of
from estat.events.gzip import gzip
from estat.pipeline.admission import Admission, DiskWatch
from estat.pipeline.batcher import Batcher
from estat.pipeline.breaker import Breaker
from estat.pipeline.collector import Collector, Stream
from estat.pipeline.delivery import Delivery
from estat.pipeline.handover import Handover
from estat.pipeline.queue import Submission, SubmissionQueue
from estat.pipeline.reconcile import Reconciliation
from estat.pipeline.recovery import Recovery
from estat.pipeline.replayer import Replayer
from estat.pipeline.sealer import Sealer
from estat.pipeline.spill import Spill
from estat.pipeline.takeover import Takeover
from estat.pipeline.uploader import Uploader
from estat.stores import Stores
from estat.threads import Offload

log = logging.getLogger(__name__)

_ENCODER_THREADS = 2  # the open batch, and the one that is being sealed
_DISK_THREADS = 4

#: What the last steps of a drain may take beyond the last upload: the stream's record.
_RECORD_SECONDS = 0.5


class Pipeline:
    """Everything between an accepted request and its object, in one worker."""

    def __init__(self, settings: Settings, page: SharedPage, slot: int) -> None:
        self.settings = settings
        self.page = page
        self.counts = Metrics(page.rows[slot])
        self.broken: str | None = None
        self.on_broken: Callable[[], object] = lambda: None
        self.on_taken_over: Callable[[], object] = lambda: None
        self._ledger = ledger.Ledger(self.counts)
        self._stores = Stores(settings)
        self._breaker = Breaker(self.counts)
        disk = Offload(_DISK_THREADS)
        dlq = DeadLetterQueue(settings.dlq_dir)
        self._admission = Admission(
            dlq,
            page,
            self.counts,
            disk,
            settings.dlq_max_size_bytes,
            settings.dlq_overflow == "drop_oldest",
        )
        self._submissions = SubmissionQueue(
            settings.channel_size, settings.queue_bytes, self.counts
        )
        self._delivery = Delivery(
            self._stores, settings.raw_bucket, settings.s3_timeout, self.counts, self._breaker
        )
        self._lease = Lease(settings.dlq_dir) if settings.dlq_shared else None
        may_write = self._lease.check if self._lease else lambda: None
        self._journals = Journals(settings.dlq_dir, settings.durability, self.counts, may_write)
        self._spill = Spill(dlq, self._journals, self._admission, self._ledger, disk, may_write)
        self._uploader = Uploader(
            self._delivery,
            self._breaker,
            self._spill,
            self._journals,
            self._ledger,
            self._admission,
            disk,
            self.counts,
            settings,
        )
        encoder = Offload(_ENCODER_THREADS)
        self._sealer = Sealer(self._uploader, self._journals, self._admission, encoder, self.counts)
        self._journaled = settings.durability.journaled
        self._collector = Collector(
            self._submissions,
            Batcher(settings.batch_size, settings.batch_bytes, settings.flush_interval),
            self._journals,
            self._sealer,
            self._ledger,
            self._admission,
            encoder,
            settings,
        )
        self._journals.on_lost = self._collector.flush
        self._leader = Leader(settings.dlq_dir)
        reconciliation = Reconciliation(dlq, self._ledger, page, disk)
        self._replayer = Replayer(
            dlq,
            self._leader,
            reconciliation,
            self._delivery,
            self._breaker,
            self._ledger,
            self._admission,
            self.counts,
            disk,
            settings,
        )
        recovering = Offload(1)
        self._recovery = Recovery(
            dlq,
            self._leader,
            self._ledger,
            reconciliation,
            page,
            self._admission,
            self.counts,
            recovering,
            settings,
        )
        self._takeover = Takeover(
            settings.dlq_dir,
            self._leader,
            self._recovery,
            self._ledger,
            self._admission,
            recovering,
        )
        self._handover = Handover(
            dlq,
            self._delivery,
            self._ledger,
            self._leader,
            disk,
            self._stores,
            settings.fallback_bucket,
        )
        self._breaker.on_close(self._replayer.nudge)
        self._watch = DiskWatch(
            self._admission,
            self._renew,
            self._journals.mend,
            self._uploader.rescue,
            self._spill.make_room,
        )
        self._accepting = False
        self._collecting: gevent.Greenlet[[], None] | None = None
        self._retrying: gevent.Greenlet[[], None] | None = None
        self._recovering: list[gevent.Greenlet[[], None]] = []
        self._others: list[gevent.Greenlet[[], None]] = []

    def start(self) -> None:
        """Open the store and start every stage."""
        try:
            self._stores.get(self.settings.raw_bucket)
        except StoreError as exc:
            # without credentials, say: batches go to the DLQ until there are some
            log.error("store_not_opened", extra={"error": str(exc)})
        self._admission.refresh()
        self._collecting = self._spawn(self._collector.run)
        self._retrying = self._spawn(self._replayer.run)
        self._recovering = [self._spawn(self._recovery.run)]
        if self._lease:
            self._recovering.append(self._spawn(self._takeover.run))
        self._others = [self._spawn(self._watch.run), self._spawn(self._sealer.run)]
        self._others += [
            self._spawn(self._uploader.run) for _ in range(self.settings.upload_concurrency)
        ]
        self._accepting = True
        log.info("worker_started", extra={"stream": self._collector.streams[-1].name})

    def check_room(self) -> None:
        """Raise Refused if not a single event could be accepted: spares parsing a request."""
        if not self._accepting or self.broken:
            raise Refused("unavailable", "the server is starting or stopping")
        if self._journals.stalled:
            raise self._admission.refusal()
        if self._submissions.full_for(1, 1):
            gevent.sleep(0)  # as in accept
            self._submissions.check(1, 1)

    def accept(self, origin: bytes, bodies: list[bytes]) -> None:
        """Accept a request's events, all or none; return when they are kept as DURABILITY says.

        Raises Refused, and nothing is left behind.
        """
        if len(origin) * len(bodies) > self.settings.queue_bytes:
            # every line gets it: this would take memory before it is refused
            self._submissions.check(len(bodies), len(origin) * len(bodies))
        submission = Submission(origin, bodies)
        if self._submissions.full_for(len(bodies), submission.size_bytes):
            # busy connections may have run one after the other since the collector last did;
            # full means that it can't keep up, not that it had no turn
            gevent.sleep(0)
        # from here until they are queued nothing yields: what is checked holds
        if not self._accepting or self.broken:
            raise Refused("unavailable", "the server is starting or stopping")
        self._submissions.check(len(bodies), submission.size_bytes)
        self._admission.admit(submission.size_bytes)
        self._admission.expose(submission.size_bytes, files=1)
        if not self._journaled:
            self._ledger.accept(len(bodies))
        self._submissions.put(submission)
        if self._journaled:
            submission.wait()

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
            "s3_down": self._breaker.open,
        }
        return [name for name, holds in found.items() if holds]

    def flush(self) -> None:
        """Begin to empty the pipeline while the last requests are still being served."""
        self._collector.flush()

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
        journal, if it has one, where the next life finds it.
        """
        self._accepting = False
        self._replayer.end()
        self._recovery.end()
        self._takeover.end()
        self._collector.end()
        if not self._delivery.over:
            self._delivery.end_attempts(upload_until)
        if self._collecting:
            self._collecting.join(timeout=_left(deadline))
        self._sealer.join(_left(deadline))
        self._uploader.join(_left(deadline))
        for ending in (self._retrying, *self._recovering):
            if ending:
                ending.join(timeout=_left(deadline))
        if not self._pending():
            for stream in self._collector.streams:
                if stream.events:
                    self._record(stream, min(time.monotonic() + _RECORD_SECONDS, deadline))
        if last and self.settings.fallback_bucket:
            self._delivery.end_attempts(deadline)
            self._handover.run(deadline)
        self._leader.release()
        gevent.killall(self._others, timeout=0)
        self._journals.close()
        return 0 if self._journaled else self._pending()

    def _renew(self) -> None:
        """Prove that the shared directory is still ours, or end. Raises DiskError."""
        if not self._lease:
            return
        try:
            self._lease.renew()
        except DiskError as exc:
            if exc.errno == errno.ENOENT and not self.broken:
                self.broken = "taken over by another server"
                log.critical("directory_taken_over", extra={"directory": self.settings.dlq_dir})
                self.on_taken_over()
            raise

    def _pending(self) -> int:
        return self.counts.row.cells[metrics.PENDING]

    def _record(self, stream: Stream, until: float) -> None:
        """Write a stream's record: it has ended cleanly, and this was its last id."""
        last = stream.events
        content = {
            "stream": stream.name,
            "instance": self.settings.instance_id,
            "host": socket.gethostname(),
            "events": last,
            "last_id": f"{stream.name}-{last}",
            "started": round(stream.started, 3),
            "ended": round(time.time(), 3),
        }
        payload = gzip(stored_line.encode(content) + b"\n")
        name = f"{int(time.time())}_{self.settings.instance_id}-{stream.name}"
        record = Batch(
            bucket=self.settings.raw_bucket,
            key=ids.record_key(self.settings.raw_prefix, stream.name),
            name=f"{name}_{stream.batches + 1:06d}",
            stream=stream.name,
            first=1,
            last=last,
            events=0,
            payload=payload,
            crc32=crc32_of(payload),
            opened=time.time(),
        )
        self._admission.expose(len(payload), files=1)
        try:
            if self._breaker.open:
                raise StoreError("the store is down")
            self._delivery.end_attempts(until)
            self._delivery.attempt(record)
            self._admission.expose(-len(payload), files=-1)
        except StoreError as exc:
            try:
                self._spill.spill(record, "stream_record", str(exc))
            except DiskError as failure:
                # no event is lost with it; an audit will show the stream as open
                log.error("stream_record_lost", extra={"error": str(failure)})

    def _spawn(self, run: Callable[[], None]) -> "gevent.Greenlet[[], None]":
        greenlet = gevent.spawn(run)
        greenlet.link_exception(self._stage_died)
        return greenlet

    def _stage_died(self, greenlet: "gevent.Greenlet[[], None]") -> None:
        """Stop accepting and say so: a stage must never end by an error."""
        self.broken = str(greenlet)
        log.critical("stage_died", extra={"stage": self.broken, "error": repr(greenlet.exception)})
        self.on_broken()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
