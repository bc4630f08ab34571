"""The buffers of what waits for being written: a frame in its final form and place, or a sealed segment's footer.

A frame is compressed and sealed here, not when it is appended: an acknowledgement never waits for it. Form and place
are decided once, so a take that failed is repeated with the same bytes at the same offsets, whatever the stream wants
by then.
"""

from __future__ import annotations

from jetstore.store.compressed import compressed
from jetstore.store.footer import encode_footer
from jetstore.store.keys import Keys
from jetstore.store.segment import COMPRESSED, SEALED, frame_head, packed_frame_head, segment_head
from jetstore.store.segment_files import SegmentFile


def frame_buffers(
    uid: int, segment: SegmentFile, number: int, is_compressing: bool, keys: Keys | None
) -> tuple[int, list[bytes]]:
    """Offset and buffers of a frame in memory; with the head of the segment if it is the first.

    Frames of a segment are asked for in order; after a failure again from one that was asked for before.
    """
    table = segment.table
    assert table is not None
    frame = segment.memory[number]
    if number >= segment.placed:
        packed = compressed(frame.body) if is_compressing else None
        flags = 0 if packed is None else COMPRESSED
        if keys is not None:
            flags |= SEALED
            packed = keys.seal(frame.body if packed is None else packed)
        if packed is None:
            table.place_frame(number, 0, len(frame.body))
        else:
            segment.packed[number] = packed
            table.place_frame(number, flags, len(packed))
        segment.placed = number + 1
        segment.file_bytes = table.end_offset
    offset, first_seq = table.offsets[number], table.first_seqs[number]
    payload = segment.packed.get(number)
    if payload is None:
        buffers = [frame_head(uid, segment.base_seq, offset, first_seq, frame), frame.body]
    else:
        flags = table.flags[number]
        buffers = [packed_frame_head(uid, segment.base_seq, offset, first_seq, frame, flags, payload), payload]
    if number:
        return offset, buffers
    return 0, [segment_head(uid, segment.base_seq), *buffers]


def footer_buffers(uid: int, segment: SegmentFile, keys: Keys | None) -> tuple[int, list[bytes]]:
    """The same for the footer, which the segment has from now on. All frames were asked for before."""
    table = segment.table
    assert table is not None
    footer = encode_footer(table, uid, segment.last_seq, keys)
    segment.has_footer = True
    segment.file_bytes = table.end_offset + len(footer)
    return table.end_offset, [footer]
