"""Three processes on the loopback interface: R3 streams through the death of their leader, and of everybody."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import Error
from nats.js.api import StreamConfig

from jepsen.real.cluster import ServerCluster
from jepsen.real.control import Control, ControlError
from jepsen.real.process import JETSTORE, ServerError, ServerProcess


@pytest.fixture
def cluster(tmp_path: Path, require_server: Callable[[str], None]) -> Iterator[ServerCluster]:
    require_server(JETSTORE)
    with ServerCluster(JETSTORE, tmp_path, monitor=True) as started:
        started.start()
        yield started


async def publish(port: int, text: bytes) -> int:
    """The sequence of one message published through nats-py."""
    client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
    try:
        return (await client.jetstream().publish("S.x", text, timeout=2)).seq
    finally:
        await client.close()


async def publish_until_acked(cluster: ServerCluster, text: bytes) -> int:
    while True:
        for number in cluster.running():
            try:
                return await publish(cluster.nodes[number].port, text)
            except (Error, OSError):
                continue


async def create(port: int) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        await client.jetstream().add_stream(StreamConfig(name="S", subjects=["S.>"], num_replicas=3))
    finally:
        await client.close()


@pytest.mark.real
def test_the_leader_is_killed_and_the_next_one_acknowledges(cluster: ServerCluster) -> None:
    # Whoever leads the metadata creates streams; the others say 10008.
    creator = cluster.create_stream("PROBE")
    asyncio.run(create(cluster.nodes[creator].port))
    leader = cluster.leader("S")
    assert asyncio.run(publish(cluster.nodes[leader].port, b"one")) == 1
    cluster.kill([leader])
    assert asyncio.run(publish_until_acked(cluster, b"two")) == 2
    assert cluster.leader("S") != leader
    # It comes back, and is needed: one of the others goes.
    cluster.start([leader])
    cluster.kill([next(n for n in cluster.running() if n != leader)])
    assert asyncio.run(publish_until_acked(cluster, b"three")) == 3
    cluster.kill()
    cluster.start()
    number = cluster.leader("S")
    with Control(cluster.nodes[number].port) as control:
        assert [control.get("S", sequence) for sequence in (1, 2, 3)] == [b"one", b"two", b"three"]


@pytest.mark.real
def test_one_node_of_three_acknowledges_nothing_and_says_so(cluster: ServerCluster) -> None:
    leader = cluster.create_stream("S")
    node = cluster.nodes[leader]
    others = [number for number in range(3) if number != leader]
    wait_for_health(node, 200)
    with Control(node.port) as control:
        control.publish_sync("S.x", b"one")
        cluster.kill(others)
        wait_for_health(node, 503)
        with pytest.raises(ControlError):
            control.publish_sync("S.x", b"two")
    cluster.start(others)
    assert asyncio.run(publish_until_acked(cluster, b"three")) >= 2
    wait_for_health(node, 200)


@pytest.mark.real
def test_a_leader_that_is_stopped_hands_over_first(cluster: ServerCluster) -> None:
    cluster.create_stream("S")
    for _ in range(2):
        leader = cluster.leader("S")
        assert asyncio.run(publish_until_acked(cluster, b"x"))
        cluster.nodes[leader].stop()
        assert asyncio.run(publish_until_acked(cluster, b"y"))
        assert cluster.leader("S") != leader
        cluster.start([leader])


@pytest.mark.real
def test_what_monitoring_shows(cluster: ServerCluster) -> None:
    leader = cluster.create_stream("S")
    for number, node in enumerate(cluster.nodes):
        wait_for_health(node, 200)
        varz, routez = page(node, "varz"), page(node, "routez")
        assert varz["cluster"]["name"] == "jepsen"
        assert len(varz["cluster"]["urls"]) == 3
        assert (varz["routes"], varz["remotes"], routez["num_routes"]) == (2, 2, 2)
        names = {f"n{other + 1}" for other in range(3) if other != number}
        assert {route["remote_name"] for route in routez["routes"]} == names
        metrics = text(node, "metrics")
        assert 'jetstore_raft_groups{role="leader"}' in metrics
        assert all(f'jetstore_link_up{{node="{name}"}} 1.0' in metrics for name in names)
        assert 'jetstore_raft_term{group="_meta_"}' in metrics
        (account,) = page(node, "jsz?streams=1")["account_details"]
        (stream,) = account["stream_detail"]
        assert stream["cluster"]["leader"] == f"n{leader + 1}"


@pytest.mark.real
def test_a_store_is_served_only_as_what_it_is(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    with ServerCluster(JETSTORE, tmp_path) as cluster:
        cluster.start()
        cluster.kill()
        member = ServerProcess(JETSTORE, cluster.nodes[0].store, log=tmp_path / "alone.log")
        with pytest.raises(ServerError, match="this store belongs to node n1 of cluster"):
            member.start()
    with ServerProcess(JETSTORE, tmp_path / "lone") as lone:
        lone.start()
    late = ServerCluster(JETSTORE, tmp_path / "late", stores=[tmp_path / "lone", tmp_path / "b", tmp_path / "c"])
    with late, pytest.raises(ServerError, match="this store belongs to a standalone server"):
        late.start([0])


@pytest.mark.real
def test_a_node_that_waits_for_the_others_can_be_stopped(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    with ServerCluster(JETSTORE, tmp_path) as cluster:
        node = cluster.nodes[0]
        node.spawn()
        while "cluster port" not in node.log_tail():
            assert node.is_running(), node.log_tail()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", node.port)).close()
        node.stop()


def text(node: ServerProcess, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.monitor_port}/{path}", timeout=10) as answer:
        return str(answer.read().decode())


def page(node: ServerProcess, path: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(text(node, path))
    return shown


def health(node: ServerProcess) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.monitor_port}/healthz", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def wait_for_health(node: ServerProcess, status: int) -> None:
    """Returns when the node says so; the test's own time-out otherwise."""
    while health(node) != status:
        pass
