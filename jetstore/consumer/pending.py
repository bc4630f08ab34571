"""Runs of delivered messages: neighbours in the stream that were delivered together and wait for the same thing.

A run covers consecutive stream sequences whose first deliveries had consecutive consumer sequences, with one last
delivery time, one due time and one attempt count. An acknowledgement in the middle splits a run; acknowledging whole
runs costs one step per run, however many messages they hold. Runs are kept sorted and disjoint.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

NEVER_NS = 1 << 62
"""A time beyond any clock."""


class Run:
    """Messages ``first``…``last`` of one attempt. ``consumer_seq`` is that of the *first* delivery of ``first``."""

    __slots__ = ("consumer_seq", "count", "due_ns", "first", "last", "time_ns")

    def __init__(self, first: int, last: int, consumer_seq: int, time_ns: int, due_ns: int, count: int) -> None:
        self.first = first
        self.last = last
        self.consumer_seq = consumer_seq
        self.time_ns = time_ns
        self.due_ns = due_ns
        self.count = count

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __repr__(self) -> str:
        return f"Run({self.first}-{self.last} c{self.consumer_seq} x{self.count} due {self.due_ns})"

    def piece(self, first: int, last: int) -> Run:
        """The part of this run from ``first`` to ``last``."""
        return Run(first, last, self.consumer_seq + first - self.first, self.time_ns, self.due_ns, self.count)

    def continues(self, before: Run) -> bool:
        """Whether this run directly follows ``before`` and waits for the same, so that the two are one."""
        return (
            self.first == before.last + 1
            and self.consumer_seq == before.consumer_seq + len(before)
            and self.due_ns == before.due_ns
            and self.count == before.count
            and self.time_ns == before.time_ns
        )


class Runs:
    """A sorted set of disjoint runs, with its sums: messages, redelivered messages, messages by due time."""

    __slots__ = ("_due_messages", "_dues", "_firsts", "_runs", "messages", "redelivered")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._runs: list[Run] = []
        self.messages = 0
        self.redelivered = 0
        """Messages delivered more than once."""
        self._due_messages: dict[int, int] = {}
        self._dues: list[int] = []
        """Heap of the keys of ``_due_messages``, plus some that are gone from there."""

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def first(self) -> Run | None:
        """The run with the smallest sequences."""
        return self._runs[0] if self._runs else None

    def first_from(self, seq: int) -> Run | None:
        """The first run that starts at ``seq`` or above."""
        at = bisect_left(self._firsts, seq)
        return self._runs[at] if at < len(self._runs) else None

    def _count_in(self, run: Run) -> None:
        size = run.last - run.first + 1
        self.messages += size
        if run.count > 1:
            self.redelivered += size
        known = self._due_messages.get(run.due_ns)
        if known is None:
            self._due_messages[run.due_ns] = size
            heappush(self._dues, run.due_ns)
        else:
            self._due_messages[run.due_ns] = known + size

    def _count_out(self, run: Run) -> None:
        size = run.last - run.first + 1
        self.messages -= size
        if run.count > 1:
            self.redelivered -= size
        left = self._due_messages[run.due_ns] - size
        if left:
            self._due_messages[run.due_ns] = left
        else:
            del self._due_messages[run.due_ns]
            if len(self._dues) > 2 * len(self._due_messages) + 16:
                self._dues = list(self._due_messages)
                heapify(self._dues)

    def put(self, run: Run) -> None:
        """Add a run, which must not overlap others; joined to the run before it where they are one."""
        firsts, runs = self._firsts, self._runs
        at = len(runs) if not runs or runs[-1].last < run.first else bisect_right(firsts, run.first)
        self._count_in(run)
        if at and run.continues(runs[at - 1]):
            runs[at - 1].last = run.last
        else:
            firsts.insert(at, run.first)
            runs.insert(at, run)

    def overlapping(self, first: int, last: int) -> list[Run]:
        """Copies of the parts of runs inside the closed range, in order; nothing changes."""
        runs = self._runs
        at = bisect_right(self._firsts, first) - 1
        if at < 0 or runs[at].last < first:
            at += 1
        found = []
        while at < len(runs) and runs[at].first <= last:
            run = runs[at]
            found.append(run.piece(max(run.first, first), min(run.last, last)))
            at += 1
        return found

    def take(self, first: int, last: int) -> list[Run]:
        """Remove what lies inside the closed range and return it, in order; runs across its ends are split."""
        firsts, runs = self._firsts, self._runs
        start = bisect_right(firsts, first) - 1
        if start < 0 or runs[start].last < first:
            start += 1
        end = start
        taken: list[Run] = []
        rest: list[Run] = []
        while end < len(runs) and runs[end].first <= last:
            run = runs[end]
            end += 1
            if run.first >= first and run.last <= last:
                piece = run
            else:
                piece = run.piece(max(run.first, first), min(run.last, last))
                if run.first < first:
                    rest.append(run.piece(run.first, first - 1))
                if run.last > last:
                    rest.append(run.piece(last + 1, run.last))
            taken.append(piece)
            self._count_out(piece)
        if taken:
            runs[start:end] = rest
            firsts[start:end] = [run.first for run in rest]
        return taken

    def clear(self) -> list[Run]:
        """Remove everything and return it."""
        taken = self._runs
        self.__init__()  # type: ignore[misc]  # a fresh start of a slotted value
        return taken

    def due(self, now_ns: int) -> list[Run]:
        """The runs whose time has come, earliest due first, then by sequence."""
        if self.next_due_ns() > now_ns:
            return []
        return sorted((run for run in self._runs if run.due_ns <= now_ns), key=lambda run: (run.due_ns, run.first))

    def next_due_ns(self, after_ns: int = 0) -> int:
        """The earliest due time (of those later than ``after_ns``); a time beyond any clock if there is none."""
        if after_ns and self.next_due_ns() <= after_ns:
            return min((due for due in self._due_messages if due > after_ns), default=NEVER_NS)
        dues, known = self._dues, self._due_messages
        while dues and dues[0] not in known:
            heappop(dues)
        return dues[0] if dues else NEVER_NS

    def to_head(self) -> list[list[int]]:
        """As plain numbers; equal runs give equal lists."""
        return [[r.first, r.last, r.consumer_seq, r.time_ns, r.due_ns, r.count] for r in self._runs]

    @classmethod
    def from_head(cls, rows: list[list[int]]) -> Runs:
        """The runs that ``to_head`` described."""
        runs = cls()
        for first, last, consumer_seq, time_ns, due_ns, count in rows:
            run = Run(first, last, consumer_seq, time_ns, due_ns, count)
            runs._count_in(run)
            runs._firsts.append(first)
            runs._runs.append(run)
        return runs
