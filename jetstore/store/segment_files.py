"""One segment file of a log: what is known of it, and verified reads of its table and frames.

A segment whose footer is damaged or missing is read by scanning its frames; what the frames cannot tell is named in
``SegmentTable.bad`` and in ``SegmentReader.findings``, and never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.columns import Columns, Frame
from jetstore.hot.frame import decode_item, frame_columns
from jetstore.store.footer import SealedTable
from jetstore.store.read_cache import ReadCache
from jetstore.store.salvage import pread_salvaged
from jetstore.store.segment import (
    FRAME_HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    BadRange,
    FrameHead,
    body_offset,
    check_segment_head,
    decode_payload,
    parse_frame_head,
    plain_payload,
    scan_frames,
)
from jetstore.store.segment_table import Place, SegmentTable
from jetstore.store.stored_frame import StoredFrame
from jetstore.store.vfs import Vfs

T = TypeVar("T")

_TABLE = -1
FINDINGS_MAX = 1_000
"""Remembered damage reports of one log; further ones are only counted."""


def segments_dir(uid: int) -> str:
    """Where a group's segments are, below the store root."""
    return f"groups/{uid}/segments"


@dataclass(slots=True, eq=False)
class SegmentFile:
    """A segment as its log knows it. Small, whatever the segment holds."""

    name: str
    path: str
    base_seq: int
    last_seq: int = 0
    messages: int = 0
    """Records in the file, removed ones included."""
    live: int = 0
    first_time_ns: int = 0
    last_time_ns: int = 0
    file_bytes: int = SEGMENT_HEAD_BYTES
    """Frames and footer, what is not written yet included."""
    is_sealed: bool = False
    """Takes no more frames."""
    has_footer: bool = False
    table: SegmentTable | None = None
    """In memory while the segment takes frames and until its footer is in the file."""
    memory: dict[int, Frame] = field(default_factory=dict)
    """Frames by number that are not in the file yet."""
    packed: dict[int, bytes] = field(default_factory=dict)
    """Of those that are being written, the payloads that are compressed or sealed."""
    placed: int = 0
    """Frames before this number have the place and form in which they are written."""
    erased: int = 0
    """How often something of it was erased on purpose since it was last written anew."""
    was_taken: bool = False
    """Something of it was handed out for writing: a file may exist."""
    is_dropped: bool = False


