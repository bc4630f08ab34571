"""The compressed form of a frame's payload: plain length and checksum of the plain bytes, then one Snappy block.

A Snappy block is also an S2 block: ``jetstore/node/backup/s2.py`` reads it without the library. Nothing is allocated
before lengths were compared: the header's, the block's own, what a block of this length can hold, and a fixed bound.

Source: ``docs/format/segment.md``, "Compressed frames"; the Snappy format description.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from jetstore.errors import Corruption
from jetstore.hot.crc import crc32c
from jetstore.limits import COMPRESSED_FRAME_BYTES_MAX

_HEAD = Struct("<II")
"""Plain length, crc32c of the plain bytes."""
_EXPANSION_MAX = 22
"""No operation of a block gives more bytes than this for each of its own (a copy: 64 for 3)."""
_WORTH_BYTES = 64
"""A shorter payload is not tried: what it could save is less than what the form costs."""


def _library() -> Any:
    """Loaded when the first frame needs it: most nodes never do."""
    import cramjam

    return cramjam


def compressed(plain: bytes) -> bytes | None:
    """The compressed form of a payload, the same for the same bytes; None if it would not be smaller."""
    size = len(plain)
    if not _WORTH_BYTES <= size <= COMPRESSED_FRAME_BYTES_MAX:
        return None
    block = _library().snappy.compress_raw(plain)
    if _HEAD.size + len(block) >= size:
        return None
    return b"%b%b" % (_HEAD.pack(size, crc32c(plain)), block)


def expanded(payload: bytes) -> bytes:
    """The plain payload. The stored one was verified. ``Corruption`` (file "frame") for a form that nobody wrote."""
    if len(payload) <= _HEAD.size:
        raise Corruption("compressed frame cut short", file="frame", offset=0, actual=len(payload))
    size, crc = _HEAD.unpack_from(payload)
    block = memoryview(payload)[_HEAD.size :]
    most = min(COMPRESSED_FRAME_BYTES_MAX, _EXPANSION_MAX * len(block))
    if size > most or _length(block) != size:
        raise Corruption("length of a compressed frame", file="frame", offset=0, expected=most, actual=size)
    library = _library()
    plain = bytearray(size)
    try:
        made = library.snappy.decompress_raw_into(block, plain)
    except library.DecompressionError as error:
        raise Corruption(f"compressed frame: {error}", file="frame", offset=0) from None
    actual = crc32c(plain)
    if made != size or actual != crc:
        raise Corruption("compressed frame", file="frame", offset=0, expected=crc, actual=actual)
    return bytes(plain)


def _length(block: memoryview) -> int:
    """What a block says its content has; -1 if it says nothing that can be."""
    value = 0
    for at, byte in enumerate(block[:5]):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            return value
    return -1
