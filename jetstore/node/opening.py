"""A group's files at start: which checkpoint must exist, which one is used, and what becomes of the rest.

Only a checkpoint that the journal proves is used: the copy whose hash the last CKPT line carries or, if both copies are
newer (the line did not make it), the newer one, provided that the journal continues from it. An older one is never
used silently: then the group is damaged (``Corruption``), serves nothing that depends on it, and nothing is cut.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog

from jetstore.errors import Corruption, DiskFull, FormatUnknown, ReadBackFailed
from jetstore.limits import Limits
from jetstore.node.read_only import ReadOnlyVfs
from jetstore.store.checkpoint_files import GROUPS_DIR, HeadCopy, group_dir, read_chunk, read_heads, write_head
from jetstore.store.index_layers import LayeredIndex, index_chunk_names
from jetstore.store.log_checkpoint import LogParts, log_chunk_names
from jetstore.store.message_log import SegmentedLog
from jetstore.store.ports import GroupRecovery
from jetstore.store.read_cache import ReadCache
from jetstore.store.segment_files import segments_dir
from jetstore.store.vfs import Vfs
from jetstore.stream.checkpoint import parts_of
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, RaftIndex, Term

log = structlog.get_logger(__name__)

QUARANTINE_DIR = "quarantine"
READ_TRIES = 3
"""How often the copies of a head are read at start if the one that is needed is unreadable: errors may pass."""


class CheckpointedLog(SegmentedLog):
    """A message log that remembers the one checkpoint that is being written."""

    _captured: LogParts | None = None

    def capture(self) -> LogParts:
        """Its part of a checkpoint (``stream.checkpoint.Captured``)."""
        self._captured = self.checkpoint_parts()
        return self._captured

    def confirm(self) -> list[str]:
        """What was captured last is durable; paths that nothing refers to any more."""
        captured, self._captured = self._captured, None
        return self.checkpointed(captured) if captured is not None else []

    def confirmed_paths(self) -> set[str]:
        """The files that the last durable checkpoint names."""
        return {f"{segments_dir(self.uid)}/{name}" for name in self._saved.segments}


class Chunks(Mapping[str, bytes]):
    """A group's chunks, read when asked for. Iterates over those that were: leftovers of older checkpoints stay out."""

    def __init__(self, vfs: Vfs, uid: GroupUid) -> None:
        """Reads nothing yet."""
        self._vfs = vfs
        self._uid = uid
        self._read: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        """The chunk. Raises Corruption if it is missing or damaged."""
        content = self._read.get(name)
        if content is None:
            content = self._read[name] = read_chunk(self._vfs, self._uid, name)
        return content

    def get(self, name: str, default: Any = None) -> Any:
        """As ``[]``: a chunk that a head names must be there."""
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


class Indexes(Protocol):
    """Where subject indexes come from: ``LmdbIndexes``, or its twin in the simulator."""

    findings: list[str]

    def open(
        self, uid: int, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes], log: SegmentedLog
    ) -> LayeredIndex:
        """The index as of a checkpoint (None: none yet), rebuilt from ``log`` if it has to be."""

    def close(self) -> None:
        """No index is used after this."""


