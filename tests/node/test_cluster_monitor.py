"""/jsz, /varz and the counters of the system account on nodes of a cluster: where streams are, and the metadata."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from placing_world import Story, node_of, play

from server.monitor.healthz import healthz
from server.monitor.jsz import jsz
from server.monitor.query import Query
from server.monitor.system import META_GROUP, SystemPages
from server.monitor.varz import Usage, varz


def source_of(machine: Any) -> Any:
    return machine.boot.server.monitor_source()


def page(machine: Any, query: str) -> dict[str, Any]:
    """/jsz, which waits for nothing here."""
    answer = jsz(source_of(machine), Query(query))
    try:
        while True:
            answer.send(None)
    except StopIteration as end:
        shown: dict[str, Any] = json.loads(json.dumps(end.value))
        return shown


def test_each_holder_tells_who_leads_and_who_else_holds() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        leader = await s.until(lambda: s.leader("S"), "led")
        leads = s.machine_with(leader).name
        body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}
        await s.ask("S", lambda client: client.api("CONSUMER.CREATE.S.c", body))
        holders = set(s.holders("S"))
        for machine in s.world.machines:
            shown = page(machine, "consumers=1&raft=1")
            assert shown["meta_cluster"]["cluster_size"] == 4
            details = shown["account_details"][0].get("stream_detail", [])
            assert len(details) == (machine.name in holders)
            for detail in details:
                assert detail["cluster"]["leader"] == leads
                assert detail["stream_raft_group"] == "S"
                assert {peer["name"] for peer in detail["cluster"]["replicas"]} == holders - {machine.name}
                consumers = detail.get("consumer_detail", [])
                assert [each["cluster"]["leader"] for each in consumers] == [leads] * (machine.name == leads)

    play(story, nodes=4)


def test_only_the_leader_of_the_metadata_tells_of_all() -> None:
    async def story(s: Story) -> None:
        leader = await s.until(s.meta_leader, "led")
        await s.until(lambda: all(node.meta.core.leader for node in map(node_of, s.world.machines) if node), "known")
        for machine in s.world.machines:
            source = source_of(machine)
            shown = varz(source, Usage(0, 0.0), {})["jetstream"]["meta"]
            told = SystemPages(source, Random(1)).statsz()["jetstream"]["meta"]
            if node_of(machine) is leader:
                assert told == shown
                assert len(told["replicas"]) == 2
            else:
                assert told["name"] == META_GROUP
                assert told["leader"] == shown["leader"] != machine.name
                assert "replicas" not in told

    play(story, nodes=3)


def test_a_node_without_the_others_is_alive_yet_not_ready() -> None:
    def healthy(machine: Any) -> list[bool]:
        queries = ("js-enabled-only=1", "js-server-only=1", "account=$G&stream=S", "")
        return [healthz(source_of(machine), Query(query))[0] == 200 for query in queries]

    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        await s.until(lambda: all(healthy(machine) == [True] * 4 for machine in s.world.machines), "all is well")
        first, *others = s.world.machines
        first_node = node_of(first)
        assert first_node is not None
        group = first_node.streams["S"]
        group.damage["1.seg", 28] = "unreadable"
        assert healthy(first) == [True, True, False, False]
        group.damage.clear()
        for machine in others:
            machine.kill(1e6)
        await s.until(lambda: healthy(first) == [True, False, False, False], "nobody leads any more")
        first_node.poisoned_by = OSError("no")
        assert healthy(first) == [False] * 4
        first_node.poisoned_by = None

    play(story, nodes=3)
