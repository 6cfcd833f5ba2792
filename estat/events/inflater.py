"""Inflates gzip bodies, never beyond a limit.

A rule without I/O. A bomb costs no more than a legal request: what comes out is
bounded before it is made, and one byte too many ends it with the rest unread.
Nothing is guessed: what is cut off, damaged or followed by other bytes is refused.
"""

from isal import isal_zlib

from estat.errors import Refused

#: Members of one body: each costs what some hundred bytes of data cost.
MAX_MEMBERS = 1000

_GZIP = 16 + isal_zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b"
_HEADER_BYTES, _FLAGS_AT, _LARGEST_FLAGS = 10, 3, 0x1F  # RFC 1952, 2.3.1

#: What is fed at a time: behind a member's end the inflater copies what is left of it.
_PIECE_BYTES = 16 * 1024


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Return what gzip bytes hold, all members joined. Raises Refused."""
    whole: list[bytes] = []
    room = max_bytes + 1
    fed = members = 0
    piece, inflater = b"", None
    while True:
        if not piece or (inflater is None and len(piece) < _HEADER_BYTES):
            more = data[fed : fed + _PIECE_BYTES]
            piece, fed = piece + more, fed + len(more)
        if inflater is None:
            if not piece:
                return b"".join(whole)
            members += 1
            inflater = _begin(piece, members)
        try:
            found = inflater.decompress(piece, room)
        except isal_zlib.error as exc:  # type: ignore[misc]
            raise Refused("invalid_gzip", f"damaged gzip: {exc}") from exc
        room -= len(found)
        if room <= 0:
            raise Refused("too_large", f"the body inflates to over {max_bytes} bytes")
        whole.append(found)
        if inflater.eof:
            piece, inflater = inflater.unused_data, None
        elif not (found or inflater.unconsumed_tail or fed < len(data)):
            raise Refused("invalid_gzip", "the gzip body is cut off")
        else:
            piece = inflater.unconsumed_tail


def _begin(data: bytes, number: int) -> "isal_zlib.Decompress":
    if not _MAGIC.startswith(data[:2]):
        raise Refused(
            "invalid_gzip", "the body is not gzip" if number == 1 else "bytes behind the gzip's end"
        )
    if len(data) > _FLAGS_AT and data[_FLAGS_AT] > _LARGEST_FLAGS:  # isal lets them pass
        raise Refused("invalid_gzip", "damaged gzip: unknown flags")
    if number > MAX_MEMBERS:
        raise Refused("too_large", f"the gzip body has over {MAX_MEMBERS} members")
    return isal_zlib.decompressobj(_GZIP)
