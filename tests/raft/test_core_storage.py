"""The order of disk and messages: nothing implied by a message is un-durable when it leaves (R10)."""

from __future__ import annotations

import pytest
from raft_paper import (
    K,
    alone,
    configuration,
    entry,
    group,
    hear,
    isolate,
    kinds,
    propose,
    run,
    said,
    settle,
    tick,
    win,
)
from raft_world import Checkpoint, Member

from jetstore.raft.core import HardState, RaftCore, Role
from jetstore.raft.log import RaftLog
from jetstore.raft.message import Answer, Message
from jetstore.types import RaftIndex, Term


def append(term: int, prev: tuple[int, int], *terms: int, commit: int = 0, sequence: int = 1) -> Message:
    """From member 2: entries of these terms behind (index, term)."""
    entries = tuple(entry(index, t) for index, t in enumerate(terms, prev[0] + 1))
    return Message(
        K.APPEND,
        2,
        1,
        Term(term),
        RaftIndex(prev[0]),
        Term(prev[1]),
        RaftIndex(commit),
        entries,
        sequence=sequence,
    )


def test_a_vote_is_said_when_it_is_durable() -> None:
    member = alone(is_async=True)
    assert hear(member, K.VOTE, 2, 1, last_index=0, last_term=0) == []
    assert member.pending[0].hard_state == HardState(Term(1), 2)
    member.store()
    (message,) = said(member)
    assert (message.kind, message.is_rejected, message.term) == (K.VOTE_RESPONSE, False, 1)


def test_votes_are_asked_for_when_vote_and_log_are_durable() -> None:
    member = alone(is_async=True)
    member.running.step(append(1, (0, 0), 1))
    member.pump()
    member.running.step(append(1, (1, 1), 1, sequence=2))
    member.pump()
    member.running.step(Message(K.TIMEOUT_NOW, 2, 1, Term(1)))
    member.pump()
    assert member.running.role is Role.CANDIDATE
    member.store(1)
    assert [kind for kind, _ in kinds(said(member)) if kind is K.VOTE] == [], "its second entry is not durable"
    member.store()
    votes = [m for m in said(member) if m.kind is K.VOTE]
    assert [(m.to, m.last_index, m.is_forced) for m in votes] == [(2, 2, True), (3, 2, True)]


def test_an_append_is_acknowledged_when_it_is_durable_and_once() -> None:
    member = alone(term=1, is_async=True)
    member.running.step(append(1, (0, 0), 1, 1))
    assert said(member) == []
    member.running.step(append(1, (2, 1), 1, sequence=2))
    assert said(member) == []
    member.store()
    assert [(m.kind, m.index, m.sequence) for m in said(member)] == [
        (K.APPEND_RESPONSE, 2, 2),
        (K.APPEND_RESPONSE, 3, 2),
    ]


def test_a_write_that_was_overtaken_counts_for_nothing() -> None:
    """ABA: the entry that it wrote is another one now."""
    member = alone(term=1, is_async=True)
    member.running.step(append(1, (0, 0), 1, 1))
    said(member)
    member.running.step(append(2, (0, 0), 2))
    said(member)
    member.store(1)
    assert member.running.log.durable_index == 0
    assert [m.index for m in said(member) if m.kind is K.APPEND_RESPONSE] == []
    member.store()
    assert [m.index for m in said(member) if m.kind is K.APPEND_RESPONSE] == [1]


def test_a_write_that_was_overtaken_twice_does_not_count_even_if_its_entry_came_back() -> None:
    """(1, t1) is written, cut by (1, t2), and back again: in the journal the cut stands behind the first write."""
    member = alone(term=1, is_async=True)
    for message in (append(1, (0, 0), 1), append(2, (0, 0), 2), append(3, (0, 0), 1, 3)):
        member.running.step(message)
        said(member)
    durable = []
    while member.pending:
        member.store(1)
        durable.append(member.running.log.durable_index)
    assert durable == [0, 0, 2]


