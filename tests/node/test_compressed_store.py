"""Stores with compressed frames: looked at, mended, restarted and read in every way, like any other."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from damaged_store import ACKED, body, current_server, flip, play_over, put, small_store, take
from deep import IS_DEEP
from test_examine import look, served
from test_recover import ALL, goes_on, mends

from jepsen.sim.client import Client
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.node.compactor import Compactor
from jetstore.store.segment import COMPRESSED

STORED, ABOVE = 30, 10
SEGMENTS = "groups/2/segments/"


@cache
def whole() -> SimVfs:
    return small_store(STORED, ABOVE, size=200, config={"compression": "s2"})


def segments(vfs: SimVfs) -> list[str]:
    return [path for path in vfs.files() if path.startswith(SEGMENTS)]


def test_frames_are_compressed_and_smaller() -> None:
    files = b"".join(whole().peek(path) for path in segments(whole()))
    assert files.count(b"JF\x04") >= STORED
    assert len(files) < ALL * 100
    assert body(7, 200) not in files


def test_one_flipped_byte_of_a_segment_is_named() -> None:
    vfs = whole().clone()
    sound = served(look(vfs))
    paths = segments(vfs)
    for path in paths:
        for offset in range(len(path) % 3, len(vfs.peek(path)), 1 if IS_DEEP else 59):
            flip(vfs, path, offset)
            report = look(vfs)
            assert not report.is_sound or served(report) == sound, (path, offset)
            flip(vfs, path, offset)
    assert look(vfs).is_sound


def test_damage_is_mended_frame_by_frame() -> None:
    path = segments(whole())[0]
    size = len(whole().peek(path))
    mended = 0
    for offset in range(30, size, size // 6):
        vfs = whole().clone()
        flip(vfs, path, offset)
        if look(vfs).is_sound:
            continue  # behind what the checkpoint names: the journal has it
        mended += 1
        done, _ = mends(vfs, ["S"])
        lost = {seq for first, last in done[0].lost for seq in range(first, last + 1)}
        assert len(lost) <= 2
        assert all(b"JF\x04" in vfs.peek(name) for name in segments(vfs)), "what is readable is taken over as it is"
    assert mended > 3


def flags_of(world: World) -> list[int]:
    messages = current_server(world).node.streams["S"].messages
    return [flags for segment in messages.segment_files() for flags in messages.reader.table(segment).flags]


async def checkpoint(world: World) -> Any:
    node = current_server(world).node
    await node.storage.checkpoint(node.streams["S"])
    return node


async def everything(client: Client, first: int, last: int) -> None:
    """All that is stored, read by sequence, directly, by subject, and by a consumer."""
    for number in range(first, last + 1):
        found = await client.api("STREAM.MSG.GET.S", {"seq": number})
        assert found["message"]["seq"] == number
        direct = await client.request("$JS.API.DIRECT.GET.S", f'{{"seq":{number}}}'.encode())
        assert direct.data == body(number, 200)
    newest = await client.api("STREAM.MSG.GET.S", {"last_by_subj": f"s.{last % 3}"})
    assert newest["message"]["seq"] == last


def test_turned_off_and_on_and_read_in_every_way_after_restarts() -> None:
    async def off(world: World, client: Client) -> None:
        state = (await client.api("STREAM.INFO.S"))["state"]
        assert state["bytes"] == ALL * (30 + len("s.0") + 200), "plain sizes"
        await everything(client, 1, ALL)
        answer = await client.api("STREAM.UPDATE.S", {"name": "S", "subjects": ["s.>"], "allow_direct": True})
        assert answer["config"]["compression"] == "none"
        await put(client, ALL + 1, ALL + 10, size=200)
        await checkpoint(world)
        assert flags_of(world) == [COMPRESSED] * STORED + [COMPRESSED] * ABOVE + [0] * 10

    async def on(world: World, client: Client) -> None:
        await everything(client, 1, ALL + 10)
        config = {"name": "S", "subjects": ["s.>"], "allow_direct": True, "compression": "s2"}
        assert (await client.api("STREAM.UPDATE.S", config))["config"] | config == (await client.api("STREAM.INFO.S"))[
            "config"
        ]
        await put(client, ALL + 11, ALL + 20, size=200)
        await checkpoint(world)
        assert sorted(set(flags_of(world))) == [0, COMPRESSED]
        assert await take(client, 5) == list(range(ACKED + 1, ACKED + 6))

    async def holes(world: World, client: Client) -> None:
        node = await checkpoint(world)
        group = node.streams["S"]
        before = sum(segment.file_bytes for segment in group.messages.segment_files())
        for seq in range(1, ALL + 20):
            if seq % 5:
                await client.api("STREAM.MSG.DELETE.S", {"seq": seq})
        group.messages.seal_last()
        node.storage.flush(group)
        await node.storage.settle(group)
        compactor = Compactor(node.storage.disk, node.storage, lambda: [group])
        await compactor.compact(group)
        await checkpoint(world)
        assert sum(segment.file_bytes for segment in group.messages.segment_files()) < before / 2
        assert all(flags & COMPRESSED for flags in flags_of(world)), "what is rewritten is compressed, plain frames too"
        for number in range(5, ALL + 20, 5):
            found = await client.request("$JS.API.DIRECT.GET.S", f'{{"seq":{number}}}'.encode())
            assert found.data == body(number, 200)

    vfs: SimVfs = whole()
    for story in (off, on, holes):
        vfs, _ = play_over(vfs, story)
    assert look(vfs).is_sound


@pytest.mark.skipif(not IS_DEEP, reason="JETSTORE_DEEP=1: the stores of test_recover are as small")
def test_a_mended_store_goes_on() -> None:
    vfs = small_store(STORED, ABOVE, config={"compression": "s2"})
    path = segments(vfs)[0]
    flip(vfs, path, len(vfs.peek(path)) // 2)
    done, _ = mends(vfs, ["S"])
    lost = {seq for first, last in done[0].lost for seq in range(first, last + 1)}
    goes_on(vfs, readable=set(range(1, ALL + 1)) - lost, above=ALL)
