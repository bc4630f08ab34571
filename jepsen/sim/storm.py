"""What a storm (S1) asks for: streams that come and go under the same names, many at once, or purged without end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Protocol

from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent, Unknown

LASTS_S = 0.7
STREAMS = ("S1", "S2", "S3")
"""Their names; those of a crowd are made of them, too."""
CROWD = 12
LETTER = "S"


class Stormed(Protocol):
    """What a storm needs of the world."""

    is_calm: bool
    others: set[str]
    replicas: int

    async def connect(self, name: str, node: int | None = None) -> Client: ...


def draw_storm(world: Stormed, rng: Random, number: int) -> tuple[str, Coroutine[Any, Any, None]]:
    """What it is, and the storm itself, to be run as a task."""
    kind = rng.choice(sorted(KINDS))
    world.others.update(STREAMS)
    return f"{kind} number {number}", _blow(world, Random(rng.getrandbits(64)), number, KINDS[kind])


async def _blow(world: Stormed, rng: Random, number: int, kind: Callable[[Gust], Coroutine[Any, Any, None]]) -> None:
    """Again and again until its time is over; what is refused or unknown does not matter."""
    loop = asyncio.get_running_loop()
    until_s, tries = loop.time() + LASTS_S, 0
    while loop.time() < until_s and not world.is_calm:
        tries += 1
        try:
            client = await world.connect(f"{LETTER}{number}t{tries}")
        except (NotSent, Unknown):
            await asyncio.sleep(0.1)
            continue
        try:
            await kind(Gust(client, rng, world.replicas))
        except (NotSent, Unknown):
            await asyncio.sleep(0.05)
        client.close()


class Gust:
    """One client of a storm."""

    def __init__(self, client: Client, rng: Random, replicas: int) -> None:
        self.client, self.rng, self.replicas = client, rng, replicas

    async def ask(self, call: str, body: dict[str, Any] | None = None) -> None:
        """Whatever comes of it; ``NotSent`` or ``Unknown`` without an answer."""
        try:
            await self.client.api(call, body, timeout_s=1.0)
        except (ApiFailure, NoResponders):
            await asyncio.sleep(0.01)

    async def create(self, name: str) -> None:
        await self.ask(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name}.>"], "storage": "file"})

    async def fill(self, name: str) -> None:
        for number in range(self.rng.randint(1, 8)):
            self.client.publish(f"{name}.{number}", b"storm" * self.rng.choice((1, 60)))
        await asyncio.sleep(0.01)


async def _recreate(gust: Gust) -> None:
    for _ in range(6):
        name = gust.rng.choice(STREAMS)
        await gust.create(name)
        for consumer in range(gust.rng.randint(0, 2)):
            config = {"durable_name": f"c{consumer}", "ack_policy": "explicit"}
            body = {"stream_name": name, "config": config}
            await gust.ask(f"CONSUMER.DURABLE.CREATE.{name}.c{consumer}", body)
        await gust.fill(name)
        if gust.rng.random() < 0.4:
            await gust.ask(f"CONSUMER.DELETE.{name}.c0")
        await gust.ask(f"STREAM.DELETE.{name}")


async def _crowd(gust: Gust) -> None:
    names = [f"{STREAMS[0]}-{number}" for number in range(CROWD)]
    await _together([gust.create(name) for name in names])
    await _together([gust.ask(f"STREAM.DELETE.{name}") for name in names])


async def _together(asked: list[Coroutine[Any, Any, None]]) -> None:
    """All at once; then what the first of them raised."""
    for outcome in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _purge(gust: Gust) -> None:
    name = STREAMS[2]
    await gust.create(name)
    for _ in range(10):
        await gust.fill(name)
        await gust.ask(f"STREAM.PURGE.{name}", {"keep": 1} if gust.rng.random() < 0.3 else {})


KINDS: dict[str, Callable[[Gust], Coroutine[Any, Any, None]]] = {
    "recreate": _recreate,
    "crowd": _crowd,
    "purge": _purge,
}
