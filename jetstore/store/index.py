"""The subject index over LMDB: one environment per node, written by the writer process, read by the server.

LMDB reports no damage and may be deleted at any time: every row and every answer is proven (``index_base.py``), and
whatever cannot be is rebuilt from the message logs. Commits are synchronous (LMDB's defaults), without WRITEMAP; a full
map grows. A process has the environment open once: ``_environment`` is shared by whoever reads or writes here.

Source: ``docs/format/index.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import lmdb

from jetstore.errors import DiskFull, IndexDoubt
from jetstore.limits import Limits
from jetstore.store.index_base import ProvenBase
from jetstore.store.index_layers import IndexedLog, LayeredIndex, open_index
from jetstore.store.index_rows import (
    UID_BYTES,
    Chunk,
    parse_stamp,
    row_key,
    row_value,
    stamp_value,
    uid_key,
)

INDEX_DIR = "index"
MAP_BYTES = 64 << 20
"""First map size; doubled when full. Address space only."""
MAX_READERS = 16
_DATA = "data.mdb"
_OPENING = "OPENING"
"""Exists while a stream's rows are verified."""

_open: dict[str, tuple[Any, bool]] = {}
"""Path → (environment, writable): LMDB forbids opening one twice in a process."""


def _environment(path: str, *, write: bool) -> Any | None:
    """The process's environment of a directory; None if there is none and it is not to be made.

    Raises ``IndexDoubt`` if LMDB refuses the files.
    """
    env, is_writable = _open.get(path, (None, False))
    if env is not None and (is_writable or not write):
        return env
    _close_environment(path)
    if not write and not os.path.exists(f"{path}/{_DATA}"):
        return None
    try:
        if write:
            os.makedirs(path, exist_ok=True)
            env = lmdb.open(path, map_size=MAP_BYTES, max_readers=MAX_READERS, mode=0o640)
        else:
            env = lmdb.open(path, readonly=True, create=False, max_readers=MAX_READERS, max_spare_txns=2)
        env.reader_check()
        used = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    except lmdb.Error as error:
        if env is not None:
            env.close()
        raise IndexDoubt(f"{path}: {error}") from error
    if os.path.getsize(f"{path}/{_DATA}") < used:
        env.close()  # Reading a page beyond the end of a mapped file would kill the process.
        raise IndexDoubt(f"{path}: cut short")
    _open[path] = env, write
    return env


def _close_environment(path: str) -> None:
    env, _ = _open.pop(path, (None, False))
    if env is not None:
        env.close()


def _delete_environment(path: str) -> None:
    """Remove the files; the next commit makes new ones."""
    _close_environment(path)
    for name in (_DATA, "lock.mdb", _OPENING):
        if os.path.exists(f"{path}/{name}"):
            os.unlink(f"{path}/{name}")


def _read_through(path: str) -> None:
    """Raises ``IndexDoubt`` if the device cannot read the file: through the memory map that would kill the process."""
    try:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    except FileNotFoundError:
        return
    except OSError as error:
        raise IndexDoubt(f"{path}: {error}") from error


