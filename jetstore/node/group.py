"""One Raft group's driver on one node: proposals in, journal records out, applied outcomes back to who asked.

``Group`` is what all groups share (the metadata group uses it as it is); ``StreamGroup`` adds publishes and consumers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from jetstore.errors import ApiError, Corruption, NotNow, OutcomeUnknown
from jetstore.limits import Limits
from jetstore.node.group_commit import Block, GroupCommit
from jetstore.node.raft_host import RaftHost
from jetstore.raft.core import HardState, RaftCore, RaftOptions, Token
from jetstore.raft.log import Entry, RaftLog
from jetstore.raft.membership import Configuration, decode_configuration, is_configuration
from jetstore.raft.ready import CheckpointFetch, Event, Fenced, LeaderChanged, ReadState, Removed
from jetstore.store.journal.entries import encode_entries, encode_entry
from jetstore.store.ports import PLAIN, GroupRecovery, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

log = structlog.get_logger(__name__)

MEMBER = 1
"""This node's member number in the groups of a standalone server."""
ALONE = Configuration.founding([("local", 0)])
"""The configuration of such a group."""

APPLY_SLICE_S = 0.008
"""Apply runs at most about this long before other callbacks of the event loop get their turn."""


CONFIRM_TIMEOUT_S = 5.0
"""A read that no quorum has confirmed by then is refused."""


@dataclass(frozen=True, slots=True)
class Replication:
    """What makes a group one of several nodes."""

    host: RaftHost
    member: int
    configuration: Configuration
    """That it was founded with; the state and the log carry later ones."""
    boot: int
    """Starts of this node."""
    random_below: Callable[[int], int]


class StateMachine(Protocol):
    """A deterministic state machine: what a group's entries mean."""

    applied_index: RaftIndex
    raft_configuration: bytes
    """The group's members as of ``applied_index``, kept with the state; b"" = those it was founded with."""

    def apply(self, index: RaftIndex, term: Term, data: bytes, cache: Any = None) -> Any:
        """Take the entry; its outcome, the same on every replica."""