class SegmentReader:
    """Reads of one log's segments."""

    def __init__(self, vfs: Vfs, uid: int, cache: ReadCache, sizes_of: Callable[[Columns], list[int]]) -> None:
        self.vfs = vfs
        self._uid = uid
        self._cache = cache
        self._sizes_of = sizes_of
        self.findings: list[Corruption] = []
        """Damage met so far, each once; the owner reports and clears it."""
        self._reported: set[tuple[str, int]] = set()

    def report(self, error: Corruption) -> None:
        """Remember damage for the owner, once per place."""
        if (error.file, error.offset) not in self._reported and len(self._reported) < FINDINGS_MAX:
            self._reported.add((error.file, error.offset))
            self.findings.append(error)

    # -- tables -----------------------------------------------------------------------------------------------------

    def ask(self, segment: SegmentFile, question: Callable[[SegmentTable], T]) -> T:
        """The answer of a segment's table; from its frames if the footer turns out to be damaged."""
        table = self.table(segment)
        try:
            answer = question(table)
        except FormatUnknown:
            raise
        except Corruption as error:
            if not isinstance(table, SealedTable):
                raise
            self.report(error)
            table = self._rescan(segment)
            return question(table)
        if isinstance(table, SealedTable) and table.kept_bytes != table.weight_bytes:
            self._keep(segment, table)
        return answer

    def _keep(self, segment: SegmentFile, table: SealedTable) -> None:
        table.kept_bytes = table.weight_bytes
        self._cache.put(segment.path, _TABLE, table, table.weight_bytes)

    def table(self, segment: SegmentFile) -> SegmentTable:
        """The segment's table. A sealed one may still raise ``Corruption`` when a section is touched (see ``ask``)."""
        if segment.table is not None:
            return segment.table
        table = self._cache.get(segment.path, _TABLE, SegmentTable)
        if table is None:
            if not segment.has_footer:
                return self._rescan(segment)
            try:
                handle = self._open(segment)
                table = SealedTable(self.vfs, handle, segment.path, segment.file_bytes, self._uid, segment.base_seq)
            except FormatUnknown:
                raise
            except Corruption as error:
                self.report(error)
                return self._rescan(segment)
            self._keep(segment, table)
        elif isinstance(table, SealedTable):
            table.use(self._open(segment))
        return table

    def look_again(self, segment: SegmentFile) -> None:
        """Forget what is remembered of the segment's table: the next question reads it from the disk."""
        self._cache.forget_item(segment.path, _TABLE)

    def look_again_at_damage(self, segment: SegmentFile) -> None:
        """The same where the remembered table lacks something: it may have been a passing read error."""
        table = self._cache.peek(segment.path, _TABLE)
        if isinstance(table, SegmentTable) and table.bad:
            self.look_again(segment)

    def _rescan(self, segment: SegmentFile) -> SegmentTable:
        table = self.scan(segment)
        self._cache.put(segment.path, _TABLE, table, 1_000 + 8 * table.message_count + 200 * table.subject_count)
        return table

    def _open(self, segment: SegmentFile) -> int:
        try:
            return self._cache.handle(segment.path)
        except FileNotFoundError:
            raise self._bad(segment, "segment file is missing", segment.base_seq, segment.last_seq, 0) from None
        except OSError as error:
            what = f"segment file does not open: {error.strerror}"
            raise self._bad(segment, what, segment.base_seq, segment.last_seq, 0) from None

    def _bad(self, segment: SegmentFile, what: str, first_seq: int, last_seq: int, offset: int) -> Corruption:
        return Corruption(f"sequences {first_seq}-{last_seq} unreadable: {what}", file=segment.path, offset=offset)

    def check_head(self, segment: SegmentFile) -> None:
        """Raises ``Corruption`` unless the file starts with this segment's head (or is not written yet)."""
        if segment.was_taken and 0 not in segment.memory:
            head = pread_salvaged(self.vfs, self._open(segment), SEGMENT_HEAD_BYTES, 0)
            check_segment_head(head, self._uid, segment.base_seq, segment.path)

    def scan(self, segment: SegmentFile) -> SegmentTable:
        """The table, rebuilt from the frames. Damage is in its ``bad`` and among the findings."""
        table = SegmentTable(segment.path, segment.base_seq, SEGMENT_HEAD_BYTES)
        pending: list[BadRange] = []
        last_seq = segment.base_seq - 1
        try:
            self.check_head(segment)
            handle = self._open(segment)
        except FormatUnknown:
            raise
        except Corruption as error:
            self.report(error)
            if error.what.endswith("missing"):
                table.bad.append(BadRange(segment.base_seq, segment.last_seq, 0, "segment file is missing"))
                return table
            handle = self._open(segment)
        for item in scan_frames(self.vfs, handle, self._uid, segment.base_seq, segment.file_bytes):
            if table.message_count >= segment.messages and isinstance(item, BadRange):
                break  # The footer, or what is left of it.
            if isinstance(item, BadRange):
                pending.append(item)
                continue
            self._close_gaps(table, pending, last_seq + 1, item.first_seq - 1)
            try:
                stored = self._decode(segment, item, self._read(handle, item))
            except FormatUnknown:
                raise
            except Corruption as error:
                self.report(error)
                known = item.first_seq + item.count - 1
                last_seq = max(last_seq, known)
                table.bad.append(BadRange(item.first_seq, known, item.offset, error.what))
                table.end_offset = item.end
                continue
            table.end_offset = item.offset
            sizes = self._sizes_of(stored.columns)
            frame_bytes = FRAME_HEAD_BYTES + item.payload_bytes
            table.add(
                stored.seqs, stored.times, item.flags, item.payload_bytes, frame_bytes, stored.columns.subjects, sizes
            )
            last_seq = stored.seqs[-1]
        if last_seq < segment.last_seq:
            if not pending:
                pending.append(BadRange(0, 0, table.end_offset, "segment is cut short"))
            self._close_gaps(table, pending, last_seq + 1, segment.last_seq)
        return table

    def _close_gaps(self, table: SegmentTable, pending: list[BadRange], first_seq: int, last_seq: int) -> None:
        """Bytes that are no frame were passed: whatever sequences are missing here may have stood there."""
        if pending and first_seq <= last_seq:
            bad = BadRange(first_seq, last_seq, pending[0].offset, pending[0].what)
            table.bad.append(bad)
            self.report(
                Corruption(
                    f"sequences {first_seq}-{last_seq} unreadable: {bad.what}", file=table.path, offset=bad.offset
                )
            )
        pending.clear()

    # -- frames -----------------------------------------------------------------------------------------------------

    def _read(self, handle: int, head: FrameHead) -> bytes:
        return pread_salvaged(self.vfs, handle, head.payload_bytes, head.offset + FRAME_HEAD_BYTES)

    def _decode(self, segment: SegmentFile, head: FrameHead, payload: bytes) -> StoredFrame:
        try:
            return decode_payload(head, payload, self.vfs.keys)
        except FormatUnknown:
            raise
        except Corruption as error:
            last_seq = head.first_seq + head.count - 1
            raise self._bad(segment, error.what, head.first_seq, last_seq, head.offset) from None

    def read_frame(self, segment: SegmentFile, number: int, first_seq: int) -> tuple[FrameHead, bytes]:
        """Header and payload of a frame in the file; the header is verified and is the table's, the payload is not.

        Raises ``Corruption`` if the frame of this number begins with another sequence: meanwhile the table was made
        from the frames, and counts them otherwise.
        """
        found = self.ask(segment, lambda table: _frame_place(table, number))
        if found is None or found[2] != first_seq:
            raise self._bad(segment, "its table changed", first_seq, first_seq, 0)
        return self.read_at(segment, *found)

    def read_at(self, segment: SegmentFile, offset: int, size: int, first_seq: int) -> tuple[FrameHead, bytes]:
        """The same for a frame at a known place. Raises ``Corruption`` if no such frame stands there."""
        data = pread_salvaged(self.vfs, self._open(segment), FRAME_HEAD_BYTES + size, offset)
        try:
            head = parse_frame_head(data, 0, self._uid, segment.base_seq, offset)
        except FormatUnknown as error:
            error.file = segment.path
            raise
        if head is None or (head.first_seq, head.payload_bytes) != (first_seq, size):
            last_seq = self.ask(segment, lambda table: _last_with(table, first_seq))
            raise self._bad(segment, "frame header", first_seq, last_seq, offset)
        return head, data[FRAME_HEAD_BYTES:]

    def frame(self, segment: SegmentFile, place: Place) -> StoredFrame:
        """The records of a record's frame, from memory, cache or file.

        Raises ``Corruption`` naming file, offset and sequences. A frame goes by its offset: it may have another number
        in the next table of the segment (read from the footer first, then, when that is unreadable, from the frames).
        """
        frame = segment.memory.get(place.frame)
        if frame is not None:
            first, time_ns = place.first_seq, frame.base_time_ns
            return StoredFrame(
                frame_columns(frame), range(first, first + frame.count), range(time_ns, time_ns + frame.count), 0
            )
        return self.frame_at(segment, place.offset, place.payload_bytes, place.first_seq)

    def frame_at(self, segment: SegmentFile, offset: int, size: int, first_seq: int) -> StoredFrame:
        """The records of a frame in the file, or as they were cached from there."""
        stored = self._cache.get(segment.path, offset, StoredFrame)
        if stored is None:
            head, payload = self.read_at(segment, offset, size, first_seq)
            stored = self._decode(segment, head, payload)
            self._cache.put(segment.path, offset, stored, stored.weight_bytes)
        return stored

    def item(self, segment: SegmentFile, place: Place) -> tuple[bytes, int, bytes]:
        """Subject, header length and payload of one record; its frame is verified but not decoded or kept."""
        number, position = place.frame, place.position
        frame = segment.memory.get(number)
        if frame is not None and frame.columns is None:
            return decode_item(frame.body, frame.count, position)
        stored = self._cache.get(segment.path, place.offset, StoredFrame) if frame is None else None
        columns = frame.columns if frame is not None else stored.columns if stored is not None else None
        if columns is not None:
            header_len = columns.header_lens[position] if columns.header_lens else 0
            return columns.subjects[position], header_len, columns.payloads[position]
        head, payload = self.read_at(segment, place.offset, place.payload_bytes, place.first_seq)
        plain = self.verify(segment, head, payload)
        return decode_item(plain[body_offset(head) :], head.count, position)

    def byte_at(self, segment: SegmentFile, offset: int) -> int:
        """One byte of the file; 0 if it cannot be read. Raises ``Corruption`` if the file does not open."""
        return int.from_bytes(pread_salvaged(self.vfs, self._open(segment), 1, offset))

    def verify(self, segment: SegmentFile, head: FrameHead, payload: bytes) -> bytes:
        """The plain payload. Raises ``Corruption`` unless the stored one is what the header says."""
        try:
            return plain_payload(head, payload, self.vfs.keys)
        except Corruption as error:
            last_seq = head.first_seq + head.count - 1
            raise self._bad(segment, error.what, head.first_seq, last_seq, head.offset) from None


def _frame_place(table: SegmentTable, number: int) -> tuple[int, int, int] | None:
    """Offset, payload size and first sequence of a frame."""
    if number >= table.frame_count:
        return None
    return table.offsets[number], table.payload_sizes[number], table.first_seqs[number]


def _last_with(table: SegmentTable, first_seq: int) -> int:
    """The last sequence of the frame that begins with this one, as far as the table knows it."""
    ordinal = table.ordinal_of(first_seq)
    return table.seq_of(table.frame_end(table.frame_of(ordinal)) - 1) if ordinal >= 0 else first_seq
