"""When single messages expire: sequences in buckets of one tick of 50 ms, and those that never expire.

Removed messages stay in their bucket until its time comes; their sequences mean nothing any more and are passed over.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from struct import Struct

from jetstore.errors import Corruption, FormatUnknown

SECOND_NS = 1_000_000_000
TIME_MAX_NS = 2**63 - 1
TICK_NS = 50_000_000
"""Messages that expire within one tick go together, at its end."""
_HEAD = Struct("<IIQ")
"""version, ticks, exemptions; then u64 columns: exemptions, ticks, their counts, their sequences."""
_VERSION = 0


class TtlSchedule:
    """Expiry times of the messages of one stream that have a time to live."""

    def __init__(self) -> None:
        """Nothing expires."""
        self._by_tick: dict[int, array[int]] = {}
        self._ticks: list[int] = []
        self.never: set[int] = set()
        """Messages with ``Nats-TTL: never``: no age limit removes them."""
        self.changes = 0
        """Counts changes, so that an unchanged schedule is not written again by a checkpoint."""

    def __len__(self) -> int:
        return sum(map(len, self._by_tick.values()))

    def add(self, seq: int, expires_ns: int) -> None:
        """Expire a message at this time, rounded up to a tick; times that no clock will show are all the same."""
        tick = -(-min(expires_ns, TIME_MAX_NS) // TICK_NS)
        bucket = self._by_tick.get(tick)
        if bucket is None:
            bucket = self._by_tick[tick] = array("Q")
            heappush(self._ticks, tick)
        bucket.append(seq)
        self.changes += 1

    def add_never(self, seq: int) -> None:
        """Exempt a message from the stream's age limit."""
        self.never.add(seq)
        self.changes += 1

    def forget_never(self, first: int, last: int) -> None:
        """Drop exemptions of messages in the closed range: they are gone."""
        never = self.never
        before = len(never)
        if last - first < before:
            never.difference_update(range(first, last + 1))
        else:
            self.never = {seq for seq in never if not first <= seq <= last}
        self.changes += len(self.never) != before

    def next_ns(self) -> int:
        """The earliest expiry, or 0."""
        return self._ticks[0] * TICK_NS if self._ticks else 0

    def take_due(self, now_ns: int, max_count: int) -> list[int]:
        """Up to ``max_count`` sequences due at ``now_ns``, which are then no longer scheduled; sorted."""
        due: list[int] = []
        while self._ticks and self._ticks[0] * TICK_NS <= now_ns and len(due) < max_count:
            tick = self._ticks[0]
            bucket = self._by_tick[tick]
            room = max_count - len(due)
            due += bucket[:room]
            self.changes += 1
            if len(bucket) > room:
                self._by_tick[tick] = bucket[room:]
            else:
                del self._by_tick[tick]
                heappop(self._ticks)
        return sorted(due)

    def to_rows(self) -> list[list[int]]:
        """As plain numbers, one row a tick: equal schedules give equal rows. The first row is ``never``."""
        rows = [sorted(self.never)]
        rows += [[tick, *self._by_tick[tick]] for tick in sorted(self._by_tick)]
        return rows

    def to_bytes(self) -> bytes:
        """As a chunk of a checkpoint (``docs/format/stream-head.md``)."""
        ticks = sorted(self._by_tick)
        buckets = [self._by_tick[tick] for tick in ticks]
        columns: list[Sequence[int]] = [sorted(self.never), ticks, list(map(len, buckets)), *buckets]
        return _HEAD.pack(_VERSION, len(ticks), len(self.never)) + b"".join(map(_column, columns))

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> TtlSchedule:
        """The schedule that ``to_bytes`` described. Raises ``Corruption`` or ``FormatUnknown``."""
        if len(data) < _HEAD.size or len(data) % 8:
            raise Corruption("chunk of expiry times", file=name, offset=0, actual=len(data))
        version, ticks, exempt = _HEAD.unpack_from(data)
        if version != _VERSION:
            raise FormatUnknown("version of expiry times", file=name, offset=0, expected=_VERSION, actual=version)
        numbers = array("Q", data[_HEAD.size :])
        if sys.byteorder == "big":
            numbers.byteswap()
        schedule = cls()
        schedule.changes = 1
        schedule.never = set(numbers[:exempt])
        at = exempt + 2 * ticks
        counts = numbers[exempt + ticks : at]
        if at + sum(counts) != len(numbers):
            raise Corruption("chunk of expiry times does not add up", file=name, offset=0, actual=len(numbers))
        for tick, count in zip(numbers[exempt : exempt + ticks], counts, strict=True):
            schedule._by_tick[tick] = numbers[at : at + count]
            at += count
        schedule._ticks = list(schedule._by_tick)
        heapify(schedule._ticks)
        return schedule


def _column(numbers: Sequence[int]) -> bytes:
    column = array("Q", numbers)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()
