"""The way out of a damaged store without peers: save what is readable, accept the gap, never reuse a sequence.

For a stream whose log has an unreadable entry everything up to the fault is applied. The entries behind it cannot be:
what they would have done depends on the lost one. ``recover`` exports their messages, then moves the stream's last
sequence past everything that may ever have been acknowledged, so that the gap is explicit and no sequence is handed out
twice. Consumers keep their positions. Unreadable frames of segments become removed messages, by name.

The metadata group names the streams. If it is damaged it is put together from what is readable of it and from the
streams' own groups, each of which carries its configuration.

Source: ``docs/operations/damage.md``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jetstore.errors import Corruption, JetstoreError
from jetstore.hot.frame import frame_columns
from jetstore.limits import Limits
from jetstore.meta.state import MetaState, StreamAssignment, named_by
from jetstore.meta.stream_key import GLOBAL_ACCOUNT, name_of
from jetstore.node.examine import StoreReport, examine, verify
from jetstore.node.mending import MendedStream, mend_stream
from jetstore.node.open_store import least_journal_block
from jetstore.node.opening import QUARANTINE_DIR
from jetstore.store.checkpoint_files import (
    GROUPS_DIR,
    HeadCopy,
    group_dir,
    head_hash,
    newest_journal_block,
    read_heads,
)
from jetstore.store.identity import note_journal
from jetstore.store.journal.files import JOURNAL_DIR, file_numbers
from jetstore.store.journal.recovery import open_journal
from jetstore.store.ports import Checkpoint, EntryRef, GroupRecovery, Kind, Record
from jetstore.store.vfs import Vfs
from jetstore.store.writer import Writer
from jetstore.stream.entries import EntryKind, decode_fast, decode_publish, entry_kind
from jetstore.types import META_GROUP, GroupUid, Nanos, RaftIndex, Term


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one damaged stream."""

    name: str
    first_lost_seq: int
    last_lost_seq: int
    """The explicit gap: nothing is stored at these sequences now, or ever. Empty if the last is below the first."""
    exported_messages: int
    """Messages behind the fault that were readable; they are in the export, not in the stream."""
    lost_messages_max: int
    """Messages that unreadable bytes may have held; -1 = nobody knows."""
    lost: list[tuple[int, int]] = field(default_factory=list)
    """Ranges before the gap in which stored messages were unreadable."""
    notes: list[str] = field(default_factory=list)
    """What else the operator must know."""


Export = Callable[[str, Iterator[bytes]], int]
"""Writes lines away durably under a stream's name; how many there were."""


def exported_lines(entries: Iterable[EntryRef], first_index: int) -> Iterator[bytes]:
    """Readable messages of entries from an index on, one JSON object a line: subject, time, headers, data in base64.

    They have no sequence: which one they got (if any) was for the lost entries to decide.
    """
    for entry in entries:
        if entry.index < first_index or not entry.data:
            continue
        try:
            kind = entry_kind(entry.data)
            if kind is EntryKind.FAST:
                _, _, frames = decode_fast(entry.data)
            elif kind in (EntryKind.PUBLISH, EntryKind.BATCH):
                _, frames = decode_publish(entry.data)
            else:
                continue
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


def recover(vfs: Vfs, limits: Limits, export: Export) -> tuple[list[Recovered], list[str]]:
    """Mend what accepting a loss mends; what was done, and what stays damaged and why.

    ``export`` is called for a stream before anything of it is changed. The store must be locked by the caller. Running
    it again finds nothing left to do. Raises ``JetstoreError`` or ``OSError`` if it could not be finished.
    """
    report, files = examine(vfs, limits)
    verify(vfs, limits, report)
    files.close()
    if report.identity is None or report.journal is None or report.journal.is_new:
        return [], [*report.findings, "without a readable IDENTITY and journal nothing can be mended: see a backup"]
    if report.identity.disowned:
        return [], report.findings
    if report.is_sound:
        return [], []
    return _Recovery(vfs, limits, export, report).run()


