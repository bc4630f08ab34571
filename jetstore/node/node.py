"""One server's engine: opens the store, leads every group, and owns their common journal, storage and life.

Start here to see what lives when: ``Node.start`` → metadata group → one ``StreamGroup`` per stream → serving;
``Node.stop`` → no new work → what is due is written → checkpoints → the writer is released.
``streams_api.py`` is what the ``$JS.API`` table calls.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

from jetstore.clock import Clock
from jetstore.errors import ApiError, Corruption, DiskPoisoned
from jetstore.limits import Limits
from jetstore.meta.state import MetaState, StreamAssignment, created_by, encode_skip
from jetstore.model.api_errors import api_error
from jetstore.model.stream import StreamConfig
from jetstore.node.compactor import Compactor
from jetstore.node.delivery import CONSUMER_DELETED
from jetstore.node.group import MEMBER, Group
from jetstore.node.group_commit import GroupCommit
from jetstore.node.loop_lag import LoopLag
from jetstore.node.lost import LostStream
from jetstore.node.opening import GroupFiles, Indexes
from jetstore.node.ports import Outlet
from jetstore.node.scrub import Scrub
from jetstore.node.storage import Storage
from jetstore.node.stream_group import StreamGroup
from jetstore.raft.log import Entry
from jetstore.store.checkpoint_files import GROUPS_DIR
from jetstore.store.ports import Checkpoint, Disk, GroupRecovery, JournalRecovery, JournalStatus, Kind, Record
from jetstore.store.vfs import Vfs
from jetstore.stream.entries import encode_config
from jetstore.types import META_GROUP, GroupUid, RaftIndex, Term

log = structlog.get_logger(__name__)

Members = tuple[tuple[str, int], ...]
"""(node id, incarnation) of a new group's voters 1, 2, …"""
ROOM_CHECK_S = 0.02
"""How often free disk space is looked at while the node is busy: what a fast disk takes meanwhile fits the reserve."""
META_CHECKPOINT_BYTES = 64 << 10
"""The metadata names everything else: it is checkpointed (in two copies) early, and at every clean stop."""
CHECKPOINT_AT_STOP_BYTES = 64 << 10
"""At a clean stop, groups with more journal than this are checkpointed, so that the next start replays little."""
TRIM_EVERY_BLOCKS = 16
"""How often (in journal blocks, each ≤ 1 MiB or one entry) the unflushed tails of all streams are added up."""
DAMAGE_WATCH_S = 1.0
"""How soon damage that reads met is said."""
LOST_RETRY_TURNS = 5
"""After so many of those a stream that could not be opened is tried again."""
STOP_DRAIN_S = 5.0
"""How long a clean stop waits for what was already proposed."""


