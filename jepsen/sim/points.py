"""K2: a machine dies exactly before, or right after, a named thing that it does; every such point one after the other.

A point is passed whenever the victim changes or syncs something on its disk, sends Raft messages, or applies an entry.
*Before* a point nothing of it has happened; *after* it the callback that it is part of still comes to its end, nothing
later does: what is durable has been told to nobody, what is sent has been sent. Runs with one seed are the same run up
to the point, so counting the points of a run without a death enumerates them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, cast

from jepsen.sim.faults import BOUNDARY_OPS, SimCrash
from jepsen.sim.machine import Machine
from jepsen.sim.owner import OWNER
from jepsen.sim.plan import Plan
from jepsen.sim.run import Report, Run, conduct
from jepsen.sim.world import SMALL, World
from jetstore.limits import MIB
from jetstore.node.group import Group
from jetstore.node.raft_host import RaftHost

WORKS_S = 0.6
"""How long clients work while points are counted."""
DOWN_S = 0.2


class Death(NamedTuple):
    """Who dies where, and how."""

    machine: int
    """Which one, by number."""
    at: int
    """Number of the point, from 1 on; 0 = nowhere. Even ones are after what the odd one before them is before of."""
    how: str
    """``kill`` or ``power``."""


@dataclass(slots=True)
class Passed:
    """What came of one run."""

    report: Report
    names: list[str] = field(default_factory=list)
    """Of the points that the machine passed, in order."""
    died_at: str = ""


class _Watch:
    """Counts what one machine does, and lets it die in the middle of it."""

    def __init__(self, machine: Machine, death: Death) -> None:
        self.machine, self.death = machine, death
        self.is_counting = True
        self.names: list[str] = []
        self.died_at = ""

    def passes(self, name: str) -> None:
        """The machine is about to do this."""
        boot = self.machine.boot
        if not self.is_counting or boot is None or not boot.owner.is_alive:
            return
        at = self.death.at
        self.names += (f"before {name}", f"after {name}")
        if at not in (len(self.names) - 1, len(self.names)):
            return
        self.is_counting = False
        self.died_at = self.names[at - 1]
        self.machine.die_here(DOWN_S, has_power=self.death.how == "kill", at_once=bool(at % 2))
        if at % 2:
            raise SimCrash(self.died_at)

    def on_disk(self, op: str, path: str) -> None:
        if op in BOUNDARY_OPS:
            self.passes(f"{op} {path.split('/', 1)[0]}")

    def is_mine(self) -> bool:
        """Whether the watched process is the one that runs now."""
        boot = self.machine.boot
        return boot is not None and OWNER.get() is boot.owner


@contextmanager
def _watched(watch: _Watch) -> Iterator[None]:
    """Within, everything that the machine does passes by."""
    send, apply, machine = RaftHost.send, Group._apply, watch.machine
    host_class, group_class = cast(Any, RaftHost), cast(Any, Group)
    trace = machine.vfs.on_op

    def sends(host: RaftHost, *rest: Any) -> None:
        if watch.is_mine():
            watch.passes("send")
        send(host, *rest)

    def applies(group: Group, entry: Any) -> None:
        if watch.is_mine():
            watch.passes("apply")
        apply(group, entry)

    def on_op(op: str, path: str, first: int, second: int) -> None:
        assert trace is not None
        trace(op, path, first, second)
        watch.on_disk(op, path)

    host_class.send, group_class._apply = sends, applies
    machine.vfs.on_op = on_op
    try:
        yield
    finally:
        host_class.send, group_class._apply = send, apply


def run_to(seed: int, death: Death, *, nodes: int = 3, workloads: tuple[str, ...] = ("A", "D")) -> Passed:
    """One run: clients work, the machine dies at its point (if it comes there), everything is checked."""
    rng = Random(f"points {seed}")
    plan = Plan(
        nodes=nodes,
        workloads=workloads,
        duration_s=WORKS_S,
        strikes=(),
        kinds=frozenset(),
        limits=SMALL,
        capacity_bytes=64 * MIB,
        pace_s=0.03,
        publishes_max=12,
        time_cost_s=0.0,
        damage=(),
        last_end=rng.choice(("none", "power")),
    )
    world = World(Random(rng.getrandbits(64)), nodes=nodes, limits=SMALL)
    report = Report(seed, nodes, workloads=workloads)
    watch = _Watch(world.machines[death.machine], death)

    async def script(run: Run) -> None:
        if nodes > 2:
            world.checkpoint(world.machines[death.machine].name)
        await asyncio.sleep(WORKS_S)
        watch.is_counting = False
        run.tell(f"died {watch.died_at}" if watch.died_at else "nobody died")

    with _watched(watch):
        conduct(Run(plan, world, Random(rng.getrandbits(64)), report, script))
    return Passed(report, watch.names, watch.died_at)


def enumerate_points(
    seed: int, *, step: int = 1, nodes: int = 3, on_run: Callable[[Death, Passed], None] = lambda death, passed: None
) -> list[tuple[Death, Passed]]:
    """Die at each ``step``-th point of each machine, killed or without power in turn; the runs that failed.

    The seed shifts where the steps begin: ``step`` seeds in a row meet every point (of runs that differ a little).
    """
    failed = []
    for machine in range(nodes):
        count = len(run_to(seed, Death(machine, 0, "kill"), nodes=nodes).names)
        for at in range(1 + (seed + machine) % step, count + 1, step):
            death = Death(machine, at, ("kill", "power")[(at // 2 + machine) % 2])
            passed = run_to(seed, death, nodes=nodes)
            on_run(death, passed)
            if passed.report.problems:
                failed.append((death, passed))
    return failed
