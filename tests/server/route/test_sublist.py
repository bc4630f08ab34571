"""The sublist against brute force: every subject against every pattern, token by token."""

from __future__ import annotations

import os
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jetstore.node.ports import Inbound
from server.route import sublist as module
from server.route.sublist import NO_MATCH, Match, Sublist, has_wildcard, pattern_matches
from server.route.subscription import Subscription

EXAMPLES = int(os.environ.get("JETSTORE_EXAMPLES", "60"))


class Handler:
    def on_messages(self, batch: Inbound) -> None:
        raise AssertionError("matching delivers nothing")


HANDLER = Handler()


def matches_slowly(pattern: bytes, subject: bytes) -> bool:
    """One token after the other, as the subject rules are written."""
    tokens = subject.split(b".")
    if b"" in tokens:
        return False
    wanted = pattern.split(b".")
    for at, token in enumerate(wanted):
        if token == b">" and at == len(wanted) - 1:
            return len(tokens) > at
        if at >= len(tokens) or (token != b"*" and token != tokens[at]):
            return False
    return len(tokens) == len(wanted)


token = st.sampled_from([b"a", b"b", b"c", b"a*", b">x"])
literal = st.lists(token, min_size=1, max_size=5).map(b".".join)
pattern = st.builds(
    lambda tokens, rest: b".".join([*tokens, b">"] if rest or not tokens else tokens),
    st.lists(st.one_of(token, st.just(b"*")), max_size=5),
    st.booleans(),
)
published = st.one_of(literal, st.lists(st.sampled_from([b"a", b"b", b"", b"*", b">"]), max_size=5).map(b".".join))
queue = st.sampled_from([b"", b"", b"q", b"r"])


def members(match: Match) -> set[Subscription]:
    found = {*match.plain, *match.internal}
    for _, group in match.queues:
        found |= set(group)
    return found


class SublistMachine(RuleBasedStateMachine):
    """Subscriptions come and go while caches are warm; every answer is checked against all patterns."""

    @initialize()
    def start(self) -> None:
        self.sublist = Sublist()
        self.alive: list[Subscription] = []

    @rule(pattern=st.one_of(pattern, literal), queue=queue)
    def insert(self, pattern: bytes, queue: bytes) -> None:
        subscription = Subscription(pattern, queue, handler=HANDLER)
        self.sublist.insert(subscription)
        self.alive.append(subscription)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.alive:
            at = data.draw(st.integers(0, len(self.alive) - 1))
            self.sublist.remove(self.alive.pop(at))

    def expected(self, subject: bytes) -> set[Subscription]:
        return {sub for sub in self.alive if matches_slowly(sub.subject, subject)}

    @rule(subject=published)
    def match(self, subject: bytes) -> None:
        assert members(self.sublist.match(subject)) == self.expected(subject)

    @rule(subjects=st.lists(published, min_size=1, max_size=6))
    def match_some(self, subjects: list[bytes]) -> None:
        self.check_run(subjects)

    @rule(head=literal, tails=st.lists(st.one_of(published, st.integers(0, 99).map(b"%d".__mod__)), min_size=2))
    def match_inbox_like(self, head: bytes, tails: list[bytes]) -> None:
        self.check_run([head + b"." + tail for tail in tails])

    def check_run(self, subjects: list[bytes]) -> None:
        shared = self.sublist.match_all(subjects)
        each = self.sublist.match_each(subjects)
        assert [members(match) for match in each] == [self.expected(subject) for subject in subjects]
        if shared is not None:
            assert all(members(shared) == members(match) for match in each)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "alive"):
            assert len(self.sublist) == len(self.alive)


TestSublist = SublistMachine.TestCase
TestSublist.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)


