"""A consumer against a model that keeps one plain record per message: same acceptance, same counters, same settled
messages, through random publishes, removals, deliveries, acknowledgements, time, resets and restarts from the head."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from deep import IS_DEEP
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jetstore.consumer.entries import AckOp, AckRuns
from jetstore.consumer.state import ConsumerState, filters_of
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.model.consumer import ConsumerConfig
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.memory_log import MemoryLog
from jetstore.store.ports import IndexRow, SubjectFilter
from jetstore.stream.subjects import filter_of

SUBJECTS = [b"a", b"b", b"c.d"]
FILTERS: list[tuple[str, ...]] = [(), ("a",), ("a", "c.*"), ("nothing",)]


class View(MemoryLog):
    """A log with its index: ``StreamView``."""

    @property
    def messages(self) -> int:
        return len(self._seqs)

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        return MemoryIndex(self.index_rows()).matching(subject_filter, after, max_count)


@dataclass
class Tracked:
    """One delivered message that is not settled."""

    attempts: int
    due_ns: int
    consumer_seq: int


@dataclass
class Model:
    """The same consumer, one dict entry per message."""

    next_seq: int
    skip: set[int] | None
    skip_until: int
    consumer_seq: int = 0
    pending: dict[int, Tracked] = field(default_factory=dict)
    exhausted: dict[int, Tracked] = field(default_factory=dict)

    def to_come(self, live: dict[int, bytes], filters: tuple[str, ...]) -> list[int]:
        wanted = filter_of([f.encode() for f in filters])
        return [
            seq
            for seq, subject in sorted(live.items())
            if seq >= self.next_seq
            and (seq > self.skip_until or (self.skip is not None and seq in self.skip))
            and (wanted is None or wanted(subject))
        ]


class ConsumerMachine(RuleBasedStateMachine):
    @initialize(
        filters=st.sampled_from(FILTERS),
        policy=st.sampled_from(["all", "new", "last", "by_start_sequence", "by_start_time", "last_per_subject"]),
        before=st.lists(st.sampled_from(SUBJECTS), max_size=12),
        gone=st.sets(st.integers(1, 12), max_size=6),
        start=st.integers(1, 20),
        max_deliver=st.sampled_from([-1, 1, 2, 3]),
        backoff=st.sampled_from([(), (5, 20)]),
        ack_policy=st.sampled_from(["explicit", "explicit", "all"]),
    )
    def begin(self, filters, policy, before, gone, start, max_deliver, backoff, ack_policy):  # type: ignore[no-untyped-def]
        self.view = View()
        self.live: dict[int, bytes] = {}
        self.now = 1000
        self.store(before)
        for seq in sorted(gone):
            if self.view.remove(seq):
                del self.live[seq]
        self.config = ConsumerConfig(
            name="c",
            deliver_policy=policy,
            opt_start_seq=start if policy == "by_start_sequence" else 0,
            opt_start_time=1000 + start if policy == "by_start_time" else 0,
            ack_policy=ack_policy,
            ack_wait=10,
            backoff=backoff,
            max_deliver=max_deliver,
            filter_subjects=filters,
        )
        self.state = ConsumerState("c", self.config, self.now, filter_of(filters_of(self.config)), self.view)
        matching = Model(1, None, 0).to_come(self.live, filters)
        first = min(self.live, default=self.view.last_seq + 1)
        last = self.view.last_seq
        next_seq, skip, skip_until = first, None, 0
        if policy == "new":
            next_seq = last + 1
        elif policy == "last":
            next_seq = max(matching, default=first)
        elif policy == "by_start_sequence":
            next_seq = max(first, start)
        elif policy == "by_start_time":
            times = [seq for seq in sorted(self.live) if self.view.meta(seq).time_ns >= 1000 + start]
            next_seq = times[0] if times else last + 1
        elif policy == "last_per_subject":
            latest = {self.live[seq]: seq for seq in matching}
            skip, skip_until = set(latest.values()), last if latest else 0
            next_seq = min(skip, default=last + 1)
        self.model = Model(next_seq, skip, skip_until)

    def store(self, subjects: list[bytes]) -> None:
        if not subjects:
            return
        columns = Columns(subjects, (), [b"x"] * len(subjects))
        self.now += 1
        for frame in encode_frames(columns, self.now, 1 << 15):
            first = self.view.last_seq + 1
            self.view.append(first, frame)
        self.live.update((self.view.last_seq - len(subjects) + 1 + at, s) for at, s in enumerate(subjects))
        self.now += len(subjects)

    @property
    def filters(self) -> tuple[str, ...]:
        return self.config.filter_subjects

    def wait(self, attempt: int) -> int:
        return self.config.backoff[min(attempt, 2) - 1] if self.config.backoff else 10

    # -- what happens -------------------------------------------------------------------------------------------------

    @rule(subjects=st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=8))
    def publish(self, subjects):  # type: ignore[no-untyped-def]
        first = self.view.last_seq + 1
        self.store(subjects)
        self.state.on_stored(first, subjects)

    @rule(step=st.integers(1, 25))
    def pass_time(self, step):  # type: ignore[no-untyped-def]
        self.now += step

    @rule(count=st.integers(1, 6), stale=st.booleans(), lost=st.integers(0, 30))
    def deliver(self, count, stale, lost):  # type: ignore[no-untyped-def]
        """Plan, let a message vanish meanwhile, apply: exactly the plan minus what vanished is accepted."""
        plan = self.state.plan(self.now, count)
        planned = [(seq, attempt) for first, last, attempt in plan for seq in range(first, last + 1)]
        assert len(planned) <= count
        assert len({seq for seq, _ in planned}) == len(planned)
        model = self.model
        again = sorted(
            (t.due_ns, seq)
            for seq, t in model.pending.items()
            if t.due_ns <= self.now and not (self.config.max_deliver > 0 and t.attempts >= self.config.max_deliver)
        )
        new = model.to_come(self.live, self.filters)
        expected = [(seq, model.pending[seq].attempts + 1) for _, seq in again]
        expected = (expected + [(seq, 1) for seq in new])[:count]
        assert planned == expected
        if lost in self.live:
            self.delete(lost)
        generation = self.state.generation - 1 if stale else self.state.generation
        outcome = self.state.apply_delivered(plan, generation, self.now)
        got = [
            (seq, d.attempt, d.consumer_seq + seq - d.first)
            for d in outcome.deliveries
            for seq in range(d.first, d.last + 1)
        ]
        if stale:
            assert got == []
            return
        accepted = []
        for seq, attempt in planned:
            if attempt == 1 and seq not in model.pending:
                model.next_seq = max(model.next_seq, seq + 1)
            if seq not in self.live:
                continue
            model.consumer_seq += 1
            accepted.append((seq, attempt, model.consumer_seq))
            first = model.pending[seq].consumer_seq if seq in model.pending else model.consumer_seq
            model.pending[seq] = Tracked(attempt, self.now + self.wait(attempt), first)
        assert got == accepted
        assert outcome.num_pending == len(model.to_come(self.live, self.filters))

    @rule(count=st.integers(1, 4))
    def deliver_twice(self, count):  # type: ignore[no-untyped-def]
        """The same plan a second time is accepted not at all: no message has two holders."""
        plan = self.state.plan_new(count)
        runs = [(seq, seq, 1) for seq in plan]
        accepted = self.state.apply_delivered(runs, self.state.generation, self.now).deliveries
        assert [d.first for d in accepted] == plan
        assert self.state.apply_delivered(runs, self.state.generation, self.now).deliveries == []
        for seq in plan:
            self.model.consumer_seq += 1
            self.model.next_seq = seq + 1
            self.model.pending[seq] = Tracked(1, self.now + self.wait(1), self.model.consumer_seq)

    @rule(lost=st.integers(1, 4), count=st.integers(1, 4))
    def deliver_behind_a_lost_one(self, lost, count):  # type: ignore[no-untyped-def]
        """Of two plans in a row the first never came: the second is not accepted, and nothing is passed over."""
        first = self.state.plan_new(lost)
        if not first:
            return
        from_seq = first[-1] + 1
        runs = [(seq, seq, 1) for seq in self.state.plan_new(count, from_seq)]
        before = self.state.to_head()
        assert not self.state.apply_delivered(runs, self.state.generation, self.now, from_seq).deliveries
        assert self.state.to_head() == before

    @rule(
        op=st.sampled_from([AckOp.ACK, AckOp.ACK, AckOp.ACK, AckOp.TERM, AckOp.NAK, AckOp.PROGRESS]),
        first=st.integers(1, 30),
        size=st.integers(0, 5),
        delay=st.sampled_from([0, 0, 7]),
    )
    def acknowledge(self, op, first, size, delay):  # type: ignore[no-untyped-def]
        last = first + size
        before = self.state.ack_floor.stream_seq
        outcome = self.state.apply_acks([AckRuns(op, delay, [(first, last)])], self.now)
        model = self.model
        low = first
        if op in (AckOp.ACK, AckOp.TERM):
            if self.config.ack_policy == "all":
                last = min(last, self.state.delivered.stream_seq)
                low = 0 if last > before else last + 1
            settled = sorted(seq for seq in {**model.pending, **model.exhausted} if low <= seq <= last)
            for seq in settled:
                model.pending.pop(seq, None)
                model.exhausted.pop(seq, None)
            assert sorted(seq for a, b in outcome.settled for seq in range(a, b + 1)) == settled
        else:
            for seq in [seq for seq in model.pending if low <= seq <= last]:
                tracked = model.pending[seq]
                tracked.due_ns = self.now + (delay if op is AckOp.NAK else self.wait(tracked.attempts))
            assert outcome.settled == []

    @rule()
    def exhaust(self):  # type: ignore[no-untyped-def]
        _, exhausted = self.state.plan_redeliveries(self.now, 0)
        gone = self.state.apply_exhausted(exhausted, self.state.generation, self.now).runs
        expected = {}
        if self.config.max_deliver > 0:
            for seq, tracked in list(self.model.pending.items()):
                if tracked.attempts >= self.config.max_deliver and tracked.due_ns <= self.now:
                    expected[seq] = self.model.pending.pop(seq)
        assert sorted(seq for run in gone for seq in range(run.first, run.last + 1)) == sorted(expected)
        self.model.exhausted.update(expected)

    @rule(pick=st.integers(0, 30), size=st.integers(1, 3))
    def come_back(self, pick, size):  # type: ignore[no-untyped-def]
        """No connection took these: due at once, the attempt does not count."""
        self.state.apply_returned([(pick, pick + size - 1)], self.state.generation, self.now)
        for seq in range(pick, pick + size):
            if seq in self.model.pending:
                tracked = self.model.pending[seq]
                tracked.attempts = max(tracked.attempts - 1, 0)
                tracked.due_ns = self.now

    def delete(self, seq: int) -> None:
        meta = self.view.remove(seq)
        assert meta is not None
        del self.live[seq]
        self.state.on_removed([seq], [meta.subject], self.now)
        self.model.pending.pop(seq, None)
        self.model.exhausted.pop(seq, None)

    @rule(seq=st.integers(1, 30))
    def remove(self, seq):  # type: ignore[no-untyped-def]
        if seq in self.live:
            self.delete(seq)

    @rule(first=st.integers(1, 30), size=st.integers(1, 10))
    def remove_range(self, first, size):  # type: ignore[no-untyped-def]
        last = min(first + size - 1, self.view.last_seq)
        subjects, _ = self.view.remove_range(first, last)
        self.state.on_removed_range(first, last, subjects, self.now)
        for seq in range(first, last + 1):
            self.live.pop(seq, None)
            self.model.pending.pop(seq, None)
            self.model.exhausted.pop(seq, None)

    @rule(filters=st.sampled_from(FILTERS), max_deliver=st.sampled_from([-1, 1, 2, 3]))
    def reconfigure(self, filters, max_deliver):  # type: ignore[no-untyped-def]
        self.config = self.config.model_copy(update={"filter_subjects": filters, "max_deliver": max_deliver})
        wanted = filter_of(filters_of(self.config))
        self.state.update(self.config, wanted, self.now)
        if wanted is not None and self.model.skip is not None:
            # What a changed filter takes off the list of last messages does not come back.
            self.model.skip = {seq for seq in self.model.skip if seq in self.live and wanted(self.live[seq])}

    @rule(seq=st.integers(0, 30))
    def reset(self, seq):  # type: ignore[no-untyped-def]
        floor = self.state.ack_floor.stream_seq
        generation = self.state.generation
        start = self.state.reset(seq, self.now)
        assert start == (seq or floor + 1)
        assert self.state.generation > generation
        assert self.state.ack_floor[:2] == self.state.delivered[:2] == (0, start - 1)
        skipping = self.model.skip_until >= self.model.next_seq and self.model.skip_until >= start
        skip, until = (self.model.skip, self.model.skip_until) if skipping else (None, 0)
        self.model = Model(start, skip, until)

    @rule()
    def crash(self):  # type: ignore[no-untyped-def]
        head = json.loads(json.dumps(self.state.to_head()))
        self.state = ConsumerState.from_head(head, self.state.subject_filter, self.view)
        assert self.state.to_head() == head

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        state, model = self.state, self.model
        counters = state.counters()
        assert counters.num_pending == len(model.to_come(self.live, self.filters))
        assert counters.num_ack_pending == len(model.pending)
        tracked = [*model.pending.values(), *model.exhausted.values()]
        assert counters.num_redelivered == sum(t.attempts > 1 for t in tracked)
        pending = {
            seq: (run.count, run.due_ns, run.consumer_seq + seq - run.first)
            for run in state.pending
            for seq in range(run.first, run.last + 1)
        }
        assert pending == {seq: (t.attempts, t.due_ns, t.consumer_seq) for seq, t in model.pending.items()}
        exhausted = {seq for run in state.exhausted for seq in range(run.first, run.last + 1)}
        assert exhausted == set(model.exhausted)
        assert counters.delivered.consumer_seq == model.consumer_seq
        assert counters.ack_floor.stream_seq <= max(counters.delivered.stream_seq, counters.ack_floor.stream_seq)
        assert state.next_due_ns() == min((t.due_ns for t in model.pending.values()), default=1 << 62)
        # Nothing pending lies at or below the floor.
        assert all(seq > counters.ack_floor.stream_seq for seq in model.pending)
        seqs = sorted(self.live)
        wanted = filter_of([f.encode() for f in self.filters])
        needed = [
            seq in model.pending
            or seq in model.exhausted
            or (seq >= state.cursor.next_seq and (wanted is None or wanted(self.live[seq])))
            for seq in seqs
        ]
        assert state.needs(seqs, [self.live[seq] for seq in seqs]) == needed


EXAMPLES = 2000 if IS_DEEP else 60
ConsumerMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
TestConsumer = ConsumerMachine.TestCase
