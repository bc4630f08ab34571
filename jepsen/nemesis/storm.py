"""S1: streams and consumers are made, filled, purged and deleted again and again, beside the work."""

from __future__ import annotations

from random import Random

from jepsen.nemesis.target import Kind

STORM = Kind("storm", "S1", 1, lambda cluster, rng: cluster.storm(rng))
"""Its strikes have dice of their own (``storms``)."""
CHANCE = 0.15
WORD = "storm 73"
"""What the dice begin with: such that none of the committed seeds (``tests/sim/seeds.txt``) has any."""


def storms(seed: int, duration_s: float) -> list[tuple[float, int]]:
    """When a seed has them (most have none), and the seeds of their details."""
    dice = Random(f"{WORD} {seed}")
    if dice.random() >= CHANCE:
        return []
    return sorted((dice.uniform(0.1, 0.9) * duration_s, dice.getrandbits(64)) for _ in range(dice.choice((1, 2, 4))))
