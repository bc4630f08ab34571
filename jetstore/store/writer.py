"""``Writer``: executes the store's durable writes, one command at a time, wherever the ``Disk`` port puts it.

=====================  ==============================================================================================
``append``             records → ``JournalStatus``: one journal block, durable
``write_segment``      path, offset, buffers: bytes of a segment; synced whenever ``segment_sync_bytes`` are unsynced
``sync``               paths: their bytes and names are durable
``make_group_dir``     uid: the group's directories, durable
``write_checkpoint``   uid, head, chunks, segments → head hash: segments synced, chunks and both heads read back
``write_manifest``     uid, manifest, segments: segments synced, then the manifest of what peers sent is durable
``remove_files``       paths: names gone, durably; what is not there is not missed
``remove_group_dir``   uid: the group's directory and everything in it gone, durably
``forget_groups``      uids: tombstones that a durable meta checkpoint covers leave the next group table
journal_extents        journal id, file size and the files that are needed (``reread.Extent``)
leave_journal_file     number → uids with live entries in that damaged file, which takes no more blocks
leave_older_files      number → uids with live entries in files before it, whether such a file is left (``leave_older``)
leave_uncounted        uids: exactly these groups get no publishes; files that only they need do not fill the journal
``seal_file``          uid, kind, path → why it cannot be sealed, or ""
``end_sealing``        the newest key seals all there is: KEYS says so, durably
others                 what the owner of another file class registered (``index_commit`` …)
=====================  ==============================================================================================

Errors: ``DiskFull`` fails one call and changed nothing that counts. Any other failure of a write, sync, rename or
truncate poisons the writer: this and every later call raise ``DiskPoisoned``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jetstore.errors import DiskFull, DiskPoisoned, JetstoreError, ReadBackFailed
from jetstore.limits import Limits
from jetstore.store import checkpoint_files
from jetstore.store.checkpoint_files import FULL_ERRNOS, KIND_MANIFEST, write_framed
from jetstore.store.install_manifest import manifest_path
from jetstore.store.journal.append import Journal
from jetstore.store.key_file import end_sealing
from jetstore.store.ports import JournalStatus, Record
from jetstore.store.vfs import Vfs
from jetstore.types import Buffer, GroupUid

OPEN_SEGMENTS_MAX = 128
"""Segment files kept open; above: the one used least recently is closed (synced first)."""

Command = Callable[..., Any]


class _OpenSegment:
    """A segment file being written."""

    __slots__ = ("handle", "is_new", "unsynced_bytes")

    def __init__(self, handle: int, *, is_new: bool) -> None:
        self.handle = handle
        self.is_new = is_new
        """Its name may not be durable yet."""
        self.unsynced_bytes = 0


JOURNAL_METHODS = frozenset(
    ("append", "forget_groups", "journal_extents", "leave_journal_file", "leave_older_files", "leave_uncounted")
)
"""Commands that touch the journal. The others share nothing with it: a second thread may run them, one at a time."""


class Writer:
    """See the module docstring. Not thread-safe, except as ``JOURNAL_METHODS`` says."""

    def __init__(
        self, vfs: Vfs, journal: Journal, limits: Limits, commands: Mapping[str, Command] | None = None
    ) -> None:
        """``commands`` are further commands by name; a ``JetstoreError`` they raise fails that call only."""
        self.vfs = vfs
        self.journal = journal
        self.limits = limits
        self.poison: DiskPoisoned | None = None
        self._segments: dict[str, _OpenSegment] = {}
        self._commands: dict[str, Command] = {
            "append": self.append,
            "write_segment": self.write_segment,
            "sync": self.sync,
            "make_group_dir": self.make_group_dir,
            "write_checkpoint": self.write_checkpoint,
            "write_manifest": self.write_manifest,
            "remove_files": self.remove_files,
            "remove_group_dir": self.remove_group_dir,
            "forget_groups": self.forget_groups,
            "journal_extents": self.journal.extents,
            "leave_journal_file": self.journal.leave_file,
            "leave_older_files": self.journal.leave_older,
            "leave_uncounted": self.journal.leave_uncounted,
            "seal_file": self.seal_file,
            "end_sealing": self.end_sealing,
        }
        self._own = frozenset(self._commands)
        for name, command in (commands or {}).items():
            assert name not in self._own, name
            self._commands[name] = command

    def execute(self, method: str, args: Sequence[Any]) -> Any:
        """Run one command. Raises DiskFull, ReadBackFailed or DiskPoisoned only, and what an extension refused with."""
        if self.poison is not None:
            raise self.poison
        command = self._commands.get(method)
        if command is None:
            raise self._poisoned(f"unknown writer command {method!r}")
        try:
            return command(*args)
        except (DiskFull, ReadBackFailed):
            raise
        except JetstoreError as error:
            if method in self._own:
                raise self._poisoned(f"{method}: {error}") from error
            raise
        except Exception as error:
            raise self._poisoned(f"{method}: {type(error).__name__}: {error}") from error

    def idle(self, most_bytes: int = 0) -> bool:
        """Do a bounded piece of background work (a zeroing step); False if there was none. DiskPoisoned as above."""
        return bool(self._guarded("zeroing", lambda: self.journal.zero_some(most_bytes)))

    def keep_up(self) -> None:
        """Call after each block: the least background work that cannot wait. DiskPoisoned as above."""
        self._guarded("zeroing", self.journal.keep_up)

    def idle_block(self) -> None:
        """Write the empty block that repeats the last one's lines, if it is still owed."""
        if self.journal.wants_idle_block:
            self._guarded("idle block", self.journal.idle)

    def close(self) -> None:
        """Give all handles back. Nothing more is written."""
        self._guarded("close", self._close)

    # -- commands ---------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> JournalStatus:
        """One journal block."""
        return self.journal.append(records)

    def write_segment(self, path: str, offset: int, buffers: Sequence[Buffer]) -> None:
        """Bytes of a segment at ``offset``; not durable yet. DiskFull: the file is cut back to ``offset``."""
        segment = self._segment(path)
        try:
            self.vfs.pwrite(segment.handle, buffers, offset)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            if self.vfs.size(segment.handle) > offset:
                self.vfs.truncate(segment.handle, offset)
            raise DiskFull(f"no space for {path}") from error
        segment.unsynced_bytes += sum(map(len, buffers))
        if segment.unsynced_bytes >= self.limits.segment_sync_bytes:
            self.vfs.fdatasync(segment.handle)
            segment.unsynced_bytes = 0

    def sync(self, paths: Iterable[str]) -> None:
        """Bytes and names of these files are durable."""
        directories: dict[str, None] = {}
        for path in paths:
            segment = self._segments.get(path)
            if segment is None:
                handle = self.vfs.open(path)
                try:
                    self.vfs.fsync(handle)
                finally:
                    self.vfs.close(handle)
                directories[path.rpartition("/")[0]] = None
                continue
            if segment.unsynced_bytes or segment.is_new:
                self.vfs.fsync(segment.handle)
                segment.unsynced_bytes = 0
            if segment.is_new:
                directories[path.rpartition("/")[0]] = None
        for directory in directories:
            self.vfs.fsync_dir(directory)
        for path in paths:
            segment = self._segments.get(path)
            if segment is not None:
                segment.is_new = False

    def make_group_dir(self, uid: GroupUid) -> None:
        """The group's directories."""
        self._or_full(f"directories of group {uid}", checkpoint_files.make_group_dir, self.vfs, uid)

    def write_checkpoint(
        self,
        uid: GroupUid,
        head: bytes,
        chunks: Mapping[str, bytes],
        segments: Mapping[str, int],
        is_installed: bool = False,
    ) -> int:
        """Everything the head refers to is durable, then the head, twice. Its hash, for the CKPT or RESET line."""
        self.make_group_dir(uid)
        self.sync([checkpoint_files.segment_path(uid, name) for name in segments])
        checkpoint_files.write_chunks(self.vfs, uid, chunks)
        lsn = self.journal.position.lsn  # durable: counted up behind each sync
        return checkpoint_files.write_head(self.vfs, uid, head, is_installed=is_installed, journal_lsn=lsn)

    def write_manifest(self, uid: GroupUid, manifest: bytes, segments: Mapping[str, int]) -> None:
        """These files of received records are durable, then the manifest that names them."""
        self.make_group_dir(uid)
        self.sync([checkpoint_files.segment_path(uid, name) for name in segments])
        write_framed(self.vfs, uid, KIND_MANIFEST, manifest_path(uid), manifest)

    def remove_files(self, paths: Iterable[str]) -> None:
        """These names are gone, durably."""
        directories: dict[str, None] = {}
        for path in paths:
            self._forget_segment(path)
            if self.vfs.exists(path):
                self.vfs.unlink(path)
                directories[path.rpartition("/")[0]] = None
        for directory in directories:
            self.vfs.fsync_dir(directory)

    def remove_group_dir(self, uid: GroupUid) -> None:
        """The group's directory is gone, durably."""
        root = checkpoint_files.group_dir(uid)
        if not self.vfs.exists(root):
            return
        for directory in (f"{root}/segments", f"{root}/chunks", root):
            if not self.vfs.exists(directory):
                continue
            names = self.vfs.list_dir(directory)
            self.remove_files([f"{directory}/{name}" for name in names if name not in ("segments", "chunks")])
            self.vfs.rmdir(directory)
        self.vfs.fsync_dir(checkpoint_files.GROUPS_DIR)

    def seal_file(self, uid: GroupUid, kind: int, path: str) -> str:
        """See ``checkpoint_files.seal_file``."""
        return checkpoint_files.seal_file(self.vfs, uid, kind, path)

    def end_sealing(self) -> None:
        """Both copies of KEYS have the newest key alone."""
        keys = self.vfs.keys
        if keys is not None and keys.is_due:
            end_sealing(self.vfs, keys.when_sealed)
            keys.all_sealed()

    def forget_groups(self, uids: Iterable[GroupUid]) -> None:
        """Tombstones of these groups are not carried into the next group table."""
        for uid in uids:
            self.journal.table.forget(uid)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _segment(self, path: str) -> _OpenSegment:
        segment = self._segments.pop(path, None)
        if segment is None:
            while len(self._segments) >= OPEN_SEGMENTS_MAX:
                oldest = next(iter(self._segments))
                self.sync([oldest])
                self._forget_segment(oldest)
            is_new = not self.vfs.exists(path)
            if is_new and not self.vfs.exists(path.rpartition("/")[0]):
                self.make_group_dir(GroupUid(int(path.split("/")[1])))
            handle = self._or_full(path, lambda: self.vfs.open(path, create=True))
            segment = _OpenSegment(handle, is_new=is_new)
        self._segments[path] = segment  # the most recently used is the last
        return segment

    def _forget_segment(self, path: str) -> None:
        segment = self._segments.pop(path, None)
        if segment is not None:
            self.vfs.close(segment.handle)

    @staticmethod
    def _or_full(what: str, action: Callable[..., Any], *args: Any) -> Any:
        try:
            return action(*args)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            raise DiskFull(f"no space for {what}") from error

    def _close(self) -> None:
        for path in list(self._segments):
            self._forget_segment(path)
        self.journal.close()

    def _guarded(self, what: str, action: Callable[[], Any]) -> Any:
        if self.poison is not None:
            raise self.poison
        try:
            return action()
        except Exception as error:
            raise self._poisoned(f"{what}: {type(error).__name__}: {error}") from error

    def _poisoned(self, reason: str) -> DiskPoisoned:
        self.poison = DiskPoisoned(reason)
        return self.poison
