"""An encrypted store shows nobody what it holds, and opens with the right secret alone."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

import pytest
from placing_world import Story

from jepsen.sim.client import Client
from jepsen.sim.command import quiet
from jepsen.sim.encryption import Secrets, encrypt
from jepsen.sim.world import World
from jetstore.errors import OperatingError
from jetstore.limits import KIB
from jetstore.store.keys import Encryption

WORDS = (b"orders_of_mine", b"payload", b"Header-Of-Mine", b"ORDERS_OF_MINE", b"CONSUMER_OF_MINE", b"a description")


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_no_disk_shows_what_is_stored(is_encrypted: bool) -> None:
    """The same without encryption shows all of it: the look is not blind."""
    quiet()
    world = World(Random(5), nodes=3)
    if is_encrypted:
        encrypt(world.machines, 5)
    seen: dict[bytes, set[str]] = {word: set() for word in WORDS}

    def look() -> None:
        for machine in world.machines:
            for path in machine.vfs.files():
                content = machine.vfs.peek(path)
                for word in WORDS:
                    if word in content:
                        seen[word].add(path.split("/")[0 if path.startswith("journal") else -2])

    async def story() -> None:
        await world.all_up()
        s = Story(world)
        await s.create("ORDERS_OF_MINE", 3, compression="s2", description="a description")
        consumer = {"durable_name": "CONSUMER_OF_MINE", "ack_policy": "explicit"}
        call = "CONSUMER.DURABLE.CREATE.ORDERS_OF_MINE.CONSUMER_OF_MINE"
        await s.ask("ORDERS_OF_MINE", lambda c: c.api(call, {"stream_name": "ORDERS_OF_MINE", "config": consumer}))
        for number in range(40):
            await s.ask("ORDERS_OF_MINE", partial(publish, number=number))
            if number % 6 == 0:
                look()
        for machine in world.machines:
            machine.restart(0.1)
            await machine.ready(10)
            look()
        await s.converged("ORDERS_OF_MINE")
        look()

    async def publish(client: Client, number: int) -> None:
        headers = {"Header-Of-Mine": "1"} if number % 2 else None
        await client.request("orders_of_mine", b"payload" + Random(number).randbytes(KIB), headers=headers)

    try:
        world.run(story())
    finally:
        world.close()
    if is_encrypted:
        assert not any(seen.values()), seen
    else:
        assert all("journal" in places for places in seen.values()), seen
        assert "segments" in seen[b"payload"]
        assert "index" in seen[b"orders_of_mine"]


@pytest.mark.parametrize("wrong", [Encryption("another"), None])
def test_a_secret_that_does_not_fit_stops_the_start_and_harms_nothing(wrong: Encryption | None) -> None:
    quiet()
    world = World(Random(6))
    encrypt(world.machines, 6)
    machine = world.machine
    right = machine.secrets
    assert right is not None

    class Wrong(Secrets):
        def given(self) -> Encryption | None:  # type: ignore[override]
            return wrong

    async def story() -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
        await client.request("s", b"kept")
        machine.kill(1e6)
        before = {path: machine.vfs.peek(path) for path in machine.vfs.files()}
        machine.secrets = Wrong(Random(1))
        machine.power_on()
        await asyncio.sleep(0.2)
        machine.kill(1e6)
        assert [type(error) for _, error in machine.exits] == [OperatingError]
        assert {path: machine.vfs.peek(path) for path in machine.vfs.files()} == before
        machine.secrets = right
        client = await world.up()
        answer = await client.api("STREAM.MSG.GET.S", {"seq": 1})
        assert answer["message"]["data"] == "a2VwdA=="

    try:
        world.run(story())
    finally:
        world.close()
