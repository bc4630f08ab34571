"""Goal: the nodes of a cluster get a key one after the other, under load and deaths; nothing is lost, nothing shows."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

import pytest
from placing_world import Story, node_of, play
from sealing_world import Given

from jepsen.sim.client import Client
from jepsen.sim.machine import Machine
from jetstore.limits import KIB

WORDS = (b"orders_of_mine", b"payload", b"Header-Of-Mine", b"ORDERS_OF_MINE", b"CONSUMER_OF_MINE", b"a description")
STREAM = "ORDERS_OF_MINE"


def shown(machine: Machine) -> dict[bytes, list[str]]:
    """What stands in the clear on a machine's disk, and where."""
    vfs = machine.vfs
    found = {word: [path for path in vfs.files() if word in vfs.peek(path)] for word in WORDS}
    return {word: paths for word, paths in found.items() if paths}


async def publish(client: Client, number: int) -> None:
    headers = {"Header-Of-Mine": "1"} if number % 2 else None
    await client.request("orders_of_mine", b"payload" + Random(number).randbytes(KIB), headers=headers)


def is_sealed(machine: Machine) -> bool:
    """Whether nothing plain is on a machine that runs."""
    node = node_of(machine)
    return node is not None and machine.vfs.keys is not None and not node.sealing.is_due


@pytest.mark.parametrize("dies", [False, True])
def test_one_node_after_the_other(dies: bool) -> None:
    async def story(s: Story) -> None:
        await s.create(STREAM, 3, description="a description", compression="s2")
        consumer = {"durable_name": "CONSUMER_OF_MINE", "ack_policy": "explicit"}
        call = f"CONSUMER.DURABLE.CREATE.{STREAM}.CONSUMER_OF_MINE"
        await s.ask(STREAM, lambda c: c.api(call, {"stream_name": STREAM, "config": consumer}))
        count = deaths = 0

        async def more(messages: int) -> None:
            nonlocal count
            for _ in range(messages):
                await s.ask(STREAM, partial(publish, number=count))
                count += 1

        await more(60)
        await s.converged(STREAM)
        for machine in s.world.machines:
            s.world.checkpoint(machine.name)
        await asyncio.sleep(1)
        assert all(set(shown(machine)) == set(WORDS) for machine in s.world.machines), "the look is not blind"
        for number, machine in enumerate(s.world.machines):
            machine.secrets = Given(f"secret of {machine.name}")
            machine.restart(0.1)
            await s.until(lambda m=machine: m.boot is None, "it went down")
            await more(3)  # while it is away
            await machine.ready(10)
            if dies:
                for _ in range(4):
                    machine.crash_at_disk_operation(40 + 20 * number, 0.1)
                    await s.until(lambda m=machine: m.boot is None or is_sealed(m), "it died, or all of it is sealed")
                    await s.world.all_up()
                machine.heal_disk()
                deaths += machine.deaths.get("crash point", 0)
            await more(5)
            await s.until(lambda m=machine: is_sealed(m), "everything on it is sealed")
            assert shown(machine) == {}
        await more(5)
        held = await s.converged(STREAM)
        assert len(held) >= count
        assert [shown(machine) for machine in s.world.machines] == [{}, {}, {}]
        for machine in s.world.machines:
            machine.power_cut(0.1)
        await s.world.all_up()
        assert await s.converged(STREAM) == held
        info = await s.ask(STREAM, lambda c: c.api(f"CONSUMER.INFO.{STREAM}.CONSUMER_OF_MINE"))
        assert info["num_pending"] == len(held)
        assert (deaths > 4) == dies

    play(story, nodes=3, seed=4)
