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
from typing import TYPE_CHECKING, Any

import structlog

from jetstore.clock import Clock
from jetstore.errors import ApiError, Corruption, DiskPoisoned, JetstoreError
from jetstore.limits import Limits
from jetstore.meta.state import MetaState
from jetstore.meta.stream_key import shown_key
from jetstore.model.api_errors import api_error
from jetstore.node.assignments import Assignments, founding_record, recovery_problem, reset_record
from jetstore.node.backup.backups import Backups
from jetstore.node.cluster_health import cluster_problem
from jetstore.node.compactor import Compactor
from jetstore.node.group import Group, Replication
from jetstore.node.group_commit import GroupCommit
from jetstore.node.hand_over import hand_over
from jetstore.node.loop_lag import LoopLag
from jetstore.node.meta_group import Members, MetaGroup
from jetstore.node.opening import GroupFiles, Indexes
from jetstore.node.ports import Outlet
from jetstore.node.resuming import Resuming
from jetstore.node.rooms import RoomLimits, Rooms
from jetstore.node.scrub import Scrub
from jetstore.node.sealing import Sealing
from jetstore.node.storage import Storage
from jetstore.node.stream_group import StreamGroup
from jetstore.store.checkpoint_files import GROUPS_DIR
from jetstore.store.identity import note_journal
from jetstore.store.ports import Disk, GroupRecovery, JournalRecovery, JournalStatus
from jetstore.store.vfs import Vfs
from jetstore.types import META_GROUP, GroupUid

if TYPE_CHECKING:
    from jetstore.node.behind import Behind
    from jetstore.node.cluster import Cluster
    from jetstore.node.comparing import Comparing
    from jetstore.node.leader_advisories import LeaderAdvisories
    from jetstore.node.placing import Placing

log = structlog.get_logger(__name__)

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
    cluster: Cluster | None
    """None: a standalone server."""
    on_poison: Callable[[BaseException], None]
    """Called once when the disk failed: the process must end; nothing may be acknowledged after it."""
    outlet_of: Callable[[str], Outlet] | None = None
    """The router of an account, by name; None: ``outlet`` stands for all."""
    room: RoomLimits | None = None
    """What streams may hold; None: only the disk bounds them."""


