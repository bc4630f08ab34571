"""Records of a stream on their way from one replica to another: frames bound to the stream, not to a place in a file.

A range of sequences is a sequence of *records*: frames exactly as a segment has them, except that their header's
checksum is seeded as if they stood at offset 0 of a segment with base 0; and *notes* (``MISSING``: here these sequences
are unreadable; ``END``: everything up to here was sent). Records come in the order of their sequences. What was removed
may come along; what is live and neither sent nor reported as missing does not exist.

Source: ``docs/format/catch-up.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.crc import crc32c
from jetstore.hot.frame import encode_columns
from jetstore.limits import Limits
from jetstore.store.segment import (
    FRAME_HEAD_BYTES,
    SEALED,
    FrameHead,
    decode_payload,
    moved_frame_head,
    opened_frame,
    parse_frame_head,
    sparse_frame,
)
from jetstore.store.segment_table import SegmentTable

if TYPE_CHECKING:
    from jetstore.store.message_log import SegmentedLog
    from jetstore.store.segment_files import SegmentFile

MISSING = 1
END = 2
_NOTE = Struct("<2sBxQQI")
"""magic, kind, first and last sequence, crc seeded with the group's uid."""
_NOTE_MAGIC = b"JN"
NOTE_BYTES = _NOTE.size
FRAME_OVERHEAD_BYTES = 1 << 20
"""What a frame may have beside the payloads of its records: columns and subjects."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something said about a closed range of sequences."""

    kind: int
    first_seq: int
    last_seq: int


Record = tuple[FrameHead, bytes]
"""A verified frame: header and payload. On its way never sealed: every node has its own keys."""


def encode_note(uid: int, note: Note) -> bytes:
    """The bytes of a note."""
    body = _NOTE.pack(_NOTE_MAGIC, note.kind, note.first_seq, note.last_seq, 0)[:-4]
    return body + int(crc32c(body, uid & 0xFFFFFFFF)).to_bytes(4, "little")


