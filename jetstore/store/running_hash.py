"""One number that stands for every entry a state machine has applied, in order: what replicas compare.

``h' = BLAKE2b-64(h, index, term, length, crc32c(data))``. Two replicas with equal numbers at an index have applied the
same entries up to there; the number is part of every checkpoint, so it does not begin anew at a restart or an install.

Cost: about 1 µs an entry (a batch), and the crc of its bytes. Source: ``docs/format/stream-head.md``.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from struct import Struct

from jetstore.hot.crc import crc32c

_ITEM = Struct("<QQQQI")
RECENT = 256
"""Numbers of the last entries that are remembered: a heartbeat names an index that a replica may have passed by."""


class RunningHash:
    """The number at the last applied entry, and at the ``RECENT`` before it as far as they were applied here."""

    __slots__ = ("_first", "_recent", "index", "value")

    def __init__(self, index: int = 0, value: int = 0) -> None:
        """As a checkpoint at ``index`` has it; 0, 0 before the first entry."""
        self.index = index
        self.value = value
        self._first = index
        self._recent = array("Q", bytes(8 * RECENT))
        self._recent[index % RECENT] = value

    def take(self, index: int, term: int, data: bytes) -> None:
        """This entry was applied."""
        item = _ITEM.pack(self.value, index, term, len(data), crc32c(data))
        self.value = value = int.from_bytes(blake2b(item, digest_size=8).digest(), "little")
        self.index = index
        self._recent[index % RECENT] = value

    def at(self, index: int) -> int | None:
        """The number at an index, or None if it is not known here (not applied, or too long ago)."""
        if not max(self._first, self.index - RECENT + 1) <= index <= self.index:
            return None
        return self._recent[index % RECENT]
