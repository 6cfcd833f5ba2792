"""Takes a request as one event of any text: EVENT_FORMAT=raw. A rule without I/O, as ``intake``."""

from estat.errors import Refused
from estat.events import json_text
from estat.events.parser import Events, check_size


class RawIntake:
    """Makes a JSON string of a request's body, or of its query, within the limit (bytes)."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes

    def read(self, body: bytes, content_type: str | None) -> Events:
        """Return the one event. Raises Refused with the reason.

        The text is not looked into, so no content type is wrong. What is not UTF-8 becomes
        U+FFFD.
        """
        del content_type
        if not body:
            raise Refused("empty_body", "the request has no event")
        check_size(body, self._max_event_bytes)
        return Events([json_text.dump(body.decode("utf-8", "replace"))], batch=False)

    def read_query(self, query: bytes) -> Events:
        """Return the one event that a query is, as it was sent. Raises Refused with the reason."""
        return self.read(query, None)
