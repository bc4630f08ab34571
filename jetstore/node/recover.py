"""The way out of a damaged store without peers: save what is readable, accept the gap, never reuse a sequence.

For a stream whose log has an unreadable entry everything up to the fault is applied. The entries behind it cannot be:
what they would have done depends on the lost one. ``recover_stream`` exports their messages, then moves the stream's
last sequence past everything that may ever have been acknowledged (the lost entries' message counts are in the journal's
lines), so that the gap is explicit and no sequence is handed out twice. Consumers keep their positions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jetstore.errors import Corruption, JetstoreError
from jetstore.hot.frame import frame_columns
from jetstore.limits import Limits
from jetstore.node.examine import GroupReport, RebuiltIndexes, examine
from jetstore.node.opening import GroupFiles
from jetstore.store.checkpoint_files import head_hash
from jetstore.store.journal.recovery import open_journal
from jetstore.store.ports import Kind, Record
from jetstore.store.vfs import Vfs
from jetstore.store.writer import Writer
from jetstore.stream.entries import EntryKind, decode_publish, entry_kind
from jetstore.types import RaftIndex, Term


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one damaged stream."""

    name: str
    first_lost_seq: int
    last_lost_seq: int
    """The explicit gap: nothing is stored at these sequences now, or ever."""
    exported_messages: int
    """Messages behind the fault that were readable; they are in the export, not in the stream."""
    lost_messages_max: int
    """Messages that unreadable entries may have carried."""


def is_recoverable(group: GroupReport) -> bool:
    """Whether this stream is damaged in a way that accepting a gap mends."""
    return group.stream is not None and group.assignment is not None and bool(group.first_fault)


def exported_lines(group: GroupReport) -> Iterator[bytes]:
    """Readable messages behind the fault, one JSON object a line: subject, time, headers and data in base64.

    They have no sequence: which one they got (if any) was for the lost entries to decide.
    """
    for entry in group.recovery.entries:
        if entry.index < group.first_fault or entry.data is None or not entry.data:
            continue
        try:
            if entry_kind(entry.data) is not EntryKind.PUBLISH:
                continue
            _, frames = decode_publish(entry.data)
        except JetstoreError:
            continue
        for frame in frames:
            columns = frame_columns(frame)
            for number, (subject, payload) in enumerate(zip(columns.subjects, columns.payloads, strict=True)):
                header_len = columns.header_lens[number] if columns.header_lens else 0
                shown: dict[str, Any] = {
                    "subject": subject.decode("utf-8", "replace"),
                    "entry": entry.index,
                    "time_ns": frame.base_time_ns + number,
                    "data": base64.b64encode(payload[header_len:]).decode("ascii"),
                }
                if header_len:
                    shown["header"] = base64.b64encode(payload[:header_len]).decode("ascii")
                yield json.dumps(shown).encode() + b"\n"


def recover(
    vfs: Vfs, limits: Limits, export: Callable[[str, Iterator[bytes]], int]
) -> tuple[list[Recovered], list[str]]:
    """Mend every stream that accepting a gap mends; what was done, and what stays damaged and why.

    ``export(stream name, lines)`` writes the lines away durably and returns how many there were; it is called before
    anything is changed. The store must be locked by the caller. Running it again finds nothing left to do.
    """
    report, files = examine(vfs, limits)
    files.close()
    remaining = list(report.findings)
    damaged = [group for group in report.groups if group.findings]
    candidates = [group for group in damaged if is_recoverable(group)]
    remaining += [f"{g.name}: {finding}" for g in damaged if g not in candidates for finding in g.findings]
    if report.identity is None or report.journal is None or report.meta is None or not candidates:
        return [], remaining
    counts = {group.uid: export(group.name, exported_lines(group)) for group in candidates}
    journal, _ = open_journal(vfs, limits, report.identity.journal_id_bytes)
    writer = Writer(vfs, journal, limits)
    done = []
    try:
        for group in candidates:
            done.append(_accept_gap(vfs, limits, writer, group, counts[group.uid]))
    finally:
        writer.close()
    return done, remaining


def _accept_gap(vfs: Vfs, limits: Limits, writer: Writer, group: GroupReport, exported: int) -> Recovered:
    """Write a checkpoint at the evidenced last index whose state is the one before the fault, plus the gap."""
    assert group.assignment is not None
    files = GroupFiles(vfs, RebuiltIndexes(vfs), limits)
    try:
        head, recovery = files.head_of(group.recovery)
        storage = str(group.assignment.config.get("storage", "file"))
        stream = files.open_stream(group.uid, storage, head)
        behind = lost = 0
        for entry in recovery.entries:
            if entry.index < group.first_fault:
                assert entry.data is not None
                stream.apply(entry.index, entry.term, entry.data)
            else:
                behind += entry.message_count
                lost += entry.message_count if entry.data is None else 0
        first_lost = stream.contents.last_seq + 1
        stream.contents.skip_to(stream.contents.last_seq + behind)
        stream.applied_index = RaftIndex(recovery.last_index)
        stream.applied_term = Term(recovery.last_term)
        messages = stream.log
        for path, offset, buffers in messages.take_unflushed():  # type: ignore[attr-defined]  # CheckpointedLog
            writer.execute("make_group_dir", (group.uid,))
            writer.execute("write_segment", (path, offset, buffers))
        checkpoint = stream.checkpoint(recovery.last_term)
        written = writer.execute(
            "write_checkpoint", (checkpoint.uid, checkpoint.head, checkpoint.chunks, checkpoint.segments)
        )
        if written != head_hash(checkpoint.head):
            raise Corruption("head hash differs after writing", file=f"groups/{group.uid}", offset=0)
        index, term = checkpoint.index, Term(recovery.last_term)
        writer.execute("append", ([Record(Kind.RESET, group.uid, term, Term(0), index, index, 0, written, b"")],))
        return Recovered(group.name, first_lost, stream.contents.last_seq, exported, lost)
    finally:
        files.close()
