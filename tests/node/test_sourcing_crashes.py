"""Goal: a message that a mirror or source takes from a stream that removes what is consumed is in one of the two.

The disk dies at the n-th operation after the first publish, for many n; then the server starts again. Whatever was
acknowledged is in the copy in the end, once, and has left the origin, which a filter must not empty of other subjects.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from random import Random
from typing import Any

import pytest
from backup_world import joined, restore, snapshot
from damaged_store import LIMITS, Story, play_over
from deep import IS_DEEP

from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent, Unknown
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World

STEP = 1 if IS_DEEP else 5
MESSAGES = 12
COPIES: dict[str, dict[str, Any]] = {
    "mirror": {"name": "C", "mirror": {"name": "O"}},
    "source": {"name": "C", "sources": [{"name": "O", "filter_subject": "o.1"}]},
    "own": {"name": "C", "sources": [{"name": "O", "consumer": {"name": "own", "deliver_subject": "d"}}]},
}
OWN = {"stream_name": "O", "config": {"durable_name": "own", "deliver_subject": "d", "ack_policy": "flow_control"}}


def play(vfs: SimVfs, story: Story, seed: int) -> int:
    """Tell a story on a machine that dies where its disk says; the disk operations it took."""
    world = World(Random(seed), limits=LIMITS)
    try:
        world.machine.change_disk(vfs.clone(), is_own=True)
        taken = 0

        async def main() -> None:
            nonlocal taken
            client = await world.up()
            before = world.machine.vfs.boundaries
            await story(world, client)
            taken = world.machine.vfs.boundaries - before

        world.run(main())
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures
    return taken


async def put(client: Client) -> list[bytes]:
    """What was acknowledged."""
    acknowledged = []
    for number in range(MESSAGES):
        body = b"%d" % number
        try:
            answer = (await client.request(f"o.{number % 2}", body)).json()
        except (Unknown, NotSent, NoResponders, ApiFailure):
            break
        assert "error" not in answer
        acknowledged.append(body)
        if number == MESSAGES // 2:
            await asyncio.sleep(0.1)  # the copy catches up
    return acknowledged


async def settled(client: Client, left: int) -> dict[str, Any]:
    """The state of the origin once it holds so many messages and no more: for ever means never."""
    for _ in range(100):
        consumers = (await client.api("CONSUMER.LIST.O"))["consumers"]
        state: dict[str, Any] = (await client.api("STREAM.INFO.O"))["state"]
        if state["messages"] == left and len(consumers) == 1 and consumers[0]["num_pending"] == 0:
            return state
        await asyncio.sleep(0.1)
    raise AssertionError((state, consumers))


async def bodies(client: Client, stream: str) -> list[bytes]:
    state = (await client.api(f"STREAM.INFO.{stream}"))["state"]
    found = []
    for seq in range(max(state["first_seq"], 1), state["last_seq"] + 1):
        message = (await client.api(f"STREAM.MSG.GET.{stream}", {"seq": seq}))["message"]
        found.append(base64.b64decode(message["data"]))
    return found


@pytest.mark.parametrize("kind", sorted(COPIES))
@pytest.mark.parametrize("retention", ["workqueue", "interest"])
def test_every_message_is_in_the_copy_once(retention: str, kind: str, record_property: Any) -> None:
    async def empty(world: World, client: Client) -> None:
        await client.api("STREAM.CREATE.O", {"name": "O", "subjects": ["o.>"], "retention": retention})
        if kind == "own":
            await client.api("CONSUMER.CREATE.O.own", OWN)
        await client.api("STREAM.CREATE.C", COPIES[kind])
        await settled(client, 0)

    vfs, _ = play_over(None, empty)
    kept = Counter[str]()

    async def story(world: World, client: Client) -> None:
        if at:
            world.machine.crash_at_disk_operation(at, 0.0)
        acknowledged = await put(client)
        await asyncio.sleep(1)
        if at:
            client = await world.up()
        is_filtered = kind == "source"
        last = (await client.api("STREAM.INFO.O"))["state"]["last_seq"]
        assert last >= len(acknowledged)
        stays = (last + 1) // 2 if is_filtered and retention == "workqueue" else 0
        await settled(client, stays)
        found = await bodies(client, "C")
        wanted = [b"%d" % number for number in range(MESSAGES) if number % 2 or not is_filtered]
        assert found == wanted[: len(found)], at
        assert len(found) >= sum(body in wanted for body in acknowledged), at
        kept["all" if len(acknowledged) == MESSAGES else "part"] += 1

    at = 0
    operations = play(vfs, story, 0)
    points = range(1, operations + 1, STEP)
    for at in points:
        play(vfs, story, at)
    record_property("cases", len(points))
    assert kept["part"] > 0


def test_nothing_waits_for_a_copy_that_is_deleted(record_property: Any) -> None:
    """The consumer in the origin goes with the mirror, even if the server dies between the two."""

    async def copied(world: World, client: Client) -> None:
        await client.api("STREAM.CREATE.O", {"name": "O", "subjects": ["o.>"], "retention": "interest"})
        await client.api("STREAM.CREATE.C", COPIES["mirror"])
        await settled(client, 0)

    vfs, _ = play_over(None, copied)

    operations = 0

    async def story(world: World, client: Client) -> None:
        nonlocal operations
        before = world.machine.vfs.boundaries
        if at:
            world.machine.crash_at_disk_operation(at, 0.0)
        answered = True
        try:
            await client.api("STREAM.DELETE.C")
        except (Unknown, NotSent, NoResponders, ApiFailure):
            answered = False
        await asyncio.sleep(1)
        if at:
            client = await world.up()
            world.machine.crash_at_disk_operation(1 << 40, 0.0)  # not any more, if it has not come to it
        else:
            operations = world.machine.vfs.boundaries - before
        is_there = "C" in (await client.api("STREAM.NAMES"))["streams"]
        assert not (is_there and answered), at
        await client.request("o.1", b"x")
        for _ in range(100):
            consumers = (await client.api("CONSUMER.LIST.O"))["consumers"]
            if len(consumers) == is_there and not (await client.api("STREAM.INFO.O"))["state"]["messages"]:
                return
            await asyncio.sleep(0.1)
        raise AssertionError((at, is_there, consumers))

    at = 0
    play(vfs, story, 0)
    points = range(1, operations + 1)
    assert len(points) > 2
    for at in points:
        play(vfs, story, at)
    record_property("cases", len(points))


def test_a_consumer_made_for_copies_serves_one_at_a_time() -> None:
    async def until(client: Client, stream: str, seq: int) -> dict[str, Any]:
        for _ in range(100):
            info = await client.api(f"STREAM.INFO.{stream}")
            if info["state"]["last_seq"] >= seq:
                return dict(info["sources"][0])
            await asyncio.sleep(0.1)
        raise AssertionError(info)

    async def story(world: World, client: Client) -> None:
        await client.api("STREAM.CREATE.O", {"name": "O", "subjects": ["o.>"], "retention": "workqueue"})
        await client.api("CONSUMER.CREATE.O.own", OWN)
        await client.request("o.1", b"1")
        await client.api("STREAM.CREATE.C", COPIES["own"])
        assert "error" not in await until(client, "C", 1)
        await client.api("STREAM.CREATE.D", COPIES["own"] | {"name": "D"})
        await asyncio.sleep(2)
        assert (await until(client, "D", 0))["error"]["err_code"] == 10216
        await client.api("CONSUMER.PAUSE.O.own", {"pause_until": "2100-01-01T00:00:00Z"})
        await client.request("o.1", b"2")
        await asyncio.sleep(5)
        assert (await client.api("STREAM.INFO.C"))["state"]["last_seq"] == 1
        await client.api("CONSUMER.PAUSE.O.own")
        await until(client, "C", 2)
        await client.api("STREAM.DELETE.C")
        await client.request("o.1", b"3")
        assert "error" not in await until(client, "D", 1)
        assert await bodies(client, "D") == [b"3"]
        await settled(client, 0)
        assert (await client.api("CONSUMER.INFO.O.own"))["push_bound"]
        await client.api("STREAM.DELETE.D")
        await asyncio.sleep(10)
        assert "push_bound" not in await client.api("CONSUMER.INFO.O.own")

    play_over(None, story)


def test_an_archive_of_the_origin_keeps_what_the_copy_needs() -> None:
    async def story(world: World, client: Client) -> None:
        config = {"name": "S", "subjects": ["s.>"], "retention": "interest"}
        await client.api("STREAM.CREATE.S", config)
        await client.api("STREAM.CREATE.C", {"name": "C", "mirror": {"name": "S"}})
        await client.api("CONSUMER.CREATE.S.x", {"stream_name": "S", "config": {"durable_name": "x"}})
        await client.request("s.1", b"1")
        await asyncio.sleep(1)
        archive = joined((await snapshot(client))[1])
        await client.api("STREAM.DELETE.S")
        assert "error" not in await restore(client, archive, config)
        await client.request("s.1", b"2")
        await asyncio.sleep(2)
        assert await bodies(client, "C") == [b"1", b"2"]
        consumers = (await client.api("CONSUMER.LIST.S"))["consumers"]
        assert [consumer["num_pending"] for consumer in consumers if consumer["name"] != "x"] == [0]
        await client.api("STREAM.DELETE.C")
        await asyncio.sleep(1)
        assert (await client.api("CONSUMER.NAMES.S"))["consumers"] == ["x"]

    play_over(None, story)