class Group:
    """Drives one group. Everything happens on the event loop; nothing here awaits the disk."""

    raft_options = RaftOptions()
    """Followers of the metadata hear of what is committed at once: they open groups that others wait for."""

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
        replication: Replication | None = None,
    ) -> None:
        """A group as recovery found it, or (``recovery`` None) a new one. Without ``replication`` it has one member."""
        self.uid = uid
        self.name = name
        self.key = name
        """What tells it from every other group of this node."""
        self.machine = machine
        self.limits = limits
        self.loop = loop
        self._commit = commit
        self._on_applied = on_applied
        self._on_pause = on_pause
        self._host = replication.host if replication is not None else None
        recovered = recovery or GroupRecovery(uid)
        self.founding = replication.configuration if replication is not None else ALONE
        configuration = self.founding
        if machine.raft_configuration:
            configuration = decode_configuration(machine.raft_configuration)
        self.core = RaftCore(
            member=replication.member if replication is not None else MEMBER,
            configuration=configuration,
            hard_state=HardState(recovered.term, recovered.vote),
            log=RaftLog(
                checkpoint_index=recovered.checkpoint_index,
                checkpoint_term=recovered.checkpoint_term,
                entries=[
                    Entry(e.term, e.index, e.data, e.message_count, is_plain=e.is_plain) for e in recovered.entries
                ],
                resident_bytes_max=limits.journal_reappend_bytes,
                retain_bytes=limits.raft_retain_bytes if replication is not None else 0,
            ),
            random_below=replication.random_below if replication is not None else lambda below: 0,
            boot=replication.boot if replication is not None else 0,
            options=self.raft_options,
        )
        assert machine.applied_index == recovered.checkpoint_index, "the state machine must stand at the checkpoint"
        self._waiters: deque[tuple[Term, RaftIndex, Callable[[Any], None]]] = deque()
        self._promises: dict[asyncio.Future[Any], None] = {}
        """Futures that ``propose`` gave out and that are not resolved."""
        self._is_leading = False
        """As far as the hooks were told."""
        self._is_serving = False
        self._apply_soon = False
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
        self.is_barred = False
        """Its state is lost and comes from a peer: until then it votes and stores, and neither applies nor leads."""

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take part: stand for election at once if nobody else votes, or when no leader is heard."""
        if self._host is not None:
            self._host.add(self)
        if self.core.configuration.voters == {self.core.member}:
            self.core.campaign()
        self.advance()

    def campaign(self) -> None:
        """Stand for election now."""
        self.core.campaign()
        self.advance()

    def stop(self) -> None:
        """Accept nothing more. What waits is dropped unanswered: its outcome is unknown."""
        self.stopped = True
        if not self.ended.done():
            self.ended.set_result(None)
        if self._host is not None:
            self._host.discard(self.uid)
        self._drop_waiters()
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
        return self.core.log.faulty_index is not None or self.paused_by is not None or self.is_barred

    @property
    def is_torn(self) -> bool:
        """The state is that of no index: an entry was applied in part."""
        return False

    @property
    def is_alone(self) -> bool:
        """Whether no other member has, or will have, what this one has."""
        return self.core.configuration.all_members == (self.core.member,)

    # -- proposing ------------------------------------------------------------------------------------------------

    def propose(self, data: bytes, cache: object = None) -> asyncio.Future[Any]:
        """The outcome of applying ``data`` once it is durable and committed.

        Raises NotNow if this member cannot propose (then nothing was proposed). The future fails with OutcomeUnknown if
        this member stops leading before the outcome is known.
        """
        future: asyncio.Future[Any] = self.loop.create_future()

        def resolve(outcome: Any) -> None:
            self._promises.pop(future, None)
            if not future.done():
                future.set_result(outcome)

        self.propose_with(data, resolve, cache=cache)
        self._promises[future] = None
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

    def _drop_waiters(self) -> None:
        """Whoever waits for an outcome is told nothing: it may still come about, under another leader."""
        self._waiters.clear()
        promises, self._promises = self._promises, {}
        for future in promises:
            if not future.done():
                future.set_exception(OutcomeUnknown(f"{self.name} leads or applies no longer"))
                future.exception()  # nobody has to look

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
        if self.core.has_hard_state():  # a part of its own: else nobody votes whose journal has no room for entries
            hard = self.core.ready_hard_state()
            block.add(self, [self._hard_record(hard.hard_state)], self._stored, hard.token)
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
            for entry in ready.repairs:
                count, at = entry.message_count, entry.index
                body = encode_entries([(count, entry.data or b"")])
                aux = 0 if core.configurations.carriers(at, at) else PLAIN
                records.append(Record(Kind.REPAIR, self.uid, entry.term, Term(0), at, at, count, aux, body))
            records += self._entry_records(ready.entries, ready.prev_term)
            more = more or core.has_ready()
        if records:
            block.add(self, records, self._stored, token)
        if self._host is not None:  # the followers' disks work at the same time as ours
            messages = core.take_messages()
            if messages:
                self._host.send(self, messages)
        return more

    def _hard_record(self, hard: HardState | None) -> Record:
        assert hard is not None
        none = RaftIndex(0)
        return Record(Kind.HARD, self.uid, hard.term, Term(0), none, none, 0, hard.vote, b"")

    def _stored(self, token: Token | None) -> None:
        """A part of ours is durable: what was ready under this token (None: only entries that were durable before)."""
        if token is None or self.stopped:
            return
        self.core.stored(token)
        if self._host is not None or not self._is_leading:
            self.advance()

    # -- after an input of the core -----------------------------------------------------------------------------------

    def advance(self) -> None:
        """Hand on everything that the core has to say (``raft_host.Replica``)."""
        core = self.core
        if self.stopped:
            return
        if core.is_leader != self._is_leading or (self._is_serving and not core.is_leader):
            self._role_changed()
        if self._host is not None:
            messages = core.take_messages()
            if messages:
                self._host.send(self, messages)
            self._host.touched(self)
        if core.events:
            for event in core.take_events():
                self.on_event(event)
        if core.has_ready():
            self._commit.want(self)
        log_ = core.log
        if min(log_.committed_index, log_.durable_index) > log_.applied_index and not self._apply_soon:
            self._apply_soon = True
            self.loop.call_soon(self._apply_now)

    def _apply_now(self) -> None:
        self._apply_soon = False
        self.apply_committed()

    def _role_changed(self) -> None:
        self._is_leading = self.core.is_leader
        if not self._is_leading:
            self._is_serving = False
            self._drop_waiters()
            self.on_resigned()

    def hand_over(self) -> None:
        """Give leadership to the follower that has most of the log, if this member has it."""
        core = self.core
        progress = core.status().progress
        others = [number for number in core.configuration.voters if number != core.member and number in progress]
        if core.is_leader and others:
            core.transfer_leader(max(others, key=lambda number: (progress[number].match_index, -number)))
            self.advance()

    def on_event(self, event: Event) -> None:
        """Something that the core asks for or tells."""
        if isinstance(event, ReadState):
            confirmed = event.context
            assert isinstance(confirmed, asyncio.Future)
            if not confirmed.done():
                confirmed.set_result(event.index is not None and self.core.log.applied_index >= event.index)
        elif isinstance(event, CheckpointFetch):
            if self._host is not None:
                self._host.on_checkpoint_wanted(self.uid, event)
        elif isinstance(event, LeaderChanged):
            log.debug("group has another leader", group=self.name, leader=event.leader, term=event.term)
        elif isinstance(event, Fenced | Removed):
            log.error("group member does not count any more", group=self.name, reason=str(event))

    async def confirm(self) -> None:
        """Return once it is sure that this member still leads: its state has all that was acknowledged before the call.

        Raises NotNow if it is not sure. Immediate where nobody else votes. Source: thesis §6.4, read index.
        """
        if not self.serves or self.is_faulty:
            raise NotNow("not the leader, or not up to date")
        if self.core.configuration.all_voters == {self.core.member}:
            return
        confirmed: asyncio.Future[bool] = self.loop.create_future()
        self._promises[confirmed] = None
        self.core.read_index(confirmed)
        self.advance()
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                is_sure = await confirmed
        except (TimeoutError, OutcomeUnknown):
            raise NotNow("leadership could not be confirmed") from None
        finally:
            self._promises.pop(confirmed, None)
        if not is_sure or not self.serves:
            raise NotNow("leadership could not be confirmed")

    def _entry_records(self, entries: list[Entry], prev_term: Term) -> list[Record]:
        """One ENTRIES record per run of one term; a configuration has one of its own, so that others can be told apart
        from it by their line alone."""
        if not entries:
            return []
        carriers = self.core.configurations.carriers(entries[0].index, entries[-1].index)
        if len(entries) == 1:
            entry = entries[0]
            index, count = entry.index, entry.message_count
            aux = 0 if carriers else PLAIN
            body = encode_entry(count, entry.data or b"")
            return [Record(Kind.ENTRIES, self.uid, entry.term, prev_term, index, index, count, aux, body)]
        records = []
        start = 0
        while start < len(entries):
            end = start + 1
            aux = 0 if entries[start].index in carriers else PLAIN
            while (
                aux
                and end < len(entries)
                and entries[end].term == entries[start].term
                and entries[end].index not in carriers
            ):
                end += 1
            run = entries[start:end]
            body = encode_entries([(entry.message_count, entry.data or b"") for entry in run])
            count = sum(entry.message_count for entry in run)
            records.append(
                Record(Kind.ENTRIES, self.uid, run[0].term, prev_term, run[0].index, run[-1].index, count, aux, body)
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
            last = len(entries) - 1
            deadline = self.loop.time() + APPLY_SLICE_S if last else 0.0
            for position, entry in enumerate(entries):
                try:
                    self._apply(entry)
                except Corruption as error:
                    self._pause(error)
                    break
                if position < last and self.loop.time() > deadline:
                    self._apply_scheduled = True
                    self.loop.call_soon(self._apply_more)
                    break
            self.after_apply()
            if self._on_applied is not None:
                self._on_applied(self)
        if not self._is_serving and self.core.serves and not self.is_faulty:
            self._is_serving = True
            if not self._serving.done():
                self._serving.set_result(None)
            log.info("group serves", group=self.name, term=self.core.term, index=self.core.log.applied_index)
            self.on_serving()
        if self._host is not None and not self.stopped:
            self.advance()

    def hold(self) -> None:
        """Apply nothing until ``release``: the state is being replaced."""
        self._holds += 1

    def release(self) -> None:
        """Apply again, once everybody who held has released."""
        self._holds -= 1
        if not self._holds:
            self.apply_committed()

    def bar(self) -> None:
        """What was opened is a placeholder: the state has to come from a peer."""
        self.is_barred = True
        self.hold()

    def unbar(self) -> None:
        """The state has come."""
        self.is_barred = False
        self.release()

    def replace_machine(self, machine: StateMachine) -> None:
        """From now on this is the state; it stands where the log does. Whatever waited is never answered."""
        self.machine = machine
        self.paused_by = None
        self._drop_waiters()

    def _apply_more(self) -> None:
        self._apply_scheduled = False
        self.apply_committed()

    def _pause(self, error: Corruption) -> None:
        """Apply never skips: it stands still at this entry until the store is repaired."""
        self.paused_by = error
        self._drop_waiters()
        if not self._serving.done():  # a damaged group must not keep the node from starting
            self._serving.set_result(None)
        log.error("apply paused", group=self.name, error=str(error))
        if self._on_pause is not None:
            self._on_pause(self)

    def _apply(self, entry: Entry) -> None:
        outcome = apply_entry(self.machine, entry)
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
        """Hook: this member leads and is up to date, for the first time in this term."""

    def on_resigned(self) -> None:
        """Hook: this member no longer leads. What it proposed and did not see applied has an unknown outcome."""


def apply_entry(machine: StateMachine, entry: Entry) -> Any:
    """What a state machine makes of an entry. Raises ``Corruption``."""
    assert entry.data is not None
    data = entry.data
    if is_configuration(data):  # the core's own business; the state only carries it along
        machine.raft_configuration, data = data, b""
    return machine.apply(entry.index, entry.term, data, entry.cache)


def _call_each(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
