"""What an entry of the metadata costs depends on the streams that it changes, not on how many there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from damaged_store import LIMITS, current_server, play_over
from placing_world import Story, node_of, play

from jepsen.sim.client import Client
from jepsen.sim.world import World
from jetstore.limits import MIB
from jetstore.meta.placement import Placement
from jetstore.meta.state import (
    MetaState,
    StreamAssignment,
    encode_create,
    encode_delete,
    encode_restored,
    encode_update,
)
from jetstore.node.admitting import Admitting
from jetstore.node.assignments import Assignments
from jetstore.types import GroupUid, Nanos, RaftIndex, Term

COUNT = 12
MANY = replace(LIMITS, journal_bytes_max=64 * MIB)


def counted(patch: pytest.MonkeyPatch, cls: type, names: list[str]) -> Counter[str]:
    """How often these methods are called."""
    calls: Counter[str] = Counter()

    def counting(name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return genuine(*args)

        return call

    for name in names:
        patch.setattr(cls, name, counting(name, getattr(cls, name)))
    return calls


def config(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "subjects": [name], **more}


def test_groups_of_streams_that_did_not_change_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World, client: Client) -> None:
        for number in range(COUNT):
            await client.api(f"STREAM.CREATE.S{number}", config(f"S{number}"))
        calls = counted(monkeypatch, Assignments, ["_member", "bring_config_up"])
        await client.api("STREAM.CREATE.MORE", config("MORE"))
        await client.api("STREAM.UPDATE.S3", config("S3", max_msgs=5))
        await client.api("STREAM.DELETE.S4")
        assert calls["_member"] < COUNT
        assert calls["bring_config_up"] < COUNT
        node = current_server(world).node
        assert sorted(node.streams) == sorted(node.meta.machine.streams)
        assert (await client.api("STREAM.INFO.S3"))["config"]["max_msgs"] == 5

    play_over(None, story, limits=MANY)


def test_members_of_streams_that_are_as_they_should_be_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(s: Story) -> None:
        for number in range(5):
            await s.create(f"S{number}", 3)
            await s.settled(f"S{number}")
        await s.until(s.meta_leader, "led")
        await asyncio.sleep(2)
        calls = counted(monkeypatch, Admitting, ["_wants_others"])
        await asyncio.sleep(10)
        assert not calls
        await s.create("LAST", 2)
        await s.settled("LAST")
        await asyncio.sleep(2)
        assert 0 < calls["_wants_others"] <= 5

    play(story, nodes=3)


def test_a_state_says_what_changed_and_what_is_being_restored() -> None:
    state = MetaState()
    index = 0

    def apply(data: bytes) -> None:
        nonlocal index
        index += 1
        state.apply(RaftIndex(index), Term(1), data)

    def create(name: str, uid: int, *, is_restoring: bool = False) -> bytes:
        return encode_create(name, {"name": name}, Nanos(1), GroupUid(uid), (), is_restoring=is_restoring)

    apply(create("A", 2))
    apply(create("B", 3, is_restoring=True))
    assert list(state.changed) == ["A", "B"]
    assert list(state.restoring) == ["B"]
    state.changed.clear()
    apply(create("A", 4))  # refused: it is there
    apply(encode_delete("C"))
    assert not state.changed
    apply(encode_update("A", {"name": "A", "max_msgs": 1}))
    apply(encode_restored(state.streams["B"]))
    assert (list(state.changed), list(state.restoring)) == (["A", "B"], [])
    apply(encode_delete("A"))
    assert state.by_uid == {3: "B"}
    again = MetaState.restore(state.checkpoint().head)
    assert (again.by_uid, list(again.changed), again.streams) == (state.by_uid, ["B"], state.streams)
    assert isinstance(again.streams["B"].placement, Placement)


def test_metadata_older_than_what_was_applied_before_a_restart_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that has heard nothing of a node's progress tells it bit by bit, in the old term, what is committed."""
    opened: list[str] = []
    genuine = Assignments._open

    def noting(assignments: Assignments, assignment: StreamAssignment) -> None:
        opened.append(assignment.name)
        genuine(assignments, assignment)

    async def story(s: Story) -> None:
        await s.create("GONE", 3)
        await s.create("STAYS", 3)
        await s.settled("STAYS")
        leader = await s.until(s.meta_leader, "led")
        victim = next(machine for machine in s.world.machines if node_of(machine) is not leader)
        at = next(machine for machine in s.world.machines if node_of(machine) is leader)
        term = leader.meta.core.term
        s.world.links.cut(victim.name, at.name)  # what it acknowledges is not heard
        await s.create("LATER", 3)
        await s.ask("", lambda client: client.api("STREAM.DELETE.GONE"))
        node = node_of(victim)
        assert node is not None
        await s.until(lambda: "GONE" not in node.streams, "it has heard of the deletion")
        leader.meta.core.options = replace(leader.meta.core.options, append_bytes_max=1)
        with monkeypatch.context() as patch:
            patch.setattr(Assignments, "_open", noting)
            victim.kill(0.01)
            s.world.links.heal()
            await s.until(lambda: (n := node_of(victim)) not in (None, node) and "LATER" in n.streams, "it follows")
        assert leader.meta.core.term == term, "else its first entry would tell the node what is committed"
        assert opened == ["STAYS", "LATER"]

    play(story, nodes=3, seed=2)  # with 1, an election comes in between


def test_a_node_whose_checkpoint_holds_all_metadata_opens_its_streams_when_it_hears_the_leader() -> None:
    """After a clean stop nothing is above the checkpoint: in the same term no entry comes that would be applied."""

    async def story(s: Story) -> None:
        await s.create("S", 3)
        leader = await s.until(s.meta_leader, "led")
        victim = next(machine for machine in s.world.machines if node_of(machine) is not leader)
        term, last = leader.meta.core.term, leader.meta.core.log.last_index
        victim.restart(0.1)
        await s.until(lambda: victim.boot is None, "it has stopped")
        await s.until(lambda: (n := node_of(victim)) is not None and "S" in n.streams, "it takes part")
        assert (leader.meta.core.term, leader.meta.core.log.last_index) == (term, last), "else an entry told it"

    play(story, nodes=3)
