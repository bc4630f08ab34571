"""Raft paper §5.1 (terms) and §5.2 (leader election), rule by rule."""

from __future__ import annotations

import pytest
from raft_paper import K, alone, group, hear, isolate, kinds, run, said, settle, tick, win

from jetstore.errors import NotNow
from jetstore.raft.ready import HardState, Role
from jetstore.types import RaftIndex, Term

# -- §5.1 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_paper_5_1_a_higher_term_makes_a_follower(role: str) -> None:
    member = alone()
    if role == "leader":
        win(member)
    elif role == "candidate":
        member.running.campaign()
        hear(member, K.PRE_VOTE_RESPONSE, 2, 1)
        assert member.running.role is Role.CANDIDATE
    hear(member, K.APPEND, 3, 5)
    assert member.running.role is Role.FOLLOWER
    assert (member.running.term, member.running.leader) == (5, 3)
    assert member.disk.hard_state == HardState(Term(5), 0)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (K.APPEND, K.HEARTBEAT_RESPONSE),
        (K.HEARTBEAT, K.HEARTBEAT_RESPONSE),
        (K.SNAPSHOT, K.HEARTBEAT_RESPONSE),
        (K.TIMEOUT_NOW, K.HEARTBEAT_RESPONSE),
        (K.VOTE, K.VOTE_RESPONSE),
        (K.PRE_VOTE, K.PRE_VOTE_RESPONSE),
    ],
)
def test_paper_5_1_a_request_of_an_older_term_is_refused_with_the_newer_one(kind: object, answer: object) -> None:
    member = alone(term=4, log=[4])
    (reply,) = hear(member, kind, 2, 3, last_index=RaftIndex(9), last_term=Term(3))  # type: ignore[arg-type]
    assert (reply.kind, reply.to, reply.term) == (answer, 2, 4)
    assert reply.is_rejected or kind not in (K.VOTE, K.PRE_VOTE)
    assert (member.running.term, member.running.leader, member.running.role) == (4, 0, Role.FOLLOWER)


def test_paper_5_1_an_answer_of_an_older_term_counts_for_nothing() -> None:
    member = alone(5)
    member.running.campaign()
    for sender in (2, 3):
        hear(member, K.PRE_VOTE_RESPONSE, sender, 1)
    assert member.running.role is Role.CANDIDATE
    hear(member, K.VOTE, 2, 4)
    hear(member, K.HEARTBEAT, 2, 4)
    member.running.forget_leader()
    member.running.campaign()
    for sender in (2, 3):
        hear(member, K.PRE_VOTE_RESPONSE, sender, 5)
    for sender in (2, 3, 4, 5):
        hear(member, K.VOTE_RESPONSE, sender, 1)
    assert member.running.role is Role.CANDIDATE
    assert member.running.term == 5


# -- §5.2 -------------------------------------------------------------------------------------------------------------


def test_paper_5_2_members_start_as_followers_and_stay_so_while_a_leader_is_heard() -> None:
    member = alone()
    assert member.running.role is Role.FOLLOWER
    for _ in range(30):
        tick(member, 9)
        hear(member, K.HEARTBEAT, 2, 1)
    assert (member.running.role, member.running.term) == (Role.FOLLOWER, 1)


def test_paper_5_2_a_leader_sends_heartbeats_to_everybody() -> None:
    member = alone(5)
    win(member)
    assert {to for kind, to in kinds(tick(member)) if kind is K.HEARTBEAT} == {2, 3, 4, 5}


def test_paper_5_2_silence_starts_an_election() -> None:
    """It increments its term, votes for itself, asks all others in parallel; each when the step before is durable."""
    member = alone(term=2, log=[1, 2])
    messages = tick(member, 10)
    assert kinds(messages) == [(K.PRE_VOTE, 2), (K.PRE_VOTE, 3)]
    assert member.disk.hard_state == HardState(Term(2), 0)
    requests = hear(member, K.PRE_VOTE_RESPONSE, 2, 3)
    assert kinds(requests) == [(K.VOTE, 2), (K.VOTE, 3)]
    assert {(m.term, m.last_index, m.last_term) for m in requests} == {(3, 2, 2)}
    assert member.disk.hard_state == HardState(Term(3), 1)


@pytest.mark.parametrize(
    ("count", "granted", "refused", "role"),
    [
        (1, 0, 0, Role.LEADER),
        (2, 0, 0, Role.CANDIDATE),
        (2, 1, 0, Role.LEADER),
        (2, 0, 1, Role.FOLLOWER),
        (3, 1, 0, Role.LEADER),
        (3, 0, 1, Role.CANDIDATE),
        (3, 0, 2, Role.FOLLOWER),
        (3, 1, 1, Role.LEADER),
        (4, 1, 0, Role.CANDIDATE),
        (4, 2, 1, Role.LEADER),
        (4, 1, 2, Role.FOLLOWER),
        (5, 1, 0, Role.CANDIDATE),
        (5, 2, 0, Role.LEADER),
        (5, 2, 2, Role.LEADER),
        (5, 1, 2, Role.CANDIDATE),
        (5, 1, 3, Role.FOLLOWER),
        (7, 2, 3, Role.CANDIDATE),
        (7, 3, 0, Role.LEADER),
    ],
)
def test_paper_5_2_a_candidate_wins_with_a_majority(count: int, granted: int, refused: int, role: Role) -> None:
    member = alone(count)
    member.running.campaign()
    said(member)
    for other in range(2, count + 1):
        hear(member, K.PRE_VOTE_RESPONSE, other, 1)
    for other in range(2, 2 + granted + refused):
        hear(member, K.VOTE_RESPONSE, other, 1, is_rejected=other < 2 + refused)
    assert member.running.role is role
    assert member.running.term == 1


