"""What tests of the journal share: small limits, records in one line, and a model that knows only what was appended."""

from __future__ import annotations

from collections.abc import Sequence

from jetstore.limits import KIB, Limits
from jetstore.store.journal.entries import encode_entries
from jetstore.store.ports import GroupRecovery, JournalRecovery, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

JOURNAL_ID = b"journal-id-16byt"


def small_limits(
    *, file_bytes: int = 64 * KIB, block_bytes: int = 16 * KIB, files: int = 8, spares: int = 3, zeroing: int = 64 * KIB
) -> Limits:
    """Limits under which a test fills files quickly."""
    return Limits(
        journal_file_bytes=file_bytes,
        journal_spare_files=spares,
        journal_bytes_max=files * file_bytes,
        block_bytes_max=block_bytes,
        entry_bytes_max=min(block_bytes, 4 * KIB),
        max_payload_bytes=4 * KIB,
        journal_reappend_bytes=4 * KIB,
        zeroing_bytes=zeroing,
        segment_sync_bytes=8 * KIB,
    )


def entries(
    group: int, term: int, prev_term: int, first: int, datas: Sequence[bytes], *, messages_each: int = 1
) -> Record:
    """An ENTRIES record."""
    return Record(
        Kind.ENTRIES,
        GroupUid(group),
        Term(term),
        Term(prev_term),
        RaftIndex(first),
        RaftIndex(first + len(datas) - 1),
        messages_each * len(datas),
        0,
        encode_entries([(messages_each, data) for data in datas]),
    )


def _plain(kind: Kind, group: int, term: int, index: int, aux: int) -> Record:
    return Record(kind, GroupUid(group), Term(term), Term(0), RaftIndex(index), RaftIndex(index), 0, aux, b"")


def hard(group: int, term: int, vote: int = 1) -> Record:
    """A HARD record."""
    return _plain(Kind.HARD, group, term, 0, vote)


def checkpoint(group: int, term: int, index: int, head_hash: int = 7) -> Record:
    """A CKPT record."""
    return _plain(Kind.CKPT, group, term, index, head_hash)


def reset(group: int, term: int, index: int, head_hash: int = 7) -> Record:
    """A RESET record."""
    return _plain(Kind.RESET, group, term, index, head_hash)


def generation(group: int, number: int) -> Record:
    """A GROUP record; number 0 is the tombstone."""
    return _plain(Kind.GROUP, group, 0, 0, number)


def log_of(group: GroupRecovery) -> dict[int, tuple[int, bytes | None]]:
    """Index → (term, data) of what was recovered above the checkpoint."""
    return {entry.index: (entry.term, entry.data) for entry in group.entries}


class Model:
    """The dumb model: one dict per group, told only of records whose append was acknowledged."""

    def __init__(self) -> None:
        self.logs: dict[int, dict[int, tuple[int, bytes]]] = {}
        self.hard: dict[int, tuple[int, int]] = {}
        self.checkpoints: dict[int, tuple[int, int, int]] = {}
        self.generations: dict[int, int] = {}

    def copy(self) -> Model:
        twin = Model()
        twin.logs = {group: dict(log) for group, log in self.logs.items()}
        twin.hard = dict(self.hard)
        twin.checkpoints = dict(self.checkpoints)
        twin.generations = dict(self.generations)
        return twin

    def told(self, records: Sequence[Record]) -> None:
        """These are durable."""
        for record in records:
            group = record.group
            log = self.logs.setdefault(group, {})
            if record.kind == Kind.ENTRIES:
                from jetstore.store.journal.entries import iter_entries

                for index in [index for index in log if index >= record.first_index]:
                    del log[index]
                for index, (_, data) in enumerate(iter_entries(record.body), record.first_index):
                    log[index] = (record.term, data)
                if record.term > self.hard.get(group, (0, 0))[0]:
                    self.hard[group] = (record.term, 0)
            elif record.kind == Kind.HARD:
                self.hard[group] = (record.term, record.aux)
            elif record.kind in (Kind.CKPT, Kind.RESET):
                index = record.first_index
                keeps = record.kind == Kind.CKPT or log.get(index, (-1, b""))[0] == record.term
                self.logs[group] = {i: entry for i, entry in log.items() if i > index and keeps}
                self.checkpoints[group] = (index, record.term, record.aux)
            elif record.kind == Kind.GROUP:
                if record.aux != self.generations.get(group, 1):
                    self.logs[group] = {}
                    self.checkpoints.pop(group, None)
                    self.hard[group] = (self.hard.get(group, (0, 0))[0], 0)
                self.generations[group] = record.aux

    def above_checkpoint(self, group: int) -> dict[int, tuple[int, bytes | None]]:
        at = self.checkpoints.get(group, (0, 0, 0))[0]
        return {index: entry for index, entry in self.logs.get(group, {}).items() if index > at}

    def matches(self, recovery: JournalRecovery) -> str:
        """ "" if the recovery is exactly this model, else the first difference."""
        for uid in sorted({*self.logs, *recovery.groups}):
            group = recovery.groups.get(GroupUid(uid))
            if group is None:
                return f"group {uid} is missing"
            if uid not in self.logs:
                return f"group {uid} was never told"
            if group.generation != self.generations.get(uid, 1):
                return f"group {uid}: generation {group.generation}"
            if self.generations.get(uid, 1) == 0:
                continue
            if (group.term, group.vote) != self.hard.get(uid, (0, 0)):
                return f"group {uid}: hard state {(group.term, group.vote)}, not {self.hard.get(uid)}"
            found = (group.checkpoint_index, group.checkpoint_term, group.checkpoint_hash)
            if found != self.checkpoints.get(uid, (0, 0, 0)):
                return f"group {uid}: checkpoint {found}"
            if log_of(group) != self.above_checkpoint(uid):
                return f"group {uid}: log {log_of(group)}, not {self.above_checkpoint(uid)}"
            if not group.last_known:
                return f"group {uid}: last unknown"
        return ""
