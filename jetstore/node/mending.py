"""One damaged stream as ``jetstore recover`` leaves it: what is readable, then a gap wider than what may be lost.

Three bases, the best that the files give: the checkpoint that the journal proves; a readable one that it does not prove
(newer, or older than what is lost); none at all: then every record of every segment file, and no consumers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jetstore.consumer.state import ConsumerState, filters_of
from jetstore.errors import Corruption, IndexDoubt, JetstoreError
from jetstore.limits import Limits
from jetstore.meta.state import StreamAssignment
from jetstore.model.stream import StreamConfig
from jetstore.node.opening import CheckpointedLog, GroupFiles
from jetstore.store.checkpoint_files import read_heads
from jetstore.store.index_base import ProvenBase
from jetstore.store.index_layers import LayeredIndex
from jetstore.store.log_mend import Mended, Write, drop_unreadable, live_totals, rebuild_log
from jetstore.store.memory_index import FileRows
from jetstore.store.message_log import SegmentedLog
from jetstore.store.ports import GroupRecovery
from jetstore.store.vfs import Vfs
from jetstore.stream.settings import Settings
from jetstore.stream.stream import Stream
from jetstore.stream.subjects import filter_of
from jetstore.types import RaftIndex, Term

UNKNOWN_END_MESSAGES = 1 << 40
"""Without any checkpoint nobody knows how many messages were stored and removed behind the last one found; fewer than
this. A stream that takes 100,000 messages a second gets there in four months."""
_NEW_STAMP = 1 << 40
"""Without a checkpoint the index's last stamp is unknown: this is above all of them."""


@dataclass(slots=True)
class MendedStream:
    """A stream's state, ready for a checkpoint at ``index``, ``term``."""

    stream: Stream
    index: RaftIndex
    term: Term
    first_gap_seq: int
    """The gap begins here; it is empty if ``stream.contents.last_seq`` is below."""
    exported_from: int = 0
    """Index of the first journal entry that was not applied; 0 = all were."""
    lost: list[tuple[int, int]] = field(default_factory=list)
    """Ranges before the gap in which messages were unreadable."""
    lost_messages: int = 0
    """At most so many messages are lost, the gap included; -1 = unknown."""
    notes: list[str] = field(default_factory=list)
    """What else the operator must know."""


class _MendingIndexes:
    """Gives each log an index made of what is readable; the rest is removed from the log."""

    def __init__(self, vfs: Vfs, write: Write) -> None:
        self._vfs = vfs
        self._write = write
        self.findings: list[str] = []
        self.mended = Mended()

    def open(
        self, uid: int, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes], log: SegmentedLog
    ) -> LayeredIndex:
        index = LayeredIndex(uid, ProvenBase(uid, FileRows(self._vfs, uid)))
        with suppress(IndexDoubt):
            index.restore(head_part, chunks)  # the next stamp must be a new one
        self.mended = drop_unreadable(log, self._vfs, self._write)
        index.rebuild(log.index_rows())
        return index

    def close(self) -> None:
        """Nothing is held open."""


def mend_stream(
    vfs: Vfs,
    limits: Limits,
    write: Write,
    recovery: GroupRecovery,
    assignment: StreamAssignment,
    *,
    is_known: bool,
    journal_bytes: int,
) -> MendedStream:
    """The stream without what is unreadable. Writes only new segment files, which nothing refers to yet.

    ``is_known``: the journal knows the group. ``journal_bytes``: no more messages than this can have been in lost
    blocks. Raises ``Corruption`` where something readable contradicts itself.
    """
    indexes = _MendingIndexes(vfs, write)
    files = GroupFiles(vfs, indexes, limits)
    notes: list[str] = []
    is_proven = is_known
    applies = True
    try:
        head: bytes | None = None
        try:
            if not is_known:
                raise Corruption("the journal does not know the group", file="journal", offset=0)
            head, recovery = files.head_of(recovery)
            stream = files.open_stream(recovery.uid, _storage(assignment), head)
        except JetstoreError as error:
            notes.append(str(error))
            is_proven = False
            stream, applies = _unproven(vfs, limits, write, files, indexes, recovery, assignment, notes)
        entries = [entry for entry in recovery.entries if entry.index > stream.applied_index]
        mended = indexes.mended
        _recount(stream, mended)
        stopped_at = 0
        behind = lost = 0
        is_bounded = is_proven and recovery.last_known
        for entry in entries:
            if not stopped_at and (entry.data is None or not applies or entry.index != stream.applied_index + 1):
                stopped_at = entry.index
            if not stopped_at:
                assert entry.data is not None
                stream.apply(entry.index, entry.term, entry.data)
                continue
            behind += entry.message_count
            if entry.data is None:
                lost += entry.message_count
                is_bounded = is_bounded and entry.is_count_known
        if not is_bounded:
            behind += journal_bytes
        if not mended.has_end:
            behind += UNKNOWN_END_MESSAGES
        first_gap = stream.contents.last_seq + 1
        stream.contents.skip_to(stream.contents.last_seq + behind)
        last_term = max(recovery.last_term, recovery.term, stream.applied_term)
        stream.applied_index = RaftIndex(max(recovery.last_index, stream.applied_index) + 1)
        stream.applied_term = Term(last_term + 1)
        return MendedStream(
            stream,
            stream.applied_index,
            stream.applied_term,
            first_gap,
            stopped_at,
            mended.lost,
            lost + mended.lost_messages if is_bounded and mended.has_end else -1,
            notes,
        )
    finally:
        files.close()