SMALL = [b".".join(tokens) for count in range(1, 5) for tokens in product([b"a", b"b"], repeat=count)]
ODD = [b"a.", b".a", b"a..b", b"", b".", b"a.b.", b"a.a..a", b"a\nb.a", b"a.*", b"a.>"]
small_pattern = st.builds(
    lambda tokens, rest: b".".join([*tokens, b">"] if rest or not tokens else tokens),
    st.lists(st.sampled_from([b"a", b"b", b"*"]), max_size=4),
    st.booleans(),
)


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(st.lists(small_pattern, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_every_small_subject_and_every_pair_of_them(patterns: list[bytes], order: Random) -> None:
    sublist = Sublist()
    for each in patterns:
        add(sublist, each)
    everything = [*SMALL, *ODD]
    expected = {s: [p for p in patterns if matches_slowly(p, s)] for s in everything}
    order.shuffle(everything)
    for subject in everything:
        assert [sub.subject for sub in sublist.match(subject).internal] == expected[subject]
    sublist._forget()
    for first, second in product(everything, repeat=2):
        shared = sublist.match_all([first, second])
        if shared is not None:
            found = [sub.subject for sub in shared.internal]
            assert found == expected[first] == expected[second], (first, second)


@settings(max_examples=EXAMPLES * 3, deadline=None)
@given(st.one_of(pattern, literal), literal)
def test_pattern_matches(pattern: bytes, subject: bytes) -> None:
    assert pattern_matches(pattern)(subject) == matches_slowly(pattern, subject)


@pytest.mark.parametrize(
    ("subject", "has"),
    [(b"a", False), (b"a*", False), (b">a.b", False), (b"*", True), (b"a.>", True), (b"a.*.b", True)],
)
def test_has_wildcard(subject: bytes, has: bool) -> None:
    assert has_wildcard(subject) is has


def add(sublist: Sublist, subject: bytes, queue: bytes = b"") -> Subscription:
    subscription = Subscription(subject, queue, handler=HANDLER)
    sublist.insert(subscription)
    return subscription


def test_queue_members_of_all_patterns_are_one_group_by_name() -> None:
    class Sink:
        pass

    sublist = Sublist()
    made = [
        Subscription(subject, b"q", sink=Sink())  # type: ignore[arg-type]
        for subject in (b"foo.>", b"foo.*", b"foo.x")
    ]
    for subscription in made:
        sublist.insert(subscription)
    match = sublist.match(b"foo.x")
    assert match.queues == ((b"q", tuple(made)),)
    assert match.plain == ()


def test_a_run_of_inboxes_or_acknowledgements_is_one_match() -> None:
    sublist = Sublist()
    mux = add(sublist, b"_INBOX.me.*")
    acks = add(sublist, b"$JS.ACK.>")
    add(sublist, b"$JS.API.CONSUMER.MSG.NEXT.*.*")
    add(sublist, b"orders.new")
    found = sublist.match_all([b"_INBOX.me.%d" % i for i in range(100)])
    assert found is not None
    assert found.internal == (mux,)
    found = sublist.match_all([b"$JS.ACK.S.C.1.%d.%d.17.0" % (i, i) for i in range(100)])
    assert found is not None
    assert found.internal == (acks,)
    assert sublist.cached() <= 1, "subjects seen once must not fill the cache"


def test_a_literal_in_the_run_is_not_missed() -> None:
    sublist = Sublist()
    add(sublist, b"_INBOX.me.*")
    literal = add(sublist, b"_INBOX.me.7")
    assert sublist.match_all([b"_INBOX.me.%d" % i for i in range(10)]) is None
    assert literal in members(sublist.match(b"_INBOX.me.7"))


def test_equal_wildcard_matches_of_different_subjects_are_one_object() -> None:
    sublist = Sublist()
    add(sublist, b"orders.>")
    add(sublist, b"orders.*.x")
    assert sublist.match(b"orders.a") is sublist.match(b"orders.b")
    assert sublist.match(b"orders.a.x") is not sublist.match(b"orders.a")


def test_matches_list_subscriptions_in_the_order_they_were_made() -> None:
    sublist = Sublist()
    made = [add(sublist, subject) for subject in (b">", b"a.b", b"*.b", b"a.*", b"a.b")]
    assert sublist.match(b"a.b").internal == tuple(made)


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHED_SUBJECTS", 50)
    monkeypatch.setattr(module, "_CACHED_SHAPES", 50)
    sublist = Sublist()
    add(sublist, b"a.*.c")
    add(sublist, b"a.b.*.d.>")
    for i in range(1000):
        sublist.match(b"a.%d.c" % i)
        sublist.match(b"%d.b.c" % i)
    assert sublist.cached() <= 50
    assert len(sublist._shapes) <= 50
    assert sublist._shape_entries <= 50


def test_ten_thousand_consumers_do_not_make_shapes_slow() -> None:
    """Measuring a shape looks at the two head tokens' nodes, not at what is below them."""
    sublist = Sublist()
    wanted = [add(sublist, b"$JS.ACK.S.consumer%d.>" % i) for i in range(10_000)]
    looked_at: list[str] = []

    class Watched(dict[bytes, object]):
        def get(self, *args: Any) -> object:
            looked_at.append("get")
            return super().get(*args)

        def values(self) -> object:  # type: ignore[override]
            raise AssertionError("all children were looked at")

    stream = sublist._root.literals[b"$JS"].literals[b"ACK"].literals[b"S"]
    stream.literals = Watched(stream.literals)  # type: ignore[assignment]
    found = sublist.match_all([b"$JS.ACK.S.consumer7.1.%d.%d.17.0" % (i, i) for i in range(100)])
    assert found is not None
    assert found.internal == (wanted[7],)
    assert len(looked_at) < 10


def test_removed_subscriptions_are_not_kept() -> None:
    sublist = Sublist()
    made = [add(sublist, subject) for subject in (b"a.b", b"a.*", b"x.*.>", b">")]
    sublist.match(b"a.b")
    for subscription in made:
        sublist.remove(subscription)
    assert sublist.match(b"a.b") is NO_MATCH
    assert sublist._root.is_unused()
    assert not sublist._literals
    assert not sublist._interned
