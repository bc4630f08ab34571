"""What operators ask of a cluster: who leads, who holds what. The clustered part of ``$JS.API``.

Source: nats-server 2.15, whose answers these are; docs/operations/cluster.md says what they mean here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import ApiError, ConfChangeRefused, NotNow
from jetstore.meta.state import encode_dismiss
from jetstore.model.api_errors import api_error
from jetstore.model.stream import Placement
from jetstore.node.cluster_info import peer_id, server_name
from jetstore.node.group import Group
from jetstore.node.spares import spares

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster
    from jetstore.node.node import Node
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)

STEP_DOWN_S = 2.0
"""How long a request to step down waits until somebody else leads: a transfer is given up after half of it."""
REMOVE_S = 2.0
"""How long a request to remove a server waits until that is done; it is decided before."""
LOOK_S = 0.005
NOBODY = "no replacement peer connected"


class ClusterApi:
    """Implements ``server.jsapi.ports.ClusterOperations`` on one node. Every refusal is an ``ApiError``."""

    def __init__(self, node: Node, cluster: Cluster, group_of: Callable[[str], Awaitable[StreamGroup]]) -> None:
        """``group_of`` finds a stream's group or raises what a request for it is answered with."""
        self._node = node
        self._cluster = cluster
        self._group_of = group_of

    # -- leaders ------------------------------------------------------------------------------------------------------

    async def step_down_stream(self, stream: str, placement: Placement | None) -> None:
        """Have another member lead the stream, and with it all its consumers; nothing happens to a lone copy."""
        group = await self._group_of(stream)
        group.require_serving()
        await self._step_down(group, placement)

    async def step_down_consumer(self, stream: str, consumer: str, placement: Placement | None) -> None:
        """The same, asked for one of them: consumers are led where their stream is."""
        group = await self._group_of(stream)
        group.require_serving()
        await group.confirm()
        if consumer not in group.require_serving().consumers:
            raise api_error("JSConsumerNotFoundErr")
        await self._step_down(group, placement)

    async def step_down_meta(self, placement: Placement | None) -> None:
        """Have another node lead the metadata."""
        self._require_meta()
        await self._step_down(self._node.meta, placement)

    async def _step_down(self, group: Group, placement: Placement | None) -> None:
        core = group.core
        if core.configuration.all_voters == {core.member}:
            return
        member = self._successor(group, placement)
        log.info("asked to step down", group=group.name, to=self._name(group, member))
        try:
            core.transfer_leader(member)
        except (NotNow, ConfChangeRefused) as error:
            raise api_error("JSRaftGeneralErrF", err=error) from None
        group.advance()
        deadline = self._node.loop.time() + STEP_DOWN_S
        # A core tells nobody what it has come to, and this is as rare as an operator is.
        while not self._is_led_elsewhere(group) and self._node.loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        if core.is_leader:
            raise api_error("JSRaftGeneralErrF", err="nobody has taken over")

    def _is_led_elsewhere(self, group: Group) -> bool:
        """Somebody else leads, and has committed something: so it serves, or will in a moment."""
        core = group.core
        return not core.is_leader and bool(core.leader) and core.log.applied_term == core.term

    def _successor(self, group: Group, placement: Placement | None) -> int:
        """Who is to lead: who was asked for, or else who has most of the log."""
        core = group.core
        assert core.leading is not None
        asked = placement or Placement()
        voters = {number: self._name(group, number) for number in sorted(core.configuration.voters)}
        if asked.preferred:
            found = [number for number, name in voters.items() if name == asked.preferred]
            if not found:
                raise _no_peers(f'preferred server "{asked.preferred}" not known')
            if found[0] == core.member:
                raise _no_peers(f'preferred server "{asked.preferred}" is already leader')
            voters = {found[0]: asked.preferred}
        is_elsewhere = asked.cluster not in ("", self._cluster.options.name) or bool(asked.tags)
        progress, members = core.leading.progress, core.configuration.members
        able = [
            number
            for number in voters
            if number in progress and not progress[number].is_fenced and self._cluster.host.is_up(members[number].node)
        ]
        if not able or (is_elsewhere and not asked.preferred):
            raise _no_peers(NOBODY)
        return max(able, key=lambda number: (progress[number].match_index, -number))

    def _name(self, group: Group, member: int) -> str:
        return server_name(self._node, group.core.configuration.members[member].node)

    def _require_meta(self) -> None:
        if not self._node.meta.serves:
            raise api_error("JSClusterNotAvailErr")

    # -- members ------------------------------------------------------------------------------------------------------

    async def remove_peer(self, stream: str, peer: str) -> None:
        """Have another node hold a stream's copy instead of this server (by name or peer id).

        Returns when that is decided; the old copy counts, and stays, until the new one votes. Refused: 10040 it holds
        none; 10075 no other node is there, or the only copy is on a node that is not.
        """
        self._require_meta()
        await self._node.meta.confirm()
        async with self._node.meta_lock:
            assignment = self._node.meta.machine.streams.get(stream)
            if assignment is None:
                raise api_error("JSStreamNotFoundErr")
            placement = assignment.placement
            gone = next((member for member in placement.wanted if self._is(peer, member.node)), None)
            if gone is None:
                raise api_error("JSClusterPeerNotMemberErr")
            taken = {member.home for member in placement.wanted + placement.leaving}
            found = spares(self._node, taken)
            if not found or (len(placement.wanted) == 1 and not self._is_up(gone.node)):
                raise api_error("JSPeerRemapErr")
            homes = [found[0] if member is gone else member.home for member in placement.wanted]
            assert self._node.placing is not None
            await self._node.placing.reassign(stream, homes)
            log.info("a peer is replaced", stream=stream, peer=peer, by=server_name(self._node, found[0][0]))

    async def remove_server(self, peer: str, peer_id_given: str = "") -> None:
        """Take a server that is gone out of the cluster: it counts for no quorum any more, and its copies are replaced.

        By name, or by peer id, which goes first. Returns when its vote is gone, or at least that is decided. Refused:
        10044 it is no member; 10202 another change is under way; 10041 it is connected, or who is left is no quorum.
        """
        meta = self._node.meta
        self._require_meta()
        await meta.confirm()
        async with self._node.meta_lock:
            nodes = meta.machine.nodes
            found = [home for home in self._node.homes() if self._is_server(home[0], peer, peer_id_given)]
            if not found:
                raise api_error("JSClusterServerNotMemberErr")
            if nodes is not None and not nodes.is_settled:
                raise api_error("JSClusterServerMemberChangeInflightErr")
            name = server_name(self._node, found[0][0])
            if self._is_up(found[0][0]):
                raise api_error("JSRaftGeneralErrF", err=f"server {name} is connected: stop it before it is removed")
            staying = [home for home in self._node.homes() if home != found[0]]
            if 2 * sum(self._is_up(home[0]) for home in staying) <= len(staying):
                raise api_error("JSRaftGeneralErrF", err="too few of the other servers are connected for a quorum")
            log.warning("asked to remove a server from the cluster", server=name)
            await meta.call(encode_dismiss(meta.machine, self._cluster.identity.founding, found[0]))
        deadline = self._node.loop.time() + REMOVE_S
        # Whoever leads goes on with what is decided: this is only so that who asks again sees it done.
        while meta.machine.nodes is not None and not meta.machine.nodes.is_settled:
            if self._node.loop.time() >= deadline:
                break
            await asyncio.sleep(LOOK_S)

    def _is_server(self, node_id: str, peer: str, peer_id_given: str) -> bool:
        name = server_name(self._node, node_id)
        return peer_id(name) == peer_id_given if peer_id_given else name == peer

    def _is(self, peer: str, node_id: str) -> bool:
        name = server_name(self._node, node_id)
        return peer in (name, peer_id(name))

    def _is_up(self, node_id: str) -> bool:
        return node_id == self._cluster.identity.node_id or self._cluster.host.is_up(node_id)


def _no_peers(text: str) -> ApiError:
    return api_error("JSClusterNoPeersErrF", err=text)
