"""Why a node is unhealthy in part: /healthz can ask for less than everything."""

from __future__ import annotations

from jetstore.meta.stream_key import name_of
from jetstore.node.cluster_health import is_current
from jetstore.node.node import Node


def engine_problem(node: Node) -> str:
    """Why the engine does not run; "" = it does, whatever may be wrong with some stream."""
    if node.poisoned_by is not None:
        return f"JetStream disk failed: {node.poisoned_by}"
    return "server is shutting down" if node.is_stopping else ""


def meta_problem(node: Node) -> str:
    """The same, or why this node does not know what its cluster has decided."""
    problem = engine_problem(node)
    if problem or node.cluster is None:
        return problem
    if not node.meta.core.leader:
        return "JetStream has not established contact with a meta leader"
    return "" if is_current(node.meta) else "JetStream is not current with the meta leader"


def stream_problem(node: Node, account: str, key: str) -> str:
    """The same, or what is wrong with one stream, which is here; ``key``: what the metadata calls it."""
    problem, group = meta_problem(node), node.streams.get(key)
    if problem:
        return problem
    reason = ""
    if key in node.lost:
        reason = "its data is damaged"
    elif group is not None:
        busy = node.behind.busy if node.behind is not None else set()
        if group.is_faulty:
            reason = "an entry of its log is unreadable"
        elif group.damage:
            reason = "stored messages are unreadable"
        elif node.cluster is not None and (not group.core.leader or not is_current(group) or group.uid in busy):
            reason = "group node unhealthy"
    return f"JetStream stream '{account} > {name_of(key)}' is not current: {reason}" if reason else ""
