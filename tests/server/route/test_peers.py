"""Routers of several nodes, with links that are moved by hand: who elsewhere gets what, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from jetstore.limits import Limits
from jetstore.node.link.frames import FrameError
from jetstore.node.ports import Inbound
from jetstore.types import Buffer
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
from server.route.peers import Peers
from server.route.router import Router
from server.route.subscription import Answers, Permits, Subscription

LIMITS = Limits()


class Sink:
    """A connection that keeps its messages: sid, subject, reply, payload."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.echo = True
        self.headers = True
        self.no_responders = True
        self.verbose = False
        self.is_closed = False
        self.subscriptions: dict[bytes, Subscription] = {}
        self.out_msgs = 0
        self.out_bytes = 0
        self.permits: Permits | None = None
        self.responses: Answers | None = None
        self.got: list[tuple[bytes, bytes, bytes, bytes]] = []

    def send(self, chunk: bytes) -> None:
        while chunk:
            line, _, rest = chunk.partition(b"\r\n")
            verb, subject, sid, *others = line.split(b" ")
            size = int(others.pop())
            if verb == b"HMSG":
                others.pop()
            self.got.append((sid, subject, others[0] if others else b"", rest[:size]))
            chunk = rest[size + 2 :]

    def bodies(self) -> list[bytes]:
        return [body for *_, body in self.got]

    def pending_bytes(self) -> int:
        return 0

    def when_writable(self, callback: Callable[[], None]) -> None:
        callback()

    def is_congested(self) -> bool:
        return False


class Node:
    """One node's routers and its ends of the links."""

    def __init__(self, net: Network, name: str) -> None:
        self.net = net
        self.name = name
        self.soon: list[Callable[[], None]] = []
        self.slow: set[str] = set()
        self.backlog = 0
        self.frames = 0
        self.is_slowed = False
        self.peers = Peers(self, net.limits, self.soon.append, unshared=frozenset([b"$JS.API.>"]))
        self.router = Router("$G", Random(name), self.soon.append)
        self.system = Router("$SYS", Random(name), self.soon.append)
        for router in (self.router, self.system):
            self.peers.attach(router)

    # PeerPort
    def send_route(self, node_id: str, parts: Sequence[Buffer]) -> None:
        if (self.name, node_id) in self.net.up:
            self.frames += 1
            self.net.wire.append((self.name, node_id, b"".join(parts)))

    def route_backlog(self, node_id: str) -> int:
        return self.backlog if node_id in self.slow else 0

    def is_route_writable(self, node_id: str) -> bool:
        return node_id not in self.slow

    def sub(self, sink: Sink, subject: bytes, queue: bytes = b"", sid: bytes = b"1") -> Subscription:
        return self.router.subscribe_client(sink, subject, queue, sid)

    def pub(self, *messages: tuple[bytes, ...], client: Sink | None = None) -> Sink:
        """Sets ``is_slowed`` to whether the client is to be slowed down."""
        client = client or Sink()
        replies = [message[2] if len(message) > 2 else b"" for message in messages]
        columns = [m[0] for m in messages], replies, [], [m[1] for m in messages]
        self.is_slowed = self.router.publish_from(client, *columns)
        return client


