"""RaftLog against a dumb model: a list of (term, data), some numbers, nothing clever."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jetstore.raft.log import Entry, RaftLog
from jetstore.types import RaftIndex, Term


def make(index: int, term: int, data: bytes | None) -> Entry:
    return Entry(Term(term), RaftIndex(index), data)


class LogMachine(RuleBasedStateMachine):
    """Every index ever held is in the model; what the log may have dropped is only below ``applied``."""

    def __init__(self) -> None:
        super().__init__()
        self.model: list[tuple[int, bytes | None]] = []  # position i: index i + 1
        self.missing: set[int] = set()  # unreadable, or repaired and not durable
        self.durable = self.committed = self.applied = self.checkpoint = 0
        self.applied_bytes: dict[int, int] = {0: 0}
        self.log = RaftLog(
            checkpoint_index=RaftIndex(0), checkpoint_term=Term(0), entries=[], resident_bytes_max=1 << 30
        )

    @initialize(
        terms=st.lists(st.integers(1, 4), max_size=8).map(sorted),
        damage=st.sets(st.integers(1, 8), max_size=3),
        resident=st.sampled_from([0, 5, 1000]),
        retain=st.sampled_from([0, 0, 6]),
    )
    def recover(self, terms: list[int], damage: set[int], resident: int, retain: int) -> None:
        self.model = [(t, None if i in damage else b"r%d" % i) for i, t in enumerate(terms, 1)]
        self.missing = {i for i in damage if i <= len(terms)}
        self.durable = len(terms)
        self.log = RaftLog(
            checkpoint_index=RaftIndex(0),
            checkpoint_term=Term(0),
            entries=[make(i, t, d) for i, (t, d) in enumerate(self.model, 1)],
            resident_bytes_max=resident,
            retain_bytes=retain,
        )

    @property
    def last(self) -> int:
        return len(self.model)

    def term(self, index: int) -> int:
        return self.model[index - 1][0] if index else 0

    @rule(step=st.integers(0, 2), size=st.integers(0, 4))
    def append(self, step: int, size: int) -> None:
        term = max(1, self.term(self.last) + step)
        self.model.append((term, b"x" * size))
        self.log.append(make(self.last, term, b"x" * size))

    @rule(data=st.data())
    def stored(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.log.first_index - 1, self.last))
        if index == 0:
            return
        assert self.log.stored(Term(self.term(index)), RaftIndex(index))
        self.durable = max(self.durable, index)

    @rule(data=st.data())
    def stored_of_another_term(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(1, self.last + 2))
        other = data.draw(st.integers(1, 9).filter(lambda t: index > self.last or t != self.term(index)))
        assert not self.log.stored(Term(other), RaftIndex(index))

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, self.last))
        self.log.commit(RaftIndex(index))
        self.committed = max(self.committed, index)

    @rule()
    def apply(self) -> None:
        stop = min([self.committed, self.durable, *(i - 1 for i in self.missing)])
        expected = [make(i, *self.model[i - 1]) for i in range(self.applied + 1, stop + 1)]
        assert self.log.to_apply() == expected
        if expected:
            self.log.applied(RaftIndex(stop))
            for entry in expected:
                self.applied_bytes[entry.index] = self.applied_bytes[entry.index - 1] + len(entry.data or b"")
            self.applied = stop

    @precondition(lambda self: self.committed < self.last)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.committed + 1, self.last))
        self.log.truncate_from(RaftIndex(index))
        del self.model[index - 1 :]
        self.durable = min(self.durable, index - 1)
        self.missing = {i for i in self.missing if i < index}

    @precondition(lambda self: any(self.model[i - 1][1] is None for i in self.missing))
    @rule(data=st.data())
    def repair(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(i for i in self.missing if self.model[i - 1][1] is None)))
        term = self.term(index)
        assert self.log.unreadable(RaftIndex(index), Term(term))
        assert not self.log.unreadable(RaftIndex(index), Term(term + 1))
        self.model[index - 1] = (term, b"repaired")
        self.log.repair(make(index, term, b"repaired"))

    @precondition(lambda self: any(self.model[i - 1][1] is not None for i in self.missing))
    @rule(data=st.data())
    def repaired(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(i for i in self.missing if self.model[i - 1][1] is not None)))
        self.log.repaired(RaftIndex(index), Term(self.term(index) + 1))  # of another entry: nothing
        assert index in self.log.faulty
        self.log.repaired(RaftIndex(index), Term(self.term(index)))
        self.missing.discard(index)

    @rule(data=st.data())
    def checkpointed(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.checkpoint, self.applied))
        self.log.checkpointed(RaftIndex(index), Term(self.term(index)), self.applied_bytes[index])
        self.checkpoint = index

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.log.compact(RaftIndex(data.draw(st.integers(0, self.applied))))

    @rule(data=st.data(), ahead=st.integers(0, 4), agrees=st.booleans())
    def restored(self, data: st.DataObject, ahead: int, agrees: bool) -> None:
        """A checkpoint of another member: behind, inside or beyond this log, agreeing with it or not."""
        index = data.draw(st.integers(self.applied, self.last + ahead))
        if index == 0:
            return
        known = index <= self.last
        agrees = agrees or index <= self.committed
        if known and agrees:
            term = self.term(index)
        else:
            term = self.term(min(index, self.last)) + 1
        stays = self.log.restored(RaftIndex(index), Term(term))
        assert stays == (known and agrees)
        if not stays:
            while self.last < index:
                self.model.append((term, b""))
            del self.model[index:]
            self.model[index - 1] = (term, b"")
            self.durable = index
        self.durable = max(self.durable, index)
        self.committed = max(self.committed, index)
        self.applied = self.checkpoint = index
        self.applied_bytes[index] = self.log.applied_bytes_total
        self.missing = {i for i in self.missing if i > index and stays}

    @invariant()
    def numbers(self) -> None:
        log = self.log
        assert (log.last_index, log.last_term) == (self.last, self.term(self.last))
        assert log.durable_index == self.durable
        assert log.committed_index == self.committed
        assert log.applied_index == self.applied
        assert (log.checkpoint_index, log.checkpoint_term) == (self.checkpoint, self.term(self.checkpoint))
        assert list(log.faulty) == sorted(self.missing)
        assert log.faulty_index == min(self.missing, default=None)

    @invariant()
    def entries(self) -> None:
        log = self.log
        assert log.first_index <= self.applied + 1, "what is not applied was dropped"
        for index in range(log.first_index, self.last + 1):
            assert log.entry(RaftIndex(index)) == make(index, *self.model[index - 1])
            assert log.term_at(RaftIndex(index)) == self.term(index)
        assert log.term_at(RaftIndex(log.first_index - 1)) == self.term(log.first_index - 1)
        assert log.term_at(RaftIndex(self.last + 1)) is None
        expected = [make(i, *self.model[i - 1]) for i in range(log.first_index, self.last + 1)]
        assert log.slice(log.first_index, log.last_index) == expected

    @invariant()
    def backtracking(self) -> None:
        log = self.log
        for term in range(6):
            found = log.last_at_most(log.last_index, Term(term))
            inside = [i for i in range(log.first_index, self.last + 1) if self.term(i) <= term]
            assert found == max(inside, default=log.first_index - 1)

    @invariant()
    def bytes_above(self) -> None:
        readable = sum(len(d or b"") for i, (_, d) in enumerate(self.model, 1) if i > self.applied)
        assert self.log.unapplied_bytes == readable


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_a_checkpoint_that_contradicts_the_log_replaces_it() -> None:
    log = RaftLog(
        checkpoint_index=RaftIndex(0),
        checkpoint_term=Term(0),
        entries=[make(i, 1, b"x") for i in range(1, 6)],
        resident_bytes_max=1 << 30,
    )
    assert not log.restored(RaftIndex(3), Term(2))
    assert (log.last_index, log.last_term, log.durable_index) == (3, 2, 3)
    assert log.term_at(RaftIndex(4)) is None
