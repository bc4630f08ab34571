"""Rows on three nodes: publishing to a stream with three replicas; its leader is killed: how long until the next ack.

The load talks to the leader: what is measured is replication, not the way to it.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from jepsen.real.cluster import ServerCluster
from jepsen.real.control import Control, ControlError
from jepsen.real.process import JETSTORE, ServerProcess
from jepsen.real.published import PublishSpec

from .measure import MESSAGE_BYTES, STREAM, WINDOW, Bench, Outcome, Row, check
from .publishing import ENDLESS, quantile_ms

NODES = 3
WARM_MESSAGES = 200
TRY_S = 0.1
"""How long one node is waited for after a leader was killed, before the message is offered to the next."""
HEALTHY_S = 120.0


def start_cluster(bench: Bench, *, monitor: bool = False) -> ServerCluster:
    """Three fresh nodes on empty stores, ready."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    bench.stack.callback(shutil.rmtree, folder, True)
    cluster = ServerCluster(bench.server, folder, NODES, monitor=monitor)
    bench.stack.callback(cluster.kill)
    cluster.start()
    return cluster


def leader_port(bench: Bench, cluster: ServerCluster) -> int:
    """A new R3 stream that has already taken some messages; the port of its leader."""
    cluster.create_stream(STREAM, NODES)
    port = cluster.nodes[cluster.leader(STREAM)].port
    bench.fill(port, WARM_MESSAGES, subject=f"{STREAM}.warm", tag=9, window=16)
    return port


def publish_async(bench: Bench) -> Outcome:
    """Messages acknowledged per second, one connection, 4096 unanswered at most, three replicas."""
    port = leader_port(bench, start_cluster(bench))
    spec = PublishSpec(1, (f"{STREAM}.x",), ENDLESS, WINDOW, MESSAGE_BYTES)
    result = check(
        bench.load().call(
            "publish", port=port, specs=[spec], keep_acks=False, seconds=bench.sizes.seconds, timeout_s=300
        )
    )
    return Outcome(result.sent / (result.ended - result.began), {"messages": float(result.sent)})


def publish_one(bench: Bench) -> Outcome:
    """Messages per second when each waits for the answer to the last, three replicas."""
    port = leader_port(bench, start_cluster(bench))
    latencies = bench.load().call(
        "one_by_one",
        port=port,
        subject=f"{STREAM}.x",
        tag=1,
        total=ENDLESS,
        seconds=bench.sizes.seconds,
        timeout_s=300,
    )
    details = {"p50 ms": quantile_ms(latencies, 0.5), "p99 ms": quantile_ms(latencies, 0.99)}
    return Outcome(len(latencies) / sum(latencies), details)


def fail_over(bench: Bench) -> Outcome:
    """Median milliseconds from SIGKILL of the leader to the next acknowledgement of any other node."""
    cluster = start_cluster(bench, monitor=True)
    cluster.create_stream(STREAM, NODES)
    # What takes others seconds need not be measured as often.
    kills = bench.sizes.kills if bench.server == JETSTORE else max(3, bench.sizes.kills // 3)
    times = []
    for number in range(kills):
        for node in cluster.nodes:
            wait_healthy(node)
        leader = cluster.leader(STREAM)
        times.append(kill_and_publish(cluster, leader, number) * 1000)
        cluster.kill([leader])
        cluster.start([leader])
    details = {"kills": float(kills), "least ms": min(times), "most ms": max(times)}
    return Outcome(statistics.median(times), details)


def kill_and_publish(cluster: ServerCluster, leader: int, number: int) -> float:
    """Seconds from the kill to the next acknowledgement, asked of the others in turn over open connections."""
    others = [Control(node.port) for place, node in enumerate(cluster.nodes) if place != leader]
    process = cluster.nodes[leader].process
    assert process is not None
    try:
        with Control(cluster.nodes[leader].port) as control:
            control.publish_sync(f"{STREAM}.x", b"before %d" % number)
        began = time.perf_counter()
        process.kill()
        while time.perf_counter() - began < HEALTHY_S:
            for control in others:
                try:
                    control.publish_sync(f"{STREAM}.x", b"after %d" % number, timeout_s=TRY_S)
                    return time.perf_counter() - began
                except ControlError:
                    time.sleep(0.001)
        raise RuntimeError(f"nobody acknowledges {HEALTHY_S} s after the leader was killed")
    finally:
        for control in others:
            control.close()


def wait_healthy(node: ServerProcess) -> None:
    """Return when the node says that it is up to date; what it holds back until then would be measured, too."""
    deadline = time.monotonic() + HEALTHY_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{node.monitor_port}/healthz", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"not healthy after {HEALTHY_S} s\n{node.log_tail()}")


ROWS = [
    Row("publish-r3", "publish R3, async window 4096", "msg/s", publish_async),
    Row("publish-one-r3", "publish R3, one in flight", "msg/s", publish_one),
    Row("fail-over", "leader killed to next ack, R3", "ms", fail_over, more_is_better=False, syncs=False),
]