class LmdbRows:
    """Implements ``RawRows`` with short read transactions."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode = 0

    def _begin(self) -> Any | None:
        env = _environment(self._path, write=False)
        if env is None:
            return None
        try:
            return env.begin()
        except lmdb.MapResizedError:
            env.set_mapsize(0)
            return env.begin()

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        try:
            txn = self._begin()
            if txn is None:
                return [None] * len(keys)
            with txn:
                return list(map(txn.get, keys))
        except lmdb.Error as error:
            raise IndexDoubt(f"{self._path}: {error}") from error

    def scan(self, start_key: bytes, *, look_up: bool = False) -> Iterator[tuple[bytes, bytes]]:
        try:
            txn = self._begin()
            if txn is None:
                return
            with txn, txn.cursor() as cursor:
                if not cursor.set_range(start_key):
                    return
                if not look_up:
                    yield from cursor.iternext()
                    return
                # A scan goes from leaf to leaf; only a lookup shows that the branches above still lead there.
                for key, value in cursor.iternext():
                    if txn.get(key) != value:
                        raise IndexDoubt(f"{self._path}: row {key!r} is not found by its key")
                    yield key, value
        except lmdb.Error as error:
            raise IndexDoubt(f"{self._path}: {error}") from error

    def refresh(self) -> None:
        """Look for the environment again: the writer may have replaced its files."""
        try:
            inode = os.stat(f"{self._path}/{_DATA}").st_ino
        except FileNotFoundError:
            inode = 0
        if inode != self._inode:
            self._inode = inode
            if not _open.get(self._path, (None, False))[1]:
                _close_environment(self._path)


class LmdbIndexes:
    """Opens the indexes of all streams of a node. In the server process."""

    def __init__(self, store_root: str) -> None:
        """Deletes an environment that LMDB refuses, before the writer opens it."""
        self._path = f"{os.path.abspath(store_root)}/{INDEX_DIR}"
        self._marker = f"{self._path}/{_OPENING}"
        self.findings: list[str] = []
        """Why indexes had to be rebuilt; the owner logs and clears them."""
        try:
            if os.path.exists(self._marker):
                raise IndexDoubt(f"{self._path}: the process ended while it was verified")
            _read_through(f"{self._path}/{_DATA}")
            _environment(self._path, write=False)
        except IndexDoubt as doubt:
            self.findings.append(str(doubt))
            _delete_environment(self._path)

    def open(
        self, uid: int, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes], log: IndexedLog
    ) -> LayeredIndex:
        """The index of a stream as of a checkpoint (None: none yet), rebuilt from ``log`` if it has to be."""
        has_files = os.path.exists(f"{self._path}/{_DATA}")
        if has_files:
            # LMDB may crash on a damaged page; then the next start does without these files.
            os.close(os.open(self._marker, os.O_CREAT | os.O_WRONLY, 0o640))
        base = ProvenBase(uid, LmdbRows(self._path))
        if has_files:
            os.unlink(self._marker)
        index, reason = open_index(uid, base, head_part, chunks, log)
        if reason:
            self.findings.append(base.finding or reason)
        return index

    def close(self) -> None:
        """Release the environment. No index is used after this."""
        _close_environment(self._path)


class IndexWriter:
    """Executes index transactions. In the writer process; needs only the store's root path."""

    def __init__(self, store_root: str, map_bytes: int = MAP_BYTES) -> None:
        self._path = f"{os.path.abspath(store_root)}/{INDEX_DIR}"
        self._map_bytes = map_bytes

    def commands(self) -> dict[str, Callable[..., Any]]:
        """For the writer's table of commands."""
        return {"index_commit": self.commit, "index_drop": self.drop}

    def commit(self, uid: int, chunk: bytes, count: int, xor: int) -> None:
        """One durable transaction: the chunk's rows and the stream's stamp, row count and XOR.

        Raises ``DiskFull`` (nothing changed), or ``IndexDoubt``: then the stream's rows are gone or not what the chunk
        builds on, and its owner has to rebuild; a broken environment is deleted first.
        """
        changes = Chunk(chunk)
        assert changes.uid == uid, (changes.uid, uid)

        def work(txn: Any) -> None:
            prefix = uid_key(uid)
            if changes.is_whole:
                _delete_rows(txn, prefix)
            else:
                value = txn.get(prefix)
                at = parse_stamp(prefix, value)[0] if value is not None else 0
                if not changes.previous <= at <= changes.stamp or not at:
                    raise IndexDoubt(f"index of group {uid} is at stamp {at}, not {changes.previous}")
            for subject, row in sorted(changes.rows, key=itemgetter(0)):
                key = row_key(prefix, subject)
                if row is None:
                    txn.delete(key)
                else:
                    txn.put(key, row_value(key, subject, row))
            txn.put(prefix, stamp_value(prefix, changes.stamp, count, xor))

        self._run(work)

    def drop(self, uid: int) -> None:
        """Remove all rows of a stream that is gone."""
        self._run(lambda txn: _delete_rows(txn, uid_key(uid)))

    def close(self) -> None:
        """Release the environment."""
        _close_environment(self._path)

    def _run(self, work: Callable[[Any], None]) -> None:
        while True:
            try:
                env = _environment(self._path, write=True)
            except IndexDoubt:
                _delete_environment(self._path)
                env = _environment(self._path, write=True)
            assert env is not None
            if env.info()["map_size"] < self._map_bytes:
                env.set_mapsize(self._map_bytes)
            try:
                with env.begin(write=True) as txn:
                    work(txn)
                return
            except lmdb.MapFullError:
                self._map_bytes = 2 * env.info()["map_size"]
            except lmdb.MapResizedError:
                env.set_mapsize(0)
            except lmdb.Error as error:
                if "No space left" in str(error) or "Disk quota" in str(error):
                    raise DiskFull(f"no space for {self._path}") from error
                _delete_environment(self._path)
                raise IndexDoubt(f"{self._path}: {error}") from error


def writer_commands(store_root: str, limits: Limits) -> dict[str, Callable[..., Any]]:
    """What the writer process adds to its table (an extension of ``ProcessDisk.start``)."""
    return IndexWriter(store_root).commands()


def _delete_rows(txn: Any, prefix: bytes) -> None:
    with txn.cursor() as cursor:
        found = cursor.set_range(prefix)
        while found and cursor.key()[:UID_BYTES] == prefix:
            found = cursor.delete()
