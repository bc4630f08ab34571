"""Goal: any number of nodes deliver what one router would. Method: hypothesis, three routers beside one."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from peer_world import Network, Node, Sink

from server.route.router import Router

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
        # Another node does not know at once that a subscription has had its last message: that 503 comes later there.
        has_limits = any(each.max_messages for _, _, sink in self.clients for each in sink.subscriptions.values())
        for run in [[message] for message in messages] if has_limits else [messages]:
            node.pub(*run, client=real)
            columns = [list(column) for column in zip(*run, strict=True)]
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