class MetaGroup(Group):
    """The metadata group with its checkpoints: one head, no chunks, no segments."""

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
        """Whether everything that was committed before the leader's term is applied here."""
        log = self.core.log
        return log.applied_index > log.checkpoint_index and log.applied_term == self.core.term

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


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a node is built from; the composition root and the simulator fill it differently."""

    vfs: Vfs
    disk: Disk
    recovery: JournalRecovery
    indexes: Indexes
    limits: Limits
    clock: Clock
    loop: asyncio.AbstractEventLoop
    outlet: Outlet
    rng: Random
    on_poison: Callable[[BaseException], None]
    """Called once when the disk failed: the process must end; nothing may be acknowledged after it."""


class Node:
    """All groups of one server. Everything happens on its event loop."""

    def __init__(self, parts: NodeParts) -> None:
        """Nothing runs before ``start``."""
        self.parts = parts
        self.limits, self.loop, self.clock, self.outlet = parts.limits, parts.loop, parts.clock, parts.outlet
        self.commit = GroupCommit(parts.disk, parts.limits, parts.loop, on_status=self._on_status, on_failure=self.fail)
        self._tombstones: set[GroupUid] = set()
        """Groups whose tombstone the journal carries until a metadata checkpoint covers it."""
        self.lag = LoopLag(parts.loop)
        self.storage = Storage(parts.disk, parts.limits, parts.loop)
        self.scrub = Scrub(
            parts.vfs, parts.limits, parts.loop, self.storage, lambda: list(self.streams.values()), lambda: self.meta
        )
        self.compactor = Compactor(parts.disk, self.storage, lambda: list(self.streams.values()))
        self.files = GroupFiles(parts.vfs, parts.indexes, parts.limits)
        self.streams: dict[str, StreamGroup] = {}
        self.lost: dict[str, LostStream] = {}
        """Streams that the metadata names and the store does not hold any more: alarmed, never founded again."""
        self.meta: MetaGroup
        """Opened by ``start``."""
        self.meta_lock = asyncio.Lock()
        self.poisoned_by: BaseException | None = None
        self.is_stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._recovered: dict[GroupUid, GroupRecovery] = {}
        """What the journal knew at start of groups that are not open yet."""
        self._founded: set[GroupUid] = set()
        """Groups whose founding record was written since start, and that no applied metadata has named yet."""
        self._follows_meta = False
        """The metadata was current once since start: groups come and go with it."""
        self._room_checked_at = float("-inf")
        self._has_room = True

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything and return when every readable stream serves."""
        recovery = self.parts.recovery
        self._recovered = dict(recovery.groups)
        for finding in recovery.findings:
            log.warning("journal finding", finding=finding)
        self._own(self.storage.run())
        self._own(self.compactor.run())
        self._own(self._watch_damage())
        self.lag.start()
        self.meta = self._open_meta(recovery.groups.get(META_GROUP))
        self.meta.start()
        await self.meta.serving()
        for group in list(self.streams.values()):
            if not group.is_faulty:
                await group.serving()
        for group in self.streams.values():
            await self.bring_config_up(group)
        self._own(self.scrub.run())

    async def stop(self) -> None:
        """Clean stop: answer what is due, make the state durable, release the store. Never raises on a sick disk."""
        self.is_stopping = True
        for group in self.streams.values():
            group.delivery.stop()
        try:
            async with asyncio.timeout(STOP_DRAIN_S):
                await self.commit.drained()
        except TimeoutError:
            log.warning("stopping although the disk is busy", waited_s=STOP_DRAIN_S)
        try:
            if self.poisoned_by is None:
                members: list[MetaGroup | StreamGroup] = [self.meta, *self.streams.values()]
                for member in members:
                    bound = 0 if member is self.meta else CHECKPOINT_AT_STOP_BYTES
                    if member.core.log.bytes_above_checkpoint > bound and not member.is_faulty:
                        await self.storage.checkpoint(member)
        except Exception as error:  # noqa: BLE001 - a checkpoint at stop is a favour to the next start, not a duty
            log.warning("checkpoint at stop failed", error=str(error))
        self.abandon()
        await self.parts.disk.close()

    def abandon(self) -> None:
        """Stop at once, answering nothing more."""
        self.commit.stop()
        self.lag.stop()
        for group in self.streams.values():
            group.stop()
        if hasattr(self, "meta"):
            self.meta.stop()
        for task in self._tasks:
            task.cancel()
        self.files.close()

    async def _watch_damage(self) -> None:
        """Say what reads found damaged; try again to open what could not be read: the device may have recovered."""
        for turn in itertools.count(1):
            await asyncio.sleep(DAMAGE_WATCH_S)
            for group in self.streams.values():
                group.take_findings()
            if turn % LOST_RETRY_TURNS == 0:
                for name in [name for name, lost in self.lost.items() if lost.uid in self._recovered]:
                    assignment = self.lost[name].assignment
                    self._forget_group(name)
                    self._open_stream(assignment)

    def _own(self, coroutine: Any) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.fail(task.exception())

    def fail(self, error: BaseException | None) -> None:
        """Stop at once and for good: the disk has failed, or what is not understood has happened. Idempotent."""
        if self.poisoned_by is not None:
            return
        self.poisoned_by = error or DiskPoisoned("unknown failure")
        log.critical("disk failed: this node stops", error=str(error))
        self.abandon()
        self.parts.on_poison(self.poisoned_by)

    # -- opening ----------------------------------------------------------------------------------------------------

    def _open_meta(self, recovered: GroupRecovery | None) -> MetaGroup:
        if recovered is None and (self.parts.recovery.groups or self.parts.vfs.list_dir(GROUPS_DIR)):
            # Founding it anew would bury every stream of the store.
            raise Corruption("the journal does not know the metadata group, but streams", file="journal", offset=0)
        machine = MetaState()
        is_newer = False
        if recovered is not None:
            before = recovered.checkpoint_index
            head, recovered = self.files.head_of(recovered)
            is_newer = recovered.checkpoint_index != before
            if head is not None:
                machine = MetaState.restore(head)
        meta = MetaGroup(
            uid=META_GROUP,
            name="_meta_",
            machine=machine,
            recovery=recovered,
            commit=self.commit,
            limits=self.limits,
            loop=self.loop,
            on_applied=self._meta_applied,
        )
        if meta.is_faulty or (recovered is not None and (not recovered.last_known or recovered.is_stopped)):
            raise Corruption(
                "the metadata group's log is unreadable; nothing was changed; see `jetstore verify` and `recover`",
                file="journal",
                offset=0,
            )
        if recovered is not None and is_newer:  # a head without its CKPT line, as in ``add_group``
            index, term, head_hash = recovered.checkpoint_index, recovered.checkpoint_term, recovered.checkpoint_hash
            meta.add_record(Record(Kind.RESET, META_GROUP, term, Term(0), index, index, 0, head_hash, b""))
        meta.on_checkpoint = self._meta_checkpointed
        meta.found = self._found
        meta.written_last = (meta.core.log.last_term, meta.core.log.last_index)
        self.storage.add(meta)
        return meta

    # -- following the metadata ---------------------------------------------------------------------------------------

    def _follow_meta(self) -> None:
        """Have exactly the groups that the metadata names: open, found or bury the rest."""
        assigned = self.meta.machine.streams
        here: dict[str, StreamGroup | LostStream] = {**self.streams, **self.lost}
        for name in [name for name, group in here.items() if not _is_same(assigned.get(name), group.uid)]:
            self._forget_group(name)
            self.entomb(here[name].uid)
        for assignment in [a for a in assigned.values() if a.name not in here or a.uid != here[a.name].uid]:
            self._open_stream(assignment)
        for uid in sorted(
            uid for uid in self._founded if uid < self.meta.machine.next_uid
        ):
            self._founded.discard(uid)
            self.entomb(uid)

    def _first_meta(self) -> None:
        """The metadata is as new as anybody's, for the first time since start: what it does not name has to go."""
        assigned = {assignment.uid for assignment in self.meta.machine.streams.values()}
        for uid in sorted(set(self._recovered) - assigned - {META_GROUP}):
            if self._recovered.pop(uid).generation:
                self._bury(uid)
            else:  # its tombstone stands; its files may not all be gone
                self._tombstones.add(uid)
                self._remove_files(uid)
        self._follow_meta()
        for finding in self.parts.indexes.findings:
            log.warning("index rebuilt", finding=finding)
        self.files.quarantine_unknown(assigned | {META_GROUP}, self.clock.wall_ns())

    def _found(self, uid: GroupUid, members: Members) -> Record | None:
        """The founding record of this node's member of a new group (``MetaGroup.found``)."""
        self._founded.add(uid)
        return Record(Kind.GROUP, uid, Term(0), Term(0), RaftIndex(0), RaftIndex(0), 0, MEMBER, b"")

    def _open_stream(self, assignment: StreamAssignment) -> None:
        recovered = self._recovered.pop(assignment.uid, None)
        try:
            if recovered is None and assignment.uid not in self._founded:
                raise Corruption("the journal does not know the group", file="journal", offset=0)
            group = self.add_group(assignment, recovered)
        except Corruption as error:
            if recovered is not None:
                self._recovered[assignment.uid] = recovered
            self.lost[assignment.name] = LostStream(assignment, error, self.outlet)
            log.error("stream damaged", stream=assignment.name, uid=assignment.uid, error=str(error))
            return
        self._founded.discard(assignment.uid)
        if group.paused_by is None:
            group.start()
        if group.is_faulty:
            log.error(
                "stream faulty",
                stream=group.name,
                index=group.core.log.faulty_index,
                last_index=group.core.log.last_index,
            )
            group.announce_fault()

    def add_group(self, assignment: StreamAssignment, recovered: GroupRecovery | None) -> StreamGroup:
        """The driver of a stream's group, recovered or (None) new. Not started yet."""
        head: bytes | None = None
        if recovered is not None:
            before = recovered.checkpoint_index
            head, recovered = self.files.head_of(recovered)
            is_newer = recovered.checkpoint_index != before
        storage = str(assignment.config.get("storage", "file"))
        group = StreamGroup(
            uid=assignment.uid,
            name=assignment.name,
            stream=self.files.open_stream(assignment.uid, storage, head),
            recovery=recovered,
            commit=self.commit,
            limits=self.limits,
            loop=self.loop,
            clock=self.clock,
            outlet=self.outlet,
            rng=self.parts.rng,
            admission=self.admission,
            on_applied=lambda applied: self.storage.note_applied(group),
            on_pause=self._group_paused,
        )
        if recovered is not None and is_newer:  # a head without its CKPT line: from now on it counts
            index, term, head_hash = recovered.checkpoint_index, recovered.checkpoint_term, recovered.checkpoint_hash
            group.add_record(Record(Kind.RESET, group.uid, term, Term(0), index, index, 0, head_hash, b""))
        if recovered is not None and (not recovered.last_known or recovered.is_stopped):
            why = "has a line of an unknown kind" if recovered.is_stopped else "has lost its last entries"
            group.paused_by = Corruption(f"the log of stream {group.name} {why}", file="journal", offset=0)
        self.streams[assignment.name] = group
        self.storage.add(group)
        return group

    def _forget_group(self, name: str) -> None:
        """A stream was deleted: stop its group, take it off the router."""
        group = self.streams.pop(name, None)
        if group is not None:
            group.delivery.stop(CONSUMER_DELETED)
            group.stop()
            self.storage.discard(group.uid)
        lost = self.lost.pop(name, None)
        if lost is not None:
            lost.close()

    async def bring_config_up(self, group: StreamGroup) -> None:
        """Propose the desired configuration to the stream's own group if that has not applied it yet."""
        assignment = self.meta.machine.streams.get(group.name)
        if assignment is None or group.is_faulty or group.stream.config_version >= assignment.version:
            return
        config = StreamConfig.from_json(assignment.config)
        await group.call(encode_config(assignment.version, assignment.created_ns, config))

    # -- the end of a group -------------------------------------------------------------------------------------------

    def _bury(self, uid: GroupUid) -> None:
        """A group that no metadata names: its stream was deleted, or its creation was cut off."""
        if uid >= self.meta.machine.next_uid:
            self.meta.propose_with(encode_skip(uid), lambda _: self.entomb(uid))
        else:
            self.entomb(uid)

    def entomb(self, uid: GroupUid) -> None:
        """Write the group's tombstone; its files go once that is durable."""
        record = Record(Kind.GROUP, uid, Term(0), Term(0), RaftIndex(0), RaftIndex(0), 0, 0, b"")

        def durable() -> None:
            self._tombstones.add(uid)
            self._remove_files(uid)

        self.meta.add_record(record, durable)

    def _group_paused(self, group: Group) -> None:
        """A group stands still and takes no publishes: files that only it needs must not fill the journal."""
        standing = [other.uid for other in self.streams.values() if other.is_faulty]
        self.parts.disk.call("leave_uncounted", standing).add_done_callback(_seen)

    def _meta_applied(self, group: Group) -> None:
        try:
            if self._follows_meta:
                self._follow_meta()
            elif self.meta.is_current:
                self._follows_meta = True
                self._first_meta()
        except Exception as error:  # noqa: BLE001 - whatever it is: this node does not have the groups it must have
            self.fail(error)
            return
        if group.core.log.bytes_above_checkpoint > META_CHECKPOINT_BYTES:
            self.storage.want_checkpoint(META_GROUP)

    def _meta_checkpointed(self) -> None:
        """The metadata checkpoint proves that these uids are dead: the journal need not carry that any more."""
        if self._tombstones:
            forgotten, self._tombstones = sorted(self._tombstones), set()
            self.parts.disk.call("forget_groups", forgotten).add_done_callback(_seen)

    def _remove_files(self, uid: GroupUid) -> None:
        self.storage.discard(uid)
        for command in ("remove_group_dir", "index_drop"):
            self.parts.disk.call(command, uid).add_done_callback(_seen)

    def health_problem(self) -> str:
        """Why this node should get no traffic now, in nats-server's words where it has some; "" = healthy."""
        if self.poisoned_by is not None:
            return f"JetStream disk failed: {self.poisoned_by}"
        if self.is_stopping:
            return "server is shutting down"
        for name in self.lost:
            return f"JetStream stream '$G > {name}' is not current: its data is damaged"
        for name, group in self.streams.items():
            if group.is_faulty:
                return f"JetStream stream '$G > {name}' is not current: an entry of its log is unreadable"
            if group.damage:
                return f"JetStream stream '$G > {name}' is not current: stored messages are unreadable"
        refusal = self.admission()
        if refusal is not None:
            return f"JetStream takes no publishes: {refusal.description}"
        return ""

    # -- admission ----------------------------------------------------------------------------------------------------

    def admission(self) -> ApiError | None:
        """Why publishes are refused now (before they are proposed), or None."""
        if self.is_stopping:
            return api_error("JSClusterNotAvailErr")
        now = self.loop.time()
        if now - self._room_checked_at >= ROOM_CHECK_S:
            self._room_checked_at = now
            free = self.parts.vfs.free_bytes()
            bound = self.limits.disk_reserve_bytes if self._has_room else self.limits.disk_resume_bytes
            has_room = free >= bound
            if has_room != self._has_room:
                log.warning("disk room", free_bytes=free, accepts_publishes=has_room)
            self._has_room = has_room
            if not has_room:
                self._make_room()
            if self.commit.status is not None and not self.commit.status.accepts_publishes:
                self.commit.refresh()  # nothing else would tell an idle node that its journal has room again
        status = self.commit.status
        if not self._has_room or (status is not None and not status.accepts_publishes):
            return api_error("JSInsufficientResourcesErr")
        return None

    def _make_room(self) -> None:
        """The files of removed messages go with the next checkpoint: have it now."""
        for group in self.streams.values():
            if group.messages.has_dropped_files and not group.is_faulty:
                self.storage.want_checkpoint(group.uid)

    def _on_status(self, status: JournalStatus) -> None:
        self.storage.relieve(status)
        if self.commit.blocks % TRIM_EVERY_BLOCKS == 0:
            self.storage.trim_memory()


def _is_same(assignment: StreamAssignment | None, uid: GroupUid) -> bool:
    return assignment is not None and assignment.uid == uid


def _seen(future: asyncio.Future[Any]) -> None:
    """A failure to tidy up is not lost: a poisoned disk fails the journal, too, and the next start tidies up again."""
    if not future.cancelled():
        future.exception()
