"""Goal: a restore that is cut off by a crash, wherever, leaves no half of a stream; one that was answered is all there.

The disk dies at the n-th operation after the restore has begun, for many n; then the server starts again.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from backup_world import fill, joined, restore, seen, snapshot
from damaged_store import LIMITS, Story, current_server, play_over
from deep import IS_DEEP

from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent, Unknown
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World

STEP = 1 if IS_DEEP else 13
CONFIG = {"name": "S", "subjects": ["s.>"], "allow_msg_ttl": True}


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, Any], bytes, SimVfs]:
    """What is in the stream, its archive, and an empty store to restore it to."""

    async def source(world: World, client: Client) -> tuple[dict[str, Any], bytes]:
        await fill(client)
        return await seen(client), joined((await snapshot(client))[1])

    async def empty(world: World, client: Client) -> None:
        await client.api("STREAM.CREATE.FIRST", {"name": "FIRST", "subjects": ["f"]})
        await client.request("f", b"x")

    _, (before, archive) = play_over(None, source)
    vfs, _ = play_over(None, empty)
    return before, archive, vfs


async def try_restore(client: Client, archive: bytes) -> str:
    """ "" if it was answered, which means: for good; else why not."""
    try:
        answer = await restore(client, archive, CONFIG, chunk_bytes=600)
    except (Unknown, NotSent, NoResponders, ApiFailure) as error:
        return repr(error)
    assert "error" not in answer
    return ""


def play(vfs: SimVfs, story: Story, seed: int) -> None:
    """As ``play_over``, on a machine that dies where its disk says."""
    world = World(Random(seed), limits=LIMITS)
    try:
        world.machine.change_disk(vfs.clone(), is_own=True)

        async def main() -> None:
            await story(world, await world.up())

        world.run(main())
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures


def operations_of_a_restore(archive: bytes, vfs: SimVfs) -> int:
    async def story(world: World, client: Client) -> int:
        before = world.machine.vfs.boundaries
        assert not await try_restore(client, archive)
        return world.machine.vfs.boundaries - before

    return int(play_over(vfs, story)[1])


def test_a_crash_leaves_all_or_nothing(made: tuple[dict[str, Any], bytes, SimVfs], record_property: Any) -> None:
    before, archive, vfs = made
    operations = operations_of_a_restore(archive, vfs)
    outcomes = {"all": 0, "nothing": 0}

    async def story(world: World, client: Client) -> None:
        world.machine.crash_at_disk_operation(at, 0.0)
        failure = await try_restore(client, archive)
        await asyncio.sleep(1)
        client = await world.up()
        await asyncio.sleep(1)
        names = (await client.api("STREAM.NAMES"))["streams"]
        outcomes["all" if "S" in names else "nothing"] += 1
        if "S" in names:
            found = await seen(client)
            assert (found["messages"], found["state"]) == (before["messages"], before["state"]), at
            assert found["consumers"] == before["consumers"]
        else:
            assert failure, at
            assert set(current_server(world).node.streams) == {"FIRST"}
            assert not await try_restore(client, archive), (at, failure)
            assert (await seen(client))["messages"] == before["messages"]

    points = range(1, operations + 2, STEP)
    for at in points:
        play(vfs, story, at)
    record_property("cases", len(points))
    assert outcomes["nothing"] > 0
    assert outcomes["all"] > 0
