"""Rows that read: push consumer, pull consumer with acknowledgements, a filter that matches ten of very many."""

from __future__ import annotations

import time

from jepsen.real.control import Control
from jepsen.real.process import NATS_SERVER_ALWAYS

from .measure import STREAM, Bench, Outcome, Row

FILTERED = 10


def drain_push(bench: Bench) -> Outcome:
    """Messages per second through a push consumer with ack none."""
    server = bench.start()
    bench.create_stream(server.port)
    count = bench.sizes.messages
    bench.fill(server.port, count)
    seconds = bench.load().call("drain_stream", port=server.port, stream=STREAM, count=count, consumer={})
    return Outcome(count / seconds)


def fetch_ack(bench: Bench) -> Outcome:
    """Messages per second fetched 1,000 at a time, each acknowledged explicitly, one fetch after the other."""
    server = bench.start()
    bench.create_stream(server.port)
    # Filling takes minutes when each message is synced alone, and what is measured is a rate.
    count = bench.sizes.messages // (20 if bench.server == NATS_SERVER_ALWAYS else 1)
    bench.fill(server.port, count)
    config = {"durable_name": "pull", "ack_policy": "explicit", "max_ack_pending": 10_000}
    with Control(server.port) as control:
        control.api(f"CONSUMER.DURABLE.CREATE.{STREAM}.pull", {"stream_name": STREAM, "config": config})
    delivered, _ = bench.load().call(
        "fetch", port=server.port, stream=STREAM, consumer="pull", total=count, batch=1000, timeout_s=300
    )
    if len(delivered.sequences) < count:
        raise RuntimeError(f"only {len(delivered.sequences)} of {count} delivered")
    return Outcome(count / delivered.seconds)


def filtered(bench: Bench) -> Outcome:
    """Milliseconds until a new push consumer has the ten messages its filter matches, spread over the stream."""
    server = bench.start()
    bench.create_stream(server.port)
    part = bench.sizes.filtered_messages // FILTERED
    with Control(server.port) as control:
        for number in range(FILTERED):
            bench.fill(server.port, part - 1, subject=f"{STREAM}.fill.{number}", tag=number + 1)
            control.publish_sync(f"{STREAM}.wanted.{number}", b"%020d" % number)
    began = time.perf_counter()
    bench.load().call(
        "drain_stream",
        port=server.port,
        stream=STREAM,
        count=FILTERED,
        consumer={"filter_subject": f"{STREAM}.wanted.*"},
    )
    return Outcome((time.perf_counter() - began) * 1000, {"messages": float(part * FILTERED)})


ROWS = [
    Row("drain", "push consumer drain, ack none", "msg/s", drain_push, syncs=False),
    Row("fetch", "pull fetch 1000 + explicit ack", "msg/s", fetch_ack),
    Row("filtered", "filtered consumer, 10 matches", "ms", filtered, more_is_better=False, syncs=False),
]
