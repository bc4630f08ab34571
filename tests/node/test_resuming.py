"""A lone member whose apply stood still at a read error goes on by itself once the device reads again."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from damaged_store import LIMITS, body, current_server, flip, play_over, put, refusal, small_store, take
from placing_world import Story, node_of, play

from jepsen.sim.client import Client, NoResponders, Unknown
from jepsen.sim.machine import Machine
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.node.stream_group import StreamGroup

STORED, ABOVE = 30, 11
MAX_MSGS = STORED + ABOVE
UNAVAILABLE = 10008
SEGMENTS = "groups/2/segments/*"


async def publish(client: Client, number: int) -> bytes:
    try:
        return (await client.request(f"s.{number % 3}", body(number), timeout_s=1)).data
    except Unknown:
        return b""


async def stand_still(world: World, client: Client, pattern: str = SEGMENTS) -> None:
    """The next message makes the oldest go, and what is known of that one cannot be read."""
    world.machine.disk_error("pread", pattern, errno.EIO, 1, True)
    assert await publish(client, MAX_MSGS + 1) == b""
    assert b'"err_code":10008' in await publish(client, MAX_MSGS + 2)
    assert await refusal(client, "STREAM.INFO.S") == UNAVAILABLE
    assert "S" in current_server(world).node.health_problem()


async def is_whole(client: Client, first: int, last: int) -> None:
    state = (await client.api("STREAM.INFO.S"))["state"]
    assert (state["first_seq"], state["last_seq"], state["messages"]) == (first, last, last - first + 1)
    for number in range(first, last + 1):
        direct = await client.request("$JS.API.DIRECT.GET.S", b'{"seq":%d}' % number)
        assert direct.data == body(number)


async def has_resumed(world: World, within_s: float) -> None:
    """Wait for it; no publish or read is needed to bring it about."""
    group = current_server(world).node.streams["S"]
    async with asyncio.timeout(within_s):
        while group.is_faulty:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)


def tell(story: Callable[[World, Client], Awaitable[Any]], above: int = ABOVE, stored: int = STORED) -> SimVfs:
    return play_over(small_store(stored, above, config={"max_msgs": stored + above}), story)[0]


def test_it_goes_on_where_it_stood() -> None:
    async def story(world: World, client: Client) -> None:
        await stand_still(world, client)
        group = current_server(world).node.streams["S"]
        await asyncio.sleep(20)
        assert group.is_faulty, "the device does not read yet"
        assert b'"err_code":10008' in await publish(client, MAX_MSGS + 2)
        await others_go_on(client, 4)
        world.machine.heal_disk()
        await has_resumed(world, 60)
        assert current_server(world).node.streams["S"] is group
        assert current_server(world).node.health_problem() == ""
        await is_whole(client, 2, MAX_MSGS + 1)
        await put(client, MAX_MSGS + 2, MAX_MSGS + 6)
        await is_whole(client, 7, MAX_MSGS + 6)
        assert len(await take(client, 3)) == 3

    left = tell(story)

    async def after(world: World, client: Client) -> None:
        await is_whole(client, 7, MAX_MSGS + 6)
        await put(client, MAX_MSGS + 7, MAX_MSGS + 8)

    play_over(left, after)


def test_also_where_the_entries_are_only_in_the_journal_and_a_checkpoint_is_due() -> None:
    """More above the checkpoint than memory keeps, and than a group may have without a checkpoint."""
    above = 21

    async def story(world: World, client: Client) -> None:
        group = current_server(world).node.streams["S"]
        log = group.core.log
        world.machine.disk_error("pread", SEGMENTS, errno.EIO, 1, True)
        assert await publish(client, STORED + above + 1) == b""
        assert group.is_faulty
        assert log.first_index > log.checkpoint_index + 1, "the entries are in memory"
        current_server(world).node.storage.want_checkpoint(group.uid, is_forced=True)
        await asyncio.sleep(5)
        assert world.machine.exits == []
        world.machine.heal_disk()
        await has_resumed(world, 60)
        await is_whole(client, 2, STORED + above + 1)
        for number in range(STORED + above + 2, STORED + above + 60):  # segments and checkpoints go on
            await put(client, number, number)
        await asyncio.sleep(5)
        await is_whole(client, 60, STORED + above + 59)

    left = tell(story, above)

    async def after(world: World, client: Client) -> None:
        await is_whole(client, 60, STORED + above + 59)

    play_over(left, after)


def test_a_lone_copy_in_a_cluster() -> None:
    async def story(s: Story) -> None:
        async def checkpointed(group: StreamGroup, machine: Machine) -> None:
            assert machine.boot is not None
            storage = machine.boot.server.node.storage
            done = s.world.loop.call_owned(
                machine.boot.owner, lambda: asyncio.ensure_future(storage.checkpoint(group, is_forced=True))
            )
            await done

        await s.create("R", 1, max_msgs=MAX_MSGS)
        await s.publish("R", *[body(number) for number in range(1, STORED + 1)])
        first = await s.until(lambda: s.leader("R"), "led")
        machine = s.machine_with(first)
        await checkpointed(first, machine)
        await s.publish("R", *[body(number) for number in range(STORED + 1, MAX_MSGS + 1)])
        machine.kill(0.2)
        group = await s.until(lambda: (led := s.leader("R")) is not first and led, "led again")
        machine.disk_error("pread", f"groups/{group.uid}/segments/*", errno.EIO, 1, True)
        client = await s.world.connect("c", s.world.machines.index(machine))
        with pytest.raises((Unknown, NoResponders)):
            await client.request("r", b"what becomes of it is not known yet", timeout_s=1)
        await asyncio.sleep(10)
        assert group.is_faulty
        node = node_of(machine)
        assert node is not None
        assert node.resuming.resumed_total == 0
        machine.heal_disk()
        await s.until(lambda: not group.is_faulty, "it goes on")
        assert node.resuming.resumed_total == 1
        assert await s.publish("R", b"after") == [MAX_MSGS + 2]
        await s.until(lambda: all(each.health_problem() == "" for each in s.nodes()), "all are healthy")
        await checkpointed(group, machine)
        machine.kill(0.2)
        await s.until(lambda: s.leader("R") not in (None, group), "led again")
        assert await s.publish("R", b"after") == [MAX_MSGS + 3]

    play(story, nodes=3, limits=LIMITS)


async def others_go_on(client: Client, number: int) -> None:
    await put(client, number, number, stream="OTHER")


def test_what_stays_damaged_stands_still_and_is_looked_at_ever_less_often() -> None:
    """Nothing is skipped; and trying again costs ever less."""

    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        assert await publish(client, MAX_MSGS + 1) == b""
        tried = []
        for _ in range(4):
            await asyncio.sleep(600)
            tried.append(node.resuming.attempts_total)
            assert b'"err_code":10008' in await publish(client, MAX_MSGS + 2)
            assert await refusal(client, "STREAM.INFO.S") == UNAVAILABLE
        assert tried[0] > 3
        assert tried[3] - tried[1] <= 5
        await others_go_on(client, 4)
        assert world.machine.exits == []

    vfs = small_store(STORED, ABOVE, config={"max_msgs": MAX_MSGS})
    vfs.lose(next(path for path in vfs.files() if path.startswith("groups/2/segments/")))
    play_over(vfs, story)


@pytest.mark.parametrize("is_passing", [True, False])
def test_an_entry_that_the_device_did_not_show_at_start(is_passing: bool) -> None:
    """Its slot is unreadable until it is read again; what is really damaged stays so."""
    vfs = small_store(STORED, ABOVE)
    path, at = next(
        (path, vfs.peek(path).find(body(STORED + 4)))
        for path in vfs.files()
        if path.startswith("journal/") and body(STORED + 4) in vfs.peek(path)
    )
    for other in vfs.files():
        if other.startswith("journal/") and other != path:
            assert body(STORED + 4) not in vfs.peek(other)
    flip(vfs, path, at)

    async def story(world: World, client: Client) -> None:
        assert await refusal(client, "STREAM.INFO.S") == UNAVAILABLE
        await asyncio.sleep(5)
        assert await refusal(client, "STREAM.INFO.S") == UNAVAILABLE
        if not is_passing:
            await asyncio.sleep(600)
            assert await refusal(client, "STREAM.INFO.S") == UNAVAILABLE
            return
        flip(world.machine.vfs, path, at)
        await has_resumed(world, 60)
        await is_whole(client, 1, STORED + ABOVE)
        await put(client, STORED + ABOVE + 1, STORED + ABOVE + 2)

    left, _ = play_over(vfs, story)

    async def after(world: World, client: Client) -> None:
        if is_passing:
            await is_whole(client, 1, STORED + ABOVE + 2)
        else:
            assert await refusal(client, "STREAM.INFO.S") == UNAVAILABLE

    play_over(left, after)
