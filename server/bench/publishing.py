"""Rows that publish: asynchronous, one in flight, one in flight in each of many streams, large, mixed, core."""

from __future__ import annotations

import os
import time
from array import array
from pathlib import Path

from jepsen.real.published import PublishSpec

from .measure import MESSAGE_BYTES, STREAM, WINDOW, Bench, Outcome, Row, check

ENDLESS = 10**9
MIB = 1 << 20
LARGE_WINDOW = 8


def quantile_ms(seconds: array[float], share: float) -> float:
    """The value below which ``share`` of the durations lie, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


def publish_async(bench: Bench) -> Outcome:
    """Messages acknowledged per second, one connection, 4096 unanswered at most."""
    server = bench.start()
    bench.create_stream(server.port)
    spec = PublishSpec(1, (f"{STREAM}.x",), ENDLESS, WINDOW, MESSAGE_BYTES)
    result = check(
        bench.load().call(
            "publish", port=server.port, specs=[spec], keep_acks=False, seconds=bench.sizes.seconds, timeout_s=300
        )
    )
    return Outcome(result.sent / (result.ended - result.began), {"messages": float(result.sent)})


def publish_one(bench: Bench) -> Outcome:
    """Messages per second when each waits for the answer to the last."""
    server = bench.start()
    bench.create_stream(server.port)
    latencies = bench.load().call(
        "one_by_one",
        port=server.port,
        subject=f"{STREAM}.x",
        tag=1,
        total=ENDLESS,
        seconds=bench.sizes.seconds,
        timeout_s=300,
    )
    details = {"p50 ms": quantile_ms(latencies, 0.5), "p99 ms": quantile_ms(latencies, 0.99)}
    return Outcome(len(latencies) / sum(latencies), details)


def publish_streams(bench: Bench) -> Outcome:
    """Messages per second over many streams, one in flight in each."""
    server = bench.start()
    names = [f"{STREAM}{number}" for number in range(bench.sizes.streams)]
    for name in names:
        bench.create_stream(server.port, name)
    result = bench.load().call(
        "one_each",
        port=server.port,
        subjects=[f"{name}.x" for name in names],
        tag=1,
        total=ENDLESS,
        seconds=bench.sizes.seconds,
        timeout_s=300,
    )
    check([result])
    return Outcome(len(result.numbers) / (result.ended - result.began), {"streams": float(len(names))})


def publish_large(bench: Bench) -> Outcome:
    """MiB per second of 1 MiB messages, eight unanswered at most."""
    server = bench.start()
    bench.create_stream(server.port)
    count = bench.sizes.large_mib
    spec = PublishSpec(1, (f"{STREAM}.x",), count, LARGE_WINDOW, MIB)
    result = check(bench.load().call("publish", port=server.port, specs=[spec], keep_acks=False, timeout_s=600), count)
    rate = count / (result.ended - result.began)
    raw = raw_mib_per_second(bench.folder, count)
    return Outcome(rate, {"raw write+fdatasync MiB/s": raw, "share of raw": rate / raw})


def raw_mib_per_second(folder: Path, count: int) -> float:
    """What the disk gives: sequential 1 MiB writes, each followed by fdatasync, to a new file in ``folder``."""
    path = folder / "raw"
    data = os.urandom(MIB)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        began = time.perf_counter()
        for _ in range(count):
            os.write(descriptor, data)
            os.fdatasync(descriptor)
        return count / (time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()


def publish_mixed(bench: Bench) -> Outcome:
    """p99 in milliseconds of 128-byte publishes, one in flight, while 1 MiB ones run on another stream."""
    server = bench.start()
    bench.create_stream(server.port)
    bench.create_stream(server.port, "LARGE")
    seconds = bench.sizes.seconds
    spec = PublishSpec(1, ("LARGE.x",), ENDLESS, LARGE_WINDOW, MIB)
    large = bench.load(0)
    large.submit("publish", port=server.port, specs=[spec], keep_acks=False, seconds=seconds + 0.5)
    latencies = bench.load(1).call(
        "one_by_one", port=server.port, subject=f"{STREAM}.x", tag=2, total=ENDLESS, seconds=seconds, timeout_s=300
    )
    result = check(large.result(300))
    details = {
        "p50 ms": quantile_ms(latencies, 0.5),
        "large MiB/s": result.sent / (result.ended - result.began),
        "small msg/s": len(latencies) / sum(latencies),
    }
    return Outcome(quantile_ms(latencies, 0.99), details)


def core(bench: Bench) -> Outcome:
    """Messages per second from one publisher to one subscriber, nothing stored."""
    server = bench.start()
    count = bench.sizes.messages * 4
    subscriber = bench.load(1)
    subscriber.submit("core_subscribe", port=server.port, subject="core.x", total=count)
    began = bench.load(0).call("core_publish", port=server.port, subject="core.x", total=count, timeout_s=300)
    ended = subscriber.result(300)
    return Outcome(count / (ended - began))


ROWS = [
    Row("publish", "publish R1, async window 4096", "msg/s", publish_async),
    Row("publish-one", "publish, one in flight", "msg/s", publish_one),
    Row("streams", "many streams, 1 in flight each", "msg/s", publish_streams),
    Row("large", "1 MiB messages, window 8", "MiB/s", publish_large),
    Row("mixed", "p99 of 128 B while 1 MiB run", "ms", publish_mixed, more_is_better=False),
    Row("core", "core publish to 1 subscriber", "msg/s", core, syncs=False),
]
