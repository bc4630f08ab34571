"""A segment with unreadable records is rewritten under a new name with what a peer sent in their place.

``SegmentRepair``: ``examine`` its frames in steps, fetch the ranges in ``bad``, ``supply`` what came, and, once nothing
is ``lacking``, have ``writes`` written and ``finish``. The log then reads from the new file; the old one goes after the
next checkpoint, like after a compaction. Readable frames are taken over as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from jetstore.errors import Corruption
from jetstore.store.footer import SealedTable
from jetstore.store.install_files import Received
from jetstore.store.install_records import Record
from jetstore.store.segment import BadRange, decode_payload, opened_frame
from jetstore.store.segment_files import SegmentFile
from jetstore.store.segment_table import SegmentTable

if TYPE_CHECKING:
    from jetstore.limits import Limits
    from jetstore.store.message_log import SegmentedLog, Write


def damaged_segments(log: SegmentedLog, ranges: Iterable[tuple[int, int]]) -> list[SegmentFile]:
    """The segments that hold sequences of these closed ranges, in order."""
    wanted = [(first, last) for first, last in ranges if first <= last]
    return [
        segment
        for segment in log.segment_files()
        if any(first <= segment.last_seq and last >= segment.base_seq for first, last in wanted)
    ]


class _FramePlace(NamedTuple):
    """A frame of the damaged file, as one table knew it."""

    offset: int
    payload_bytes: int
    first_seq: int
    last_seq: int


class SegmentRepair:
    """See the module docstring. The segment must be sealed and written; the log may go on meanwhile."""

    def __init__(self, log: SegmentedLog, segment: SegmentFile, limits: Limits, number: int) -> None:
        """``number`` makes the new file's name unique."""
        assert segment.is_sealed
        assert not segment.memory, "frames were not written"
        self.segment = segment
        self._source = segment.path
        self.bad: list[tuple[int, int]] = []
        """Closed ranges with live messages that cannot be read. Complete after ``examine``."""
        self.is_damaged = False
        """Anything at all is not as it was written: also what only dead records, or no record, depend on."""
        self._log = log
        self._limits = limits
        self._number = number
        self._good: list[Record] = []
        self._frames: list[_FramePlace] | None = None
        self._next_frame = 0
        self._supplied: list[Record] = []
        self._lacking: set[int] = set()
        self._made: Received | None = None

    def examine(self, budget_bytes: int) -> bool:
        """Read about this much more of the segment; True when it was read to its end."""
        reader, segment = self._log.reader, self.segment
        if self.is_stale:
            return True
        frames = self._frames
        if frames is None:
            frames = self._frames = self._look_around()
        while self._next_frame < len(frames) and budget_bytes > 0:
            place = frames[self._next_frame]
            self._next_frame += 1
            budget_bytes -= place.payload_bytes
            try:
                head, payload = reader.read_at(segment, place.offset, place.payload_bytes, place.first_seq)
                reader.verify(segment, head, payload)
            except Corruption:
                self._add_bad(place.first_seq, place.last_seq)
            else:
                self._good.append((head, payload))
        if self._next_frame < len(frames):
            return False
        self.bad.sort()
        for first, last in self.bad:
            self._lacking.update(self._live(first, last))
        return True

    @property
    def is_stale(self) -> bool:
        """The segment has left the log, or compaction has rewritten it: this repair is of no use."""
        return self.segment.is_dropped or self.segment.path != self._source

    def _look_around(self) -> list[_FramePlace]:
        """Head, footer, what a table that had to be made from the frames could not find, and where all others are."""
        reader, segment = self._log.reader, self.segment
        try:
            reader.check_head(segment)
        except Corruption:
            self.is_damaged = True
        table = reader.table(segment)
        if segment.has_footer and (not isinstance(table, SealedTable) or table.verify()):
            self.is_damaged = True
        frames, unknown = reader.ask(segment, _frames_of)
        for bad in unknown:
            self._add_bad(bad.first_seq, bad.last_seq)
        return frames

    def _add_bad(self, first: int, last: int) -> None:
        self.is_damaged = True
        if self._live(first, last):
            self.bad.append((first, last))

    def _live(self, first: int, last: int) -> list[int]:
        first, last = max(first, self._log.first_seq), min(last, self._log.last_seq)
        return self._log.dead.absent(first, last, last - first + 1) if first <= last else []

    def supply(self, record: Record) -> None:
        """Records of the bad ranges, verified on their way. Raises ``Corruption`` if they are of others."""
        head, payload = record
        seqs = decode_payload(head, payload, None).seqs
        if not any(first <= seqs[0] and seqs[-1] <= last for first, last in self.bad):
            raise Corruption("records that were not asked for", file="range", offset=0, actual=(seqs[0], seqs[-1]))
        self._supplied.append(record)
        self._lacking.difference_update(seqs)

    def lacking(self) -> list[int]:
        """Live sequences that nobody has supplied."""
        return sorted(seq for seq in self._lacking if self._log.is_live(seq))

    def writes(self) -> list[Write]:
        """The whole new file. Nothing refers to it yet."""
        assert not self.lacking()
        base = self.segment.base_seq
        log, keys = self._log, self._log.reader.vfs.keys
        made = Received(log.uid, self._limits, keys, storage=log.storage, number=self._number, first_seq=base)
        made.fixed_base = base
        made.begin(base, self.segment.last_seq)
        good = [opened_frame(keys, *record) for record in self._good]  # as they leave the store: they are sealed again
        for record in sorted([*good, *self._supplied], key=lambda found: found[0].first_seq):
            made.take(record)
        made.seal()
        self._made = made
        return made.take_writes()

    def finish(self) -> bool:
        """The new file was written and takes the old one's place; False if that is not there any more."""
        assert self._made is not None
        if not self._made.files:
            return False
        file = self._made.files[0]
        if self.is_stale:
            self._log.forget_file(file.path)
            return False
        self._log.replace_file(
            self.segment, file.name, messages=file.messages, file_bytes=file.file_bytes, last_seq=file.last_seq
        )
        self.segment.has_footer = True
        self.segment.table = None
        return True


def _frames_of(table: SegmentTable) -> tuple[list[_FramePlace], list[BadRange]]:
    """All frames, and what is not known, from one and the same table: the next one may count them otherwise."""
    frames = [
        _FramePlace(
            table.offsets[number],
            table.payload_sizes[number],
            table.first_seqs[number],
            table.seq_of(table.frame_end(number) - 1),
        )
        for number in range(table.frame_count)
    ]
    return frames, list(table.bad)
