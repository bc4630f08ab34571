"""Raft paper §5.3 (log replication), rule by rule."""

from __future__ import annotations

import pytest
from raft_paper import K, alone, entry, group, hear, kinds, propose, run, said, settle, terms, tick, values, win

from jetstore.raft.message import Message
from jetstore.raft.ready import HardState
from jetstore.types import RaftIndex, Term


def append(
    index: int, log_term: int, entries: list[tuple[int, int]], commit: int = 0, sequence: int = 1
) -> dict[str, object]:
    return {
        "index": RaftIndex(index),
        "log_term": Term(log_term),
        "entries": tuple(entry(i, t) for i, t in entries),
        "commit": RaftIndex(commit),
        "sequence": sequence,
    }


def test_paper_5_3_a_leader_sends_new_entries_to_everybody_at_once() -> None:
    """Also while its own write is under way (thesis §10.2.1)."""
    member = alone()
    for reply in (m for m in win(member) if m.kind is K.APPEND):
        hear(
            member,
            K.APPEND_RESPONSE,
            reply.to,
            1,
            index=RaftIndex(1),
            last_index=RaftIndex(1),
            last_term=Term(1),
            sequence=reply.sequence,
        )
    member.is_async = True
    member.running.propose(b"some data")
    messages = [m for m in said(member) if m.kind is K.APPEND]
    assert {m.to for m in messages} == {2, 3}
    for message in messages:
        assert (message.index, message.log_term) == (1, 1)
        assert [e.data for e in message.entries] == [b"some data"]
    assert member.pending


@pytest.mark.parametrize(
    ("count", "others", "is_committed"),
    [
        (1, [], True),
        (3, [], False),
        (3, [2], True),
        (3, [2, 3], True),
        (5, [2], False),
        (5, [2, 3], True),
        (5, [4, 5], True),
        (4, [2], False),
        (4, [2, 3], True),
    ],
)
def test_paper_5_3_an_entry_is_committed_when_a_majority_has_it(
    count: int, others: list[int], is_committed: bool
) -> None:
    member = alone(count)
    win(member)
    tick(member)
    for other in others:
        hear(
            member,
            K.APPEND_RESPONSE,
            other,
            1,
            index=RaftIndex(1),
            last_index=RaftIndex(1),
            last_term=Term(1),
            sequence=1,
        )
    assert (member.running.log.committed_index == 1) is is_committed


def test_paper_5_3_the_leader_counts_its_own_copy_when_it_is_durable() -> None:
    member = alone()
    win(member)
    member.is_async = True
    member.running.propose(b"a")
    said(member)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=RaftIndex(2), last_index=RaftIndex(2), last_term=Term(1), sequence=1)
    assert member.running.log.committed_index == 1
    member.store()
    assert member.running.log.committed_index == 2


def test_paper_5_3_two_others_are_a_quorum_without_the_leaders_disk() -> None:
    """Thesis §10.2.1. Applied here only once it is durable here too."""
    member = alone()
    win(member)
    member.is_async = True
    member.running.propose(b"a")
    said(member)
    for other in (2, 3):
        hear(
            member,
            K.APPEND_RESPONSE,
            other,
            1,
            index=RaftIndex(2),
            last_index=RaftIndex(2),
            last_term=Term(1),
            sequence=1,
        )
    assert member.running.log.committed_index == 2
    assert member.applied_index == 1
    member.store()
    member.pump()
    assert member.applied_index == 2


def test_paper_5_3_followers_learn_what_is_committed_and_apply_it_in_order() -> None:
    member = alone(term=1)
    hear(member, K.APPEND, 2, 1, **append(0, 0, [(1, 1), (2, 1), (3, 1)], commit=2))
    assert member.applied_index == 2
    hear(member, K.HEARTBEAT, 2, 1, commit=RaftIndex(3), sequence=2)
    assert member.applied_index == 3


def test_paper_5_3_a_commit_index_beyond_what_is_known_to_agree_is_not_believed() -> None:
    """Entries behind those of this append may be an older leader's."""
    member = alone(term=2, log=[1, 1, 2])
    hear(member, K.APPEND, 2, 3, **append(1, 1, [(2, 1)], commit=3))
    assert member.running.log.committed_index == 2
    hear(member, K.HEARTBEAT, 2, 3, commit=RaftIndex(3), sequence=2)
    assert member.running.log.committed_index == 2


def test_paper_5_3_everything_before_a_committed_entry_is_committed() -> None:
    member = alone(log=[1, 1, 2], term=2)
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 3, index=RaftIndex(4), last_index=RaftIndex(4), last_term=Term(3), sequence=99)
    assert member.applied_index == 4


@pytest.mark.parametrize(
    ("index", "log_term", "is_refused"),
    [(0, 0, False), (1, 1, False), (2, 2, False), (1, 2, True), (2, 1, True), (3, 3, True), (7, 2, True)],
)
def test_paper_5_3_the_consistency_check(index: int, log_term: int, is_refused: bool) -> None:
    """An append is taken only if the entry before it is here; a refusal changes nothing."""
    member = alone(log=[1, 2], term=2)
    (reply,) = hear(member, K.APPEND, 2, 3, **append(index, log_term, [(index + 1, 3)]))
    assert reply.kind is K.APPEND_RESPONSE
    assert reply.is_rejected is is_refused
    if is_refused:
        assert reply.index == index
        assert terms(member) == [1, 2]
        assert reply.hint_index < max(index, 3)
    else:
        assert reply.index == index + 1


