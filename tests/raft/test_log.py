"""What a group remembers of its entries: boundaries, truncation, unreadable slots, what is dropped and kept."""

from __future__ import annotations

import pytest

from jetstore.raft.log import Entry, RaftLog
from jetstore.types import RaftIndex, Term


def entry(index: int, term: int, data: bytes | None = b"x") -> Entry:
    return Entry(Term(term), RaftIndex(index), data)


def make(
    terms: list[int | None], *, checkpoint: tuple[int, int] = (0, 0), resident: int = 100, retain: int = 0
) -> RaftLog:
    """``terms`` of the entries above the checkpoint; negative: unreadable."""
    index, term = checkpoint
    entries = [
        entry(position, abs(t or 0), None if (t or 0) < 0 else b"x" * 10) for position, t in enumerate(terms, index + 1)
    ]
    return RaftLog(
        checkpoint_index=RaftIndex(index),
        checkpoint_term=Term(term),
        entries=entries,
        resident_bytes_max=resident,
        retain_bytes=retain,
    )


def at(index: int) -> RaftIndex:
    return RaftIndex(index)


def apply_all(log: RaftLog) -> None:
    log.commit(log.last_index)
    log.stored(log.last_term, log.last_index)
    for found in log.to_apply():
        log.applied(found.index)


def test_a_hole_is_no_log() -> None:
    with pytest.raises(AssertionError, match="hole"):
        RaftLog(checkpoint_index=at(0), checkpoint_term=Term(0), entries=[entry(2, 1)], resident_bytes_max=1)


def test_truncation_takes_durability_back_and_stops_at_commit() -> None:
    log = make([1, 1, 2, 2])
    log.commit(at(2))
    log.truncate_from(at(3))
    assert (log.last_index, log.last_term, log.durable_index) == (2, 1, 2)
    assert log.term_at(at(3)) is None
    with pytest.raises(AssertionError, match="truncation at 2"):
        log.truncate_from(at(2))


def test_truncation_of_the_whole_log_ends_at_the_checkpoints_term() -> None:
    log = make([6], checkpoint=(7, 5))
    log.truncate_from(at(8))
    assert (log.last_index, log.last_term) == (7, 5)
    assert log.bytes_above_checkpoint == 0


def test_truncation_forgets_unreadable_slots() -> None:
    log = make([1, -1, 1, -1])
    log.truncate_from(at(3))
    assert list(log.faulty) == [2]


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [(6, 9, 6), (9, 9, 6), (6, 3, 4), (3, 3, 3), (6, 2, 2), (6, 1, 2), (6, 0, 0), (0, 5, 0)],
)
def test_the_last_entry_of_at_most_a_term(index: int, term: int, found: int) -> None:
    log = make([1, 1, 3, 3, 5, 5])
    assert log.last_at_most(at(index), Term(term)) == found


def test_terms_are_known_down_to_the_entry_before_the_first() -> None:
    log = make([2, 3], checkpoint=(4, 2))
    assert [log.term_at(at(i)) for i in range(3, 8)] == [None, 2, 2, 3, None]
    apply_all(log)
    log.compact(at(6))
    assert [log.term_at(at(i)) for i in range(3, 8)] == [None, 2, None, 3, None]


def test_what_is_committed_but_not_durable_is_not_applied() -> None:
    log = make([1])
    log.append(entry(2, 1))
    log.commit(at(2))
    assert [e.index for e in log.to_apply()] == [1]
    log.stored(Term(1), at(2))
    assert [e.index for e in log.to_apply()] == [1, 2]


def test_applied_twice_is_applied_once() -> None:
    log = make([1])
    log.commit(at(1))
    log.applied(at(1))
    log.applied(at(1))
    assert log.applied_bytes_total == 10


def test_a_repaired_slot_counts_when_it_is_durable() -> None:
    log = make([1, -1, -2])
    assert log.faulty_index == 2
    assert log.unreadable(at(2), Term(1))
    assert not log.unreadable(at(2), Term(2))
    assert not log.unreadable(at(9), Term(2))
    log.repair(entry(2, 1))
    assert not log.unreadable(at(2), Term(1))
    assert log.faulty_index == 2
    log.repaired(at(2), Term(9))  # of an entry that stood there before
    log.repaired(at(1), Term(1))  # never was unreadable
    assert log.faulty_index == 2
    log.repaired(at(2), Term(1))
    assert log.faulty_index == 3


