"""Compresses the lines of one batch, piece by piece.

isal at level 2 takes a third of zlib's time at its fastest, for a slightly
better ratio. The calls release the GIL; they belong in a thread, one after the
other.
"""

import time
import zlib
from collections.abc import Iterator

from isal import isal_zlib

_LEVEL = 2
_GZIP = 16 + isal_zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"

# What is fed at a time where the end may be damaged: what one call yields is lost if it fails.
_PIECE_BYTES = 16 * 1024


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
    if not data:
        raise ValueError("gzip cut off")
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


def is_gzip(data: bytes) -> bool:
    """Tell whether bytes begin as gzip does."""
    return data.startswith(_MAGIC)


def gunzip_damaged(data: bytes) -> bytes:
    """Return what gzip bytes hold up to where they are cut off or damaged, to the last byte.

    Zeros at the end are taken for what a disk never wrote. Where anything else stands behind
    a cut, the last line may be made up of it in part.
    """
    whole = []
    data = data.rstrip(b"\0")
    while data:
        inflater = zlib.decompressobj(_GZIP)
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            before = inflater.copy()
            try:
                whole.append(inflater.decompress(piece))
            except zlib.error:
                whole += _to_the_last_byte(before, piece)
                return b"".join(whole)
            if inflater.eof:
                break
        data = inflater.unused_data + data[start + _PIECE_BYTES :]
    return b"".join(whole)


def _to_the_last_byte(inflater: "zlib._Decompress", damaged: bytes) -> Iterator[bytes]:
    for at in range(len(damaged)):
        fed = damaged[at : at + 1]
        while True:
            try:
                found = inflater.decompress(fed, 1)
            except zlib.error:
                return
            if not found:
                break
            yield found
            fed = inflater.unconsumed_tail
