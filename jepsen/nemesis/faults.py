"""Faults of one machine: what each is called, how likely, and what an executor must be able to do to a server.

``network.py`` has the faults between machines, ``schedule.py`` draws both.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from random import Random

from jepsen.nemesis.damage import FILE_CLASSES
from jepsen.nemesis.damage import KINDS as DAMAGE_KINDS
from jepsen.nemesis.target import ANYBODY, ONE, SOME, Cluster, Kind, Target, damageable, each


def _down(rng: Random) -> float:
    return rng.choice((0.01, 0.3, 2.0))


def _kill(target: Target, rng: Random) -> str:
    down = _down(rng)
    target.kill(down)
    return f"kill, down {down} s"


def _power(target: Target, rng: Random) -> str:
    down = _down(rng)
    target.power_cut(down)
    return f"power cut, down {down} s"


def _crash_point(target: Target, rng: Random) -> str:
    operations, down = rng.choice((1, 2, 3, rng.randint(4, 200))), _down(rng)
    target.crash_at_disk_operation(operations, down)
    return f"power cut before disk operation {operations}"


def _restart(target: Target, rng: Random) -> str:
    target.restart(_down(rng))
    return "clean restart"


def _pause(target: Target, rng: Random) -> str:
    for_s = rng.choice((0.05, 1.0, 15.0))
    target.pause(for_s)
    return f"pause {for_s} s"


def _jump(target: Target, rng: Random) -> str:
    seconds = rng.choice((-60.0, -0.9, -0.001, 0.001, 0.9, 60.0, 7_200.0, 300_000.0))
    by_ns = int(seconds * 1e9)
    target.jump_clock(by_ns)
    return f"clock jump {by_ns / 1e9} s"


def _drift(target: Target, rng: Random) -> str:
    rate = rng.choice((0.5, 0.99, 1.0, 1.01, 2.0))
    target.drift_clock(rate)
    return f"clock rate {rate}"


def _write_error(target: Target, rng: Random) -> str:
    operations = rng.choice(("pwrite", "fdatasync", "fsync", "fsync_dir", "rename", "pwrite fdatasync fsync"))
    pattern = rng.choice(("*", "journal/*", "groups/*"))
    sticky = rng.random() < 0.2
    nth = rng.randint(1, 10)
    target.disk_error(operations, pattern, errno.EIO, nth, sticky)
    return f"EIO on {operations} of {pattern}, call {nth}{', sticky' if sticky else ''}"


def _read_error(target: Target, rng: Random) -> str:
    nth = rng.randint(1, 20)
    target.disk_error("pread", rng.choice(("*", "groups/*")), errno.EIO, nth, rng.random() < 0.2)
    return f"EIO on read {nth}"


def _open_error(target: Target, rng: Random) -> str:
    code = rng.choice((errno.EMFILE, errno.ENOMEM, errno.EIO))
    target.disk_error("open create", rng.choice(("*", "groups/*")), code, rng.randint(1, 5), False)
    return f"{errno.errorcode[code]} on open"


def _full(target: Target, rng: Random) -> str:
    free = rng.choice((0, 5_000, 100_000, 1_500_000))
    target.fill_disk(free, rng.choice((errno.ENOSPC, errno.ENOSPC, errno.EDQUOT)))
    return f"disk full but for {free} bytes"


def _slow(target: Target, rng: Random) -> str:
    latency = rng.choice((0.005, 0.05, 1.0, 5.0))
    target.slow_disk(latency)
    return f"slow disk {latency} s"


def _heal(target: Target, rng: Random) -> str:
    target.heal_disk()
    return "disk healed"


def _reset(target: Target, rng: Random) -> str:
    share = rng.choice((0.2, 1.0))
    target.reset_connections(share)
    return f"reset {share:.0%} of connections"


def _cut(target: Target, rng: Random) -> str:
    share = rng.choice((0.2, 0.5))
    target.cut_connections(share)
    return f"cut {share:.0%} of connections"


def _stall(target: Target, rng: Random) -> str:
    share, for_s = rng.choice((0.2, 1.0)), rng.choice((0.1, 3.0, 20.0))
    target.stall_connections(share, for_s)
    return f"stall {share:.0%} of connections for {for_s} s"


def _jump_skew(target: Target, rng: Random) -> str:
    by_ns = rng.randint(-2_000_000_000, 2_000_000_000)
    target.jump_clock(by_ns)
    return f"clock skew {by_ns / 1e9:.3f} s"


def _lie(target: Target, rng: Random) -> str:
    target.disk_error("fdatasync", "journal/*", errno.EIO, rng.randint(1, 5), False)
    return "a sync of the journal fails once, and its pages count as clean"


def _tick(target: Target, rng: Random) -> str:
    rate = rng.choice((0.5, 0.8, 1.0, 1.25, 2.0))
    target.drift_ticks(rate)
    return f"timers run at rate {rate}"


def _rot(cluster: Cluster, rng: Random) -> str:
    """D1–D5 on a machine that is down: never on more than a minority over the whole run."""
    target = damageable(cluster, rng)
    if target is None:
        return ""
    target.remember()
    file_class, kind = rng.choice(sorted(FILE_CLASSES)), rng.choice(DAMAGE_KINDS)
    seed = rng.getrandbits(32)

    def strike() -> None:
        target.power_cut(0.5)
        done = target.damage(Random(seed), file_class, kind)
        cluster.tell(f"{target.name}: power cut and {done or 'nothing to damage'}")

    cluster.later(rng.uniform(0.0, 2.0), strike)
    return f"{target.name}: will rot ({file_class}, {kind})"


def _rolling(how: str) -> Callable[[Cluster, Random], str]:
    """M4, and choreography 3: each machine once, one after the other."""

    def strike(cluster: Cluster, rng: Random) -> str:
        order = list(cluster.machines)
        rng.shuffle(order)
        gap, down = rng.choice((0.3, 1.0, 3.0)), _down(rng)
        for number, target in enumerate(order):
            cluster.later(number * gap, partial(getattr(target, how), down))
        return f"rolling {how}: {' '.join(target.name for target in order)}, {gap} s apart, down {down} s"

    return strike


KINDS: tuple[Kind, ...] = (
    Kind("kill", "K1", 3, each(_kill, ANYBODY)),
    Kind("power", "W1", 3, each(_power, ANYBODY)),
    Kind("crash-point", "K2", 4, each(_crash_point, SOME)),
    Kind("restart", "M4", 1, each(_restart, ANYBODY)),
    Kind("pause", "P1", 1, each(_pause, ANYBODY)),
    Kind("clock-jump", "C1", 2, each(_jump, ANYBODY)),
    Kind("clock-drift", "C2", 1, each(_drift, ANYBODY)),
    Kind("write-error", "E1", 2, each(_write_error, ONE)),
    Kind("read-error", "E1", 1, each(_read_error, ONE)),
    Kind("open-error", "E4", 1, each(_open_error, ONE)),
    Kind("full", "E3", 2, each(_full, ANYBODY)),
    Kind("slow", "E5", 1, each(_slow, ONE)),
    Kind("heal", "", 2, each(_heal, ANYBODY)),
    Kind("reset", "N6", 2, each(_reset, ANYBODY)),
    Kind("cut", "N6", 1, each(_cut, SOME)),
    Kind("stall", "N6", 1, each(_stall, SOME)),
)
"""Faults that a server can be hit with, alone or among others."""

MANY_KINDS: tuple[Kind, ...] = (
    Kind("clock-skew", "C1", 1, each(_jump_skew, ANYBODY)),
    Kind("tick-drift", "C2", 1, each(_tick, SOME)),
    Kind("lying-sync", "E2", 1, each(_lie, ONE)),
    Kind("rot", "D1", 2, _rot),
    Kind("rolling-restart", "M4", 1, _rolling("restart")),
    Kind("rolling-power", "W4", 1, _rolling("power_cut")),
)
"""Faults of one or more of several machines."""

CLOCK_KINDS = frozenset(["clock-jump", "clock-drift", "clock-skew", "tick-drift"])
