"""Bytes of the subject index, and the proof that what is read back is what was written.

A row's value ends in a crc over key and value. The *chunk* is the set of rows changed since a stamp, absolute: it goes
into a checkpoint and, unchanged, into the index transaction. ``VerifiedRows`` keeps 12 bytes for each committed row
(hash of the key, crc of the row) against which every lookup is checked, absence included.

Source: ``docs/format/index.md``.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from hashlib import blake2b
from struct import Struct, pack, unpack_from

from jetstore.errors import Corruption, FormatUnknown, IndexDoubt
from jetstore.hot.crc import crc32c
from jetstore.store.ports import IndexRow
from jetstore.store.sorted_rows import RowOrGone

KEY_SUBJECT_BYTES_MAX = 450
"""Longer subjects are keyed by this prefix and a hash; LMDB keys are ≤ 511 bytes."""
_HASH_BYTES = 24
_UID = Struct(">Q")
UID_BYTES = _UID.size

_ROW = Struct("<QQII")
"""first, last, messages, size of the last one."""
_CRC = Struct("<I")
_STAMP = Struct("<QQQ")
"""stamp, rows, XOR of the mixed row hashes."""

_CHUNK_HEAD = Struct("<4sBB2xQQQI")
"""magic, version, 1 = the whole index, group uid, stamp, previous stamp, rows."""
_CHUNK_MAGIC = b"JSIX"
_GONE = IndexRow(0, 0, 0, 0)
_CHUNK_BLOCK_ROWS = 4_096

_MASK = (1 << 64) - 1


def uid_key(uid: int) -> bytes:
    """Key of a stream's stamp; every row key of the stream starts with it."""
    return _UID.pack(uid)


def row_key(prefix: bytes, subject: bytes) -> bytes:
    """Key of a subject's row. Sorts as subjects do, except among long ones with the same first bytes."""
    if len(subject) <= KEY_SUBJECT_BYTES_MAX:
        return prefix + subject
    digest = blake2b(subject, digest_size=_HASH_BYTES).digest()
    return prefix + subject[:KEY_SUBJECT_BYTES_MAX] + digest


def row_value(key: bytes, subject: bytes, row: IndexRow) -> bytes:
    """Value of a row: numbers, the subject where the key does not have all of it, crc of key and value."""
    body = _ROW.pack(*row)
    if len(subject) > KEY_SUBJECT_BYTES_MAX:
        body += subject
    return body + _CRC.pack(crc32c(body, crc32c(key)))


def parse_row(key: bytes, value: bytes) -> tuple[bytes, IndexRow, int]:
    """Subject, row and crc of a stored row. Raises ``IndexDoubt`` if it is not what was written under this key."""
    crc = crc32c(value[:-4], crc32c(key))
    if len(value) < _ROW.size + 4 or _CRC.unpack_from(value, len(value) - 4)[0] != crc:
        raise IndexDoubt(f"index row {key!r} fails its checksum")
    subject = key[UID_BYTES:] if len(value) == _ROW.size + 4 else value[_ROW.size : -4]
    return subject, IndexRow(*_ROW.unpack_from(value)), crc


def stamp_value(key: bytes, stamp: int, count: int, xor: int) -> bytes:
    """Value of a stream's stamp: which capture the rows are, how many, and the XOR of their hashes."""
    body = _STAMP.pack(stamp, count, xor)
    return body + _CRC.pack(crc32c(body, crc32c(key)))


def parse_stamp(key: bytes, value: bytes) -> tuple[int, int, int]:
    """Stamp, row count and XOR. Raises ``IndexDoubt``."""
    if len(value) != _STAMP.size + 4 or _CRC.unpack_from(value, _STAMP.size)[0] != crc32c(value[:-4], crc32c(key)):
        raise IndexDoubt(f"index stamp {key!r} fails its checksum")
    stamp, count, xor = _STAMP.unpack_from(value)
    return stamp, count, xor


