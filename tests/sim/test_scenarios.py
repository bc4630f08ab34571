"""Goal: named stories about one server and its disk, each the smallest one that shows its point."""

# ruff: noqa: ASYNC110 (in virtual time polling costs nothing)
from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace

import pytest
from deep import IS_DEEP

from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent, Unknown
from jepsen.sim.command import quiet
from jepsen.sim.faults import fault
from jepsen.sim.world import SMALL, World, play
from jepsen.workload.base import get

STREAM = {"name": "S", "subjects": ["s.>"]}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


async def put(client: Client, first: int, last: int, size: int = 100) -> None:
    """Publish these numbers, one by one; each must be acknowledged with its own number."""
    for number in range(first, last + 1):
        answer = (await client.request(f"s.{number % 3}", f"{number}".encode().ljust(size, b"."))).json()
        assert answer == {"stream": "S", "seq": number}


async def holds(client: Client, *numbers: int) -> None:
    """These are there, each at its sequence."""
    for number in numbers:
        found = await get(client, "S", {"seq": number})
        assert found is not None, f"{number} is gone"
        assert found.data.rstrip(b".") == f"{number}".encode()


async def last_seq(client: Client) -> int:
    return int((await client.api("STREAM.INFO.S"))["state"]["last_seq"])


@pytest.mark.parametrize("end", ["kill", "power_cut", "restart"])
def test_acknowledged_is_there_after_every_kind_of_end(end: str) -> None:
    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        for round_number in range(3):
            await put(client, 60 * round_number + 1, 60 * round_number + 60)
            getattr(world.machine, end)(0.1)
            await asyncio.sleep(1)
            client = await world.up()
            assert await last_seq(client) == 60 * round_number + 60
        await holds(client, *range(1, 181))

    for seed in range(10 if IS_DEEP else 2):
        play(story, seed=seed)


def test_create_ack_power_cut_within_a_moment() -> None:
    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        await put(client, 1, 1)
        world.machine.power_cut(0.01)
        client = await world.up()
        await holds(client, 1)

    for seed in range(10):
        play(story, seed=seed)


def test_a_sync_that_failed_once_then_a_restart_then_a_power_cut() -> None:
    """The page cache shows after the restart what the disk never got; it must not be promised on that ground."""

    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        await put(client, 1, 20)
        world.machine.vfs.inject(fault("fdatasync", "journal/*"))
        client.request_with("s.1", b"unlucky", lambda message: None)
        while not world.machine.exits:
            await asyncio.sleep(0.01)
        client = await world.up()
        before = await last_seq(client)
        assert before in (20, 21)
        await put(client, before + 1, before + 1)
        world.machine.power_cut(0.1)
        client = await world.up()
        assert await last_seq(client) == before + 1, "what a restarted server showed must survive the power cut"
        await holds(client, 20, before + 1)

    for seed in range(5):
        play(story, seed=seed)


def test_nothing_is_acknowledged_after_a_failed_sync() -> None:
    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        world.machine.vfs.inject(fault("fdatasync", "journal/*"))
        answers: list[object] = []
        for _ in range(50):
            client.request_with("s.1", b"x", answers.append)
        await asyncio.sleep(10)
        assert [answer for answer in answers if answer is not None] == []

    play(story, seed=1)


def test_a_full_disk_refuses_publishes_serves_reads_and_recovers_by_itself() -> None:
    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        await put(client, 1, 50)
        world.machine.fill_disk(100_000, errno.ENOSPC)
        await asyncio.sleep(1)
        with pytest.raises(ApiFailure) as refused:
            (await client.request("s.1", b"too much")).json()
        assert refused.value.err_code == 10023
        await holds(client, 1, 50)
        world.machine.heal_disk()
        await asyncio.sleep(1)
        await put(client, 51, 60)
        assert world.machine.boots == 1

    play(story, seed=1)


@pytest.mark.parametrize("seed", range(6))
def test_a_hole_in_the_journal_is_named_and_never_answered_with_not_found(seed: int) -> None:
    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        await put(client, 1, 30, size=600)
        await asyncio.sleep(1)
        world.machine.power_cut(0.1)
        vfs = world.machine.vfs
        needle = b"20".ljust(600, b".")
        (path, offset) = next((p, at) for p in vfs.files() if p[:1] == "j" and (at := vfs.peek(p).find(needle)) >= 0)
        vfs.poke(path, offset + 300, b"rot")
        client = await world.up()
        await holds(client, 1, 19)
        for number in (20, 25, 30):
            with pytest.raises(ApiFailure) as refused:
                await get(client, "S", {"seq": number})
            assert refused.value.err_code == 10008
        with pytest.raises(ApiFailure) as refused:
            (await client.request("s.1", b"more")).json()
        assert refused.value.err_code == 10008
        with pytest.raises(ApiFailure):
            await get(client, "S", {"last_by_subj": "s.0"})

    play(story, seed=seed)


