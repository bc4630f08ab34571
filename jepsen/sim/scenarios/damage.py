"""Stored bytes that go bad on a minority, in the order that makes a majority of damaged and stale copies tempting."""

from __future__ import annotations

from fnmatch import fnmatchcase
from random import Random

from jepsen.nemesis.damage import SECTOR_BYTES, last_block
from jepsen.sim.machine import Machine
from jepsen.sim.run import Run
from jepsen.sim.scenarios.stage import Scenario, a_while, isolate, join, power_off, power_on, serving, shuffled

META_FILES = "groups/1/*"
"""Checkpoints of the metadata group."""


def flip_bit(machine: Machine, pattern: str, rng: Random) -> str | None:
    """Flip one bit of a file that is not blank; which."""
    vfs = machine.vfs
    paths = [path for path in vfs.files() if fnmatchcase(path, pattern) and vfs.peek(path).strip(b"\0")]
    if not paths:
        return None
    path = rng.choice(paths)
    offset = rng.randrange(len(vfs.peek(path).rstrip(b"\0")))
    vfs.poke(path, offset, bytes([vfs.peek(path)[offset] ^ (1 << rng.randrange(8))]))
    machine.damages.append(f"{path}:{offset}")
    return f"{machine.name}: a bit of {path} at {offset}"


def lose_newest(machine: Machine, rng: Random) -> str | None:
    """Zero the sectors in front of the journal's newest block. That one stays: without it nothing on the disk would
    tell what is gone from what was never written (docs/format/journal.md, residual)."""
    vfs = machine.vfs
    path, end, _ = last_block(vfs)
    start = max(0, end - rng.choice((2, 4, 11)) * SECTOR_BYTES)
    if start == end:
        return None
    vfs.poke(path, start, bytes(end - start))
    machine.damages.append(f"{path}:{start}")
    return f"{machine.name}: {path} is blank from {start} to {end}"


async def meta_damage(run: Run) -> None:
    """5: a bit of the metadata's checkpoint flips on a minority; those start first."""
    machines = shuffled(run)
    minority, rest = machines[: (len(machines) - 1) // 2], machines[(len(machines) - 1) // 2 :]
    await a_while(run, 2)
    for machine in machines:
        run.world.checkpoint(machine.name)
    await a_while(run, 1)
    power_off(run, *machines)
    for machine in minority:
        run.world.damaged.add(machine.name)
        run.tell(flip_bit(machine, META_FILES, run.rng) or f"{machine.name}: nothing to damage")
    power_on(run, *minority)
    await a_while(run, 5)
    power_on(run, *rest)
    await serving(run, *rest)
    await a_while(run, 3)


async def truncated_and_stale(run: Run) -> None:
    """8: one node missed the newest entries, another lost some of them from its disk; only these two are up."""
    stale, torn, whole = shuffled(run)
    await a_while(run, 1)
    isolate(run, [stale])
    await a_while(run, 3)
    power_off(run, stale, torn, whole)
    join(run)
    run.world.damaged.add(torn.name)
    run.tell(lose_newest(torn, run.rng) or "nothing to damage")
    power_on(run, stale, torn)
    await a_while(run, 6)
    power_on(run, whole)
    await serving(run, whole, stale)
    await a_while(run, 3)


async def rot_under_load(run: Run) -> None:
    """D1: again and again bits flip on one node while it is down; the others never stop."""
    victim = run.rng.choice(run.world.machines)
    run.world.damaged.add(victim.name)
    for _ in range(4):
        await a_while(run, 1.5)
        power_off(run, victim)
        pattern = run.rng.choice(("journal/*", "groups/*/segments/*", "groups/*/HEAD*", "groups/*/chunks/*"))
        run.tell(flip_bit(victim, pattern, run.rng) or "nothing to damage")
        await a_while(run, 0.5)
        power_on(run, victim)
    await a_while(run, 2)


SCENARIOS = (
    Scenario("meta-damage", 3, meta_damage),
    Scenario("truncated-and-stale", 3, truncated_and_stale),
    Scenario("rot-under-load", 3, rot_under_load),
)
