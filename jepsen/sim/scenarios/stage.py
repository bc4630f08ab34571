"""How a named story is played: a world of so many machines, clients that work all the while, and every check after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from jepsen.sim.anywhere import OpenWorld
from jepsen.sim.machine import Machine
from jepsen.sim.plan import Plan
from jepsen.sim.run import Report, Run, conduct
from jepsen.sim.server import REPLICATES, serve_node
from jepsen.sim.world import SMALL, START_BOUND_S, World
from jetstore.limits import MIB

FOR_EVER_S = 1e6


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story."""

    name: str
    nodes: int
    script: Callable[[Run], Awaitable[None]]
    workloads: tuple[str, ...] = ("A",)
    needs_replicas: bool = True
    """Means nothing unless the machines replicate to each other."""
    clients_anywhere: bool = False
    """Clients stay where they are connected to, and leave it to the servers to find who leads."""


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    problems: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    skipped: str = ""
    """Why it was not played."""
    report: Report | None = None


def play_scenario(scenario: Scenario, seed: int) -> Outcome:
    """Play it with this seed."""
    if scenario.needs_replicas and not REPLICATES:
        return Outcome(skipped="the server does not replicate")
    rng = Random(f"{scenario.name} {seed}")
    plan = Plan(
        nodes=scenario.nodes,
        workloads=scenario.workloads,
        duration_s=0.0,
        strikes=(),
        kinds=frozenset(),
        limits=SMALL,
        capacity_bytes=64 * MIB,
        pace_s=rng.choice((0.02, 0.1)),
        publishes_max=150,
        time_cost_s=0.0,
        damage=(),
        last_end="none",
    )
    make = OpenWorld if scenario.clients_anywhere else World
    world = make(Random(rng.getrandbits(64)), nodes=scenario.nodes, limits=SMALL, serve=serve_node)
    report = Report(seed, scenario.nodes, workloads=scenario.workloads)
    run = Run(plan, world, Random(rng.getrandbits(64)), report, scenario.script)
    conduct(run)
    return Outcome(report.problems, report.story, report=report)


# -- what stories are told with ---------------------------------------------------------------------------------------


def isolate(run: Run, machines: list[Machine]) -> None:
    """These machines on one side, the others on the other."""
    names = [machine.name for machine in machines]
    run.world.links.partition(names, [m.name for m in run.world.machines if m.name not in names])
    run.tell(f"isolated: {' '.join(names)}")


def join(run: Run) -> None:
    """Everybody reaches everybody."""
    run.world.links.join()
    run.tell("links are whole")


def power_off(run: Run, *machines: Machine) -> None:
    """Power cuts; they stay down."""
    for machine in machines:
        machine.power_cut(FOR_EVER_S)
    run.tell(f"power off: {' '.join(machine.name for machine in machines)}")


def power_on(run: Run, *machines: Machine) -> None:
    """Start these."""
    for machine in machines:
        machine.power_on()
    run.tell(f"power on: {' '.join(machine.name for machine in machines)}")


async def serving(run: Run, *machines: Machine) -> None:
    """Wait until these serve; a problem of the run if they do not."""
    for machine in machines:
        if not await machine.ready(START_BOUND_S):
            run.problem(f"live: {machine.name} does not come back: {machine.exits[-1:]}")


def leader_of(run: Run) -> Machine:
    """The machine that leads most; any if none does."""
    leaders = run.world.leaders()
    machines = run.world.machines
    return next((m for m in machines if m.name in leaders[:1]), run.rng.choice(machines))


def shuffled(run: Run) -> list[Machine]:
    """The machines in some order."""
    machines = list(run.world.machines)
    run.rng.shuffle(machines)
    return machines


async def a_while(run: Run, seconds: float) -> None:
    """Clients go on working."""
    await asyncio.sleep(seconds * run.rng.uniform(0.7, 1.3))
