"""When single messages expire: sequences in buckets of one second, and those that never expire.

Removed messages stay in their bucket until its time comes; their sequences mean nothing any more and are passed over.
"""

from __future__ import annotations

from array import array
from heapq import heapify, heappop, heappush

SECOND_NS = 1_000_000_000


class TtlSchedule:
    """Expiry times of the messages of one stream that have a time to live."""

    def __init__(self) -> None:
        """Nothing expires."""
        self._by_second: dict[int, array[int]] = {}
        self._seconds: list[int] = []
        self.never: set[int] = set()
        """Messages with ``Nats-TTL: never``: no age limit removes them. May hold sequences that are gone."""
        self.changes = 0
        """Counts changes, so that an unchanged schedule is not written again by a checkpoint."""

    def __len__(self) -> int:
        return sum(map(len, self._by_second.values()))

    def add(self, seq: int, expires_ns: int) -> None:
        """Expire a message at this time, rounded up to a second."""
        second = -(-expires_ns // SECOND_NS)
        bucket = self._by_second.get(second)
        if bucket is None:
            bucket = self._by_second[second] = array("Q")
            heappush(self._seconds, second)
        bucket.append(seq)
        self.changes += 1

    def add_never(self, seq: int) -> None:
        """Exempt a message from the stream's age limit."""
        self.never.add(seq)
        self.changes += 1

    def forget_never(self, below_seq: int) -> None:
        """Drop exemptions of messages below the first live one."""
        if self.never and min(self.never) < below_seq:
            self.never = {seq for seq in self.never if seq >= below_seq}
            self.changes += 1

    def next_ns(self) -> int:
        """The earliest expiry, or 0."""
        return self._seconds[0] * SECOND_NS if self._seconds else 0

    def take_due(self, now_ns: int, max_count: int) -> list[int]:
        """Up to ``max_count`` sequences due at ``now_ns``, which are then no longer scheduled; sorted."""
        due: list[int] = []
        while self._seconds and self._seconds[0] * SECOND_NS <= now_ns and len(due) < max_count:
            second = self._seconds[0]
            bucket = self._by_second[second]
            room = max_count - len(due)
            due += bucket[:room]
            self.changes += 1
            if len(bucket) > room:
                self._by_second[second] = bucket[room:]
            else:
                del self._by_second[second]
                heappop(self._seconds)
        return sorted(due)

    def to_rows(self) -> list[list[int]]:
        """As plain numbers, one row a second: equal schedules give equal rows. The first row is ``never``."""
        rows = [sorted(self.never)]
        rows += [[second, *self._by_second[second]] for second in sorted(self._by_second)]
        return rows

    @classmethod
    def from_rows(cls, rows: list[list[int]]) -> TtlSchedule:
        """The schedule that ``to_rows`` described."""
        schedule = cls()
        schedule.never = set(rows[0])
        for second, *seqs in rows[1:]:
            schedule._by_second[second] = array("Q", seqs)
            schedule._seconds.append(second)
        heapify(schedule._seconds)
        return schedule
