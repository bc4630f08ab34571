"""Operators ask who leads to change, and copies to move: what comes of it, and what is refused as nats-server does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from placing_world import Story, node_of, play

from jepsen.sim.client import ApiFailure, Client
from jepsen.sim.machine import Machine
from jetstore.errors import ApiError
from jetstore.model.stream import Placement
from jetstore.node.cluster_api import ClusterApi


def name_of(s: Story, stream: str) -> str:
    """The machine that leads it, or ""."""
    group = s.leader(stream)
    return s.machine_with(group).name if group is not None else ""


async def refused(s: Story, stream: str, call: str, body: dict[str, Any]) -> tuple[int, str]:
    """What the leader of the stream ("" = of the metadata) answers to what it must refuse."""

    async def ask(client: Client) -> tuple[int, str]:
        with pytest.raises(ApiFailure) as caught:
            await client.api(call, body)
        if caught.value.err_code == 10008:
            raise caught.value
        return caught.value.err_code, str(caught.value).split(" ", 1)[1]

    found: tuple[int, str] = await s.ask(stream, ask)
    return found


async def operate(s: Story, machine: Machine, ask: Callable[[ClusterApi], Awaitable[None]]) -> None:
    """Ask a node what is only asked in the system account."""
    assert machine.boot is not None
    api = machine.boot.server.streams.cluster
    task: asyncio.Task[None] = s.world.loop.call_owned(
        machine.boot.owner,
        lambda: asyncio.ensure_future(ask(api)),  # type: ignore[arg-type]
    )
    await task


def meta_machine(s: Story) -> Machine:
    """Where the metadata is led."""
    leader = s.meta_leader()
    return next(machine for machine in s.world.machines if node_of(machine) is leader)


async def lose(s: Story, machine: Machine) -> None:
    """Kill what runs there for good, and wait until everybody has noticed."""
    node_id, _ = s.home(s.world.machines.index(machine) + 1)
    machine.kill(1e6)

    def is_noticed() -> bool:
        return not any(node.cluster is not None and node.cluster.host.is_up(node_id) for node in s.nodes())

    await s.until(is_noticed, f"{machine.name} is missed")


def test_a_stream_is_led_by_whom_it_was_asked_for() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}
        await s.ask("S", lambda client: client.api("CONSUMER.CREATE.S.c", body))
        for what in ("STREAM.LEADER.STEPDOWN.S", "CONSUMER.LEADER.STEPDOWN.S.c"):
            for wanted in [name for name in s.holders("S") if name != name_of(s, "S")]:
                asked = {"placement": {"preferred": wanted}}
                answer = await s.ask("S", lambda client, what=what, asked=asked: client.api(what, asked))
                assert answer["success"] is True
                await s.until(lambda wanted=wanted: name_of(s, "S") == wanted, f"{wanted} leads")
                await s.publish("S", b"b")
        before = name_of(s, "S")
        await s.ask("S", lambda client: client.api("STREAM.LEADER.STEPDOWN.S"))
        await s.until(lambda: name_of(s, "S") not in ("", before), "somebody else leads")
        assert list((await s.converged("S")).values()) == [b"a", *[b"b"] * 4]

    play(story, nodes=4)


def test_who_cannot_step_down_says_why() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.create("R1", 1)
        await s.publish("S", b"a")
        leader = name_of(s, "S")
        (stranger,) = {machine.name for machine in s.world.machines} - set(s.holders("S"))
        what = "STREAM.LEADER.STEPDOWN.S"
        for preferred, why in ((stranger, "not known"), ("zz", "not known"), (leader, "is already leader")):
            found = await refused(s, "S", what, {"placement": {"preferred": preferred}})
            assert found == (10005, f'preferred server "{preferred}" {why}')
        for placement in ({"tags": ["x"]}, {"cluster": "other"}):
            found = await refused(s, "S", what, {"placement": placement})
            assert found == (10005, "no replacement peer connected")
        assert (await refused(s, "S", what, {"foo": 1}))[0] == 10025
        assert (await refused(s, "S", "CONSUMER.LEADER.STEPDOWN.S.no", {}))[0] == 10014
        assert (await refused(s, "", "STREAM.LEADER.STEPDOWN.NO", {}))[0] == 10059
        assert name_of(s, "S") == leader
        alone = name_of(s, "R1")
        answer = await s.ask(
            "R1", lambda client: client.api("STREAM.LEADER.STEPDOWN.R1", {"placement": {"preferred": "zz"}})
        )
        assert answer["success"] is True
        assert name_of(s, "R1") == alone

    play(story, nodes=4)


def test_the_metadata_is_led_by_whom_it_was_asked_for() -> None:
    async def story(s: Story) -> None:
        await s.until(s.meta_leader, "led")
        await s.create("S", 3)
        first = meta_machine(s)
        wanted = next(machine for machine in s.world.machines if machine is not first)
        await operate(s, first, lambda api: api.step_down_meta(Placement(preferred=wanted.name)))
        await s.until(lambda: s.meta_leader() is node_of(wanted), "it leads")
        with pytest.raises(ApiError, match="already leader"):
            await operate(s, wanted, lambda api: api.step_down_meta(Placement(preferred=wanted.name)))
        with pytest.raises(ApiError, match="temporarily unavailable"):
            await operate(s, first, lambda api: api.step_down_meta(None))
        await s.create("T", 3)

    play(story, nodes=3)


def test_nobody_is_asked_to_lead_who_is_not_there() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        leader = name_of(s, "S")
        away = next(machine for machine in s.world.machines if machine.name != leader)
        (third,) = {machine.name for machine in s.world.machines} - {leader, away.name}
        await lose(s, away)
        await s.publish("S", b"b")
        found = await refused(s, "S", "STREAM.LEADER.STEPDOWN.S", {"placement": {"preferred": away.name}})
        assert found == (10005, "no replacement peer connected")
        await s.ask("S", lambda client: client.api("STREAM.LEADER.STEPDOWN.S"))
        await s.until(lambda: name_of(s, "S") == third, "who is left leads")

    play(story, nodes=3)


@pytest.mark.parametrize("is_away", [False, True])
def test_a_peer_is_replaced(is_away: bool) -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a", b"b")
        leader = name_of(s, "S")
        gone = next(
            m for m in s.world.machines if m.name in s.holders("S") and m.name not in (leader, meta_machine(s).name)
        )
        (spare,) = {machine.name for machine in s.world.machines} - set(s.holders("S"))
        if is_away:
            await lose(s, gone)
            await s.publish("S", b"c")
        await s.ask("", lambda client: client.api("STREAM.PEER.REMOVE.S", {"peer": gone.name}))
        await s.settled("S")
        stay = sorted({leader, spare, *s.holders("S")} - {gone.name})
        assert spare in stay
        if is_away:
            gone.power_on()
        await s.only_on("S", *stay)
        await s.publish("S", b"d")
        assert list((await s.converged("S")).values()) == [b"a", b"b", *([b"c"] if is_away else []), b"d"]
        assert (await refused(s, "", "STREAM.PEER.REMOVE.S", {"peer": gone.name}))[0] == 10040

    play(story, nodes=4)


def test_a_lone_copy_moves_and_is_never_given_up() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 1)
        await s.publish("S", b"a")
        (before,) = s.holders("S")
        await s.ask("", lambda client: client.api("STREAM.PEER.REMOVE.S", {"peer": before}))
        await s.settled("S")
        (after,) = s.holders("S")
        assert after != before
        assert list((await s.converged("S")).values()) == [b"a"]
        if meta_machine(s).name == after:
            other = next(machine.name for machine in s.world.machines if machine.name != after)
            await operate(s, meta_machine(s), lambda api: api.step_down_meta(Placement(preferred=other)))
            await s.until(lambda: s.meta_leader() is not None and meta_machine(s).name == other, "led elsewhere")
        await lose(s, next(machine for machine in s.world.machines if machine.name == after))
        await s.until(s.meta_leader, "led")
        assert await refused(s, "", "STREAM.PEER.REMOVE.S", {"peer": after}) == (10075, "peer remap failed")

    play(story, nodes=3)


def test_which_peers_are_not_removed() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        assert await refused(s, "", "STREAM.PEER.REMOVE.S", {"peer": "zz"}) == (10040, "peer not a member")
        assert await refused(s, "", "STREAM.PEER.REMOVE.S", {"peer": "n1"}) == (10075, "peer remap failed")
        assert await refused(s, "", "STREAM.PEER.REMOVE.S", {"peer": "fjFyEjc1"}) == (10075, "peer remap failed")
        assert await refused(s, "", "STREAM.PEER.REMOVE.S", {"peer": ""}) == (10003, "bad request")
        assert await refused(s, "", "STREAM.PEER.REMOVE.S", {}) == (10003, "bad request")
        assert (await refused(s, "", "STREAM.PEER.REMOVE.NO", {"peer": "n1"}))[0] == 10059

    play(story, nodes=3)
