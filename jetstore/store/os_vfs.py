"""``OsVfs``: the file port over a real directory, with raw file descriptors.

EINTR is retried by the interpreter itself (PEP 475); nothing else is retried. A short ``pwritev`` is continued only
when the kernel stopped at its own limit (a signal or 2 GiB); a write of nothing is an error.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from jetstore.store.keys import Keys
from jetstore.types import Buffer

IOV_BATCH = 512
"""Buffers per pwritev call; the kernel's own bound is 1024."""


class OsVfs:
    """File operations below one real directory (see ``Vfs`` for the rules)."""

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.abspath(root)
        self.keys: Keys | None = None

    def _path(self, path: str) -> str:
        assert not path.startswith("/"), path
        assert ".." not in path.split("/"), path
        return f"{self.root}/{path}" if path else self.root

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_CREAT | os.O_EXCL
        return os.open(self._path(path), flags, 0o640)

    def close(self, handle: int) -> None:
        os.close(handle)

    def pread(self, handle: int, size_bytes: int, offset: int) -> bytes:
        data = os.pread(handle, size_bytes, offset)
        if len(data) == size_bytes or not data:
            return data
        parts = [data]  # a short read inside the file: the kernel's own limit, or the end of the file
        got = len(data)
        while got < size_bytes:
            data = os.pread(handle, size_bytes - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pwrite(self, handle: int, buffers: Sequence[Buffer], offset: int) -> None:
        if len(buffers) == 1:
            views = list(buffers)
        else:
            views = [buffer for buffer in buffers if len(buffer)]
        start = 0
        while start < len(views):
            batch = views[start : start + IOV_BATCH]
            total = sum(map(len, batch))
            written = os.pwritev(handle, batch, offset)
            if written == total:
                start += len(batch)
                offset += written
                continue
            if written <= 0:
                raise OSError(errno.EIO, "short write")
            offset += written
            for position, buffer in enumerate(batch):
                if written < len(buffer):
                    views[start + position] = memoryview(buffer)[written:]
                    start += position
                    break
                written -= len(buffer)

    def fdatasync(self, handle: int) -> None:
        os.fdatasync(handle)

    def fsync(self, handle: int) -> None:
        os.fsync(handle)

    def fsync_dir(self, path: str) -> None:
        handle = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: str, target: str) -> None:
        os.rename(self._path(source), self._path(target))

    def unlink(self, path: str) -> None:
        os.unlink(self._path(path))

    def truncate(self, handle: int, size_bytes: int) -> None:
        os.ftruncate(handle, size_bytes)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def exists(self, path: str) -> bool:
        return os.path.exists(self._path(path))

    def list_dir(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(path)))
        except FileNotFoundError:
            return []

    def mkdir(self, path: str) -> None:
        try:
            os.mkdir(self._path(path), 0o750)
        except FileExistsError:
            if not os.path.isdir(self._path(path)):
                raise

    def rmdir(self, path: str) -> None:
        os.rmdir(self._path(path))

    def free_bytes(self) -> int:
        state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize
