"""What a store tells of an object without giving its content."""

from typing import NamedTuple

#: The metadata in which every PUT names the length of the object.
BYTES = "bytes"


class Head(NamedTuple):
    """One object, as HEAD describes it."""

    metadata: dict[str, str]  # names in lower case
    size_bytes: int  # -1 if the store does not tell
    etag: str  # as the store wrote it, quotes and all; empty if it names none

    @property
    def whole(self) -> bool:
        """Whether the object has the length that its metadata names.

        Of one that names none nothing is known: it must be read.
        """
        return self.metadata.get(BYTES) == str(self.size_bytes)
