"""Twins of the subject index over LMDB: a plain one in memory, and a durable one in a ``Vfs`` for the simulator.

The durable twin shares everything with ``index.py`` but the key-value store itself: rows of one stream are one file,
replaced by every commit. Its faults are those that LMDB has: *lost*, *older stamp*, *flagged corrupt*, *wrong rows*.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any

from jetstore.errors import DiskFull, IndexDoubt
from jetstore.hot.crc import crc32c
from jetstore.store.index_base import ProvenBase
from jetstore.store.index_layers import IndexedLog, LayeredIndex, open_index
from jetstore.store.index_rows import Chunk, parse_stamp, row_key, row_value, stamp_value, uid_key
from jetstore.store.ports import IndexRow, SubjectFilter
from jetstore.store.sorted_rows import SortedRows, filter_ranges
from jetstore.store.vfs import Vfs


class MemoryIndex:
    """Implements ``SubjectIndex`` without a disk."""

    def __init__(self, rows: dict[bytes, IndexRow] | None = None) -> None:
        self._rows = SortedRows(dict(rows or {}))

    def get(self, subject: bytes) -> IndexRow | None:
        return self._rows.rows.get(subject)

    def get_many(self, subjects: Sequence[bytes]) -> list[IndexRow | None]:
        return list(map(self._rows.rows.get, subjects))

    def put(self, subject: bytes, row: IndexRow) -> None:
        self._rows.put(subject, row)

    def delete(self, subject: bytes) -> None:
        self._rows.discard(subject)

    def __len__(self) -> int:
        return len(self._rows.rows)

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        rows = self._rows.rows
        found: list[tuple[bytes, IndexRow]] = []
        for start, end in filter_ranges(subject_filter, after):
            for subject in self._rows.subjects(start, end):
                row = rows[subject]
                if row is not None and (subject_filter is None or subject_filter(subject)):
                    found.append((subject, row))
                    if max_count and len(found) >= max_count:
                        return found
        return found


# -- the durable twin of the index over LMDB --------------------------------------------------------------------------

_MAGIC = b"JSIT"
_ITEM = Struct("<HH")


def _path(uid: int) -> str:
    return f"index/{uid}"


class FileRows:
    """Implements ``RawRows`` from one file per stream, read whole. What a crash leaves of the file is what it shows."""

    def __init__(self, vfs: Vfs, uid: int) -> None:
        self._vfs = vfs
        self._uid = uid
        self.values: dict[bytes, bytes] = {}
        """Key → value; tests and the simulator change it behind the index's back (*wrong rows*)."""
        self.is_broken = False
        """True: every read fails as damage does that the store itself notices."""
        self.refresh()

    def refresh(self) -> None:
        try:
            self.values = _read_values(self._vfs, self._uid)
            self.is_broken = False
        except IndexDoubt:
            self.is_broken = True

    def _check(self) -> None:
        if self.is_broken:
            raise IndexDoubt(f"{_path(self._uid)} is damaged")

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        self._check()
        return list(map(self.values.get, keys))

    def scan(self, start_key: bytes, *, look_up: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self._check()
        return ((key, self.values[key]) for key in sorted(key for key in self.values if key >= start_key))


class FileIndexes:
    """Opens the indexes of all streams of a simulated node; the counterpart of ``LmdbIndexes``."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self.findings: list[str] = []
        self.opened: dict[int, FileRows] = {}
        """The rows of each stream opened last, for faults."""

    def open(
        self, uid: int, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes], log: IndexedLog
    ) -> LayeredIndex:
        """As ``LmdbIndexes.open``."""
        raw = self.opened[uid] = FileRows(self._vfs, uid)
        base = ProvenBase(uid, raw)
        index, reason = open_index(uid, base, head_part, chunks, log)
        if reason:
            self.findings.append(base.finding or reason)
        return index

    def close(self) -> None:
        """Nothing is held open."""


class FileIndexWriter:
    """The counterpart of ``IndexWriter``: each commit replaces the stream's file."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs

    def commands(self) -> dict[str, Callable[..., Any]]:
        """For the writer's table of commands."""
        return {"index_commit": self.commit, "index_drop": self.drop}

    def commit(self, uid: int, chunk: bytes, count: int, xor: int) -> None:
        """As ``IndexWriter.commit``."""
        changes = Chunk(chunk)
        assert changes.uid == uid, (changes.uid, uid)
        prefix = uid_key(uid)
        values: dict[bytes, bytes] = {}
        if not changes.is_whole:
            values = _read_values(self._vfs, uid)
            at = parse_stamp(prefix, values[prefix])[0] if prefix in values else 0
            if not changes.previous <= at <= changes.stamp or not at:
                raise IndexDoubt(f"index of group {uid} is at stamp {at}, not {changes.previous}")
        for subject, row in changes.rows:
            key = row_key(prefix, subject)
            if row is None:
                values.pop(key, None)
            else:
                values[key] = row_value(key, subject, row)
        values[prefix] = stamp_value(prefix, changes.stamp, count, xor)
        try:
            _write_values(self._vfs, uid, values)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no space for {_path(uid)}") from error
            raise

    def drop(self, uid: int) -> None:
        """As ``IndexWriter.drop``."""
        if self._vfs.exists(_path(uid)):
            self._vfs.unlink(_path(uid))
            self._vfs.fsync_dir("index")

    def close(self) -> None:
        """Nothing is held open."""


def _read_values(vfs: Vfs, uid: int) -> dict[bytes, bytes]:
    if not vfs.exists(_path(uid)):
        return {}
    handle = vfs.open(_path(uid), write=False)
    try:
        data = vfs.pread(handle, vfs.size(handle), 0)
    except OSError as error:
        raise IndexDoubt(f"{_path(uid)} cannot be read: {error.strerror}") from error
    finally:
        vfs.close(handle)
    if data[:4] != _MAGIC or crc32c(data[:-4]).to_bytes(4, "little") != data[-4:]:
        raise IndexDoubt(f"{_path(uid)} is damaged")
    values: dict[bytes, bytes] = {}
    at = 4
    while at < len(data) - 4:
        key_bytes, value_bytes = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        values[data[at : at + key_bytes]] = data[at + key_bytes : at + key_bytes + value_bytes]
        at += key_bytes + value_bytes
    return values


def _write_values(vfs: Vfs, uid: int, values: Mapping[bytes, bytes]) -> None:
    """The file of the commit before stays as ``.old``: what an index with an older stamp looks like."""
    items = [_ITEM.pack(len(key), len(value)) + key + value for key, value in sorted(values.items())]
    body = b"".join([_MAGIC, *items])
    vfs.mkdir("index")
    vfs.fsync_dir("")
    temp = f"{_path(uid)}.tmp"
    handle = vfs.open(temp, create=True)
    try:
        vfs.truncate(handle, 0)
        vfs.pwrite(handle, [body, crc32c(body).to_bytes(4, "little")], 0)
        vfs.fsync(handle)
    finally:
        vfs.close(handle)
    if vfs.exists(_path(uid)):
        vfs.rename(_path(uid), f"{_path(uid)}.old")
    vfs.rename(temp, _path(uid))
    vfs.fsync_dir("index")


def lose(vfs: Vfs, uid: int) -> None:
    """Fault: the stream's rows are gone."""
    if vfs.exists(_path(uid)):
        vfs.unlink(_path(uid))
        vfs.fsync_dir("index")


def make_older(vfs: Vfs, uid: int) -> bool:
    """Fault: the stream's rows are those of the commit before; False if there was none."""
    if not vfs.exists(f"{_path(uid)}.old"):
        return False
    vfs.rename(f"{_path(uid)}.old", _path(uid))
    vfs.fsync_dir("index")
    return True


def make_corrupt(vfs: Vfs, uid: int) -> None:
    """Fault: the store itself notices damage."""
    handle = vfs.open(_path(uid))
    vfs.pwrite(handle, [b"\xff"], 3)
    vfs.fsync(handle)
    vfs.close(handle)


def make_wrong(vfs: Vfs, uid: int, change: Callable[[dict[bytes, bytes]], None]) -> None:
    """Fault: rows differ from what was committed although the file itself looks whole."""
    values = _read_values(vfs, uid)
    change(values)
    _write_values(vfs, uid, values)