def test_what_precedes_a_truncation_still_counts() -> None:
    member = alone(term=1, is_async=True)
    member.running.step(append(1, (0, 0), 1, 1, 1))
    said(member)
    member.running.step(append(2, (2, 1), 2))
    said(member)
    member.store(1)
    assert member.running.log.durable_index == 2


def test_completions_come_in_order() -> None:
    member = alone(term=1, is_async=True)
    member.running.step(append(1, (0, 0), 1))
    member.pump()
    member.running.step(append(1, (1, 1), 1))
    member.pump()
    with pytest.raises(AssertionError, match="order"):
        member.running.stored(member.pending[1].token)


def test_a_leader_sends_in_parallel_with_its_own_disk_and_counts_itself_later() -> None:
    member = alone()
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=1)
    member.is_async = True
    member.running.propose(b"a")
    assert K.APPEND in [m.kind for m in said(member)]
    hear(member, K.APPEND_RESPONSE, 2, 1, index=2, last_index=2, last_term=1, sequence=9)
    assert member.running.log.committed_index == 1, "one of three: its own copy is not durable"
    member.store()
    assert member.running.log.committed_index == 2


def test_a_quorum_of_others_commits_before_the_leaders_disk_and_applies_after_it() -> None:
    member = alone()
    win(member)
    member.is_async = True
    member.running.propose(b"a")
    said(member)
    for other in (2, 3):
        hear(member, K.APPEND_RESPONSE, other, 1, index=2, last_index=2, last_term=1, sequence=9)
    assert member.running.log.committed_index == 2
    assert member.applied_index == 1
    member.store()
    member.pump()
    assert member.applied_index == 2


def test_votes_for_a_candidacy_that_is_over_are_not_asked_for() -> None:
    member = alone(is_async=True)
    member.running.step(Message(K.TIMEOUT_NOW, 2, 1, Term(1)))
    said(member)
    member.running.step(append(5, (0, 0)))
    member.store()
    member.pump()
    member.store()
    assert [m.kind for m in said(member)] == [K.APPEND_RESPONSE]


def test_in_a_term_that_only_the_log_proves_nobody_gets_a_vote() -> None:
    """The hard state lags behind: how this member voted in that term is not known."""
    member = alone(term=1, vote=0, log=[1, 3])
    (message,) = hear(member, K.VOTE, 2, 3, last_index=9, last_term=3)
    assert message.is_rejected
    (message,) = hear(member, K.VOTE, 2, 4, last_index=9, last_term=3)
    assert not message.is_rejected


def test_a_message_for_somebody_else_is_a_mistake() -> None:
    log = RaftLog(checkpoint_index=RaftIndex(0), checkpoint_term=Term(0), entries=[], resident_bytes_max=1)
    core = RaftCore(
        member=1,
        configuration=configuration(2),
        hard_state=HardState(Term(0), 0),
        log=log,
        random_below=lambda below: 0,
    )
    with pytest.raises(AssertionError, match="member 2"):
        core.step(Message(K.HEARTBEAT, 2, 2, Term(1)))


def test_a_follower_without_news_stands_and_one_with_news_does_not() -> None:
    member = alone(term=1)
    assert tick(member, 9) == []
    hear(member, K.HEARTBEAT, 2, 1, sequence=1)
    assert tick(member, 9) == []
    assert [m.kind for m in tick(member, 1)] == [K.PRE_VOTE, K.PRE_VOTE]


def test_votes_are_asked_for_once() -> None:
    member = alone()
    member.running.campaign()
    said(member)
    hear(member, K.PRE_VOTE_RESPONSE, 2, 1)
    member.running.stored(member.running.ready().token)
    assert said(member) == []


