"""The in-memory twin of ``SegmentedLog``: the same answers from plain dicts, for tests and for reading first."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from jetstore.hot.columns import Frame
from jetstore.hot.frame import frame_columns
from jetstore.store.ports import IndexRow, Message, MessageMeta, SubjectFilter
from jetstore.store.stored_size import file_size_bytes, memory_size_bytes


class MemoryLog:
    """Implements ``MessageLog`` without files. ``storage`` ("file" or "memory") decides stored sizes only.

    ``first_seq`` is exact: the first live sequence, or ``last_seq + 1``.
    """

    def __init__(self, storage: str = "file", first_seq: int = 1) -> None:
        assert storage in ("file", "memory")
        self._size_of = file_size_bytes if storage == "file" else memory_size_bytes
        self.is_erasing = self.is_compressing = False
        self.first_seq = first_seq
        self.last_seq = first_seq - 1
        self._messages: dict[int, Message] = {}
        self._seqs: list[int] = []
        self._times: list[int] = []
        self._by_subject: dict[bytes, list[int]] = {}

    def append(self, first_seq: int, frame: Frame) -> None:
        assert first_seq > self.last_seq, (first_seq, self.last_seq)
        subjects, header_lens, payloads = frame_columns(frame)
        header_lens = header_lens or (0,) * frame.count
        if not self._seqs:
            self.first_seq = first_seq
        for offset, (subject, cut, payload) in enumerate(zip(subjects, header_lens, payloads, strict=True)):
            seq = first_seq + offset
            time_ns = frame.base_time_ns + offset
            self._messages[seq] = Message(seq, time_ns, subject, payload[:cut], payload[cut:])
            self._seqs.append(seq)
            self._times.append(time_ns)
            self._by_subject.setdefault(subject, []).append(seq)
        self.last_seq = first_seq + frame.count - 1

    def skip_to(self, last_seq: int) -> None:
        if last_seq > self.last_seq:
            self.last_seq = last_seq
            if not self._seqs:
                self.first_seq = last_seq + 1

    def remove(self, seq: int) -> MessageMeta | None:
        meta = self.meta(seq)
        if meta is None:
            return None
        del self._messages[seq]
        at = bisect_left(self._seqs, seq)
        del self._seqs[at]
        del self._times[at]
        seqs = self._by_subject[meta.subject]
        del seqs[bisect_left(seqs, seq)]
        if not seqs:
            del self._by_subject[meta.subject]
        self.first_seq = self._seqs[0] if self._seqs else self.last_seq + 1
        return meta

    def remove_range(self, first_seq: int, last_seq: int) -> tuple[list[bytes], list[int]]:
        seqs = self._seqs[bisect_left(self._seqs, first_seq) : bisect_right(self._seqs, last_seq)]
        removed = [meta for meta in map(self.remove, seqs) if meta is not None]
        return [meta.subject for meta in removed], [meta.size_bytes for meta in removed]

    def is_live(self, seq: int) -> bool:
        return seq in self._messages

    def meta(self, seq: int) -> MessageMeta | None:
        message = self._messages.get(seq)
        if message is None:
            return None
        size = self._size_of(len(message.subject), len(message.header), len(message.data))
        return MessageMeta(seq, message.time_ns, message.subject, size)

    def read(self, seq: int) -> Message | None:
        return self._messages.get(seq)

    def read_many(self, seqs: Sequence[int], max_bytes: int) -> list[Message]:
        found: list[Message] = []
        total = 0
        for message in map(self._messages.get, seqs):
            if message is not None:
                found.append(message)
                total += len(message.subject) + len(message.header) + len(message.data)
                if total >= max_bytes:
                    break
        return found

    def _subjects(self, subject_filter: SubjectFilter) -> list[bytes]:
        if subject_filter.has_wildcards:
            return [subject for subject in self._by_subject if subject_filter(subject)]
        return [subject for subject in sorted(subject_filter.literals) if subject in self._by_subject]

    def next_seqs(self, start_seq: int, subject_filter: SubjectFilter | None, max_count: int) -> list[int]:
        if subject_filter is None:
            at = bisect_left(self._seqs, start_seq)
            return self._seqs[at : at + max_count]
        found: list[int] = []
        for subject in self._subjects(subject_filter):
            seqs = self._by_subject[subject]
            at = bisect_left(seqs, start_seq)
            found += seqs[at : at + max_count]
        return sorted(found)[:max_count]

    def previous_seq(self, below_seq: int, subject_filter: SubjectFilter | None) -> int:
        if subject_filter is None:
            lists = [self._seqs]
        else:
            lists = [self._by_subject[subject] for subject in self._subjects(subject_filter)]
        return max((seqs[at - 1] for seqs in lists if (at := bisect_left(seqs, below_seq))), default=0)

    def seq_at_time(self, time_ns: int) -> int:
        at = bisect_left(self._times, time_ns)
        return self._seqs[at] if at < len(self._seqs) else self.last_seq + 1

    def deleted_count(self) -> int:
        return self.last_seq - self.first_seq + 1 - len(self._seqs)

    def deleted_seqs(self, max_count: int) -> list[int]:
        found: list[int] = []
        before = self.first_seq - 1
        for seq in [*self._seqs, self.last_seq + 1]:
            found += range(before + 1, min(seq, before + 1 + max_count - len(found)))
            before = seq
            if len(found) >= max_count:
                break
        return found

    def index_rows(self) -> dict[bytes, IndexRow]:
        """What the subject index must say of this log: a row per subject, with exact first sequences."""
        rows: dict[bytes, IndexRow] = {}
        for subject, seqs in self._by_subject.items():
            last = self.meta(seqs[-1])
            assert last is not None
            rows[subject] = IndexRow(seqs[0], seqs[-1], len(seqs), last.size_bytes)
        return rows
