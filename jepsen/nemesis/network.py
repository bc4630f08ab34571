"""Faults between machines (N1–N6), of leadership (M3) and of checkpoints (S2). Each ends by itself."""

from __future__ import annotations

from functools import partial
from random import Random

from jepsen.nemesis.target import Cluster, Kind

LASTS_S = (0.2, 1.0, 3.0)


def _heals(cluster: Cluster, rng: Random) -> str:
    for_s = rng.choice(LASTS_S)
    cluster.later(for_s, cluster.links.join)
    return f"for {for_s} s"


def _names(cluster: Cluster, rng: Random) -> list[str]:
    names = [machine.name for machine in cluster.machines]
    rng.shuffle(names)
    return names


def _partition(cluster: Cluster, rng: Random) -> str:
    names = _names(cluster, rng)
    size = rng.randint(1, len(names) // 2)
    side, rest = sorted(names[:size]), sorted(names[size:])
    cluster.links.partition(side, rest)
    return f"partition {' '.join(side)} | {' '.join(rest)} {_heals(cluster, rng)}"


def _ring(cluster: Cluster, rng: Random) -> str:
    """Each sees a majority, no two the same."""
    names = _names(cluster, rng)
    reach = max(1, len(names) // 4)
    sees = {
        name: [names[(at + step) % len(names)] for step in range(-reach, reach + 1)] for at, name in enumerate(names)
    }
    if len(names) == 3:  # a ring of three is whole: leave one pair out
        sees[names[0]].remove(names[1])
    cluster.links.only(sees)
    return f"majority ring {' '.join(names)} {_heals(cluster, rng)}"


def _bridge(cluster: Cluster, rng: Random) -> str:
    names = _names(cluster, rng)
    middle, rest = names[0], names[1:]
    half = len(rest) // 2
    cluster.links.partition(rest[:half], rest[half:])
    return f"bridge {' '.join(rest[:half])} | {middle} | {' '.join(rest[half:])} {_heals(cluster, rng)}"


def _leader(cluster: Cluster, rng: Random) -> str:
    leaders = cluster.leaders()
    return leaders[0] if leaders else rng.choice([machine.name for machine in cluster.machines])


def _one_way(cluster: Cluster, rng: Random) -> str:
    names = [machine.name for machine in cluster.machines]
    one = _leader(cluster, rng) if rng.random() < 0.6 else rng.choice(names)
    others = [name for name in names if name != one]
    if rng.random() < 0.4:
        others = [rng.choice(others)]
    is_mute = rng.random() < 0.5
    for other in others:
        cluster.links.cut(*((one, other) if is_mute else (other, one)))
    way = "is not heard by" if is_mute else "does not hear"
    return f"{one} {way} {' '.join(others)} {_heals(cluster, rng)}"


def _isolate(cluster: Cluster, rng: Random) -> str:
    """N3: the leader, and perhaps its successors."""
    for_s, times = rng.choice(LASTS_S), rng.choice((1, 1, 3))

    def strike() -> None:
        cluster.links.join()
        name = _leader(cluster, rng)
        cluster.links.partition([name], [m.name for m in cluster.machines if m.name != name])
        cluster.tell(f"isolated {name}")

    for number in range(times):
        cluster.later(number * for_s, strike)
    cluster.later(times * for_s, cluster.links.join)
    return f"isolate the leader, {times} times {for_s} s"


def _weather(cluster: Cluster, rng: Random, **how: object) -> str:
    """Change some or all links for a while."""
    names = [machine.name for machine in cluster.machines]
    pairs = [(a, b) for a in names for b in names if a != b]
    if rng.random() < 0.5:
        pairs = rng.sample(pairs, rng.randint(1, len(pairs)))
    for source, target in pairs:
        link = cluster.links.change(source, target)
        for field, value in how.items():
            setattr(link, field, value)
    for_s = rng.choice((0.5, 2.0, 5.0))
    cluster.later(for_s, cluster.links.heal)
    told = " ".join(f"{field} {value}" for field, value in how.items())
    return f"{told} on {len(pairs)} links for {for_s} s"


def _loss(cluster: Cluster, rng: Random) -> str:
    return _weather(cluster, rng, loss=rng.choice((0.01, 0.1, 0.3)))


def _shuffle(cluster: Cluster, rng: Random) -> str:
    return _weather(cluster, rng, double=rng.choice((0.0, 0.1, 0.3)), overtake=rng.choice((0.05, 0.3)))


def _garble(cluster: Cluster, rng: Random) -> str:
    return _weather(cluster, rng, damage=rng.choice((0.002, 0.02)))


def _delay(cluster: Cluster, rng: Random) -> str:
    return _weather(cluster, rng, delay_s=rng.choice(((0.01, 0.02), (0.01, 0.5), (0.1, 0.1), (0.2, 0.5))))


def _narrow(cluster: Cluster, rng: Random) -> str:
    return _weather(cluster, rng, bytes_per_s=rng.choice((5_000.0, 50_000.0, 1_000_000.0)))


def _transfers(cluster: Cluster, rng: Random) -> str:
    gap, times = rng.choice((0.05, 0.2, 1.0)), rng.choice((1, 5, 20))
    for number in range(times):
        cluster.later(number * gap, partial(cluster.transfer, Random(rng.getrandbits(32))))
    return f"{times} leadership transfers, {gap} s apart"


def _checkpoints(cluster: Cluster, rng: Random) -> str:
    names = _names(cluster, rng)
    names = names[: rng.randint(1, len(names))]
    for name in names:
        cluster.later(rng.uniform(0, 1), partial(cluster.checkpoint, name))
    return f"checkpoints on {' '.join(names)}"


NETWORK_KINDS: tuple[Kind, ...] = (
    Kind("partition", "N1", 3, _partition),
    Kind("ring", "N1", 1, _ring),
    Kind("bridge", "N1", 1, _bridge),
    Kind("one-way", "N2", 2, _one_way),
    Kind("isolate-leader", "N3", 3, _isolate),
    Kind("loss", "N4", 2, _loss),
    Kind("shuffle", "N4", 2, _shuffle),
    Kind("garble", "N4", 1, _garble),
    Kind("delay", "N5", 2, _delay),
    Kind("narrow", "N5", 1, _narrow),
    Kind("transfers", "M3", 2, _transfers),
    Kind("checkpoints", "S2", 1, _checkpoints),
)
"""Faults that only several machines can have."""
