"""What a stream holds, exactly: log and subject index changed together, with the counters that users see.

Every change of stored messages goes through here, in bulk. The index is what the per-subject limits and checks rest on:
a row's ``messages``, ``last`` and ``last_size_bytes`` are exact, ``first`` is a lower bound (exact when one is left).

The index may refuse to answer (``IndexDoubt``): then it is made again from the log, here, and asked once more. That is
exact at any moment at which the log is: lookups for what is about to be stored come before the log takes it, and after
a removal a new index needs no bringing up. Nobody else asks the index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from jetstore.consumer.cursor import runs_of
from jetstore.errors import IndexDoubt
from jetstore.store.index_layers import IndexedLog
from jetstore.store.ports import Columns, Frame, IndexRow, Message, MessageLog, MessageMeta, SubjectFilter, SubjectIndex
from jetstore.stream.settings import Settings
from jetstore.stream.subjects import Filter

PURGE_SLICE_MESSAGES = 65_536
"""Messages of a purge whose subjects and sizes are looked at together."""

Overfull = tuple[bytes, int]
"""A subject above its limit; and the only message that makes it so where that is known at once, else 0."""
RemovedCallback = Callable[[int, int, Sequence[bytes]], None]
"""First and last sequence of a range in which nothing is live any more, and the subjects of what was."""


@runtime_checkable
class Rebuildable(Protocol):
    """An index that can doubt itself."""

    def rebuild(self, rows: Mapping[bytes, IndexRow]) -> None:
        """Become exactly these rows."""


class Contents:
    """Log, index and counters of one stream. ``jetstore.consumer.ports.StreamView`` is its reading side."""

    def __init__(self, log: MessageLog, index: SubjectIndex) -> None:
        """Empty ones, or what a checkpoint restored (then the owner sets the counters)."""
        self.log = log
        self.index = index
        self.messages = 0
        self.bytes = 0
        self.last_time_ns = 0
        """Time of the last message ever stored; times are strictly increasing."""
        self.largest_bytes = 0
        """No message ever stored was larger."""
        self.on_removed: RemovedCallback | None = None
        """Told of every range of removed messages right after its removal."""
        self.doubts: list[str] = []
        """Why the index was made again, each time; the owner reports and clears it."""
        self._first_time = (0, 0)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """Last sequence ever given."""
        return self.log.last_seq

    @property
    def first_seq(self) -> int:
        """First live sequence; ``last_seq + 1`` when empty."""
        if not self.messages:
            return self.log.last_seq + 1
        first = self.log.first_seq
        if self.log.is_live(first):
            return first
        return self.log.next_seqs(first, None, 1)[0]

    @property
    def first_time_ns(self) -> int:
        """Time of the first live message, or 0."""
        if not self.messages:
            return 0
        seq = self.first_seq
        if self._first_time[0] != seq:
            meta = self.log.meta(seq)
            assert meta is not None
            self._first_time = (seq, meta.time_ns)
        return self._first_time[1]

    @property
    def deleted(self) -> int:
        """Sequences between the first and the last that hold nothing."""
        return self.last_seq - self.first_seq + 1 - self.messages if self.messages else 0

    def is_live(self, seq: int) -> bool:
        """Whether a message is stored at this sequence."""
        return self.log.is_live(seq)

    def meta(self, seq: int) -> MessageMeta | None:
        """Subject, time and size of a live message."""
        return self.log.meta(seq)

    def read(self, seq: int) -> Message | None:
        """The live message at this sequence."""
        return self.log.read(seq)

    def next_seqs(self, start_seq: int, subject_filter: SubjectFilter | None, max_count: int) -> list[int]:
        """Up to ``max_count`` live matching sequences ≥ ``start_seq``, in order."""
        return self.log.next_seqs(start_seq, subject_filter, max_count)

    def previous_seq(self, below_seq: int, subject_filter: SubjectFilter | None) -> int:
        """The greatest live matching sequence < ``below_seq``, or 0."""
        return self.log.previous_seq(below_seq, subject_filter)

    def seq_at_time(self, time_ns: int) -> int:
        """The first live sequence whose time is ≥ ``time_ns``; ``last_seq + 1`` if none."""
        return self.log.seq_at_time(time_ns)

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        """Index rows whose subject matches, sorted by subject."""
        try:
            return self.index.matching(subject_filter, after, max_count)
        except IndexDoubt as doubt:
            self.heal(doubt)
            return self.index.matching(subject_filter, after, max_count)

    def row(self, subject: bytes) -> IndexRow | None:
        """The index row of a subject, or None if it has no message."""
        try:
            return self.index.get(subject)
        except IndexDoubt as doubt:
            self.heal(doubt)
            return self.index.get(subject)

    def rows(self, subjects: Sequence[bytes]) -> list[IndexRow | None]:
        """The same for many subjects."""
        try:
            return self.index.get_many(subjects)
        except IndexDoubt as doubt:
            self.heal(doubt)
            return self.index.get_many(subjects)

    def last_seq_of(self, subject: bytes) -> int:
        """Sequence of the last message of a literal subject, or 0."""
        row = self.row(subject)
        return row.last if row else 0

    def heal(self, doubt: IndexDoubt) -> None:
        """Make the index say what the log holds now. Raises ``Corruption`` if the log cannot tell."""
        log: object = self.log
        if not isinstance(self.index, Rebuildable) or not hasattr(log, "index_rows"):
            raise doubt
        indexed: IndexedLog = log
        self.index.rebuild(indexed.index_rows())
        self.doubts.append(str(doubt))

    # -- storing --------------------------------------------------------------------------------------------------

    def append(self, first_seq: int, frame: Frame, columns: Columns, settings: Settings) -> list[Overfull]:
        """Store a frame whose messages get first_seq …; the subjects that are now above their limit."""
        subjects, header_lens, payloads = columns
        count = frame.count
        if count == 1:
            return self._append_single(first_seq, frame, columns, settings)
        subject = subjects[0]
        if subjects.count(subject) == count:
            subject_bytes = len(subject) * count
            last_at = {subject: count - 1}
            counts = {subject: count} if count > 1 else None
        else:
            subject_bytes = sum(map(len, subjects))
            last_at = dict(zip(subjects, range(count), strict=True))
            counts = Counter(subjects) if len(last_at) < count else None
        rows = self.rows(list(last_at))
        self.log.append(first_seq, frame)
        overhead = settings.record_overhead_bytes
        extra = settings.header_overhead_bytes
        self.messages += count
        self.bytes += sum(map(len, payloads)) + subject_bytes + overhead * count
        largest = max(map(len, payloads)) + max(map(len, subjects)) + overhead + extra
        if largest > self.largest_bytes:
            self.largest_bytes = largest
        if header_lens and extra:
            self.bytes += extra * (count - list(header_lens).count(0))
        self.last_time_ns = frame.base_time_ns + count - 1

        index = self.index
        limit = settings.max_msgs_per_subject
        overfull: list[Overfull] = []
        for (subject, at), row in zip(last_at.items(), rows, strict=True):
            size = len(subject) + len(payloads[at]) + overhead
            if extra and header_lens and header_lens[at]:
                size += extra
            added = counts[subject] if counts else 1
            if row is None:
                first = first_seq + (at if added == 1 else subjects.index(subject))
                index.put(subject, IndexRow(first, first_seq + at, added, size))
            else:
                index.put(subject, IndexRow(row.first, first_seq + at, row.messages + added, size))
            if limit and added + (row.messages if row else 0) > limit:
                overfull.append((subject, row.last if row and row.messages == 1 and added == limit == 1 else 0))
        return overfull

    def _append_single(self, seq: int, frame: Frame, columns: Columns, settings: Settings) -> list[Overfull]:
        """``append`` for a frame of one message: what many streams with little traffic each have."""
        (subject,), header_lens, (payload,) = columns
        row = self.row(subject)
        self.log.append(seq, frame)
        size = len(subject) + len(payload) + settings.record_overhead_bytes
        if size + settings.header_overhead_bytes > self.largest_bytes:
            self.largest_bytes = size + settings.header_overhead_bytes
        if header_lens and header_lens[0]:
            size += settings.header_overhead_bytes
        self.messages += 1
        self.bytes += size
        self.last_time_ns = frame.base_time_ns
        if row is None:
            self.index.put(subject, IndexRow(seq, seq, 1, size))
            return []
        messages = row.messages + 1
        self.index.put(subject, IndexRow(row.first, seq, messages, size))
        limit = settings.max_msgs_per_subject
        if limit and messages > limit:
            return [(subject, row.last if messages == 2 else 0)]
        return []

    # -- removing -------------------------------------------------------------------------------------------------

    @contextmanager
    def erasing(self) -> Iterator[None]:
        """What is removed meanwhile was erased on purpose: its bytes are to leave the disk soon."""
        self.log.is_erasing = True
        try:
            yield
        finally:
            self.log.is_erasing = False

    def remove_run(self, first: int, last: int) -> int:
        """Remove all live messages in the closed range; how many there were."""
        subjects, sizes = self.log.remove_range(first, last)
        if not subjects:
            return 0
        self.messages -= len(subjects)
        self.bytes -= sum(sizes)
        counts = Counter(subjects)
        try:
            rows = self.index.get_many(list(counts))
        except IndexDoubt as doubt:
            self.heal(doubt)  # as of after the removal
        else:
            for subject, row in zip(counts, rows, strict=True):
                assert row is not None
                self._forget(subject, row, counts[subject], first, last)
        if self.on_removed is not None:
            self.on_removed(first, last, subjects)
        return len(subjects)

    def remove(self, seq: int) -> MessageMeta | None:
        """Remove one message; None if it is not there."""
        meta = self.log.remove(seq)
        if meta is None:
            return None
        self.messages -= 1
        self.bytes -= meta.size_bytes
        try:
            row = self.index.get(meta.subject)
        except IndexDoubt as doubt:
            self.heal(doubt)  # as of after the removal
        else:
            assert row is not None
            self._forget(meta.subject, row, 1, seq, seq)
        if self.on_removed is not None:
            self.on_removed(seq, seq, (meta.subject,))
        return meta

    def remove_seqs(self, seqs: Sequence[int]) -> int:
        """Remove these increasing sequences where they are live; how many were."""
        if not seqs:
            return 0
        if seqs[-1] - seqs[0] + 1 == len(seqs):
            return self.remove_run(seqs[0], seqs[-1])
        removed = 0
        for first, last in runs_of(seqs):
            if first == last:
                removed += self.remove(first) is not None
            else:
                removed += self.remove_run(first, last)
        return removed

    def remove_oldest(self, count: int) -> int:
        """Remove the first ``count`` live messages; how many were there to remove."""
        if count <= 0 or not self.messages:
            return 0
        first = self.first_seq
        if count >= self.messages:
            return self.remove_run(first, self.last_seq)
        if not self.deleted:
            return self.remove_run(first, first + count - 1)
        return self.remove_run(first, self.log.next_seqs(first, None, count)[-1])

    def remove_all(self) -> int:
        """Remove every message; how many there were. In slices, so that one never holds all subjects at once."""
        removed = self.messages
        while self.messages:
            self.remove_oldest(PURGE_SLICE_MESSAGES)
        return removed

    def skip_to(self, last_seq: int) -> None:
        """Give the sequences up to this one to nothing."""
        if last_seq > self.log.last_seq:
            self.log.skip_to(last_seq)

    def _forget(self, subject: bytes, row: IndexRow, count: int, first: int, last: int) -> None:
        """Bring the row up to date after ``count`` of its messages, all that were in first…last, are gone."""
        left = row.messages - count
        if left <= 0:
            assert left == 0
            self.index.delete(subject)
            return
        new_last, size = row.last, row.last_size_bytes
        if first <= row.last <= last:
            new_last = self.log.previous_seq(first, Filter((subject,)))
            meta = self.log.meta(new_last)
            assert meta is not None
            size = meta.size_bytes
        new_first = last + 1 if first <= row.first <= last else row.first
        self.index.put(subject, IndexRow(new_last if left == 1 else new_first, new_last, left, size))
