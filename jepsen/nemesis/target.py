"""What nemeses strike at: machines, the links between them, and who of them. An executor implements these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol


class Target(Protocol):
    """A server and the machine it runs on, as nemeses see it. Everything takes effect at once."""

    @property
    def name(self) -> str: ...

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

    def drift_ticks(self, rate: float) -> None:
        """The process's timers run at this rate from now on."""

    def remember(self) -> None:
        """Keep a copy of the disk as it is, for damage that brings old bytes back."""

    def damage(self, rng: Random, file_class: str, kind: str) -> str | None:
        """Damage stored bytes (``damage.py``); what was done."""


class LinkTable(Protocol):
    """The links between machines, by their names."""

    def partition(self, *sides: Iterable[str]) -> None: ...

    def only(self, sees: Mapping[str, Iterable[str]]) -> None: ...

    def cut(self, source: str, target: str) -> None: ...

    def change(self, source: str, target: str) -> Any: ...

    def join(self) -> None: ...

    def heal(self) -> None: ...


class Cluster(Protocol):
    """Machines that serve together."""

    @property
    def machines(self) -> Sequence[Target]: ...

    @property
    def links(self) -> LinkTable: ...

    @property
    def damaged(self) -> set[str]:
        """Names of machines whose stored bytes were damaged in this run."""

    def leaders(self) -> list[str]:
        """Names of the machines that lead something now, those with most groups first."""

    def transfer(self, rng: Random) -> None:
        """Ask some leader to hand a group over to another machine, dead or alive."""

    def checkpoint(self, name: str) -> None:
        """Make that machine checkpoint what it can, now."""

    @property
    def has_moved(self) -> bool:
        """Whether some stream was on fewer machines than it should be, for a while."""

    def reassign(self, rng: Random) -> str:
        """Ask who leads the metadata to have a stream on other machines; what was asked."""

    def new_disk(self, name: str, down_s: float) -> None:
        """That machine's process dies, and is started again on an empty disk."""

    def storm(self, rng: Random) -> str:
        """Have streams made and deleted in numbers, beside the work; what was begun."""

    def later(self, delay_s: float, action: Callable[[], object]) -> None:
        """Do it then, unless the faults have ended by then."""

    def tell(self, what: str) -> None:
        """For the story."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    letter: str
    weight: int
    strike: Callable[[Cluster, Random], str]
    """Do it, with details from the dice; says what was done ("" = nothing: it did not apply)."""


ONE = ("one", "one", "leader")
SOME = ("one", "leader", "minority")
ANYBODY = ("one", "one", "leader", "minority", "majority", "all")
"""Whom a fault may strike; one of these is drawn."""


def victims(cluster: Cluster, rng: Random, reach: Sequence[str]) -> list[Target]:
    """Some of the machines; the only one, if there is one."""
    machines = list(cluster.machines)
    if len(machines) == 1:
        return machines
    scope = rng.choice(reach)
    minority = (len(machines) - 1) // 2
    if scope == "leader":
        leaders = cluster.leaders()
        return [machine for machine in machines if machine.name in leaders[:1]] or [rng.choice(machines)]
    count = {"one": 1, "minority": minority, "majority": minority + 1, "all": len(machines)}[scope]
    picked = rng.sample(range(len(machines)), count)
    return [machines[index] for index in sorted(picked)]


def each(strike: Callable[[Target, Random], str], reach: Sequence[str]) -> Callable[[Cluster, Random], str]:
    """The fault, on some machines: all at once, or (a third of the time) one after the other."""

    def on_some(cluster: Cluster, rng: Random) -> str:
        picked = victims(cluster, rng, reach)
        if len(cluster.machines) == 1:
            return strike(picked[0], rng)
        if len(picked) > 1 and rng.random() < 0.33:
            spread_s = rng.choice((0.1, 1.0, 4.0))
            for target in picked:
                cluster.later(rng.uniform(0, spread_s), _told(cluster, strike, target, rng.getrandbits(32)))
            return f"within {spread_s} s:"
        return "; ".join(f"{target.name}: {strike(target, rng)}" for target in picked)

    return on_some


def _told(cluster: Cluster, strike: Callable[[Target, Random], str], target: Target, seed: int) -> Callable[[], None]:
    return lambda: cluster.tell(f"{target.name}: {strike(target, Random(seed))}")


def damageable(cluster: Cluster, rng: Random) -> Target | None:
    """A machine whose bytes may be damaged without harming more than a minority; None if there is none."""
    minority = (len(cluster.machines) - 1) // 2
    machines = list(cluster.machines)
    if len(cluster.damaged) >= minority:
        machines = [machine for machine in machines if machine.name in cluster.damaged]
    if not machines:
        return None
    target = rng.choice(machines)
    cluster.damaged.add(target.name)
    return target
