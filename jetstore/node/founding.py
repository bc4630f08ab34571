"""Founding a cluster: once, by nodes that all see each other and were all blank; everybody else joins or waits.

Every founder computes the same cluster id from what it sees: the cluster's name, and everybody's (name, node id,
incarnation). It founds only while *all* of them are connected, and none belongs to a cluster that these nodes would not
have founded. Who was away while the others founded adopts their cluster in the same way: it is one of them, and has
promised nothing yet. A node that is not among the founders (a new one, or one whose disk was lost: its node id is
another) founds nothing and waits to be added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from jetstore.store.identity import FoundingNode


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that was founded. ``nodes`` are sorted by name: the metadata group's first voters 1, 2, …"""

    cluster_id: str
    nodes: tuple[FoundingNode, ...]


@dataclass(frozen=True, slots=True)
class PeerState:
    """What a connected peer says of itself."""

    node: FoundingNode
    cluster_id: str
    """"" = it belongs to no cluster yet."""


def cluster_of(cluster_name: str, nodes: Sequence[FoundingNode]) -> Cluster:
    """The cluster that these nodes found: the same on each of them."""
    ordered = tuple(sorted(nodes))
    content = json.dumps([cluster_name, ordered]).encode()
    return Cluster(hashlib.sha256(content).hexdigest()[:32], ordered)


def decide(cluster_name: str, own: FoundingNode, peers: Sequence[PeerState], nodes_wanted: int) -> Cluster | str:
    """The cluster that a blank node founds or adopts now; or, in words, what it waits for.

    ``peers`` are those connected now; ``nodes_wanted`` is the size of the founding set, this node included.
    """
    names = [own.name, *(peer.node.name for peer in peers)]
    if len(set(names)) != len(names):
        return f"two nodes have the same name: {sorted(names)}"
    missing = nodes_wanted - len(names)
    if missing > 0:
        return f"{missing} of {nodes_wanted} founding nodes are not connected; connected are {sorted(names)}"
    if missing < 0:
        return f"{len(names)} nodes are connected, {nodes_wanted} are to found the cluster: {sorted(names)}"
    cluster = cluster_of(cluster_name, [own, *(peer.node for peer in peers)])
    others = {peer.cluster_id for peer in peers} - {"", cluster.cluster_id}
    if others:
        return f"node {own.name} ({own.node_id}) is no founder of cluster {min(others)}: it has to be added to it"
    return cluster