def test_a_crash_at_every_disk_operation_of_a_short_life() -> None:
    """Method: one publish after another, each crash point in turn, some of the un-synced kept; twice in a row."""

    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        await put(client, 1, 10)
        world.machine.crash_at_disk_operation(world.rng.randint(1, 30), 0.01)
        acked = 10
        while world.machine.boot is not None and world.machine.boot.number == 1 and acked < 60:
            answers: list[object] = []
            client.request_with("s.1", f"{acked + 1}".encode().ljust(100, b"."), answers.append, timeout_s=1.0)
            while not answers:
                await asyncio.sleep(0.001)
            if answers == [None]:
                break
            acked += 1
        world.machine.crash_at_disk_operation(world.rng.randint(1, 60), 0.01)
        await asyncio.sleep(1)
        client = await world.up()
        last = await last_seq(client)
        assert last in (acked, acked + 1)
        await holds(client, *range(1, acked + 1))

    for seed in range(200 if IS_DEEP else 15):
        play(story, seed=seed)


def test_a_stream_whose_replay_meets_damage_stands_still_and_harms_no_other() -> None:
    """Method: evictions during replay need messages whose segment is damaged, so that apply cannot go on."""

    async def story(world: World) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", {**STREAM, "max_msgs_per_subject": 1})
        await client.api("STREAM.CREATE.T", {"name": "T", "subjects": ["t"]})
        for number in range(1, 400):
            await client.request(f"s.{number % 40}", f"{number}".encode().ljust(300, b"."))
            await client.request("t", f"{number}".encode())
        world.machine.power_cut(0.1)
        vfs = world.machine.vfs
        for path in vfs.files():
            if path.startswith("groups/2/segments/"):
                for offset in range(200, len(vfs.peek(path)), 150):
                    vfs.poke(path, offset, b"?")
        client = await world.up()
        with pytest.raises((ApiFailure, NoResponders)):
            (await client.request("s.1", b"more")).json()
        assert (await client.request("t", b"more")).json() == {"stream": "T", "seq": 400}
        for number in range(1, 400):
            found = await get(client, "T", {"seq": number})
            assert found is not None
            assert found.data == f"{number}".encode()

    play(story, seed=3)


def test_a_crash_before_each_disk_operation_from_the_very_first_boot(
    record_property: Callable[[str, object], None],
) -> None:
    """Method: enumerate. A store is founded, a stream made, messages published, removed and checkpointed; the power
    fails before disk operation 1, 2, 3 …; after the restart everything acknowledged is there, and life goes on."""

    async def life(world: World, acked: list[int], removed: list[int]) -> None:
        client = await world.up()
        await client.api("STREAM.CREATE.S", STREAM)
        for number in range(1, 13):
            answer = (await client.request(f"s.{number % 3}", f"{number}".encode().ljust(900, b"."))).json()
            acked.append(answer["seq"])
            if number % 5 == 0:
                removed.append(number - 1)
                await client.api("STREAM.MSG.DELETE.S", {"seq": number - 1})

    def run(boundary: int) -> int:
        async def story(world: World) -> None:
            acked: list[int] = []
            removed: list[int] = []
            machine = world.machine
            machine.vfs.crash_at(boundary)
            try:
                await life(world, acked, removed)
            except (Unknown, NotSent, ApiFailure, NoResponders, AssertionError):
                assert machine.deaths, "nothing died, and yet it failed"
            machine.vfs.crash_at(0)
            for _ in range(3):  # the second time after one more power cut, before anything new is written
                client = await world.up()
                if acked:
                    assert await last_seq(client) in (acked[-1], acked[-1] + 1)
                await holds(client, *(seq for seq in acked if seq not in removed))
                for seq in removed[:-1]:
                    assert await get(client, "S", {"seq": seq}) is None, "removed, confirmed, and there again"
                machine.power_cut(0.01)
            client = await world.up()
            await client.api("STREAM.CREATE.S", STREAM)
            before = await last_seq(client)
            assert (await client.request("s.1", b"on")).json()["seq"] == before + 1

        limits = replace(
            SMALL, segment_flush_bytes=1, journal_group_bytes=4096, segment_bytes=4096, zeroing_bytes=32768
        )
        world = play(story, seed=boundary, limits=limits)
        return world.machine.boots

    boundary, step = 1, 1 if IS_DEEP else 9
    while run(boundary) > 4:  # one start and three after power cuts: it did not fail by itself any more
        boundary += step
    record_property("cases", boundary // step)
    assert boundary > 100