class GroupFiles:
    """Opens groups from their checkpoints. Synchronous: used at start, before anything is served."""

    def __init__(self, vfs: Vfs, indexes: Indexes, limits: Limits) -> None:
        """All groups share one cache of frames and footers."""
        self._vfs = vfs
        self._indexes = indexes
        self._limits = limits
        self.cache = ReadCache(vfs, limits.read_cache_bytes)

    def head_of(self, recovery: GroupRecovery) -> tuple[bytes | None, GroupRecovery]:
        """The head to restore from (None: from nothing), and the recovery as seen from that checkpoint.

        Raises Corruption if the checkpoint that must exist does not.
        """
        if not recovery.checkpoint_index and not self._vfs.exists(group_dir(recovery.uid)):
            return None, recovery
        for _ in range(READ_TRIES):
            copies, findings = read_heads(self._vfs, recovery.uid)
            for finding in findings:
                log.warning("checkpoint copy unreadable", group=recovery.uid, finding=finding)
            for copy in copies:
                if copy.hash == recovery.checkpoint_hash and recovery.checkpoint_index:
                    return copy.content, recovery
            for copy in copies:
                newer = _seen_from(copy, recovery)
                if newer is not None:
                    return copy.content, newer
            if not findings:
                break
        if not recovery.checkpoint_index and not copies and not findings:
            return None, recovery  # (an unreadable copy may be readable again later, and names files that must stay)
        raise Corruption(
            f"the checkpoint of group {recovery.uid} at index {recovery.checkpoint_index} is gone",
            file=group_dir(recovery.uid),
            offset=0,
            expected=recovery.checkpoint_hash,
            actual=[copy.hash for copy in copies],
        )

    def secure(self, recovery: GroupRecovery) -> None:
        """Make both copies the head that ``recovery`` is seen from, durable, before anything follows from it.

        Its CKPT line is missing, so nothing has proved that its name is durable: after a kill, or a failed sync of the
        directory, the page cache shows it all the same. Raises Corruption if it cannot be read back.
        """
        uid = recovery.uid
        copy: HeadCopy | None = None
        for _ in range(READ_TRIES):
            copies, findings = read_heads(self._vfs, uid)
            copy = next((copy for copy in copies if copy.hash == recovery.checkpoint_hash), None)
            if copy is not None or not findings:
                break
        if copy is None:
            raise Corruption("the newest checkpoint is not readable any more", file=group_dir(uid), offset=0)
        try:
            write_head(self._vfs, uid, copy.content, is_installed=copy.is_installed, journal_lsn=copy.journal_lsn)
        except DiskFull:  # then the copy that is there
            self._vfs.fsync_dir(group_dir(uid))
        except ReadBackFailed as error:
            raise Corruption(str(error), file=group_dir(uid), offset=0) from error

    def open_stream(self, uid: GroupUid, storage: str, head: bytes | None) -> Stream:
        """The stream as of a head, over its segments and index. Raises Corruption if they do not belong together."""
        return self._open(self._vfs, uid, storage, head)

    def open_beside(self, uid: GroupUid, storage: str, head: bytes | None) -> Stream:
        """The same while the group is open: files that go beyond the head stay as they are."""
        return self._open(ReadOnlyVfs(self._vfs), uid, storage, head)

    def _open(self, vfs: Vfs, uid: GroupUid, storage: str, head: bytes | None) -> Stream:
        if head is None:
            messages = CheckpointedLog.open(vfs, uid, None, {}, self._limits, storage=storage, cache=self.cache)
            index = self._indexes.open(uid, None, {}, messages)
            return Stream(uid, messages, index, self._limits)
        log_part, index_part = parts_of(head)
        chunks = Chunks(self._vfs, uid)
        for name in log_chunk_names(log_part):
            chunks[name]
        messages = CheckpointedLog.open(vfs, uid, log_part, chunks, self._limits, storage=storage, cache=self.cache)
        for name in index_chunk_names(index_part):
            try:
                chunks[name]
            except Corruption as error:  # not needed, or the index is rebuilt without it
                log.warning("index chunk unreadable", group=uid, finding=str(error))
        index = self._indexes.open(uid, index_part, chunks, messages)
        try:
            return Stream.restore(uid, head, chunks, messages, index, self._limits)
        except (KeyError, TypeError, ValueError) as error:  # intact bytes that another version wrote
            raise FormatUnknown(f"stream head: {error!r}", file=group_dir(uid), offset=0) from error

    def placeholder(self, recovery: GroupRecovery, storage: str) -> Stream:
        """An empty stream where the checkpoint would be, for who waits for a peer's state. Touches no segment."""
        messages = CheckpointedLog(self._vfs, recovery.uid, self._limits, storage=storage, cache=self.cache)
        stream = Stream(recovery.uid, messages, self._indexes.open(recovery.uid, None, {}, messages), self._limits)
        stream.applied_index, stream.applied_term = recovery.checkpoint_index, recovery.checkpoint_term
        return stream

    def quarantine_unknown(self, known: Collection[GroupUid], now_ns: int) -> list[str]:
        """Move directories of groups that nobody knows out of the way; their new names."""
        moved = []
        names = {str(uid) for uid in known}
        for name in self._vfs.list_dir(GROUPS_DIR):
            if name in names:
                continue
            self._vfs.mkdir(QUARANTINE_DIR)
            self._vfs.fsync_dir("")
            target = f"{QUARANTINE_DIR}/{name}-{now_ns}"
            self._vfs.rename(f"{GROUPS_DIR}/{name}", target)
            self._vfs.fsync_dir(QUARANTINE_DIR)
            self._vfs.fsync_dir(GROUPS_DIR)
            log.warning("unknown group quarantined", directory=name, moved_to=target)
            moved.append(target)
        return moved

    def close(self) -> None:
        """Give all file handles back."""
        self.cache.close()
        self._indexes.close()


def _seen_from(copy: HeadCopy, recovery: GroupRecovery) -> GroupRecovery | None:
    """The recovery if ``copy`` is a checkpoint newer than the proven one that the journal continues; else None."""
    fields = json.loads(copy.content)
    index, term = RaftIndex(fields["index"]), Term(fields["term"])
    if copy.is_installed:
        return _seen_from_installed(copy, recovery, index, term)
    if not recovery.checkpoint_index <= index <= recovery.last_index:
        return None
    at = next((entry for entry in recovery.entries if entry.index == index), None)
    if index > recovery.checkpoint_index and (at is None or at.term != term):
        return None
    return replace(
        recovery,
        checkpoint_index=index,
        checkpoint_term=term,
        checkpoint_hash=copy.hash,
        entries=[entry for entry in recovery.entries if entry.index > index],
    )


def _seen_from_installed(copy: HeadCopy, recovery: GroupRecovery, index: RaftIndex, term: Term) -> GroupRecovery | None:
    """The same for a checkpoint that came from a peer: committed there, so this journal need not lead up to it.

    Entries behind it live only if the one at its index is of its term: else they were never committed.
    """
    if index < recovery.checkpoint_index:
        return None
    at = next((entry.term for entry in recovery.entries if entry.index == index), None)
    if index == recovery.checkpoint_index:
        at = recovery.checkpoint_term
    entries = [entry for entry in recovery.entries if entry.index > index] if at == term else []
    return replace(
        recovery,
        checkpoint_index=index,
        checkpoint_term=term,
        checkpoint_hash=copy.hash,
        entries=entries,
        last_index=entries[-1].index if entries else index,
        last_term=entries[-1].term if entries else term,
    )