def mixed_hash(key: bytes, row_crc: int) -> int:
    """64 bits of one row for the XOR over all: not linear, so that the same change to two rows does not cancel out."""
    mixed = ((crc32c(key) << 32 | row_crc) + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
    return mixed ^ mixed >> 31


class VerifiedRows:
    """Key hash → row crc of all committed rows of one stream, 12 bytes each, by linear hashing.

    Key hashes are the interpreter's own (keyed per process): nobody can craft subjects whose rows collide.
    """

    __slots__ = ("_crcs", "_hashes", "_mask", "_split", "count")

    _BUCKET_ROWS = 192

    def __init__(self, expected_rows: int = 0) -> None:
        self.count = 0
        level = max(0, (expected_rows // 128).bit_length())
        self._mask = (1 << level) - 1
        self._split = 0
        self._hashes = [array("Q") for _ in range(1 << level)]
        self._crcs = [array("I") for _ in range(1 << level)]

    def _bucket(self, hashed: int) -> int:
        bucket = hashed & self._mask
        return hashed & (self._mask << 1 | 1) if bucket < self._split else bucket

    def find(self, key: bytes) -> int:
        """The row's crc, or -1 if there is no row under this key."""
        hashed = hash(key) & _MASK
        bucket = self._bucket(hashed)
        hashes = self._hashes[bucket]
        at = bisect_left(hashes, hashed)
        return self._crcs[bucket][at] if at < len(hashes) and hashes[at] == hashed else -1

    def put(self, key: bytes, crc: int) -> int:
        """Add or replace a row; the crc that was there, or -1."""
        hashed = hash(key) & _MASK
        bucket = self._bucket(hashed)
        hashes, crcs = self._hashes[bucket], self._crcs[bucket]
        at = bisect_left(hashes, hashed)
        if at < len(hashes) and hashes[at] == hashed:
            old = crcs[at]
            crcs[at] = crc
            return old
        hashes.insert(at, hashed)
        crcs.insert(at, crc)
        self.count += 1
        if self.count > self._BUCKET_ROWS * len(self._hashes):
            self._grow()
        return -1

    def remove(self, key: bytes) -> int:
        """Take a row out; the crc that was there, or -1."""
        hashed = hash(key) & _MASK
        bucket = self._bucket(hashed)
        hashes, crcs = self._hashes[bucket], self._crcs[bucket]
        at = bisect_left(hashes, hashed)
        if at == len(hashes) or hashes[at] != hashed:
            return -1
        self.count -= 1
        del hashes[at]
        return crcs.pop(at)

    def _grow(self) -> None:
        """Split one bucket in two."""
        bit = self._mask + 1
        hashes, crcs = self._hashes[self._split], self._crcs[self._split]
        stay = [(h, c) for h, c in zip(hashes, crcs, strict=True) if not h & bit]
        move = [(h, c) for h, c in zip(hashes, crcs, strict=True) if h & bit]
        self._hashes[self._split] = array("Q", [h for h, _ in stay])
        self._crcs[self._split] = array("I", [c for _, c in stay])
        self._hashes.append(array("Q", [h for h, _ in move]))
        self._crcs.append(array("I", [c for _, c in move]))
        self._split += 1
        if self._split == bit:
            self._mask = self._mask << 1 | 1
            self._split = 0


def encode_chunk(uid: int, stamp: int, previous: int, is_whole: bool, rows: dict[bytes, RowOrGone]) -> bytes:
    """Changed rows (None = gone) in the dict's order, checksummed. ``is_whole``: there are no other rows."""
    blocks = [_CHUNK_HEAD.pack(_CHUNK_MAGIC, 0, int(is_whole), uid, stamp, previous, len(rows))]
    subjects, values = list(rows), list(rows.values())
    for start in range(0, len(subjects), _CHUNK_BLOCK_ROWS):
        stop = start + _CHUNK_BLOCK_ROWS
        blocks += _encode_block(subjects[start:stop], values[start:stop])
    body = b"".join(blocks)
    return body + _CRC.pack(crc32c(body))


def _encode_block(subjects: list[bytes], rows: list[RowOrGone]) -> list[bytes]:
    count = len(subjects)
    if None in rows:
        rows = [row or _GONE for row in rows]
    first, last, messages, sizes = zip(*rows, strict=True)
    return [
        pack(f"<I{count}I", count, *map(len, subjects)),
        pack(f"<{count}Q{count}Q", *first, *last),
        pack(f"<{count}I{count}I", *messages, *sizes),
        *subjects,
    ]


class Chunk:
    """A decoded chunk. Raises ``Corruption`` or ``FormatUnknown`` (``name`` as file)."""

    def __init__(self, data: bytes, name: str = "index chunk") -> None:
        if len(data) < _CHUNK_HEAD.size + 4 or crc32c(data[:-4]) != _CRC.unpack_from(data, len(data) - 4)[0]:
            raise Corruption("index chunk", file=name, offset=0)
        magic, version, is_whole, self.uid, self.stamp, self.previous, self.count = _CHUNK_HEAD.unpack_from(data)
        if magic != _CHUNK_MAGIC or version != 0:
            raise FormatUnknown("index chunk version", file=name, offset=0, expected=0, actual=version)
        self.is_whole = bool(is_whole)
        """There are no other rows."""
        self.rows: list[tuple[bytes, RowOrGone]] = []
        at = _CHUNK_HEAD.size
        while at < len(data) - 4:
            (count,) = _CRC.unpack_from(data, at)
            lens = unpack_from(f"<{count}I", data, at + 4)
            first, last = at + 4 + 4 * count, at + 4 + 12 * count
            longs = unpack_from(f"<{2 * count}Q", data, first)
            ints = unpack_from(f"<{2 * count}I", data, last + 8 * count)
            at = last + 16 * count
            for length, *numbers in zip(lens, longs[:count], longs[count:], ints[:count], ints[count:], strict=True):
                row = IndexRow(*numbers)
                self.rows.append((data[at : at + length], row if row.messages else None))
                at += length
        if len(self.rows) != self.count:
            raise Corruption("index chunk", file=name, offset=at, expected=self.count, actual=len(self.rows))
