"""A machine gets a new disk (D5), or the one back that it had before (D6); streams get other machines (M1, M2)."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Protocol

from jepsen.sim.image import Directory
from jepsen.sim.machine import Machine
from jepsen.sim.vfs import SimVfs
from jetstore.errors import JetstoreError


class Moved(Protocol):
    """What ``reassign`` needs of the world."""

    machines: tuple[Machine, ...]
    damaged: set[str]
    has_moved: bool


def new_disk(machine: Machine, down_s: float) -> SimVfs:
    """The process is killed and comes back on an empty disk after ``down_s``; the old disk."""
    machine.kill(down_s)
    old = machine.vfs.clone()
    machine.vfs._root, machine.vfs._used_bytes = Directory(), 0  # the harness owns the disk
    return old


def old_disk(machine: Machine, disk: SimVfs, down_s: float) -> None:
    """The process is killed and comes back on what ``new_disk`` took away."""
    machine.kill(down_s)
    machine.vfs._root, machine.vfs._used_bytes = disk._root, disk._used_bytes


def reassign(world: Moved, rng: Random) -> str:
    """Ask who leads the metadata to have some stream on other machines: as many, or (where there are none) one less,

    which the metadata's leader makes good afterwards. What was asked; "" = nobody could be.
    """
    leaders = [machine for machine in world.machines if machine.leads("") and machine.boot is not None]
    boot = leaders[0].boot if leaders else None
    if boot is None or boot.owner.is_paused:
        return ""
    node = boot.server.node
    if not node.meta.serves or not node.meta.machine.streams:
        return ""
    name = rng.choice(sorted(node.meta.machine.streams))
    homes, here = node.homes(), [member.home for member in node.meta.machine.streams[name].placement.wanted]
    count = len(here)
    if count == len(homes):
        if (world.damaged and not world.has_moved) or count < 3:
            return ""
        count -= 1
        world.has_moved = True
        world.damaged.update(f"({number} left alone)" for number in range(len(homes) // 2))
    wanted = [homes[at] for at in sorted(rng.sample(range(len(homes)), min(count, len(homes))))]

    async def ask() -> None:
        try:
            await node.placing.reassign(name, wanted)
        except JetstoreError:
            return  # refused, or its outcome is unknown: as any operator's wish

    boot.loop.call_owned(boot.owner, lambda: asyncio.ensure_future(ask()))
    numbers: list[Any] = [homes.index(home) + 1 for home in wanted]
    return f"stream {name} is wanted on nodes {numbers} of {len(homes)}"
