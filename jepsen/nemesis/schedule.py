"""When which fault strikes: a swarm. Each run has a random subset of kinds, and a quarter of its slices are quiet."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from jepsen.nemesis.faults import CLOCK_KINDS, KINDS, MANY_KINDS
from jepsen.nemesis.members import MEMBER_KINDS
from jepsen.nemesis.network import NETWORK_KINDS
from jepsen.nemesis.storm import STORM
from jepsen.nemesis.target import Kind

ALL_KINDS = (*KINDS, *MANY_KINDS, *NETWORK_KINDS)
BY_NAME = {kind.name: kind for kind in (*ALL_KINDS, *MEMBER_KINDS, STORM)}

__all__ = ["ALL_KINDS", "BY_NAME", "CLOCK_KINDS", "Strike", "draw_kinds", "draw_strikes"]


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault at a time. Its details come from dice of its own: leaving out another one does not change them."""

    at_s: float
    kind: Kind
    seed: int


def draw_kinds(rng: Random, allowed: frozenset[str] | None = None, *, nodes: int = 1) -> tuple[Kind, ...]:
    """The kinds of one run: none in one run of eight, else a random subset (of the allowed ones)."""
    candidates = [kind for kind in (KINDS if nodes == 1 else ALL_KINDS) if allowed is None or kind.name in allowed]
    if allowed is not None and STORM.name in allowed:
        candidates.append(STORM)
    if allowed is not None and nodes > 1:
        candidates += [kind for kind in MEMBER_KINDS if kind.name in allowed]
    if rng.random() < 0.125 or not candidates:
        return ()
    share = rng.choice((0.15, 0.3, 0.6))
    picked = [kind for kind in candidates if rng.random() < share]
    return tuple(picked or [rng.choice(candidates)])


def draw_strikes(rng: Random, kinds: tuple[Kind, ...], duration_s: float, slices: int = 8) -> list[Strike]:
    """Faults of these kinds over the run, in order of time; the first slice and a quarter of the others are quiet."""
    strikes: list[Strike] = []
    if not kinds:
        return strikes
    length_s = duration_s / slices
    weights = [kind.weight for kind in kinds]
    for number in range(1, slices):
        if rng.random() < 0.25:
            continue
        for _ in range(rng.choice((1, 1, 2, 4))):
            at_s = (number + rng.random()) * length_s
            strikes.append(Strike(at_s, rng.choices(kinds, weights)[0], rng.getrandbits(64)))
    return sorted(strikes, key=lambda strike: strike.at_s)
