"""Looks into the store, past the server, at the moment at which an answer says what is there."""

import gzip
import threading
import zlib
from collections import defaultdict

from tests.support.faulty_s3 import FaultyS3
from tests.support.lines import parse_lines
from tests.support.s3 import Bucket


class Witness:
    """Whether events are in a bucket whose PUTs pass through a faulty S3.

    Objects are read from the bucket itself. The faulty S3 only tells in which ones to look.
    """

    def __init__(self, s3: FaultyS3, bucket: Bucket) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._lock = threading.Lock()
        self._read = 0  # of the PUTs
        self._keys: dict[str, set[str]] = defaultdict(set)  # by the name of an event
        self._there: set[str] = set()
        #: Events that were not there when they should have been.
        self.missing: list[str] = []
        #: How many it has looked for.
        self.events = 0

    def look(self, names: list[str]) -> None:
        """Look now whether these events are stored."""
        with self._lock:
            self._find_keys()
            for name in names:
                if name not in self._there:
                    self._look_at(self._keys[name])
            self.missing += [name for name in names if name not in self._there]
            self.events += len(names)

    def _find_keys(self) -> None:
        puts = self._s3.attempts()
        for put in puts[self._read :]:
            for line in put.lines:
                self._keys[line["body"]["n"]].add(put.key)
        self._read = len(puts)

    def _look_at(self, keys: set[str]) -> None:
        present = self._bucket.bodies(keys)
        for body in present:
            try:
                lines = parse_lines(gzip.decompress(body))
            except (EOFError, OSError, zlib.error):
                continue  # a part of an object, which a reader could not read
            self._there.update(line["body"]["n"] for line in lines)
