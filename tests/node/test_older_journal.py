"""Goal: journal files put back as they were some time ago are noticed on a single disk, as far as IDENTITY knows more.

IDENTITY remembers where the journal was at each start and at a clean stop, and each head of a checkpoint where it was
when the head was written. What came after that nothing else on the disk proves (``docs/format/journal.md``, residual).
"""

from __future__ import annotations

import asyncio

import pytest
from damaged_store import LIMITS, current_server, play_over, put, small_store

from jepsen.sim.client import Client
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.node.examine import examine
from jetstore.node.recover import recover

STORED = 20


async def more(world: World, client: Client) -> None:
    await put(client, STORED + 1, STORED + 8)
    await asyncio.sleep(0.5)


async def stopped(world: World, client: Client) -> None:
    await more(world, client)
    world.machine.restart(0.1)
    await asyncio.sleep(1)


async def nothing(world: World, client: Client) -> None:
    """Just a start."""


async def checkpointed(world: World, client: Client) -> SimVfs:
    """The disk some time after the start, before OTHER gets more and S a checkpoint that the older journal leads to."""
    await more(world, client)
    earlier = world.machine.vfs.clone()
    await put(client, 4, 8, stream="OTHER")
    node = current_server(world).node
    await node.storage.checkpoint(node.streams["S"])
    await asyncio.sleep(0.5)
    return earlier


def put_back(vfs: SimVfs, earlier: SimVfs) -> None:
    """All journal files become what they were."""
    for path in [path for path in vfs.files() if path.startswith("journal/")]:
        vfs.lose(path)
    for path in [path for path in earlier.files() if path.startswith("journal/")]:
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, [earlier.peek(path)], 0)
        vfs.fsync(handle)
        vfs.close(handle)
    vfs.fsync_dir("journal")


def old_disk(how: str) -> SimVfs:
    earlier = small_store(STORED - 5, 5)
    vfs, copied = play_over(earlier, {"clean stop": stopped, "checkpoint": checkpointed}.get(how, more))
    earlier = copied or earlier
    if how == "start":
        vfs, _ = play_over(vfs, nothing)
    put_back(vfs, earlier)
    return vfs


@pytest.mark.parametrize("how", ["start", "clean stop", "checkpoint"])
def test_it_is_noticed_and_nothing_is_served_as_if_it_were_all(how: str) -> None:
    vfs = old_disk(how)
    report, files = examine(vfs.clone(), LIMITS)
    files.close()
    assert any("older one" in note for note in report.notes)
    assert not report.is_sound
    with pytest.raises(AssertionError, match="does not serve"):
        play_over(vfs, nothing)
    for _ in range(3):  # and it stays so, however often it is tried
        with pytest.raises(AssertionError, match="does not serve"):
            play_over(vfs, nothing)


@pytest.mark.parametrize("how", ["start", "checkpoint"])
@pytest.mark.parametrize("starts", [0, 2])
def test_recover_gives_no_sequence_twice(starts: int, how: str) -> None:
    vfs = old_disk(how)
    for _ in range(starts):
        with pytest.raises(AssertionError, match="does not serve"):
            play_over(vfs, nothing)
    done, remaining = recover(vfs, LIMITS, lambda name, lines: sum(1 for _ in lines))
    assert remaining == []
    assert {recovered.name for recovered in done} == {"_meta_", "S", "OTHER"}

    async def story(world: World, client: Client) -> None:
        assert (await client.api("STREAM.MSG.GET.S", {"seq": 1}))["message"]["seq"] == 1
        answer = (await client.request("s.1", b"new")).json()
        assert answer["seq"] > STORED + 8
        assert current_server(world).node.health_problem() == ""

    vfs, _ = play_over(vfs, story)
    play_over(vfs, nothing)


def test_a_journal_that_is_only_newer_than_known_is_none_of_it() -> None:
    vfs, _ = play_over(small_store(STORED - 5, 5), more)
    vfs.crash()
    report, files = examine(vfs.clone(), LIMITS)
    files.close()
    assert report.is_sound
    play_over(vfs, nothing)
