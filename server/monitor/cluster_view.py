"""A node's links and Raft groups → ``ClusterCounters``; and streams as they stand here, without asking the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from jetstore.errors import Corruption
from jetstore.model.api_errors import api_error
from jetstore.model.infos import AccountInfo, ConsumerInfo, StreamInfo
from jetstore.model.requests import StreamInfoRequest
from jetstore.model.stream import StreamConfig
from jetstore.node.cluster_info import stream_cluster
from jetstore.node.group import Group
from jetstore.node.node import Node
from jetstore.node.streams_api import StreamsApi
from server.monitor.cluster_ports import ClusterCounters, PeerCounters, RaftCounters

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster
    from jetstore.node.link.ports import PeerStatus

GROUPS_MAX = 10_000
"""Groups shown at most."""


def cluster_counters(node: Node, cluster: Cluster) -> ClusterCounters:
    """Everything now. Takes no answer from anybody."""
    status = cluster.links.status()
    groups: list[Group] = [node.meta] if hasattr(node, "meta") else []
    groups += list(node.streams.values())
    return ClusterCounters(
        now_s=node.loop.time(),
        peers=[_peer(peer) for peer in status.peers],
        groups=[_group(node, cluster, group) for group in groups[:GROUPS_MAX]],
        refused=status.refused,
        bad_frames=status.bad_frames,
        stray_messages=cluster.host.strays,
        catch_ups=node.behind.installed_total if node.behind is not None else 0,
    )


def _peer(peer: PeerStatus) -> PeerCounters:
    links = [link for link in (peer.raft, peer.bulk) if link is not None]
    raft = peer.raft
    host, _, port = (raft.address if raft is not None else peer.advertise).rpartition(":")
    return PeerCounters(
        node_id=peer.node_id,
        name=peer.node_name,
        advertise=peer.advertise,
        is_up=raft is not None,
        did_solicit=raft is not None and raft.is_dialler,
        ip=host.removeprefix("[").removesuffix("]"),
        port=int(port) if port.isdigit() else 0,
        up_since_s=raft.up_since_s if raft is not None else 0.0,
        rtt_s=(raft.rtt_s or 0.0) if raft is not None else 0.0,
        pending_bytes=sum(link.pending_bytes for link in links),
        in_bytes=sum(link.in_bytes for link in links),
        out_bytes=sum(link.out_bytes for link in links),
        messages_in=peer.messages_in,
        messages_out=peer.messages_out,
        messages_dropped=peer.messages_dropped,
        connects=peer.connects,
        has_alarm=bool(peer.alarm),
    )


def _group(node: Node, cluster: Cluster, group: Group) -> RaftCounters:
    status = group.core.status()
    members = status.configuration.members
    names = {member: _name(cluster, where.node) for member, where in members.items()}
    lags = {
        names[member]: max(0, status.last_index - progress.match_index)
        for member, progress in status.progress.items()
        if member in names and member != status.member
    }
    return RaftCounters(
        name=group.name,
        role=status.role.value,
        term=status.term,
        leader=names.get(status.leader, ""),
        committed_index=status.committed_index,
        applied_index=status.applied_index,
        is_quiet=status.is_quiescent,
        lags=lags,
    )


def _name(cluster: Cluster, node_id: str) -> str:
    if node_id == cluster.identity.node_id:
        return cluster.identity.node_name
    peer = cluster.links.peers.get(node_id)
    if peer is not None:
        return peer.hello.node_name
    return next((node.name for node in cluster.identity.founding if node.node_id == node_id), node_id)


class LocalStreams:
    """``JetStreamView``: this node's members as they stand. No quorum is asked, so that looking wakes nobody."""

    def __init__(self, node: Node, streams: StreamsApi) -> None:
        self._node = node
        self._streams = streams

    def account_info(self) -> AccountInfo:
        """As the API has it."""
        return self._streams.account_info()

    def stream_configs(self) -> Sequence[StreamConfig]:
        """Of those that have a member here."""
        configs = {name: group.stream.config for name, group in self._streams.groups().items()}
        return [config for _, config in sorted(configs.items()) if config is not None]

    async def stream_info(self, name: str, request: StreamInfoRequest) -> StreamInfo:
        """Raises ApiError: no member here; Corruption: it is damaged."""
        group = self._streams.group(name)
        if group is None or group.stream.config is None:
            raise api_error("JSStreamNotFoundErr")
        if group.is_faulty:
            raise Corruption("an entry of its log is unreadable", file="journal", offset=0)
        info = group.info(request)
        return info if self._node.cluster is None else replace(info, cluster=stream_cluster(self._node, group))

    def consumer_names(self, stream: str) -> Sequence[str]:
        """Of a stream that this node leads; the others know where theirs stand."""
        group = self._streams.group(stream)
        return sorted(group.stream.consumers) if group is not None and group.serves else []

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        """Raises ApiError: it is not there (any more)."""
        group = self._streams.group(stream)
        if group is None or consumer not in group.stream.consumers:
            raise api_error("JSConsumerNotFoundErr")
        info = group.delivery.consumer_info(consumer)
        return info if self._node.cluster is None else replace(info, cluster=stream_cluster(self._node, group))

    def leader_of(self, stream: str, cluster: Cluster | None, own_name: str) -> str:
        """The name of the node that leads it, as far as is known here."""
        group = self._streams.group(stream)
        if group is None or cluster is None:
            return own_name if group is not None else ""
        where = group.core.configuration.members.get(group.core.leader)
        return _name(cluster, where.node) if where is not None else ""
