"""M1, M2 and a blank disk (D5): who holds a stream changes under load, and nodes come back with nothing."""

from __future__ import annotations

from random import Random

from jepsen.nemesis.target import Cluster, Kind


def _reassign(cluster: Cluster, rng: Random) -> str:
    """Want a stream on other machines; where they are no more of them, first on fewer."""
    return cluster.reassign(rng) if len(cluster.machines) > 1 else ""


def _new_disk(cluster: Cluster, rng: Random) -> str:
    """One machine of a run loses its disk for good, and no other one's bytes are harmed in that run."""
    minority = (len(cluster.machines) - 1) // 2
    if not minority or cluster.damaged or cluster.has_moved:
        return ""
    target = rng.choice(list(cluster.machines))
    cluster.damaged.update((target.name, *(f"({number} left alone)" for number in range(1, minority))))
    down_s = rng.choice((0.05, 1.0, 3.0))
    cluster.new_disk(target.name, down_s)
    return f"{target.name}: comes back with an empty disk after {down_s} s"


MEMBER_KINDS: tuple[Kind, ...] = (
    Kind("reassign", "M1", 3, _reassign),
    Kind("new-disk", "D5", 1, _new_disk),
)
"""Drawn only where they are asked for by name."""
