"""Compresses the lines of one batch, piece by piece.

isal at level 2 takes a third of zlib's time at its fastest, for a slightly
better ratio. The calls release the GIL; they belong in a thread, one after the
other.
"""

import time

from isal import isal_zlib

_LEVEL = 2
_GZIP = 16 + isal_zlib.MAX_WBITS


class Encoder:
    """One gzip stream."""

    def __init__(self) -> None:
        self.seconds = 0.0  # spent in here so far
        self._compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._pieces: list[bytes] = []

    def feed(self, lines: list[bytes]) -> None:
        """Compress some lines."""
        started = time.perf_counter()
        self._pieces.append(self._compressor.compress(b"".join(lines)))
        self.seconds += time.perf_counter() - started

    def finish(self, lines: list[bytes]) -> tuple[bytes, int]:
        """Compress the last lines; return the whole stream and its CRC-32."""
        self.feed(lines)
        started = time.perf_counter()
        self._pieces.append(self._compressor.flush())
        payload = b"".join(self._pieces)
        crc32 = isal_zlib.crc32(payload)
        self.seconds += time.perf_counter() - started
        return payload, crc32


def gzip(data: bytes) -> bytes:
    """Return ``data`` as one gzip member."""
    encoder = Encoder()
    return encoder.finish([data])[0]


def gunzip(data: bytes) -> bytes:
    """Return what gzip bytes hold. Raises ValueError if they are damaged or cut off."""
    rest, whole = data, []
    while rest:
        inflater = isal_zlib.decompressobj(_GZIP)
        try:
            whole.append(inflater.decompress(rest))
        except isal_zlib.error as exc:  # type: ignore[misc]
            raise ValueError(f"damaged gzip: {exc}") from exc
        if not inflater.eof:
            raise ValueError("gzip cut off")
        rest = inflater.unused_data
    return b"".join(whole)
