"""A message log brought back to what is readable: for ``jetstore recover``, never for a running server.

Frames are the only truth here. A segment file with damage in it is replaced by a new one, under a new name, that has
its readable frames; the old one stays as it is until the head that names the new one is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jetstore.errors import Corruption
from jetstore.store.footer import SealedTable
from jetstore.store.log_checkpoint import SavedParts
from jetstore.store.salvage import pread_salvaged
from jetstore.store.segment import (
    SEGMENT_HEAD_BYTES,
    BadRange,
    FrameHead,
    decode_payload,
    moved_frame_head,
    scan_frames,
    segment_head,
)
from jetstore.store.segment_files import SegmentFile, segments_dir
from jetstore.store.seqset import SeqSet
from jetstore.store.vfs import Vfs

if TYPE_CHECKING:
    from jetstore.store.message_log import SegmentedLog

Write = Callable[[str, int, Sequence[bytes]], object]
"""Path, offset, buffers: write them to a segment file (``Writer.write_segment``)."""


@dataclass(slots=True)
class Mended:
    """What was done to a log."""

    lost: list[tuple[int, int]] = field(default_factory=list)
    """Closed ranges in which live messages were unreadable; they count as removed now."""
    lost_messages: int = 0
    has_end: bool = True
    """False: sequences behind the last one found may have been given, and everything stored at them removed."""


@dataclass(slots=True)
class _Salvaged:
    """The readable frames of one segment file."""

    frames: list[tuple[FrameHead, bytes]] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    highest_seq: int = 0
    """Of any frame header, readable or not."""
    is_whole: bool = True
    """Nothing between the frames, and all of them readable."""
    end: int = SEGMENT_HEAD_BYTES


def _salvage(log: SegmentedLog, vfs: Vfs, segment: SegmentFile) -> _Salvaged:
    found = _Salvaged()
    try:
        handle = vfs.open(segment.path, write=False)
    except OSError:
        found.is_whole = False
        return found
    try:
        pending = False
        for item in scan_frames(vfs, handle, log.uid, segment.base_seq, vfs.size(handle)):
            if isinstance(item, BadRange):
                pending = True
                continue
            found.is_whole = found.is_whole and not pending
            found.highest_seq = max(found.highest_seq, item.first_seq + item.count - 1)
            payload = pread_salvaged(vfs, handle, item.payload_bytes, item.end - item.payload_bytes)
            try:
                stored = decode_payload(item, payload, vfs.keys)
            except Corruption:
                found.is_whole = False
                continue
            if found.seqs and stored.seqs[0] <= found.seqs[-1]:
                continue
            found.frames.append((item, payload))
            found.seqs += stored.seqs
            found.times += stored.times
            found.end = item.end
    finally:
        vfs.close(handle)
    return found


def _replace(log: SegmentedLog, segment: SegmentFile, salvaged: _Salvaged, write: Write) -> None:
    """Write the readable frames to a new file and let the segment be that."""
    stem, _, number = segment.name.removesuffix(".seg").partition("-")
    name = f"{stem}-{int(number or 0) + 1}.seg"
    buffers = [segment_head(log.uid, segment.base_seq)]
    at = SEGMENT_HEAD_BYTES
    for head, payload in salvaged.frames:
        buffers += [moved_frame_head(head, log.uid, segment.base_seq, at), payload]
        at += len(buffers[-2]) + len(payload)
    write(f"{segments_dir(log.uid)}/{name}", 0, buffers)
    log.replace_file(segment, name, messages=len(salvaged.seqs), file_bytes=at, last_seq=salvaged.seqs[-1])
    segment.is_sealed = segment.was_taken = True
    segment.has_footer = False
    segment.table = None


def drop_unreadable(log: SegmentedLog, vfs: Vfs, write: Write) -> Mended:
    """Remove what cannot be read. Nothing may wait for writing; counters and index are the owner's to bring up."""
    mended = Mended()
    for segment in log.segment_files():
        assert not segment.memory, "frames were not written"
        if _is_whole(log, segment):
            continue
        salvaged = _salvage(log, vfs, segment)
        there = SeqSet()
        for seq in salvaged.seqs:
            there.add(seq)
        live = log.dead.absent(max(segment.base_seq, log.first_seq), segment.last_seq, segment.last_seq)
        lost = [seq for seq in live if seq not in there]
        for seq in lost:
            log.dead.add(seq)
            if mended.lost and mended.lost[-1][1] == seq - 1:
                mended.lost[-1] = (mended.lost[-1][0], seq)
            else:
                mended.lost.append((seq, seq))
        mended.lost_messages += len(lost)
        segment.live -= len(lost)
        if segment.live and salvaged.seqs:
            _replace(log, segment, salvaged, write)
        else:
            log._drop(segment)
    log._advance(log.first_seq)
    return mended


def _is_whole(log: SegmentedLog, segment: SegmentFile) -> bool:
    """Whether head, frames and footer of the file are as they were written."""
    reader = log.reader
    try:
        reader.check_head(segment)
        table = reader.table(segment)
        if segment.has_footer and (not isinstance(table, SealedTable) or table.verify()):
            return False
        return not reader.scan(segment).bad and table.message_count == segment.messages
    except Corruption:
        return False


def rebuild_log(log: SegmentedLog, vfs: Vfs, write: Write) -> Mended:
    """Make an empty log hold every record of every segment file. What had been removed from them is back."""
    found: dict[int, tuple[SegmentFile, _Salvaged]] = {}
    highest = 0
    directory = segments_dir(log.uid)
    for name in vfs.list_dir(directory):
        stem = name.removesuffix(".seg").partition("-")[0]
        if not name.endswith(".seg") or not stem.isdigit():
            continue
        segment = SegmentFile(name, f"{directory}/{name}", int(stem))
        salvaged = _salvage(log, vfs, segment)
        highest = max(highest, salvaged.highest_seq, segment.base_seq - 1)
        other = found.get(segment.base_seq)
        if salvaged.seqs and (other is None or len(other[1].seqs) < len(salvaged.seqs)):  # compacted ones have fewer
            found[segment.base_seq] = segment, salvaged
    segments: list[SegmentFile] = []
    dead = SeqSet()
    end = min(found, default=highest + 1) - 1
    first = end + 1
    for base in sorted(found):
        segment, salvaged = found[base]
        if base <= end:
            continue
        for seq in salvaged.seqs:
            if seq > end + 1:
                dead.add_range(end + 1, seq - 1)
            end = seq
        segment.last_seq = end
        segment.messages = segment.live = len(salvaged.seqs)
        segment.first_time_ns, segment.last_time_ns = salvaged.times[0], salvaged.times[-1]
        _replace(log, segment, salvaged, write)
        segments.append(segment)
    if highest > end:
        dead.add_range(end + 1, highest)
    log.adopt(first, max(end, highest), dead, segments, SavedParts())
    log._advance(first)
    return Mended(has_end=False)


def live_totals(log: SegmentedLog) -> tuple[int, int, int]:
    """Live messages, their bytes as users see them, and the bytes of the largest, counted one by one."""
    messages = size = largest = 0
    for segment in log.segment_files():
        table = log.reader.table(segment)
        seqs = table.seqs_of(range(table.message_count))
        sizes = [n for seq, n in zip(seqs, table.sizes, strict=True) if seq >= log.first_seq and seq not in log.dead]
        messages += len(sizes)
        size += sum(sizes)
        largest = max([largest, *sizes])
    return messages, size, largest
