"""Goal: many machines in one world are really apart, and what goes wrong between them is what the link table says.

Method: a toy service on each machine sends numbered frames to every other one and remembers what came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import Any

import pytest

from jepsen.sim.client import NotSent
from jepsen.sim.command import quiet
from jepsen.sim.machine import Boot
from jepsen.sim.server import CLUSTER_PORT
from jepsen.sim.transport import Profile
from jepsen.sim.world import World
from jetstore.node.link.frames import FrameError, FrameReader, Kind, frame

BEAT_S = 0.05


class Inbox(asyncio.Protocol):
    """Takes frames: sender and number."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.reader = FrameReader(body_bytes_max=1000, resting_bytes=1000)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        while data:
            room = self.reader.get_buffer()
            size = min(len(room), len(data))
            room[:size] = data[:size]
            data = data[size:]
            self.reader.updated(size)
            try:
                for kind, body in self.reader.frames():
                    sender, number = bytes(body).split(b"|", 1)
                    where = self.toy.got if kind is Kind.RAFT else self.toy.pings
                    where.setdefault(sender.decode(), []).append(int(number.rstrip(b".")))
            except FrameError:
                self.toy.broken += 1
                self.transport.abort()
                return


class Toy:
    """One node of the toy service."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        self.got: dict[str, list[int]] = {}
        self.pings: dict[str, list[int]] = {}
        self.broken = 0
        self.number = 0
        self.connects = 0

    async def talk(self, peer: str) -> None:
        while True:
            try:
                transport, _ = await self.boot.loop.create_connection(asyncio.Protocol, peer, CLUSTER_PORT)
            except OSError:
                await asyncio.sleep(BEAT_S)
                continue
            self.connects += 1
            frames = count()
            while not transport.is_closing():
                self.number += 1
                body = f"{self.boot.name}|{self.number}".encode().ljust(100, b".")
                for kind in (Kind.RAFT, Kind.PING):
                    transport.writelines(frame(kind, next(frames), [body]))
                await asyncio.sleep(BEAT_S)


async def serve_toy(boot: Boot) -> None:
    toy = boot.server = Toy(boot)
    handle = boot.vfs.open("boots", create=True)
    boot.vfs.pwrite(handle, [boot.name.encode()], 0)
    boot.vfs.fdatasync(handle)
    boot.vfs.fsync_dir("")
    await boot.loop.create_server(lambda: Inbox(toy), boot.host, CLUSTER_PORT)
    boot.ready()
    async with asyncio.TaskGroup() as talks:
        for peer in boot.peers:
            talks.create_task(toy.talk(peer))
        await boot.stop_wanted
        raise SystemError("stopped")


def play(story: Callable[[World], Awaitable[Any]], seed: int = 1, nodes: int = 3) -> World:
    quiet()
    world = World(Random(seed), nodes=nodes, serve=serve_toy)
    world.loop.network.profile = lambda rng: Profile()

    async def whole() -> None:
        await world.all_up()
        await asyncio.sleep(1)
        await story(world)

    try:
        world.run(whole())
    finally:
        world.close()
    assert world.loop.failures == []
    return world


def got(world: World, target: int, source: int) -> list[int]:
    """Numbers that arrived there from that machine."""
    boot = world.machines[target - 1].boot
    assert boot is not None
    return list(boot.server.got.get(f"n{source}", []))


async def news(world: World, target: int, source: int, for_s: float) -> list[int]:
    """What arrives from now on, for so long."""
    before = len(got(world, target, source))
    await asyncio.sleep(for_s)
    return got(world, target, source)[before:]


def test_all_hear_all_and_names_of_this_machine_stay_on_it() -> None:
    async def story(world: World) -> None:
        for target in (1, 2, 3):
            for source in {1, 2, 3} - {target}:
                assert len(await news(world, target, source, 0.5)) >= 9
        assert got(world, 1, 1) == []
        with pytest.raises(ConnectionRefusedError):
            await world.loop.create_connection(asyncio.Protocol, "127.0.0.1", CLUSTER_PORT)
        with pytest.raises(NotSent):
            await world.connect("c", 1)

    play(story)


def test_each_machine_has_a_disk_and_a_clock_of_its_own() -> None:
    async def story(world: World) -> None:
        one, two, _ = world.machines
        one.jump_clock(5_000_000_000)
        assert one.clock.wall_ns() - two.clock.wall_ns() == 5_000_000_000
        two.power_cut(0.1)
        assert [machine.vfs.peek("boots") for machine in world.machines] == [b"n1", b"n2", b"n3"]
        assert await two.ready(5)
        assert [machine.boots for machine in world.machines] == [1, 2, 1]
        await asyncio.sleep(5)  # until the others know that their old connections are dead
        assert len(await news(world, 2, 1, 2)) > 10

    play(story)


def test_a_partition_holds_back_and_healing_brings_what_was_held() -> None:
    async def story(world: World) -> None:
        world.links.partition(["n1"], ["n2", "n3"])
        await asyncio.sleep(0.1)
        assert await news(world, 1, 2, 3) == []
        assert await news(world, 3, 1, 3) == []
        assert len(await news(world, 3, 2, 1)) >= 19
        world.links.join()
        await asyncio.sleep(1)
        for target, source in ((1, 2), (1, 3), (2, 1), (3, 1)):
            numbers = got(world, target, source)
            assert numbers == sorted(numbers)
            assert len(await news(world, target, source, 1)) >= 15

    kinds = set()
    for seed in range(4):
        kinds |= play(story, seed).links.counts.keys()
    assert kinds == {"held back", "reset after a cut"}


def test_a_one_way_cut_is_one_way() -> None:
    async def story(world: World) -> None:
        world.links.cut("n1", "n2")
        await asyncio.sleep(0.1)
        assert await news(world, 2, 1, 2) == []
        assert len(await news(world, 1, 2, 2)) >= 30
        world.links.heal()
        assert len(await news(world, 2, 1, 2)) >= 30

    play(story)


def test_a_cut_machine_is_not_reached_by_new_connections_until_it_heals() -> None:
    async def story(world: World) -> None:
        world.links.partition(["n1"], ["n2", "n3"])
        world.machines[1].kill(0.1)
        await world.machines[1].ready(5)
        assert len(await news(world, 3, 2, 2)) >= 20
        assert await news(world, 1, 2, 2) == []
        world.links.join()
        await asyncio.sleep(8)
        assert len(await news(world, 1, 2, 2)) >= 20
        assert len(await news(world, 2, 1, 2)) >= 20

    play(story)


def test_who_sees_whom_can_be_told_one_by_one() -> None:
    async def story(world: World) -> None:
        names = [f"n{number}" for number in range(1, 6)]
        world.links.only({name: [names[(i + step) % 5] for step in (-1, 0, 1)] for i, name in enumerate(names)})
        await asyncio.sleep(0.2)
        for source in range(1, 6):
            for target in {1, 2, 3, 4, 5} - {source}:
                is_near = (target - source) % 5 in (1, 4)
                assert bool(await news(world, target, source, 0.5)) is is_near

    play(story, nodes=5)


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_lost_doubled_and_overtaken_whole(seed: int) -> None:
    async def story(world: World) -> None:
        link = world.links.change("n1", "n2")
        link.loss, link.double, link.overtake = 0.2, 0.2, 0.2
        await asyncio.sleep(0.5)
        numbers = await news(world, 2, 1, 20)
        assert 250 < len(set(numbers)) < 390
        assert len(numbers) > len(set(numbers))
        assert numbers != sorted(numbers)
        boot = world.machines[1].boot
        assert boot is not None
        assert boot.server.broken == 0
        assert boot.server.pings["n1"] == sorted(set(boot.server.pings["n1"]))
        others = await news(world, 3, 1, 5)
        assert others == sorted(set(others))
        assert len(others) >= 98

    counts = play(story, seed).links.counts
    assert min(counts["frame lost"], counts["frame doubled"], counts["frame overtaken"]) > 30


def test_late_links_and_narrow_links() -> None:
    async def story(world: World) -> None:
        machine = world.machines[0]
        assert machine.boot is not None
        world.links.change("n1", "n2").delay_s = (0.2, 0.5)
        world.links.change("n1", "n3").bytes_per_s = 2400.0  # of 4,800 that it wants
        await asyncio.sleep(4)
        assert 3 <= machine.boot.server.number // 2 - len(got(world, 2, 1)) <= 12
        numbers = await news(world, 3, 1, 10)
        assert 80 <= len(numbers) <= 110
        assert numbers == sorted(numbers)

    play(story)


def test_a_world_of_five_is_one_run_of_its_seed() -> None:
    async def story(world: World) -> None:
        link = world.links.change("n1", "n2")
        link.loss = link.double = link.overtake = 0.1
        world.machines[4].power_cut(0.3)
        world.links.partition(["n1", "n2"], ["n3", "n4", "n5"])
        await asyncio.sleep(2)
        world.links.heal()
        await asyncio.sleep(2)

    hashes = [play(story, seed, nodes=5).loop.trace_hash() for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_damaged_frame_is_noticed_and_the_connection_made_again() -> None:
    async def story(world: World) -> None:
        world.links.change("n1", "n2").damage = 0.05
        await asyncio.sleep(10)
        boot = world.machines[1].boot
        assert boot is not None
        assert boot.server.broken > 3
        world.links.heal()
        await asyncio.sleep(1)
        assert len(await news(world, 2, 1, 1)) > 15

    play(story)
