"""The footer of a sealed segment: its table as checksummed sections, a directory, and a trailer at the file's end.

A reader takes the trailer and directory with one read, then only the sections a question needs: the frame table for
reads by sequence, subject hashes to learn that a segment lacks a subject, ids for searches, sizes for removals. Every
section has its crc in the directory, the directory and trailer share one seeded with group uid and base sequence.

In an encrypted store each section is sealed (version 1); directory and trailer never are.

Source: ``docs/format/segment.md``, "Footer".
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from itertools import accumulate, pairwise
from struct import Struct, pack
from typing import Any

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.crc import crc32c
from jetstore.store.keys import Keys, check_plain, opened
from jetstore.store.ports import SubjectFilter
from jetstore.store.salvage import pread_salvaged
from jetstore.store.segment_table import SegmentTable
from jetstore.store.sorted_rows import filter_ranges
from jetstore.store.vfs import Vfs

_TRAILER = Struct("<4sBBHIIIQQQII")
"""magic, version, sections, zero, footer offset (= end of frames), frames, messages, base_seq, last_seq, group uid,
subjects, crc of directory and trailer."""
_MAGIC = b"JSFT"
_VERSION = 0
_SEALED_VERSION = 1
_ENTRY = Struct("<IIII")
"""Section kind, offset from the footer's start, length, crc."""

FRAMES, IDS, SIZES, TIMES, SEQS, SUBJECTS, HASHES = range(1, 8)
_FRAME_COLUMNS = (("first_seqs", "Q"), ("ordinals", "I"), ("offsets", "I"), ("payload_sizes", "I"), ("base_times", "q"))
_HASHES_FROM = 64
"""Segments with fewer subjects have no hash section: their subject section is as small."""


