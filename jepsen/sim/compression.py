"""Which seeds store their streams compressed: decided by dice of their own, so every other seed is the run it was."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from jepsen.workload.base import Workload

CHANCE = 0.15
WORD = "compressed 76336"
"""Such that none of the committed seeds (``tests/sim/seeds.txt``) is drawn, and none below ``UNTOUCHED``."""
UNTOUCHED = 40
"""Hunts for planted defects count on what these seeds do."""


def is_compressed(seed: int) -> bool:
    """Whether the dice say so. Frames that are too short, or do not get smaller, are plain in such a run too."""
    return Random(f"{WORD} {seed}").random() < CHANCE


def compress(workloads: Sequence[Workload]) -> None:
    """Streams that workloads create from now on ask for it."""
    for workload in workloads:
        config = getattr(workload, "config", {})
        if "subjects" in config:  # not a consumer's
            config["compression"] = "s2"
