"""Hands over to FALLBACK_BUCKET what a stop has left in the DLQ.

By then everything is on disk, so nothing is at risk while this tries. The keys
stay the same. A batch whose PUT to RAW_BUCKET timed out but landed may end up in
both buckets; its ids are the same in both.
"""

import logging
import time
from dataclasses import replace

import gevent

from estat.disk.dlq import Claim, Entry
from estat.disk.leader import Leader
from estat.errors import DiskError, NotOurs, ObjectRefused, StoreError
from estat.events.closed_hour import HANDED_OVER
from estat.log import Seldom
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.delivery import Delivery
from estat.stores import Stores

log = logging.getLogger(__name__)

_OTHERS_SECONDS = 0.05  # between looks at what the other workers have left


class Handover:
    """The last step of a drain, done by whichever worker leads."""

    def __init__(
        self, disk: Disk, leader: Leader, stores: Stores, delivery: Delivery, accounts: Accounts
    ) -> None:
        self._disk = disk
        self._leader = leader
        self._stores = stores
        self._delivery = delivery
        _, self._ledger, _, self._hours = accounts
        self._seldom = Seldom(log)

    def run(self, bucket: str, deadline: float) -> None:
        """Hand over until nothing is left, the bucket fails, or ``deadline`` has come."""
        try:
            while time.monotonic() < deadline:
                # a slot in the future is no reason to leave a file behind
                entries = self._disk.run(self._disk.dlq.waiting)
                if not entries:
                    return
                if not self._leader.lead():
                    # the leader takes our files too; should it end before, we lead
                    gevent.sleep(_OTHERS_SECONDS)
                    continue
                if not self._hand_over(entries, bucket):
                    return
        except (DiskError, StoreError) as exc:
            # what is left stays on disk, where the next start finds it
            log.error("hand_over_ended", extra={"error": str(exc)})

    def _hand_over(self, entries: list[Entry], bucket: str) -> int:
        """Hand over each file in turn; return how many nobody else was sending."""
        done = 0
        for entry in entries:
            try:
                claim = self._disk.run(self._disk.dlq.claim, entry)
                if claim is None:
                    continue
                with claim:
                    self._hand_over_claimed(claim, bucket)
            except Exception as exc:
                if isinstance(exc, StoreError) and not isinstance(exc, ObjectRefused):
                    raise
                # one bad file stays one file, whatever is wrong
                text = f"{type(exc).__name__}: {exc}"
                self._seldom.warning("hand_over_skipped", "bad", file=entry.name, error=text)
                # nobody in this process looks at it any more
                self._disk.dlq.aside[entry.path] = NotOurs.reason
            done += 1
        return done

    def _hand_over_claimed(self, claim: Claim, bucket: str) -> None:
        batch = self._disk.run(claim.read)
        self._stores.check(batch.bucket)
        self._delivery.attempt(replace(batch, bucket=bucket), recovered=True)
        self._hours.note(batch, HANDED_OVER)
        self._ledger.hand_over(claim.entry.events, claim.size_bytes)
        self._disk.remove(claim, self._ledger)