def test_a_vote_that_is_durable_before_the_log_waits_for_the_log() -> None:
    """A block has room for the hard state and one entry of two."""
    member = alone(term=1)
    member.world.block_bytes = 1
    core = member.running
    core.step(append(1, (0, 0), 1, 1))
    core.step(Message(K.TIMEOUT_NOW, 2, 1, Term(1)))
    first, second = core.ready(1), core.ready(1)
    assert first.hard_state == HardState(Term(2), 1)
    core.stored(first.token)
    assert [m for m in core.take_messages() if m.kind is K.VOTE] == []
    core.stored(second.token)
    assert [m.last_index for m in core.take_messages() if m.kind is K.VOTE] == [2, 2]


def test_an_answer_that_waited_for_a_term_may_name_an_end_that_a_checkpoint_covers_by_then() -> None:
    """What it says was true when it was said: the end was that of the checkpoint before."""
    world = group(3)
    slow = world.members[3]
    isolate(world, 3)
    propose(world, 1, b"a", b"b")
    settle(world)
    world.members[1].compact()
    world.cuts.clear()
    run(world, 3)
    end = slow.disk.checkpoint.index
    assert slow.disk.entries == []
    slow.is_async = True
    isolate(world, 3)
    world.members[1].running.transfer_leader(2)
    world.members[1].pump()
    settle(world)
    propose(world, 2, b"c")
    settle(world)
    world.cuts.clear()
    hear(slow, K.HEARTBEAT, 2, world.members[2].running.term, sequence=1)
    slow.install(world.members[2].checkpoint())
    (reply,) = [m for m in said(slow) if m.kind is K.HEARTBEAT_RESPONSE]
    assert reply.last_index == end < slow.disk.checkpoint.index


def test_a_never_that_waited_for_a_term_is_not_said_once_a_checkpoint_covers_the_entry() -> None:
    """It was true when it was answered, and would prove nothing wrong; but the checkpoint proves better."""
    member = alone(term=1, log=[1], is_async=True)
    for index in (2, 3):
        assert hear(member, K.REPAIR, 2, 2, index=index, log_term=1) == []
    member.install(Checkpoint(2, 1, configuration(3)))
    assert [(m.index, m.answer) for m in said(member)] == [(3, Answer.NEVER)]


def full(term: int, log: list[int]) -> Member:
    """Member 1 of three, whose disk takes nothing but hard states."""
    member = alone(term=term, log=log)
    member.splits = member.is_full = True
    return member


def test_term_and_vote_do_not_wait_for_entries_that_find_no_room() -> None:
    member = full(1, [1])
    assert hear(member, K.APPEND, 2, 2, index=1, log_term=1, entries=(entry(2, 2),), sequence=1) == []
    assert member.disk.hard_state == HardState(Term(2), 0), "although they came together"
    member.running.forget_leader()
    (message,) = hear(member, K.VOTE, 3, 3, last_index=2, last_term=2)
    assert (message.kind, message.is_rejected) == (K.VOTE_RESPONSE, False)
    assert member.disk.hard_state == HardState(Term(3), 3)
    assert member.disk.last_index == 1
    (message,) = hear(member, K.APPEND, 3, 3, index=2, log_term=2, sequence=1, commit=2) or [None]  # type: ignore[list-item]
    assert message is None, "nothing of it is acknowledged"
    member.is_full = False
    (message,) = said(member)
    assert (message.index, member.disk.last_index, member.applied_index) == (2, 2, 2)
    assert member.disk.hard_state == HardState(Term(3), 3), "the older one does not come after it"


def test_a_candidate_whose_entries_find_no_room_asks_for_no_votes() -> None:
    member = full(1, [1])
    hear(member, K.APPEND, 2, 1, index=1, log_term=1, entries=(entry(2, 1),), sequence=1)
    hear(member, K.TIMEOUT_NOW, 2, 1)
    assert (member.running.role, member.disk.hard_state) == (Role.CANDIDATE, HardState(Term(2), 1))
    assert said(member) == []
    member.is_full = False
    assert kinds(said(member)) == [(K.VOTE, 2), (K.VOTE, 3)]
