"""Keeps what was refused for its content, where a person can look at it: REJECTED_PREFIX.

    request -> keep -> at most a minute in memory, 1 MiB at most -> one object, one attempt

It is best effort, and no part of the accounting: its senders were told that it was refused, and
nothing of it is on disk. What can't be kept is counted and dropped. A minute has one object and
1 MiB of lines, so a worker writes at most 60 objects and 60 MiB (before gzip) an hour. A line:

    {"ts":1763800000.123,"reason":"invalid_json","description":"…","index":3,"write_key":"web",
     "ip":"203.0.113.7","bytes":5210,"text":"the first 4 KiB"}
"""

import logging
import time
from codecs import utf_8_decode

from gevent.event import Event

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.config.settings import Settings
from estat.errors import Refused
from estat.events import ids, json_text
from estat.events.batch import NDJSON
from estat.events.gzip import gzip
from estat.log import Seldom
from estat.pipeline.delivery import Delivery
from estat.threads import Offload

#: How long lines wait for their object. With ``MAX_BYTES`` it bounds what an hour can write.
_EVERY_SECONDS = 60.0

#: Lines that wait in memory take no more than this and one line, which has at most 25 KiB.
MAX_BYTES = 1024 * 1024

#: How much of a text is kept: enough to see what its sender does wrong.
TEXT_BYTES = 4096


class Rejections:
    """What waits to be written under REJECTED_PREFIX, and the loop that writes it."""

    def __init__(
        self, delivery: Delivery, settings: Settings, counts: Metrics, encoder: Offload
    ) -> None:
        self._delivery = delivery
        self._settings = settings
        self._counts = counts
        self._encoder = encoder
        self._stream = ids.new_stream()  # no object of another process has its name
        self._objects = 0
        self._lines: list[bytes] = []
        self._bytes = 0
        self._ending = Event()
        self._seldom = Seldom(logging.getLogger(__name__))

    def keep(self, refused: Refused, index: int | None, write_key: str | None, ip: str) -> None:
        """Keep a refusal with its text, if there is room.

        ``index`` is the event's in its request; None if that was refused as a whole.
        ``write_key`` is a key's name, and ``ip`` the address as IP_MODE stores it.
        """
        if self._bytes >= MAX_BYTES:
            self._counts.count(metrics.REJECTED_NOT_KEPT["limit"], 1)
            return
        source = refused.source or b""
        told: dict[str, object] = {
            "ts": round(time.time(), 3),
            "reason": refused.reason,
            "description": refused.description,
            "index": index,
            "write_key": write_key,
            "ip": ip,
            "bytes": len(source),
            "text": _beginning(source),
        }
        line = json_text.dump({name: value for name, value in told.items() if value is not None})
        self._lines.append(line + b"\n")
        self._bytes += len(line) + 1

    def run(self) -> None:
        """Write an object a minute until ``end``, and then the last one."""
        while not self._ending.wait(_EVERY_SECONDS):
            self.write()
        self.write()

    def end(self) -> None:
        """Make ``run`` write what is left, and return."""
        self._ending.set()

    def write(self) -> None:
        """Write what waits as one object, or count it as not kept."""
        lines, self._lines, self._bytes = self._lines, [], 0
        if not lines:
            return
        settings, now = self._settings, time.time()
        self._objects += 1
        partition = ids.partition(now, settings.partition_tz)
        name = (settings.instance_id, self._stream, self._objects)
        key = ids.object_key(settings.rejected_prefix, partition, now, *name)
        try:
            body = self._encoder.run(gzip, b"".join(lines))
            self._delivery.put_file(settings.raw_bucket, key, body, NDJSON)
        except Exception as exc:  # noqa: BLE001 - no event may suffer from it
            self._counts.count(metrics.REJECTED_NOT_KEPT["store"], len(lines))
            self._seldom.warning("rejected_not_kept", "store", error=str(exc), lines=len(lines))
        else:
            self._counts.count(metrics.REJECTED_KEPT, len(lines))


def _beginning(source: bytes) -> str:
    """Return the first 4 KiB of what was refused; what is not UTF-8 becomes U+FFFD."""
    is_whole = len(source) <= TEXT_BYTES
    # a character that is cut in two is left out
    return utf_8_decode(source[:TEXT_BYTES], "replace", is_whole)[0]