def _bytes(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _column(typecode: str, data: bytes | memoryview) -> array[Any]:
    column = array(typecode)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def encode_footer(table: SegmentTable, uid: int, last_seq: int, keys: Keys | None) -> bytes:
    """The footer of a table, to be written at ``table.end_offset``; as long each time, whatever seals it."""
    sections: list[tuple[int, bytes]] = []
    frames = [_bytes(getattr(table, name)) for name, _ in _FRAME_COLUMNS]
    sections.append((FRAMES, b"".join([*frames, table.flags.tobytes()])))
    if table.subject_count > 1:
        sections.append((IDS, _bytes(table.ids)))
    same_size = table.sizes.count(table.sizes[0]) == table.message_count
    sections.append((SIZES, pack("<I", table.sizes[0]) if same_size else _bytes(table.sizes)))
    if table.times:
        sections.append((TIMES, _bytes(table.times)))
    if table.seqs:
        sections.append((SEQS, _bytes(table.seqs)))
    ordered = sorted(table.subjects)
    ids = array("H", map(table.subject_ids.__getitem__, ordered))
    ends = array("I", accumulate(map(len, ordered), initial=0))
    sections.append((SUBJECTS, b"".join([_bytes(ids), _bytes(ends), *ordered])))
    if len(ordered) >= _HASHES_FROM:
        sections.append((HASHES, _bytes(array("I", sorted(map(crc32c, ordered))))))
    if keys is not None:
        sections = [(kind, keys.seal(data)) for kind, data in sections]
    directory = []
    at = 0
    for kind, data in sections:
        directory.append(_ENTRY.pack(kind, at, len(data), crc32c(data)))
        at += len(data)
    trailer = _TRAILER.pack(
        _MAGIC,
        _VERSION if keys is None else _SEALED_VERSION,
        len(sections),
        0,
        table.end_offset,
        table.frame_count,
        table.message_count,
        table.base_seq,
        last_seq,
        uid,
        len(ordered),
        0,
    )[:-4]
    tail = b"".join([*directory, trailer])
    return b"".join([*[data for _, data in sections], tail, pack("<I", crc32c(tail))])


class SealedTable(SegmentTable):
    """The table of a sealed segment. Sections are read, verified and kept when first touched.

    Raises ``Corruption`` naming file and offset from wherever a damaged section is needed.
    """

    __slots__ = ("_handle", "_hashes", "_is_sealed", "_names", "_sections", "_vfs", "kept_bytes", "weight_bytes")

    def __init__(self, vfs: Vfs, handle: int, path: str, file_bytes: int, uid: int, base_seq: int) -> None:
        """Reads trailer and directory of a file of ``file_bytes``. ``handle`` is replaced by ``use`` before reads."""
        self._vfs = vfs
        self._handle = handle
        self.path = path
        self.weight_bytes = 1_000
        """What it holds in memory, about; grows as sections are touched."""
        self.kept_bytes = 0
        """The weight under which a cache keeps it."""
        guess = min(file_bytes, _TRAILER.size + 8 * _ENTRY.size)
        tail = pread_salvaged(vfs, handle, guess, file_bytes - guess)
        at = file_bytes - _TRAILER.size
        if len(tail) < _TRAILER.size or tail[-_TRAILER.size :][:4] != _MAGIC:
            raise Corruption("segment trailer", file=path, offset=max(at, 0))
        fields = _TRAILER.unpack_from(tail, len(tail) - _TRAILER.size)
        _, version, section_count, _, footer_offset, _, messages, found_base, _, found_uid, subjects, crc = fields
        directory_bytes = section_count * _ENTRY.size
        body = tail[max(0, len(tail) - _TRAILER.size - directory_bytes) : -4]
        if crc32c(body) != crc or len(body) != directory_bytes + _TRAILER.size - 4:
            raise Corruption("segment trailer", file=path, offset=at - directory_bytes)
        if version not in (_VERSION, _SEALED_VERSION):
            raise FormatUnknown("footer version", file=path, offset=at, expected=_SEALED_VERSION, actual=version)
        self._is_sealed = version == _SEALED_VERSION
        if not self._is_sealed:
            check_plain(vfs.keys, path, at)
        if (found_uid, found_base) != (uid, base_seq):
            raise Corruption("another segment's footer", file=path, offset=at, expected=base_seq, actual=found_base)
        self.base_seq = base_seq
        self.end_offset = footer_offset
        self.message_count = messages
        self.subject_count = subjects
        self.bad = []
        self._memo = {}
        self._sections: dict[int, tuple[int, int, int]] = {
            kind: (footer_offset + offset, length, section_crc)
            for kind, offset, length, section_crc in _ENTRY.iter_unpack(body[:directory_bytes])
        }
        self._names: tuple[array[int], array[int], bytes] | None = None
        self._hashes: array[int] | None = None

    @property
    def is_sealed(self) -> bool:
        """Whether its sections are."""
        return bool(self._is_sealed)

    def use(self, handle: int) -> None:
        """Read through this handle from now on."""
        self._handle = handle

    def _section(self, kind: int) -> bytes:
        offset, length, crc = self._sections[kind]
        data = pread_salvaged(self._vfs, self._handle, length, offset)
        actual = crc32c(data)
        if len(data) != length or actual != crc:
            raise Corruption(f"footer section {kind}", file=self.path, offset=offset, expected=crc, actual=actual)
        self.weight_bytes += length
        return opened(self._vfs.keys, data) if self._is_sealed else data

    def __getattr__(self, name: str) -> Any:
        # Only called for columns that are not there yet: their slots are empty until the section is read.
        if name in ("first_seqs", "ordinals", "offsets", "payload_sizes", "base_times", "flags"):
            self._load_frames()
        elif name == "ids":
            if IDS in self._sections:
                self.ids = _column("H", self._section(IDS))
            else:
                self.ids = array("H", bytes(2 * self.message_count))
        elif name == "sizes":
            data = self._section(SIZES)
            same = len(data) == 4
            self.sizes = _column("I", data) * (self.message_count if same else 1)
        elif name == "times":
            self.times = _column("q", self._section(TIMES) if TIMES in self._sections else b"")
        elif name == "seqs":
            self.seqs = _column("I", self._section(SEQS) if SEQS in self._sections else b"")
        elif name in ("subjects", "subject_ids"):
            ids, ends, blob = self._load_names()
            names = [blob[a:b] for a, b in pairwise(ends)]
            self.subject_ids = dict(zip(names, ids, strict=True))
            self.subjects = sorted(names, key=self.subject_ids.__getitem__)
            self.weight_bytes += 200 * len(names)
        else:
            raise AttributeError(name)
        return getattr(self, name)

    def _load_frames(self) -> None:
        data = memoryview(self._section(FRAMES))
        count = len(data) // 29
        at = 0
        for name, typecode in _FRAME_COLUMNS:
            column = _column(typecode, data[at : at + count * array(typecode).itemsize])
            setattr(self, name, column)
            at += count * column.itemsize
        self.flags = _column("B", data[at:])

    def _load_names(self) -> tuple[array[int], array[int], bytes]:
        if self._names is None:
            data = self._section(SUBJECTS)
            count = self.subject_count
            at = 2 * count + 4 * (count + 1)
            self._names = _column("H", data[: 2 * count]), _column("I", data[2 * count : at]), data[at:]
        return self._names

    def find_subject(self, subject: bytes) -> int:
        if HASHES in self._sections:
            if self._hashes is None:
                self._hashes = _column("I", self._section(HASHES))
            hashed = crc32c(subject)
            at = bisect_left(self._hashes, hashed)
            if at == len(self._hashes) or self._hashes[at] != hashed:
                return -1
        ids, _, _ = names = self._load_names()
        at = self._name_at(names, subject)
        return ids[at] if at < len(ids) and self._name(names, at) == subject else -1

    @staticmethod
    def _name(names: tuple[array[int], array[int], bytes], position: int) -> bytes:
        return names[2][names[1][position] : names[1][position + 1]]

    def _name_at(self, names: tuple[array[int], array[int], bytes], subject: bytes) -> int:
        """Position of the first sorted subject ≥ ``subject``."""
        return bisect_left(range(len(names[0])), subject, key=lambda position: self._name(names, position))

    def _match_from(self, first_id: int, subject_filter: SubjectFilter) -> list[int]:
        assert first_id == 0
        names = self._load_names()
        found: list[int] = []
        for start, end in filter_ranges(subject_filter):
            low = self._name_at(names, start)
            high = self._name_at(names, end) if end else len(names[0])
            found += [names[0][at] for at in range(low, high) if subject_filter(self._name(names, at))]
        return sorted(found)

    def verify(self) -> list[Corruption]:
        """Read all sections again; what is wrong with them."""
        found: list[Corruption] = []
        weight = self.weight_bytes
        for kind in self._sections:
            try:
                self._section(kind)
            except Corruption as error:
                found.append(error)
        self.weight_bytes = weight
        return found
