"""Raft paper §5.4 (safety), §5.5 (crashes) and §5.6 (timing), rule by rule."""

from __future__ import annotations

import pytest
from raft_paper import (
    K,
    alone,
    elect,
    entry,
    group,
    hear,
    isolate,
    propose,
    run,
    said,
    settle,
    terms,
    tick,
    values,
    win,
)

from jetstore.raft.ready import HardState
from jetstore.types import RaftIndex, Term

# -- §5.4.1 election restriction --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "last_index", "last_term", "is_granted"),
    [
        ([], 0, 0, True),
        ([1], 0, 0, False),
        ([1], 1, 1, True),
        ([1], 2, 1, True),
        ([1], 1, 2, True),
        ([1, 1, 1], 1, 2, True),  # a later term wins over any length
        ([1, 1, 1], 2, 1, False),
        ([1, 2], 5, 1, False),
        ([1, 2], 2, 2, True),
        ([1, 2], 1, 2, False),
    ],
)
@pytest.mark.parametrize("kind", [K.PRE_VOTE, K.VOTE])
def test_paper_5_4_1_votes_go_to_logs_that_are_at_least_as_up_to_date(
    kind: object, log: list[int], last_index: int, last_term: int, is_granted: bool
) -> None:
    member = alone(term=2, log=log)
    (reply,) = hear(member, kind, 2, 3, last_index=RaftIndex(last_index), last_term=Term(last_term))  # type: ignore[arg-type]
    assert reply.is_rejected is not is_granted


def test_paper_5_4_1_an_entry_that_is_written_and_not_durable_counts_for_votes_too() -> None:
    """It may become durable, and be acknowledged, before the candidate's term is known to the leader that sent it."""
    member = alone(term=1, log=[1])
    member.is_async = True
    hear(member, K.APPEND, 2, 1, index=RaftIndex(1), log_term=Term(1), entries=(entry(2, 1),), sequence=1)
    member.running.forget_leader()
    hear(member, K.VOTE, 3, 2, last_index=RaftIndex(1), last_term=Term(1))
    member.store()
    replies = [m for m in said(member) if m.kind is K.VOTE_RESPONSE]
    assert [m.is_rejected for m in replies] == [True]


def test_paper_5_4_1_a_new_leader_has_every_committed_entry() -> None:
    """Whoever of the others is asked to stand: only those that have it win."""
    for lagging in (2, 3):
        world = group(3)
        isolate(world, lagging)
        propose(world, 1, b"committed")
        settle(world)
        assert world.members[1].applied_index == 2
        world.members[1].crash()
        world.cuts.clear()
        world.members[lagging].running.forget_leader()
        other = 5 - lagging
        world.members[other].running.forget_leader()
        world.members[lagging].running.campaign()
        world.members[lagging].pump()
        settle(world)
        assert not world.members[lagging].running.is_leader
        run(world, 40)
        assert world.members[other].running.is_leader
        assert values(world.members[lagging])[:2] == [b"", b"committed"]


# -- §5.4.2 committing entries from previous terms --------------------------------------------------------------------


@pytest.mark.parametrize(("acked", "committed"), [(1, 0), (2, 0), (3, 3)])
def test_paper_5_4_2_only_entries_of_the_leaders_term_are_committed_by_counting(acked: int, committed: int) -> None:
    member = alone(term=2, log=[1, 2])
    win(member)
    hear(
        member,
        K.APPEND_RESPONSE,
        2,
        3,
        index=RaftIndex(acked),
        last_index=RaftIndex(acked),
        last_term=Term(acked),
        sequence=50,
    )
    assert member.running.log.committed_index == committed


def test_paper_5_4_2_figure_8_an_older_entry_on_a_majority_can_be_overwritten() -> None:
    """As golden script figure_8_unsafe, with real members and in one breath; the checker watches R1–R11."""
    world = group(5, leader=0)
    elect(world, 1)
    isolate(world, 1, 2)
    propose(world, 1, b"black")
    settle(world)  # (a) on 1 and 2
    world.members[1].crash()
    world.cuts.clear()
    isolate(world, 2)
    for number in (3, 4, 5):
        world.members[number].running.forget_leader()
    world.members[5].running.campaign()
    world.members[5].pump()
    settle(world)
    assert world.members[5].running.is_leader
    isolate(world, 5)
    propose(world, 5, b"blue")
    world.in_flight.clear()
    world.members[5].crash()  # (b)
    world.cuts.clear()
    world.members[1].start()
    run(world, 60, 1, 2, 3, 4)
    # (c)/(e): whoever leads now had to be as up to date as a majority; what 1 and 2 had may be there or not, but
    # what is committed stays when 5 comes back
    committed = max(m.running.log.committed_index for n, m in world.members.items() if n != 5)
    kept = values(world.members[1])[:committed]
    world.members[5].start()
    run(world, 60)
    assert values(world.members[5])[:committed] == kept


