"""What a request's WSGI environment says beyond PEP 3333, and how a header field is named in it.

The types of the environment and of what is called with it are the standard library's
(``wsgiref.types``).
"""

#: The path that takes events, and how the paths below it begin.
INTAKE = "/collect"

#: Header fields of an answer.
Fields = list[tuple[str, str]]

#: The type of nearly all answers.
JSON = ("content-type", "application/json")

#: The whole body, in bytes, where the fast loop has read it already; else it is not there.
BODY = "estat.body"

#: How much of a body that nobody wants may be read; ``unread_body`` says how much without it.
UNREAD_BYTES = "estat.unread_bytes"

#: The error of a request that was taken already; its answer is still to be written.
ERROR = "estat.error"

#: The digest of the write key that was in the query, if there was one.
QUERY_KEY = "estat.query_key"


def environ_key(name: str) -> str:
    """Return the key of a header field: HTTP_USER_AGENT for ``User-Agent``, say."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
