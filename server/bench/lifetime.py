"""Rows about the process: start, restart on a full store, memory by stored messages, lag of its loop under load."""

from __future__ import annotations

import re
import time
import urllib.request

from jepsen.real.control import Control
from jepsen.real.published import PublishSpec

from .measure import MESSAGE_BYTES, STREAM, WINDOW, Bench, Outcome, Row, Unavailable, check
from .publishing import ENDLESS

MIB = 1 << 20


def start_empty(bench: Bench) -> Outcome:
    """Milliseconds from exec to the first JetStream answer, empty store."""
    server = bench.start()
    server.kill()
    server.store = server.store.with_name("again")
    return Outcome(server.start() * 1000)


def restart(bench: Bench) -> Outcome:
    """Milliseconds from exec to a correct stream info, after a clean stop with a full store."""
    server = bench.start()
    bench.create_stream(server.port)
    messages, subjects = bench.sizes.restart_messages, bench.sizes.restart_subjects
    stored = 0
    while stored < messages:
        # Numbers start at 0 in every part, so that the same subjects come again.
        part = min(subjects, messages - stored)
        bench.fill(server.port, part, subject=f"{STREAM}.{{n}}", tag=1 + stored // subjects)
        stored += part
    stop_s = server.stop(600)
    began = time.perf_counter()
    server.start(600)
    with Control(server.port) as control:
        state = control.api(f"STREAM.INFO.{STREAM}", timeout_s=600)["state"]
    seconds = time.perf_counter() - began
    if state["messages"] != messages or state["num_subjects"] != min(subjects, messages):
        raise RuntimeError(f"after the restart: {state}")
    details = {"messages": float(messages), "subjects": float(subjects), "stop ms": stop_s * 1000}
    return Outcome(seconds * 1000, details)


def memory(bench: Bench) -> Outcome:
    """MiB of anonymous memory per further million messages stored on one subject."""
    server = bench.start()
    bench.create_stream(server.port)
    step = bench.sizes.memory_messages // (bench.sizes.memory_steps + 1)
    sizes = []
    for number in range(bench.sizes.memory_steps + 1):
        bench.fill(server.port, step, tag=number + 1)
        sizes.append(server.rss_anon_bytes() / MIB)
    growth = (sizes[-1] - sizes[0]) / (step * bench.sizes.memory_steps) * 1_000_000
    details = {f"MiB at {step * (number + 1):,}": size for number, size in enumerate(sizes)}
    return Outcome(growth, details)


_LAG_BUCKET = re.compile(r'^(\w*loop_lag\w*)_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)


def loop_lag(bench: Bench) -> Outcome:
    """p99 in milliseconds of the server's event-loop lag under full publish load, from its own /metrics."""
    server = bench.start(monitor=True)
    bench.create_stream(server.port)
    before = lag_buckets(server.monitor_port)
    spec = PublishSpec(1, (f"{STREAM}.x",), ENDLESS, WINDOW, MESSAGE_BYTES)
    check(
        bench.load().call(
            "publish", port=server.port, specs=[spec], keep_acks=False, seconds=bench.sizes.seconds, timeout_s=300
        )
    )
    after = lag_buckets(server.monitor_port)
    samples = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    total = max(samples.values())
    for bound in sorted(samples):
        if samples[bound] >= total * 0.99:
            return Outcome(bound * 1000, {"samples": total})
    raise RuntimeError(f"not a histogram: {samples}")


def lag_buckets(monitor_port: int) -> dict[float, float]:
    """Upper bound in seconds → samples up to it. Unavailable: this server does not show its loop's lag."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError as error:
        raise Unavailable(f"no /metrics: {error}") from None
    buckets = {float(bound): float(count) for _, bound, count in _LAG_BUCKET.findall(text)}
    if not buckets:
        raise Unavailable("/metrics has no loop lag")
    return buckets


ROWS = [
    Row("start", "start to ready, empty store", "ms", start_empty, more_is_better=False, syncs=False),
    Row("restart", "restart after a clean stop", "ms", restart, more_is_better=False, syncs=False),
    Row("memory", "RssAnon per million messages", "MiB", memory, more_is_better=False, syncs=False),
    Row("lag", "loop lag p99 under publish load", "ms", loop_lag, more_is_better=False, syncs=False),
]
