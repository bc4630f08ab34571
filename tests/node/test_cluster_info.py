"""What infos and monitoring say about where a stream is, on nodes that come and go."""

from __future__ import annotations

from typing import Any

from placing_world import Story, node_of, play

from jetstore.model.infos import ClusterInfo, PeerInfo, cluster_info_json
from jetstore.node.cluster_info import meta_cluster, peer_id, stream_cluster

PEER_IDS = {"n1": "fjFyEjc1", "n2": "44jzkV9D", "n3": "BXScrY9i", "n4": "C7B8kAbl"}
"""As nats-server 2.15 shows them for servers of these names."""


def test_peer_ids_are_those_of_nats_server() -> None:
    assert {name: peer_id(name) for name in PEER_IDS} == PEER_IDS


def test_what_is_nothing_is_left_out() -> None:
    away = PeerInfo("n2", "44jzkV9D", is_offline=True, active_ns=7, lag=3, is_pending=True)
    assert list(cluster_info_json(ClusterInfo("C", "n1", (away,)))["replicas"][0].items()) == [
        ("name", "n2"),
        ("current", False),
        ("offline", True),
        ("active", 7),
        ("lag", 3),
        ("peer", "44jzkV9D"),
        ("pending", True),
    ]
    assert cluster_info_json(ClusterInfo("C")) == {"name": "C"}


async def info(s: Story, what: str = "STREAM.INFO.S") -> dict[str, Any]:
    answer: dict[str, Any] = await s.ask("S", lambda client: client.api(what))
    cluster: dict[str, Any] = answer["cluster"]
    return cluster


def test_infos_name_the_leader_and_the_others() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 3)
        await s.publish("S", b"a")
        leader = await s.until(lambda: s.leader("S"), "led")
        leads = s.machine_with(leader).name
        others = [name for name in s.holders("S") if name != leads]

        async def all_current() -> dict[str, Any]:
            while True:
                shown = await info(s)
                if all(peer["current"] for peer in shown["replicas"]):
                    return shown
                await s.publish("S", b"more")

        shown = await all_current()
        assert shown["leader"] == leads
        assert [(peer["name"], peer["peer"]) for peer in shown["replicas"]] == [(n, PEER_IDS[n]) for n in others]
        assert not any(peer.keys() & {"offline", "pending", "lag"} for peer in shown["replicas"])
        assert all(0 <= peer["active"] < 2e9 for peer in shown["replicas"])
        body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}
        created = await s.ask("S", lambda client: client.api("CONSUMER.CREATE.S.c", body))
        assert created["cluster"]["leader"] == leads
        assert (await info(s, "CONSUMER.INFO.S.c"))["name"] == shown["name"]

        away = next(machine for machine in s.world.machines if machine.name == others[0])
        away.kill(1e6)
        await s.publish("S", b"b", b"c")

        def lost() -> PeerInfo | None:
            seen = stream_cluster(node_of(s.machine_with(leader)), leader)
            return next((p for p in seen.replicas if p.name == away.name and p.is_offline and p.lag >= 2), None)

        gone = await s.until(lost, "it is offline, and behind")
        assert not gone.is_current
        assert gone.active_ns > 0
        assert [peer["current"] for peer in (await info(s))["replicas"] if peer["name"] != away.name] == [True]

    play(story, nodes=4)


def test_a_lone_copy_has_no_replicas() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 1)
        leader = await s.until(lambda: s.leader("S"), "led")
        shown = await info(s)
        assert shown == {"name": shown["name"], "leader": s.machine_with(leader).name}

    play(story, nodes=3)


def test_the_metadata_group() -> None:
    async def story(s: Story) -> None:
        leader = await s.until(s.meta_leader, "led")
        names = {node: machine.name for machine in s.world.machines if (node := node_of(machine)) is not None}
        await s.until(lambda: all(node.meta.core.leader for node in names), "everybody knows")
        for node, own in names.items():
            shown = meta_cluster(node)
            assert shown is not None
            assert shown["leader"] == names[leader]
            assert shown["peer"] == PEER_IDS[names[leader]]
            assert [peer["name"] for peer in shown["replicas"]] == sorted(set(names.values()) - {own})
            assert (shown["cluster_size"], shown["quorum_needed"]) == (3, 2)

    play(story, nodes=3)
