"""S2 streams, the framing that archives travel in: writing them uncompressed, reading whatever a nats-server wrote.

A stream is a magic chunk and then chunks ``type:u8 length:u24 body``; the body of a data chunk starts with the masked
crc32c of what it holds. S2 blocks are Snappy blocks with one more operation: a copy from the offset of the copy before.
Both magics are taken. ``S2Reader`` is fed bytes as they come and gives back what they hold, a piece at a time, so that
a caller on an event loop may stop between two pieces: a compressed block is decoded a few thousand operations a step.

Source: the Snappy framing format, and the S2 extension as published with klauspost/compress.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from jetstore.errors import ArchiveError
from jetstore.hot.crc import crc32c

MAGIC: Final = b"\xff\x06\x00\x00S2sTwO"
_MAGICS: Final = (b"S2sTwO", b"sNaPpY")
BLOCK_BYTES_MAX: Final = 4 << 20
"""Uncompressed size of a block, at most; the format's own bound."""
CHUNK_BYTES_MAX: Final = BLOCK_BYTES_MAX + (BLOCK_BYTES_MAX >> 2) + 64
"""A data chunk as it is stored, at most: what a block that does not compress may grow to, and some room."""
WRITE_BYTES: Final = 64 * 1024
"""What one written chunk holds, at most."""
OPERATIONS_A_STEP: Final = 1_024
_COMPRESSED, _PLAIN, _IDENTIFIER = 0x00, 0x01, 0xFF
_SKIPPABLE: Final = 0x80
_CORRUPT: Final = "s2: corrupt input"
"""What nats-server says of such bytes."""


def masked_crc(data: bytes | bytearray | memoryview) -> int:
    """The checksum of a data chunk."""
    crc = int(crc32c(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def plain_chunks(data: bytes | bytearray) -> bytes:
    """Data chunks that hold ``data`` as it is. The stream's first ones follow ``MAGIC``."""
    parts: list[bytes] = []
    view = memoryview(data)
    for start in range(0, len(data), WRITE_BYTES):
        piece = view[start : start + WRITE_BYTES]
        head = (len(piece) + 4) << 8 | _PLAIN
        parts += (head.to_bytes(4, "little"), masked_crc(piece).to_bytes(4, "little"), bytes(piece))
    return b"".join(parts)


class S2Reader:
    """The bytes inside a stream that arrives in pieces. Keeps at most one chunk and what was fed last."""

    def __init__(self) -> None:
        """Nothing was fed yet."""
        self._waiting = bytearray()
        self._has_magic = False

    @property
    def is_between(self) -> bool:
        """Whether everything fed so far was whole chunks."""
        return not self._waiting

    def feed(self, data: bytes) -> Iterator[bytes | bytearray]:
        """What ``data`` completes; empty pieces are only pauses. Raises ``ArchiveError``. Exhaust it before the next.

        A chunk that does not check out gives nothing.
        """
        waiting = self._waiting
        waiting += data
        at = 0
        while len(waiting) - at >= 4:
            kind, size = waiting[at], int.from_bytes(waiting[at + 1 : at + 4], "little")
            self._check_head(kind, size)
            if len(waiting) - at - 4 < size:
                break
            body = bytes(waiting[at + 4 : at + 4 + size])
            at += 4 + size
            if at > len(waiting) // 2:
                del waiting[:at]
                at = 0
            if kind in (_COMPRESSED, _PLAIN):
                yield from _content(kind, body)
            elif kind == _IDENTIFIER and body not in _MAGICS:
                raise ArchiveError(f"{_CORRUPT}: not an S2 stream")
        del waiting[:at]

    def _check_head(self, kind: int, size: int) -> None:
        if not self._has_magic:
            if kind != _IDENTIFIER or size != len(_MAGICS[0]):
                raise ArchiveError(f"{_CORRUPT}: not an S2 stream")
            self._has_magic = True
        elif kind in (_COMPRESSED, _PLAIN):
            if not 4 < size <= CHUNK_BYTES_MAX:
                raise ArchiveError(f"{_CORRUPT}: a chunk of {size} bytes")
        elif kind < _SKIPPABLE:
            raise ArchiveError(f"{_CORRUPT}: a chunk of unknown kind {kind}")
        elif size > CHUNK_BYTES_MAX:
            raise ArchiveError(f"{_CORRUPT}: a chunk of {size} bytes")


def _content(kind: int, body: bytes) -> Iterator[bytes | bytearray]:
    """What a data chunk holds, as the last piece; pauses before it."""
    expected = int.from_bytes(body[:4], "little")
    content: bytes | bytearray = b""
    if kind == _PLAIN:
        content = body[4:]
        if len(content) > BLOCK_BYTES_MAX:
            raise ArchiveError(f"{_CORRUPT}: a block of {len(content)} bytes")
    else:
        for content in decode_block(body, 4):
            if not content:
                yield content
    if masked_crc(content) != expected:
        raise ArchiveError(f"{_CORRUPT}, crc mismatch")
    yield content


def decode_block(source: bytes, at: int) -> Iterator[bytearray]:
    """Decode one block: empty pieces now and then, and at last its content. Raises ``ArchiveError``."""
    size, at = _uvarint(source, at)
    if not 0 < size <= BLOCK_BYTES_MAX:
        raise ArchiveError(f"{_CORRUPT}: a block of {size} bytes")
    made = bytearray()
    offset = 0
    end = len(source)
    pause = bytearray()
    try:
        while at < end:
            for _ in range(OPERATIONS_A_STEP):
                if at >= end:
                    break
                tag = source[at]
                kind = tag & 3
                if kind == 0:
                    length = (tag >> 2) + 1
                    at += 1
                    if length > 60:
                        width = length - 60
                        length = int.from_bytes(source[at : at + width], "little") + 1
                        at += width
                    if at + length > end:
                        raise ArchiveError(f"{_CORRUPT}: a literal beyond its block")
                    made += source[at : at + length]
                    at += length
                    continue
                if kind == 1:
                    near = (tag & 0xE0) << 3 | source[at + 1]
                    length = tag >> 2 & 7
                    at += 2
                    if near:
                        offset = near
                    elif length > 4:
                        width = length - 4
                        length = int.from_bytes(source[at : at + width], "little") + (4, 256, 65_536)[width - 1]
                        if at + width > end:
                            raise ArchiveError(f"{_CORRUPT}: a block is cut off")
                        at += width
                    length += 4
                else:
                    width = 2 if kind == 2 else 4
                    length = (tag >> 2) + 1
                    offset = int.from_bytes(source[at + 1 : at + 1 + width], "little")
                    at += 1 + width
                start = len(made) - offset
                if offset <= 0 or start < 0 or at > end or len(made) + length > size:
                    raise ArchiveError(f"{_CORRUPT}: a copy from outside its block")
                if offset >= length:
                    made += made[start : start + length]
                else:
                    made += (made[start:] * (length // offset + 1))[:length]
            if len(made) > size:
                break
            if at < end:
                yield pause
    except IndexError:
        raise ArchiveError(f"{_CORRUPT}: a block is cut off") from None
    if len(made) != size:
        raise ArchiveError(f"{_CORRUPT}: a block of {len(made)} bytes instead of {size}")
    yield made


def _uvarint(source: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(source) and shift < 35:
        byte = source[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ArchiveError(f"{_CORRUPT}: length of a block")
