"""The metadata group's driver: its checkpoints, and the founding records of the groups that its entries create."""

from __future__ import annotations

from collections.abc import Callable

from jetstore.meta.state import MetaState, created_by
from jetstore.node.group import Group, StateMachine
from jetstore.raft.log import Entry
from jetstore.store.ports import Checkpoint, Disk, Record
from jetstore.types import GroupUid, RaftIndex, Term

Members = tuple[tuple[str, int], ...]
"""(node id, incarnation) of a new group's voters 1, 2, …; () = the one node of a standalone server."""


class MetaGroup(Group):
    """One head, no chunks, no segments."""

    machine: MetaState
    on_checkpoint: Callable[[], None]
    found: Callable[[GroupUid, Members], Record | None]
    """The founding record of a group if it is to have a member on this node."""
    written_last: tuple[Term, RaftIndex]
    """The last entry that was ever handed to the journal."""

    def _entry_records(self, entries: list[Entry], prev_term: Term) -> list[Record]:
        """A group's founding record stands before the entry that creates it, in its block (docs/decisions/0003)."""
        new = [entry for entry in entries if (entry.term, entry.index) > self.written_last]  # the rest is re-appended
        if new:
            self.written_last = (new[-1].term, new[-1].index)
        created = [created_by(entry.data) for entry in new if entry.data]
        founding = [self.found(*each) for each in created if each is not None]
        records = super()._entry_records(entries, prev_term)
        return [record for record in founding if record is not None] + records

    @property
    def is_current(self) -> bool:
        """Whether an entry of the term in effect is applied here: what went before it in the log, too."""
        return self.core.log.applied_term == self.core.term

    def founding_records(self, machine: MetaState) -> list[Record]:
        """Those of groups that this node did not hear of while it was behind: they go before the RESET."""
        applied = self.machine.applied_index
        new = [a for a in machine.streams.values() if a.created_index > applied]
        records = [self.found(assignment.uid, assignment.members) for assignment in sorted(new, key=lambda a: a.uid)]
        return [record for record in records if record is not None]

    def replace_machine(self, machine: StateMachine) -> None:
        super().replace_machine(machine)
        if self._on_applied is not None:
            self._on_applied(self)

    # -- files (storage.Checkpointable) ---------------------------------------------------------------------------

    @property
    def group(self) -> Group:
        """Itself."""
        return self

    def unflushed_bytes(self) -> int:
        return 0

    def take_unflushed(self) -> tuple[()]:
        return ()

    def flushed(self) -> None:
        """Nothing was taken."""

    def flush_failed(self) -> None:
        """Nothing was taken."""

    def capture(self) -> Checkpoint:
        return self.machine.checkpoint()

    def checkpointed(self, checkpoint: Checkpoint) -> tuple[()]:
        self.on_checkpoint()
        return ()

    async def commit_index(self, disk: Disk) -> None:
        """There is no index."""

    def changed_rows(self) -> int:
        return 0
