"""Groups of this node whose logs their leader can no longer continue: each fetches a state from a peer.

The core says that a checkpoint is needed (``CheckpointFetch``) as often as it likes; here is one run a group at a time,
a pause after each that failed, and other members asked in turn. What a run received stays for the next one. The other
side, what peers ask of this node, is registered with the links.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Set
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import JetstoreError
from jetstore.node.catch_up import messages
from jetstore.node.catch_up.exports import Export, MetaExport, StreamExport
from jetstore.node.catch_up.messages import PeerRefused
from jetstore.node.catch_up.repair import damaged_ranges, repair_ranges
from jetstore.node.catch_up.sink import CatchUpSink
from jetstore.node.catch_up.source import CatchUpSource
from jetstore.node.group import Group
from jetstore.node.link.links import Links
from jetstore.node.link.ports import NotConnected
from jetstore.node.meta_group import MetaGroup
from jetstore.node.stream_group import StreamGroup
from jetstore.raft.membership import decode_configuration
from jetstore.raft.ready import CheckpointFetch
from jetstore.types import GroupUid, RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster
    from jetstore.node.node import Node

log = structlog.get_logger(__name__)

RETRY_S = 0.25
"""After a run that failed."""
REPAIR_RETRY_MAX_S = 10.0
RUNS_AT_ONCE = 4
"""Groups that catch up at the same time; the others wait for their turn."""


class LinkPeer:
    """A node, as a catch-up sees it (``catch_up.messages.Peer``)."""

    def __init__(self, links: Links, node_id: str) -> None:
        self._links = links
        self._node_id = node_id

    async def request(self, method: str, payload: bytes) -> bytes:
        """Its answer."""
        try:
            return await self._links.request(self._node_id, method, payload)
        except (NotConnected, JetstoreError) as error:
            raise PeerRefused(str(error)) from error

    async def stream(self, method: str, payload: bytes) -> AsyncIterator[bytes]:
        """Chunks of its answer."""
        try:
            async with self._links.stream(self._node_id, method, payload) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (NotConnected, JetstoreError) as error:
            raise PeerRefused(str(error)) from error


class Behind:
    """Built by a node that has a cluster."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        """Begins to answer peers; fetches when ``wanted``."""
        self._node = node
        self._cluster = cluster
        self._links = cluster.links
        self._sink = CatchUpSink(disk=node.parts.disk, vfs=node.parts.vfs, limits=node.limits, storage=node.storage)
        self._source = CatchUpSource(self._export, node.loop)
        self._tasks: dict[GroupUid, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(RUNS_AT_ONCE)
        self._repairs: dict[GroupUid, asyncio.Task[None]] = {}
        self.installed_total = 0
        self.repaired_total = 0
        for method in (messages.BEGIN, messages.TAKE, messages.DONE):
            self._links.register(method, self._answering(method))
        for method in (messages.RANGE, messages.STATE):
            self._links.register_stream(method, self._streaming(method))
        cluster.host.on_checkpoint_wanted = self.wanted

    def stop(self) -> None:
        """Fetch nothing more."""
        for task in [*self._tasks.values(), *self._repairs.values()]:
            task.cancel()

    @property
    def busy(self) -> Set[GroupUid]:
        """Groups that fetch a state, or wait for their turn."""
        return self._tasks.keys()

    # -- what peers ask -------------------------------------------------------------------------------------------

    def _answering(self, method: str):  # type: ignore[no-untyped-def]
        async def answer(node_id: str, payload: bytes) -> bytes:
            return await self._source.request(method, payload)

        return answer

    def _streaming(self, method: str):  # type: ignore[no-untyped-def]
        async def chunks(node_id: str, payload: bytes) -> AsyncGenerator[bytes, None]:
            async for chunk in self._source.stream(method, payload):
                yield chunk

        return chunks

    def _export(self, uid: GroupUid) -> Export | None:
        group = self._node.group_of(uid)
        if group is None or group.stopped or group.is_barred:
            return None
        if isinstance(group, MetaGroup):
            return MetaExport(lambda: group.machine)
        return StreamExport(uid, lambda: group.stream)

    # -- what this node needs -------------------------------------------------------------------------------------

    def wanted(self, uid: GroupUid, event: CheckpointFetch) -> None:
        """A group's core asked for a checkpoint."""
        group = self._node.group_of(uid)
        if group is None or uid in self._tasks:
            return
        task = self._tasks[uid] = self._node.loop.create_task(self._catch_up(group, event))
        task.add_done_callback(lambda done: self._done(uid, done))

    def lost(self, group: MetaGroup | StreamGroup) -> None:
        """This group's state is lost: have it from whoever has it, however long that takes."""
        task = self._tasks[group.uid] = self._node.loop.create_task(self._have_again(group))
        task.add_done_callback(lambda done: self._done(group.uid, done))

    async def _have_again(self, group: MetaGroup | StreamGroup) -> None:
        """Ask the leader, and the others in turn, until a state is installed that is not older than the lost one."""
        core = group.core
        turn = 0
        while group.is_barred and not group.stopped:
            if isinstance(group, StreamGroup) and group.paused_by is not None and await self._is_repaired(group):
                group.unbar()
                group.advance()
                return
            others = [number for number in core.configuration.all_members if number != core.member]
            source = core.leader if core.leader not in (0, core.member) else 0
            if others and (not source or turn % 3 == 2):  # now and then somebody else: the leader may be unable to
                source = others[turn // 3 % len(others)]
            turn += 1
            least = core.log.checkpoint_index
            if not source or not await self._run(group, source, least, keeps_local=False):
                await asyncio.sleep(RETRY_S)

    # -- damage in what was applied long ago ----------------------------------------------------------------------

    def damaged(self, group: StreamGroup) -> None:
        """Stored messages of this group are unreadable here: have them from another member."""
        if group.is_barred or group.uid in self._repairs:
            return
        task = self._repairs[group.uid] = self._node.loop.create_task(self._repair(group))

        def done(finished: asyncio.Task[None]) -> None:
            self._repairs.pop(group.uid, None)
            if not finished.cancelled() and finished.exception() is not None:
                self._node.fail(finished.exception())

        task.add_done_callback(done)

    async def _repair(self, group: StreamGroup) -> None:
        pause_s = RETRY_S
        while not (group.stopped or group.is_barred) and damaged_ranges(group):
            await self._is_repaired(group)
            await asyncio.sleep(pause_s)  # also after a success: what it did not cure must not keep the loop busy
            pause_s = min(2 * pause_s, REPAIR_RETRY_MAX_S)

    async def _is_repaired(self, group: StreamGroup) -> bool:
        """Whether somebody had everything that is unreadable here."""
        ranges = damaged_ranges(group)
        if not ranges or group.stream.is_torn:
            return False
        noted = list(group.damage)
        core, parts = group.core, self._node.parts
        for number in core.configuration.all_members:
            node_id = self._node_of(group, number)
            if number == core.member or not self._cluster.host.is_up(node_id):
                continue
            try:
                ranges = await repair_ranges(
                    group,
                    self._node.storage,
                    parts.disk,
                    parts.vfs,
                    parts.limits,
                    LinkPeer(self._links, node_id),
                    ranges,
                )
            except (JetstoreError, OSError) as error:
                log.warning("repair failed", group=group.name, source=number, error=str(error))
                continue
            if not ranges:
                for place in noted:  # repaired, or readable again: a device may have recovered
                    group.damage.pop(place, None)
                self.repaired_total += 1
                return True
        return False

    def _done(self, uid: GroupUid, task: asyncio.Task[None]) -> None:
        self._tasks.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            self._node.fail(task.exception())

    async def _catch_up(self, group: MetaGroup | StreamGroup, event: CheckpointFetch) -> None:
        """One run; a pause if it failed. The core asks again if it is still needed."""
        if not await self._run(group, event.source, event.index, keeps_local=True):
            await asyncio.sleep(RETRY_S)

    async def _run(self, group: MetaGroup | StreamGroup, source: int, least: RaftIndex, *, keeps_local: bool) -> bool:
        """Fetch a state ≥ ``least`` from that member and install it; whether that worked."""
        async with self._turns:
            if group.stopped:
                return False
            node_id = self._node_of(group, source)
            try:
                if not node_id:
                    raise PeerRefused(f"member {source} is nowhere")
                peer = LinkPeer(self._links, node_id)

                def restored(index: RaftIndex, term: Term, configuration: bytes) -> None:
                    known = decode_configuration(configuration) if configuration else group.founding
                    group.core.restored(index, term, known)

                if isinstance(group, MetaGroup):
                    await self._sink.catch_up_meta(group, peer, restored, min_index=least)
                else:
                    await self._sink.catch_up(group, peer, restored, min_index=least, keeps_local=keeps_local)
            except (JetstoreError, OSError) as error:
                log.warning("catch-up failed", group=group.name, source=source, error=str(error))
                return False
            self.installed_total += 1
            if group.is_barred:
                group.unbar()
            group.advance()
            return True

    def _node_of(self, group: Group, member: int) -> str:
        where = group.core.configuration.members.get(member)
        return where.node if where is not None else self._cluster.host.home_of(group.uid, member)
