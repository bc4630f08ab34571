"""Goal: a checkpoint whose CKPT line is missing counts only once both its copies are durable under their names.

Method: the sync of the directory fails right after a head's rename, so the page cache shows a name that the disk does
not have. The server ends, starts again, goes on; then the power is cut and only what was synced is there.
"""

from __future__ import annotations

import asyncio

import pytest
from damaged_store import body, create, current_server, play_over, put

from jepsen.sim.client import Client
from jepsen.sim.faults import fault
from jepsen.sim.world import World

MESSAGES = 10


@pytest.mark.parametrize("group", [1, 2], ids=["metadata", "stream"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize(("op", "where"), [("fsync_dir", ""), ("rename", "/HEAD.*")], ids=["sync", "rename"])
def test_nothing_follows_from_a_name_that_is_not_durable(op: str, where: str, nth: int, group: int) -> None:
    async def checkpoint(world: World, client: Client) -> None:
        await create(client)
        await put(client, 1, MESSAGES)
        server = current_server(world)
        member = server.node.streams["S"] if group == 2 else server.node.meta
        world.machine.vfs.inject(fault(op, f"groups/{group}{where}", nth=nth))
        server.node.storage.want_checkpoint(member.uid)
        await asyncio.sleep(1)

    async def go_on(world: World, client: Client) -> None:
        await put(client, MESSAGES + 1, MESSAGES + 3)
        await asyncio.sleep(0.2)

    async def read(world: World, client: Client) -> None:
        for number in range(1, MESSAGES + 4):
            answer = await client.api("STREAM.MSG.GET.S", {"seq": number})
            assert answer["message"]["subject"] == f"s.{number % 3}", body(number)
        await put(client, MESSAGES + 4, MESSAGES + 4)
        assert current_server(world).node.health_problem() == ""

    vfs, _ = play_over(None, checkpoint)
    vfs, _ = play_over(vfs, go_on)
    vfs.crash()
    play_over(vfs, read)


@pytest.mark.parametrize("group", [1, 2], ids=["metadata", "stream"])
@pytest.mark.parametrize("reads", [1, 2])
def test_a_passing_read_error_of_the_only_head_keeps_nothing_from_starting(reads: int, group: int) -> None:
    """Method: only one copy is there, nothing in the journal names it, and its first reads fail."""

    async def half_a_checkpoint(world: World, client: Client) -> None:
        await create(client)
        await put(client, 1, MESSAGES)
        server = current_server(world)
        member = server.node.streams["S"] if group == 2 else server.node.meta
        world.machine.vfs.inject(fault("rename", f"groups/{group}/HEAD.b"))
        # What the next start reads first fails; the one after that is right.
        for nth in range(reads):
            world.machine.vfs.inject(fault("open", f"groups/{group}/HEAD.a", nth=2 + nth))
        server.node.storage.want_checkpoint(member.uid)
        await asyncio.sleep(1)
        assert world.machine.boots == 2

    async def read(world: World, client: Client) -> None:
        for number in range(1, MESSAGES + 1):
            assert (await client.api("STREAM.MSG.GET.S", {"seq": number}))["message"]["seq"] == number
        assert current_server(world).node.health_problem() == ""

    async def both(world: World, client: Client) -> None:
        await half_a_checkpoint(world, client)
        await read(world, await world.up())

    play_over(None, both)
