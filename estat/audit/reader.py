"""Reads a store for the audit: lists it, and takes the ids from many objects at a time.

Transient errors are tried again; what remains is raised as StoreError and ends
the audit, because an object that was not read proves nothing. An object that
was read and makes no sense is a finding, not an error.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from estat.audit import stored
from estat.audit.stored import Content, Fault
from estat.errors import ObjectRefused, StoreUnavailable
from estat.stores.store import BYTES, Store, full_jitter

T = TypeVar("T")
R = TypeVar("R")

#: Is told how much is done, of how much if that is known, and a text about it.
Progress = Callable[[int, int | None, Callable[[], str]], None]

_ATTEMPTS = 5
_BACKOFF_BASE_SECONDS = 0.2
#: Objects that are handed to the threads in one go, for each thread: enough to keep it busy.
_AT_ONCE = 100


class Reader:
    """Reads with ``threads`` requests at a time; ``deep`` trusts no metadata.

    With 0 threads the store is a directory: it is read in the calling thread, and what it tells
    as metadata comes from the lines. ``progress`` is told how much is done.
    """

    def __init__(
        self,
        store: Store,
        threads: int,
        *,
        deep: bool = False,
        progress: Progress = lambda *_: None,
    ) -> None:
        self.store = store
        self.deep = deep
        self.progress = progress
        self._threads = threads

    def listed(self, count: int, what: str) -> None:
        """Tell how many there are so far of what is listed."""
        self.progress(count, None, lambda: f"listing: {count:,} {what}")

    def keys(
        self,
        prefix: str,
        what: str = "objects",
        after: str = "",
        before: str = "\U0010ffff",
        most: int = sys.maxsize,
    ) -> list[str]:
        """List the keys below a prefix that lie between two, at most so many."""
        found: list[str] = []

        def go_on() -> None:
            keys = self.store.list(prefix, found[-1] if found else after)
            for key in islice(keys, most - len(found)):
                if key >= before:
                    return
                found.append(key)
                self.listed(len(found), what)

        attempt(go_on)
        return found

    def contents(self, keys: Iterable[str]) -> Iterator[Content]:
        """Yield what each object holds, in any order."""

        def look(key: str) -> Content:
            try:
                return attempt(lambda: self._look(key))
            except ObjectRefused as exc:
                return stored.damaged(key, str(exc))

        return self._each(look, keys)

    def read(self, keys: Iterable[str], parse: Callable[[str, bytes], R]) -> Iterator[R | Fault]:
        """Yield what ``parse`` makes of small objects, in any order; ValueError is a fault."""

        def look(key: str) -> R | Fault:
            try:
                return parse(key, attempt(lambda: self.store.get(key)))
            except (ObjectRefused, ValueError) as exc:
                return Fault(key, None, f"unreadable record: {exc}")

        return self._each(look, keys)

    def _look(self, key: str) -> Content:
        head = self.store.head(key)
        if head is None:
            return stored.damaged(key, "gone while the audit ran")
        # what earlier versions wrote names no length; it is believed, unless nothing is there
        if not self.deep and (head.whole or (BYTES not in head.metadata and head.size_bytes)):
            content = stored.from_metadata(key, head.metadata)
            if content:
                return content
        content = stored.from_body(key, self.store.get(key))
        content.differs = stored.differs_in_length(key, head)
        if self.deep and self._threads:
            content.differs += stored.differs_in_ids(content, head)
        return content

    def _each(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        if not self._threads:
            yield from map(work, items)
            return
        waiting = iter(items)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="audit") as pool:
            while group := list(islice(waiting, _AT_ONCE * self._threads)):
                yield from pool.map(work, group)


def attempt(work: Callable[[], R], attempts: int = _ATTEMPTS, cap_seconds: float = 5.0) -> R:
    """Do ``work``, again while the store is unavailable, so often at most. Raises StoreError."""
    for number in range(attempts - 1):
        try:
            return work()
        except StoreUnavailable:
            time.sleep(full_jitter(number, _BACKOFF_BASE_SECONDS, cap_seconds))
    return work()