def test_paper_5_2_a_vote_counts_once() -> None:
    member = alone(5)
    member.running.campaign()
    for other in (2, 3):
        hear(member, K.PRE_VOTE_RESPONSE, other, 1)
    for _ in range(5):
        hear(member, K.VOTE_RESPONSE, 2, 1)
    assert member.running.role is Role.CANDIDATE
    hear(member, K.VOTE_RESPONSE, 3, 1)
    assert member.running.is_leader


def test_paper_5_2_one_vote_per_term_first_come_first_served() -> None:
    member = alone()
    (reply,) = hear(member, K.VOTE, 2, 1)
    assert not reply.is_rejected
    (reply,) = hear(member, K.VOTE, 3, 1)
    assert reply.is_rejected
    (reply,) = hear(member, K.VOTE, 2, 1)  # asked again: the same answer
    assert not reply.is_rejected
    assert member.disk.hard_state == HardState(Term(1), 2)


def test_paper_5_2_the_vote_survives_a_restart() -> None:
    member = alone()
    hear(member, K.VOTE, 2, 1)
    member.crash()
    member.start()
    (reply,) = hear(member, K.VOTE, 3, 1)
    assert reply.is_rejected
    (reply,) = hear(member, K.VOTE, 2, 1)
    assert not reply.is_rejected


def test_paper_5_2_a_vote_that_is_not_durable_is_not_told() -> None:
    member = alone(is_async=True)
    assert hear(member, K.VOTE, 2, 1) == []
    member.crash()
    member.start()
    assert hear(member, K.VOTE, 3, 1) == []
    member.store()
    (reply,) = said(member)
    assert (reply.kind, reply.to, reply.is_rejected) == (K.VOTE_RESPONSE, 3, False)


def test_paper_5_2_a_candidate_gives_way_to_a_leader_of_its_term_and_not_of_an_older_one() -> None:
    member = alone(5, term=2, log=[2])
    tick(member, 10)
    hear(member, K.PRE_VOTE_RESPONSE, 2, 3)
    hear(member, K.PRE_VOTE_RESPONSE, 3, 3)
    hear(member, K.APPEND, 4, 2, index=RaftIndex(1), log_term=Term(2))
    assert member.running.role is Role.CANDIDATE
    hear(member, K.APPEND, 4, 3, index=RaftIndex(1), log_term=Term(2))
    assert (member.running.role, member.running.leader, member.running.term) == (Role.FOLLOWER, 4, 3)


def test_paper_5_2_a_split_vote_is_tried_again_in_a_new_term() -> None:
    member = alone(5)
    tick(member, 10)
    for other in (2, 3):
        hear(member, K.PRE_VOTE_RESPONSE, other, 1)
    hear(member, K.VOTE_RESPONSE, 2, 1)
    hear(member, K.VOTE_RESPONSE, 3, 1, is_rejected=True)
    messages = tick(member, 10)
    assert set(kinds(messages)) == {(K.PRE_VOTE, n) for n in (2, 3, 4, 5)}
    assert {m.term for m in messages} == {2}


def test_paper_5_2_election_timeouts_are_drawn_anew() -> None:
    """From [timeout, 2 × timeout), each value possible, and drawn again for every election."""
    waits = set()
    for drawn in range(10):
        member = alone()
        member.running.random_below = lambda bound, d=drawn: d % bound  # type: ignore[misc]
        member.running.election.reset()
        ticks = 0
        while not tick(member):
            ticks += 1
        waits.add(ticks + 1)
    assert waits == set(range(10, 20))


def test_paper_5_2_with_different_timeouts_one_stands_and_the_others_vote() -> None:
    world = group(5, leader=0)
    run(world, 12)
    leaders = [n for n, m in world.members.items() if m.running.is_leader]
    assert leaders == [1]
    assert {m.running.term for m in world.members.values()} == {1}


def test_paper_5_2_a_minority_never_elects() -> None:
    world = group(5)
    isolate(world, 1, 2)
    run(world, 80)
    assert not any(world.members[n].running.is_leader for n in (1, 2))
    assert any(world.members[n].running.is_leader for n in (3, 4, 5))
    assert {world.members[n].running.term for n in (1, 2)} == {1}, "pre-votes change no term"


def test_paper_5_2_two_leaders_of_different_terms_and_the_older_one_commits_nothing() -> None:
    world = group(3)
    isolate(world, 1)
    world.members[1].running.propose(b"stale")
    world.members[1].pump()
    run(world, 25, 2, 3)
    assert world.members[2].running.is_leader
    assert world.members[1].running.is_leader
    committed = world.members[1].running.log.committed_index
    assert committed == 1
    world.cuts.clear()
    settle(world)
    run(world, 3)
    assert not world.members[1].running.is_leader
    assert [e.data for e in world.members[1].disk.entries] == [b"", b""]


def test_paper_5_2_only_a_leader_takes_proposals() -> None:
    member = alone()
    with pytest.raises(NotNow, match="no leader"):
        member.running.propose(b"a")
    tick(member, 10)
    with pytest.raises(NotNow, match="no leader"):
        member.running.propose(b"a")


def test_paper_5_2_a_lone_voter_elects_itself_when_its_vote_is_durable() -> None:
    member = alone(1, is_async=True)
    member.running.campaign()
    member.pump()
    assert not member.running.is_leader
    member.store(1)
    assert member.running.is_leader
