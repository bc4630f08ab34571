"""Which node to ask: who leads the metadata and each stream, as far as this node knows.

A node that holds a copy of a stream knows who leads it; one that holds none knows who holds copies, and those know
more. So a request that is passed on finds its place in at most ``HOPS_MAX`` steps, or is answered with 10008 where it
ends up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.node.group import Group
from jetstore.node.link.hello import Purpose

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster
    from jetstore.node.node import Node

HOPS_MAX = 3
"""A node that knows nothing → who leads the metadata → a holder → who leads."""


class Whereabouts:
    """Answers are node ids; "" = here, because it is led here, or because nobody better is known or connected."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        self._node = node
        self._cluster = cluster

    def _reachable(self, node_id: str) -> str:
        own = self._cluster.identity.node_id
        return node_id if node_id != own and self._cluster.links.is_up(node_id, Purpose.BULK) else ""

    def _leader(self, group: Group) -> str:
        if group.serves:
            return ""
        where = group.core.configuration.members.get(group.core.leader)
        return self._reachable(where.node) if where is not None else ""

    def of_meta(self) -> str:
        """Who leads the metadata."""
        return self._leader(self._node.meta)

    def of_stream(self, name: str) -> str:
        """Who leads the stream, or knows better than this node."""
        group = self._node.streams.get(name)
        if group is not None:
            return self._leader(group)
        assignment = self._node.meta.machine.streams.get(name)
        if assignment is None:
            return self.of_meta()
        homes = [member.node for member in assignment.placement.wanted + assignment.placement.leaving]
        return next((node_id for node_id in homes if self._reachable(node_id)), "")
