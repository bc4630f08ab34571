"""A journal file as found: its blocks, which of their sectors are good, zero or bad, and what stands behind them.

Nothing is decided here. A read error makes the sectors it covers bad.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from jetstore.errors import FormatUnknown
from jetstore.limits import MIB, SECTOR_BYTES
from jetstore.store.journal import format as fmt
from jetstore.store.journal.files import file_path
from jetstore.store.journal.format import Header, Line
from jetstore.store.keys import check_plain
from jetstore.store.salvage import pread_salvaged
from jetstore.store.vfs import Vfs
from jetstore.types import Buffer

_ZEROS = bytes(MIB)


@dataclass(slots=True)
class FoundBlock:
    """A block with a readable header."""

    header: Header
    lines: list[Line] | None = None
    """None: unreadable in both head copies."""
    repeated: list[Line] | None = None
    """The previous block's lines as this one repeats them; None: unreadable."""
    peers: bytes | None = None
    """What was heard of other nodes when the block was written; None: unreadable."""
    good: list[bool] = field(default_factory=list)
    """Body sectors, one by one; those without a readable map entry count as good here (their records have a crc)."""
    has_zero_sector: bool = False
    """Some sector that should hold something else is all zero."""
    has_bad_sector: bool = False
    """Some sector is neither what it should be nor zero."""


@dataclass(slots=True)
class FoundFile:
    """One file. ``end`` is where the block after the last found one would start."""

    number: int
    size_bytes: int
    blocks: list[FoundBlock] = field(default_factory=list)
    end: int = 0
    tail: str = "zero"
    """What stands at ``end``: "zero" to the end of the file, "torn" (no head; what is there was never acknowledged),
    "stale" (another file number), "corrupt" (a block that cannot be read at all), "cut" (the file ends here)."""

    has_read_error: bool = False
    """Some sector was refused by the device: what stands there is unknown, not wrong."""

    @property
    def is_blank(self) -> bool:
        """Fully zeroed."""
        return not self.blocks and self.tail == "zero"


def read_all(vfs: Vfs, number: int) -> tuple[bytes, int, bool]:
    """The file up to its last MiB that holds anything (what is beyond reads as zero), its size, and whether a sector
    could not be read: such are filled with something that is neither zero nor a good head sector.
    """
    handle = vfs.open(file_path(number), write=False)
    try:
        size = vfs.size(handle)
        parts: list[bytes] = []
        used = 0
        refused: list[int] = []
        for offset in range(0, size, MIB):
            length = min(MIB, size - offset)
            part = pread_salvaged(vfs, handle, length, offset, refused)
            if part == _ZEROS or (length < MIB and part == _ZEROS[:length]):
                part = _ZEROS[:length]  # the same object each time: a blank file costs no memory
            else:
                used = len(parts) + 1
            parts.append(part)
        return b"".join(parts[:used]), size, bool(refused)
    finally:
        vfs.close(handle)


def scan_file(vfs: Vfs, number: int, journal_id: bytes) -> FoundFile:
    """Everything that can be read of one file.

    FormatUnknown if a block is of a version this build does not know, or hidden by a key that the store does not have;
    Corruption if it is not hidden and must be.
    """
    data, size, has_read_error = read_all(vfs, number)
    found = FoundFile(number, size, has_read_error=has_read_error)
    lsn = 0
    while any_set(data[found.end : found.end + SECTOR_BYTES]) or any_set(memoryview(data)[found.end :]):
        view = memoryview(data)
        header = header_at(view[found.end : found.end + SECTOR_BYTES], found.end, number, journal_id)
        if header is None or header.block_offset != found.end or header.lsn <= lsn:
            header = _next_header(data, view, found.end, number, journal_id, lsn)
        if header is None:
            break
        end = header.block_offset + header.block_bytes
        if end > len(data):
            data += bytes(min(end, size) - len(data))
            view = memoryview(data)
        if header.version == fmt.MARKED_VERSION and (vfs.keys is None or not vfs.keys.knows(header.mark)):
            raise FormatUnknown("journal block of another key", file=file_path(number), offset=header.block_offset)
        if header.version == fmt.VERSION:
            check_plain(vfs.keys, file_path(number), header.block_offset)
        found.blocks.append(_examine(view, header))
        lsn = header.lsn
        found.end = end
    found.tail = _judge_tail(data, size, found.end, number, journal_id)
    return found


def header_at(sector: Buffer, position: int, number: int, journal_id: bytes) -> Header | None:
    """The header of the block of which a head copy starts with this sector, which stands at ``position``."""
    header = fmt.unpack_header(sector)
    if header is None or header.journal_id != journal_id or header.file_number != number:
        return None
    if header.version not in (fmt.VERSION, fmt.MARKED_VERSION):
        raise FormatUnknown(
            "journal block version",
            file=file_path(number),
            offset=position,
            expected=fmt.MARKED_VERSION,
            actual=header.version,
        )
    if position not in (header.block_offset, header.second_offset):
        return None
    if header.block_offset + header.block_bytes > header.file_bytes or header.block_bytes < 2 * header.head_bytes:
        return None
    return header


