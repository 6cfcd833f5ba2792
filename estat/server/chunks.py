r"""Reads bodies in chunks as gunicorn does, but many small chunks at a time.

gunicorn's reader takes some microseconds for a chunk, however small it is, so a body in
chunks of one byte would cost a hundred times what it costs in one piece. Runs of small
chunks that are entirely regular are joined here first. All others are gunicorn's to read:

    5\r\n        hexadecimal digits, under 64, no extension
    hello\r\n

Of those others, most must not be small: extensions mean nothing here, and cost time.
"""

import re

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

#: Chunks of fewer bytes are small. Of the others, and of those with extensions, each must hold as
#: many on average; so much may be lacking in all.
_SMALL_BYTES, _LACKING_BYTES = 64, 64 * 1024

_SIZES = b"|".join(b"%x\r\n.{%d}" % (size, size) for size in range(1, _SMALL_BYTES))
_CHUNK = re.compile(b"(?is:0*+(?:%b)\r\n)" % _SIZES)
_RUN = re.compile(b"(?:%b)*" % _CHUNK.pattern)


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
            self._spare_bytes += size - _SMALL_BYTES
            if self._spare_bytes < 0:
                raise InvalidChunkSize(b"too many small chunks with extensions")
        return size, rest