class Node:
    """All groups of one server. Everything happens on its event loop."""

    def __init__(self, parts: NodeParts) -> None:
        """Nothing runs before ``start``."""
        self.parts = parts
        self.limits, self.loop, self.clock, self.outlet = parts.limits, parts.loop, parts.clock, parts.outlet
        self.commit = GroupCommit(parts.disk, parts.limits, parts.loop, on_status=self._on_status, on_failure=self.fail)
        self.cluster = parts.cluster
        if self.cluster is not None:
            self.commit.heard = self.cluster.links.memory.take_changes
            self.cluster.on_heard = self.commit.refresh
        self.comparing: Comparing | None = None
        self.behind: Behind | None = None
        """What fetches states from peers; None: a standalone server."""
        self.placing: Placing | None = None
        """What changes the members of groups; None: a standalone server."""
        self.leaders: LeaderAdvisories | None = None
        """What tells who leads; None: a standalone server."""
        self.lag = LoopLag(parts.loop)
        self.storage = Storage(parts.disk, parts.limits, parts.loop)
        self.scrub = Scrub(
            parts.vfs, parts.limits, parts.loop, self.storage, lambda: list(self.streams.values()), lambda: self.meta
        )
        self.sealing = Sealing(parts.vfs, parts.limits, self.storage, self._open_groups)
        self.compactor = Compactor(parts.disk, self.storage, lambda: list(self.streams.values()), self.sealing)
        self.files = GroupFiles(parts.vfs, parts.indexes, parts.limits)
        self.rooms = Rooms(parts.room, lambda: self.streams.values()) if parts.room is not None else None
        self.assignments = Assignments(self)
        self.streams, self.lost = self.assignments.streams, self.assignments.lost
        self.meta: MetaGroup
        """Opened by ``start``."""
        self.meta_lock = asyncio.Lock()
        self.backups = Backups(self)
        self.resuming = Resuming(self)
        self.poisoned_by: BaseException | None = None
        self.is_stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._room_checked_at = float("-inf")
        self._has_room = True
        self.on_out_of_room: Callable[[], None] = lambda: None
        """Called when the disk has no room any more for publishes."""

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything and return when every readable stream serves; in a cluster: when this node takes part."""
        recovery = self.parts.recovery
        self.assignments.recovered(recovery.groups)
        for finding in recovery.findings:
            log.warning("journal finding", finding=finding)
        if self.cluster is not None:
            from jetstore.node.admitting import Admitting  # a tenth of the start-up time: only where there are others
            from jetstore.node.behind import Behind
            from jetstore.node.comparing import Comparing
            from jetstore.node.leader_advisories import LeaderAdvisories
            from jetstore.node.placing import Placing

            self.behind = Behind(self, self.cluster)
            self.comparing = Comparing(self, self.cluster, self.behind)
            self.placing = Placing(self, self.cluster)
            self.leaders = LeaderAdvisories(self)
            admitting = Admitting(self, self.cluster)
            await self.cluster.start(has_metadata=META_GROUP in recovery.groups)
        self._own(self.storage.run())
        self._own(self.compactor.run())
        self._own(self._watch_damage())
        self.lag.start()
        self.meta = self._open_meta(recovery.groups.get(META_GROUP))
        self.meta.start()
        if self.meta.is_barred and self.behind is not None:
            self.behind.lost(self.meta)
        if self.comparing is not None:
            self._own(self.comparing.run())
        if self.placing is not None:
            self._own(self.placing.run())
            self._own(admitting.run())
        if self.cluster is None:
            await self.meta.serving()
            for group in list(self.streams.values()):
                if not group.is_faulty:
                    await group.serving()
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
        if self.cluster is not None and self.poisoned_by is None and self.cluster.links.connected():
            await hand_over([self.meta, *self.streams.values()], self.loop)
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
        if self.cluster is not None:
            await self.cluster.stop()
        await self.parts.disk.close()
        if self.poisoned_by is None and self.commit.status is not None:
            try:
                note_journal(self.parts.vfs, self.commit.status.lsn)
            except (OSError, JetstoreError) as error:
                log.warning("where the journal ends was not noted", error=str(error))

    def abandon(self) -> None:
        """Stop at once, answering nothing more."""
        self.commit.stop()
        self.lag.stop()
        self.backups.stop()
        for group in self.streams.values():
            group.stop()
        if hasattr(self, "meta"):
            self.meta.stop()
        if self.cluster is not None:
            self.cluster.abandon()
        if self.behind is not None:
            self.behind.stop()
        self.resuming.stop()
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
                self.assignments.try_lost_again()

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
        lost: Corruption | None = None
        if recovered is not None:
            before = recovered
            try:
                head, recovered = self.files.head_of(recovered)
            except Corruption as error:
                if self.behind is None:
                    raise
                lost, head = error, None
                log.error("metadata damaged, it is fetched", error=str(error))
                machine.applied_index, machine.applied_term = recovered.checkpoint_index, recovered.checkpoint_term
            is_newer = recovered.checkpoint_hash != before.checkpoint_hash
            if is_newer:
                self.files.secure(recovered)
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
            replication=self._meta_replication(recovered),
        )
        is_alone = self.cluster is None
        if (meta.is_faulty and is_alone) or recovery_problem(recovered, is_alone=is_alone):
            raise Corruption(
                "the metadata group's log is unreadable; nothing was changed; see `jetstore verify` and `recover`",
                file="journal",
                offset=0,
            )
        if recovered is not None and is_newer:  # a head without its CKPT or RESET line: from now on it counts
            for record in self.assignments.found_missing(machine, before.last_index):
                meta.add_record(record)
            meta.add_record(reset_record(recovered))
        if recovered is None:
            meta.add_record(founding_record(META_GROUP, meta.core.member))
        meta.on_checkpoint = self.assignments.meta_checkpointed
        meta.found, meta.founded_since = self.assignments.found, self.assignments.founded_since
        meta.written_last = (meta.core.log.last_term, meta.core.log.last_index)
        meta.opened_last = meta.core.log.last_index
        meta.on_current = lambda: self.parts.loop.call_soon(self._meta_current)
        self.storage.add(meta)
        if lost is not None:
            meta.bar()
        return meta

    def _meta_replication(self, recovered: GroupRecovery | None) -> Replication | None:
        cluster = self.cluster
        if cluster is None:
            return None
        member = recovered.generation if recovered is not None else cluster.invited or cluster.member
        return Replication(
            host=cluster.host,
            member=member,
            configuration=cluster.founding_configuration,
            boot=cluster.identity.boot_counter,
            random_below=self.parts.rng.randrange,
        )

    def _meta_current(self) -> None:
        """Not from inside the step that told it: groups are opened now."""
        if not self.meta.stopped and self.poisoned_by is None:
            self._follow(self.assignments.meta_current)

    def _follow(self, begin: Callable[[], None]) -> bool:
        try:
            begin()
        except Exception as error:  # noqa: BLE001 - whatever it is: this node does not have the groups it must have
            self.fail(error)
            return False
        return True

    def _meta_applied(self, group: Group) -> None:
        if not self._follow(self.assignments.meta_applied):
            return
        if group.core.log.bytes_above_checkpoint > META_CHECKPOINT_BYTES:
            self.storage.want_checkpoint(META_GROUP)

    def members_for(self, replicas: int) -> Members:
        """Founding members of a new group: this node, and as many others as it takes. Raises 10005: too few nodes."""
        cluster = self.cluster
        if cluster is None:
            return ()
        own = (cluster.identity.node_id, cluster.identity.incarnation)
        others = [home for home in self.homes() if home != own]
        if replicas > len(others) + 1:
            # The configured routes may be more than the nodes they lead to.
            raise api_error("JSClusterNoPeersErrF", err=f"no suitable peers for placement, {len(others) + 1} nodes")
        return (own, *others)[: max(replicas, 1)]

    def homes(self) -> list[tuple[str, int]]:
        """(node id, incarnation) of the nodes of the cluster, in the order of their numbers in the metadata group."""
        assert self.cluster is not None
        if (nodes := self.meta.machine.nodes) is not None:
            return [member.home for member in nodes.wanted]
        return [(node.node_id, node.incarnation) for node in self.cluster.identity.founding]

    def outlet_of(self, account: str) -> Outlet:
        """The router of an account."""
        return self.parts.outlet_of(account) if self.parts.outlet_of is not None else self.outlet

    def group_of(self, uid: GroupUid) -> MetaGroup | StreamGroup | None:
        """The group with this number, if this node has a member of it that is open."""
        if uid == META_GROUP:
            return self.meta if hasattr(self, "meta") else None  # peers may ask before it is open
        return next((group for group in self.streams.values() if group.uid == uid), None)

    def _open_groups(self) -> tuple[MetaGroup | StreamGroup, ...]:
        """All of them; none before the metadata group is open."""
        return (self.meta, *self.streams.values()) if hasattr(self, "meta") else ()

    def health_problem(self) -> str:
        """Why this node should get no traffic now, in nats-server's words where it has some; "" = healthy."""
        if self.poisoned_by is not None:
            return f"JetStream disk failed: {self.poisoned_by}"
        if self.is_stopping:
            return "server is shutting down"
        for name in self.lost:
            return f"JetStream stream '{shown_key(name)}' is not current: its data is damaged"
        for name, group in self.streams.items():
            if group.is_faulty:
                return f"JetStream stream '{shown_key(name)}' is not current: an entry of its log is unreadable"
            if group.damage:
                return f"JetStream stream '{shown_key(name)}' is not current: stored messages are unreadable"
        if self.cluster is not None and (problem := cluster_problem(self)):
            return problem
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
                if not has_room:
                    self.on_out_of_room()
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
        self.commit.flush_acks()
        self.storage.relieve(status)
        if status.wants_relief and self.assignments.has_tombstones:
            self.storage.want_checkpoint(META_GROUP, is_forced=True)
        if self.cluster is not None:
            self.cluster.journal_lsn = status.lsn
        if self.commit.blocks % TRIM_EVERY_BLOCKS == 0:
            self.storage.trim_memory()