def test_paper_5_3_log_of_follower_is_compared_with_its_own_entry_not_only_its_length() -> None:
    member = alone(log=[1, 1, 1], term=1)
    (reply,) = hear(member, K.APPEND, 2, 4, **append(3, 3, [(4, 4)]))
    assert reply.is_rejected
    assert (reply.hint_index, reply.hint_term) == (3, 1)
    assert (reply.last_index, reply.last_term) == (3, 1)


@pytest.mark.parametrize(
    ("before", "sent", "after"),
    [
        ([1, 2], (2, 2, [(3, 3)]), [1, 2, 3]),
        ([1, 2], (1, 1, [(2, 3), (3, 4)]), [1, 3, 4]),
        ([1, 2], (0, 0, [(1, 1)]), [1, 2]),
        ([1, 2], (0, 0, [(1, 3)]), [3]),
        ([1, 2, 2, 2], (1, 1, [(2, 2)]), [1, 2, 2, 2]),
        ([1, 2, 2, 2], (1, 1, [(2, 2), (3, 3)]), [1, 2, 3]),
        ([], (0, 0, [(1, 1), (2, 3)]), [1, 3]),
    ],
)
def test_paper_5_3_conflicting_entries_are_replaced_and_agreeing_ones_kept(
    before: list[int], sent: tuple[int, int, list[tuple[int, int]]], after: list[int]
) -> None:
    """A late, short append must not cut off what came after it."""
    member = alone(log=before, term=2)
    hear(member, K.APPEND, 2, 5, **append(*sent))
    assert terms(member) == after
    assert [e.term for e in member.running.log.slice(RaftIndex(1), member.running.log.last_index)] == after


LOGS = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("name", LOGS)
def test_paper_5_3_figure_7_a_follower_becomes_like_its_leader(name: str) -> None:
    """Two real logs; the third member's vote is forged, so that the leader wins against longer logs too."""
    world = group(3, leader=0, is_checked=False)
    leader, follower = world.members[1], world.members[2]
    world.members[3].crash()
    for member, log in ((leader, [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]), (follower, LOGS[name])):
        member.crash()
        member.disk.entries = [entry(i, t) for i, t in enumerate(log, 1)]
        member.disk.hard_state = HardState(Term(7), 0)
        member.start()
    leader.running.campaign()
    leader.pump()
    for kind in (K.PRE_VOTE_RESPONSE, K.VOTE_RESPONSE):
        leader.running.step(Message(kind, 3, 1, Term(8)))
        leader.pump()
    assert leader.running.is_leader
    settle(world, 1, 2)
    run(world, 2, 1, 2)
    assert terms(follower) == terms(leader) == [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]
    assert values(follower) == values(leader)
    assert follower.running.log.committed_index == 11


def test_paper_5_3_finding_where_logs_agree_takes_a_round_per_term_not_per_entry() -> None:
    """The end of §5.3: a follower with 100 entries of another term is brought round in a few messages."""
    world = group(3, leader=0, is_checked=False)
    leader, follower = world.members[1], world.members[2]
    world.members[3].crash()
    for member, log in ((leader, [1] * 5 + [3] * 100), (follower, [1] * 5 + [2] * 100)):
        member.crash()
        member.disk.entries = [entry(i, t) for i, t in enumerate(log, 1)]
        member.start()
    leader.running.campaign()
    leader.pump()
    count = 0
    while world.in_flight:
        message = world.in_flight.pop(0)
        count += message.kind is K.APPEND_RESPONSE and message.is_rejected
        if world.deliver(message):
            world.members[message.to].pump()
    assert terms(follower) == terms(leader)
    assert count <= 3


def test_paper_5_3_a_leader_never_overwrites_its_own_log() -> None:
    world = group(3)
    propose(world, 1, b"a", b"b")
    leader = world.members[1]
    before = list(leader.disk.entries)
    world.members[2].crash()
    settle(world)
    world.members[2].start()
    run(world, 3)
    assert leader.disk.entries[: len(before)] == before


def test_paper_5_3_a_slow_or_dead_follower_is_tried_again_until_it_has_everything() -> None:
    world = group(3)
    world.members[3].crash()
    for number in range(20):
        propose(world, 1, b"%d" % number)
        run(world, 2)
    assert world.members[1].applied_index == 21
    world.members[3].start()
    run(world, 3)
    assert values(world.members[3]) == values(world.members[1])
    assert world.members[3].applied_index == 21


def test_paper_5_3_requests_are_repeated_when_answers_are_lost() -> None:
    world = group(3)
    propose(world, 1, b"a")
    world.in_flight.clear()
    run(world, 3)
    assert all(m.applied_index == 2 for m in world.members.values())


def test_paper_5_5_delivered_twice_is_as_delivered_once() -> None:
    member = alone(term=1)
    fields = append(0, 0, [(1, 1), (2, 1)], commit=1)
    first = hear(member, K.APPEND, 2, 1, **fields)
    again = hear(member, K.APPEND, 2, 1, **fields)
    assert [(m.kind, m.index) for m in first] == [(m.kind, m.index) for m in again] == [(K.APPEND_RESPONSE, 2)]
    assert terms(member) == [1, 1]
    assert member.applied_index == 1


def test_paper_5_3_a_leader_answers_no_append_of_its_own_term() -> None:
    """Two leaders of one term cannot be: it is an assertion, not a state to continue from."""
    member = alone()
    win(member)
    with pytest.raises(AssertionError, match="two leaders"):
        hear(member, K.APPEND, 2, 1)
    assert kinds(said(member)) == []
