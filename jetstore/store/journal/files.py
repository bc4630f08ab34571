"""The journal's files: numbered, of one size, zeroed before they are used, recycled when nothing in them is needed.

A *spare* is a file above the current one. It is ready when all of it is known to read as zero and to have its place on
the disk: every byte was written, or was found there. A write into such a file needs no room, so a full disk cannot fail
it. A file made anew gets its zeros under a temporary name, so that what has its name is whole; where there is no room
for that and the file must exist, it is only extended (``create_thin``) and not ready before its zeros are written.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from jetstore.errors import DiskFull
from jetstore.limits import Limits
from jetstore.store.vfs import Vfs

JOURNAL_DIR = "journal"
_SUFFIX = ".jnl"
_DIGITS = 20
FULL_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT))


def file_path(number: int) -> str:
    """Path of a journal file."""
    return f"{JOURNAL_DIR}/{number:0{_DIGITS}d}{_SUFFIX}"


def file_numbers(names: Sequence[str]) -> list[int]:
    """Numbers of the journal files among directory entries, ascending."""
    return sorted(
        int(name[:_DIGITS])
        for name in names
        if len(name) == _DIGITS + len(_SUFFIX) and name.endswith(_SUFFIX) and name[:_DIGITS].isdigit()
    )


TEMP_PATH = f"{JOURNAL_DIR}/new{_SUFFIX}.tmp"
"""Where a file is made; what a crash leaves there is overwritten by the next one."""


class Spare:
    """A file above the current one. ``zeroed`` bytes from its start are known to be zero, ``written`` to have room."""

    __slots__ = ("is_recycled", "number", "written", "zeroed")

    def __init__(self, number: int, *, zeroed: int = 0, written: int = -1, is_recycled: bool = False) -> None:
        """``written`` is ``zeroed`` if it is not given."""
        self.number = number
        self.is_recycled = is_recycled
        """It is known to hold old blocks: no use in looking before it is zeroed."""
        self.zeroed = zeroed
        self.written = zeroed if written < 0 else written

    def is_ready(self, file_bytes: int) -> bool:
        """Whether blocks may be written to it."""
        return self.zeroed >= file_bytes and self.written >= file_bytes


class FileSet:
    """Spare and released files of one journal. Picklable (without ``vfs``): it moves to the writer process."""

    def __init__(self, vfs: Vfs, limits: Limits, file_bytes: int) -> None:
        self.vfs = vfs
        self.limits = limits
        assert file_bytes < 1 << 32, "lines locate bodies with 32 bits"
        self.file_bytes = file_bytes
        self.through = 0
        """Highest file number that durably exists."""
        self.spares: list[Spare] = []
        self.released: list[int] = []
        """Files below the current one that nothing needs, ascending."""
        self.is_full = False
        """The last attempt to make a spare found no space."""
        self._made_bytes = -1
        """Zeros written to the file that is being made; -1: none is."""

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "vfs"}

    def is_ready(self) -> bool:
        """Whether a successor of the current file is ready."""
        return bool(self.spares) and self.spares[0].is_ready(self.file_bytes)

    def ready_count(self) -> int:
        """Spares that are ready."""
        return sum(spare.is_ready(self.file_bytes) for spare in self.spares)

    def take(self) -> Spare:
        """The successor: from now on it is the current file. ``is_ready`` must hold."""
        assert self.is_ready()
        return self.spares.pop(0)

    def make_ready(self) -> None:
        """Do now what the background did not get to: a ready successor. DiskFull if there is no space for one."""
        while not self.is_ready():
            if not self.step():
                raise DiskFull("no space for another journal file")

    def is_short(self) -> bool:
        """Fewer than two spares are ready: preparing more cannot wait for a quiet moment."""
        return self.ready_count() < min(2, self.limits.journal_spare_files)

    def step(self, most_bytes: int = 0) -> bool:
        """One bounded piece of background work (``most_bytes`` and one sync); False if there is none."""
        most_bytes = min(most_bytes or self.limits.zeroing_bytes, self.limits.zeroing_bytes)
        spare = next((spare for spare in self.spares if not spare.is_ready(self.file_bytes)), None)
        if spare is not None:
            return self._prepare(spare, most_bytes)
        if len(self.spares) < self.limits.journal_spare_files:
            return self._add_spare(most_bytes)
        self.drop_surplus()
        return False

    def create(self, number: int) -> Spare:
        """A new file full of zeros, durable under its name. DiskFull leaves no file behind."""
        while not self._make_some(number, self.limits.zeroing_bytes):
            if self.is_full:
                raise DiskFull(f"no space for journal file {number}")
        return Spare(number, zeroed=self.file_bytes)

    def create_thin(self, number: int) -> Spare:
        """A new file that reads as zero and has no room yet, durable under its name. OSError leaves no file behind."""
        path = file_path(number)
        handle = self.vfs.open(path, create=True)
        try:
            self.vfs.truncate(handle, 0)
            self.vfs.truncate(handle, self.file_bytes)
            self.vfs.fsync(handle)
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                self.vfs.unlink(path)
            raise
        finally:
            self.vfs.close(handle)
        self.vfs.fsync_dir(JOURNAL_DIR)
        return Spare(number, zeroed=self.file_bytes, written=0)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _add_spare(self, most_bytes: int) -> bool:
        number = self.through + 1
        if self.released:
            self.vfs.rename(file_path(self.released[0]), file_path(number))
            self.vfs.fsync_dir(JOURNAL_DIR)
            self.released.pop(0)
            self.spares.append(Spare(number, is_recycled=True))
        else:
            if self.vfs.free_bytes() < self.file_bytes - max(self._made_bytes, 0):
                self.is_full = True
                return False
            if not self._make_some(number, most_bytes):
                return not self.is_full
            self.spares.append(Spare(number, zeroed=self.file_bytes))
        self.is_full = False
        self.through = number
        return True

    def _make_some(self, number: int, most_bytes: int) -> bool:
        """Write the next zeros of a new file; True once it is whole and durable as ``number``. May find no space."""
        try:
            handle = self.vfs.open(TEMP_PATH, create=True)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            self.is_full = True
            return False
        try:
            if self._made_bytes < 0:
                self.vfs.truncate(handle, 0)
                self._made_bytes = 0
            size = min(most_bytes, self.file_bytes - self._made_bytes)
            self.vfs.pwrite(handle, [bytes(size)], self._made_bytes)
            self.vfs.fsync(handle)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            self._made_bytes = -1
            self.is_full = True
            self.vfs.unlink(TEMP_PATH)
            return False
        finally:
            self.vfs.close(handle)
        self.is_full = False
        self._made_bytes += size
        if self._made_bytes < self.file_bytes:
            return False
        self._made_bytes = -1
        self.vfs.rename(TEMP_PATH, file_path(number))
        self.vfs.fsync_dir(JOURNAL_DIR)
        return True

    def drop_surplus(self) -> None:
        """Give released files beyond what the next spares will need back to the file system."""
        surplus = len(self.released) - self.limits.journal_spare_files
        if surplus > 0:
            for number in self.released[:surplus]:
                self.vfs.unlink(file_path(number))
            self.vfs.fsync_dir(JOURNAL_DIR)
            del self.released[:surplus]

    def _prepare(self, spare: Spare, most_bytes: int) -> bool:
        """Make sure of the next piece of a file: look where its content is unknown, write where that is needed."""
        start = min(spare.zeroed, spare.written)
        size = min(most_bytes, self.file_bytes - start)
        if spare.is_recycled or spare.written < spare.zeroed or not self._is_zero(spare.number, start, size):
            try:
                self._zero(spare.number, start, size)
            except OSError as error:
                if error.errno not in FULL_ERRNOS:
                    raise
                self.is_full = True
                return False
        spare.zeroed = max(spare.zeroed, start + size)
        spare.written = max(spare.written, start + size)
        self.is_full = False
        return True

    def _is_zero(self, number: int, start: int, size: int) -> bool:
        handle = self.vfs.open(file_path(number), write=False)
        try:
            return self.vfs.pread(handle, size, start) == bytes(size)
        except OSError:
            return False  # unreadable: writing it anew is what a disk asks for
        finally:
            self.vfs.close(handle)

    def _zero(self, number: int, start: int, size: int) -> None:
        handle = self.vfs.open(file_path(number))
        try:
            self.vfs.pwrite(handle, [bytes(size)], start)
            self.vfs.fdatasync(handle)
        finally:
            self.vfs.close(handle)
