r"""Reads bodies in chunks as gunicorn does, but many small chunks at a time.

gunicorn's reader takes some microseconds for a chunk, however small it is, so a body in
chunks of one byte would cost a hundred times what it costs in one piece. Runs of small
chunks that are entirely regular are joined here first. All others are gunicorn's to read:

    5\r\n        hexadecimal digits, 255 at most, no extension
    hello\r\n

Of those others, most must not be small: extensions mean nothing here, and cost time.
"""

import re

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

#: What an other chunk must hold on average, and what may be lacking of that in all.
_OTHER_BYTES, _LACKING_BYTES = 64, 64 * 1024


def _digit(value: int) -> bytes:
    return b"[%x%X]" % (value, value)


def _small_chunk() -> bytes:
    """Return the pattern of one chunk, by its first digit and then its second."""
    alternatives = []
    for high in range(1, 16):
        longer = (b"%b\r\n.{%d}" % (_digit(low), 16 * high + low) for low in range(16))
        alternatives.append(b"%b(?:\r\n.{%d}|%b)" % (_digit(high), high, b"|".join(longer)))
    return b"(?s:0*+(?:%b)\r\n)" % b"|".join(alternatives)


_CHUNK = re.compile(_small_chunk())
_RUN = re.compile(b"(?:%b)*+" % _small_chunk())


class Chunks(ChunkedReader):
    """gunicorn's reader of one request's body, which takes a run of small chunks for one chunk."""

    def __init__(self, request: Request, unreader: Unreader) -> None:
        super().__init__(request, unreader)
        self._spare_bytes = _LACKING_BYTES

    def parse_chunk_size(
        self, unreader: Unreader, data: bytes | None = None
    ) -> tuple[int, bytes | None]:
        """Return the size of the next chunk and what has arrived of it and behind it.

        Raises gunicorn's errors about chunks.
        """
        run = _RUN.match(data or b"")
        if data and run and run.end():
            found = _CHUNK.findall(data, 0, run.end())
            body = b"".join([chunk[chunk.index(b"\n") + 1 : -2] for chunk in found])
            return len(body), b"%b\r\n%b" % (body, data[run.end() :])
        size, rest = super().parse_chunk_size(unreader, data)
        if data:  # else it came by itself, and reading took longer than this
            self._spare_bytes += size - _OTHER_BYTES
            if self._spare_bytes < 0:
                raise InvalidChunkSize(b"too many small chunks with extensions")
        return size, rest
