"""One Raft group's driver on one node: proposals in, journal records out, applied outcomes back to who asked.

``Group`` is what all groups share (the metadata group uses it as it is); ``StreamGroup`` adds publishes and consumers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from jetstore.errors import ApiError, Corruption, NotNow
from jetstore.limits import Limits
from jetstore.node.group_commit import Block, GroupCommit
from jetstore.raft.core import HardState, RaftCore, Token
from jetstore.raft.log import Entry, RaftLog
from jetstore.raft.membership import Configuration
from jetstore.store.journal.entries import encode_entries
from jetstore.store.ports import GroupRecovery, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

log = structlog.get_logger(__name__)

MEMBER = 1
"""This node's member number in every group, as long as groups have one voter."""

APPLY_SLICE_S = 0.008
"""Apply runs at most about this long before other callbacks of the event loop get their turn."""


class StateMachine(Protocol):
    """A deterministic state machine: what a group's entries mean."""

    applied_index: RaftIndex

    def apply(self, index: RaftIndex, term: Term, data: bytes, cache: Any = None) -> Any:
        """Take the entry; its outcome, the same on every replica."""


class Group:
    """Drives one group. Everything happens on the event loop; nothing here awaits the disk."""

    def __init__(
        self,
        *,
        uid: GroupUid,
        name: str,
        machine: StateMachine,
        recovery: GroupRecovery | None,
        commit: GroupCommit,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        on_applied: Callable[[Group], None] | None = None,
        on_pause: Callable[[Group], None] | None = None,
    ) -> None:
        """A group as recovery found it, or (``recovery`` None) a new one whose first record founds it."""
        self.uid = uid
        self.name = name
        self.machine = machine
        self.limits = limits
        self.loop = loop
        self._commit = commit
        self._on_applied = on_applied
        self._on_pause = on_pause
        self._founding = recovery is None
        recovered = recovery or GroupRecovery(uid)
        self.core = RaftCore(
            member=MEMBER,
            configuration=Configuration.founding([("local", 0)]),
            hard_state=HardState(recovered.term, recovered.vote),
            log=RaftLog(
                checkpoint_index=recovered.checkpoint_index,
                checkpoint_term=recovered.checkpoint_term,
                entries=[Entry(e.term, e.index, e.data, e.message_count) for e in recovered.entries],
                resident_bytes_max=limits.journal_reappend_bytes,
            ),
            random_below=lambda below: 0,
        )
        assert machine.applied_index == recovered.checkpoint_index, "the state machine must stand at the checkpoint"
        self._waiters: deque[tuple[Term, RaftIndex, Callable[[Any], None]]] = deque()
        self._extra_records: list[tuple[Record, Callable[[], None]]] = []
        self._reappend = False
        self._is_composing = False
        self._apply_scheduled = False
        self._serving: asyncio.Future[None] = loop.create_future()
        self.stopped = False
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the group has stopped: nothing that waits for it will come any more."""
        self.paused_by: Corruption | None = None
        """Why apply stands still although the log is readable (an input of apply is not)."""
        self._holds = 0

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Found the group if it is new, then stand for election."""
        if self._founding:
            self.add_record(Record(Kind.GROUP, self.uid, Term(0), Term(0), RaftIndex(0), RaftIndex(0), 0, 1, b""))
        self.core.campaign()
        self._commit.want(self)

    def stop(self) -> None:
        """Accept nothing more. What waits is dropped unanswered: its outcome is unknown."""
        self.stopped = True
        if not self.ended.done():
            self.ended.set_result(None)
        self._waiters.clear()
        if not self._serving.done():
            self._serving.cancel()

    async def serving(self) -> None:
        """Wait until this member leads and has applied everything that was committed before, or stands still."""
        await asyncio.shield(self._serving)

    @property
    def serves(self) -> bool:
        """Whether answers from this member's state are up to date now."""
        return self.core.serves and not self.stopped

    @property
    def is_faulty(self) -> bool:
        """Apply stands still at something unreadable, and so does everything that depends on the newest state."""
        return self.core.log.faulty_index is not None or self.paused_by is not None

    # -- proposing ------------------------------------------------------------------------------------------------

    def propose(self, data: bytes, cache: object = None) -> asyncio.Future[Any]:
        """The outcome of applying ``data`` once it is durable and committed.

        Raises NotNow if this member cannot propose (then nothing was proposed). The future is never resolved if the
        node stops before the outcome is known.
        """
        future: asyncio.Future[Any] = self.loop.create_future()

        def resolve(outcome: Any) -> None:
            if not future.done():
                future.set_result(outcome)

        self.propose_with(data, resolve, cache=cache)
        return future

    def propose_with(
        self, data: bytes, on_outcome: Callable[[Any], None] | None, *, message_count: int = 0, cache: object = None
    ) -> None:
        """The same with a callback, for the hot path."""
        if self.stopped or self.is_faulty:
            raise NotNow(f"{self.name} is not available")
        entry = self.core.propose(data, message_count, cache)
        if on_outcome is not None:
            self._waiters.append((entry.term, entry.index, on_outcome))
        if not self._is_composing:
            self._commit.want(self)

    async def call(self, data: bytes, cache: object = None) -> Any:
        """Propose and wait; an ``ApiError`` outcome is raised."""
        outcome = await self.propose(data, cache)
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome

    # -- journal --------------------------------------------------------------------------------------------------

    def add_record(self, record: Record, on_durable: Callable[[], None] = lambda: None) -> None:
        """Put a record that is no entry (GROUP, CKPT) into the next block."""
        self._extra_records.append((record, on_durable))
        self._commit.want(self)

    def reappend(self) -> bool:
        """Write the whole log above the checkpoint again, so that an old file is not held by it.

        False if it is not all in memory, or the journal has no room for it: then only a checkpoint helps.
        """
        if not self._commit.takes_entries or self.core.log.resident() is None:
            return False
        self._reappend = True
        self._commit.want(self)
        return True

    def fill(self, budget_bytes: int) -> bool:
        """Turn what waits into proposals just before a block is composed; True if more is waiting than fitted."""
        return False

    def compose(self, block: Block) -> bool:
        """Add to the next journal block (``group_commit.Composer``)."""
        if self.stopped:
            return False
        if self._extra_records:
            extra, self._extra_records = self._extra_records, []
            block.add(self, [record for record, _ in extra], _call_each, [on_durable for _, on_durable in extra])
        if not block.takes_entries:
            return True
        self._is_composing = True  # what is proposed from here on goes into this block: no need to ask for another
        try:
            more = self.fill(block.room_bytes)
        finally:
            self._is_composing = False
        core = self.core
        records: list[Record] = []
        token: Token | None = None
        if self._reappend:
            self._reappend = False
            resident = core.log.resident()
            if resident:
                records += self._entry_records(resident, core.log.checkpoint_term)
        if core.has_ready():
            ready = core.ready(block.room_bytes)
            token = ready.token
            if ready.hard_state is not None:
                hard = ready.hard_state
                records.append(
                    Record(Kind.HARD, self.uid, hard.term, Term(0), RaftIndex(0), RaftIndex(0), 0, hard.vote, b"")
                )
            records += self._entry_records(ready.entries, ready.prev_term)
            more = more or core.has_ready()
        if records:
            block.add(self, records, self._stored, token)
        return more

    def _stored(self, token: Token | None) -> None:
        """A part of ours is durable: what was ready under this token (None: only entries that were durable before)."""
        if token is not None:
            self.core.stored(token)
            if self.core.has_ready():
                self._commit.want(self)

    def _entry_records(self, entries: list[Entry], prev_term: Term) -> list[Record]:
        """One ENTRIES record per run of one term."""
        records = []
        start = 0
        while start < len(entries):
            end = start + 1
            while end < len(entries) and entries[end].term == entries[start].term:
                end += 1
            run = entries[start:end]
            body = encode_entries([(entry.message_count, entry.data or b"") for entry in run])
            count = sum(entry.message_count for entry in run)
            records.append(
                Record(Kind.ENTRIES, self.uid, run[0].term, prev_term, run[0].index, run[-1].index, count, 0, body)
            )
            prev_term = run[-1].term
            start = end
        return records

    # -- apply ----------------------------------------------------------------------------------------------------

    def apply_committed(self) -> None:
        """Apply committed entries, in slices, and hand each outcome to who proposed it."""
        if self.stopped or self._apply_scheduled or self.paused_by is not None or self._holds:
            return
        entries = self.core.to_apply()
        if entries:
            deadline = self.loop.time() + APPLY_SLICE_S
            for position, entry in enumerate(entries):
                try:
                    self._apply(entry)
                except Corruption as error:
                    self._pause(error)
                    break
                if self.loop.time() > deadline and position + 1 < len(entries):
                    self._apply_scheduled = True
                    self.loop.call_soon(self._apply_more)
                    break
            self.after_apply()
            if self._on_applied is not None:
                self._on_applied(self)
        if self.core.serves and not self._serving.done():
            self._serving.set_result(None)
            log.info("group serves", group=self.name, term=self.core.term, index=self.core.log.applied_index)
            self.on_serving()

    def hold(self) -> None:
        """Apply nothing until ``release``: the state is being replaced."""
        self._holds += 1

    def release(self) -> None:
        """Apply again, once everybody who held has released."""
        self._holds -= 1
        if not self._holds:
            self.apply_committed()

    def replace_machine(self, machine: StateMachine) -> None:
        """From now on this is the state; it stands where the log does. Whatever waited is never answered."""
        self.machine = machine
        self.paused_by = None
        self._waiters.clear()

    def _apply_more(self) -> None:
        self._apply_scheduled = False
        self.apply_committed()

    def _pause(self, error: Corruption) -> None:
        """Apply never skips: it stands still at this entry until the store is repaired."""
        self.paused_by = error
        self._waiters.clear()  # their outcome is unknown: nobody is told anything
        if not self._serving.done():  # a damaged group must not keep the node from starting
            self._serving.set_result(None)
        log.error("apply paused", group=self.name, error=str(error))
        if self._on_pause is not None:
            self._on_pause(self)

    def _apply(self, entry: Entry) -> None:
        assert entry.data is not None
        outcome = self.machine.apply(entry.index, entry.term, entry.data, entry.cache)
        self.core.applied(entry.index)
        waiters = self._waiters
        if waiters and waiters[0][1] <= entry.index:
            term, index, on_outcome = waiters.popleft()
            assert index == entry.index, "a proposal was passed over"
            if term == entry.term:
                on_outcome(outcome)

    def after_apply(self) -> None:
        """Hook: a slice of entries was applied."""

    def on_serving(self) -> None:
        """Hook: this member leads and is up to date, for the first time since start."""


def _call_each(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
