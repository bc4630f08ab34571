"""Kills, pauses, partitions and power cuts in an order that loses data where replicas trust what they should not."""

from __future__ import annotations

import asyncio
import errno
from itertools import permutations

from jepsen.sim.run import Run
from jepsen.sim.scenarios.stage import (
    Scenario,
    a_while,
    isolate,
    join,
    leader_of,
    power_off,
    power_on,
    serving,
    shuffled,
)


async def part_kill(run: Run) -> None:
    """1: a minority is cut off, one of the rest loses power, the other minority is cut off, it comes back."""
    machines = shuffled(run)
    size = (len(machines) - 1) // 2
    first, middle, second = machines[:size], machines[size], machines[size + 1 :]
    await a_while(run, 1)
    isolate(run, first)
    await a_while(run, 8)
    power_off(run, middle)
    await a_while(run, 0.2)
    join(run)
    isolate(run, second)
    power_on(run, middle)
    await a_while(run, 8)
    join(run)
    await a_while(run, 2)


async def pause_kill(run: Run) -> None:
    """2: the same with processes that stand still instead of links that are cut."""
    machines = shuffled(run)
    size = (len(machines) - 1) // 2
    first, middle, second = machines[:size], machines[size], machines[size + 1 :]
    await a_while(run, 1)
    for machine in first:
        machine.pause(600)
    run.tell(f"paused: {' '.join(machine.name for machine in first)}")
    await a_while(run, 8)
    power_off(run, middle)
    await a_while(run, 0.2)
    for machine in first:
        machine.thaw()
    for machine in second:
        machine.pause(600)
    run.tell(f"paused: {' '.join(machine.name for machine in second)}; the others go on")
    power_on(run, middle)
    await a_while(run, 8)
    for machine in second:
        machine.thaw()
    run.tell("all go on")
    await a_while(run, 2)


async def rolling_power(run: Run) -> None:
    """3: each machine loses power once, soon after the other, soon after the beginning."""
    for _ in range(2):
        for machine in shuffled(run):
            await a_while(run, run.rng.choice((0.3, 1.0, 4.0)))
            machine.power_cut(run.rng.choice((0.01, 0.5, 2.0)))
            run.tell(f"power cut: {machine.name}")
    await a_while(run, 2)


async def create_ack_power(run: Run) -> None:
    """4: power cut of all within a second of the first acknowledged message; they start in every order."""
    machines = list(run.world.machines)
    orders = list(permutations(machines))
    await asyncio.sleep(run.rng.uniform(0.0, 1.0))
    for order in run.rng.sample(orders, min(3, len(orders))):
        power_off(run, *machines)
        for machine in order:
            power_on(run, machine)
            await a_while(run, run.rng.choice((0.01, 0.5, 3.0)))
        await serving(run, *machines)
        await a_while(run, 1)


async def lying_sync(run: Run) -> None:
    """9: a sync fails once, the process starts again on the same page cache, the power fails after that."""
    await a_while(run, 1)
    for _ in range(2):
        machine = leader_of(run) if run.rng.random() < 0.6 else run.rng.choice(run.world.machines)
        machine.disk_error("fdatasync", "journal/*", errno.EIO, run.rng.randint(1, 3), False)
        run.tell(f"the next syncs of {machine.name} lie")
        await a_while(run, 2)
        await serving(run, machine)
        power_off(run, *run.world.machines)
        power_on(run, *run.world.machines)
        await serving(run, *run.world.machines)
        await a_while(run, 1)


async def kill_before_sync(run: Run) -> None:
    """10: killed between write and sync, back on the page cache, counted again, then the power fails everywhere."""
    await a_while(run, 1)
    for _ in range(3):
        machine = leader_of(run) if run.rng.random() < 0.5 else run.rng.choice(run.world.machines)
        machine.slow_disk(0.3)
        await a_while(run, 0.5)
        machine.kill(0.01)
        machine.slow_disk(0.0)
        run.tell(f"killed between write and sync: {machine.name}")
        await serving(run, machine)
        await a_while(run, run.rng.choice((0.05, 0.3, 1.0)))
        power_off(run, *run.world.machines)
        power_on(run, *shuffled(run))
        await serving(run, *run.world.machines)
        await a_while(run, 0.5)


async def retry_through_new_leader(run: Run) -> None:
    """14: publishes with message ids time out, the leader goes, they are tried again elsewhere."""
    for _ in range(4):
        await a_while(run, 1)
        machine = leader_of(run)
        how = run.rng.choice(("isolate", "kill", "pause", "power"))
        run.tell(f"{how}: {machine.name}")
        if how == "isolate":
            isolate(run, [machine])
        elif how == "kill":
            machine.kill(3.0)
        elif how == "pause":
            machine.pause(4.0)
        else:
            machine.power_cut(3.0)
        if run.rng.random() < 0.5:
            for other in run.world.machines:
                run.world.checkpoint(other.name)
        await a_while(run, 4)
        join(run)
        await serving(run, *run.world.machines)


SCENARIOS = (
    Scenario("part-kill-5", 5, part_kill),
    Scenario("part-kill-3", 3, part_kill),
    Scenario("pause-kill-5", 5, pause_kill),
    Scenario("pause-kill-3", 3, pause_kill),
    Scenario("rolling-power", 3, rolling_power, ("A", "G"), needs_replicas=False),
    Scenario("create-ack-power", 3, create_ack_power, needs_replicas=False),
    Scenario("lying-sync", 3, lying_sync, needs_replicas=False),
    Scenario("kill-before-sync", 3, kill_before_sync, ("A", "D"), needs_replicas=False),
    Scenario("retry-through-new-leader", 3, retry_through_new_leader, ("D",)),
)