class _Recovery:
    """One run over a damaged store."""

    def __init__(self, vfs: Vfs, limits: Limits, export: Export, report: StoreReport) -> None:
        assert report.identity is not None
        assert report.journal is not None
        self.vfs, self.limits, self.export, self.report = vfs, limits, export, report
        self.groups = report.journal.groups
        self.remaining: list[str] = []
        self.done: list[Recovered] = []
        self.journal_bytes = sum(_size(vfs, f"{JOURNAL_DIR}/{name}") for name in _journal_names(vfs))
        known = report.identity
        least_lsn = least_journal_block(newest_journal_block(vfs)[0], known)
        self.journal, _ = open_journal(vfs, limits, known.journal_id_bytes, least_lsn, accepts_losses=True)
        self.writer = Writer(vfs, self.journal, limits)

    def run(self) -> tuple[list[Recovered], list[str]]:
        try:
            meta = self._meta()
            if meta is not None:
                for assignment in sorted(meta.streams.values(), key=lambda a: a.uid):
                    self._stream(assignment)
        finally:
            self.writer.close()
            note_journal(self.vfs, self.journal.position.lsn, newest_journal_block(self.vfs)[0])
        return self.done, self.remaining

    def _write(self, path: str, offset: int, buffers: Any) -> None:
        self.writer.execute("write_segment", (path, offset, buffers))

    # -- streams ----------------------------------------------------------------------------------------------------

    def _stream(self, assignment: StreamAssignment) -> None:
        uid, name = assignment.uid, assignment.name
        group = next((group for group in self.report.groups if group.uid == uid), None)
        if group is not None and not group.findings:
            return
        recovery = self.groups.get(uid)
        if recovery is not None and recovery.is_stopped:
            self.remaining.append(f"{name}: its journal has lines that only another version of jetstore understands")
            return
        known = recovery or GroupRecovery(uid)
        try:
            mended = mend_stream(
                self.vfs,
                self.limits,
                self._write,
                known,
                assignment,
                is_known=recovery is not None,
                journal_bytes=self.journal_bytes,
            )
        except JetstoreError as error:
            self.remaining.append(f"{name}: {error}")
            return
        exported = 0
        if mended.exported_from:
            exported = self.export(name, exported_lines(known.entries, mended.exported_from))
        self._install(mended, recovery)
        self.done.append(
            Recovered(
                name,
                mended.first_gap_seq,
                mended.stream.contents.last_seq,
                exported,
                mended.lost_messages,
                mended.lost,
                mended.notes,
            )
        )

    def _install(self, mended: MendedStream, recovery: GroupRecovery | None) -> None:
        stream = mended.stream
        for path, offset, buffers in stream.log.take_unflushed():  # type: ignore[attr-defined]  # CheckpointedLog
            self._write(path, offset, buffers)
        self._switch(stream.checkpoint(mended.term), recovery)

    def _switch(self, checkpoint: Checkpoint, recovery: GroupRecovery | None) -> None:
        """The head is durable in both copies; then the journal says that it is the group's beginning."""
        uid, index, term = checkpoint.uid, checkpoint.index, checkpoint.term
        written = self.writer.execute(
            "write_checkpoint", (uid, checkpoint.head, checkpoint.chunks, checkpoint.segments)
        )
        if written != head_hash(checkpoint.head):
            raise Corruption("head hash differs after writing", file=f"groups/{uid}", offset=0)
        none = RaftIndex(0)
        records = [
            Record(Kind.HARD, uid, term, Term(0), none, none, 0, recovery.vote if recovery else 0, b""),
            Record(Kind.RESET, uid, term, Term(0), index, index, 0, written, b""),
        ]
        if recovery is None:
            records.insert(0, Record(Kind.GROUP, uid, Term(0), Term(0), none, none, 0, 1, b""))
        self.writer.execute("append", (records,))
        self.writer.idle_block()

    # -- the metadata group -----------------------------------------------------------------------------------------

    def _meta(self) -> MetaState | None:
        """Which streams there are; mended first if that is damaged. None if nobody can tell."""
        group = next((group for group in self.report.groups if group.uid == META_GROUP), None)
        if group is not None and not group.findings and self.report.meta is not None:
            return self.report.meta
        recovery = self.groups.get(META_GROUP)
        if recovery is not None and recovery.is_stopped:
            self.remaining.append("the metadata's journal has lines that only another version of jetstore understands")
            return None
        copies = self._meta_heads()
        machine, notes = self._readable_meta(recovery, copies)
        notes += self._adopt_groups(machine, _keys_in(recovery, copies))
        known = recovery or GroupRecovery(META_GROUP)
        machine.applied_index = RaftIndex(max(known.last_index, machine.applied_index) + 1)
        machine.applied_term = Term(max(known.last_term, known.term, machine.applied_term) + 1)
        self._switch(machine.checkpoint(), recovery)
        self.done.append(Recovered("_meta_", 1, 0, 0, 0, [], notes))
        return machine

    def _meta_heads(self) -> list[HeadCopy]:
        """Those that can be read, the newest last."""
        copies: list[HeadCopy] = []
        try:
            copies, _ = read_heads(self.vfs, META_GROUP)
        except JetstoreError as error:
            self.remaining.append(f"_meta_: {error}")
        return sorted(copies, key=lambda copy: int(json.loads(copy.content)["index"]))

    @staticmethod
    def _readable_meta(recovery: GroupRecovery | None, copies: list[HeadCopy]) -> tuple[MetaState, list[str]]:
        """The state of the newest readable head and every readable entry above it, whatever is missing between."""
        machine = MetaState.restore(copies[-1].content) if copies else MetaState()
        notes: list[str] = []
        skipped = 0
        for entry in recovery.entries if recovery is not None else ():
            if entry.index <= machine.applied_index:
                continue
            if entry.data is None:
                skipped += 1
            else:
                machine.apply(entry.index, entry.term, entry.data)
        if skipped:
            notes.append(f"{skipped} changes of the list of streams were unreadable and passed over")
        if not copies and recovery is not None and recovery.checkpoint_index:
            notes.append("the list of streams was lost and made again from the streams themselves")
        return machine, notes

    def _adopt_groups(self, machine: MetaState, keys: Mapping[GroupUid, str]) -> list[str]:
        """Streams that only their own group knows; and none that a tombstone stands for.

        A group knows its stream's name, not whose it is: ``keys`` are what else was readable says of that.
        """
        notes = []
        gone = {uid for uid, recovery in self.groups.items() if not recovery.generation}
        for name, assignment in list(machine.streams.items()):
            if assignment.uid in gone:
                del machine.streams[name]
                notes.append(f"{name} was deleted")
        by_uid: Mapping[GroupUid, StreamAssignment] = {a.uid: a for a in machine.streams.values()}
        for group in self.report.groups:
            config = group.stream.config if group.stream is not None else None
            if group.uid == META_GROUP or group.uid in by_uid:
                continue
            if group.stream is not None and config is None and not group.findings:
                continue  # its creation was cut off: the next start buries it
            known = keys.get(group.uid, "")
            is_known = config is not None and name_of(known) == config.name
            key = known if is_known or config is None else config.name
            if group.stream is None or config is None or key in machine.streams:
                notes.append(f"group {group.uid} belongs to no stream: its files are in {self._quarantine(group.uid)}")
                continue
            version, created_ns = group.stream.config_version, Nanos(group.stream.created_ns)
            machine.streams[key] = StreamAssignment(group.uid, key, config.to_json(), version, created_ns)
            notes.append(f"{key} was found by its own group; if it had been deleted, delete it again")
            if not is_known:
                notes.append(
                    f"{key}: nothing readable says which account it belongs to; it is in {GLOBAL_ACCOUNT} now, or in"
                    " the account that has JetStream if only one has"
                )
        machine.next_uid = GroupUid(max([machine.next_uid - 1, *self.groups]) + 1)
        return notes

    def _quarantine(self, uid: GroupUid) -> str:
        """Move a group's files out of the way: the next start would remove them. Where they are now."""
        target = f"{QUARANTINE_DIR}/{uid}-recovered"
        if self.vfs.exists(group_dir(uid)):
            self.vfs.mkdir(QUARANTINE_DIR)
            self.vfs.fsync_dir("")
            self.vfs.rename(group_dir(uid), target)
            self.vfs.fsync_dir(QUARANTINE_DIR)
            self.vfs.fsync_dir(GROUPS_DIR)
        return target


def _keys_in(recovery: GroupRecovery | None, copies: list[HeadCopy]) -> dict[GroupUid, str]:
    """Keys of streams by group, as any readable head or entry of the metadata has them, in force or not."""
    keys: dict[GroupUid, str] = {}
    for copy in copies:
        keys |= {each.uid: key for key, each in MetaState.restore(copy.content).streams.items()}
    for entry in recovery.entries if recovery is not None else ():
        named = named_by(entry.data) if entry.data else None
        if named is not None:
            keys[named[0]] = named[1]
    return keys


def _journal_names(vfs: Vfs) -> list[str]:
    names = vfs.list_dir(JOURNAL_DIR)
    return [name for name in names if file_numbers([name])]


def _size(vfs: Vfs, path: str) -> int:
    handle = vfs.open(path, write=False)
    try:
        return vfs.size(handle)
    finally:
        vfs.close(handle)
