"""Routers of several nodes, with links that are moved by hand: who elsewhere gets what, in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from peer_world import LIMITS, Network, Sink

from jetstore.node.link.frames import FrameError
from jetstore.node.ports import Inbound
from server.route.delivery import Columns
from server.route.peer_frames import (
    Change,
    Interest,
    Run,
    Sync,
    decode,
    encode_interest,
    encode_run,
    encode_sync,
    session_head,
)
from server.route.router import Router


@pytest.fixture
def net() -> Network:
    return Network()


class Recorder:
    def __init__(self) -> None:
        self.got: list[bytes] = []

    def on_messages(self, batch: Inbound) -> None:
        self.got += batch.payloads


def test_a_run_goes_once_to_each_node_with_interest_and_no_further(net: Network) -> None:
    a, b, c = net.nodes
    sinks = [Sink() for _ in range(4)]
    for sink, node in zip(sinks, (a, b, b, c), strict=True):
        node.sub(sink, b"foo.*")
    net.settle()
    frames = a.frames, b.frames, c.frames
    a.pub((b"foo.a", b"1", b"re"), (b"bar", b"2"), (b"foo.b", b"3"))
    net.settle()
    for sink in sinks:
        assert sink.got == [(b"1", b"foo.a", b"re", b"1"), (b"1", b"foo.b", b"", b"3")]
    assert (a.frames, b.frames, c.frames) == (frames[0] + 2, *frames[1:])


def test_headers_travel_and_are_stripped_where_they_must_be(net: Network) -> None:
    a, b, _ = net.nodes
    knows, not_ = Sink(), Sink()
    not_.headers = False
    b.sub(knows, b"x")
    b.sub(not_, b"x")
    net.settle()
    a.router.publish_from(Sink(), [b"x", b"x"], [b"", b""], [12, 0], [b"NATS/1.0\r\n\r\nhi", b"plain"])
    net.settle()
    assert knows.bodies() == [b"NATS/1.0\r\n\r\nhi", b"plain"]
    assert not_.bodies() == [b"hi", b"plain"]


def test_a_request_is_answered_across_nodes_although_nobody_waited_for_the_interest(net: Network) -> None:
    a, b, _ = net.nodes
    server, asker = Sink(), Sink()
    b.sub(server, b"svc")
    net.settle()
    a.sub(asker, b"inbox.1")
    a.pub((b"svc", b"?", b"inbox.1"), client=asker)
    a.peers.flush()
    ((_, _, body),) = [each for each in net.wire if each[1] == "b"]
    b.peers.take("a", memoryview(body))
    net.wire.clear()
    assert server.got == [(b"1", b"svc", b"inbox.1", b"?")]
    b.pub((b"inbox.1", b"!"), client=server)
    net.settle()
    assert asker.bodies() == [b"!"]


def test_no_responders_only_where_nobody_anywhere_subscribes(net: Network) -> None:
    a, b, c = net.nodes
    asker = Sink()
    a.sub(asker, b"inbox.*")
    a.pub((b"svc", b"?", b"inbox.1"), client=asker)
    assert asker.got[0][3].startswith(b"NATS/1.0 503")
    server = Sink()
    subscription = c.sub(server, b"svc", b"workers")
    net.settle()
    a.pub((b"svc", b"?", b"inbox.2"), client=asker)
    net.settle()
    assert (len(asker.got), server.bodies()) == (1, [b"?"])
    c.router.unsubscribe(subscription)
    net.settle()
    a.pub((b"svc", b"?", b"inbox.3"), client=asker)
    assert len(asker.got) == 2
    assert b.peers.peers["c"].subscriptions == {}


def test_a_limit_ends_interest_everywhere(net: Network) -> None:
    a, b, _ = net.nodes
    sink = Sink()
    b.router.limit(b.sub(sink, b"x"), 2)
    net.settle()
    a.pub(*[(b"x", b"%d" % at) for at in range(5)])
    net.settle()
    assert sink.bodies() == [b"0", b"1"]
    assert a.peers.peers["b"].subscriptions == {}
    assert not a.router.has_interest(b"x")


def test_a_queue_group_is_one_group_over_all_nodes(net: Network) -> None:
    a, b, c = net.nodes
    sinks = [Sink() for _ in range(5)]
    for sink, node in zip(sinks, (a, a, a, b, c), strict=True):
        node.sub(sink, b"q.*", b"group")
    net.settle()
    for at in range(20):
        a.pub(*[(b"q.x", b"%d" % (at * 100 + more)) for more in range(100)])
    for at in range(1000):
        a.pub((b"q.y", b"%d" % (2000 + at)))
    net.settle()
    counts = [len(sink.got) for sink in sinks]
    assert sum(counts) == 3000
    assert min(counts) > 450, counts
    assert Counter(body for sink in sinks for body in sink.bodies()) == Counter(b"%d" % at for at in range(3000))
    for sink in sinks:
        numbers = list(map(int, sink.bodies()))
        assert numbers == sorted(numbers)


def test_weights_follow_members(net: Network) -> None:
    a, b, c = net.nodes
    busy, other = Sink(), Sink()
    subscriptions = [b.sub(busy, b"q", b"g", b"%d" % at) for at in range(9)]
    c.sub(other, b"q", b"g")
    net.settle()
    a.pub(*[(b"q", b"x")] * 1000)
    net.settle()
    assert 30 < len(other.got) < 200
    for subscription in subscriptions[1:]:
        b.router.unsubscribe(subscription)
    net.settle()
    other.got.clear()
    a.pub(*[(b"q", b"x")] * 1000)
    net.settle()
    assert 400 < len(other.got) < 600


def test_what_the_engine_leads_has_one_place_the_last_that_said_so(net: Network) -> None:
    a, b, c = net.nodes
    old, new, here = Recorder(), Recorder(), Recorder()
    b.router.subscribe(b"S.>", old)
    net.settle()
    leads = c.router.subscribe(b"S.>", new)
    net.settle()
    a.pub((b"S.x", b"1"))
    net.settle()
    assert (old.got, new.got) == ([], [b"1"])
    leads.close()
    net.settle()
    a.pub((b"S.x", b"2"))
    a.router.subscribe(b"S.>", here)
    a.pub((b"S.x", b"3"))
    net.settle()
    assert (old.got, new.got, here.got) == ([b"2"], [b"1"], [b"3"])


def test_a_handler_that_refuses_gives_way_to_one_that_leads_elsewhere(net: Network) -> None:
    a, b, _ = net.nodes
    refusing, leading = Recorder(), Recorder()
    refusing.refuses = True  # type: ignore[attr-defined]
    a.router.subscribe(b"S.>", refusing)
    net.settle()
    a.pub((b"S.x", b"1"))
    b.router.subscribe(b"S.>", leading)
    net.settle()
    a.pub((b"S.x", b"2"))
    net.settle()
    assert (refusing.got, leading.got) == ([b"1"], [b"2"])


def test_handlers_of_the_system_account_are_asked_on_every_node(net: Network) -> None:
    handlers = [Recorder() for _ in net.nodes]
    for node, handler in zip(net.nodes, handlers, strict=True):
        node.system.subscribe(b"$SYS.REQ.SERVER.PING", handler)
        node.system.subscribe(b"$JS.API.>", handler)
    net.settle()
    system = net.nodes[0].system
    system.publish_from(Sink(), [b"$SYS.REQ.SERVER.PING", b"$JS.API.X"], [b"", b""], [], [b"?", b"!"])
    net.settle()
    assert [handler.got for handler in handlers] == [[b"?", b"!"], [b"?"], [b"?"]]


def test_stored_messages_go_to_their_target(net: Network) -> None:
    a, b, c = net.nodes
    plain, one, two = Sink(), Sink(), Sink()
    b.sub(plain, b"deliver")
    b.sub(one, b"deliver", b"g")
    c.sub(two, b"deliver", b"g")
    net.settle()
    router = a.router
    assert router.has_interest(b"deliver")
    assert router.has_interest(b"deliver", b"g")
    assert not router.has_interest(b"deliver", b"other")
    assert router.deliver(b"deliver", [b"S.1", b"S.2"], [b"ack1", b"ack2"], (), [b"1", b"2"]) == 2
    net.settle()
    assert plain.got == [(b"1", b"S.1", b"ack1", b"1"), (b"1", b"S.2", b"ack2", b"2")]
    assert sorted(one.bodies() + two.bodies()) == [b"1", b"2"]
    assert router.deliver(b"deliver", [b"S.3"] * 100, (), (), [b"3"] * 100, b"g") == 100
    net.settle()
    assert (len(plain.got), len(one.got) + len(two.got)) == (2, 102)
    assert router.deliver(b"nowhere", [b"S.3"], (), (), [b"3"]) == 0


def test_pub_acks_find_their_way(net: Network) -> None:
    a, b, _ = net.nodes
    sink = Sink()
    b.sub(sink, b"inbox.*")
    net.settle()
    a.router.pub_acks(b"S", [b"inbox.1", b"", b"inbox.3"], [7, 8, 9])
    net.settle()
    assert sink.bodies() == [b'{"stream":"S","seq":7}', b'{"stream":"S","seq":9}']


def test_interest_is_told_anew_when_a_link_comes_back(net: Network) -> None:
    a, b, _ = net.nodes
    kept, gone, new = Sink(), Sink(), Sink()
    b.sub(kept, b"kept.>")
    subscription = b.sub(gone, b"gone")
    net.settle()
    seen: list[bool] = []
    a.router.watch_interest(b"kept.x", seen.append)
    net.cut("a", "b")
    net.settle()
    assert seen == [False]
    asker = Sink()
    a.sub(asker, b"re")
    a.pub((b"kept.x", b"lost", b"re"), client=asker)
    assert len(asker.got) == 1
    b.router.unsubscribe(subscription)
    b.sub(new, b"new")
    net.join("a", "b")
    net.settle()
    a.pub((b"kept.x", b"1"), (b"gone", b"2"), (b"new", b"3"))
    net.settle()
    assert (kept.bodies(), gone.bodies(), new.bodies(), seen) == ([b"1"], [], [b"3"], [False, True])


def test_a_second_connection_makes_frames_of_the_first_void(net: Network) -> None:
    a, b, _ = net.nodes
    sink = Sink()
    subscription = b.sub(sink, b"x")
    b.peers.flush()
    late = [each for each in net.wire if each[:2] == ("b", "a")]
    net.wire = []
    b.peers.up("a")
    b.router.unsubscribe(subscription)
    net.settle()
    assert not a.router.has_interest(b"x")
    for _, _, body in late:
        a.peers.take("b", memoryview(body))
    assert not a.router.has_interest(b"x")


def test_who_was_not_listening_asks_for_everything(net: Network) -> None:
    a, b, _ = net.nodes
    sink = Sink()
    b.sub(sink, b"x")
    net.cut("a", "b")
    net.up |= {("a", "b"), ("b", "a")}
    b.peers.up("a")
    net.nodes[1].peers.flush()
    net.wire = []
    a.peers.up("b", wants=True)
    net.settle()
    a.pub((b"x", b"1"))
    net.settle()
    assert sink.bodies() == [b"1"]


def test_a_slow_node_loses_messages_but_no_interest() -> None:
    net = Network(2, replace(LIMITS, peer_unsent_bytes_max=1000))
    a, b = net.nodes
    sink, other = Sink(), Sink()
    b.sub(sink, b"x")
    net.settle()
    a.pub((b"x", b""))
    assert not a.is_slowed
    net.settle()
    sink.got.clear()
    a.slow, a.backlog = {"b"}, 900
    a.pub((b"x", bytes(50)))
    assert a.is_slowed
    a.pub((b"x", bytes(200)), (b"x", bytes(200)))
    assert a.peers.messages_dropped == 2
    net.settle()
    assert a.router.pending_bytes(b"x") == 900
    woken: list[int] = []
    a.router.when_writable(b"x", lambda: woken.append(1))
    a.backlog = 3000
    a.sub(other, b"late")
    net.settle()
    assert not b.router.has_interest(b"late")
    assert (len(sink.got), woken) == (1, [])
    a.slow, a.backlog = set(), 0
    a.peers.writable("b")
    net.settle()
    assert b.router.has_interest(b"late")
    assert woken == [1]
    a.pub((b"x", b"again"))
    net.settle()
    assert sink.bodies()[1:] == [b"again"]


def test_interest_is_bounded() -> None:
    net = Network(2, replace(LIMITS, peer_interest_max=3))
    a, b = net.nodes
    for at in range(5):
        b.sub(Sink(), b"s.%d" % at)
    net.settle()
    assert [a.router.has_interest(b"s.%d" % at) for at in range(5)] == [True] * 3 + [False] * 2


def test_long_runs_are_cut_and_stay_whole(net: Network) -> None:
    a, b, _ = net.nodes
    sink = Sink()
    b.sub(sink, b"big")
    net.settle()
    payloads = [b"%05d" % at * 2000 for at in range(200)]
    a.pub(*[(b"big", payload) for payload in payloads])
    assert all(len(body) < 1_400_000 for _, _, body in net.wire)
    net.settle()
    assert sink.bodies() == payloads


def test_services_of_other_accounts_answer_across_nodes(net: Network) -> None:
    from server.route.imports import AnswerRule, ServiceImport

    a, b, _ = net.nodes
    importers = []
    for node in (a, b):
        importer = Router("APP", Random(1), node.soon.append)
        node.peers.attach(importer)
        node.router.replies.place = node.name.encode()
        importer.import_service(ServiceImport(node.router, "svc.*", "", AnswerRule()))
        importers.append(importer)
    server, asker = Sink(), Sink()
    b.sub(server, b"svc.*")
    net.settle()
    importers[0].subscribe_client(asker, b"inbox", b"", b"1")
    importers[0].publish_from(asker, [b"svc.x"], [b"inbox"], [], [b"?"])
    net.settle()
    ((_, subject, reply, body),) = server.got
    assert (subject, body) == (b"svc.x", b"?")
    b.pub((reply, b"!"), client=server)
    net.settle()
    assert asker.bodies() == [b"!"]


def test_frames_read_back_as_they_were_written() -> None:
    columns = Columns([b"a", b"b"], [b"", b"re"], (0, 12), [b"x", b"NATS/1.0\r\n\r\nhi"])
    run = Run(b"$G", b"target", True, [b"q1", b"q2"], [b"S.>"], columns, is_api=True, hops=2)
    same = Run(b"A", b"", False, [], [], Columns([b"s"] * 9, [], (), [b"%d" % at for at in range(9)]))
    changes = Interest(b"$G", [Change(0, b"x.>", b"", 1), Change(1, b"y", b"q", 3), Change(2, b"z", b"", 0)])
    parts = [
        session_head(7),
        *encode_sync(wants=True),
        *encode_interest(*changes),
        *encode_run(run),
        *encode_run(same),
    ]
    session, records = decode(memoryview(b"".join(parts)))
    assert session == 7
    assert list(records) == [Sync(True), changes, run, same]


def test_damaged_frames_are_refused_and_harm_nothing() -> None:
    run = Run(b"$G", b"", True, [b"q"], [], Columns([b"a", b"b"], [b"", b"r"], (), [b"1", b"22"]))
    body = b"".join([session_head(1), *encode_sync(wants=False), *encode_run(run)])
    rng = Random(1)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
        try:
            list(decode(memoryview(bytes(damaged[: rng.randrange(len(damaged)) if rng.random() < 0.3 else None])))[1])
        except FrameError:
            refused += 1
    assert refused > 1000


SUBJECTS = [b"a", b"a.b", b"a.c", b"b", b"b.c.d"]
PATTERNS = [*SUBJECTS, b"a.*", b">", b"b.>", b"*"]
QUEUES = [b"", b"", b"", b"q", b"r"]