class Network:
    """Some nodes and what is on its way between them."""

    def __init__(self, count: int = 3, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.up: set[tuple[str, str]] = set()
        self.wire: list[tuple[str, str, bytes]] = []
        self.nodes = [Node(self, "abcde"[at]) for at in range(count)]
        self.by_name = {node.name: node for node in self.nodes}
        for one in self.nodes:
            for other in self.nodes:
                if one.name < other.name:
                    self.join(one.name, other.name)
        self.settle()

    def join(self, one: str, other: str) -> None:
        self.up |= {(one, other), (other, one)}
        self.by_name[one].peers.up(other)
        self.by_name[other].peers.up(one)

    def cut(self, one: str, other: str) -> None:
        self.up -= {(one, other), (other, one)}
        self.wire = [each for each in self.wire if {each[0], each[1]} != {one, other}]
        self.by_name[one].peers.down(other)
        self.by_name[other].peers.down(one)

    def settle(self) -> None:
        """Until nothing is on its way."""
        while self.wire or any(node.soon for node in self.nodes):
            for node in self.nodes:
                soon, node.soon[:] = list(node.soon), []
                for callback in soon:
                    callback()
            wire, self.wire = self.wire, []
            for source, target, body in wire:
                self.by_name[target].peers.take(source, memoryview(body))


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


class Cluster(RuleBasedStateMachine):
    """Three routers against one that all clients are on. Whatever is published is delivered as there."""

    @initialize()
    def begin(self) -> None:
        self.net = Network()
        self.model = Router("$G", Random(1), lambda callback: None)
        self.clients: list[tuple[Node, Sink, Sink]] = []
        for at in range(6):
            self.clients.append((self.net.nodes[at % 3], Sink(str(at)), Sink(str(at))))
        for at, (node, real, model) in enumerate(self.clients):
            node.sub(real, b"inbox.%d" % at, sid=b"0")
            self.model.subscribe_client(model, b"inbox.%d" % at, b"", b"0")
        self.sids = 0
        self.bodies = 0
        self.groups: dict[bytes, tuple[int, bytes]] = {}
        """Queue subscriptions: sid → client, group."""

    @rule(at=st.integers(0, 5), pattern=st.sampled_from(PATTERNS), queue=st.sampled_from(QUEUES))
    def subscribe(self, at: int, pattern: bytes, queue: bytes) -> None:
        self.sids += 1
        sid = b"%d" % self.sids
        node, real, model = self.clients[at]
        node.sub(real, pattern, queue, sid)
        self.model.subscribe_client(model, pattern, queue, sid)
        if queue:
            self.groups[sid] = (at, queue)

    @rule(at=st.integers(0, 5), which=st.randoms(use_true_random=False), limit=st.sampled_from([0, 0, 1, 3]))
    def unsubscribe(self, at: int, which: Random, limit: int) -> None:
        node, real, model = self.clients[at]
        sids = [sid for sid in model.subscriptions if sid != b"0" and (not limit or sid not in self.groups)]
        if not sids:
            return
        sid = which.choice(sids)
        for router, sink in ((node.router, real), (self.model, model)):
            subscription = sink.subscriptions[sid]
            if limit:
                router.limit(subscription, subscription.delivered + limit)
            else:
                router.unsubscribe(subscription)
        self.groups.pop(sid, None)

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def reconnect(self, one: int, other: int) -> None:
        names = self.net.nodes[one].name, self.net.nodes[other].name
        if one != other:
            self.net.cut(*names)
            self.net.join(*names)

    @rule(at=st.integers(0, 5), subjects=st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=8))
    def publish(self, at: int, subjects: list[bytes]) -> None:
        self.net.settle()
        node, real, model = self.clients[at]
        messages = []
        for subject in subjects:
            self.bodies += 1
            messages.append((subject, b"%d" % self.bodies, b"inbox.%d" % at))
        node.pub(*messages, client=real)
        columns = [list(column) for column in zip(*messages, strict=True)]
        self.model.publish_from(model, columns[0], columns[2], [], columns[1])
        self.net.settle()
        taken: dict[str, Counter[tuple[bytes, bytes]]] = {"real": Counter(), "model": Counter()}
        for index, pair in enumerate(self.clients):
            plain = []
            for side, sink in (("real", pair[1]), ("model", pair[2])):
                by_sid: dict[bytes, list[tuple[bytes, ...]]] = {}
                for sid, *rest in sink.got:
                    if sid in self.groups:
                        assert self.groups[sid][0] == index
                        taken[side][(self.groups[sid][1], rest[2])] += 1
                    else:
                        by_sid.setdefault(sid, []).append(tuple(rest))
                plain.append(by_sid)
                sink.got.clear()
            assert plain[0] == plain[1]
        assert taken["real"] == taken["model"]


Cluster.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCluster = Cluster.TestCase
