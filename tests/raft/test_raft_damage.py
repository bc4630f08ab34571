"""Unreadable entries, rule by rule (durability.md §6, STORAGE §7), one member at a time."""

from __future__ import annotations

import pytest
from raft_paper import K, alone, entry, hear, said, tick
from raft_world import Member

from jetstore.errors import NotNow
from jetstore.raft.message import Answer, Message
from jetstore.types import RaftIndex, Term


def damaged(log: list[int], *faulty: int, count: int = 3, checkpoint: int = 0) -> Member:
    """Member 1, started with these entries unreadable."""
    member = alone(count, term=max(log), log=log)
    member.crash()
    for index in faulty:
        assert member.disk.damage(index)
    member.start()
    return member


def asked(messages: list[Message]) -> set[tuple[int, int, int]]:
    return {(m.to, m.index, m.log_term) for m in messages if m.kind is K.REPAIR}


def tell(member: Member, sender: int, index: int, term: int, answer: Answer, **fields: object) -> list[Message]:
    return hear(
        member,
        K.REPAIR_RESPONSE,
        sender,
        member.running.term,
        index=RaftIndex(index),
        log_term=Term(term),
        answer=answer,
        **fields,
    )


def test_it_asks_everybody_for_the_very_entry() -> None:
    member = damaged([1, 2, 2], 2)
    assert asked(tick(member, 10)) == {(2, 2, 2), (3, 2, 2)}


def test_bytes_of_the_very_entry_repair_it() -> None:
    member = damaged([1, 2, 2], 2)
    tell(member, 3, 2, 2, Answer.HAVE, entries=(entry(2, 2, b"again"),))
    assert not member.running.log.faulty
    assert member.disk.entries[1].data == b"again"


def test_bytes_of_another_term_are_not_taken() -> None:
    """A late answer about an entry that stood there once."""
    member = damaged([1, 2, 2], 2)
    tell(member, 3, 2, 1, Answer.HAVE, entries=(entry(2, 1, b"other"),))
    assert list(member.running.log.faulty) == [2]
    assert member.disk.entries[1].data is None


def test_a_repair_counts_when_it_is_durable() -> None:
    member = damaged([1, 1, 1], 2)
    member.is_async = True
    hear(member, K.APPEND, 2, 1, index=RaftIndex(3), log_term=Term(1), commit=RaftIndex(3), sequence=1)
    assert member.applied_index == 1
    reply = hear(
        member, K.APPEND, 2, 1, index=RaftIndex(1), log_term=Term(1), entries=(entry(2, 1), entry(3, 1)), sequence=2
    )
    assert [m.index for m in reply if m.kind is K.APPEND_RESPONSE] in ([], [1])
    member.store()
    (reply_later,) = said(member)
    assert reply_later.index == 3
    assert member.applied_index == 3


@pytest.mark.parametrize(
    ("index", "term", "answer"),
    [
        (1, 1, Answer.HAVE),
        (2, 2, Answer.FAULTY),
        (2, 1, Answer.FAULTY),  # whose bytes are missing here is not asked twice what it was
        (3, 2, Answer.HAVE),
        (3, 1, Answer.NEVER),
        (4, 2, Answer.NEVER),
    ],
)
def test_the_answers(index: int, term: int, answer: Answer) -> None:
    member = damaged([1, 2, 2], 2)
    (reply,) = hear(member, K.REPAIR, 2, 2, index=RaftIndex(index), log_term=Term(term))
    assert (reply.kind, reply.answer) == (K.REPAIR_RESPONSE, answer)
    if answer is Answer.HAVE:
        assert reply.entries == (member.running.log.entry(RaftIndex(index)),)


def test_a_trimmed_log_never_answers_never() -> None:
    member = alone(log=[1, 1, 1], term=1)
    hear(member, K.APPEND, 2, 1, index=RaftIndex(3), log_term=Term(1), commit=RaftIndex(3), sequence=1)
    member.compact()
    for index, term in ((1, 1), (2, 9), (3, 1)):
        (reply,) = hear(member, K.REPAIR, 2, 1, index=RaftIndex(index), log_term=Term(term))
        assert reply.answer is Answer.COMPACTED
        assert reply.commit == 3


def test_what_is_applied_is_proof_even_where_another_term_is_asked_for() -> None:
    member = alone(log=[1, 1], term=1)
    hear(member, K.APPEND, 2, 1, index=RaftIndex(2), log_term=Term(1), commit=RaftIndex(2), sequence=1)
    (reply,) = hear(member, K.REPAIR, 3, 1, index=RaftIndex(2), log_term=Term(7))
    assert (reply.answer, reply.commit) == (Answer.COMPACTED, 2)


