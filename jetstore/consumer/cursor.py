"""Where new messages start, and how many are left: the position of one consumer in its stream.

A consumer that starts with the last message of each subject first walks a *skip list*, the last sequences as they were
when it was made; behind ``skip_until`` it goes on like any other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from jetstore.consumer.ports import StreamView
from jetstore.model.consumer import ConsumerConfig, DeliverPolicy
from jetstore.store.ports import SubjectFilter

_CHUNK = 4096
"""Sequences asked of the stream at once when only their number matters."""


class Cursor:
    """The next sequence to consider, and the exact number of stored messages still to be delivered from there."""

    __slots__ = ("_skip_at", "next_seq", "num_pending", "skip", "skip_until")

    def __init__(self, next_seq: int, num_pending: int = 0) -> None:
        self.next_seq = next_seq
        self.num_pending = num_pending
        self.skip: array[int] = array("Q")
        """Last sequences per subject at birth, sorted; those before ``_skip_at`` are done."""
        self._skip_at = 0
        self.skip_until = 0
        """Up to here only the skip list counts; 0 without one."""

    def copy(self) -> Cursor:
        """An independent cursor at the same place (the skip list itself is shared: it never changes)."""
        twin = Cursor(self.next_seq, self.num_pending)
        twin.skip, twin._skip_at, twin.skip_until = self.skip, self._skip_at, self.skip_until
        return twin

    def _skip_left(self) -> bool:
        """Whether sequences of the skip list are still to come."""
        return self.next_seq <= self.skip_until

    def plan(self, view: StreamView, subject_filter: SubjectFilter | None, max_count: int) -> list[int]:
        """The next sequences to deliver, in order, at most ``max_count``; the cursor stays."""
        if not self._skip_left():
            if self.next_seq > view.last_seq:
                return []
            return view.next_seqs(self.next_seq, subject_filter, max_count)
        seqs: list[int] = []
        at = bisect_left(self.skip, self.next_seq, self._skip_at)
        while at < len(self.skip) and len(seqs) < max_count:
            ahead = self.skip[at : at + max_count - len(seqs)]
            seqs.extend(filter(view.is_live, ahead))
            at += len(ahead)
        if len(seqs) < max_count:
            seqs += view.next_seqs(self.skip_until + 1, subject_filter, max_count - len(seqs))
        return seqs

    def advance(self, next_seq: int, taken: int) -> None:
        """Go on to ``next_seq``: ``taken`` messages that counted as pending are behind it now."""
        assert next_seq >= self.next_seq
        self.next_seq = next_seq
        self.num_pending -= taken
        assert self.num_pending >= 0, "more delivered than were pending"
        if self.skip_until:
            self._skip_at = bisect_left(self.skip, next_seq, self._skip_at)
            if next_seq > self.skip_until:
                self.skip, self._skip_at, self.skip_until = array("Q"), 0, 0

    def refilter(self, view: StreamView, subject_filter: SubjectFilter | None) -> None:
        """Follow a changed filter: what does not match leaves the skip list, and the rest is counted."""
        if self._skip_left() and subject_filter is not None:
            metas = map(view.meta, self.skip)
            self.skip = array("Q", [meta.seq for meta in metas if meta is not None and subject_filter(meta.subject)])
            self._skip_at = 0
        self.recount(view, subject_filter)

    def rewind(self, next_seq: int) -> None:
        """Go to ``next_seq``, forwards or back; ``num_pending`` is wrong until ``recount``."""
        self.next_seq = next_seq
        self._skip_at = 0
        if next_seq > self.skip_until:
            self.skip, self.skip_until = array("Q"), 0

    def count_until(self, view: StreamView, subject_filter: SubjectFilter | None, last: int) -> int:
        """How many live messages are still to be delivered up to and including ``last``."""
        if not self._skip_left():
            return _count_range(view, subject_filter, max(self.next_seq, self.skip_until + 1), last)
        start, end = (bisect_left(self.skip, seq, self._skip_at) for seq in (self.next_seq, last + 1))
        listed = sum(map(view.is_live, self.skip[start:end]))
        return listed + _count_range(view, subject_filter, self.skip_until + 1, last)

    def recount(self, view: StreamView, subject_filter: SubjectFilter | None) -> None:
        """Count what is pending from the stream itself."""
        total = 0
        start = self.next_seq
        if self._skip_left():
            at = bisect_left(self.skip, start, self._skip_at)
            total = sum(map(view.is_live, self.skip[at:]))
            start = self.skip_until + 1
        self.num_pending = total + count_from(view, subject_filter, start)

    def on_stored(self, first_seq: int, subjects: Sequence[bytes], subject_filter: SubjectFilter | None) -> None:
        """Messages with consecutive sequences from ``first_seq`` were stored behind everything else."""
        if first_seq < self.next_seq:
            subjects = subjects[self.next_seq - first_seq :]
        if subject_filter is None:
            self.num_pending += len(subjects)
        elif subjects and subjects.count(subjects[0]) == len(subjects):
            self.num_pending += len(subjects) if subject_filter(subjects[0]) else 0
        else:
            self.num_pending += sum(map(subject_filter, subjects))

    def on_removed(self, seqs: Sequence[int], subjects: Sequence[bytes], subject_filter: SubjectFilter | None) -> None:
        """Messages at these increasing sequences are gone."""
        if not seqs or seqs[-1] < self.next_seq:
            return
        at = bisect_left(seqs, self.next_seq)
        if self._skip_left():
            while at < len(seqs) and seqs[at] <= self.skip_until:
                place = bisect_left(self.skip, seqs[at])
                if place < len(self.skip) and self.skip[place] == seqs[at]:
                    self.num_pending -= 1
                at += 1
        if subject_filter is None:
            self.num_pending -= len(seqs) - at
        else:
            self.num_pending -= sum(map(subject_filter, subjects[at:]))
        assert self.num_pending >= 0, "more removed than were pending"

    def to_head(self) -> list[object]:
        """As plain values; equal cursors give equal lists."""
        left = self.skip[self._skip_at :].tolist()
        steps = [b - a for a, b in zip([0, *left], left, strict=False)]
        return [self.next_seq, self.num_pending, self.skip_until, steps]

    @classmethod
    def from_head(cls, head: list[object]) -> Cursor:
        """The cursor that ``to_head`` described."""
        next_seq, num_pending, skip_until, steps = head
        assert isinstance(next_seq, int)
        assert isinstance(num_pending, int)
        assert isinstance(skip_until, int)
        assert isinstance(steps, list)
        cursor = cls(next_seq, num_pending)
        cursor.skip_until = skip_until
        position = 0
        for step in steps:
            position += step
            cursor.skip.append(position)
        return cursor


def count_from(view: StreamView, subject_filter: SubjectFilter | None, start_seq: int) -> int:
    """Live matching messages at or above ``start_seq``, exactly.

    From the index when everything counts; else counted on the shorter side of ``start_seq``.
    """
    if start_seq > view.last_seq:
        return 0
    first = view.first_seq
    if start_seq > first and view.last_seq - start_seq <= start_seq - first:
        return _count_range(view, subject_filter, start_seq, view.last_seq)
    if subject_filter is None:
        total = view.messages
    else:
        total = sum(row.messages for _, row in view.matching(subject_filter))
    return total if start_seq <= first else total - _count_range(view, subject_filter, first, start_seq - 1)


def _count_range(view: StreamView, subject_filter: SubjectFilter | None, first: int, last: int) -> int:
    total = 0
    while first <= last:
        # No more than can be in the range: what lies behind it may be unreadable, which is none of our business.
        most = min(_CHUNK, last - first + 1)
        seqs = view.next_seqs(first, subject_filter, most)
        if len(seqs) < most or seqs[-1] > last:
            return total + bisect_left(seqs, last + 1)
        total += len(seqs)
        first = seqs[-1] + 1
    return total


def start_cursor(config: ConsumerConfig, view: StreamView, subject_filter: SubjectFilter | None) -> Cursor:
    """The cursor of a new consumer, as its deliver policy says, counted."""
    policy = config.deliver_policy
    first, last = view.first_seq, view.last_seq
    if policy == DeliverPolicy.LAST_PER_SUBJECT:
        cursor = Cursor(last + 1)
        seqs = sorted(row.last for _, row in view.matching(subject_filter))
        if seqs:
            cursor.skip, cursor.skip_until = array("Q", seqs), last
            cursor.next_seq = seqs[0]
        cursor.num_pending = len(seqs)
        return cursor
    if policy == DeliverPolicy.NEW:
        start = last + 1
    elif policy == DeliverPolicy.LAST:
        start = view.previous_seq(last + 1, subject_filter) or first
    elif policy == DeliverPolicy.BY_START_SEQUENCE:
        start = config.opt_start_seq
    elif policy == DeliverPolicy.BY_START_TIME:
        start = view.seq_at_time(config.opt_start_time)
    else:
        start = first
    cursor = Cursor(max(start, first, 1))
    cursor.recount(view, subject_filter)
    return cursor


def runs_of(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Closed ranges that cover exactly these increasing sequences."""
    runs: list[tuple[int, int]] = []
    first = previous = -1
    for seq in seqs:
        if seq != previous + 1 or first < 0:
            if first >= 0:
                runs.append((first, previous))
            first = seq
        previous = seq
    if first >= 0:
        runs.append((first, previous))
    return runs
