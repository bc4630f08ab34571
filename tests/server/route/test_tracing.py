"""Traces of messages at one router: which messages get one, what goes on as a run, and what is told of other nodes."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from peer_world import Network
from peer_world import Sink as NodeSink
from route_fakes import FakeSink

from jetstore.node.ports import Inbound
from server.route.delivery import Columns
from server.route.router import Router
from server.route.tracing import Tracing, marked

Json = Any  # Any: JSON values


def block(**headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


PLAIN = block(X="1")
TRACED = block(Nats_Trace_Dest="t")
ONLY = block(Nats_Trace_Dest="t", Nats_Trace_Only="true")
PARENT = block(traceparent="00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01")


class Recorder:
    """An internal subscriber."""

    def __init__(self, *, judges: bool = False) -> None:
        self.batches: list[Inbound] = []
        self.judges_traced = judges

    def on_messages(self, batch: Inbound) -> None:
        self.batches.append(batch)


class Bench:
    """A router that traces, and a listener."""

    def __init__(self, router: Router | None = None) -> None:
        self.router = router or Router("$G", Random(1), lambda callback: None)
        self.router.tracing = Tracing("$SYS", lambda: {"name": "n"}, lambda: 0, Random(1))
        self.client = FakeSink("client")
        self.traces = FakeSink("listener")
        self.router.subscribe_client(self.traces, b"t", b"", b"1")

    def publish(self, *headers: bytes, subject: bytes = b"a") -> None:
        count = len(headers)
        payloads = [header + b"body" for header in headers]
        self.router.publish_from(self.client, [subject] * count, [b""] * count, list(map(len, headers)), payloads)

    def told(self) -> list[Json]:
        """The events of each trace."""
        out = self.traces.take()
        return [json.loads(line)["events"] for line in out.split(b"\r\n") if line.startswith(b"{")]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_messages_around_a_traced_one_stay_runs(bench: Bench) -> None:
    recorder = Recorder()
    bench.router.subscribe(b"a", recorder)
    bench.publish(PLAIN, PLAIN, TRACED, PLAIN, PLAIN)
    assert [len(batch.payloads) for batch in recorder.batches] == [2, 1, 2]
    assert [batch.trace is not None for batch in recorder.batches] == [False, True, False]
    assert [event["type"] for event in bench.told()[0]] == ["in"]
    assert bench.client.trace is None


def test_what_only_looks_like_it_is_no_trace(bench: Bench) -> None:
    body = Columns([b"a"], [b""], [len(PLAIN)], [PLAIN + b"Nats-Trace-Dest: t"])
    assert marked(body, has_dest=False) == []
    assert marked(Columns([b"a"], [b""], [len(PARENT)], [PARENT]), has_dest=False) == []
    assert marked(Columns([b"a"], [b""], [len(PARENT)], [PARENT]), has_dest=True) == [0]
    bench.publish(block(X="Nats-Trace-Dest: t"))
    assert bench.told() == []


def test_only_a_trace_reaches_nobody_but_who_can_judge(bench: Bench) -> None:
    judge, other = Recorder(judges=True), Recorder()
    listener = FakeSink("l")
    bench.router.subscribe(b"a", judge)
    bench.router.subscribe(b"a", other)
    bench.router.subscribe_client(listener, b"a", b"", b"9")
    bench.publish(ONLY)
    assert (len(judge.batches), len(other.batches), listener.take()) == (1, 0, b"")
    assert [event["type"] for event in bench.told()[0]] == ["in", "eg"]


def test_the_story_ends_when_streams_have_told_theirs(bench: Bench) -> None:
    judge = Recorder(judges=True)
    bench.router.subscribe(b"a", judge)
    bench.publish(TRACED)
    trace = judge.batches[0].trace
    assert trace is not None
    assert len(bench.told()) == 1  # nobody said that more was to come
    told: list[object] = []

    class Stream(Recorder):
        def on_messages(self, batch: Inbound) -> None:
            assert batch.trace is not None
            told.append(batch.trace.at_stream("S"))

    for _ in range(2):
        bench.router.subscribe(b"b", Stream(judges=True))
    bench.publish(TRACED, subject=b"b")
    assert bench.told() == []
    for each, error in zip(told, ("", "no"), strict=True):
        assert callable(each)
        each("b", False, error)
    (events,) = bench.told()
    assert [{key: event[key] for key in event if key != "ts"} for event in events[1:]] == [
        {"type": "js", "stream": "S", "subject": "b"},
        {"type": "js", "stream": "S", "subject": "b", "error": "no"},
    ]


def test_one_in_so_many_is_traced(bench: Bench) -> None:
    bench.router.trace_dest, bench.router.trace_sampling = b"t", 10
    for _ in range(500):
        bench.publish(PARENT)
    assert 25 < len(bench.told()) < 90


@pytest.mark.parametrize(("header", "problem"), [(TRACED, "Message delivered but"), (ONLY, "Not delivered")])
def test_other_nodes_are_named(header: bytes, problem: str) -> None:
    net = Network()
    one, other = net.nodes[:2]
    listener = NodeSink("far")
    other.sub(listener, b"a")
    net.settle()
    bench = Bench(one.router)
    bench.publish(header)
    net.settle()
    (events,) = bench.told()
    assert (events[1]["kind"], events[1]["name"]) == (1, other.name)
    assert events[1]["error"].startswith(problem)
    assert len(listener.got) == (header is TRACED)
