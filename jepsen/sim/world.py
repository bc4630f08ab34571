"""A world for one run: virtual time, one machine with a server on it, clients. From one seed, bit for bit.

``World`` is what ``run.py`` drives with a drawn plan, and what scripted scenarios drive by hand::

    async def story(world: World) -> None:
        client = await world.up()
        ...
        world.machine.power_cut(0.1)
        client = await world.up()

    play(story, seed=1)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from jepsen.sim.client import Client, NotSent, Unknown, connect
from jepsen.sim.loop import SimLoop
from jepsen.sim.machine import Machine, Serve
from jepsen.sim.server import PORT, serve_node
from jetstore.limits import KIB, MIB, Limits

START_BOUND_S = 60.0
"""Virtual time within which a healthy server must serve (zeroing and replay included)."""
RUN_BOUND_S = 3600.0
CALLBACKS_MAX = 20_000_000

SMALL = Limits(
    max_payload_bytes=4 * KIB,
    max_pending_bytes=MIB,
    write_pause_bytes=64 * KIB,
    entry_bytes_max=8 * KIB,
    block_bytes_max=16 * KIB,
    journal_file_bytes=64 * KIB,
    journal_bytes_max=MIB,
    journal_group_bytes=64 * KIB,
    journal_reappend_bytes=16 * KIB,
    zeroing_bytes=64 * KIB,
    segment_bytes=32 * KIB,
    segment_flush_bytes=8 * KIB,
    frame_bytes_max=2 * KIB,
    disk_reserve_bytes=MIB,
    disk_resume_bytes=MIB + 256 * KIB,
)
"""Small bounds for scripted scenarios."""


class World:
    """Loop, machine and clients. ``close`` ends it; nothing of it stays behind."""

    def __init__(
        self, rng: Random, *, limits: Limits = SMALL, capacity_bytes: int = 64 * MIB, serve: Serve = serve_node
    ) -> None:
        self.loop = SimLoop(Random(rng.getrandbits(64)), callbacks_max=CALLBACKS_MAX)
        self.loop.deadline_s = RUN_BOUND_S
        self.machine = Machine(
            self.loop, Random(rng.getrandbits(64)), serve, limits=limits, capacity_bytes=capacity_bytes
        )
        self.rng = rng
        self._clients = 0

    async def connect(self, name: str) -> Client:
        """A connection to the server. ``NotSent`` or ``Unknown`` if there is none."""
        return await connect(name, PORT)

    async def up(self) -> Client:
        """Start the server if it is down, wait until it serves, and connect."""
        self.machine.power_on()
        if not await self.machine.ready(START_BOUND_S):
            ends = self.machine.exits[-1:]
            raise AssertionError(f"the server does not serve: {ends or 'it is still starting'}")
        self._clients += 1
        for _ in range(100):
            try:
                return await self.connect(f"c{self._clients}")
            except (NotSent, Unknown):
                await asyncio.sleep(0.05)
        raise AssertionError("nobody answers")

    def run(self, main: Awaitable[Any]) -> Any:
        """Run until ``main`` is done; its result."""
        asyncio.set_event_loop(None)
        return self.loop.run_until_complete(main)

    def close(self) -> None:
        """The end: the machine is switched off, what dead processes left is thrown away."""
        self.machine.close()
        self.loop.close()


def play(story: Callable[[World], Awaitable[Any]], *, seed: int, **options: Any) -> World:
    """Run a scripted scenario; the finished world. Errors of the server's own callbacks fail it."""
    world = World(Random(seed), **options)
    try:
        world.run(story(world))
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures
    return world
