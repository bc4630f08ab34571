"""The Raft core as far as groups of one voter reach: elections, the commit rule, asynchronous storage."""

from __future__ import annotations

import pytest

from jetstore.errors import NotNow
from jetstore.raft.core import HardState, RaftCore, Role
from jetstore.raft.log import Entry, RaftLog
from jetstore.raft.membership import Configuration
from jetstore.types import RaftIndex, Term


def make_core(entries: list[Entry] | None = None, *, term: int = 0, vote: int = 0, resident: int = 1 << 20) -> RaftCore:
    log = RaftLog(
        checkpoint_index=RaftIndex(0),
        checkpoint_term=Term(0),
        entries=entries or [],
        resident_bytes_max=resident,
    )
    return RaftCore(
        member=1,
        configuration=Configuration.founding([("n1", 1)]),
        hard_state=HardState(Term(term), vote),
        log=log,
        random_below=lambda below: 0,
    )


def entry(term: int, index: int, data: bytes | None = b"x") -> Entry:
    return Entry(Term(term), RaftIndex(index), data)


def elect(core: RaftCore) -> None:
    core.campaign()
    core.stored(core.ready().token)
    core.stored(core.ready().token)


def test_leadership_waits_for_the_durable_vote() -> None:
    core = make_core()
    core.campaign()
    assert core.role is Role.CANDIDATE
    ready = core.ready()
    assert ready.hard_state == HardState(Term(1), 1)
    assert ready.entries == []
    with pytest.raises(NotNow):
        core.propose(b"too early")
    core.stored(ready.token)
    assert core.is_leader


def test_nothing_commits_before_it_is_durable() -> None:
    core = make_core()
    elect(core)
    assert [e.data for e in core.to_apply()] == [b""]
    core.applied(RaftIndex(1))
    core.propose(b"a")
    assert core.to_apply() == []
    ready = core.ready()
    assert core.to_apply() == []
    core.stored(ready.token)
    assert [e.data for e in core.to_apply()] == [b"a"]


def test_paper_5_4_2_older_terms_commit_only_through_an_entry_of_the_own_term() -> None:
    core = make_core([entry(1, 1), entry(1, 2)], term=1, vote=1)
    core.campaign()
    core.stored(core.ready().token)
    assert core.is_leader
    assert core.to_apply() == [], "two durable entries of term 1, but nothing of term 2 is durable yet"
    assert not core.serves
    core.stored(core.ready().token)
    assert [e.index for e in core.to_apply()] == [1, 2, 3]
    core.applied(RaftIndex(3))
    assert core.serves


def test_several_readies_in_flight_complete_in_order() -> None:
    core = make_core()
    elect(core)
    core.applied(RaftIndex(1))
    core.propose(b"a")
    first = core.ready()
    core.propose(b"b")
    second = core.ready()
    assert not core.has_ready()
    core.stored(first.token)
    assert [e.data for e in core.to_apply()] == [b"a"]
    core.stored(second.token)
    assert [e.data for e in core.to_apply()] == [b"a", b"b"]


def test_aba_a_completion_of_another_terms_entry_at_the_same_index_does_not_count() -> None:
    core = make_core()
    elect(core)
    log = core.log
    assert not log.stored(Term(7), RaftIndex(1))
    assert log.stored(Term(1), RaftIndex(1))


def test_ready_is_cut_at_max_bytes_and_continues() -> None:
    core = make_core()
    elect(core)
    for _ in range(5):
        core.propose(b"0123456789")
    ready = core.ready(max_bytes=25)
    assert [e.index for e in ready.entries] == [2, 3]
    assert ready.prev_term == 1
    assert [e.index for e in core.ready(max_bytes=0).entries] == [4], "at least one"
    rest = core.ready(max_bytes=1000)
    assert [e.index for e in rest.entries] == [5, 6]


def test_apply_stops_at_a_faulty_entry() -> None:
    core = make_core([entry(1, 1), entry(1, 2, None), entry(1, 3)], term=1, vote=1)
    elect(core)
    assert [e.index for e in core.to_apply()] == [1]
    core.applied(RaftIndex(1))
    assert core.to_apply() == []
    assert not core.serves


def test_a_term_behind_the_log_is_raised_without_a_vote() -> None:
    core = make_core([entry(4, 1)], term=2, vote=1)
    assert core.term == 4
    assert core.vote == 0
    core.campaign()
    assert core.term == 5


def test_applied_entries_are_dropped_once_the_log_is_large_and_kept_while_it_is_small() -> None:
    core = make_core(resident=50)
    elect(core)
    core.propose(b"x" * 30)
    core.stored(core.ready().token)
    core.applied(RaftIndex(2))
    assert [e.index for e in core.log.resident() or []] == [1, 2]
    core.propose(b"y" * 30)
    core.stored(core.ready().token)
    core.applied(RaftIndex(3))
    assert core.log.resident() is None
    assert core.log.bytes_above_checkpoint == 60
    covered = core.log.applied_bytes_total
    core.propose(b"z" * 10)
    ready = core.ready()
    assert ready.prev_term == 1, "the term of a dropped predecessor is still known"
    core.log.checkpointed(RaftIndex(3), Term(1), covered)
    core.stored(ready.token)
    assert core.log.bytes_above_checkpoint == 10
    assert [e.index for e in core.log.resident() or []] == [4]


def test_a_recovered_log_that_is_large_is_not_written_again() -> None:
    """It is all in memory until it is applied; written again as one record it might not fit into a journal file."""
    core = make_core([entry(1, 1, b"x" * 30), entry(1, 2, b"y" * 30)], term=1, vote=1, resident=50)
    assert core.log.resident() is None
    small = make_core([entry(1, 1, b"x" * 30)], term=1, vote=1, resident=50)
    assert [e.index for e in small.log.resident() or []] == [1]
