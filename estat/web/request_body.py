"""Reads a request's body, in time and within the limit, from either worker."""

import falcon
import gevent

from estat.errors import Refused
from estat.events.text import excerpt
from estat.web import unread_body

#: Bytes that must arrive within READ_TIMEOUT; a larger body gets it again for each of them.
_PIECE_BYTES = 64 * 1024

#: What is read of a body that is too large, so that its sender sees the answer.
_TOO_LARGE_BYTES = 8 * 1024 * 1024

_PLAIN_CODINGS, _GZIP_CODINGS = ("", "identity"), ("gzip", "x-gzip")


class _BodyTimeoutError(Exception):
    """The body did not arrive in time. No gevent.Timeout: gunicorn's chunked reader survives it."""


class RequestBody:
    """The reader of bodies of at most ``max_bytes``, each piece within ``read_seconds``."""

    def __init__(self, max_bytes: int, read_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._read_seconds = read_seconds

    def read(self, req: falcon.Request) -> bytes:
        """Return the bytes of a body as they came. Raises Refused."""
        body: bytes | None = req.env.get("estat.body")
        if body is not None:  # it is here, all of it
            if len(body) > self._max_bytes:
                raise self._too_large(req, f"{len(body)} bytes; at most")
            return body
        length = req.content_length
        if length is None:
            # chunked, or no body at all; one byte more than allowed tells too large
            body = self._read(req, self._max_bytes + 1)
            if len(body) > self._max_bytes:
                raise self._too_large(req, "over")
            return body
        if length > self._max_bytes:
            raise self._too_large(req, f"{length} bytes; at most")
        body = self._read(req, length)
        if len(body) < length:
            raise Refused("incomplete_body", f"{len(body)} bytes of {length} arrived")
        return body

    def _read(self, req: falcon.Request, size: int) -> bytes:
        """Read at most ``size`` bytes, each piece in time. Raises Refused."""
        pieces = []
        while size > 0:
            wanted = min(size, _PIECE_BYTES)
            try:
                with gevent.Timeout(self._read_seconds, _BodyTimeoutError):
                    piece: bytes = req.stream.read(wanted)
            except _BodyTimeoutError as exc:
                raise Refused(
                    "body_timeout", f"the body did not arrive within {self._read_seconds:g}s"
                ) from exc
            except Exception as exc:
                # what the server's reader raises on a body that is cut off or malformed
                # (chunks) has no common base
                raise Refused(
                    "incomplete_body", f"the body could not be read: {type(exc).__name__}"
                ) from exc
            pieces.append(piece)
            size -= len(piece)
            if len(piece) < wanted:
                break
        return b"".join(pieces)

    def _too_large(self, req: falcon.Request, found: str) -> Refused:
        """Return the refusal of a body, and let more of it be read than of what nobody wants."""
        req.env[unread_body.ALLOWED] = _TOO_LARGE_BYTES
        return Refused("too_large", f"the body has {found} {self._max_bytes}")


def is_gzip(req: falcon.Request) -> bool:
    """Tell whether a body is gzip, or as it is. Raises Refused for what is neither."""
    encoding = req.env.get("HTTP_CONTENT_ENCODING")
    if not encoding:
        return False
    name = encoding.strip().lower()
    if name in _PLAIN_CODINGS:
        return False
    if name not in _GZIP_CODINGS:
        raise Refused(
            "unsupported_encoding",
            f"{excerpt(encoding, 100)} is not supported; send gzip or nothing",
        )
    return True
