"""Replicas that differ are found: the minority fetches its state anew, one against one changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from jepsen.sim.world import World, play
from jetstore.node.comparing import COMPARE_S


async def led(world: World, stream: str) -> tuple[int, Any]:
    """Number and driver of the machine that serves the stream."""
    for _ in range(600):
        for number, machine in enumerate(world.machines):
            server: Any = machine.boot.server if machine.boot is not None else None
            group = server.node.streams.get(stream) if server is not None and hasattr(server.node, "meta") else None
            if group is not None and group.serves:
                return number, group
        await asyncio.sleep(0.05)
    raise AssertionError("nobody leads")


async def filled(world: World) -> tuple[int, Any]:
    """A stream with some messages; who leads it."""
    await world.all_up()
    for number in range(len(world.machines) * 100):
        client = await world.up(number % len(world.machines))
        try:
            await client.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "num_replicas": 3})
            break
        except Exception:  # noqa: BLE001 - not the one that leads the metadata
            await asyncio.sleep(0.05)
    number, group = await led(world, "S")
    client = await world.up(number)
    for text in (b"a", b"b", b"c"):
        assert "seq" in (await client.request("s", text)).json()
    await asyncio.sleep(1)
    return number, group


def members(world: World) -> list[Any]:
    return [machine.boot.server.node.streams["S"] for machine in world.machines]  # type: ignore[union-attr, attr-defined]


def test_a_follower_whose_state_differs_has_it_anew() -> None:
    async def story(world: World) -> None:
        leader, _ = await filled(world)
        wrong = members(world)[(leader + 1) % 3]
        wrong.stream.contents.bytes += 1  # what a defect might do
        await asyncio.sleep(2 * COMPARE_S + 2)
        right = members(world)[leader].stream.contents.bytes
        assert [group.stream.contents.bytes for group in members(world)] == [right] * 3
        assert members(world)[(leader + 1) % 3].stream.log.last_seq == 3
        assert not any(group.is_faulty for group in members(world))

    play(story, seed=1, nodes=3)


def test_a_leader_that_differs_from_two_who_agree_steps_down_and_has_its_state_anew() -> None:
    async def story(world: World) -> None:
        leader, group = await filled(world)
        group.stream.contents.bytes += 1
        right = members(world)[(leader + 1) % 3].stream.contents.bytes
        await asyncio.sleep(2 * COMPARE_S + 2)
        assert [other.stream.contents.bytes for other in members(world)] == [right] * 3
        assert not any(other.is_faulty for other in members(world))

    play(story, seed=2, nodes=3)


def test_equal_replicas_are_left_alone() -> None:
    async def story(world: World) -> None:
        await filled(world)
        await asyncio.sleep(2 * COMPARE_S + 2)
        nodes = [machine.boot.server.node for machine in world.machines]  # type: ignore[union-attr, attr-defined]
        assert sum(node.comparing.compared_total for node in nodes) >= 2
        assert sum(node.comparing.differing_total for node in nodes) == 0
        assert sum(node.behind.installed_total for node in nodes) == 0

    play(story, seed=3, nodes=3)
