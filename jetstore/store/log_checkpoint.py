"""What a checkpoint holds of a message log, and the log as of a checkpoint.

The head part names segments with the bytes of them that belong to the checkpoint, and the chunks with the removed
sequences. Frames themselves are only in the segments. Opening cuts each file back to its recorded length (the journal
replays what came after), unlinks files that the head does not name, and reads the frames of the unsealed segment once.

Source: ``docs/format/segment.md``, "In the checkpoint".
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jetstore.errors import Corruption, FormatUnknown
from jetstore.store.install_manifest import keep_received
from jetstore.store.segment_files import SegmentFile, segments_dir
from jetstore.store.seqset import SeqSet
from jetstore.store.vfs import Vfs

if TYPE_CHECKING:
    from jetstore.store.message_log import SegmentedLog

FORMAT = 0


@dataclass(frozen=True, slots=True)
class LogParts:
    """A message log's share of a checkpoint."""

    head: dict[str, Any]
    """JSON-able."""
    chunks: dict[str, bytes]
    """New ones by name."""
    keep_chunks: frozenset[str]
    """All that the head names."""
    segments: dict[str, int]
    """Segment files that must be synced before the head is written, and the bytes of each that the head names."""
    removable: tuple[str, ...]
    """Paths that nothing refers to once this is durable."""
    groups: dict[int, str]
    """Group of removed sequences → chunk name."""


SEALED, ERASED = 1, 2
"""Flags of a segment's row: it takes no more frames; it holds records that were erased on purpose."""


@dataclass(slots=True)
class SavedParts:
    """What the log's last durable checkpoint holds, and what happened since."""

    serial: int = 0
    """Last number used in a chunk name."""
    groups: dict[int, str] = field(default_factory=dict)
    changed_groups: set[int] = field(default_factory=set)
    segments: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def confirm(self, parts: LogParts) -> list[str]:
        """The parts are durable; paths of segments that may go."""
        self.groups = parts.groups
        self.segments = {row[0]: row[5] for row in parts.head["segments"]}
        self.changed_groups = {g for g in self.changed_groups if parts.groups.get(g) not in parts.chunks}
        removable = set(parts.removable)
        self.dropped = [path for path in self.dropped if path not in removable]
        return list(parts.removable)


def log_chunk_names(head_part: Mapping[str, Any]) -> list[str]:
    """Chunks that opening a log from this head part needs."""
    return [name for _, name in head_part["deleted"]["groups"]]


def make_parts(log: SegmentedLog, saved: SavedParts) -> LogParts:
    """See ``SegmentedLog.checkpoint_parts``."""
    dead = log.dead
    saved.changed_groups |= dead.take_changed_groups()
    saved.dropped += log.take_dropped()
    chunks: dict[str, bytes] = {}
    groups: dict[int, str] = {}
    for group in dead.groups():
        if group in saved.groups and group not in saved.changed_groups:
            groups[group] = saved.groups[group]
        else:
            saved.serial += 1
            groups[group] = f"deleted-{group}-{saved.serial}"
            chunks[groups[group]] = dead.encode_group(group)
    rows = []
    segments: dict[str, int] = {}
    for s in log.segment_files():
        where = [s.name, s.base_seq, s.last_seq, s.messages, s.live, s.file_bytes]
        flags = SEALED * s.is_sealed | ERASED * bool(s.erased)
        rows.append([*where, s.first_time_ns, s.last_time_ns, flags, int(s.has_footer)])
        if saved.segments.get(s.name) != s.file_bytes:
            segments[s.name] = s.file_bytes
    head = {
        "format": FORMAT,
        "storage": log.storage,
        "first_seq": log.first_seq,
        "last_seq": log.last_seq,
        "segments": rows,
        "deleted": {"groups": sorted(groups.items()), "full": dead.full_runs()},
        "serial": saved.serial,
    }
    return LogParts(head, chunks, frozenset(groups.values()), segments, tuple(saved.dropped), groups)


def restore(log: SegmentedLog, vfs: Vfs, head: Mapping[str, Any] | None, chunks: Mapping[str, bytes]) -> None:
    """See ``SegmentedLog.open``. ``log`` is new and empty."""
    directory = segments_dir(log.uid)
    named = {row[0] for row in head["segments"]} if head is not None else set()
    _unlink_unnamed(vfs, directory, named | keep_received(vfs, log.uid, named))
    if head is None:
        return
    if head["format"] != FORMAT:
        raise FormatUnknown("log format", file=directory, offset=0, expected=FORMAT, actual=head["format"])
    log.storage = head["storage"]
    dead = SeqSet.decode(
        [(name, chunks[name]) for _, name in head["deleted"]["groups"]], [(a, b) for a, b in head["deleted"]["full"]]
    )
    segments = []
    for name, base_seq, last_seq, messages, live, file_bytes, first_time, last_time, flags, has_footer in head[
        "segments"
    ]:
        segment = SegmentFile(name, f"{directory}/{name}", base_seq, last_seq, messages, live, first_time, last_time)
        segment.file_bytes = file_bytes
        segment.is_sealed, segment.has_footer = bool(flags & SEALED), bool(has_footer)
        segment.erased = int(bool(flags & ERASED))
        segment.was_taken = True
        segments.append(segment)
        _cut(log, vfs, segment)
    saved = SavedParts(
        serial=head["serial"],
        groups=dict(head["deleted"]["groups"]),
        segments={segment.name: segment.file_bytes for segment in segments},
    )
    log.adopt(head["first_seq"], head["last_seq"], dead, segments, saved)


def _unlink_unnamed(vfs: Vfs, directory: str, named: set[str]) -> None:
    unnamed = [name for name in vfs.list_dir(directory) if name not in named]
    for name in unnamed:
        vfs.unlink(f"{directory}/{name}")
    if unnamed:
        vfs.fsync_dir(directory)


def _cut(log: SegmentedLog, vfs: Vfs, segment: SegmentFile) -> None:
    """Cut a file back to what the checkpoint has of it. Too short or missing is damage: reported, not repaired."""
    try:
        handle = vfs.open(segment.path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        log.reader.report(Corruption("segment file is missing", file=segment.path, offset=0))
        return
    try:
        size = vfs.size(handle)
        if size > segment.file_bytes:
            vfs.truncate(handle, segment.file_bytes)
            vfs.fsync(handle)
        elif size < segment.file_bytes:
            expected = segment.file_bytes
            log.reader.report(
                Corruption("segment file is cut short", file=segment.path, offset=size, expected=expected, actual=size)
            )
    finally:
        vfs.close(handle)