def _storage(assignment: StreamAssignment) -> str:
    return str(assignment.config.get("storage", "file"))


def _unproven(
    vfs: Vfs,
    limits: Limits,
    write: Write,
    files: GroupFiles,
    indexes: _MendingIndexes,
    recovery: GroupRecovery,
    assignment: StreamAssignment,
    notes: list[str],
) -> tuple[Stream, bool]:
    """The stream of the newest readable head, or of the segment files alone; and whether entries follow it."""
    copies, _ = read_heads(vfs, recovery.uid)
    copies.sort(key=lambda copy: -int(json.loads(copy.content)["index"]))
    for copy in copies:
        try:
            stream = files.open_stream(recovery.uid, _storage(assignment), copy.content)
        except JetstoreError as error:
            notes.append(str(error))
            continue
        notes.append(f"the checkpoint at index {stream.applied_index} was used, which the journal does not prove")
        return stream, True
    fields = json.loads(copies[0].content) if copies else None
    return _from_segments(vfs, limits, write, indexes, recovery, assignment, fields, notes), False


def _from_segments(
    vfs: Vfs,
    limits: Limits,
    write: Write,
    indexes: _MendingIndexes,
    recovery: GroupRecovery,
    assignment: StreamAssignment,
    fields: dict[str, Any] | None,
    notes: list[str],
) -> Stream:
    """Every record of every segment file, the metadata's configuration, and what a head still tells if there is one."""
    messages = CheckpointedLog(vfs, recovery.uid, limits, storage=_storage(assignment))
    indexes.mended = rebuild_log(messages, vfs, write)
    index = LayeredIndex(recovery.uid, ProvenBase(recovery.uid, FileRows(vfs, recovery.uid)))
    with suppress(IndexDoubt):
        index.restore({"stamp": _NEW_STAMP, "previous": 0, "chunk": ""}, {})
    index.rebuild(messages.index_rows())
    stream = Stream(recovery.uid, messages, index, limits)
    stream.config = StreamConfig.from_json(assignment.config)
    stream.config_version = assignment.version
    stream.created_ns = assignment.created_ns
    stream.settings = Settings.of(stream.config)
    stream.dedupe.window_ns = stream.settings.duplicate_window_ns
    stream.applied_index, stream.applied_term = recovery.checkpoint_index, recovery.checkpoint_term
    files = messages.segment_files()
    stream.contents.last_time_ns = files[-1].last_time_ns if files else 0
    notes.append("all messages in segment files are back, also those that had been removed from them")
    notes.append("message ids and expiry times of single messages are forgotten")
    if fields is None:
        notes.append("the stream's consumers are lost: create them anew")
        return stream
    stream.contents.skip_to(fields["last_seq"])
    stream.contents.last_time_ns = max(stream.contents.last_time_ns, fields["last_time_ns"])
    stream.logged_ns = fields["logged_ns"]
    for head in fields["consumers"]:
        consumer = ConsumerState.from_head(head, None, stream.contents)
        consumer.subject_filter = filter_of(filters_of(consumer.config))
        stream.consumers[consumer.name] = consumer
    return stream


def _recount(stream: Stream, mended: Mended) -> None:
    """Counters and consumers follow what was removed behind their backs."""
    messages = stream.log
    assert isinstance(messages, SegmentedLog)
    contents = stream.contents
    contents.messages, contents.bytes, largest = live_totals(messages)
    contents.largest_bytes = max(contents.largest_bytes, largest)
    for consumer in stream.consumers.values():
        for first, last in mended.lost:
            consumer.on_removed_range(first, last, (), stream.logged_ns)
        consumer.cursor.recount(contents, consumer.subject_filter)
