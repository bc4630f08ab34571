"""Who holds a group, and how far each is: the ``cluster`` objects of infos, ``meta_cluster``, and names of servers.

Everything is this node's view of now, without asking anybody. How far others are is known to who leads.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

from jetstore.meta.placement import Member
from jetstore.model.infos import ClusterInfo, JsonDict, PeerInfo, peer_info_json
from jetstore.node.group import Group
from jetstore.raft.membership import NodeIncarnation
from jetstore.raft.progress import Progress

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster
    from jetstore.node.node import Node

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PEER_ID_LETTERS = 8


def peer_id(server_name: str) -> str:
    """The eight letters by which nats-server and its tools know a server; the same for the same name anywhere."""
    digest = sha256(server_name.encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:PEER_ID_LETTERS])


def server_name(node: Node, node_id: str) -> str:
    """The name of the node with that id; the id itself if nobody here has ever heard of it."""
    cluster = node.cluster
    assert cluster is not None
    if node_id == cluster.identity.node_id:
        return cluster.identity.node_name
    peer = cluster.links.peers.get(node_id)
    if peer is not None:
        return peer.hello.node_name
    founding = {each.node_id: each.name for each in cluster.identity.founding}
    return node.meta.machine.names.get(node_id) or founding.get(node_id, node_id)


def leader_name(node: Node, group: Group) -> str:
    """The server that leads a group, as far as this member knows; "" = none."""
    where = group.core.configuration.members.get(group.core.leader)
    return server_name(node, where.node) if where is not None else ""


def cluster_info(node: Node, group: Group, wanted: Iterable[Member] = ()) -> ClusterInfo | None:
    """What an info of something in that group shows; None: this is a standalone server.

    ``wanted``: members that the metadata wants for it, who may not be in its configuration yet. As in nats-server the
    answering node is not among the replicas, except where nobody leads.
    """
    cluster = node.cluster
    if cluster is None:
        return None
    leader = leader_name(node, group)
    own = {group.core.member} if leader else set()
    peers = [peer for number, peer in _peers(node, cluster, group, wanted).items() if number not in own]
    return ClusterInfo(cluster.options.name, leader, tuple(sorted(peers, key=lambda peer: peer.name)))


def stream_cluster(node: Node, group: Group) -> ClusterInfo | None:
    """``cluster_info`` of the stream with that group, and of its consumers: they live in the same one."""
    assignment = node.meta.machine.streams.get(group.key)
    is_its = assignment is not None and assignment.uid == group.uid
    return cluster_info(node, group, assignment.placement.wanted if assignment is not None and is_its else ())


def all_members(node: Node, group: Group) -> list[PeerInfo]:
    """Every member by name, this node's included: what advisories list."""
    assert node.cluster is not None
    return sorted(_peers(node, node.cluster, group, ()).values(), key=lambda peer: peer.name)


def meta_cluster(node: Node) -> JsonDict | None:
    """``meta_cluster`` of /jsz; None: a standalone server, or one that has no metadata yet."""
    if node.cluster is None or not hasattr(node, "meta"):
        return None
    nodes = node.meta.machine.nodes
    info = cluster_info(node, node.meta, nodes.wanted if nodes is not None else ())
    assert info is not None
    size = len(node.meta.core.configuration.all_voters)
    shown: JsonDict = {"name": info.name}
    if info.leader:
        shown["leader"] = info.leader
        shown["peer"] = peer_id(info.leader)
    if info.replicas:
        shown["replicas"] = [peer_info_json(peer) for peer in info.replicas]
    return {**shown, "cluster_size": size, "quorum_needed": size // 2 + 1, "pending": 0}


def _peers(node: Node, cluster: Cluster, group: Group, wanted: Iterable[Member]) -> dict[int, PeerInfo]:
    core = group.core
    found = {number: _peer(node, cluster, group, number, where) for number, where in core.configuration.members.items()}
    for member in wanted:
        if member.number not in found:
            where = NodeIncarnation(*member.home)
            found[member.number] = _peer(node, cluster, group, member.number, where)
    return found


def _peer(node: Node, cluster: Cluster, group: Group, number: int, where: NodeIncarnation) -> PeerInfo:
    core, log = group.core, group.core.log
    name = server_name(node, where.node)
    is_pending = number not in core.configuration.all_voters
    if number == core.member:
        is_current = bool(core.leader) and log.applied_term == core.term and not group.is_faulty
        return PeerInfo(name, peer_id(name), is_current, is_pending=is_pending)
    is_up = cluster.host.is_up(where.node)
    active_ns = int(cluster.silence_s(where.node) * 1e9)
    progress = core.leading.progress.get(number) if core.leading is not None else None
    if core.leading is None:  # others may be far behind for all that is known here
        return PeerInfo(name, peer_id(name), is_up and not is_pending, not is_up, active_ns, is_pending=is_pending)
    return PeerInfo(
        name,
        peer_id(name),
        is_current=is_up and progress is not None and _has(progress, log.applied_index),
        is_offline=not is_up,
        active_ns=active_ns,
        lag=max(log.committed_index - (progress.match_index if progress is not None else 0), 0),
        is_pending=is_pending,
    )


def _has(progress: Progress, index: int) -> bool:
    return progress.match_index >= index and not progress.is_fenced and not progress.is_damaged
