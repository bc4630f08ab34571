"""The vocabulary of faults: what each is called, how likely, and what an executor must be able to do to a server."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol


class Target(Protocol):
    """A server and the machine it runs on, as nemeses see it. Everything takes effect at once."""

    def kill(self, down_s: float) -> None:
        """kill -9; started again after ``down_s``."""

    def power_cut(self, down_s: float) -> None:
        """The machine loses power: un-synced changes survive or not, each by itself."""

    def crash_at_disk_operation(self, operations: int, down_s: float) -> None:
        """A power cut exactly before the n-th disk operation that changes or promises something, counted from now."""

    def restart(self, down_s: float) -> None:
        """A clean stop, then a start."""

    def pause(self, for_s: float) -> None:
        """SIGSTOP, then SIGCONT."""

    def jump_clock(self, by_ns: int) -> None:
        """The wall clock is set."""

    def drift_clock(self, rate: float) -> None:
        """The wall clock runs at this rate from now on."""

    def disk_error(self, operations: str, pattern: str, code: int, nth: int, sticky: bool) -> None:
        """Matching disk calls fail; a sticky error ends with the next ``heal_disk``."""

    def heal_disk(self) -> None:
        """No more injected disk errors, full disk or slow disk."""

    def fill_disk(self, free_bytes: int, code: int) -> None:
        """So much space is left."""

    def slow_disk(self, latency_s: float) -> None:
        """Each sync takes that long."""

    def reset_connections(self, share: float) -> None:
        """RST on this share of the connections."""

    def cut_connections(self, share: float) -> None:
        """Half-open: both sides go on believing."""

    def stall_connections(self, share: float, for_s: float) -> None:
        """A slow reader: nothing moves for a while."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    letter: str
    weight: int
    strike: Callable[[Target, Random], str]
    """Do it, with details from the dice; says what was done."""


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


KINDS: tuple[Kind, ...] = (
    Kind("kill", "K1", 3, _kill),
    Kind("power", "W1", 3, _power),
    Kind("crash-point", "K2", 4, _crash_point),
    Kind("restart", "M4", 1, _restart),
    Kind("pause", "P1", 1, _pause),
    Kind("clock-jump", "C1", 2, _jump),
    Kind("clock-drift", "C2", 1, _drift),
    Kind("write-error", "E1", 2, _write_error),
    Kind("read-error", "E1", 1, _read_error),
    Kind("open-error", "E4", 1, _open_error),
    Kind("full", "E3", 2, _full),
    Kind("slow", "E5", 1, _slow),
    Kind("heal", "", 2, _heal),
    Kind("reset", "N6", 2, _reset),
    Kind("cut", "N6", 1, _cut),
    Kind("stall", "N6", 1, _stall),
)
"""All kinds of faults that a running server can be hit with."""

BY_NAME = {kind.name: kind for kind in KINDS}
CLOCK_KINDS = frozenset(["clock-jump", "clock-drift"])