class RecordParser:
    """Bytes as they arrive, in pieces of any size → verified frames and notes. Raises ``Corruption`` for good."""

    def __init__(self, uid: int, limits: Limits) -> None:
        """Records of this group; a longer frame than one message may have is refused before it is gathered."""
        self._uid = uid
        self._buffer = bytearray()
        self._frame_bytes_max = limits.record_bytes_max + FRAME_OVERHEAD_BYTES

    @property
    def is_between(self) -> bool:
        """Nothing of an incomplete record has arrived."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Record | Note]:
        """The records completed by these bytes, in order."""
        buffer = self._buffer
        buffer += data
        found: list[Record | Note] = []
        at = 0
        while at < len(buffer):
            if buffer[at : at + 2] == _NOTE_MAGIC:
                if len(buffer) < at + NOTE_BYTES:
                    break
                found.append(self._note(bytes(buffer[at : at + NOTE_BYTES])))
                at += NOTE_BYTES
                continue
            if len(buffer) < at + FRAME_HEAD_BYTES:
                break
            head = parse_frame_head(bytes(buffer[at : at + FRAME_HEAD_BYTES]), 0, self._uid, 0, 0)
            if head is None or head.payload_bytes > self._frame_bytes_max or head.flags & SEALED:
                raise Corruption("frame header of a range", file="range", offset=at)
            end = at + FRAME_HEAD_BYTES + head.payload_bytes
            if len(buffer) < end:
                break
            payload = bytes(buffer[at + FRAME_HEAD_BYTES : end])
            if crc32c(payload) != head.payload_crc:
                raise Corruption("frame payload of a range", file="range", offset=at)
            found.append((head, payload))
            at = end
        del buffer[:at]
        return found

    def _note(self, data: bytes) -> Note:
        _, kind, first, last, crc = _NOTE.unpack(data)
        if crc32c(data[:-4], self._uid & 0xFFFFFFFF) != crc:
            raise Corruption("note of a range", file="range", offset=0)
        if kind not in (MISSING, END):
            raise FormatUnknown("note of a range", file="range", offset=0, actual=kind)
        return Note(kind, first, last)


# -- reading a range of a log ------------------------------------------------------------------------------------------


def read_range(log: SegmentedLog, first_seq: int, last_seq: int, budget_bytes: int) -> tuple[list[bytes], int]:
    """Buffers with the records of a closed range as it is now, and the sequence to go on from (beyond it: complete).

    Stops after about ``budget_bytes``. Frames without a live record are left out; a frame that cannot be read or fails
    its checksum is reported as missing, never sent. The log may change in any way between two calls.
    """
    buffers: list[bytes] = []
    last = min(last_seq, log.last_seq)
    at = max(first_seq, log.first_seq)
    used = 0
    while at <= last and used < budget_bytes:
        at = log.dead.next_absent(at)
        if at > last:
            break
        segment = log.segment_at(at)
        step = _Step(log, segment, at, first_seq, last)
        buffers += step.buffers
        used += sum(map(len, step.buffers))
        at = step.next_seq
    return buffers, at if at <= last else last_seq + 1


def _frame_at(table: SegmentTable, seq: int) -> tuple[int, int, int] | None:
    """Number, first and last sequence of the frame that holds a record; None if the table has no such record."""
    ordinal = table.ordinal_of(seq)
    if ordinal < 0:
        return None
    number = table.frame_of(ordinal)
    return number, table.first_seqs[number], table.seq_of(table.frame_end(number) - 1)


def _hole_at(table: SegmentTable, seq: int, segment_last: int) -> int:
    """The last sequence of the hole in the table that ``seq`` is in."""
    ordinal = table.ordinal_from(seq)
    return table.seq_of(ordinal) - 1 if ordinal < table.message_count else max(segment_last, seq)


class _Step:
    """One frame of a range, or what is reported in its place."""

    def __init__(self, log: SegmentedLog, segment: SegmentFile, at: int, first_seq: int, last_seq: int) -> None:
        self.buffers: list[bytes] = []
        reader = log.reader
        end = segment.last_seq
        try:
            place = reader.ask(segment, partial(_frame_at, seq=at))
            if place is None:
                end = reader.ask(segment, partial(_hole_at, seq=at, segment_last=segment.last_seq))
                raise Corruption("not in its segment", file=segment.path, offset=0)
            number, first, end = place
            head, payload = _whole(log, segment, number, first)
        except FormatUnknown:
            raise
        except Corruption as error:
            reader.report(error)
            end = max(end, at)
            self.buffers.append(encode_note(log.uid, Note(MISSING, at, min(end, last_seq))))
            self.next_seq = end + 1
            return
        self.next_seq = end + 1
        if first >= first_seq and end <= last_seq:
            self.buffers += [moved_frame_head(head, log.uid, 0, 0), payload]
        else:
            self.buffers += _cut(log.uid, head, payload, first_seq, last_seq)


def _whole(log: SegmentedLog, segment: SegmentFile, number: int, first_seq: int) -> Record:
    frame = segment.memory.get(number)
    if frame is not None:
        head = FrameHead(0, 0, frame.count, first_seq, frame.base_time_ns, len(frame.body), frame.body_crc)
        return head, frame.body
    head, payload = log.reader.read_frame(segment, number, first_seq)
    log.reader.verify(segment, head, payload)
    return opened_frame(log.reader.vfs.keys, head, payload)


def _cut(uid: int, head: FrameHead, payload: bytes, first_seq: int, last_seq: int) -> list[bytes]:
    """The records of a frame that are inside the closed range, as a frame."""
    stored = decode_payload(head, payload, None)
    inside = [at for at, seq in enumerate(stored.seqs) if first_seq <= seq <= last_seq]
    if not inside:
        return []
    part = stored.pick(inside)
    frame = encode_columns(part.columns, part.times[0])
    return sparse_frame(uid, 0, 0, list(part.seqs), list(part.times), frame)[0]
