"""A power cut at the boundaries of an install: afterwards the group is its old self or the peer's, never a mix.

Every boundary operation of the catch-up (received files, manifest, chunks, heads, RESET, removal of what is old) is
tried, each with several survivals of what was un-synced; some openings are cut, too. Afterwards a catch-up completes.
``JETSTORE_DEEP=1`` tries every boundary (else every other one) and more survivals of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from catch_up_world import KIB, Feed, Pipe, Replica, limits
from deep import IS_DEEP

from jepsen.sim.faults import SimCrash
from jepsen.sim.vfs import SimVfs
from jetstore.store.checkpoint_files import read_heads
from jetstore.store.install_manifest import manifest_path, received_names

SURVIVALS = 12 if IS_DEEP else 2
BOUNDS = limits(segment_bytes=2 * KIB, frame_bytes=400)
pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(1800 if IS_DEEP else 120)]


def face(replica: Replica) -> tuple[Any, ...]:
    """What a group is, without what a restart adds to its log (a no-op)."""
    fields = json.loads(replica.group.stream.logical_head())
    for name in ("index", "term", "running"):
        del fields[name]
    rows = replica.group.stream.contents.matching(None)
    return fields, replica.records(), [(subject, row[1:]) for subject, row in rows]  # ``first`` is a lower bound


async def make(kind: str) -> tuple[Replica, SimVfs]:
    """A leader, and the disk of a member that is behind it."""
    leader, follower = await Replica(bounds=limits(3 * KIB)).open(), await Replica(bounds=BOUNDS).open()
    feed = Feed(compression="s2") if kind == "compressed" else Feed()
    script = [feed.configure(), feed.consumer("C"), *[feed.publish(12) for _ in range(6)], feed.delete(3)]
    await leader.feed(script)
    if kind not in ("blank", "compressed"):
        await follower.feed(script if kind != "diverged" else [Feed().configure(), Feed(Random(9)).publish(70)])
        await follower.checkpoint()
    if kind == "journal":
        more = [feed.publish(5), feed.deliver("C", 1, 1, 9)]
        await leader.feed(more)
        await follower.feed(more)
    await leader.feed(
        [feed.purge(seq=11), *[feed.publish(12) for _ in range(6)], feed.delete(60), feed.deliver("C", 1, 12, 30)]
    )
    follower.abandon()
    follower.vfs.kill()
    return leader, follower.vfs


async def reopened(vfs: SimVfs) -> Replica:
    return await Replica(vfs, BOUNDS).open()


@pytest.mark.parametrize("kind", ["blank", "compressed", "behind", "journal", "diverged"])
async def test_a_power_cut_at_every_boundary(kind: str, record_property: Callable[[str, object], None]) -> None:
    leader, disk = await make(kind)
    keeps_local = kind != "diverged"
    before = await reopened(disk.clone())
    old, new = face(before), face(leader)
    before.abandon()
    assert old != new
    seen = {"old": 0, "new": 0}
    boundary = 0 if IS_DEEP else -len(kind) % 2
    is_complete = False
    while not is_complete:
        boundary += 1 if IS_DEEP else 2
        member = await reopened(disk.clone())
        member.vfs.crash_at(member.vfs.boundaries + boundary)
        try:
            await member.catch_up(Pipe(leader.source), keeps_local=keeps_local)
            is_complete = True
            assert face(member) == new
        except SimCrash:
            pass
        member.abandon()
        for survival in range(SURVIVALS):
            dice = Random(boundary * 100 + survival)
            vfs = member.vfs.clone()
            vfs.crash(dice if survival else None)
            again = await first_opening(vfs, dice)
            found = face(again)
            if is_complete:
                assert found == new
            which = "old" if found == old else "new" if found == new else "mix"
            seen[which] += 1
            stored = {segment.name for segment in again.group.messages.segment_files()}
            assert received_names(vfs, 7).isdisjoint(stored), "what is installed is not received any more"
            assert [copy.content for copy in read_heads(vfs, 7)[0]] or which == "old"
            if survival == 1 and (IS_DEEP or boundary % 5 == 0):
                await goes_on(leader, again, found, new, keeps_local)
            again.abandon()
    record_property("cases", sum(seen.values()))
    assert seen["old"] > 20
    assert seen["new"] > 3
    leader.abandon()


async def first_opening(vfs: SimVfs, dice: Random) -> Replica:
    """The group after a restart; sometimes the first one is cut, too."""
    if dice.random() < 0.3:
        vfs.crash_at(vfs.boundaries + dice.randrange(1, 30))
        replica = Replica(vfs, BOUNDS)
        try:
            await replica.open()
        except SimCrash:
            pass
        if hasattr(replica, "group"):
            replica.abandon()
        vfs.crash(dice)
    return await reopened(vfs)


async def goes_on(leader: Replica, member: Replica, found: Any, new: Any, keeps_local: bool) -> None:
    """The catch-up is completed after the restart, and leaves nothing behind."""
    if found != new:
        await leader.feed([b"", b"", b""])  # the member's own no-ops must not make it look as if it were ahead
        await member.catch_up(Pipe(leader.source), keeps_local=keeps_local)
        assert face(member) == new
        assert not member.vfs.exists(manifest_path(7))
        named = {segment.name for segment in member.group.messages.segment_files()}
        assert set(member.vfs.list_dir("groups/7/segments")) == named