def test_unreadable_slots_pin_apply_and_forbid_writing_again() -> None:
    log = make([1, -1, 1])
    log.commit(at(3))
    assert [e.index for e in log.to_apply()] == [1]
    assert log.resident() is None


def test_bytes_are_counted_over_truncation_repair_and_checkpoint() -> None:
    log = make([1, -1, 1, 1], resident=1000)
    assert log.bytes_above_checkpoint == 30
    log.repair(entry(2, 1, b"x" * 10))
    log.repaired(at(2), Term(1))
    log.truncate_from(at(4))
    assert log.bytes_above_checkpoint == log.unapplied_bytes == 30
    log.commit(at(3))
    log.applied(at(2))
    covered = log.applied_bytes_total
    log.applied(at(3))
    assert (covered, log.unapplied_bytes) == (20, 0)
    log.checkpointed(at(2), Term(1), covered)
    assert log.bytes_above_checkpoint == 10


def test_a_large_log_keeps_only_what_followers_may_still_need() -> None:
    log = make([], resident=0, retain=100)
    for index in range(1, 41):
        log.append(entry(index, 1, b"x" * 10))
        log.stored(Term(1), at(index))
        log.commit(at(index))
        log.applied(at(index))
        kept = (log.last_index - log.first_index + 1) * 10
        assert kept >= min(index * 10, 100)
        assert kept <= 130
    log.release()
    assert log.first_index == 41


def test_a_checkpoint_drops_nothing_that_it_does_not_cover() -> None:
    log = make([1] * 20, resident=1000, retain=40)
    log.commit(at(20))
    log.applied(at(2))
    covered = log.applied_bytes_total
    log.applied(at(20))
    log.checkpointed(at(2), Term(1), covered)
    assert log.first_index == 3


def test_a_small_quiet_log_stays_for_the_journal() -> None:
    log = make([1, 1, 1], resident=1000, retain=1000)
    log.commit(at(3))
    log.applied(at(2))
    covered = log.applied_bytes_total
    log.applied(at(3))
    log.checkpointed(at(2), Term(1), covered)
    assert log.first_index == 1, "kept for a follower that is a little behind"
    assert [e.index for e in log.resident() or []] == [3]
    log.release()
    assert log.first_index == 3
    assert [e.index for e in log.resident() or []] == [3]


def test_an_installed_checkpoint_keeps_the_suffix_that_continues_it() -> None:
    log = make([1, -1, 2, 2])
    assert log.restored(at(3), Term(2))
    assert (log.first_index, log.last_index, log.durable_index, log.applied_index) == (4, 4, 4, 3)
    assert log.faulty_index is None
    assert log.bytes_above_checkpoint == log.unapplied_bytes == 10


@pytest.mark.parametrize(("index", "term"), [(3, 3), (9, 2)])
def test_an_installed_checkpoint_replaces_a_log_that_is_another_or_shorter(index: int, term: int) -> None:
    log = make([1, 1, 2, -2])
    assert not log.restored(at(index), Term(term))
    assert (log.first_index, log.last_index, log.last_term) == (index + 1, index, term)
    assert log.faulty_index is None
    assert log.bytes_above_checkpoint == log.unapplied_bytes == 0
    log.append(entry(index + 1, term))
    assert log.bytes_above_checkpoint == 1


def test_an_installed_checkpoint_never_contradicts_what_is_committed() -> None:
    log = make([1, 1])
    log.commit(at(2))
    with pytest.raises(AssertionError, match="contradicts"):
        log.restored(at(2), Term(2))
    log.applied(at(2))
    with pytest.raises(AssertionError, match="behind"):
        log.restored(at(1), Term(1))


def test_slices_are_cut_by_bytes_after_the_first_entry() -> None:
    log = make([1, 1, 1])
    assert [e.index for e in log.slice_bytes(at(1), at(3), 1)] == [1]
    assert [e.index for e in log.slice_bytes(at(1), at(3), 20)] == [1, 2]
    assert [e.index for e in log.slice_bytes(at(2), at(3), 99)] == [2, 3]
