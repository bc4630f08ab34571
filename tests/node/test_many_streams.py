"""Goal: many streams with a little in each never bring the node to the end of its journal, and one too many is refused.

The server runs in virtual time, with journal files so small that a few streams are many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from damaged_store import LIMITS, body, current_server, play_over, refusal

from jepsen.sim.client import Client
from jepsen.sim.world import World
from jepsen.workload.base import get
from jetstore.limits import KIB, MIB
from jetstore.types import GroupUid

MANY = replace(LIMITS, journal_bytes_max=64 * MIB, journal_group_bytes=256 * KIB)
"""The journal is never half full, and no group is ever large enough for a checkpoint of its own."""
ROUNDS = 60


def test_the_group_table_stays_small_and_a_stream_too_many_is_refused() -> None:
    async def story(world: World, client: Client) -> None:
        assert MANY.streams_max == 16
        names = [f"S{number}" for number in range(MANY.streams_max)]
        for name in names:
            await client.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [name]})
        assert await refusal(client, "STREAM.CREATE.MORE", {"name": "MORE", "subjects": ["more"]}) == 10027
        await client.api(f"STREAM.CREATE.{names[0]}", {"name": names[0], "subjects": [names[0]]})
        for number in range(1, ROUNDS + 1):
            for name in names:
                assert (await client.request(name, body(number))).json() == {"stream": name, "seq": number}
        node = current_server(world).node
        assert node.commit.status.used_bytes * 2 < node.commit.status.max_bytes, "what relieved it was the table"
        world.machine.kill(0.1)
        client = await world.up()
        for name in names:
            for number in (1, ROUNDS // 2, ROUNDS):
                found = await get(client, name, {"seq": number})
                assert found is not None
                assert found.data == body(number)
        await client.api(f"STREAM.DELETE.{names[1]}")
        await client.api("STREAM.CREATE.MORE", {"name": "MORE", "subjects": ["more"]})

    play_over(None, story, limits=MANY)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def test_dead_groups_leave_the_table_though_they_pin_no_file() -> None:
    """Seed 72000522: many streams came and went within one journal file, and no publish was taken any more."""

    async def story(world: World, client: Client) -> None:
        await client.api("STREAM.CREATE.SHORT", {"name": "SHORT", "subjects": ["short"]})
        await client.api("STREAM.DELETE.SHORT")
        node = current_server(world).node
        await until(lambda: node.assignments.has_tombstones)
        await node.storage.checkpoint(node.meta)  # nothing is applied behind it any more
        node.assignments._tombstones.add(GroupUid(7))  # found at a start, in the table
        before = node.storage.checkpoints_total
        node._on_status(node.commit.status._replace(wants_relief=True, pinned_by=()))
        await until(lambda: not node.assignments.has_tombstones)
        assert node.storage.checkpoints_total == before + 1
        node._on_status(node.commit.status._replace(wants_relief=True, pinned_by=()))
        await asyncio.sleep(1.0)
        assert node.storage.checkpoints_total == before + 1, "once is enough"

    play_over(None, story, limits=MANY)
