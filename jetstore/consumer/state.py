"""One consumer: where it is in its stream, what is delivered and not acknowledged, what is due again.

Everything that changes here comes from an applied entry (``apply_*``, ``update``, ``reset``) or from what an applied
entry of the stream did (``on_stored``, ``on_removed*``, ``on_purged``), so equal logs give equal states. ``plan_*``
only look. The one exception is ``live``: a leader's position of a consumer without acknowledgements, whose deliveries
are not logged; it is no part of the state's head.

A message is in one of five conditions: *to come* (at or above the cursor) → *pending* (delivered, attempt n, due at a
time) → *settled* (acknowledged or terminated), or *exhausted* (no attempts left; a late acknowledgement still settles
it), or removed from the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jetstore.consumer.counts import (
    AckOutcome,
    Counters,
    DeliveredOutcome,
    Delivery,
    ExhaustedOutcome,
    Position,
)
from jetstore.consumer.cursor import Cursor, runs_of, start_cursor
from jetstore.consumer.entries import AckOp, AckRuns, AttemptRange, SeqRange
from jetstore.consumer.pending import Run, Runs
from jetstore.consumer.ports import StreamView
from jetstore.model.consumer import AckPolicy, ConsumerConfig
from jetstore.store.ports import SubjectFilter


class Live:
    """A leader's position of a consumer without acknowledgements, ahead of what is in the log."""

    __slots__ = ("active_ns", "consumer_seq", "cursor", "stream_seq")

    def __init__(self, cursor: Cursor, consumer_seq: int, stream_seq: int, active_ns: int) -> None:
        self.cursor = cursor
        self.consumer_seq = consumer_seq
        self.stream_seq = stream_seq
        self.active_ns = active_ns


