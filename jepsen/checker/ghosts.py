"""ghost (A1, A2): in the end each node has the groups that the metadata gives it, in memory and on disk; no others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jepsen.checker.tally import compared


class Holdings(NamedTuple):
    """What one node has of streams' groups."""

    node: str
    assigned: frozenset[str]
    """Groups that the metadata, as it has applied it, gives it."""
    open: frozenset[str]
    on_disk: frozenset[str]


def check_ghosts(holdings: Iterable[Holdings]) -> list[str]:
    """Groups that are open, or have files, and should not be there; groups that are missing."""
    problems = []
    for node, assigned, opened, on_disk in holdings:
        compared("ghost", len(assigned | opened | on_disk))
        problems += [f"ghost: {node} serves group {uid}, which is not its own" for uid in sorted(opened - assigned)]
        problems += [f"ghost: {node} does not serve its group {uid}" for uid in sorted(assigned - opened)]
        problems += [f"ghost: {node} has files of group {uid}" for uid in sorted(on_disk - assigned)]
    return problems
