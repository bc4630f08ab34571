"""Reading a journal file that is in use again, a bounded piece at a time: damage is found while memory has the entries.

Blocks are told by their own headers, one behind the other, up to the last one that counts; nothing behind it is looked
at. What a recovery would make of the damage is not asked here: whatever is wrong, the file is to be left
(``Journal.leave_file``) and what lives in it written elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from jetstore.errors import Corruption, FormatUnknown
from jetstore.limits import SECTOR_BYTES
from jetstore.store.journal import format as fmt
from jetstore.store.journal.files import file_path
from jetstore.store.journal.format import Header
from jetstore.store.journal.scan import header_at, slice_head
from jetstore.store.salvage import pread_salvaged
from jetstore.store.vfs import Vfs
from jetstore.types import Buffer


class Extent(NamedTuple):
    """A file that is needed."""

    number: int
    last_lsn: int
    """Of its last block that counts."""


def reread_file(
    vfs: Vfs, journal_id: bytes, file_bytes: int, extent: Extent, step_bytes: int, found: list[Corruption]
) -> Iterator[int]:
    """Read all blocks of a file, about ``step_bytes`` at once; yields how many bytes each read took.

    What is wrong is added to ``found``, one finding for each block. The file may be recycled meanwhile: findings count
    only if it is still needed when it was read.
    """
    path = file_path(extent.number)
    step_bytes = max(step_bytes // SECTOR_BYTES, 1) * SECTOR_BYTES
    for item in headers(vfs, journal_id, file_bytes, extent, step_bytes, found):
        if isinstance(item, int):
            yield item
            continue
        bad = 0
        for used, wrong in _check_block(vfs, path, item, step_bytes):
            bad += wrong
            yield used
        if bad:
            found.append(Corruption(f"block {item.lsn}: {bad} bad sectors", file=path, offset=item.block_offset))


def headers(
    vfs: Vfs, journal_id: bytes, file_bytes: int, extent: Extent, step_bytes: int, found: list[Corruption]
) -> Iterator[int | Header]:
    """The headers of a file's blocks, in order; between them how many bytes each read took."""
    path = file_path(extent.number)
    step_bytes = max(step_bytes // SECTOR_BYTES, 1) * SECTOR_BYTES
    position = lsn = 0
    while lsn < extent.last_lsn:
        header: Header | None = None
        start = position
        while header is None and position < file_bytes:
            piece = _read(vfs, path, SECTOR_BYTES if position == start else step_bytes, position)
            if not piece:
                break
            yield len(piece)
            header = _first_header(piece, position, extent.number, journal_id, start, lsn)
            position += len(piece)
        if header is None:
            found.append(Corruption(f"no block after {lsn}, up to {extent.last_lsn}", file=path, offset=start))
            return
        if header.block_offset > start:
            found.append(Corruption(f"blocks before {header.lsn} unreadable", file=path, offset=start))
        yield header
        position, lsn = header.block_offset + header.block_bytes, header.lsn


def _read(vfs: Vfs, path: str, size_bytes: int, offset: int) -> bytes:
    """What can be read; nothing if the file is not there."""
    try:
        handle = vfs.open(path, write=False)
    except OSError:
        return b""
    try:
        return pread_salvaged(vfs, handle, size_bytes, offset)
    except OSError:
        return b""
    finally:
        vfs.close(handle)


def _first_header(data: bytes, position: int, number: int, journal_id: bytes, start: int, lsn: int) -> Header | None:
    """The header of the first block at or behind ``start``, above ``lsn``, of which a head copy begins in ``data``."""
    at = data.find(fmt.MAGIC)
    while at >= 0:
        if at % SECTOR_BYTES == 0:
            try:
                header = header_at(data[at : at + SECTOR_BYTES], position + at, number, journal_id)
            except FormatUnknown:
                header = None
            if header is not None and header.block_offset >= start and header.lsn > lsn:
                return header
        at = data.find(fmt.MAGIC, at + 1)
    return None


def _check_block(vfs: Vfs, path: str, header: Header, step_bytes: int) -> Iterator[tuple[int, int]]:
    """(bytes read, bad sectors in them), piece by piece: both head copies, then the body by its sector map."""
    pieces: list[Buffer | None] = [None] * header.head_sectors
    for start in (header.block_offset, header.second_offset):
        for offset in range(0, header.head_bytes, step_bytes):
            data = _read(vfs, path, min(step_bytes, header.head_bytes - offset), start + offset)
            bad = 0
            first = offset // SECTOR_BYTES
            for sector in range(first, min(first + step_bytes // SECTOR_BYTES, header.head_sectors)):
                at = sector * SECTOR_BYTES - offset
                content = data[at : at + SECTOR_BYTES]
                if len(content) == SECTOR_BYTES and fmt.is_good_sector(header, sector, content):
                    pieces[sector] = content[: fmt.PIECE_BYTES]
                else:
                    bad += 1
            yield len(data), bad
    map_at = fmt.HEADER_BYTES + (header.line_count + header.repeat_count) * fmt.LINE_BYTES
    per_step = step_bytes // SECTOR_BYTES
    for sector in range(0, header.body_sectors, per_step):
        count = min(per_step, header.body_sectors - sector)
        packed = slice_head(pieces, map_at + 4 * sector, map_at + 4 * (sector + count))
        data = _read(vfs, path, count * SECTOR_BYTES, header.body_offset + sector * SECTOR_BYTES)
        bad = count - len(data) // SECTOR_BYTES
        if packed is not None:  # else it was counted above
            expected = struct.unpack(f"<{count}I", packed)
            actual = fmt.sector_map(data[: len(data) - len(data) % SECTOR_BYTES])
            bad += sum(crc != other for crc, other in zip(expected, actual, strict=False))
        yield len(data), bad
