"""Catch-up of the metadata: one head, all of it or none of it, and the groups it names are founded with it."""

from __future__ import annotations

from random import Random

import pytest
from catch_up_world import MetaReplica, Pipe

from jepsen.sim.faults import SimCrash
from jetstore.errors import Corruption
from jetstore.meta.state import encode_create, encode_delete, encode_update
from jetstore.node.catch_up.messages import PeerRefused
from jetstore.store.journal.recovery import open_journal
from jetstore.types import GroupUid, Nanos

pytestmark = pytest.mark.asyncio

SCRIPT = [
    *[encode_create(f"S{n}", {"name": f"S{n}", "x": n}, Nanos(n), GroupUid(n)) for n in range(2, 12)],
    encode_delete("S4"),
    encode_update("S7", {"name": "S7", "x": 0}),
]


def face(replica: MetaReplica) -> object:
    machine = replica.group.machine
    return machine.streams, machine.next_uid


async def test_a_blank_member_gets_the_metadata_and_its_groups_are_founded() -> None:
    leader, follower = await MetaReplica().open(), await MetaReplica().open()
    await leader.feed(SCRIPT)
    assert await follower.catch_up(Pipe(leader.source)) == leader.group.machine.applied_index
    assert face(leader) == face(follower)
    assert leader.group.machine.checkpoint().head == follower.group.machine.checkpoint().head
    assert leader.group.machine.running.value == follower.group.machine.running.value
    with pytest.raises(PeerRefused):
        await follower.catch_up(Pipe(leader.source))
    follower.abandon()
    follower.vfs.crash()
    _, recovery = open_journal(follower.vfs, follower.limits, b"catch-up-replica")
    assert sorted(recovery.groups) == [1, *(uid for uid in range(2, 12) if uid != 4)]
    leader.abandon()
    assert not leader.failures
    assert not follower.failures


async def test_a_power_cut_at_every_boundary() -> None:
    leader, follower = await MetaReplica().open(), await MetaReplica().open()
    await leader.feed(SCRIPT)
    await follower.feed(SCRIPT[:4])
    await follower.checkpoint()
    old, new = face(follower), face(leader)
    follower.abandon()
    follower.vfs.kill()
    seen = set()
    boundary = 0
    is_complete = False
    while not is_complete:
        boundary += 1
        member = await MetaReplica(follower.vfs.clone()).open()
        member.vfs.crash_at(member.vfs.boundaries + boundary)
        try:
            await member.catch_up(Pipe(leader.source))
            is_complete = True
        except SimCrash:
            pass
        member.abandon()
        for survival in range(3):
            vfs = member.vfs.clone()
            vfs.crash(Random(survival) if survival else None)
            again = await MetaReplica(vfs).open()
            found = face(again)
            assert found == new or (found == old and not is_complete)
            seen.add(found == new)
            if found == old:
                await leader.feed([b"", b"", b""])
                await again.catch_up(Pipe(leader.source))
                assert face(again) == new
            again.abandon()
    assert seen == {True, False}
    leader.abandon()


@pytest.mark.parametrize("seed", range(12))
async def test_wrong_bytes_are_noticed(seed: int) -> None:
    dice = Random(seed)
    leader, follower = await MetaReplica().open(), await MetaReplica().open()
    await leader.feed(SCRIPT)
    pipe = Pipe(leader.source)
    calls = 0

    def change(method: str, data: bytes) -> bytes:
        nonlocal calls
        calls += 1
        at = dice.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if calls == 1 + seed % 3 else data

    pipe.change = change
    with pytest.raises((Corruption, PeerRefused)):
        await follower.catch_up(pipe)
    assert not follower.group.machine.streams
    await follower.catch_up(Pipe(leader.source))
    assert face(leader) == face(follower)
    leader.abandon()
    follower.abandon()
