"""Nodes that could take another copy: which members of the cluster are here, and have least to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jetstore.node.node import Node

Home = tuple[str, int]
"""(node id, incarnation)."""


def spares(node: Node, taken: Collection[Home]) -> list[Home]:
    """Connected nodes of the cluster but those ``taken``; fewest streams first, then in the nodes' own order."""
    cluster = node.cluster
    assert cluster is not None
    load = Counter(m.home for a in node.meta.machine.streams.values() for m in a.placement.wanted)
    here = [
        home
        for home in node.homes()
        if home not in taken and (home[0] == cluster.identity.node_id or cluster.host.is_up(home[0]))
    ]
    return sorted(here, key=lambda home: load[home])
