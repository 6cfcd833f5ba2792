"""Every error of the server; the class is the decision.

``Refused`` answers a request with an error. The ``Store…`` errors tell the
uploader and the replayer what to do with a batch. ``DiskError`` stops admission.
``Unreadable`` sends a file to quarantine, ``NotOurs`` leaves it where it is, set aside.
``SettingsError`` ends the start.
"""

import errno
from typing import NamedTuple


class EstatError(Exception):
    """Base of all errors raised by this package."""


class SettingsError(EstatError):
    """One or more settings can't be used; ``problems`` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Refusal(NamedTuple):
    """How one reason for a refusal is answered."""

    status: int
    title: str
    retry_after_seconds: int | None = None


#: The one mapping from a reason, which is also the metric's label, to its HTTP answer.
REFUSALS = {
    "empty_body": Refusal(400, "Empty body"),
    "invalid_json": Refusal(400, "Invalid JSON"),
    "not_an_object": Refusal(400, "Not a JSON object"),
    "no_valid_event": Refusal(400, "No valid event"),
    "schema_mismatch": Refusal(400, "Not as the schema says"),
    "invalid_form": Refusal(400, "Invalid form"),
    "invalid_gzip": Refusal(400, "Invalid gzip"),
    "incomplete_body": Refusal(400, "Incomplete body"),
    "unauthorized": Refusal(401, "No valid write key"),
    "forbidden_origin": Refusal(403, "Origin not allowed"),
    "body_timeout": Refusal(408, "Request body not received in time"),
    "too_large": Refusal(413, "Too large"),
    "too_many_events": Refusal(413, "Too many events"),
    "too_many_fields": Refusal(413, "Too many fields"),
    "unsupported_type": Refusal(415, "Unsupported content type"),
    "unsupported_encoding": Refusal(415, "Unsupported content encoding"),
    "queue_full": Refusal(503, "Queue full", 1),
    "dlq_full": Refusal(503, "Dead letter queue full", 10),
    "disk_error": Refusal(503, "Disk failing", 5),
    "store_down": Refusal(503, "Store down", 5),
    "unavailable": Refusal(503, "Starting or stopping", 1),
    "internal_error": Refusal(503, "Internal error", 5),
}


class Refused(EstatError):
    """A request is refused and leaves nothing behind.

    ``reason`` is a key of ``REFUSALS``; ``description`` tells the client why. ``source`` is the
    content that was refused; None where the content is not why.
    """

    def __init__(self, reason: str, description: str, source: bytes | None = None) -> None:
        super().__init__(f"{reason}: {description}")
        self.reason = reason
        self.description = description
        self.source = source


#: The operation of a StoreError that comes of assuming S3_ROLE_ARN; a profile's is "AssumeRole".
ASSUME_ROLE = "AssumeRole of S3_ROLE_ARN"

#: The code of a StoreError that says: the store answered a PUT with 2xx, and did not store.
UNPROVEN = "Unproven"

#: The code of a StoreError that says: no name server knows the host.
NO_NAME = "NameResolutionError"

#: What the store itself is asked.
_OF_OBJECTS = {"HeadObject", "GetObject", "PutObject"}


class StoreError(EstatError):
    """An object was not stored by this attempt.

    ``operation`` is what the store was asked, ``code`` its own name of the reason, or
    the class of what the S3 client raised without an answer; empty where neither is known.
    """

    def __init__(self, text: str, operation: str = "", code: str = "") -> None:
        super().__init__(text)
        self.operation = operation
        self.code = code

    @property
    def is_answer(self) -> bool:
        """Whether the store said so; else it was not asked: STS gave no credentials, say."""
        return self.operation in _OF_OBJECTS


class StoreUnavailable(StoreError):
    """The store did not answer, or asked to wait: another attempt soon may work."""


class ObjectDamaged(StoreUnavailable):
    """The store says that it holds other bytes than those that it was sent.

    What its metadata says proves nothing then: it has to be read.
    """


class StoreDenied(StoreError):
    """The store answered for good (403, no such bucket): another attempt now is pointless."""


class NoCredentials(StoreDenied):
    """There is nothing to sign a request with: the store was not asked.

    ``is_busy``: the source of credentials did not answer, or asked to wait.
    """

    def __init__(
        self, text: str, operation: str = "", code: str = "", *, is_busy: bool = False
    ) -> None:
        super().__init__(text, operation, code)
        self.is_busy = is_busy


class ObjectRefused(StoreError):
    """The store refused this object (400); that alone says nothing about any other."""


class ObjectExists(StoreError):
    """The key is taken (412): its metadata tells whether by this very batch."""


class DiskError(EstatError):
    """A file operation on the DLQ directory failed."""

    def __init__(self, operation: str, path: str, cause: OSError) -> None:
        super().__init__(f"{operation} {path}: {cause.strerror or cause}")
        self.path = path
        self.errno = cause.errno

    @property
    def no_space(self) -> bool:
        """Whether the disk, or its quota, is full."""
        return self.errno in (errno.ENOSPC, errno.EDQUOT)


class Unreadable(EstatError):
    """A file's content can't be trusted."""


class NotOurs(Unreadable):
    """A file says what this server never writes: it is not obeyed, and stays where it is.

    Damage does not look like this: somebody wrote it on purpose. So the file is neither sent nor
    moved to quarantine.
    ``reason`` is a key of SET_ASIDE, and ``events`` are those that can be counted in a journal.
    """

    reason = "not_ours"
    events = 0


class LaterVersion(NotOurs):
    """A file has the format of a later version, which alone knows what it says."""

    reason = "later_version"
