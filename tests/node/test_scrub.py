"""Goal: the scrub finds every damage of stored files that a read would meet, once, and disturbs nothing.

The server runs in virtual time over a disk whose bytes change under its feet.
"""

# ruff: noqa: ASYNC110 (in virtual time polling costs nothing)
from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from damaged_store import ACKED, LIMITS, body, current_server, flip, play_over, put, small_store, take

from jepsen.sim.client import Client
from jepsen.sim.faults import fault
from jepsen.sim.world import World
from jetstore.limits import Limits
from jetstore.store.index_rows import uid_key
from jetstore.store.memory_index import FileRows

STORED, ABOVE = 30, 10
SCRUB = replace(LIMITS, scrub_round_s=0.5, scrub_step_bytes=4096, scrub_bytes_per_s=1024 * 1024)
ROUND_S = 45.0
"""More than a round and the pause behind it."""


def run(story: Any, limits: Limits = SCRUB) -> None:
    play_over(small_store(STORED, ABOVE), story, limits=limits)


async def next_round(node: Any) -> None:
    """Wait until a round that began after now is over."""
    rounds = node.scrub.rounds_total
    while node.scrub.rounds_total < rounds + 2:
        await asyncio.sleep(0.2)


def segments(vfs: Any) -> list[str]:
    return [path for path in vfs.files() if path.startswith("groups/2/segments/")]


def test_a_sound_store_is_read_whole_and_nothing_is_found() -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        await next_round(node)
        assert node.scrub.found_total == 0
        assert node.health_problem() == ""
        vfs = world.machine.vfs
        stored = sum(len(vfs.peek(path)) for path in segments(vfs))
        assert node.scrub.bytes_total > stored

    run(story)


def test_off_means_off() -> None:
    async def story(world: World, client: Client) -> None:
        await asyncio.sleep(ROUND_S)
        assert current_server(world).node.scrub.bytes_total == 0

    run(story, replace(SCRUB, scrub_bytes_per_s=0))


def test_it_takes_its_time() -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        began = world.loop.time()
        while not node.scrub.rounds_total:
            await asyncio.sleep(0.1)
        assert world.loop.time() - began >= node.scrub.bytes_total / 1024

    run(story, replace(SCRUB, scrub_bytes_per_s=1024, scrub_step_bytes=256))


def test_every_byte_of_the_segments_counts() -> None:
    """Bytes that no message needs are found, too: they are somebody's second evidence."""

    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        await put(client, STORED + ABOVE + 1, 80)  # sealed segments are never written again
        await node.storage.checkpoint(node.streams["S"])
        path = segments(world.machine.vfs)[0]
        size = len(world.machine.vfs.peek(path))
        for offset in range(5, size - 32, size // 8):  # the trailer is read when a table is loaded, not again
            flip(world.machine.vfs, path, offset)
            await next_round(node)
            assert node.health_problem() != "", offset
            assert any(place[0] == path for place in node.streams["S"].damage), offset
            flip(world.machine.vfs, path, offset)
            await next_round(node)
            assert node.health_problem() == "", offset
        found = node.scrub.found_total
        await next_round(node)
        assert node.scrub.found_total == found

    run(story)


def test_damage_stays_known_and_the_rest_is_served() -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        path = segments(world.machine.vfs)[0]
        flip(world.machine.vfs, path, world.machine.vfs.peek(path).find(body(20)))
        for _ in range(3):
            await next_round(node)
        assert len(node.streams["S"].damage) == 1
        assert "S" in node.health_problem()
        assert node.scrub.found_total >= 3
        assert await take(client, 5) == list(range(ACKED + 1, ACKED + 6))
        await put(client, 4, 4, stream="OTHER")

    run(story)


@pytest.mark.parametrize("copies", [("HEAD.a",), ("HEAD.b",), ("HEAD.a", "HEAD.b")])
@pytest.mark.parametrize("way", ["flip", "lose"])
def test_copies_of_a_head_are_found_and_written_again(copies: tuple[str, ...], way: str) -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        vfs = world.machine.vfs
        for name in copies:
            if way == "flip":
                flip(vfs, f"groups/2/{name}", 60)
            else:
                vfs.lose(f"groups/2/{name}")
        found = node.scrub.found_total
        for _ in range(2):
            await next_round(node)
        assert node.scrub.found_total > found
        assert node.scrub.damaged_copies == {}  # entries above the checkpoint: a new one was made
        world.machine.kill(0.1)
        client = await world.up()
        assert (await client.api("STREAM.INFO.S"))["state"]["messages"] == STORED + ABOVE

    run(story)


def test_a_wrong_row_of_the_index_is_found_and_the_index_made_again() -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        group = node.streams["S"]
        await put(client, STORED + ABOVE + 1, STORED + ABOVE + 5)
        await node.storage.checkpoint(group)
        raw = group.index._base._raw
        assert isinstance(raw, FileRows)
        for change in ("wrong", "gone", "more"):
            await put(client, group.stream.contents.last_seq + 1, group.stream.contents.last_seq + 2)
            await node.storage.checkpoint(group)
            rows = [key for key in raw.values if len(key) > len(uid_key(2))]
            if change == "wrong":
                raw.values[rows[0]] = bytes([raw.values[rows[0]][0] ^ 1]) + raw.values[rows[0]][1:]
            elif change == "gone":
                del raw.values[rows[1]]
            else:
                raw.values[rows[2] + b"x"] = raw.values[rows[2]]
            before = group.index_rebuilds
            for _ in range(2):
                await next_round(node)
            assert group.index_rebuilds == before + 1, change
        assert node.health_problem() == ""
        assert (await client.api("STREAM.INFO.S", {"subjects_filter": "s.>"}))["state"]["num_subjects"] == 3

    run(story)


def test_streams_come_and_go_while_it_runs() -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        for number in range(10):
            await client.api("STREAM.CREATE.T", {"name": "T", "subjects": ["t.>"]})
            await put(client, 1, 20, stream="T")
            await node.storage.checkpoint(node.streams["T"])
            await asyncio.sleep(number / 3)
            await client.api("STREAM.DELETE.T")
        await next_round(node)
        assert node.scrub.found_total == 0

    run(story, replace(SCRUB, scrub_bytes_per_s=4 * 1024, scrub_round_s=1.0))


def test_reads_that_fail_are_no_end_of_the_node() -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        rule = world.machine.vfs.inject(fault("pread", "groups/2/segments/*", sticky=True))
        await next_round(node)
        assert node.scrub.found_total > 0
        assert world.machine.exits == []
        world.machine.vfs.faults.remove(rule)
        for _ in range(3):
            await next_round(node)
        await put(client, STORED + ABOVE + 1, STORED + ABOVE + 2)
        assert node.health_problem() == "", "a passing read error is over once everything was read again"

    run(story)
