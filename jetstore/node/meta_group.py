"""The metadata group's driver: its checkpoints, and the founding records of the groups that its entries create."""

from __future__ import annotations

from collections.abc import Callable

from jetstore.meta.placement import Member
from jetstore.meta.state import MetaState, founded_by
from jetstore.node.group import Group, StateMachine
from jetstore.raft.log import Entry
from jetstore.raft.ready import Event, LeaderChanged
from jetstore.store.ports import Checkpoint, Disk, Record
from jetstore.types import GroupUid, RaftIndex, Term

Members = tuple[tuple[str, int], ...]
"""(node id, incarnation) of a new group's voters 1, 2, …; () = the one node of a standalone server."""


class MetaGroup(Group):
    """One head, no chunks, no segments."""

    machine: MetaState
    on_checkpoint: Callable[[], None]
    found: Callable[[GroupUid, tuple[Member, ...]], list[Record]]
    """The founding record of a group's member if it is new and on this node."""
    founded_since: Callable[[MetaState, RaftIndex], list[Record]]
    """Those of all members that entries behind an index gave to this node."""
    written_last: tuple[Term, RaftIndex]
    """The last entry that was ever handed to the journal."""
    opened_last: RaftIndex
    """The last index of the log at start: nothing above it was applied before."""
    on_current: Callable[[], object]
    """Somebody leads whose term it is, and ``is_current`` holds without an entry being applied."""

    def _entry_records(self, entries: list[Entry], prev_term: Term) -> list[Record]:
        """A group's founding record stands before the entry that creates it, in its block (docs/decisions/0003)."""
        new = [entry for entry in entries if (entry.term, entry.index) > self.written_last]  # the rest is re-appended
        if new:
            self.written_last = (new[-1].term, new[-1].index)
        given = [founded_by(entry.data) for entry in new if entry.data]
        founding = [record for each in given if each is not None for record in self.found(*each)]
        return founding + super()._entry_records(entries, prev_term)

    @property
    def is_current(self) -> bool:
        """Whether what is applied is as new as anybody's, and no older than what was applied before the start.

        An entry of the term in effect is applied, and with it all before it in the log. If the term is that of the
        last life, that says little: a leader tells a node that comes back bit by bit what is committed.
        """
        log = self.core.log
        return log.applied_term == self.core.term and log.applied_index >= min(self.opened_last, log.last_index)

    def on_event(self, event: Event) -> None:
        """As ``Group``. A checkpoint may hold all there is: then no entry comes that would be applied."""
        super().on_event(event)
        if isinstance(event, LeaderChanged) and event.leader and not self.is_faulty and self.is_current:
            self.on_current()

    def founding_records(self, machine: MetaState) -> list[Record]:
        """Those of groups that this node did not hear of while it was behind: they go before the RESET."""
        return self.founded_since(machine, self.machine.applied_index)

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
