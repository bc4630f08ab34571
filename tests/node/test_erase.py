"""Goal: ten minutes after somebody erased a message no segment file holds it any more, and all others are there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from damaged_store import current_server, play_over, put, small_store

from jepsen.sim.client import Client
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World

STORED, ABOVE = 60, 6
LAST = STORED + ABOVE
BOUND_S = 600.0


def on_disk(vfs: SimVfs, numbers: range | set[int]) -> set[int]:
    """Which of these messages some segment file holds."""
    data = b"|".join(vfs.peek(path) for path in vfs.files() if path.startswith("groups/2/segments/"))
    found = {int(match) for match in re.findall(rb"s\.[012](\d+)\.{90}", data)}
    return found & set(numbers)


async def readable(client: Client, numbers: set[int]) -> None:
    for number in sorted(numbers):
        assert (await client.api("STREAM.MSG.GET.S", {"seq": number}))["message"]["seq"] == number


async def delete_some(client: Client) -> set[int]:
    for number in (8, 33, 64):
        await client.api("STREAM.MSG.DELETE.S", {"seq": number})
    return {8, 33, 64}


async def purge_below(client: Client) -> set[int]:
    await client.api("STREAM.PURGE.S", {"seq": 30})
    return set(range(1, 30))


async def purge_subject(client: Client) -> set[int]:
    await client.api("STREAM.PURGE.S", {"filter": "s.1"})
    return {number for number in range(1, LAST + 1) if number % 3 == 1}


async def purge_all(client: Client) -> set[int]:
    await client.api("STREAM.PURGE.S", {})
    return set(range(1, LAST + 1))


@pytest.mark.parametrize("restarts", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("erase", [delete_some, purge_below, purge_subject, purge_all], ids=lambda f: f.__name__)
def test_gone_within_the_bound(erase: Callable[[Client], Awaitable[set[int]]], restarts: bool) -> None:
    gone: set[int] = set()

    async def strike(world: World, client: Client) -> None:
        gone.update(await erase(client))
        if restarts:
            server = current_server(world)
            await server.node.storage.checkpoint(server.node.streams["S"])
        else:
            await wait(world, client)

    async def wait(world: World, client: Client) -> None:
        await asyncio.sleep(BOUND_S)
        await readable(client, set(range(1, LAST + 1)) - gone)
        answer = (await client.request("s.0", b"more")).json()
        assert answer["seq"] == LAST + 1

    vfs = small_store(STORED, ABOVE)
    assert on_disk(vfs, range(1, STORED - 10)) == set(range(1, STORED - 10))
    vfs, _ = play_over(vfs, strike)
    if restarts:
        vfs, _ = play_over(vfs, wait)
    assert on_disk(vfs, gone) == set()


def test_what_limits_remove_waits_for_ordinary_compaction() -> None:
    async def story(world: World, client: Client) -> Any:
        config = (await client.api("STREAM.INFO.S"))["config"]
        await client.api("STREAM.UPDATE.S", config | {"max_msgs_per_subject": 15})
        await asyncio.sleep(BOUND_S)
        await put(client, LAST + 1, LAST + 1)
        return current_server(world).node.compactor.compacted_total

    _, compacted = play_over(small_store(STORED, ABOVE), story)
    assert compacted <= 2, "segments with a few removed messages are left alone"
