"""A file port that changes nothing: what a look at a store uses, so that looking can never do harm."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from jetstore.store.vfs import Vfs
from jetstore.types import Buffer


class ReadOnlyVfs:
    """Implements ``Vfs`` over another one. Tidying (cuts, removals, syncs) is skipped; writing raises EROFS."""

    def __init__(self, vfs: Vfs) -> None:
        """Everything is read from ``vfs``."""
        self._vfs = vfs
        self.keys = vfs.keys
        self._paths: dict[int, str] = {}
        self.skipped: list[str] = []
        """What opening the store for real would tidy up."""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        handle = self._vfs.open(path, write=False)
        self._paths[handle] = path
        return handle

    def close(self, handle: int) -> None:
        self._vfs.close(handle)

    def pread(self, handle: int, size_bytes: int, offset: int) -> bytes:
        return self._vfs.pread(handle, size_bytes, offset)

    def pwrite(self, handle: int, buffers: Sequence[Buffer], offset: int) -> None:
        raise OSError(errno.EROFS, "the store was opened to look at it")

    def fdatasync(self, handle: int) -> None:
        """Nothing was written."""

    def fsync(self, handle: int) -> None:
        """Nothing was written."""

    def fsync_dir(self, path: str) -> None:
        """Nothing was changed."""

    def rename(self, source: str, target: str) -> None:
        raise OSError(errno.EROFS, "the store was opened to look at it")

    def unlink(self, path: str) -> None:
        self.skipped.append(f"would remove {path}")

    def truncate(self, handle: int, size_bytes: int) -> None:
        self.skipped.append(f"would cut {self._paths.get(handle, 'a file')} to {size_bytes} bytes")

    def size(self, handle: int) -> int:
        return self._vfs.size(handle)

    def exists(self, path: str) -> bool:
        return self._vfs.exists(path)

    def list_dir(self, path: str) -> list[str]:
        return self._vfs.list_dir(path)

    def mkdir(self, path: str) -> None:
        raise OSError(errno.EROFS, "the store was opened to look at it")

    def rmdir(self, path: str) -> None:
        raise OSError(errno.EROFS, "the store was opened to look at it")

    def free_bytes(self) -> int:
        return self._vfs.free_bytes()
