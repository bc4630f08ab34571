"""D6: disks that are not the ones they should be: an old copy, a clone of another machine's, two that were swapped.

While such a disk is in, what its machine believes is no promise kept or broken; whether anybody counted on it shows in
what was acknowledged. What the others must refuse for good is out of the run before its end.
"""

from __future__ import annotations

from jepsen.sim.machine import Machine
from jepsen.sim.run import Run
from jepsen.sim.scenarios.stage import Scenario, a_while, isolate, join, power_off, power_on, serving, shuffled


async def _tempt(run: Run, odd: Machine, other: Machine) -> None:
    """The odd one and one of the others are all that sees each other: together they would be a majority."""
    power_on(run, odd)
    await a_while(run, 2)
    join(run)
    isolate(run, [machine for machine in run.world.machines if machine not in (odd, other)])
    await a_while(run, 3)
    join(run)
    await a_while(run, 1)


async def old_disk(run: Run) -> None:
    """A machine comes back with its disk of earlier. (Who saw that does not believe its right disk either.)"""
    odd, other, _ = shuffled(run)
    await a_while(run, 1)
    earlier = odd.vfs.clone()
    isolate(run, [other])  # what is acknowledged from here on is on the odd one's disk and the third's
    await a_while(run, 2)
    power_off(run, odd)
    odd.change_disk(earlier, is_own=False)
    run.tell(f"{odd.name} has an old copy of its disk")
    await _tempt(run, odd, other)
    run.world.retire(odd)
    await a_while(run, 1)


async def old_disk_all_restarted(run: Run) -> None:
    """The same when all are restarted: who saw a later life of the machine, but has not what came then, remembers."""
    odd, other, third = shuffled(run)
    await a_while(run, 1)
    earlier = odd.vfs.clone()
    power_off(run, odd)
    power_on(run, odd)
    await serving(run, odd)
    await a_while(run, 1)
    isolate(run, [other])
    await a_while(run, 2)
    power_off(run, odd, other, third)
    odd.change_disk(earlier, is_own=False)
    run.tell(f"{odd.name} has an old copy of its disk, all are restarted")
    join(run)
    power_on(run, odd, other)
    await a_while(run, 4)
    power_off(run, other)
    power_on(run, other, third)
    await a_while(run, 1)
    run.world.retire(odd)
    await a_while(run, 1)


async def cloned_disk(run: Run) -> None:
    """A machine comes back with a copy of another one's disk, which runs, too: of these two neither can be believed."""
    odd, other, _ = shuffled(run)
    await a_while(run, 2)
    power_off(run, odd, other)
    own = odd.change_disk(other.vfs.clone(), is_own=False)
    other.has_own_disk = False
    run.tell(f"{odd.name} has a clone of the disk of {other.name}")
    power_on(run, other)
    await _tempt(run, odd, other)
    power_off(run, odd)
    odd.change_disk(own, is_own=True)
    power_on(run, odd)
    await serving(run, odd)
    run.world.retire(other)
    await a_while(run, 1)


async def swapped_disks(run: Run) -> None:
    """Two machines come back with each other's disk."""
    one, other, _ = shuffled(run)
    await a_while(run, 2)
    power_off(run, one, other)
    own = one.change_disk(other.vfs, is_own=False)
    theirs = other.change_disk(own, is_own=False)
    run.tell(f"{one.name} and {other.name} have each other's disk")
    power_on(run, one, other)
    await a_while(run, 4)
    power_off(run, one, other)
    own = other.change_disk(one.vfs, is_own=True)
    one.change_disk(own, is_own=True)
    assert theirs is not own
    power_on(run, one, other)
    await serving(run, *run.world.machines)
    await a_while(run, 1)


SCENARIOS = (
    Scenario("old-disk", 3, old_disk, ("A", "D")),
    Scenario("old-disk-all-restarted", 3, old_disk_all_restarted, ("A", "D")),
    Scenario("cloned-disk", 3, cloned_disk, ("A", "D")),
    Scenario("swapped-disks", 3, swapped_disks, ("A", "D")),
)
