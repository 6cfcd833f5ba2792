"""Hands over to FALLBACK_BUCKET what a stop has left in the DLQ.

By then everything is on disk, so nothing is at risk while this tries. The keys
stay the same. A batch whose PUT to RAW_BUCKET timed out but landed may end up in
both buckets; its ids are the same in both.
"""

import logging
import time
from dataclasses import replace

import gevent

from estat.accounting.ledger import Ledger
from estat.disk.dlq import EVER, EXPIRED, PENDING, Claim, DeadLetterQueue, Entry
from estat.disk.leader import Leader
from estat.errors import DiskError, ObjectRefused, StoreError
from estat.events.text import excerpt
from estat.log import Seldom
from estat.pipeline.delivery import Delivery
from estat.stores import Stores
from estat.threads import Offload

log = logging.getLogger(__name__)

_SHOWN_CHARS = 200
_OTHERS_SECONDS = 0.05  # between looks at what the other workers have left


class Handover:
    """The last step of a drain, done by whichever worker leads."""

    def __init__(
        self,
        dlq: DeadLetterQueue,
        delivery: Delivery,
        ledger: Ledger,
        leader: Leader,
        threads: Offload,
        stores: Stores,
        bucket: str,
    ) -> None:
        self._dlq = dlq
        self._delivery = delivery
        self._ledger = ledger
        self._leader = leader
        self._threads = threads
        self._stores = stores
        self._bucket = bucket
        self._skipped: set[str] = set()
        self._seldom = Seldom(log)

    def run(self, deadline: float) -> None:
        """Hand over until nothing is left, the bucket fails, or ``deadline`` has come."""
        try:
            while time.monotonic() < deadline:
                entries = self._entries()
                if not entries:
                    return
                if not self._leader.lead():
                    # the leader takes our files too; should it end before, we lead
                    gevent.sleep(_OTHERS_SECONDS)
                    continue
                if not self._hand_over(entries):
                    return
        except (DiskError, StoreError) as exc:
            # what is left stays on disk, where the next start finds it
            log.error("hand_over_ended", extra={"error": str(exc)})

    def _entries(self) -> list[Entry]:
        # a slot in the future is no reason to leave a file behind
        entries = [e for area in (PENDING, EXPIRED) for e in self._threads.run(self._scan, area)]
        return [entry for entry in entries if entry.name not in self._skipped]

    def _scan(self, area: str) -> list[Entry]:
        return self._dlq.scan(area, EVER).due

    def _hand_over(self, entries: list[Entry]) -> int:
        done = 0
        for entry in entries:
            try:
                claim = self._threads.run(self._dlq.claim, entry)
                if claim:
                    with claim:
                        self._hand_over_claimed(claim)
                    done += 1
            except ObjectRefused as exc:
                self._skip(entry, exc)
                done += 1
            except StoreError:
                raise
            except Exception as exc:  # noqa: BLE001 - one bad file stays one file, whatever is wrong
                self._skip(entry, exc)
                done += 1
        return done

    def _skip(self, entry: Entry, error: Exception) -> None:
        error_text = f"{type(error).__name__}: {error}"
        shown = excerpt(entry.name, _SHOWN_CHARS)
        self._seldom.warning("hand_over_skipped", "bad", file=shown, error=error_text)
        self._skipped.add(entry.name)

    def _hand_over_claimed(self, claim: Claim) -> None:
        batch = self._threads.run(claim.read)
        self._stores.check(batch.bucket)
        self._delivery.attempt(replace(batch, bucket=self._bucket), recovered=True)
        self._ledger.hand_over(claim.entry.events, claim.size_bytes)
        with self._ledger.removal(claim.entry.events, claim.size_bytes):
            self._threads.run(claim.remove)
