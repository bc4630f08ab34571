"""A journal block as bytes (``docs/format/journal.md``).

::

    | head | body, padded to 512 | zeros | the same head again |      a multiple of 4 KiB

The head is one stream of bytes cut into pieces of 508, each followed by its own crc32c: one 512-byte sector. The crc is
seeded with (journal id, file number, lsn, sector number), so a sector that belongs elsewhere is never taken for good.
In an encrypted store bodies are hidden by the stream of their file, whose mark is in each header (version 1); checksums
are those of what stands in the file.
The stream: header (128) · this block's lines (64 each) · the previous block's lines again · the sector map (a crc32c
for each 512 bytes of body) · what was heard of other nodes. The two copies of any head sector are at least 4 KiB apart.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from jetstore.hot.crc import crc32c
from jetstore.limits import BLOCK_ALIGN_BYTES, SECTOR_BYTES
from jetstore.store.keys import NO_MARK
from jetstore.types import Buffer

MAGIC = b"JSBLOCK\x00"
VERSION = 0
MARKED_VERSION = 1
PIECE_BYTES = SECTOR_BYTES - 4
JOURNAL_ID_BYTES = 16

_HEADER = struct.Struct("<8sHHHHI16sQQQQQQIIIIIII16s")
HEADER_BYTES = _HEADER.size
assert HEADER_BYTES == 128
_SEED = struct.Struct("<16sQQI")
_CRC = struct.Struct("<I")
_PIECE = struct.Struct(f"{PIECE_BYTES}s")
_SEALED_PIECE = struct.Struct(f"<{PIECE_BYTES}sI")

_LINE = struct.Struct("<BBHIQQQQIIIIQ")
LINE_BYTES = _LINE.size
assert LINE_BYTES == 64

ZERO_SECTOR = bytes(SECTOR_BYTES)
_SECTOR = struct.Struct(f"{SECTOR_BYTES}s")
_SECTORS = struct.Struct(f"{SECTOR_BYTES}s" * 64)

# Kinds of line that only the journal itself writes; the others are ``ports.Kind``.
KIND_ROW = 64
"""Group table: a group's generation, term, vote and evidenced last. Its checkpoint follows as a CKPT line, then one RUN
line for each run of live entries of one term in one file."""
KIND_RUN = 66
"""Group table: entries first_index … last_index have this term and stand in the file ``aux`` (0 = nowhere: FAULTY)."""
KIND_FILES = 65
"""A file that is still needed (first_index = its number, aux = lsn of its last block that counts, 0 = it is the current
one, message_count = blocks of the group table that the list ends, 0 = it stands alone). All FILES lines of one block
together are the list."""

FLAG_HARD_UNKNOWN = 1
"""On a ROW: term and vote were unreadable everywhere when the row was written."""
FLAG_LAST_UNKNOWN = 2
"""On a ROW: so was the last index."""
FLAG_STOPPED = 4
"""On a ROW: the group has a line of a kind that the writer of the row did not know."""


class Line(NamedTuple):
    """One line. ``offset`` counts from the start of the file that holds the record's body."""

    kind: int
    flags: int
    message_count: int
    group: int
    term: int
    prev_term: int
    first_index: int
    last_index: int
    offset: int
    length: int
    crc: int
    aux: int


@dataclass(slots=True)
class Header:
    """The first 128 bytes of a head. Never changed once made; not ``frozen``, because one is made for every block."""

    journal_id: bytes
    file_number: int
    lsn: int
    block_offset: int
    """Where the block starts in its file."""
    file_bytes: int
    """Size of every file of this journal."""
    spare_through: int
    """The highest file number that durably existed when the block was written."""
    previous_file: int
    """The file that holds the bodies of the repeated lines (0 = there is no previous block)."""
    block_bytes: int
    head_sectors: int
    body_bytes: int
    line_count: int
    repeat_count: int
    previous_crc: int
    """``header_crc`` of the last block that counts before this one (0 = none)."""
    mark: bytes = NO_MARK
    """Of the file's stream (``keys.py``); all zero: bodies are stored as they are."""
    version: int = VERSION
    table_part: int = 0
    """1-based number of this block among the group-table blocks at the head of a file; 0 = not one."""
    table_parts: int = 0
    peers_bytes: int = 0
    """What was heard of other nodes, at the end of the head's stream."""
    header_crc: int = 0
    """The crc of the first head sector: names this block, all its lines and (through them) its bodies."""

    @property
    def head_bytes(self) -> int:
        return self.head_sectors * SECTOR_BYTES

    @property
    def body_sectors(self) -> int:
        return sectors(self.body_bytes)

    @property
    def body_offset(self) -> int:
        """Where the body starts in the file."""
        return self.block_offset + self.head_bytes

    @property
    def second_offset(self) -> int:
        """Where the second copy of the head starts in the file."""
        return self.block_offset + self.block_bytes - self.head_bytes


