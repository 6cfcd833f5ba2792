"""What an answer survives: the levels of DURABILITY, and what each asks of the parts."""

from enum import StrEnum


class Durability(StrEnum):
    """What an acknowledged event survives: each level adds something to the one before.

    ``STORED`` has the journal of ``JOURNAL``, not that of ``FSYNC``: what it adds is the store.
    """

    MEMORY = "memory"  # a failing store and a stop
    JOURNAL = "journal"  # the death of any process
    FSYNC = "fsync"  # a power failure
    STORED = "stored"  # the loss of the host and its disk

    @property
    def survives(self) -> str:
        """What an acknowledgement survives, in words."""
        return {
            Durability.MEMORY: "an S3 outage",
            Durability.JOURNAL: "an S3 outage and crashes",
            Durability.FSYNC: "an S3 outage, crashes and a power failure",
            Durability.STORED: "an S3 outage, crashes and the loss of this host",
        }[self]

    @property
    def journaled(self) -> bool:
        """Whether events are in a journal before they are acknowledged."""
        return self is not Durability.MEMORY

    @property
    def synced(self) -> bool:
        """Whether the journal is on the disk itself by then."""
        return self is Durability.FSYNC

    @property
    def stored(self) -> bool:
        """Whether a request waits for its batch to be in the store."""
        return self is Durability.STORED
