"""Ongaro's thesis, as far as its chapters 3, 4, 6, 9 and 10 speak of rules that the paper does not have."""

from __future__ import annotations

import pytest
from raft_checks import Checker
from raft_paper import K, alone, group, hear, isolate, kinds, propose, run, said, settle, tick, values, win
from raft_world import Member, Watcher

from jetstore.errors import ConfChangeRefused, NotNow
from jetstore.raft.core import RaftOptions
from jetstore.raft.membership import ConfChange
from jetstore.raft.message import MessageKind
from jetstore.raft.ready import Event, ReadState, Role
from jetstore.types import RaftIndex, Term


class Reads(Watcher):
    """Answers to reads, by (member, context)."""

    def __init__(self) -> None:
        self.answers: dict[tuple[int, object], int | None] = {}

    def happened(self, member: Member, event: Event) -> None:
        if isinstance(event, ReadState):
            self.answers[member.number, event.context] = event.index


# -- 3.8 persisted state, 3.10 leadership transfer ---------------------------------------------------------------------


def test_thesis_3_8_term_and_vote_are_durable_before_anything_that_follows_from_them() -> None:
    member = alone(is_async=True)
    member.running.campaign()
    said(member)
    assert hear(member, K.PRE_VOTE_RESPONSE, 2, 1) == [], "its vote for itself"
    member.store()
    assert kinds(said(member)) == [(K.VOTE, 2), (K.VOTE, 3)]
    assert hear(member, K.APPEND, 2, 5, sequence=1) == [], "a new term"
    member.store()
    assert {m.term for m in said(member)} == {5}


def test_thesis_3_10_the_target_is_brought_up_to_date_before_it_is_told_to_stand() -> None:
    member = alone()
    win(member)
    member.running.propose(b"a")
    said(member)
    for index in (1, 2):
        hear(
            member,
            K.APPEND_RESPONSE,
            2,
            1,
            index=RaftIndex(index),
            last_index=RaftIndex(index),
            last_term=Term(1),
            sequence=40 + index,
        )
    hear(member, K.APPEND_RESPONSE, 3, 1, index=RaftIndex(1), last_index=RaftIndex(1), last_term=Term(1), sequence=50)
    member.running.transfer_leader(3)
    assert (K.TIMEOUT_NOW, 3) not in kinds(said(member))
    told = hear(
        member, K.APPEND_RESPONSE, 3, 1, index=RaftIndex(2), last_index=RaftIndex(2), last_term=Term(1), sequence=60
    )
    assert (K.TIMEOUT_NOW, 3) in kinds(told)


def test_thesis_3_10_proposals_wait_and_go_on_after_one_timeout() -> None:
    world = group(3)
    world.members[3].crash()
    leader = world.members[1].running
    leader.transfer_leader(3)
    world.members[1].pump()
    with pytest.raises(NotNow, match="transferred"):
        leader.propose(b"x")
    run(world, 9)
    with pytest.raises(NotNow, match="transferred"):
        leader.propose(b"x")
    run(world, 2)
    leader.propose(b"x")


def test_thesis_3_10_nothing_committed_is_lost_in_a_storm_of_transfers() -> None:
    world = group(3)
    for number in range(30):
        leader = next(n for n, m in world.members.items() if m.running.is_leader)
        propose(world, leader, b"%d" % number)
        world.members[leader].running.transfer_leader(leader % 3 + 1)
        world.members[leader].pump()
        settle(world)
        run(world, 2)
    assert [v for v in values(world.members[1]) if v] == [b"%d" % number for number in range(30)]
    assert max(m.running.term for m in world.members.values()) > 20


def test_thesis_3_10_who_is_no_voter_gets_no_leadership() -> None:
    member = alone(1)
    win_alone(member)
    with pytest.raises(ConfChangeRefused, match="no voter"):
        member.running.transfer_leader(2)


def win_alone(member: Member) -> None:
    member.running.campaign()
    member.pump()
    assert member.running.is_leader


# -- 4.1 – 4.3 membership ----------------------------------------------------------------------------------------------


def test_thesis_4_1_one_change_at_a_time() -> None:
    world = group(3)
    isolate(world, 1)
    leader = world.members[1].running
    leader.propose_conf_change(ConfChange.add_learner("n4", 1))
    with pytest.raises(NotNow, match="under way"):
        leader.propose_conf_change(ConfChange.add_learner("n5", 1))


def test_thesis_4_1_none_before_an_entry_of_the_own_term_is_committed() -> None:
    """The bug of 2015: https://groups.google.com/g/raft-dev/c/t4xj6dJTP6E."""
    member = alone(log=[1, 1], term=1)
    win(member)
    with pytest.raises(NotNow, match="this leader's term"):
        member.running.propose_conf_change(ConfChange.add_learner("n4", 1))
    hear(member, K.APPEND_RESPONSE, 2, 2, index=RaftIndex(3), last_index=RaftIndex(3), last_term=Term(2), sequence=50)
    member.running.propose_conf_change(ConfChange.add_learner("n4", 1))