def test_a_question_of_a_later_term_is_answered_in_that_term_when_that_is_durable() -> None:
    """So that this member cannot take the entry from an older leader afterwards."""
    member = alone(log=[1], term=1, is_async=True)
    assert hear(member, K.REPAIR, 2, 5, index=RaftIndex(2), log_term=Term(1)) == []
    member.store()
    (reply,) = said(member)
    assert (reply.answer, reply.term) == (Answer.NEVER, 5)


def leading(log: list[int], *faulty: int, count: int = 3) -> Member:
    """A leader with unreadable entries."""
    member = damaged(log, *faulty, count=count)
    term = max(log) + 1
    for _ in range(200):
        if {m.kind for m in tick(member)} & {K.PRE_VOTE}:
            break
    for kind in (K.PRE_VOTE_RESPONSE, K.VOTE_RESPONSE):
        for sender in range(2, count + 1):
            if not member.running.is_leader:
                hear(member, kind, sender, term)
    assert member.running.is_leader
    return member


def test_a_leader_with_unreadable_entries_is_closed() -> None:
    member = leading([1, 1, 1], 2)
    with pytest.raises(NotNow, match="unreadable"):
        member.running.propose(b"x")
    assert member.disk.last == (1, 3), "not even a no-op"
    assert member.running.status().waiting_for == (2, 3)


def test_never_from_a_majority_drops_the_entry_and_all_later_ones() -> None:
    member = leading([1, 1, 1], 2)
    tell(member, 2, 2, 1, Answer.NEVER)
    assert member.disk.last == (1, 3)
    tell(member, 2, 2, 1, Answer.NEVER)  # the same voter again
    assert member.disk.last == (1, 3)
    tell(member, 3, 2, 1, Answer.NEVER)
    assert [e.term for e in member.disk.entries] == [1, 2]
    member.running.propose(b"x")


def test_faulty_proves_nothing_at_all() -> None:
    member = leading([1, 1, 1], 2, count=5)
    for sender in (2, 3):
        tell(member, sender, 2, 1, Answer.NEVER)
    for sender in (4, 5):
        tell(member, sender, 2, 1, Answer.FAULTY)
    assert member.disk.last == (1, 3)
    assert member.running.status().waiting_for == ()


def test_never_is_about_one_entry() -> None:
    """Two unreadable entries: a 'never' about the later one says nothing about the earlier one."""
    member = leading([1, 1, 1], 3)
    tell(member, 2, 2, 1, Answer.NEVER)
    tell(member, 3, 3, 1, Answer.NEVER)
    assert member.disk.last == (1, 3)
    tell(member, 2, 3, 1, Answer.NEVER)
    assert [e.term for e in member.disk.entries] == [1, 1, 2]


def test_never_of_an_earlier_term_is_not_counted() -> None:
    member = leading([1, 1, 1], 2)
    for sender in (2, 3):
        hear(member, K.REPAIR_RESPONSE, sender, 1, index=RaftIndex(2), log_term=Term(1), answer=Answer.NEVER)
    assert member.disk.last == (1, 3)


def test_a_leader_tells_nobody_what_it_may_yet_drop() -> None:
    """What a follower is told it has in common with a leader must not shrink within a term: late acknowledgements."""
    member = leading([1, 1, 1], 2)
    for message in tick(member, 3):
        if message.kind is K.APPEND:
            assert message.index + len(message.entries) < 2


def test_the_candidate_names_its_evidence_and_the_voter_compares_with_its_own() -> None:
    member = damaged([1, 2, 2], 2, 3)
    (reply,) = [
        m for m in hear(member, K.PRE_VOTE, 2, 3, last_index=RaftIndex(2), last_term=Term(2)) if m.kind is not K.REPAIR
    ]
    assert reply.is_rejected
    (reply,) = [
        m for m in hear(member, K.VOTE, 3, 3, last_index=RaftIndex(1), last_term=Term(1)) if m.kind is not K.REPAIR
    ]
    assert reply.is_rejected
    (reply,) = [
        m for m in hear(member, K.VOTE, 2, 3, last_index=RaftIndex(3), last_term=Term(2)) if m.kind is not K.REPAIR
    ]
    assert not reply.is_rejected
