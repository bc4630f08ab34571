"""Rewriting a sealed segment without its removed records: the only way space comes back between live messages.

The new file has another name and the same base sequence. It is written whole, then takes the old one's place in the
log; the old file goes after the next checkpoint, like every file that a checkpoint may still name. Records removed
meanwhile are simply dead in the new file too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_columns
from jetstore.store.footer import SealedTable, encode_footer
from jetstore.store.segment import FRAME_HEAD_BYTES, SEALED, SEGMENT_HEAD_BYTES, segment_head, sparse_frame
from jetstore.store.segment_files import SegmentFile, segments_dir
from jetstore.store.segment_table import FRAME_RECORDS_MAX, SegmentTable

if TYPE_CHECKING:
    from jetstore.store.message_log import SegmentedLog, Write

_RECORD_OVERHEAD_BYTES = 20
"""What a record takes in a frame besides subject and payload: lengths, time, sequence."""
_SPAN_MAX = 1 << 32
"""Sequences of a compacted segment are stored as 32-bit distances from its base."""


def worst_segment(log: SegmentedLog, live_share_max: float) -> SegmentFile | None:
    """The sealed segment with the smallest share of live records, if that is ≤ ``live_share_max``."""
    candidates = [
        segment
        for segment in log.segment_files()
        if is_compactable(segment)
        and segment.live <= live_share_max * segment.messages
        and segment.live < segment.messages
    ]
    return min(candidates, key=lambda segment: (segment.live / segment.messages, segment.base_seq), default=None)


def is_compactable(segment: SegmentFile) -> bool:
    """Whether all of it is in its file, and can be told in a compacted one."""
    return segment.has_footer and segment.table is None and _is_narrow(segment)


def _is_narrow(segment: SegmentFile) -> bool:
    return segment.last_seq - segment.base_seq < _SPAN_MAX


def start_sealing(log: SegmentedLog, segment: SegmentFile, frame_bytes_max: int) -> Compaction | None:
    """A rewrite of a segment, whatever is live in it, and also if it has no footer because it was mended.

    None while its footer is due for writing (it is ended if it was not); for good, if its sequences are too far apart.
    """
    if not segment.is_sealed:
        log.seal_last()
    if segment.is_dropped or segment.table is not None or not _is_narrow(segment):
        return None
    return Compaction(log, segment, frame_bytes_max)


def sealed_places(log: SegmentedLog, segment: SegmentFile) -> list[int] | None:
    """Where sealed bytes begin in its file, each with the number of their key; None if some may not be sealed.

    Of a segment that takes frames only those that were there at its opening. Raises ``Corruption`` if nobody knows.
    """
    table = segment.table
    if table is None:
        return log.reader.ask(segment, _sealed_places)
    return _frame_places(table, [number for number in range(segment.placed) if number not in segment.memory])


def _sealed_places(table: SegmentTable) -> list[int] | None:
    if not isinstance(table, SealedTable) or not table.is_sealed:
        return None
    places = _frame_places(table, range(table.frame_count))
    return [table.end_offset, *places] if places is not None else None


def _frame_places(table: SegmentTable, numbers: Sequence[int]) -> list[int] | None:
    if not all(table.flags[number] & SEALED for number in numbers):
        return None
    return [table.offsets[number] + FRAME_HEAD_BYTES for number in numbers]


class _FramePlace(NamedTuple):
    """A frame of the old file."""

    offset: int
    payload_bytes: int
    first_seq: int
    last_seq: int


def _last_of(table: SegmentTable, number: int) -> int:
    """Last sequence of a frame."""
    return table.seq_of(table.frame_end(number) - 1)


class Compaction:
    """One segment being rewritten: ``step`` until True, have ``writes`` written, then ``finish`` (or ``abandon``)."""

    def __init__(self, log: SegmentedLog, segment: SegmentFile, frame_bytes_max: int) -> None:
        assert segment.is_sealed
        assert segment.table is None
        self.segment = segment
        self._source = segment.path
        stem, _, number = segment.name.removesuffix(".seg").partition("-")
        self.name = f"{stem}-{int(number or 0) + 1}.seg"
        self.path = f"{segments_dir(log.uid)}/{self.name}"
        self._log = log
        self._keys = log.reader.vfs.keys
        self._erased = segment.erased
        self._frame_bytes_max = frame_bytes_max
        self._table = SegmentTable(self.path, segment.base_seq, SEGMENT_HEAD_BYTES)
        self._buffers = [segment_head(log.uid, segment.base_seq)]
        self._frames: list[_FramePlace] | None = None
        self._next_frame = 0
        self._is_done = False
        self._seqs: list[int] = []
        self._times: list[int] = []
        self._subjects: list[bytes] = []
        self._header_lens: list[int] = []
        self._payloads: list[bytes] = []
        self._pending_bytes = 0
        self._last_seq = segment.base_seq

    def step(self, budget_bytes: int) -> bool:
        """Read and encode about this much more of the segment; True when it is complete.

        Raises ``Corruption`` if a frame with live records cannot be read: then abandon it.
        """
        if self._frames is None:
            self._frames = self._log.reader.ask(self.segment, self._frames_of)
        while self._next_frame < len(self._frames) and budget_bytes > 0 and not self._is_stale:
            place = self._frames[self._next_frame]
            self._next_frame += 1
            if not self._log.dead.absent(max(place.first_seq, self._log.first_seq), place.last_seq, 1):
                continue
            budget_bytes -= max(place.payload_bytes, self._take(place))
        if self._next_frame >= len(self._frames) or self._is_stale:
            self._emit()
            self._is_done = True
        return self._is_done

    @property
    def _is_stale(self) -> bool:
        """The segment has left the log, or a repair has rewritten it meanwhile: what was read may be half of each."""
        return self.segment.is_dropped or self.segment.path != self._source

    def _frames_of(self, table: SegmentTable) -> list[_FramePlace]:
        """All frames, from one table: the next one may know fewer. Raises ``Corruption`` if it does not know all."""
        self._log.check_readable(self.segment, table, self.segment.base_seq, self.segment.last_seq)
        numbers = range(table.frame_count)
        return [
            _FramePlace(table.offsets[n], table.payload_sizes[n], table.first_seqs[n], _last_of(table, n))
            for n in numbers
        ]

    def _take(self, place: _FramePlace) -> int:
        """Add the live records of a frame to those that wait; how large its payloads are."""
        stored = self._log.reader.frame_at(self.segment, place.offset, place.payload_bytes, place.first_seq)
        subjects, header_lens, payloads = stored.columns
        first_seq, dead = self._log.first_seq, self._log.dead
        for position, seq in enumerate(stored.seqs):
            if seq < first_seq or seq in dead:
                continue
            size = len(subjects[position]) + len(payloads[position]) + _RECORD_OVERHEAD_BYTES
            if self._seqs and (
                self._pending_bytes + size > self._frame_bytes_max or len(self._seqs) == FRAME_RECORDS_MAX
            ):
                self._emit()
            self._pending_bytes += size
            self._seqs.append(seq)
            self._times.append(stored.times[position])
            self._subjects.append(subjects[position])
            self._header_lens.append(header_lens[position] if header_lens else 0)
            self._payloads.append(payloads[position])
        return sum(map(len, payloads))

    def _emit(self) -> None:
        """Encode the waiting records as one frame."""
        if not self._seqs:
            return
        columns = Columns(self._subjects, self._header_lens, self._payloads)
        frame = encode_columns(columns, self._times[0])
        buffers, flags = sparse_frame(
            self._log.uid,
            self.segment.base_seq,
            self._table.end_offset,
            self._seqs,
            self._times,
            frame,
            is_compressing=self._log.is_compressing,
            keys=self._keys,
        )
        size = sum(map(len, buffers))
        sizes = self._log.sizes_of(columns)
        self._table.add(self._seqs, self._times, flags, size - FRAME_HEAD_BYTES, size, self._subjects, sizes)
        self._buffers += buffers
        self._last_seq = self._seqs[-1]
        self._seqs, self._times, self._subjects, self._header_lens, self._payloads = [], [], [], [], []
        self._pending_bytes = 0

    def writes(self) -> list[Write]:
        """The whole new file. Nothing refers to it yet."""
        assert self._is_done
        if not self._table.message_count:
            return []
        footer = encode_footer(self._table, self._log.uid, self._last_seq, self._keys)
        return [(self.path, 0, [*self._buffers, footer])]

    def finish(self) -> None:
        """The file was written: it takes the old one's place."""
        if self._is_stale or not self._table.message_count:
            self.abandon()
            return
        # What was erased meanwhile may have been copied before.
        self.segment.erased -= self._erased
        self._log.erased_files = self._log.erased_files or self._erased > 0
        footer_bytes = len(encode_footer(self._table, self._log.uid, self._last_seq, self._keys))
        self._log.replace_file(
            self.segment,
            self.name,
            messages=self._table.message_count,
            file_bytes=self._table.end_offset + footer_bytes,
            last_seq=self._last_seq,
        )

    def abandon(self) -> None:
        """The new file is not wanted, written or not."""
        self._log.forget_file(self.path)
