"""Reads that need no log entry: a leader proves that it still leads, then says what must be applied first.

The index is the leader's commit index when the read came, once it has committed an entry of its own term; the proof is
a quorum that answered a request sent *after* the read came. Every answer counts, whatever it answers (heartbeat or
append), and one round serves all reads before it. No clock, no lease. Source: thesis §6.4.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from jetstore.types import RaftIndex


class Read(NamedTuple):
    """One request, of this member (``context`` is the caller's) or forwarded by another (``context`` is its number)."""

    member: int
    context: object


class ReadRounds:
    """A leader's reads that are waiting for their proof. At most ``reads_max``."""

    def __init__(self, reads_max: int) -> None:
        self._reads_max = reads_max
        self._deferred: list[Read] = []
        self._waiting: deque[tuple[Read, RaftIndex, int]] = deque()
        self.asked_sequence = -1
        """A round that was sent with a higher number than this answers everything that is waiting."""

    def __len__(self) -> int:
        return len(self._deferred) + len(self._waiting)

    def defer(self, read: Read) -> bool:
        """Keep a read until an entry of the leader's term is committed. False if there are too many."""
        if len(self) >= self._reads_max:
            return False
        self._deferred.append(read)
        return True

    def add(self, read: Read, index: RaftIndex, sequence: int) -> bool:
        """A read that came when ``index`` was committed and ``sequence`` was the leader's last request."""
        if len(self) >= self._reads_max:
            return False
        self._waiting.append((read, index, sequence))
        self.asked_sequence = sequence
        return True

    def release_deferred(self, index: RaftIndex, sequence: int) -> None:
        """The first entry of the leader's term is committed."""
        for read in self._deferred:
            self._waiting.append((read, index, sequence))
            self.asked_sequence = sequence
        self._deferred.clear()

    def confirmed(self, sequence: int) -> list[tuple[Read, RaftIndex]]:
        """Reads that are proved, now that a quorum has answered request ``sequence`` or a later one."""
        done = []
        while self._waiting and self._waiting[0][2] < sequence:
            read, index, _ = self._waiting.popleft()
            done.append((read, index))
        return done

    def drain(self) -> list[Read]:
        """All of them: leadership is gone."""
        reads = self._deferred + [read for read, _, _ in self._waiting]
        self._deferred.clear()
        self._waiting.clear()
        return reads