def test_thesis_4_2_2_who_is_in_nobodys_configuration_starts_no_election() -> None:
    world = group(3)
    joiner = world.add(4)
    joiner.start()
    for _ in range(50):
        joiner.running.tick()
    joiner.pump()
    assert joiner.running.role is Role.FOLLOWER
    assert world.in_flight == []


def test_thesis_4_2_2_members_take_entries_from_a_leader_that_their_configuration_does_not_name() -> None:
    member = alone(2, term=1)
    hear(member, K.APPEND, 9, 3, sequence=1)
    assert (member.running.leader, member.running.term) == (9, 3)


def test_thesis_4_2_2_and_vote_for_candidates_that_it_does_not_name() -> None:
    member = alone(2, term=1)
    (reply,) = hear(member, K.VOTE, 9, 3)
    assert not reply.is_rejected


# -- 6.2, 6.4 clients --------------------------------------------------------------------------------------------------


def test_thesis_6_2_a_leader_without_a_quorum_steps_down() -> None:
    world = group(5)
    isolate(world, 1, 2)
    run(world, 25)
    assert not world.members[1].running.is_leader


def test_thesis_6_2_a_leader_with_a_quorum_does_not() -> None:
    world = group(5)
    isolate(world, 4, 5)
    run(world, 100)
    assert world.members[1].running.is_leader


def test_thesis_6_4_a_read_waits_for_an_entry_of_the_own_term_and_a_round() -> None:
    member = alone(log=[1, 1], term=1)
    reads = Reads()
    member.world.watchers = [reads]
    win(member)
    member.running.read_index("r")
    messages = said(member) + tick(member)
    assert reads.answers == {}
    latest = max(m.sequence for m in messages)
    hear(member, K.HEARTBEAT_RESPONSE, 2, 2, sequence=latest)
    assert reads.answers == {}, "nothing of its term is committed"
    hear(
        member, K.APPEND_RESPONSE, 2, 2, index=RaftIndex(3), last_index=RaftIndex(3), last_term=Term(2), sequence=latest
    )
    latest = max(m.sequence for m in tick(member))
    hear(member, K.HEARTBEAT_RESPONSE, 2, 2, last_index=RaftIndex(3), last_term=Term(2), sequence=latest)
    assert reads.answers == {(1, "r"): 3}


def test_thesis_6_4_an_answer_to_an_earlier_request_proves_nothing() -> None:
    member = alone()
    reads = Reads()
    member.world.watchers = [reads]
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=RaftIndex(1), last_index=RaftIndex(1), last_term=Term(1), sequence=1)
    before = max(m.sequence for m in tick(member))
    member.running.read_index("r")
    hear(member, K.HEARTBEAT_RESPONSE, 2, 1, sequence=before)
    hear(member, K.HEARTBEAT_RESPONSE, 3, 1, sequence=before)
    assert reads.answers == {}
    said(member)
    after = max(m.sequence for m in tick(member))
    hear(member, K.HEARTBEAT_RESPONSE, 3, 1, sequence=after)
    assert reads.answers == {(1, "r"): 1}


def test_thesis_6_4_learners_answers_prove_nothing() -> None:
    world = group(3)
    reads = Reads()
    world.watchers = [*world.watchers, reads]
    leader = world.members[1]
    leader.running.propose_conf_change(ConfChange.add_learner("n4", 1))
    leader.pump()
    world.add(4).start()
    run(world, 3)
    isolate(world, 2, 3)
    leader.running.read_index("r")
    leader.pump()
    for _ in range(3):
        leader.running.tick()
        leader.pump()
        settle(world)
    assert reads.answers == {}


def test_thesis_6_4_a_deposed_leader_says_that_it_cannot_tell() -> None:
    world = group(3)
    reads = Reads()
    world.watchers = [*world.watchers, reads]
    isolate(world, 1)
    world.members[1].running.read_index("r")
    world.members[1].pump()
    run(world, 25)
    assert reads.answers == {(1, "r"): None}


def test_thesis_6_4_followers_ask_the_leader() -> None:
    world = group(3)
    reads = Reads()
    world.watchers = [*world.watchers, reads]
    checker = next(w for w in world.watchers if isinstance(w, Checker))
    propose(world, 1, b"a", b"b")
    settle(world)
    checker.asks(world.members[3], "r")
    world.members[3].running.read_index("r")
    world.members[3].pump()
    run(world, 2)
    assert reads.answers == {(3, "r"): 3}


