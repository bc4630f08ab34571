"""Members of a stream's group change under load, through crashes and changes of leader: nothing is lost or stays."""

from __future__ import annotations

import asyncio

import pytest
from deep import IS_DEEP
from placing_world import Story, node_of, play


def test_a_member_is_replaced_and_its_copy_goes() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        first = await s.publish("S", *[b"%d" % n for n in range(20)])
        leader = await s.until(lambda: s.leader("S"), "led")
        old = [m.name for m in s.world.machines if m.name in s.holders("S")]
        (new,) = {m.name for m in s.world.machines} - set(old)
        leads = s.machine_with(leader).name
        leaves = next(name for name in old if name != leads)
        stays = [name for name in old if name != leaves]
        await s.reassign("S", *[int(name[1:]) for name in [*stays, new]])
        more = await s.publish("S", *[b"more %d" % n for n in range(20)])
        assignment = await s.settled("S")
        assert [member.number for member in assignment.placement.wanted][-1] == 4
        await s.only_on("S", *sorted([*stays, new]))
        assert len(await s.converged("S")) == len({*first, *more}) == 40

    play(story, nodes=4)


def test_the_leader_is_removed() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a", b"b")
        leader = await s.until(lambda: s.leader("S"), "led")
        leads = s.machine_with(leader).name
        others = [int(name[1:]) for name in ("n1", "n2", "n3", "n4") if name != leads]
        await s.reassign("S", *others)
        await s.settled("S")
        await s.only_on("S", *[f"n{number}" for number in others])
        await s.publish("S", b"c")
        assert list((await s.converged("S")).values()) == [b"a", b"b", b"c"]

    play(story, nodes=4, seed=2)


def test_one_three_five_three_one() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 1)
        count = 0
        for machines in [(1, 2, 3), (1, 2, 3, 4, 5), (3, 4, 5), (5,), (2,), (2, 5)]:
            await s.publish("S", *[b"%d" % (count + n) for n in range(5)])
            count += 5
            await s.reassign("S", *machines)
            await s.settled("S")
            await s.only_on("S", *[f"n{number}" for number in machines])
        assert len(await s.converged("S")) == count

    play(story, nodes=5, seed=3)


@pytest.mark.parametrize("seed", range(100 if IS_DEEP else 2))
def test_power_cuts_while_members_change(seed: int) -> None:
    """At any moment, on any machine: the change goes on, and what was acknowledged is there."""

    async def story(s: Story) -> None:
        rng = s.world.rng
        await s.create("S", 3)
        count = len(await s.publish("S", *[b"x"] * 10))
        for turn, machines in enumerate([(2, 3, 4), (1, 2, 4), (1, 3, 4), (1, 2, 3)]):
            await s.reassign("S", *machines)
            for _ in range(2):
                await asyncio.sleep(rng.choice((0.0, 0.05, 0.2, 0.5)))
                rng.choice(s.world.machines).power_cut(rng.choice((0.05, 1.0)))
                count += len(await s.publish("S", b"%d" % turn))
            await s.until(lambda: all(node_of(m) for m in s.world.machines), "all run")
            await s.settled("S")
            await s.only_on("S", *[f"n{number}" for number in machines])
        assert len(await s.converged("S")) >= count

    play(story, nodes=4, seed=seed)


def test_a_node_that_is_down_during_the_change_deletes_its_copy_when_it_returns() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        leader = await s.until(lambda: s.leader("S"), "led")
        leads = s.machine_with(leader).name
        away = next(m for m in s.world.machines if m.name in s.holders("S") and m.name != leads)
        rest = [number for number in (1, 2, 3, 4) if f"n{number}" != away.name]
        homes = rest
        away.kill(1e6)
        await s.publish("S", b"b")
        await s.reassign("S", *homes)
        await s.settled("S")
        away.power_on()
        await s.until(lambda: node_of(away), "it runs again")
        await s.only_on("S", *[f"n{number}" for number in rest])
        await s.reassign("S", int(away.name[1:]), *rest[:2])  # and back, under another number
        assignment = await s.settled("S")
        assert max(member.number for member in assignment.placement.wanted) == 5
        assert list((await s.converged("S")).values()) == [b"a", b"b"]

    play(story, nodes=4, seed=5)
