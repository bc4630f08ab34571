"""The file port: every touch of a file on the data path goes through ``Vfs``. Nothing else calls ``os`` for data.

Two implementations: ``OsVfs`` (``os_vfs.py``) over a real directory, and the simulator's ``SimVfs``
(``jepsen/sim/vfs.py``) with separate volatile and durable images, tears, lost renames and lying syncs.

Paths are relative to the store root, ``/``-separated, and never contain ``..``. Handles are small ints owned by the
caller until ``close``. All methods are synchronous; whoever calls them on an event loop keeps them short.

Errors: ``OSError`` with a real ``errno`` (ENOENT, EEXIST, ENOSPC, EIO …). ``pwrite`` writes everything or raises:
a short write is an error. EINTR is retried inside, nothing else is.
Durability: only ``fdatasync``/``fsync`` of a file and ``fsync_dir`` of the directory that names it make anything
durable. A failed sync is never retried by a caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jetstore.store.keys import Keys
from jetstore.types import Buffer


class Vfs(Protocol):
    """File operations of one store directory. See the module docstring for the common rules."""

    keys: Keys | None
    """What seals the contents of the directory's files; None if they are stored as they are. The operations do not look
    at it: whoever makes a content seals it."""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        """Handle of a file. ``create`` makes it if absent; ``exclusive`` refuses an existing one (EEXIST)."""

    def close(self, handle: int) -> None:
        """Give the handle back. Errors are real errors (a close can report a lost write)."""

    def pread(self, handle: int, size_bytes: int, offset: int) -> bytes:
        """Up to ``size_bytes`` from ``offset``; shorter only at the end of the file."""

    def pwrite(self, handle: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all buffers one after another at ``offset`` (extends the file if needed)."""

    def fdatasync(self, handle: int) -> None:
        """Make the file's bytes (and size) durable."""

    def fsync(self, handle: int) -> None:
        """Make the file's bytes and metadata durable."""

    def fsync_dir(self, path: str) -> None:
        """Make names created, renamed or removed in directory ``path`` ("" is the root) durable."""

    def rename(self, source: str, target: str) -> None:
        """Atomically replace ``target``. Durable after ``fsync_dir`` of the directory."""

    def unlink(self, path: str) -> None:
        """Remove a file's name."""

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Cut or extend (with zeros) the file."""

    def size(self, handle: int) -> int:
        """Current size in bytes."""

    def exists(self, path: str) -> bool:
        """Whether a file or directory has this name."""

    def list_dir(self, path: str) -> list[str]:
        """Names in a directory, sorted; [] if the directory does not exist."""

    def mkdir(self, path: str) -> None:
        """Make one directory (no error if it exists). Durable after ``fsync_dir`` of its parent."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    def free_bytes(self) -> int:
        """Free space an unprivileged writer has on this file system."""