def _next_header(data: bytes, view: memoryview, start: int, number: int, journal_id: bytes, lsn: int) -> Header | None:
    """The first block at or behind ``start`` of which either head copy begins readably; its lsn is above ``lsn``."""
    position = start - 1
    while True:
        position = data.find(fmt.MAGIC, position + 1)
        if position < 0:
            return None
        if position % SECTOR_BYTES:
            continue
        header = header_at(view[position : position + SECTOR_BYTES], position, number, journal_id)
        if header is not None and header.block_offset >= start and header.lsn > lsn:
            return header


def _examine(view: memoryview, header: Header) -> FoundBlock:
    block = FoundBlock(header)
    pieces: list[Buffer | None] = []
    for sector in range(header.head_sectors):
        good: Buffer | None = None
        for copy in (header.block_offset, header.second_offset):
            at = copy + sector * SECTOR_BYTES
            data = view[at : at + SECTOR_BYTES]
            if len(data) == SECTOR_BYTES and fmt.is_good_sector(header, sector, data):
                good = data[: fmt.PIECE_BYTES]
            else:
                _note_bad(block, data)
        pieces.append(good)
    lines_end = fmt.HEADER_BYTES + header.line_count * fmt.LINE_BYTES
    repeated_end = lines_end + header.repeat_count * fmt.LINE_BYTES
    own = slice_head(pieces, fmt.HEADER_BYTES, lines_end)
    again = slice_head(pieces, lines_end, repeated_end)
    block.lines = None if own is None else fmt.unpack_lines(own)
    block.repeated = None if again is None else fmt.unpack_lines(again)

    count = header.body_sectors
    map_end = repeated_end + 4 * count
    block.peers = slice_head(pieces, map_end, map_end + header.peers_bytes)
    if count:
        body = view[header.body_offset : header.body_offset + count * SECTOR_BYTES]
        whole = len(body) == count * SECTOR_BYTES
        packed = slice_head(pieces, repeated_end, repeated_end + 4 * count)
        if packed is not None and whole and fmt.sector_map(body) == list(struct.unpack(f"<{count}I", packed)):
            block.good = [True] * count
        else:
            _examine_body(block, body, pieces, repeated_end, count)
    return block


def _examine_body(block: FoundBlock, body: memoryview, pieces: list[Buffer | None], map_at: int, count: int) -> None:
    """The slow way, for a block of which something is wrong."""
    for sector in range(count):
        packed = slice_head(pieces, map_at + 4 * sector, map_at + 4 * sector + 4)
        if packed is None:
            block.good.append(True)
            continue
        data = body[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]
        is_good = len(data) == SECTOR_BYTES and fmt.sector_map(data)[0] == struct.unpack("<I", packed)[0]
        block.good.append(is_good)
        if not is_good:
            _note_bad(block, data)


def _note_bad(block: FoundBlock, data: memoryview) -> None:
    if len(data) == SECTOR_BYTES and data == fmt.ZERO_SECTOR:
        block.has_zero_sector = True
    else:
        block.has_bad_sector = True


def slice_head(pieces: list[Buffer | None], start: int, end: int) -> bytes | None:
    """Bytes start … end of the head's stream, or None if a piece of them is unreadable."""
    if start == end:
        return b""
    first, last = start // fmt.PIECE_BYTES, (end - 1) // fmt.PIECE_BYTES
    parts: list[Buffer] = []
    for piece in pieces[first : last + 1]:
        if piece is None:
            return None
        parts.append(piece)
    skip = first * fmt.PIECE_BYTES
    return b"".join(parts)[start - skip : end - skip]


def _judge_tail(data: bytes, size: int, end: int, number: int, journal_id: bytes) -> str:
    """What stands behind the last readable block. See ``FoundFile.tail``.

    A block that was ever durable begins with a head sector and has its second copy at least 4 KiB on. So where the
    first sector is zero, or nothing stands beyond the next 4 KiB, no acknowledged block was damaged by one fault.
    """
    if end + SECTOR_BYTES > size:
        return "cut"
    rest = memoryview(data)[end:]
    if not any_set(rest):
        return "zero"
    first = rest[:SECTOR_BYTES]
    if not any_set(first):
        return "torn"
    header = fmt.unpack_header(first)
    if header is not None and (header.file_number != number or header.journal_id != journal_id):
        return "stale"
    return "corrupt" if any_set(rest[4096:]) else "torn"


def any_set(data: Buffer) -> bool:
    """Whether any byte is not zero."""
    view = memoryview(data)
    return any(
        bytes(view[offset : offset + MIB]) != _ZEROS[: len(view) - offset] for offset in range(0, len(view), MIB)
    )