def test_thesis_6_4_a_lone_voter_needs_no_round() -> None:
    member = alone(1)
    reads = Reads()
    member.world.watchers = [reads]
    win_alone(member)
    member.running.read_index("r")
    member.pump()
    assert reads.answers == {(1, "r"): 1}


# -- 9.6 pre-vote ------------------------------------------------------------------------------------------------------


def test_thesis_9_6_a_pre_vote_changes_nobodys_term_or_vote() -> None:
    member = alone(term=3)
    (reply,) = hear(member, K.PRE_VOTE, 2, 4)
    assert (reply.is_rejected, reply.term) == (False, 4)
    (reply,) = hear(member, K.PRE_VOTE, 3, 4)
    assert not reply.is_rejected
    assert (member.running.term, member.running.vote) == (3, 0)
    assert not member.pending


def test_thesis_9_6_a_candidate_of_an_unavailable_side_does_not_raise_its_term() -> None:
    world = group(5)
    isolate(world, 4, 5)
    run(world, 200)
    assert {world.members[n].running.term for n in (4, 5)} == {1}
    world.cuts.clear()
    run(world, 20)
    assert world.members[1].running.is_leader
    assert world.members[1].running.term == 1


def test_thesis_9_6_granted_for_an_earlier_round_counts_for_nothing() -> None:
    member = alone(5, term=1)
    tick(member, 10)
    hear(member, K.HEARTBEAT, 2, 4)
    member.running.forget_leader()
    member.running.campaign()
    for sender in (2, 3, 4, 5):
        hear(member, K.PRE_VOTE_RESPONSE, sender, 2)
    assert member.running.role is Role.PRE_CANDIDATE


# -- 10.2 performance --------------------------------------------------------------------------------------------------


def appends(messages: list[object]) -> list[tuple[int, int, int]]:
    return [(m.to, m.index, len(m.entries)) for m in messages if m.kind is MessageKind.APPEND]  # type: ignore[attr-defined]


def acked(member: Member, sender: int, index: int, sequence: int) -> list[object]:
    return list(
        hear(
            member,
            K.APPEND_RESPONSE,
            sender,
            1,
            index=RaftIndex(index),
            last_index=RaftIndex(index),
            last_term=Term(1),
            sequence=sequence,
        )
    )


def test_thesis_10_2_1_the_leader_writes_while_followers_do() -> None:
    member = alone()
    win(member)
    for sender in (2, 3):
        acked(member, sender, 1, 20)
    member.is_async = True
    member.running.propose(b"a")
    assert appends(list(said(member))) == [(2, 1, 1), (3, 1, 1)]
    assert len(member.pending) == 1


def test_thesis_10_2_2_appends_are_pipelined_and_bounded() -> None:
    member = alone(options=RaftOptions(inflight_appends_max=2))
    win(member)
    acked(member, 2, 1, 20)
    said(member)
    sent = []
    for number in range(4):
        member.running.propose(b"%d" % number)
        sent += [a for a in appends(list(said(member))) if a[0] == 2]
    assert sent == [(2, 1, 1), (2, 2, 1)]
    more = [a for a in appends(acked(member, 2, 2, 30)) if a[0] == 2]
    assert more[0][:2] == (2, 3)


def test_thesis_10_2_2_what_came_together_goes_together() -> None:
    member = alone()
    win(member)
    acked(member, 2, 1, 20)
    said(member)
    for number in range(5):
        member.running.propose(b"%d" % number)
    assert [a for a in appends(list(said(member))) if a[0] == 2] == [(2, 1, 5)]


def test_thesis_10_2_2_a_gap_in_the_pipeline_goes_back_to_probing() -> None:
    member = alone()
    win(member)
    acked(member, 2, 1, 20)
    said(member)
    for number in range(3):
        member.running.propose(b"%d" % number)
        said(member)
    again = hear(
        member,
        K.APPEND_RESPONSE,
        2,
        1,
        is_rejected=True,
        index=RaftIndex(3),
        hint_index=RaftIndex(1),
        hint_term=Term(1),
        last_index=RaftIndex(1),
        last_term=Term(1),
        sequence=40,
    )
    assert appends(list(again)) == [(2, 1, 3)]
    member.running.propose(b"later")
    assert [a for a in appends(list(said(member))) if a[0] == 2] == [], "one at a time until it answers"


def test_thesis_10_a_slow_follower_holds_up_nobody() -> None:
    world = group(3, options=RaftOptions(inflight_appends_max=1, inflight_bytes_max=1 << 20))
    isolate(world, 3)
    for number in range(50):
        propose(world, 1, b"%d" % number)
        settle(world)
    assert world.members[1].applied_index == 51
    world.cuts.clear()
    run(world, 30)
    assert world.members[3].applied_index == 51