def sectors(size_bytes: int) -> int:
    """Sectors that hold this many bytes."""
    return -(-size_bytes // SECTOR_BYTES)


def head_sectors(line_count: int, repeat_count: int, body_bytes: int, peers_bytes: int = 0) -> int:
    """Sectors of one head copy."""
    stream = HEADER_BYTES + (line_count + repeat_count) * LINE_BYTES + 4 * sectors(body_bytes) + peers_bytes
    return -(-stream // PIECE_BYTES)


def block_bytes(head_sector_count: int, body_bytes: int) -> int:
    """Size of a block: both heads and the body, on 4 KiB, with the copies of a head sector 4 KiB apart."""
    head = head_sector_count * SECTOR_BYTES
    size = max(2 * head + sectors(body_bytes) * SECTOR_BYTES, BLOCK_ALIGN_BYTES + head)
    return -(-size // BLOCK_ALIGN_BYTES) * BLOCK_ALIGN_BYTES


def pack_lines(lines: list[Line]) -> bytes:
    """Lines as bytes."""
    return b"".join([pack_line(*line) for line in lines])


def pack_line(
    kind: int,
    flags: int,
    message_count: int,
    group: int,
    term: int,
    prev_term: int,
    first: int,
    last: int,
    offset: int,
    length: int,
    crc: int,
    aux: int,
) -> bytes:
    """A line's fields as bytes."""
    return _LINE.pack(
        kind, flags, 0, message_count, group, term, prev_term, first, last - first + 1, offset, length, crc, aux
    )


def unpack_lines(data: Buffer) -> list[Line]:
    """The lines in ``data``, whose length is a multiple of 64."""
    return [
        Line(kind, flags, count, group, term, prev_term, first, first + span - 1, offset, length, crc, aux)
        for kind, flags, _, count, group, term, prev_term, first, span, offset, length, crc, aux in _LINE.iter_unpack(
            data
        )
    ]


def sector_map(body: Buffer) -> list[int]:
    """crc32c of each 512 bytes of a body whose length is a multiple of 512."""
    whole = len(body) - len(body) % _SECTORS.size
    crcs: list[int] = []
    for offset in range(0, whole, _SECTORS.size):  # cutting by unpack costs half of what slicing does
        crcs += map(crc32c, _SECTORS.unpack_from(body, offset))
    crcs += [crc32c(sector) for (sector,) in _SECTOR.iter_unpack(memoryview(body)[whole:])]
    return crcs


def _seed(journal_id: bytes, file_number: int, lsn: int, sector: int) -> int:
    return crc32c(_SEED.pack(journal_id, file_number, lsn, sector))


def pack_head(header: Header, lines: bytes, repeated: bytes, crcs: list[int], peers: bytes = b"") -> tuple[bytes, int]:
    """One head copy and its header crc. ``header.header_crc`` is not looked at."""
    rest = b"".join((lines, repeated, struct.pack(f"<{len(crcs)}I", *crcs), peers))
    first = _HEADER.pack(
        MAGIC,
        VERSION if header.mark == NO_MARK else MARKED_VERSION,
        header.table_part,
        header.table_parts,
        0,
        header.head_sectors,
        header.journal_id,
        header.file_number,
        header.lsn,
        header.block_offset,
        header.file_bytes,
        header.spare_through,
        header.previous_file,
        header.block_bytes,
        header.body_bytes,
        header.line_count,
        header.repeat_count,
        header.previous_crc,
        crc32c(rest),
        len(peers),
        header.mark,
    )
    count = header.head_sectors
    used = HEADER_BYTES + len(rest)
    stream = b"".join((first, rest, bytes(count * PIECE_BYTES - used)))
    journal_id, number, lsn = header.journal_id, header.file_number, header.lsn
    pieces = _PIECE.unpack(stream) if count == 1 else [piece for (piece,) in _PIECE.iter_unpack(stream)]
    crcs = [crc32c(piece, _seed(journal_id, number, lsn, sector)) for sector, piece in enumerate(pieces)]
    return b"".join([_SEALED_PIECE.pack(*sealed) for sealed in zip(pieces, crcs, strict=True)]), crcs[0]


def unpack_header(sector: Buffer) -> Header | None:
    """The header in a first head sector, or None if the sector is not a good one of *some* block.

    The caller decides whether journal id, file number, position and lsn are the ones that belong there.
    """
    if len(sector) < SECTOR_BYTES or bytes(sector[: len(MAGIC)]) != MAGIC:
        return None
    (
        _,
        version,
        table_part,
        table_parts,
        _,
        head_sector_count,
        journal_id,
        file_number,
        lsn,
        block_offset,
        file_bytes,
        spare_through,
        previous_file,
        size,
        body_bytes,
        line_count,
        repeat_count,
        previous_crc,
        _,
        peers_bytes,
        mark,
    ) = _HEADER.unpack_from(sector)
    (crc,) = _CRC.unpack_from(sector, PIECE_BYTES)
    if crc32c(memoryview(sector)[:PIECE_BYTES], _seed(journal_id, file_number, lsn, 0)) != crc:
        return None
    return Header(
        journal_id=journal_id,
        file_number=file_number,
        lsn=lsn,
        block_offset=block_offset,
        file_bytes=file_bytes,
        spare_through=spare_through,
        previous_file=previous_file,
        block_bytes=size,
        head_sectors=head_sector_count,
        body_bytes=body_bytes,
        line_count=line_count,
        repeat_count=repeat_count,
        previous_crc=previous_crc,
        mark=mark,
        version=version,
        table_part=table_part,
        table_parts=table_parts,
        peers_bytes=peers_bytes,
        header_crc=crc,
    )


def is_good_sector(header: Header, sector: int, data: Buffer) -> bool:
    """Whether ``data`` is head sector number ``sector`` of the block with this header."""
    (crc,) = _CRC.unpack_from(data, PIECE_BYTES)
    seed = _seed(header.journal_id, header.file_number, header.lsn, sector)
    return crc32c(memoryview(data)[:PIECE_BYTES], seed) == crc  # type: ignore[no-any-return]  # the library has no stubs
