"""A group whose creating entry cannot be read at start is opened as it was once that entry is repaired, not blank."""

from __future__ import annotations

from placing_world import Story, node_of, play

from jepsen.sim.machine import Machine
from jetstore.limits import SECTOR_BYTES


def damage_creating_entry(machine: Machine, stream: str) -> None:
    """Garbage in the sector of the metadata's entry that created the stream."""
    vfs = machine.vfs
    name = b'"' + stream.encode() + b'"'
    path = min(path for path in vfs.files() if path.startswith("journal/") and name in vfs.peek(path))
    at = vfs.peek(path).find(name)  # the stream's own group tells it later again
    vfs.poke(path, at // SECTOR_BYTES * SECTOR_BYTES, b"\xa5" * SECTOR_BYTES)


def test_what_it_acknowledged_before_still_counts() -> None:
    async def story(s: Story) -> None:
        await s.create("ORDERS", 3)
        await s.publish("ORDERS", *[b"%d" % n for n in range(20)])
        await s.converged("ORDERS")
        leader = s.machine_with(await s.until(lambda: s.leader("ORDERS"), "led"))
        victim, third = [machine for machine in s.world.machines if machine is not leader]
        victim.kill(0.3)
        damage_creating_entry(victim, "ORDERS")
        await s.until(lambda: (n := node_of(victim)) is not None and "ORDERS" in n.streams, "it has the stream")
        # Had it come back with less than it acknowledged, its leader would not count it.
        third.kill(1e6)
        await s.publish("ORDERS", b"two are enough")
        assert len(await s.converged("ORDERS")) == 21

    play(story, nodes=3, seed=3)
