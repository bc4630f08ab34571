"""What the pages say of a cluster: /varz, /routez, /jsz and the metrics of links and groups."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from random import Random
from typing import Any

from monitor_fakes import NOW_NS, JetStream, make_source
from prometheus_client.parser import text_string_to_metric_families

from server.monitor.cluster_ports import ClusterCounters, ClusterFacts, PeerCounters, RaftCounters
from server.monitor.monitor import Monitor
from server.monitor.ports import MonitorSource
from server.monitor.system import SystemPages

FACTS = ClusterFacts("c1", "0.0.0.0", 6222, 3_000_000_000, ("h1:6222", "h2:6222"))
N2 = PeerCounters(
    node_id="2" * 16,
    name="n2",
    advertise="h2:6222",
    is_up=True,
    did_solicit=True,
    ip="10.0.0.2",
    port=6222,
    up_since_s=40.0,
    rtt_s=0.0015,
    pending_bytes=7,
    in_bytes=100,
    out_bytes=200,
    messages_in=3,
    messages_out=4,
    messages_dropped=5,
    connects=6,
    has_alarm=False,
)
N3 = replace(N2, node_id="3" * 16, name="n3", is_up=False, did_solicit=False, rtt_s=0.0, has_alarm=True)
COUNTERS = ClusterCounters(
    now_s=100.0,
    peers=[N2, N3],
    groups=[
        RaftCounters("_meta_", "follower", 4, "n2", 9, 9, is_quiet=True),
        RaftCounters("S", "leader", 7, "n1", 20, 19, is_quiet=False, lags={"n2": 0, "n3": 11}),
        RaftCounters("T", "candidate", 8, "", 5, 5, is_quiet=False),
    ],
    refused={"cluster-name": 2},
    bad_frames=1,
    stray_messages=12,
    catch_ups=3,
)


def source() -> MonitorSource:
    return replace(
        make_source(JetStream()), cluster_facts=FACTS, cluster=lambda: COUNTERS, leader_of=lambda stream: f"of-{stream}"
    )


def page(of: MonitorSource, target: str) -> dict[str, Any]:
    response = asyncio.run(Monitor(of).answer(target))
    assert response.status == 200
    shown: dict[str, Any] = json.loads(response.body)
    return shown


def test_varz() -> None:
    shown = page(source(), "/varz")
    assert shown["cluster"] == {
        "name": "c1",
        "addr": "0.0.0.0",
        "cluster_port": 6222,
        "auth_timeout": 3.0,
        "urls": ["h1:6222", "h2:6222"],
    }
    assert (shown["routes"], shown["remotes"]) == (1, 1)


def test_routez() -> None:
    shown = page(source(), "/routez")
    (route,) = shown["routes"]
    assert shown["num_routes"] == 1
    assert (route["remote_name"], route["remote_id"], route["did_solicit"]) == ("n2", "2" * 16, True)
    assert (route["ip"], route["port"], route["rtt"], route["uptime"]) == ("10.0.0.2", 6222, "1.5ms", "1m0s")
    assert (route["in_msgs"], route["out_msgs"], route["in_bytes"], route["out_bytes"]) == (3, 4, 100, 200)
    assert route["start"] < shown["now"]


def test_a_lone_server_has_no_routes() -> None:
    assert page(make_source(), "/routez")["routes"] == []
    assert NOW_NS > 0


def test_jsz_names_each_streams_leader() -> None:
    (account,) = page(source(), "/jsz?streams=1")["account_details"]
    assert {stream["name"]: stream["cluster"]["leader"] for stream in account["stream_detail"]} == {
        name: f"of-{name}" for name in [stream["name"] for stream in account["stream_detail"]]
    }


def test_jsz_of_what_is_led_here() -> None:
    of = replace(
        source(),
        leader_of=lambda stream: "srv" if stream == "S" else "n2",
        meta_cluster=lambda: {"name": "c1", "leader": "n2", "cluster_size": 3},
    )
    shown = page(of, "/jsz?stream-leader-only=1&streams=1&raft=1")
    assert (shown["streams_leader"], shown["consumers_leader"], shown["meta_cluster"]["leader"]) == (1, 1, "n2")
    (stream,) = shown["account_details"][0]["stream_detail"]
    assert stream["name"] == "S"
    assert "streams_leader" not in page(source(), "/jsz")
    assert page(of, "/varz")["jetstream"]["meta"]["cluster_size"] == 3


def test_metrics() -> None:
    response = asyncio.run(Monitor(source()).answer("/metrics"))
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
        if sample.name.startswith(("jetstore_link_", "jetstore_raft_"))
    }
    assert values["jetstore_link_up", "n2"] == 1
    assert values["jetstore_link_up", "n3"] == 0
    assert values["jetstore_link_alarm", "n3"] == 1
    assert values["jetstore_link_rtt_seconds", "n2"] == 0.0015
    assert values["jetstore_link_received_bytes_total", "n2"] == 100
    assert values["jetstore_link_dropped_messages_total", "n2"] == 5
    assert values["jetstore_link_refused_total", "cluster-name"] == 2
    assert [values["jetstore_raft_groups", role] for role in ("leader", "follower", "candidate")] == [1, 1, 1]
    assert values["jetstore_raft_groups", "pre-candidate"] == 0
    assert values["jetstore_raft_groups_leaderless",] == 1
    assert values["jetstore_raft_groups_quiet",] == 1
    assert values["jetstore_raft_term", "S"] == 7
    assert values["jetstore_raft_applied_index", "S"] == 19
    assert values["jetstore_raft_lag_entries", "S", "n3"] == 11
    assert values["jetstore_raft_stray_messages_total",] == 12
    assert values["jetstore_raft_catch_ups_total",] == 3


def test_leader_only_is_answered_by_who_leads_the_metadata() -> None:
    source = replace(make_source(), jetstream=JetStream())
    own = source.facts.server_name
    for meta, answers in ((None, True), ({"leader": own}, True), ({"leader": "n9"}, False), ({}, False)):
        pages = SystemPages(replace(source, meta_cluster=lambda meta=meta: meta), Random(1))
        answer = asyncio.run(pages.answer("JSZ", b'{"leader_only":true}', is_ping=True))
        assert (answer is not None) is answers
        assert asyncio.run(pages.answer("JSZ", b"{}", is_ping=True)) is not None
