"""A stream: events that are numbered together, and the record that says that it has ended."""

import socket
import time
from dataclasses import dataclass, field

from estat.config.settings import Settings
from estat.events import ids, json_text
from estat.events.batch import Batch, crc32_of
from estat.events.gzip import gzip


@dataclass(slots=True)
class Stream:
    """What one process has numbered so far."""

    name: str
    started: float = field(default_factory=time.time)  # unix seconds
    events: int = 0
    batches: int = 0

    def record(self, settings: Settings) -> Batch:
        """Return the stream's record: it has ended cleanly, and this was its last id."""
        now = time.time()
        content = {
            "stream": self.name,
            "instance": settings.instance_id,
            "host": socket.gethostname(),
            "events": self.events,
            "last_id": f"{self.name}-{self.events}",
            "started": round(self.started, 3),
            "ended": round(now, 3),
        }
        payload = gzip(json_text.dump(content) + b"\n")
        name = f"{int(now)}_{settings.instance_id}-{self.name}_{self.batches + 1:06d}"
        return Batch(
            bucket=settings.raw_bucket,
            key=ids.record_key(settings.raw_prefix, self.name),
            name=name,
            stream=self.name,
            first=1,
            last=self.events,
            events=0,
            payload=payload,
            crc32=crc32_of(payload),
            opened=now,
        )
