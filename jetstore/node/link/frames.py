"""Frames: how a byte stream between two nodes is cut into pieces, each proved by checksums. Pure.

::

    frame = length (4) · kind (1) · zero (3) · number (4) · crc of body (4) · crc of the 16 bytes before (4) · body

Little-endian. ``length`` is that of the body. ``number`` counts the frames of one direction of one connection from 0
(modulo 2**32): a frame that is missing, doubled or out of place is noticed. TCP's own checksum is too weak to rely on;
the head has a checksum of its own, so that a damaged length is never waited for or allocated. Source:
``docs/format/link.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum

from jetstore.errors import JetstoreError
from jetstore.hot.crc import crc32c
from jetstore.types import Buffer

_HEAD = struct.Struct("<IB3sIII")
HEAD_BYTES = _HEAD.size
_COVERED = struct.Struct("<IB3sII")
_ZERO = bytes(3)
_CRC = struct.Struct("<I")
_NUMBER_MASK = 0xFFFF_FFFF


class Kind(IntEnum):
    """What a frame is. Numbers are never reused."""

    HELLO = 1
    READY = 2
    """The dialler accepts the acceptor's hello: the connection carries messages from here on."""
    REFUSED = 3
    PING = 4
    PONG = 5
    GOODBYE = 6
    """The sender will send no more messages or requests here: another connection has taken over, or it stops."""
    RAFT = 16
    REQUEST = 32
    RESPONSE = 33
    CHUNK = 34
    END = 35
    ERROR = 36
    CREDIT = 37
    CANCEL = 38
    ROUTE = 48
    """What the front ends of two nodes tell each other: interest and messages. Bulk connections only."""


_KINDS = {int(kind): kind for kind in Kind}


class FrameError(JetstoreError):
    """Bytes that are no frame of ours: says what is wrong. The connection they came on is closed."""


def frame(kind: Kind, number: int, parts: Sequence[Buffer]) -> list[Buffer]:
    """The buffers of one frame, head first; ``parts`` (its body) are passed on as they are, not copied."""
    length = crc = 0
    for part in parts:
        length += len(part)
        crc = crc32c(part, crc)
    covered = _COVERED.pack(length, kind, _ZERO, number & _NUMBER_MASK, crc)
    return [covered + _CRC.pack(crc32c(covered)), *parts]


class FrameReader:
    """Bytes in, frames out; any chunking gives the same frames. One direction of one connection.

    The caller lets the transport write into ``get_buffer()``, says how much came (``updated``), and then takes
    ``frames()`` to its end. Holds one buffer: ``resting_bytes``, or the size of the frame being received.
    """

    __slots__ = ("_buffer", "_end", "_needed", "_next_number", "_start", "_view", "body_bytes_max", "resting_bytes")

    def __init__(self, *, body_bytes_max: int, resting_bytes: int) -> None:
        """A larger body is refused before anything is allocated for it. Both may be changed between reads."""
        self.body_bytes_max = body_bytes_max
        self.resting_bytes = max(resting_bytes, HEAD_BYTES)
        self._buffer = bytearray(self.resting_bytes)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._needed = HEAD_BYTES
        """Bytes from ``_start`` on without which there is no next frame."""
        self._next_number = 0

    @property
    def capacity_bytes(self) -> int:
        """Size of the buffer as it is now."""
        return len(self._buffer)

    @property
    def is_between_frames(self) -> bool:
        """Nothing of a next frame has come."""
        return self._start == self._end

    def first_bytes(self) -> bytes:
        """The unread bytes, at most 64: what a refusal tells of a stranger."""
        return bytes(self._view[self._start : min(self._end, self._start + 64)])

    def get_buffer(self) -> memoryview:
        """Where the next bytes go; never empty. Bodies handed out before are void from now on."""
        if self._start == self._end:
            self._start = self._end = 0
        size = max(self._needed, self.resting_bytes)
        if size != len(self._buffer) and (size > len(self._buffer) or self._end - self._start <= size):
            self._move(bytearray(size))
        elif self._start + self._needed > len(self._buffer) or self._end == len(self._buffer):
            self._move(self._buffer)
        return self._view[self._end :]

    def _move(self, target: bytearray) -> None:
        unread = bytes(self._view[self._start : self._end])
        self._buffer = target
        self._view = memoryview(target)
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def discard(self) -> None:
        """Forget what is not read; the connection is over."""
        self._start = self._end = 0
        self._needed = HEAD_BYTES

    def updated(self, size: int) -> None:
        """The transport wrote this many bytes at the start of the last ``get_buffer()``."""
        self._end += size
        assert self._end <= len(self._buffer)

    def frames(self) -> Iterator[tuple[Kind, memoryview]]:
        """The whole frames that are there. A body is valid until the next ``get_buffer``; FrameError: no frame."""
        while True:
            here = self._start
            if self._end - here < HEAD_BYTES:
                self._needed = HEAD_BYTES
                return
            length, kind, zero, number, crc, head_crc = _HEAD.unpack_from(self._buffer, here)
            if head_crc != crc32c(self._view[here : here + HEAD_BYTES - 4]):
                raise FrameError("checksum of a frame head")
            if number != self._next_number:
                raise FrameError(f"frame number {number} where {self._next_number} was due")
            if zero != _ZERO or kind not in _KINDS:
                raise FrameError(f"unknown kind of frame ({kind})")
            if length > self.body_bytes_max:
                raise FrameError(f"frame of {length} bytes, at most {self.body_bytes_max} are taken")
            end = here + HEAD_BYTES + length
            if self._end < end:
                self._needed = end - here
                return
            body = self._view[here + HEAD_BYTES : end]
            if crc != crc32c(body):
                raise FrameError(f"checksum of a frame ({_KINDS[kind].name}, {length} bytes)")
            self._next_number = (number + 1) & _NUMBER_MASK
            self._start = end
            self._needed = HEAD_BYTES
            yield _KINDS[kind], body
