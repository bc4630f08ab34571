"""A server is gone for good, and an operator says so: it counts no more, and others hold what it held."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from deep import IS_DEEP
from placing_world import Story, node_of, play

from jepsen.sim.machine import Machine
from jepsen.sim.wipe import new_disk
from jetstore.errors import ApiError, NotNow, OutcomeUnknown
from jetstore.meta.state import MetaState, encode_admit, encode_admitted, encode_dismiss
from jetstore.model.stream import Placement
from jetstore.node.cluster_api import ClusterApi
from jetstore.node.cluster_info import meta_cluster
from jetstore.types import RaftIndex, Term

SEEDS = range(1, 12 if IS_DEEP else 2)
FOUNDING = [("a", "A", 1), ("b", "B", 1), ("c", "C", 1)]


def test_the_metadata_lets_a_node_go_and_remembers_its_name() -> None:
    state = MetaState()
    indexes = iter(range(1, 100))

    def take(entry: bytes) -> object:
        return state.apply(RaftIndex(next(indexes)), Term(1), entry)

    entry = encode_dismiss(state, FOUNDING, ("C", 1))
    assert take(entry) is None
    assert state.nodes is not None
    assert [member.home for member in state.nodes.wanted] == [("A", 1), ("B", 1)]
    assert [member.home for member in state.nodes.leaving] == [("C", 1)]
    assert state.successor(("C", 1)) is None
    assert isinstance(take(entry), ApiError)  # the nodes are others by now
    assert isinstance(take(encode_dismiss(state, FOUNDING, ("C", 1))), ApiError)  # it is no member
    assert take(encode_admitted(state.nodes.version)) is None
    state = MetaState.restore(state.checkpoint().head)
    assert take(encode_admit(state, FOUNDING, "c", ("D", 1))) is None
    assert state.nodes is not None
    assert [tuple(member)[:2] for member in state.nodes.wanted] == [(1, "A"), (2, "B"), (4, "D")]
    assert state.successor(("C", 1)) == ("D", 1)


def machine_of_meta(s: Story) -> Machine:
    """Where the metadata is led."""
    leader = s.meta_leader()
    return next(machine for machine in s.world.machines if leader is not None and node_of(machine) is leader)


async def operate(s: Story, ask: Callable[[ClusterApi], Awaitable[None]]) -> None:
    """Ask who leads the metadata what is only asked in the system account."""
    await s.until(s.meta_leader, "led")
    boot = machine_of_meta(s).boot
    assert boot is not None

    async def asked() -> None:
        await ask(boot.server.streams.cluster)

    await s.world.loop.call_owned(boot.owner, lambda: boot.loop.create_task(asked()))


async def lose(s: Story, machine: Machine) -> None:
    """Kill what runs there, and wait until everybody has noticed."""
    node_id, _ = s.home(s.world.machines.index(machine) + 1)
    machine.kill(1e6)

    def is_noticed() -> bool:
        return not any(node.cluster is not None and node.cluster.host.is_up(node_id) for node in s.nodes())

    await s.until(is_noticed, f"{machine.name} is missed")


async def removed(s: Story, machine: Machine, size: int) -> None:
    """Remove it and wait until so many servers are left everywhere."""
    await operate(s, lambda api: api.remove_server(machine.name))

    def is_gone() -> bool:
        shown = [meta_cluster(node) for node in s.nodes()]
        return all(each is not None and each["cluster_size"] == size for each in shown)

    await s.until(is_gone, f"{size} are left")


def voters(s: Story) -> int:
    """How many members of the stream vote, where it is led."""
    leader = s.leader("S")
    return len(leader.core.configuration.all_voters) if leader is not None else 0


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_removed_server_held_is_held_by_another(seed: int) -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a", b"b")
        gone = next(m for m in s.world.machines if m.name in s.holders("S") and m is not machine_of_meta(s))
        await lose(s, gone)
        await removed(s, gone, 3)
        await s.until(lambda: len(s.holders("S")) == 3, "another one has it")
        assert (await s.settled("S")).placement.version == 2, "replaced at once: never fewer copies than need be"
        await s.publish("S", b"c")
        # Three are left, all of them hold it, and two are enough.
        await lose(s, next(m for m in s.world.machines if node_of(m) is not None and m is not machine_of_meta(s)))
        await s.publish("S", b"d")
        # The old disk comes back: it is nobody, and disturbs nobody.
        gone.power_on()
        await s.until(lambda: node_of(gone), "it runs")
        await s.publish("S", b"e")
        meta = await s.until(s.meta_leader, "led")
        assert s.home(s.world.machines.index(gone) + 1) not in meta.homes()
        contents = machine_of_meta(s).contents("S")
        assert contents is not None
        assert [seen.data for seen in contents.values()] == [b"a", b"b", b"c", b"d", b"e"]

    play(story, nodes=4, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_of_five_are_lost_for_good_and_then_a_third(seed: int) -> None:
    async def story(s: Story) -> None:
        await s.create("S", 5)
        await s.publish("S", b"a")
        for size in (4, 3):
            gone = next(m for m in s.world.machines if node_of(m) is not None and m is not machine_of_meta(s))
            await lose(s, gone)
            await removed(s, gone, size)
            await s.until(lambda size=size: voters(s) == size, f"{size} copies are left")
            await s.publish("S", b"b")
        await s.settled("S")
        await lose(s, next(m for m in s.world.machines if node_of(m) is not None and m is not machine_of_meta(s)))
        await s.publish("S", b"two of three are enough")

    play(story, nodes=5, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_removed_server_comes_back_with_an_empty_disk(seed: int) -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        gone = next(m for m in s.world.machines if m is not machine_of_meta(s))
        await lose(s, gone)
        await removed(s, gone, 2)
        await s.until(lambda: voters(s) == 2, "two copies are left")
        await s.publish("S", b"b")
        new_disk(gone, 0.1)
        gone.power_on()
        await s.until(lambda: s.holders("S") == ["n1", "n2", "n3"], "it has a copy again")
        await s.settled("S")
        assert list((await s.converged("S")).values()) == [b"a", b"b"]
        await lose(s, next(m for m in s.world.machines if m not in (gone, machine_of_meta(s))))
        await s.publish("S", b"c")

    play(story, nodes=3, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_power_cuts_while_a_server_is_removed(seed: int) -> None:
    """Of whom it is asked, and of others: it is asked again, and done once."""

    async def story(s: Story) -> None:
        rng = s.world.rng
        await s.create("S", 3)
        count = len(await s.publish("S", *[b"x"] * 10))
        gone = next(m for m in s.world.machines if m.name in s.holders("S") and m is not machine_of_meta(s))
        await lose(s, gone)
        left = [machine for machine in s.world.machines if machine is not gone]
        for turn in range(4):
            asking = asyncio.ensure_future(operate(s, lambda api: api.remove_server(gone.name)))
            await asyncio.sleep(rng.choice((0.0, 0.002, 0.01, 0.1)))
            rng.choice(left).power_cut(rng.choice((0.05, 1.0)))
            count += len(await s.publish("S", b"%d" % turn))
            done, _ = await asyncio.wait({asking}, timeout=10.0)
            if done and not asking.cancelled():
                assert isinstance(asking.exception(), ApiError | NotNow | OutcomeUnknown | type(None))
        await s.until(lambda: len(s.nodes()) == 3, "all run")
        with contextlib.suppress(ApiError):  # it may have been done
            await operate(s, lambda api: api.remove_server(gone.name))

        def is_gone() -> bool:
            shown = [meta_cluster(node) for node in s.nodes()]
            return all(each is not None and each["cluster_size"] == 3 for each in shown)

        await s.until(is_gone, "three are left")
        await s.until(lambda: len(s.holders("S")) == 3, "another one has it")
        await s.settled("S")
        assert len(await s.converged("S")) >= count

    play(story, nodes=4, seed=seed)


def test_who_is_not_removed() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        own = machine_of_meta(s)
        other = next(m for m in s.world.machines if m is not own)

        async def refusal(peer: str, peer_id: str = "") -> int:
            with pytest.raises(ApiError) as caught:
                await operate(s, lambda api: api.remove_server(peer, peer_id))
            return caught.value.err_code

        assert await refusal("zz") == 10044
        assert await refusal("") == 10044
        assert await refusal(own.name, "zzzzzzzz") == 10044
        for machine in (own, other):
            assert await refusal(machine.name) == 10041
        meta = s.meta_leader()
        assert meta is not None
        assert meta.meta.machine.nodes is None
        await lose(s, other)
        await removed(s, other, 2)
        assert await refusal(other.name) == 10044

    play(story, nodes=3)


def test_another_node_that_leads_is_asked_by_name() -> None:
    async def story(s: Story) -> None:
        first = machine_of_meta(s) if await s.until(s.meta_leader, "led") else None
        assert first is not None
        await operate(s, lambda api: api.step_down_meta(Placement()))
        await s.until(lambda: s.meta_leader() is not None and machine_of_meta(s) is not first, "another one leads")
        await lose(s, first)
        await removed(s, first, 2)

    play(story, nodes=3)