def test_paper_5_4_2_a_leader_begins_its_term_with_an_empty_entry() -> None:
    member = alone(term=4, log=[2, 4])
    messages = [m for m in win(member) if m.kind is K.APPEND]
    assert [(e.index, e.term, e.data) for e in messages[0].entries] == [(3, 5, b"")]


# -- §5.4.3 -----------------------------------------------------------------------------------------------------------


def test_paper_5_4_3_members_apply_the_same_entries_at_the_same_index() -> None:
    world = group(5)
    for number in range(30):
        if number % 7 == 3:
            world.members[2 + number % 4].crash()
        if number % 7 == 6:
            for member in world.members.values():
                if not member.is_up:
                    member.start()
        leader = next((n for n, m in world.members.items() if m.is_up and m.running.is_leader), 0)
        if leader:
            propose(world, leader, b"%d" % number)
        run(world, 3)
    for member in world.members.values():
        if not member.is_up:
            member.start()
    run(world, 30)
    assert len({(m.applied_index, m.state) for m in world.members.values()}) == 1


# -- §5.5, §5.6 -------------------------------------------------------------------------------------------------------


def test_paper_5_5_a_crashed_follower_is_tried_for_ever_and_catches_up() -> None:
    world = group(3)
    world.members[3].crash()
    propose(world, 1, b"a", b"b")
    run(world, 100)
    assert world.members[1].running.is_leader
    world.members[3].start()
    run(world, 3)
    assert values(world.members[3]) == [b"", b"a", b"b"]


def test_paper_5_5_what_was_not_durable_is_gone_after_a_crash_and_nobody_was_told_of_it() -> None:
    world = group(3)
    for number in (2, 3):
        world.members[number].is_async = True
    propose(world, 1, b"a")
    settle(world)
    assert world.members[1].running.log.committed_index == 1
    for number in (2, 3):
        world.members[number].crash()
        world.members[number].start()
    assert terms(world.members[2]) == [1]
    for number in (2, 3):
        world.members[number].is_async = False
    run(world, 30)
    assert {m.applied_index for m in world.members.values()} >= {2}


def test_paper_5_5_a_restart_keeps_term_vote_and_log_and_nothing_else() -> None:
    member = alone(term=3, vote=2, log=[1, 3])
    hear(member, K.APPEND, 2, 3, index=RaftIndex(2), log_term=Term(3), commit=RaftIndex(2), sequence=1)
    assert member.running.log.committed_index == 2
    member.crash()
    member.start()
    core = member.running
    assert (core.term, core.vote, core.leader) == (3, 2, 0)
    assert (core.log.last_index, core.log.committed_index) == (2, 0)
    assert member.disk.hard_state == HardState(Term(3), 2)


def test_paper_5_6_nobody_is_elected_while_heartbeats_come_in_time() -> None:
    world = group(5)
    run(world, 300)
    assert {m.running.term for m in world.members.values()} == {1}
    assert world.members[1].running.is_leader


def test_paper_5_4_1_a_term_record_that_lags_behind_the_log_casts_no_vote_in_that_term() -> None:
    """durability.md §7: currentTerm is at least the last entry's; how it voted there is not known."""
    member = alone(term=1, vote=2, log=[1, 4])
    assert member.running.term == 4
    (reply,) = hear(member, K.VOTE, 2, 4, last_index=RaftIndex(9), last_term=Term(4))
    assert reply.is_rejected
    (reply,) = hear(member, K.VOTE, 2, 5, last_index=RaftIndex(9), last_term=Term(4))
    assert not reply.is_rejected


def test_paper_5_4_timeouts_bring_one_leader_even_if_logs_differ() -> None:
    member = alone(5, term=2, log=[1, 2])
    tick(member, 10)
    for other in (2, 3, 4, 5):
        hear(member, K.PRE_VOTE_RESPONSE, other, 2, is_rejected=True)
    assert member.running.term == 2
