"""A store looked at from outside, with the production code and a file port that changes nothing.

``examine`` does what a start does up to the point where it would write: journal, metadata, each stream's checkpoint,
the entries above it. ``verify`` then reads every frame and footer, the other copy of each head, and the index.
Safe on a damaged store: each group is looked at on its own, and what is wrong becomes a finding that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jetstore.errors import Corruption, IndexDoubt, JetstoreError
from jetstore.limits import Limits
from jetstore.meta.state import MetaState, StreamAssignment
from jetstore.node.open_store import disowned_text, least_journal_block
from jetstore.node.opening import GroupFiles
from jetstore.node.read_only import ReadOnlyVfs
from jetstore.store.checkpoint_files import GROUPS_DIR, newest_journal_block, read_heads
from jetstore.store.identity import Identity, read_identity
from jetstore.store.index_base import ProvenBase
from jetstore.store.index_check import IndexState, rows_digest
from jetstore.store.index_layers import LayeredIndex
from jetstore.store.journal.recovery import read_journal
from jetstore.store.log_scrub import Scrubber
from jetstore.store.memory_index import FileRows
from jetstore.store.message_log import SegmentedLog
from jetstore.store.ports import GroupRecovery, JournalRecovery
from jetstore.store.vfs import Vfs
from jetstore.stream.stream import Stream
from jetstore.types import META_GROUP, GroupUid, RaftIndex

SCRUB_STEP_BYTES = 16 << 20

StoredIndexes = Callable[[Sequence[int]], Mapping[int, IndexState]]
"""What the index store holds of these streams (``jetstore.store.index_check``)."""


@dataclass(slots=True)
class GroupReport:
    """One group: what the journal proves of it, and what its files hold."""

    uid: GroupUid
    name: str
    recovery: GroupRecovery
    assignment: StreamAssignment | None = None
    checkpoint_index: RaftIndex = RaftIndex(0)
    stream: Stream | None = None
    """As far as it can be applied; None for the metadata group and where the checkpoint is unreadable."""
    index_stamp: int = 0
    """Stamp that the index should have, by the checkpoint."""
    index_previous: int = 0
    """Stamp from which the checkpoint's own chunk leads there."""
    index_digest: int = 0
    """``rows_digest`` of the log as of the checkpoint."""
    first_fault: int = 0
    """Index of the first entry that cannot be applied; 0 = none."""
    findings: list[str] = field(default_factory=list)
    """Damage. Empty: everything that was acknowledged is readable, as far as was looked."""

    def add(self, finding: str) -> None:
        """One more finding, unless it is known."""
        if finding not in self.findings:
            self.findings.append(finding)


@dataclass(slots=True)
class StoreReport:
    """A whole store."""

    identity: Identity | None = None
    journal: JournalRecovery | None = None
    meta: MetaState | None = None
    groups: list[GroupReport] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    """Damage that is no single group's."""
    notes: list[str] = field(default_factory=list)
    """What is unusual and no damage: torn tails, what a start would tidy up."""

    @property
    def is_sound(self) -> bool:
        """Nothing that was acknowledged is missing, as far as was looked."""
        return not self.findings and not any(group.findings for group in self.groups)


class RebuiltIndexes:
    """Indexes made from the logs, in memory: an examination trusts nothing that can be derived."""

    def __init__(self, vfs: Vfs) -> None:
        """Looks for no stored rows: ``vfs`` has none under the twin's names."""
        self._vfs = vfs
        self.findings: list[str] = []
        self.opened: dict[int, tuple[int, int, int]] = {}
        """By stream, as of its checkpoint: stamp, stamp before, digest of the rows."""

    def open(
        self, uid: int, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes], log: SegmentedLog
    ) -> LayeredIndex:
        """An index with exactly the log's rows."""
        index = LayeredIndex(uid, ProvenBase(uid, FileRows(self._vfs, uid)))
        with suppress(IndexDoubt):
            index.restore(head_part, chunks)  # the next stamp must be a new one
        rows = log.index_rows()
        part = head_part or {"stamp": 0, "previous": 0}
        self.opened[uid] = (part["stamp"], part["previous"], rows_digest(rows.items()))
        index.rebuild(rows)
        return index

    def close(self) -> None:
        """Nothing is held open."""


def examine(vfs: Vfs, limits: Limits) -> tuple[StoreReport, GroupFiles]:
    """What a start would find. Changes nothing. Close the files when the report is no longer used."""
    report = StoreReport()
    looking = ReadOnlyVfs(vfs)
    indexes = RebuiltIndexes(looking)
    files = GroupFiles(looking, indexes, limits)
    try:
        report.identity, wrong = read_identity(looking)
    except (JetstoreError, OSError) as error:
        report.findings.append(str(error))
        return report, files
    if report.identity is None:
        report.findings.append("no readable IDENTITY" + "".join(f": {finding}" for finding in wrong))
        return report, files
    report.notes += wrong
    if report.identity.disowned:
        report.findings.append(disowned_text(report.identity))
    try:
        least_lsn = least_journal_block(newest_journal_block(looking)[0], report.identity)
        report.journal = read_journal(looking, limits, report.identity.journal_id_bytes, least_lsn)
    except (JetstoreError, OSError) as error:
        report.findings.append(f"journal: {error}")
        return report, files
    if report.journal.is_new and report.identity.journal_born:
        report.findings.append("the journal is gone")
        return report, files
    report.notes += report.journal.findings
    groups = report.journal.groups
    if META_GROUP not in groups and (groups or looking.list_dir(GROUPS_DIR)):
        report.findings.append("the journal does not know the metadata group: which streams exist is lost")
    if META_GROUP in groups:
        report.meta = _examine_meta(report, files, groups[META_GROUP])
    assigned = {a.uid: a for a in report.meta.streams.values()} if report.meta is not None else {}
    for uid in sorted(set(groups) | set(assigned)):
        if uid == META_GROUP or (uid in groups and not groups[uid].generation):
            continue
        group = _examine_stream(files, uid, groups.get(uid), assigned.get(uid))
        group.index_stamp, group.index_previous, group.index_digest = indexes.opened.get(uid, (0, 0, 0))
        report.groups.append(group)
    report.notes += looking.skipped
    return report, files


