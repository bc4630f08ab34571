"""How the simulated network tells frames apart on node-to-node connections, so that it can lose or double whole ones.

The production frames are numbered: a receiver notices a missing one and hangs up. To lose a *message* and not the
connection, frames are numbered again as they arrive. Only frames with Raft messages are harmed: everything else on
these connections relies on TCP, rightly.
"""

from __future__ import annotations

import struct
from typing import Protocol

from crc32c import crc32c

from jetstore.node.link.frames import HEAD_BYTES, Kind


class Framing(Protocol):
    """What the network must know of frames."""

    def size(self, buffer: bytearray) -> int:
        """Size of the first frame; 0 = not known yet."""

    def may_be_harmed(self, frame: bytes) -> bool:
        """Whether it may be lost, doubled or overtaken."""

    def numbered(self, frame: bytes, number: int) -> bytes:
        """The frame as the ``number``-th of its direction."""


class LinkFraming:
    """Frames of ``jetstore.node.link``."""

    _LENGTH = struct.Struct("<I")
    _NUMBER_AT = 8
    _COVERED_BYTES = HEAD_BYTES - 4

    def size(self, buffer: bytearray) -> int:
        if len(buffer) < HEAD_BYTES:
            return 0
        return HEAD_BYTES + int(self._LENGTH.unpack_from(buffer)[0])

    def may_be_harmed(self, frame: bytes) -> bool:
        return frame[4] == Kind.RAFT

    def numbered(self, frame: bytes, number: int) -> bytes:
        number &= 0xFFFF_FFFF
        if self._LENGTH.unpack_from(frame, self._NUMBER_AT)[0] == number:
            return frame
        head = bytearray(frame[: self._COVERED_BYTES])
        self._LENGTH.pack_into(head, self._NUMBER_AT, number)
        return bytes(head) + self._LENGTH.pack(crc32c(bytes(head))) + frame[HEAD_BYTES:]
