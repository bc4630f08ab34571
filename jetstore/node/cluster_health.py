"""Why a node of a cluster should get no traffic (yet), in nats-server's words: what a rolling restart waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.meta.stream_key import shown_key
from jetstore.node.group import Group

if TYPE_CHECKING:
    from jetstore.node.node import Node

LAG_MAX = 256
"""Entries on their way under load do not make a member unhealthy."""


def cluster_problem(node: Node) -> str:
    """The first reason; "" = this node's members of all groups hear a leader and have applied what it committed."""
    meta = node.meta
    if not meta.core.leader:
        return "JetStream has not established contact with a meta leader"
    if not is_current(meta):
        return "JetStream is not current with the meta leader"
    busy = node.behind.busy if node.behind is not None else set()
    for name, group in node.streams.items():
        if not group.core.leader or not is_current(group) or group.uid in busy:
            return f"JetStream stream '{shown_key(name)}' is not current: group node unhealthy"
    return ""


def is_current(group: Group) -> bool:
    """Whether this member has applied an entry of the term in effect, and about all that its leader has committed."""
    core = group.core
    committed = max(core.log.committed_index, core.follower.leader_committed)
    if not core.is_leader and not core.is_quiescent and not core.follower.verified_index:
        return False  # it has not heard yet how far it is behind
    return core.log.applied_term == core.term and core.log.applied_index + LAG_MAX >= committed