def _examine_meta(report: StoreReport, files: GroupFiles, recovery: GroupRecovery) -> MetaState | None:
    group = GroupReport(META_GROUP, "_meta_", recovery)
    report.groups.append(group)
    try:
        head, recovery = files.head_of(recovery)
        machine = MetaState.restore(head) if head is not None else MetaState()
    except (JetstoreError, OSError) as error:
        group.findings.append(str(error))
        return None
    group.recovery, group.checkpoint_index = recovery, recovery.checkpoint_index
    _note_journal(group)
    for entry in recovery.entries:
        if entry.data is None:
            group.first_fault = entry.index
            group.findings.append(f"entry {entry.index} is unreadable: apply stands still there")
            break
        machine.apply(entry.index, entry.term, entry.data)
    return machine


def _examine_stream(
    files: GroupFiles, uid: GroupUid, recovery: GroupRecovery | None, assignment: StreamAssignment | None
) -> GroupReport:
    name = assignment.name if assignment is not None else f"(group {uid}, named by nobody)"
    group = GroupReport(uid, name, recovery or GroupRecovery(uid), assignment)
    if recovery is None:
        group.findings.append("the journal does not know this group: its log is lost")
        return group
    try:
        head, recovery = files.head_of(recovery)
        group.recovery, group.checkpoint_index = recovery, recovery.checkpoint_index
        _note_journal(group)
        storage = str(assignment.config.get("storage", "file")) if assignment is not None else "file"
        group.stream = files.open_stream(uid, storage, head)
    except (JetstoreError, OSError) as error:
        group.findings.append(str(error))
        return group
    for entry in recovery.entries:
        if entry.data is None:
            group.first_fault = entry.index
            lost = sum(e.message_count for e in recovery.entries if e.data is None)
            group.findings.append(
                f"entry {entry.index} is unreadable: apply stands still there; entries to {recovery.last_index} follow;"
                f" unreadable ones carried up to {lost} messages"
            )
            break
        try:
            group.stream.apply(entry.index, entry.term, entry.data)
        except (Corruption, OSError) as error:
            group.first_fault = entry.index
            group.findings.append(f"entry {entry.index} cannot be applied: {error}")
            break
    return group


def _note_journal(group: GroupReport) -> None:
    if not group.recovery.last_known:
        group.findings.append("unreadable journal blocks may have held later entries of this group")
    if group.recovery.is_stopped:
        group.findings.append("a journal line of a kind that this version does not know")


def verify(vfs: Vfs, limits: Limits, report: StoreReport, stored_indexes: StoredIndexes | None = None) -> None:
    """Read everything the report's groups refer to; damage is added to their findings. Changes nothing.

    ``stored_indexes`` reads the index store; what is wrong with it is only a note: it is rebuilt from the logs.
    """
    looking = ReadOnlyVfs(vfs)
    for group in report.groups:
        if group.checkpoint_index:
            _verify_heads(looking, group)
        if group.stream is not None:
            _verify_log(group)
    if stored_indexes is not None:
        _verify_indexes(report, stored_indexes)


def _verify_heads(looking: Vfs, group: GroupReport) -> None:
    try:
        copies, wrong = read_heads(looking, group.uid)
    except (JetstoreError, OSError) as error:
        group.add(str(error))
        return
    for finding in wrong:
        group.add(finding)
    if len(copies) == 1 and not wrong:
        group.add("one of the two copies of the head is missing")
    if len({copy.hash for copy in copies}) > 1:
        group.add("the two copies of the head differ")


def _verify_log(group: GroupReport) -> None:
    assert group.stream is not None
    messages = group.stream.log
    assert isinstance(messages, SegmentedLog)
    scrubber = Scrubber()
    found: list[Corruption] = []
    try:
        while not scrubber.step(messages, SCRUB_STEP_BYTES, found):
            """One bounded piece after the other, until the round is complete."""
    except (JetstoreError, OSError) as error:
        group.add(f"segments cannot be read on: {error}")
    for damage in (*found, *messages.findings):
        group.add(str(damage))


def _verify_indexes(report: StoreReport, stored_indexes: StoredIndexes) -> None:
    groups = [group for group in report.groups if group.stream is not None and group.index_stamp]
    found = stored_indexes([group.uid for group in groups])
    for group in groups:
        state = found[group.uid]
        problem = state.problem
        if not problem and state.stamp == group.index_stamp and state.digest != group.index_digest:
            problem = "its rows are not those of the messages"
        if not problem and not group.index_previous <= state.stamp <= group.index_stamp:
            problem = f"it is at stamp {state.stamp}, the checkpoint at {group.index_stamp}"
        if problem:
            report.notes.append(f"{group.name}: the index will be rebuilt from the messages: {problem}")
