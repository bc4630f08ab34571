"""Clients that subscribe, publish, limit and leave at random, against a model that is a list of lists.

For each plain subscription the model knows every message it must get, for each connection their order.
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from net_fakes import QUIET, Peer, ServerBench

EXAMPLES = int(os.environ.get("JETSTORE_EXAMPLES", "40"))
PEERS = 3

tokens = st.sampled_from([b"a", b"b", b"c"])
subjects = st.lists(tokens, min_size=1, max_size=3).map(b".".join)
patterns = st.one_of(
    subjects,
    st.lists(st.one_of(tokens, st.just(b"*")), min_size=1, max_size=3).map(b".".join),
    st.lists(st.one_of(tokens, st.just(b"*")), max_size=2).map(lambda t: b".".join([*t, b">"])),
)
sids = st.sampled_from([b"1", b"2", b"3", b"4"])


def matches(pattern: bytes, subject: bytes) -> bool:
    wanted, given = pattern.split(b"."), subject.split(b".")
    if wanted[-1] == b">":
        return len(given) >= len(wanted) and matches(
            b".".join(wanted[:-1]) or b"*", b".".join(given[: len(wanted) - 1] or [b"x"])
        )
    return len(wanted) == len(given) and all(w in (b"*", g) for w, g in zip(wanted, given, strict=True))


class Subscribed:
    """A subscription of the model."""

    def __init__(self, pattern: bytes, order: int) -> None:
        self.pattern = pattern
        self.order = order
        self.delivered = 0
        self.limit = 0


class CoreMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.bench = ServerBench()
        self.peers = [self.bench.connect() for _ in range(PEERS)]
        self.subscribed: list[dict[bytes, Subscribed]] = [{} for _ in range(PEERS)]
        self.expected: list[list[tuple[bytes, list[tuple[bytes, bytes]]]]] = [[] for _ in range(PEERS)]
        self.received = [b""] * PEERS
        self.made = 0
        self.number = 0

    @rule(who=st.integers(0, PEERS - 1), sid=sids, pattern=patterns)
    def subscribe(self, who: int, sid: bytes, pattern: bytes) -> None:
        self.send(who, b"SUB %b %b\r\n" % (pattern, sid))
        self.made += 1
        self.subscribed[who].setdefault(sid, Subscribed(pattern, self.made))

    @rule(who=st.integers(0, PEERS - 1), sid=sids, limit=st.integers(0, 6))
    def unsubscribe(self, who: int, sid: bytes, limit: int) -> None:
        self.send(who, b"UNSUB %b %d\r\n" % (sid, limit))
        found = self.subscribed[who].get(sid)
        if found is not None:
            found.limit = limit
            if found.delivered >= limit:
                del self.subscribed[who][sid]

    @rule(
        who=st.integers(0, PEERS - 1),
        run=st.lists(st.tuples(subjects, st.integers(1, 12)), min_size=1, max_size=6),
        sized=st.booleans(),
        cut=st.integers(1, 400),
    )
    def publish(self, who: int, run: list[tuple[bytes, int]], sized: bool, cut: int) -> None:
        """Runs of messages in one read or two; bodies of one length or of many."""
        data = b""
        for subject, repeat in run:
            for _ in range(repeat):
                self.number += 1
                body = b"%08d" % self.number if sized else b"%d" % self.number
                data += b"PUB %b %d\r\n%b\r\n" % (subject, len(body), body)
                self.route(subject, body)
        self.send(who, data[:cut])
        self.send(who, data[cut:])

    def route(self, subject: bytes, body: bytes) -> None:
        for who, subscriptions in enumerate(self.subscribed):
            copies = []
            for sid, found in list(subscriptions.items()):
                if matches(found.pattern, subject):
                    copies.append((sid, subject))
                    found.delivered += 1
                    if found.limit and found.delivered >= found.limit:
                        del subscriptions[sid]
            if copies:
                self.expected[who].append((body, copies))

    @rule(who=st.integers(0, PEERS - 1), is_abrupt=st.booleans())
    def leave_and_come_back(self, who: int, is_abrupt: bool) -> None:
        self.check(who)
        transport = self.peers[who].transport
        transport.abort() if is_abrupt else transport.close()
        self.bench.loop.run_soon()
        self.peers[who] = self.bench.connect(QUIET)
        self.subscribed[who], self.expected[who], self.received[who] = {}, [], b""

    def send(self, who: int, data: bytes) -> None:
        peer: Peer = self.peers[who]
        if data:
            peer.connection.data_received(data)
        self.bench.loop.run_soon()
        for at, each in enumerate(self.peers):
            self.received[at] += each.take()

    def check(self, who: int) -> None:
        """Every copy that must come has come, each subscription's in order."""
        parts = self.received[who].split(b"\r\n")
        got: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for head, body in zip(parts[:-1:2], parts[1::2], strict=True):
            op, subject, sid, size = head.split(b" ")
            assert (op, int(size)) == (b"MSG", len(body))
            got.setdefault(sid, []).append((subject, body))
        wanted: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for body, copies in self.expected[who]:
            for sid, subject in copies:
                wanted.setdefault(sid, []).append((subject, body))
        assert got == wanted

    @invariant()
    def everything_agrees(self) -> None:
        if hasattr(self, "bench"):
            for who in range(PEERS):
                self.check(who)
                assert set(self.peers[who].connection.subscriptions) == set(self.subscribed[who])
            assert len(self.bench.router.sublist) == sum(map(len, self.subscribed))
            assert len(self.bench.server.connections) == PEERS


TestCore = CoreMachine.TestCase
TestCore.settings = settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None)
