"""Who leads is told to whoever listens, on any node: elections, hand-overs, the loss of a quorum."""

from __future__ import annotations

import json
from typing import Any

from placing_world import Story, node_of, play

from jepsen.sim.client import Client, Msg

TOLD = "$JS.EVENT.ADVISORY.*"


class Ears:
    """Hears of leaders on every node."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.clients: list[Client] = []

    async def listen(self, s: Story) -> None:
        for at in range(len(s.world.machines)):
            client = await s.world.connect(f"ear{at}", at)
            for kind in ("LEADER_ELECTED", "QUORUM_LOST"):
                client.subscribe(f"{TOLD}.{kind}.>", self._take)
            await client.ping()
            self.clients.append(client)

    def _take(self, message: Msg | None) -> None:
        if message is not None:
            self.heard.append((message.subject.removeprefix("$JS.EVENT.ADVISORY."), json.loads(message.data)))

    def of(self, subject: str) -> list[dict[str, Any]]:
        """Each event once: listeners on all nodes hear it."""
        return list({event["id"]: event for heard, event in self.heard if heard == subject}.values())


async def followed(s: Story) -> str:
    """The machine that leads S, once its consumer c is there."""
    body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}
    await s.ask("S", lambda client: client.api("CONSUMER.CREATE.S.c", body))
    return s.machine_with(await s.until(lambda: s.leader("S"), "led")).name


def test_a_leader_is_announced_for_the_stream_and_its_consumers() -> None:
    async def story(s: Story) -> None:
        ears = Ears()
        await ears.listen(s)
        await s.create("S", 3)
        await s.create("R1", 1)
        leads = await followed(s)
        for subject, what in (("STREAM.LEADER_ELECTED.S", "stream"), ("CONSUMER.LEADER_ELECTED.S.c", "consumer")):
            (event,) = await s.until(lambda subject=subject: ears.of(subject), subject)
            assert event["type"] == f"io.nats.jetstream.advisory.v1.{what}_leader_elected"
            assert (event["stream"], event["leader"]) == ("S", leads)
            assert event.get("consumer") == ("c" if what == "consumer" else None)
            assert [peer["name"] for peer in event["replicas"]] == ["n1", "n2", "n3"]
            assert {peer["current"] for peer in event["replicas"] if peer["name"] == leads} == {True}
        other = next(machine.name for machine in s.world.machines if machine.name != leads)
        asked = {"placement": {"preferred": other}}
        await s.ask("S", lambda client: client.api("STREAM.LEADER.STEPDOWN.S", asked))
        for subject in ("STREAM.LEADER_ELECTED.S", "CONSUMER.LEADER_ELECTED.S.c"):
            found = await s.until(lambda subject=subject: ears.of(subject)[1:], subject)
            assert [event["leader"] for event in found] == [other]
        assert not ears.of("STREAM.LEADER_ELECTED.R1"), "a lone copy is elected by nobody"
        assert not [subject for subject, _ in ears.heard if "QUORUM_LOST" in subject]

    play(story, nodes=3)


def test_a_leader_without_a_quorum_says_so() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        leads = await followed(s)
        ears = Ears()
        await ears.listen(s)
        leader = s.leader("S")
        for machine in s.world.machines:
            if machine.name != leads:
                machine.kill(1e6)
        await s.until(lambda: leader is not None and not leader.core.is_leader, "it has noticed")
        (event,) = await s.until(lambda: ears.of("STREAM.QUORUM_LOST.S"), "told")
        assert event["type"] == "io.nats.jetstream.advisory.v1.stream_quorum_lost"
        assert "leader" not in event
        assert [(peer["name"] == leads) or peer["offline"] for peer in event["replicas"]] == [True] * 3
        (event,) = await s.until(lambda: ears.of("CONSUMER.QUORUM_LOST.S.c"), "told")
        assert event["type"] == "io.nats.jetstream.advisory.v1.consumer_quorum_lost"
        node = node_of(next(machine for machine in s.world.machines if machine.name == leads))
        assert node is not None
        assert node.leaders is not None
        node.leaders.lost(leader)  # so soon after, it is not told again
        for machine in s.world.machines:
            machine.power_on()
        await s.publish("S", b"b")
        assert len(ears.of("STREAM.QUORUM_LOST.S")) == len(ears.of("CONSUMER.QUORUM_LOST.S.c")) == 1

    play(story, nodes=3)
