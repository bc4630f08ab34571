"""A node that lost its disk, or a group's vote, is a member again, under another number and with what others have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from deep import IS_DEEP
from placing_world import Story, node_of, play

from jepsen.sim.machine import Machine
from jepsen.sim.wipe import new_disk, old_disk
from jetstore.node import assignments
from jetstore.node.node import Node
from jetstore.store.identity import read_identity


async def taken_in(s: Story, machine: Machine, stream: str) -> Node:
    """Wait until the new node on that machine is a voter of the metadata and of the stream."""

    def is_so() -> Node | None:
        node = node_of(machine)
        if node is None or stream not in node.streams:
            return None
        cores = [node.meta.core, node.streams[stream].core]
        return node if all(core.member in core.configuration.voters and core.leader for core in cores) else None

    node: Node = await s.until(is_so, f"{machine.name} is taken in")
    await s.settled(stream)
    return node


@pytest.mark.parametrize("led", [False, True])
def test_a_node_with_an_empty_disk_is_taken_in(led: bool) -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", *[b"%d" % n for n in range(30)])
        leader = await s.until(lambda: s.leader("S"), "led")
        leads = s.machine_with(leader)
        victim = leads if led else next(m for m in s.world.machines if m is not leads)
        new_disk(victim, 0.3)
        await s.publish("S", b"while it is away")
        node = await taken_in(s, victim, "S")
        assert (node.meta.core.member, node.streams["S"].core.member) == (4, 4)
        assert len(await s.converged("S")) == 31
        # It counts: with another node gone for good, the two go on.
        other = next(m for m in s.world.machines if m is not victim)
        other.kill(1e6)
        await s.publish("S", b"two are enough")
        assert (await s.converged("S"))[32] == b"two are enough"

    play(story, nodes=3, seed=int(led))


@pytest.mark.parametrize("seed", range(40 if IS_DEEP else 1))
def test_every_disk_is_replaced_one_after_the_other_under_power_cuts(seed: int) -> None:
    async def story(s: Story) -> None:
        rng = s.world.rng
        await s.create("S", 3)
        count = len(await s.publish("S", *[b"x"] * 10))
        for machine in s.world.machines:
            new_disk(machine, rng.choice((0.05, 1.0)))
            for _ in range(2):
                others = [other for other in s.world.machines if other is not machine]
                rng.choice(others).power_cut(rng.choice((0.05, 1.0)))
                count += len(await s.publish("S", b"y"))
            await taken_in(s, machine, "S")
            await s.until(lambda: all(node_of(m) for m in s.world.machines), "all run")
        assert len(await s.converged("S")) >= count
        assert (await s.converged("S"))[1] == b"x"

    play(story, nodes=3, seed=seed)


def test_an_old_disk_that_comes_back_is_not_counted() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        victim = s.world.machines[2]
        disk = new_disk(victim, 0.3)
        await taken_in(s, victim, "S")
        await s.publish("S", b"b")
        old_disk(victim, disk, 0.3)
        await s.publish("S", b"c")
        # It is one of three machines, and no member: without one of the other two nothing can be acknowledged.
        node = await s.until(lambda: node_of(victim), "it runs")
        term = node.meta.core.term
        s.world.machines[0].kill(20.0)
        began_s = s.world.loop.now()
        await s.publish("S", b"d")
        assert s.world.loop.now() - began_s > 15
        assert node.meta.core.term <= term + 1
        assert not node.meta.core.is_leader
        assert not node.streams
        assert node.health_problem()

    play(story, nodes=3, seed=7)


def test_a_right_disk_that_was_refused_because_its_clone_had_run_gives_way_to_an_empty_one() -> None:
    """What docs/operations/cluster.md tells the operator to do; neither the disk nor its clone counts afterwards."""

    async def story(s: Story) -> None:
        victim = s.world.machines[2]
        await s.create("S", 3)
        count = len(await s.publish("S", *[b"%d" % n for n in range(10)]))
        victim.kill(0.3)
        right = victim.vfs.clone()
        await s.until(lambda: (node := node_of(victim)) is not None and "S" in node.streams, "the clone runs")
        count += len(await s.publish("S", b"while the clone runs"))
        await s.converged("S")
        await asyncio.sleep(2)
        victim.kill(0.3)
        clone = victim.vfs.clone()
        victim.vfs._root, victim.vfs._used_bytes = right._root, right._used_bytes

        def is_refused() -> bool:
            identity, _ = read_identity(victim.vfs)
            return identity is not None and bool(identity.disowned)

        await s.until(is_refused, "the right disk is refused")
        victim.kill(0.3)
        await asyncio.sleep(3)
        assert node_of(victim) is None, "it does not start again"
        assert victim.exits
        assert all("start with an empty store directory" in str(error) for _, error in victim.exits)
        victim.exits.clear()
        count += len(await s.publish("S", b"without it"))
        new_disk(victim, 0.3)
        victim.restart(0.1)
        node = await taken_in(s, victim, "S")
        assert (node.meta.core.member, node.streams["S"].core.member) == (4, 4)
        assert len(await s.converged("S")) == count
        s.world.machines[0].kill(1e6)
        count += len(await s.publish("S", b"two are enough"))
        assert len(await s.converged("S")) == count
        await s.until(lambda: node.health_problem() == "", "it is healthy")

        # The clone comes back: it is no member, so what the third one has promised is all that counts.
        old_disk(victim, clone, 0.3)
        await s.until(lambda: (again := node_of(victim)) is not None and again is not node, "the clone runs again")
        began = s.world.loop.now()
        stray = node_of(victim)
        assert stray is not None
        with pytest.raises(AssertionError):
            await s.publish("S", b"of nobody")
        assert s.world.loop.now() - began > 30
        assert not stray.streams

    play(story, nodes=3, seed=11)


def test_a_member_that_lost_its_vote_gets_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = assignments.recovery_problem
    is_lost = False

    def problem(recovered: Any, *, is_alone: bool) -> str:
        if is_lost and recovered is not None and recovered.uid != 1 and recovered.generation == 2:
            return "has lost its vote"
        return genuine(recovered, is_alone=is_alone)

    monkeypatch.setattr(assignments, "recovery_problem", problem)

    async def story(s: Story) -> None:
        nonlocal is_lost
        await s.create("S", 3)
        await s.publish("S", b"a", b"b")
        (victim,) = [m for m in s.world.machines if (n := node_of(m)) and n.streams["S"].core.member == 2]
        is_lost = True
        victim.kill(0.2)
        await s.publish("S", b"c")
        await s.until(lambda: node_of(victim), "it runs")
        node = await taken_in(s, victim, "S")
        assert (node.meta.core.member in (1, 2, 3), node.streams["S"].core.member) == (True, 4)
        assert list((await s.converged("S")).values()) == [b"a", b"b", b"c"]
        victim.kill(0.2)  # under the new number it starts like any other
        await s.publish("S", b"d")
        await taken_in(s, victim, "S")

    play(story, nodes=3, seed=8)
