"""Reading a log's files again, a bounded piece at a time, to find damage before somebody needs the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.errors import Corruption, FormatUnknown
from jetstore.store.footer import SealedTable
from jetstore.store.segment import FRAME_HEAD_BYTES, SEGMENT_HEAD_BYTES
from jetstore.store.segment_files import SegmentFile

if TYPE_CHECKING:
    from jetstore.store.message_log import SegmentedLog

_HEAD = -1
"""In place of a frame number: head and footer of the segment come first."""


class Scrubber:
    """Goes round all segments of one log; remembers where it is by sequence, so segments may come and go."""

    def __init__(self) -> None:
        self._base_seq = 0
        self._frame = _HEAD

    def step(self, log: SegmentedLog, budget_bytes: int, found: list[Corruption]) -> bool:
        """Read about ``budget_bytes``; what is wrong is added to ``found``. True when the round is complete."""
        while budget_bytes > 0:
            segment = next((s for s in log.segment_files() if s.base_seq >= self._base_seq), None)
            if segment is None:
                self._base_seq, self._frame = 0, _HEAD
                return True
            if segment.base_seq > self._base_seq:
                self._base_seq, self._frame = segment.base_seq, _HEAD
            budget_bytes -= self._frames(log, segment, budget_bytes, found)
        return False

    def _frames(self, log: SegmentedLog, segment: SegmentFile, budget_bytes: int, found: list[Corruption]) -> int:
        reader = log.reader
        used = 0
        if self._frame == _HEAD:
            reader.look_again(segment)  # what memory has of it proves nothing, good or bad
        try:
            table = reader.table(segment)
        except FormatUnknown:
            raise
        except Corruption as error:  # the file does not even open: the others may
            found.append(error)
            self._base_seq, self._frame = segment.base_seq + 1, _HEAD
            return SEGMENT_HEAD_BYTES
        if self._frame == _HEAD:
            self._frame = 0  # a footer may be larger than a step: it is read once all the same
            used += SEGMENT_HEAD_BYTES
            self._note(found, lambda: reader.check_head(segment))
            if isinstance(table, SealedTable):
                used += segment.file_bytes - table.end_offset
                found += table.verify()
            for bad in table.bad:
                what = f"sequences {bad.first_seq}-{bad.last_seq} unreadable: {bad.what}"
                found.append(Corruption(what, file=segment.path, offset=bad.offset))
        try:
            count = table.frame_count
        except Corruption:
            count = 0  # The frame table itself is bad: reported above; reads scan the frames.
        while self._frame < count and used < budget_bytes:
            number = self._frame
            self._frame += 1
            if number in segment.memory:
                continue
            place = (table.offsets[number], table.payload_sizes[number], table.first_seqs[number])
            used += FRAME_HEAD_BYTES + place[1]
            self._note(found, lambda where=place: reader.verify(segment, *reader.read_at(segment, *where)))
        if self._frame >= count:
            self._base_seq, self._frame = segment.base_seq + 1, _HEAD
        return max(used, 1)

    @staticmethod
    def _note(found: list[Corruption], work: object) -> None:
        assert callable(work)
        try:
            work()
        except Corruption as error:
            found.append(error)
