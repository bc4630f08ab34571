"""Where everything is in one segment: frames by sequence, and per message its subject and stored size, as columns.

The unsealed segment has its table in memory; a sealed one has it in its footer (``footer.py``), read section by section
when asked. An *ordinal* is a record's position in the segment, 0 first; removed records keep theirs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jetstore.store.ports import SubjectFilter
from jetstore.store.segment import FRAME_HEAD_BYTES, HAS_TIMES, BadRange

SUBJECTS_MAX = 16_384
"""A segment with this many subjects is sealed: bounds its table and the time to build its footer."""
FRAMES_MAX = 131_072
"""The same for frames."""
FRAME_RECORDS_MAX = 16_384
"""Records of one frame: with SUBJECTS_MAX, subject ids stay below 65,536."""
_FEW_IDS = 16
_WINDOW_RECORDS = 32_768
_MEMO_FILTERS_MAX = 256


class Place(NamedTuple):
    """Where one record is, and what its frame's header must say."""

    ordinal: int
    frame: int
    position: int
    """Of the record in its frame."""
    time_ns: int
    offset: int
    payload_bytes: int
    first_seq: int


class SegmentTable:
    """Columns of one segment. Appended to by its segment; never changed once sealed."""

    __slots__ = (
        "_memo",
        "bad",
        "base_seq",
        "base_times",
        "end_offset",
        "first_seqs",
        "flags",
        "ids",
        "message_count",
        "offsets",
        "ordinals",
        "path",
        "payload_sizes",
        "seqs",
        "sizes",
        "subject_count",
        "subject_ids",
        "subjects",
        "times",
    )

    # Per frame: first sequence, ordinal of its first record, offset and payload length, base time, flags.
    first_seqs: array[int]
    ordinals: array[int]
    offsets: array[int]
    payload_sizes: array[int]
    base_times: array[int]
    flags: array[int]
    # Per record: subject id and stored size; time and sequence − base_seq only where some frame has its own.
    ids: array[int]
    sizes: array[int]
    times: array[int]
    seqs: array[int]
    subjects: list[bytes]
    subject_ids: dict[bytes, int]

    def __init__(self, path: str, base_seq: int, end_offset: int) -> None:
        self.path = path
        self.base_seq = base_seq
        self.end_offset = end_offset
        """Where the next frame goes."""
        self.message_count = 0
        self.subject_count = 0
        self.bad: list[BadRange] = []
        """Damage found while the table was rebuilt from the frames; empty in a table that was not."""
        self.first_seqs = array("Q")
        self.ordinals = array("I")
        self.offsets = array("I")
        self.payload_sizes = array("I")
        self.base_times = array("q")
        self.flags = array("B")
        self.ids = array("H")
        self.sizes = array("I")
        self.times = array("q")
        self.seqs = array("I")
        self.subjects = []
        self.subject_ids = {}
        self._memo: dict[SubjectFilter, tuple[int, list[int]]] = {}

    # -- building ---------------------------------------------------------------------------------------------------

    def add(
        self,
        seqs: range | Sequence[int],
        times: range | Sequence[int],
        flags: int,
        payload_bytes: int,
        frame_bytes: int,
        subjects: Sequence[bytes],
        sizes: Sequence[int],
    ) -> None:
        """A frame of ``frame_bytes`` (with header) was put at ``end_offset``."""
        count = len(seqs)
        assert 0 < count <= FRAME_RECORDS_MAX, count
        has_times = flags & HAS_TIMES
        if has_times and not self.times:
            self.times.extend(self._times_of_all())
        if self.times or has_times:
            self.times.extend(times)
        if (not isinstance(seqs, range) and not self.seqs) or self.seqs:
            if not self.seqs:
                self.seqs.extend([seq - self.base_seq for seq in self.seqs_of(range(self.message_count))])
            self.seqs.extend([seq - self.base_seq for seq in seqs])
        self.first_seqs.append(seqs[0])
        self.ordinals.append(self.message_count)
        self.offsets.append(self.end_offset)
        self.payload_sizes.append(payload_bytes)
        self.base_times.append(times[0])
        self.flags.append(flags)
        known = self.subject_ids
        if count == 1:
            self.ids.append(self._id(subjects[0]))
        elif subjects.count(subjects[0]) == count:
            self.ids.extend(array("H", (self._id(subjects[0]),)) * count)
        else:
            for subject in subjects:
                if subject not in known:
                    known[subject] = len(known)
                    self.subjects.append(subject)
            self.ids.extend(map(known.__getitem__, subjects))
            self.subject_count = len(known)
        self.sizes.extend(sizes)
        self.message_count += count
        self.end_offset += frame_bytes

    def place_frame(self, frame: int, flags: int, payload_bytes: int) -> int:
        """The frame is about to be written in this form, behind the one before it; its offset.

        Frames are placed in order. Those behind it that are not placed yet have offsets of no meaning until they are.
        """
        offset = (
            self.offsets[frame - 1] + FRAME_HEAD_BYTES + self.payload_sizes[frame - 1] if frame else self.offsets[0]
        )
        self.end_offset -= self.payload_sizes[frame] - payload_bytes
        self.offsets[frame], self.payload_sizes[frame], self.flags[frame] = offset, payload_bytes, flags
        return offset

    def _id(self, subject: bytes) -> int:
        found = self.subject_ids.get(subject)
        if found is None:
            found = self.subject_ids[subject] = len(self.subjects)
            self.subjects.append(subject)
            self.subject_count = len(self.subjects)
        return found

    def _times_of_all(self) -> Iterable[int]:
        for frame, first in enumerate(self.ordinals):
            time_ns = self.base_times[frame]
            yield from range(time_ns, time_ns + self.frame_end(frame) - first)

    # -- frames, ordinals, sequences --------------------------------------------------------------------------------

    @property
    def frame_count(self) -> int:
        return len(self.first_seqs)

    def frame_end(self, frame: int) -> int:
        """Ordinal after the frame's last record."""
        return self.ordinals[frame + 1] if frame + 1 < len(self.ordinals) else self.message_count

    def frame_of(self, ordinal: int) -> int:
        """Number of the frame that holds a record."""
        return bisect_right(self.ordinals, ordinal) - 1

    def ordinal_from(self, seq: int) -> int:
        """Ordinal of the first record with a sequence ≥ ``seq``; ``message_count`` if none."""
        if self.seqs:
            return bisect_left(self.seqs, max(0, seq - self.base_seq))
        frame = bisect_right(self.first_seqs, seq) - 1
        if frame < 0:
            return 0
        return min(self.ordinals[frame] + seq - self.first_seqs[frame], self.frame_end(frame))

    def ordinal_of(self, seq: int) -> int:
        """Ordinal of the record with this sequence; -1 if the table has none."""
        ordinal = self.ordinal_from(seq)
        return ordinal if ordinal < self.message_count and self.seq_of(ordinal) == seq else -1

    def place_of(self, seq: int) -> Place | None:
        """Where the record with this sequence is; None if the table has none."""
        ordinal = self.ordinal_of(seq)
        if ordinal < 0:
            return None
        frame = bisect_right(self.ordinals, ordinal) - 1
        position = ordinal - self.ordinals[frame]
        time_ns = self.times[ordinal] if self.times else self.base_times[frame] + position
        return Place(
            ordinal,
            frame,
            position,
            time_ns,
            self.offsets[frame],
            self.payload_sizes[frame],
            self.first_seqs[frame],
        )

    def seq_of(self, ordinal: int) -> int:
        """Sequence of a record."""
        if self.seqs:
            return self.base_seq + self.seqs[ordinal]
        frame = self.frame_of(ordinal)
        return self.first_seqs[frame] + ordinal - self.ordinals[frame]

    def time_of(self, ordinal: int) -> int:
        """Time of a record in nanoseconds."""
        if self.times:
            return self.times[ordinal]
        frame = self.frame_of(ordinal)
        return self.base_times[frame] + ordinal - self.ordinals[frame]

    def seqs_of(self, ordinals: Iterable[int]) -> list[int]:
        """Sequences of records given in increasing order."""
        if self.seqs:
            base, seqs = self.base_seq, self.seqs
            return [base + seqs[ordinal] for ordinal in ordinals]
        found: list[int] = []
        if isinstance(ordinals, range) and ordinals and ordinals.step == 1:
            at, stop = ordinals.start, ordinals.stop
            frame = self.frame_of(at)
            while at < stop:  # a frame at a time: its sequences are consecutive
                end = min(self.frame_end(frame), stop)
                seq = self.first_seqs[frame] + at - self.ordinals[frame]
                found.extend(range(seq, seq + end - at))
                at, frame = end, frame + 1
            return found
        end = shift = 0
        for ordinal in ordinals:
            if ordinal >= end:
                frame = self.frame_of(ordinal)
                end = self.frame_end(frame)
                shift = self.first_seqs[frame] - self.ordinals[frame]
            found.append(ordinal + shift)
        return found

    def ordinal_at_time(self, time_ns: int) -> int:
        """Ordinal of the first record whose time is ≥ ``time_ns``; ``message_count`` if none."""
        if self.times:
            return bisect_left(self.times, time_ns)
        frame = bisect_left(self.base_times, time_ns) - 1  # the last that begins before that time
        if frame < 0:
            return 0
        return min(self.ordinals[frame] + time_ns - self.base_times[frame], self.frame_end(frame))

    # -- subjects ---------------------------------------------------------------------------------------------------

    def find_subject(self, subject: bytes) -> int:
        """Id of a subject; -1 if the segment never held it."""
        return self.subject_ids.get(subject, -1)

    def matching_ids(self, subject_filter: SubjectFilter) -> list[int]:
        """Ids of the subjects that match, in no particular order but always the same one."""
        if not subject_filter.has_wildcards:
            found = [self.find_subject(subject) for subject in subject_filter.literals]
            return sorted(id_ for id_ in found if id_ >= 0)
        seen, ids = self._memo.get(subject_filter, (0, []))
        if seen < self.subject_count:
            ids = ids + self._match_from(seen, subject_filter)
            if len(self._memo) >= _MEMO_FILTERS_MAX:
                self._memo.clear()
            self._memo[subject_filter] = self.subject_count, ids
        return ids

    def _match_from(self, first_id: int, subject_filter: SubjectFilter) -> list[int]:
        subjects = self.subjects
        return [id_ for id_ in range(first_id, len(subjects)) if subject_filter(subjects[id_])]

    def search(self, ids: list[int], start: int, max_count: int) -> list[int]:
        """Up to ``max_count`` ordinals ≥ ``start`` whose subject id is one of these, in order."""
        end = self.message_count
        if len(ids) == self.subject_count:
            return list(range(start, min(end, start + max_count)))
        found: list[int] = []
        wanted = frozenset(ids)
        while start < end and len(found) < max_count and ids:
            stop = min(end, start + _WINDOW_RECORDS)
            room = max_count - len(found)
            column = self.ids[start:stop]
            if len(ids) <= _FEW_IDS:
                window = column.tobytes()
                hits = [start + at for id_ in ids for at in _find(window, id_.to_bytes(2, "little"), room)]
                if len(ids) > 1:
                    hits.sort()
            else:
                hits = [at for at, id_ in enumerate(column, start) if id_ in wanted]
            found += hits[:room]
            start = stop
        return found

    def search_back(self, ids: list[int], below: int) -> int:
        """The greatest ordinal < ``below`` whose subject id is one of these; -1 if none."""
        if len(ids) == self.subject_count:
            return below - 1
        patterns = [id_.to_bytes(2, "little") for id_ in ids]
        wanted = frozenset(ids)
        while below > 0 and ids:
            start = max(0, below - _WINDOW_RECORDS)
            column = self.ids[start:below]
            if len(ids) <= _FEW_IDS:
                window = column.tobytes()
                best = max(_rfind(window, pattern) for pattern in patterns)
            else:
                best = next((at for at in range(len(column) - 1, -1, -1) if column[at] in wanted), -1)
            if best >= 0:
                return start + best
            below = start
        return -1


def _find(window: bytes, pattern: bytes, max_count: int) -> list[int]:
    found: list[int] = []
    at = window.find(pattern)
    while at >= 0 and len(found) < max_count:
        if at & 1:
            at = window.find(pattern, at + 1)
        else:
            found.append(at >> 1)
            at = window.find(pattern, at + 2)
    return found


def _rfind(window: bytes, pattern: bytes) -> int:
    at = window.rfind(pattern)
    while at > 0 and at & 1:
        at = window.rfind(pattern, 0, at + 1)
    return at >> 1 if at >= 0 else -1
