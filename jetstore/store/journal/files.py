"""The journal's files: numbered, of one size, zeroed before they are used, recycled when nothing in them is needed.

A *spare* is a file above the current one. It is ready when all of it is known to read as zero, durably. A file made
anew is ready at once (its size was extended, which reads as zero) and its zeros are written later in the background,
which only makes syncs cheaper; a recycled or found file is ready when every byte was zeroed or looked at.
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


class Spare:
    """A file above the current one. ``zeroed`` bytes from its start are known to be zero, ``written`` were written."""

    __slots__ = ("is_recycled", "number", "written", "zeroed")

    def __init__(self, number: int, *, zeroed: int = 0, written: int = 0, is_recycled: bool = False) -> None:
        self.number = number
        self.is_recycled = is_recycled
        """It is known to hold old blocks: no use in looking before it is zeroed."""
        self.zeroed = zeroed
        self.written = written


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

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "vfs"}

    def is_ready(self) -> bool:
        """Whether a successor of the current file is ready."""
        return bool(self.spares) and self.spares[0].zeroed >= self.file_bytes

    def ready_count(self) -> int:
        """Spares that are ready."""
        return sum(spare.zeroed >= self.file_bytes for spare in self.spares)

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
        spare = next((spare for spare in self.spares if spare.zeroed < self.file_bytes), None)
        if spare is not None:
            self._clean(spare, most_bytes)
            return True
        if len(self.spares) < self.limits.journal_spare_files:
            return self._add_spare()
        self.drop_surplus()
        spare = next((spare for spare in self.spares if spare.written < self.file_bytes), None)
        if spare is not None:
            return self.write_ahead(spare, spare.written, most_bytes)
        return False

    def write_ahead(self, spare: Spare, start: int, most_bytes: int) -> bool:
        """Write zeros over the next piece at or after ``start`` that was never written: syncs are cheaper then."""
        start = max(start, spare.written)
        size = min(most_bytes, self.file_bytes - start)
        if size <= 0:
            return False
        try:
            self._zero(spare.number, start, size)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            self.is_full = True
            return False
        spare.written = start + size
        self.is_full = False
        return True

    def create(self, number: int) -> Spare:
        """A new file that reads as zero, durable under its name. OSError (ENOSPC) leaves no file behind."""
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
        return Spare(number, zeroed=self.file_bytes)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _add_spare(self) -> bool:
        number = self.through + 1
        if self.released:
            self.vfs.rename(file_path(self.released[0]), file_path(number))
            self.vfs.fsync_dir(JOURNAL_DIR)
            self.released.pop(0)
            self.spares.append(Spare(number, is_recycled=True))
        else:
            if self.vfs.free_bytes() < self.file_bytes:
                self.is_full = True
                return False
            try:
                self.spares.append(self.create(number))
            except OSError as error:
                if error.errno not in FULL_ERRNOS:
                    raise
                self.is_full = True
                return False
        self.is_full = False
        self.through = number
        return True

    def drop_surplus(self) -> None:
        """Give released files beyond what the next spares will need back to the file system."""
        surplus = len(self.released) - self.limits.journal_spare_files
        if surplus > 0:
            for number in self.released[:surplus]:
                self.vfs.unlink(file_path(number))
            self.vfs.fsync_dir(JOURNAL_DIR)
            del self.released[:surplus]

    def _clean(self, spare: Spare, most_bytes: int) -> None:
        """Make sure of the next piece of a file of unknown content: look first, write only where it is not zero."""
        size = min(most_bytes, self.file_bytes - spare.zeroed)
        if spare.is_recycled or not self._is_zero(spare.number, spare.zeroed, size):
            self._zero(spare.number, spare.zeroed, size)
        spare.zeroed += size
        spare.written = max(spare.written, spare.zeroed)

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
