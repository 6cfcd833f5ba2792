"""The JSON Schema of EVENT_SCHEMA: which events are taken.

The validator is the optional package jsonschema-rs, imported here alone and only
where a schema is set. It never fetches anything, and its patterns are those whose
time is linear in the text: clients choose the text.
"""

import json
from typing import Any

from estat.text import shown

#: Characters of a reason: the place in the event, and what is wrong there.
_POINTER_CHARS, _MESSAGE_CHARS = 100, 200


class Mismatch(ValueError):
    """An event does not match the schema; the text tells where and why."""


class Schema:
    """A schema, read and compiled; ``str()`` is the name of its file."""

    def __init__(self, path: str) -> None:
        """Raise ValueError with the reason if the file holds no usable schema."""
        try:
            # an optional dependency, and 5 MB of memory
            import jsonschema_rs  # noqa: PLC0415
        except ImportError as exc:
            raise ValueError(
                "checking events needs the extra 'schema': pip install 'estat-ingest[schema]'"
            ) from exc
        self._path = path
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
        except OSError as exc:
            raise ValueError(f"it can't be read: {exc.strerror}") from exc
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"it is not JSON: {exc}") from exc
        try:
            validator = jsonschema_rs.validator_for(
                content,
                offline=True,
                mask="the value",
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except ValueError as exc:
            reason = shown(getattr(exc, "message", str(exc)), _MESSAGE_CHARS)
            place = _pointer(getattr(exc, "instance_path", []))
            raise ValueError(f"no JSON Schema that can be used; {place}{reason}") from exc
        self._validate = validator.validate

    def __str__(self) -> str:
        return self._path

    def check(self, value: Any) -> None:
        """Raise Mismatch unless an event is as the schema says."""
        try:
            self._validate(value)
        except ValueError as exc:
            # the message masks values, but names of the client's may be in it; what is nested
            # beyond 255 levels has none
            reason = shown(getattr(exc, "message", f"no match ({exc})"), _MESSAGE_CHARS)
            raise Mismatch(f"{_pointer(getattr(exc, 'instance_path', []))}{reason}") from exc


def _pointer(path: list[str | int]) -> str:
    """Return a JSON Pointer (RFC 6901) with a colon; nothing for the whole event."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    text = "".join(f"/{part}" for part in parts)
    return f"{shown(text, _POINTER_CHARS)}: " if text else ""
