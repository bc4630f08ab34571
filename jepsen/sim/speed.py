"""How fast the simulator is: virtual seconds per CPU second, with a steady load and nothing going wrong."""

from __future__ import annotations

import asyncio
import time
from random import Random

from jepsen.history import payload
from jepsen.sim.client import Client
from jepsen.sim.world import World

CLIENTS = 10
LIMIT_S = 30.0


def measure(nodes: int, operations_per_s: float = 100.0) -> str:
    """One line: what ``LIMIT_S`` virtual seconds with so many operations cost."""
    world = World(Random(1), nodes=nodes)
    done = 0

    async def one(client: Client, number: int, until_s: float) -> None:
        nonlocal done
        rng = Random(number)
        while world.loop.now() < until_s:
            if rng.random() < 0.7:
                (await client.request(f"s.{number}", payload(f"{number}-{done}", 100))).json()
            else:
                await client.request("$JS.API.STREAM.INFO.S")
            done += 1
            await asyncio.sleep(rng.expovariate(operations_per_s / CLIENTS))

    async def leader(stream: str) -> int:
        while True:
            for number, machine in enumerate(world.machines):
                if machine.leads(stream):
                    return number
            await asyncio.sleep(0.05)

    async def story() -> float:
        await world.all_up()
        is_replicated = world.machine.replicates
        config = {"name": "S", "subjects": ["s.>"], "num_replicas": nodes if is_replicated else 1}
        creator = await world.connect("create", await leader("") if is_replicated else 0)
        await creator.api("STREAM.CREATE.S", config)
        where = await leader("S") if is_replicated else 0
        clients = [await world.connect(f"w{number}", where) for number in range(CLIENTS)]
        started = time.process_time()
        until_s = world.loop.now() + LIMIT_S
        await asyncio.gather(*(one(client, number, until_s) for number, client in enumerate(clients)))
        return time.process_time() - started

    cpu_s = world.run(story())
    world.close()
    return (
        f"{nodes} nodes, {done / LIMIT_S:.0f} operations/s: {LIMIT_S / cpu_s:.1f} virtual seconds per CPU second, "
        f"{cpu_s / max(1, done) * 1e6:.0f} µs per operation, {world.loop.callbacks / max(1, done):.0f} callbacks each"
    )