class ConsumerState:
    """The state machine of one consumer."""

    def __init__(
        self, name: str, config: ConsumerConfig, created_ns: int, subject_filter: SubjectFilter | None, view: StreamView
    ) -> None:
        """A new consumer, at the place its deliver policy names in the stream as it is now."""
        self.name = name
        self.created_ns = created_ns
        self.view = view
        self.subject_filter = subject_filter
        self.generation = created_ns
        """Names this life of the cursor: a new one after every update and reset."""
        self.pending = Runs()
        self.exhausted = Runs()
        self.live: Live | None = None
        self.dropped: list[Run] | None = None
        """Where a leader wants to find pending messages that were removed from the stream; None elsewhere."""
        self._take_config(config)
        self.cursor = start_cursor(config, view, subject_filter)
        start = self.cursor.next_seq - 1
        self.delivered = Position(0, start, 0)
        self.ack_floor = Position(0, start, 0)

    def _take_config(self, config: ConsumerConfig) -> None:
        self.config = config
        self.acks = config.ack_policy not in (AckPolicy.NONE, AckPolicy.FLOW_CONTROL)
        self.is_sourcing = config.sourcing or config.ack_policy == AckPolicy.FLOW_CONTROL
        """A mirror or source moves it."""
        self.acks_all = config.ack_policy == AckPolicy.ALL
        self.max_deliver = config.max_deliver if config.max_deliver > 0 else 0
        self.pause_until_ns = config.pause_until

    def wait_ns(self, attempt: int) -> int:
        """How long the n-th delivery may stay unacknowledged."""
        backoff = self.config.backoff
        if backoff:
            return backoff[min(max(attempt, 1), len(backoff)) - 1]
        return self.config.ack_wait

    # -- planning (the leader looks; nothing changes) -----------------------------------------------------------------

    def plan_redeliveries(self, now_ns: int, max_messages: int) -> tuple[list[AttemptRange], list[SeqRange]]:
        """What is due again, earliest first, at most ``max_messages``; and what is due but has no attempts left."""
        again: list[AttemptRange] = []
        exhausted: list[SeqRange] = []
        left = max_messages
        for run in self.pending.due(now_ns):
            if self.max_deliver and run.count >= self.max_deliver:
                exhausted.append((run.first, run.last))
            elif left > 0:
                last = min(run.last, run.first + left - 1)
                left -= last - run.first + 1
                again.append((run.first, last, run.count + 1))
        return again, exhausted

    def plan_new(self, max_messages: int, from_seq: int = 0) -> list[int]:
        """The next undelivered sequences, at most ``max_messages``; from ``from_seq`` on if that is further."""
        cursor = self.live.cursor if self.live else self.cursor
        if from_seq > cursor.next_seq:
            cursor = cursor.copy()
            cursor.next_seq = from_seq
        return cursor.plan(self.view, self.subject_filter, max_messages)

    def plan(self, now_ns: int, max_messages: int) -> list[AttemptRange]:
        """What to deliver next: what is due again, then new messages by stream sequence."""
        again, _ = self.plan_redeliveries(now_ns, max_messages)
        left = max_messages - sum(last - first + 1 for first, last, _ in again)
        new = self.plan_new(left) if left > 0 else []
        return again + [(first, last, 1) for first, last in runs_of(new)]

    def next_due_ns(self) -> int:
        """When the first pending message is due again; a time beyond any clock if none is."""
        return self.pending.next_due_ns()

    # -- entries ------------------------------------------------------------------------------------------------------

    def apply_delivered(
        self, runs: Sequence[AttemptRange], generation: int, now_ns: int, from_seq: int = 0
    ) -> DeliveredOutcome:
        """Accept what is undelivered, or pending from the attempt before and due at ``now_ns``; leave out the rest.

        ``from_seq``: where the plan began. Of several plans under way one may never have entered the log: what
        follows it would skip its messages for good, so it is void.
        """
        accepted: list[Delivery] = []
        if generation != self.generation or from_seq > self.cursor.next_seq:
            return DeliveredOutcome(accepted, self.cursor.num_pending)
        consumer_seq = self.delivered.consumer_seq
        next_seq = self.cursor.next_seq
        for first, last, attempt in runs:
            if first < next_seq:
                if not self.max_deliver or attempt <= self.max_deliver:
                    consumer_seq = self._accept_again(
                        first, min(last, next_seq - 1), attempt, consumer_seq, now_ns, accepted
                    )
                first = next_seq
            if first <= last and attempt == 1:
                consumer_seq = self._accept_new(first, last, consumer_seq, now_ns, accepted)
                next_seq = self.cursor.next_seq
        stream_seq = max(self.delivered.stream_seq, next_seq - 1) if accepted else self.delivered.stream_seq
        if accepted:
            self.delivered = Position(consumer_seq, stream_seq, now_ns)
        return DeliveredOutcome(accepted, self.cursor.num_pending)

    def _accept_again(
        self, first: int, last: int, attempt: int, consumer_seq: int, now_ns: int, accepted: list[Delivery]
    ) -> int:
        due_ns = now_ns + self.wait_ns(attempt)
        for part in self.pending.overlapping(first, last):
            if part.count != attempt - 1 or part.due_ns > now_ns:
                continue
            self.pending.take(part.first, part.last)
            self.pending.put(Run(part.first, part.last, part.consumer_seq, now_ns, due_ns, attempt))
            accepted.append(Delivery(part.first, part.last, attempt, consumer_seq + 1))
            consumer_seq += len(part)
        return consumer_seq

    def _accept_new(self, first: int, last: int, consumer_seq: int, now_ns: int, accepted: list[Delivery]) -> int:
        wanted = range(first, last + 1)
        live = list(filter(self.view.is_live, wanted))
        due_ns = now_ns + self.wait_ns(1)
        for low, high in ((first, last),) if len(live) == len(wanted) else runs_of(live):
            self.pending.put(Run(low, high, consumer_seq + 1, now_ns, due_ns, 1))
            accepted.append(Delivery(low, high, 1, consumer_seq + 1))
            consumer_seq += high - low + 1
        self.cursor.advance(last + 1, len(live))
        return consumer_seq

    def apply_acks(self, ops: Sequence[AckRuns], now_ns: int) -> AckOutcome:
        """Take acknowledgements in their order. What is neither pending nor exhausted is ignored."""
        outcome = AckOutcome()
        if not self.acks:
            return outcome
        for op, delay_ns, ranges in ops:
            if op == AckOp.ACK or op == AckOp.TERM:
                settled = outcome.acked if op == AckOp.ACK else outcome.terminated
                for first, last in ranges:
                    self._settle(first, last, settled, now_ns)
            elif op == AckOp.NAK:
                for first, last in ranges:
                    runs = self.pending.take(first, last)
                    for run in runs:
                        self.pending.put(
                            Run(run.first, run.last, run.consumer_seq, run.time_ns, now_ns + delay_ns, run.count)
                        )
                    outcome.naked += runs
            else:
                for first, last in ranges:
                    for run in self.pending.take(first, last):
                        due_ns = now_ns + self.wait_ns(run.count)
                        self.pending.put(Run(run.first, run.last, run.consumer_seq, run.time_ns, due_ns, run.count))
                self.delivered = self.delivered._replace(last_active_ns=now_ns)
        outcome.settled = [(run.first, run.last) for run in outcome.acked]
        outcome.settled += [(run.first, run.last) for run in outcome.terminated]
        return outcome

    def _settle(self, first: int, last: int, settled: list[Run], now_ns: int) -> None:
        if self.acks_all:
            last = min(last, self.delivered.stream_seq)
            if last <= self.ack_floor.stream_seq:
                return
            first = 0
        runs = self.pending.take(first, last)
        late = self.exhausted.take(first, last) if self.exhausted else []
        if not runs and not late:
            return
        settled += runs
        settled += late
        if self.acks_all:
            consumer_seq = max(run.consumer_seq + len(run) - 1 for run in runs + late)
            floor = Position(max(consumer_seq, self.ack_floor.consumer_seq), last, now_ns)
            self.ack_floor = floor
        else:
            self._raise_floor(now_ns)

    def _raise_floor(self, now_ns: int) -> None:
        """The floor is just below the first pending message; at what was delivered when nothing is pending.

        An exhausted message above the floor holds it while anything is pending.
        """
        low = self.pending.first()
        if low is None:
            consumer_seq, stream_seq = self.delivered.consumer_seq, self.delivered.stream_seq
        else:
            blocking = self.exhausted.first_from(self.ack_floor.stream_seq + 1)
            if blocking is not None and blocking.first < low.first:
                low = blocking
            consumer_seq, stream_seq = low.consumer_seq - 1, low.first - 1
        self.ack_floor = Position(
            max(consumer_seq, self.ack_floor.consumer_seq), max(stream_seq, self.ack_floor.stream_seq), now_ns
        )

    def apply_returned(self, ranges: Sequence[SeqRange], generation: int, now_ns: int) -> None:
        """These deliveries reached no connection: due at once, and the attempt does not count."""
        if generation != self.generation:
            return
        for first, last in ranges:
            for run in self.pending.take(first, last):
                self.pending.put(Run(run.first, run.last, run.consumer_seq, run.time_ns, now_ns, max(run.count - 1, 0)))

    def apply_exhausted(self, ranges: Sequence[SeqRange], generation: int, now_ns: int) -> ExhaustedOutcome:
        """Those of them that are due and have no attempts left are pending no more."""
        gone: list[Run] = []
        if generation == self.generation and self.max_deliver:
            for first, last in ranges:
                for part in self.pending.overlapping(first, last):
                    if part.count >= self.max_deliver and part.due_ns <= now_ns:
                        gone += self.pending.take(part.first, part.last)
        for run in gone:
            self.exhausted.put(Run(run.first, run.last, run.consumer_seq, 0, 0, run.count))
        return ExhaustedOutcome(gone)

    def apply_cursor(self, consumer_seq: int, stream_seq: int, generation: int, now_ns: int) -> AckOutcome:
        """A consumer without acknowledgements has got this far, or what a mirror or source copied is durable there:
        what it passed is settled."""
        outcome = AckOutcome()
        if generation != self.generation or stream_seq < self.cursor.next_seq:
            return outcome
        first = self.cursor.next_seq
        self.cursor.advance(stream_seq + 1, self.cursor.count_until(self.view, self.subject_filter, stream_seq))
        self.delivered = Position(consumer_seq, stream_seq, now_ns)
        self.ack_floor = Position(consumer_seq, stream_seq, now_ns if self.is_sourcing else 0)
        if self.is_sourcing and self.pending:  # of an archive of another server
            self.pending.take(0, stream_seq)
        outcome.settled = [(first, stream_seq)]
        return outcome

    # -- changes ------------------------------------------------------------------------------------------------------

    def update(self, config: ConsumerConfig, subject_filter: SubjectFilter | None, now_ns: int) -> None:
        """Take a changed configuration; counts follow a changed filter, waits a changed ack_wait or backoff."""
        old_waits = {run.count: self.wait_ns(run.count) for run in self.pending}
        moved = config.deliver_subject != self.config.deliver_subject
        self._take_config(config)
        self.subject_filter = subject_filter
        self.generation = max(now_ns, self.generation + 1)
        for run in self.pending.clear():
            due_ns = run.due_ns
            if moved:
                due_ns = min(due_ns, now_ns)
            elif due_ns == run.time_ns + old_waits[run.count]:
                due_ns = run.time_ns + self.wait_ns(run.count)
            self.pending.put(Run(run.first, run.last, run.consumer_seq, run.time_ns, due_ns, run.count))
        self.cursor.refilter(self.view, subject_filter)
        if self.live is not None:
            self.live.cursor.refilter(self.view, subject_filter)

    def reset(self, seq: int, now_ns: int) -> int:
        """Start again at ``seq`` (0 = just above the ack floor), which is returned; nothing is pending any more."""
        start = seq or self.ack_floor.stream_seq + 1
        self.generation = max(now_ns, self.generation + 1)
        self.pending.clear()
        self.exhausted.clear()
        cursor = self.cursor.copy()
        cursor.rewind(start)
        cursor.recount(self.view, self.subject_filter)
        self.cursor = cursor
        self.delivered = self.ack_floor = Position(0, start - 1, 0)
        if self.live is not None:
            self.lead()
        return start

    def pause(self, pause_until_ns: int) -> None:
        """No deliveries until then; 0 = resume."""
        self.config = self.config.model_copy(update={"pause_until": pause_until_ns})
        self.pause_until_ns = pause_until_ns

    # -- the stream ---------------------------------------------------------------------------------------------------

    def on_stored(self, first_seq: int, subjects: Sequence[bytes]) -> None:
        """Messages with consecutive sequences were stored behind everything else."""
        self.cursor.on_stored(first_seq, subjects, self.subject_filter)
        if self.live is not None:
            self.live.cursor.on_stored(first_seq, subjects, self.subject_filter)

    def on_removed(self, seqs: Sequence[int], subjects: Sequence[bytes], now_ns: int = 0) -> None:
        """Messages at these increasing sequences are gone, for whatever reason; call it after their removal."""
        if not seqs:
            return
        self.cursor.on_removed(seqs, subjects, self.subject_filter)
        if self.live is not None:
            self.live.cursor.on_removed(seqs, subjects, self.subject_filter)
        if self.pending or self.exhausted:
            for first, last in runs_of(seqs):
                self._drop(first, last, now_ns)

    def on_removed_range(self, first: int, last: int, subjects: Sequence[bytes], now_ns: int = 0) -> None:
        """All that was live in the closed range is gone; ``subjects`` are theirs. Call it after their removal."""
        if first > last:
            return
        for cursor in (self.cursor, self.live.cursor) if self.live is not None else (self.cursor,):
            if last >= cursor.next_seq:
                if first < cursor.next_seq or first <= cursor.skip_until:
                    cursor.recount(self.view, self.subject_filter)
                else:
                    gone = len(subjects) if self.subject_filter is None else sum(map(self.subject_filter, subjects))
                    cursor.num_pending -= gone
        if self.pending or self.exhausted:
            self._drop(first, last, now_ns)

    def _drop(self, first: int, last: int, now_ns: int) -> None:
        dropped = self.pending.take(first, last)
        if self.exhausted:
            self.exhausted.take(first, last)
        if dropped:
            if self.dropped is not None:
                self.dropped += dropped
            self._raise_floor(now_ns or self.ack_floor.last_active_ns)

    def on_purged(self, next_seq: int) -> None:
        """Everything of this consumer below ``next_seq`` was purged (after ``on_removed*``): it stands there now."""
        if self.cursor.next_seq < next_seq:
            self.cursor.advance(next_seq, 0)
            self.delivered = self.delivered._replace(stream_seq=next_seq - 1)
        if self.ack_floor.stream_seq < next_seq - 1:
            self.pending.take(0, next_seq - 1)
            self.exhausted.take(0, next_seq - 1)
            consumer_seq = self.ack_floor.consumer_seq if self.pending else self.delivered.consumer_seq
            self.ack_floor = self.ack_floor._replace(consumer_seq=consumer_seq, stream_seq=next_seq - 1)
        if self.live is not None and self.live.cursor.next_seq < next_seq:
            self.live.cursor.advance(next_seq, 0)
            self.live.stream_seq = next_seq - 1

    def needs(self, seqs: Sequence[int], subjects: Sequence[bytes]) -> list[bool]:
        """Whether each of these messages still matters to this consumer: to come, pending or exhausted."""
        next_seq, wanted = self.cursor.next_seq, self.subject_filter
        held: set[int] = set()
        if seqs and (self.pending or self.exhausted):
            for runs in (self.pending, self.exhausted):
                for run in runs.overlapping(min(seqs), max(seqs)):
                    held.update(range(run.first, run.last + 1))
        return [
            seq in held or (seq >= next_seq and (wanted is None or wanted(subject)))
            for seq, subject in zip(seqs, subjects, strict=True)
        ]

    # -- leading ------------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """From now on this replica leads: without acknowledgements it delivers ahead of the log."""
        self.dropped = []
        if not self.acks:
            at = self.delivered
            self.live = Live(self.cursor.copy(), at.consumer_seq, at.stream_seq, at.last_active_ns)

    def follow(self) -> None:
        """This replica does not lead any more."""
        self.dropped = None
        self.live = None

    def counters(self) -> Counters:
        """What an info reports, with deliveries that are ahead of the log."""
        if self.live is not None:
            at = Position(self.live.consumer_seq, self.live.stream_seq, self.live.active_ns)
            if self.is_sourcing:  # it is acknowledged up to the logged position
                left = self.live.cursor.num_pending
                return Counters(at, self.ack_floor, self.cursor.num_pending - left, 0, left)
            return Counters(at, at._replace(last_active_ns=0), 0, 0, self.live.cursor.num_pending)
        return Counters(
            self.delivered,
            self.ack_floor,
            self.pending.messages,
            self.pending.redelivered + self.exhausted.redelivered,
            self.cursor.num_pending,
        )

    # -- checkpoint ---------------------------------------------------------------------------------------------------

    def to_head(self) -> dict[str, Any]:  # Any: JSON values
        """As plain JSON values; equal states give equal heads."""
        return {
            "name": self.name,
            "config": self.config.to_json(),
            "created_ns": self.created_ns,
            "generation": self.generation,
            "cursor": self.cursor.to_head(),
            "delivered": list(self.delivered),
            "ack_floor": list(self.ack_floor),
            "pending": self.pending.to_head(),
            "exhausted": self.exhausted.to_head(),
        }

    @classmethod
    def from_head(
        cls, head: dict[str, Any], subject_filter: SubjectFilter | None, view: StreamView
    ) -> ConsumerState:  # Any: JSON values
        """The consumer that ``to_head`` described."""
        state = cls.__new__(cls)
        state.name = head["name"]
        state.created_ns = head["created_ns"]
        state.generation = head["generation"]
        state.view = view
        state.subject_filter = subject_filter
        state.live = None
        state.dropped = None
        state._take_config(ConsumerConfig.from_json(head["config"]))
        state.cursor = Cursor.from_head(head["cursor"])
        state.delivered = Position(*head["delivered"])
        state.ack_floor = Position(*head["ack_floor"])
        state.pending = Runs.from_head(head["pending"])
        state.exhausted = Runs.from_head(head["exhausted"])
        return state


def filters_of(config: ConsumerConfig) -> list[bytes]:
    """The subject patterns of a configuration, as the filter wants them."""
    return [pattern.encode() for pattern in config.filters]
