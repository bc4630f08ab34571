"""Goal: a restored stream is on all its replicas; of one whose maker dies nobody keeps a part; it can come again."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import Any

import pytest
from backup_world import fill, joined, restore, seen, snapshot
from damaged_store import LIMITS, play_over
from placing_world import Story, node_of, play

from jepsen.sim.client import Client
from jepsen.sim.machine import Machine
from jepsen.sim.world import World

CONFIG = {"name": "S", "subjects": ["s.>"], "allow_msg_ttl": True, "num_replicas": 3}


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, Any], bytes]:
    """What is in the stream, and its archive."""

    async def source(world: World, client: Client) -> tuple[dict[str, Any], bytes]:
        await fill(client)
        return await seen(client), joined((await snapshot(client))[1])

    found: tuple[dict[str, Any], bytes] = play_over(None, source)[1]
    return found


def maker(s: Story) -> Machine:
    """Where restores are made: the metadata is led there."""
    leader = s.meta_leader()
    return next(machine for machine in s.world.machines if node_of(machine) is leader)


def stored(before: dict[str, Any]) -> dict[int, bytes]:
    return {each["seq"]: b64decode(each.get("data", "")) for each in before["messages"] if "seq" in each}


async def put_back(s: Story, before: dict[str, Any], archive: bytes) -> None:
    async def ask(client: Client) -> Any:
        return await restore(client, archive, CONFIG, chunk_bytes=600)

    answer = await s.ask("", ask)
    assert answer["state"]["messages"] == before["state"]["messages"], answer
    assert await s.converged("S") == stored(before)
    groups = [node.streams["S"] for node in s.nodes()]
    assert len(groups) == 3
    for group in groups:
        assert not group.is_restoring
        assert sorted(group.stream.consumers) == ["C", "F"]

    async def publish(client: Client) -> Any:
        return (await client.request("s.1", b"more")).json()

    assert (await s.ask("S", publish))["seq"] == before["state"]["last_seq"] + 1


def test_all_replicas_have_it(made: tuple[dict[str, Any], bytes]) -> None:
    before, archive = made

    async def story(s: Story) -> None:
        await s.until(s.meta_leader, "somebody leads")
        await put_back(s, before, archive)

    play(story, nodes=3, limits=LIMITS)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_the_maker_dies_in_the_middle(made: tuple[dict[str, Any], bytes], share: float) -> None:
    before, archive = made

    async def story(s: Story) -> None:
        await s.until(s.meta_leader, "somebody leads")
        machine = maker(s)
        client = await s.world.connect("c", s.world.machines.index(machine))
        begun = await client.api("STREAM.RESTORE.S", {"config": CONFIG, "state": {}})
        for start in range(0, int(len(archive) * share), 600):
            await client.request(begun["deliver_subject"], archive[start : start + 600])
        await s.until(lambda: sum("S" in node.streams for node in s.nodes()) == 3, "all have half of it")
        assert all(node.streams["S"].is_restoring for node in s.nodes())
        machine.kill(5.0)
        await s.until(lambda: s.meta_leader() is not None and maker(s) is not machine, "somebody else leads")
        await s.until(lambda: not any("S" in node.meta.machine.streams for node in s.nodes()), "it is given up")
        await s.until(lambda: not any("S" in node.streams for node in s.nodes()), "nobody has any of it")
        await asyncio.sleep(10)
        await s.world.all_up()
        await s.until(lambda: len(s.nodes()) == 3 and not any(node.streams for node in s.nodes()), "nor who was away")
        await put_back(s, before, archive)

    play(story, nodes=3, limits=LIMITS)
