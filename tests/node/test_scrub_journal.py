"""Goal: damage of a journal file in use is found, and nothing depends on the file when the node starts again.

The server runs in virtual time over a disk whose bytes change under its feet.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from damaged_store import LIMITS, body, create, current_server, flip, play_over, put, small_store, take
from test_scrub import SCRUB, next_round

from jepsen.sim.client import ApiFailure, Client
from jepsen.sim.faults import fault
from jepsen.sim.world import World
from jepsen.workload.base import get
from jetstore.limits import KIB, Limits

STORED, ABOVE = 10, 12
NUMBERS = range(STORED + 1, STORED + ABOVE + 1)
"""Messages that only the journal has."""
NEVER = replace(SCRUB, scrub_bytes_per_s=0)


def run(story: Any, limits: Limits = SCRUB) -> None:
    play_over(small_store(STORED, ABOVE), story, limits=limits)


def place_of(vfs: Any, number: int) -> tuple[str, int]:
    """Where the newest journal file that has this message has it."""
    found = [(path, vfs.peek(path).find(body(number))) for path in vfs.files() if path.startswith("journal/")]
    return [place for place in found if place[1] >= 0][-1]


async def is_whole_after_a_kill(world: World) -> bool:
    world.machine.kill(0.1)
    client = await world.up()
    try:
        for number in range(1, STORED + ABOVE + 1):
            message = await get(client, "S", {"seq": number})
            if message is None or message.data != body(number):
                return False
        return await take(client, 3) != [] and current_server(world).node.health_problem() == ""
    except ApiFailure:
        return False


@pytest.mark.parametrize("number", NUMBERS)
def test_what_lives_in_a_damaged_file_is_written_elsewhere(number: int) -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        await next_round(node)
        assert node.scrub.found_total == 0
        path, offset = place_of(world.machine.vfs, number)
        flip(world.machine.vfs, path, offset + 20)
        await next_round(node)
        assert node.scrub.found_total > 0
        for _ in range(2):
            await next_round(node)
        assert node.scrub.damaged_copies == {}, "nothing needs the file any more"
        assert await is_whole_after_a_kill(world)

    run(story)


def test_without_the_scrub_it_is_lost() -> None:
    async def story(world: World, client: Client) -> None:
        path, offset = place_of(world.machine.vfs, NUMBERS[0])
        flip(world.machine.vfs, path, offset + 20)
        await asyncio.sleep(60)
        assert not await is_whole_after_a_kill(world)

    run(story, NEVER)


@pytest.mark.parametrize("way", ["lost", "unreadable", "zero"])
def test_a_whole_file_gone_while_it_is_written_to(way: str) -> None:
    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        vfs = world.machine.vfs
        path, _ = place_of(vfs, NUMBERS[-1])
        size = len(vfs.peek(path))
        if way == "unreadable":
            vfs.inject(fault("pread", path, sticky=True))
        elif way == "zero":
            vfs.poke(path, 0, bytes(size))
        else:
            vfs.lose(path)
        for _ in range(4):
            await next_round(node)
        assert node.scrub.found_total > 0
        await put(client, STORED + ABOVE + 1, STORED + ABOVE + 3)
        vfs.heal()
        assert await is_whole_after_a_kill(world)

    run(story)


def test_files_come_and_go_while_they_are_read() -> None:
    """Method: the journal goes round many times while a slow scrub reads it; files that were recycled are no damage."""

    async def story(world: World, client: Client) -> None:
        await create(client, {"max_msgs": 20})
        node = current_server(world).node
        number = 0
        while node.scrub.rounds_total < 6:
            await put(client, number + 1, number + 10, size=2000)
            number += 10
            await asyncio.sleep(0.1)
        newest = max(path for path in world.machine.vfs.files() if path.startswith("journal/"))
        assert int(newest[8:28]) > 20, "it went round often"
        assert node.scrub.found_total == 0

    limits = replace(SCRUB, scrub_bytes_per_s=256 * KIB, scrub_step_bytes=2 * KIB, scrub_round_s=0.1)
    play_over(None, story, limits=replace(limits, journal_group_bytes=LIMITS.journal_file_bytes))
