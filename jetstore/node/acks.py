"""Acknowledgements of one consumer on their way into the log: gathered, logged together, confirmed once applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Protocol

from jetstore.consumer import counts, entries
from jetstore.consumer.cursor import runs_of
from jetstore.consumer.entries import AckOp, AckRuns, SeqRange
from jetstore.consumer.state import ConsumerState
from jetstore.node.ack_parser import NumberedAck, ParsedAcks, ack_numbers, parse_acks
from jetstore.node.advisories import Advisories
from jetstore.node.ports import Inbound, Outlet

ACK_DELAY_S = 0.02
"""Acknowledgements nobody waits for are logged at most this much later, together."""
ACKS_FLUSH = 500
"""When this many are waiting they are logged at once."""
ACKS_PER_ENTRY = 20_000
"""Acknowledged messages of one entry; more make another one."""


class AckOwner(Protocol):
    """The engine of the consumer."""

    name: str
    ack_key: bytes
    """Ack subjects of this consumer up to its name."""
    state: ConsumerState
    outlet: Outlet
    advisories: Advisories
    rng: Random
    loop: asyncio.AbstractEventLoop
    stopped: bool
    generation: int

    @property
    def is_blocked(self) -> bool: ...
    def now_ns(self) -> int: ...
    def arm(self) -> None: ...
    def touch(self) -> None: ...
    def on_acked(self) -> None: ...
    def on_next_request(self, reply: bytes, body: bytes) -> None: ...
    def propose(self, data: bytes, on_result: Callable[[object], None]) -> None: ...


class AckIntake:
    """Takes what is published on one consumer's ack subjects."""

    def __init__(self, owner: AckOwner) -> None:
        self._owner = owner
        self._waiting = ParsedAcks()
        self.due_s = 0.0
        """Loop time at which what waits must be logged; 0 = nothing waits."""
        self.naks_logged = 0
        """Entries with messages that are to come again at once, ever."""
        self.naks_applied = 0
        """And those of them that have been applied."""

    def on_messages(self, batch: Inbound) -> None:
        """A run of acknowledgements (``InboundHandler``)."""
        acks = parse_acks(batch.subjects, batch.replies, batch.header_lens, batch.payloads).get(self._owner.ack_key)
        if acks is not None:
            if self._owner.state.config.sample_freq:
                acks.numbers = ack_numbers(batch.subjects)
            self.take(acks)

    def take(self, acks: ParsedAcks) -> None:
        """Clients acknowledged. It is logged soon: at once if somebody waits for it."""
        owner = self._owner
        owner.touch()
        if self.due_s:
            self._waiting.extend(acks)
        else:
            self._waiting = acks
        if self._waiting.is_urgent or self._waiting.count >= ACKS_FLUSH or owner.is_blocked:
            self.flush()
        elif not self.due_s:
            self.due_s = owner.loop.time() + ACK_DELAY_S
            owner.arm()

    def flush(self) -> None:
        """Log the acknowledgements that wait for company."""
        owner = self._owner
        acks, self._waiting = self._waiting, ParsedAcks()
        self.due_s = 0.0
        if owner.stopped:
            return
        for reply, body in acks.requests:
            owner.on_next_request(reply, body)
        ops: list[AckRuns] = []
        size = 0
        for op, delay_ns, seqs in acks.ops:
            for start in range(0, len(seqs), ACKS_PER_ENTRY):
                part = seqs[start : start + ACKS_PER_ENTRY]
                if size + len(part) > ACKS_PER_ENTRY:
                    owner.propose(self._encode(ops), lambda result: self._applied(result, ParsedAcks()))
                    ops, size = [], 0
                ops.append(AckRuns(op, delay_ns, self._ranges(op, part)))
                size += len(part)
        if ops or acks.confirmations:
            has_naks = any(op == AckOp.NAK and not delay_ns for op, delay_ns, _ in acks.ops)
            self.naks_logged += has_naks

            def applied(result: object) -> None:
                self.naks_applied += has_naks
                self._applied(result, acks)

            owner.propose(self._encode(ops), applied)

    def _encode(self, ops: Sequence[AckRuns]) -> bytes:
        owner = self._owner
        return entries.encode_acks(owner.name, owner.generation, owner.now_ns(), ops)

    def _ranges(self, op: AckOp, seqs: Sequence[int]) -> list[SeqRange]:
        if op == AckOp.ACK and self._owner.state.acks_all:
            top = max(seqs)
            return [(top, top)]
        if op == AckOp.NAK:
            return [(seq, seq) for seq in dict.fromkeys(seqs)]
        if seqs[-1] - seqs[0] + 1 == len(seqs) and list(seqs) == list(range(seqs[0], seqs[-1] + 1)):
            return [(seqs[0], seqs[-1])]
        return runs_of(sorted(set(seqs)))

    def _applied(self, result: object, acks: ParsedAcks) -> None:
        """The entry is durable and applied: confirm to who waits, tell who listens."""
        owner = self._owner
        if owner.stopped:
            return
        if not isinstance(result, counts.AckOutcome):
            # Not in the log, or the consumer is gone: who waits may ask again.
            owner.on_acked()
            return
        delivered_seq = owner.state.delivered.stream_seq
        replies = [reply for reply, seq, if_delivered in acks.confirmations if seq <= delivered_seq or not if_delivered]
        if replies:
            owner.outlet.publish(replies, (), [b""] * len(replies))
        self._tell(result, acks)
        owner.on_acked()

    def _tell(self, result: counts.AckOutcome, acks: ParsedAcks) -> None:
        owner = self._owner
        if acks.naks and owner.advisories.wants("MSG_NAKED", owner.name):
            done = {seq for run in result.naked for seq in range(run.first, run.last + 1)}
            self._tell_each("MSG_NAKED", "nak", [nak for nak in acks.naks if nak.stream_seq in done])
        if acks.terms and owner.advisories.wants("MSG_TERMINATED", owner.name):
            # As in nats-server, a message that is terminated again is told again.
            delivered_seq = owner.state.delivered.stream_seq
            told = [term for term in acks.terms if term.stream_seq <= delivered_seq]
            self._tell_each("MSG_TERMINATED", "terminated", told)
        if result.acked and owner.state.config.sample_freq:
            self._sample(result, acks.numbers)

    def _tell_each(self, kind: str, what: str, numbered: Sequence[NumberedAck]) -> None:
        owner = self._owner
        for seq, consumer_seq, attempt, reason in numbered:
            owner.advisories.tell(
                kind,
                what,
                owner.name,
                consumer_seq=consumer_seq,
                stream_seq=seq,
                deliveries=attempt,
                reason=reason or None,
            )

    def _sample(self, result: counts.AckOutcome, numbers: Mapping[int, tuple[int, int]]) -> None:
        """Ack metrics for some of the acknowledged messages."""
        owner = self._owner
        subject = owner.advisories.wants_metric(owner.name)
        percent = int(owner.state.config.sample_freq.rstrip("%") or 0)
        if not subject or percent <= 0:
            return
        now_ns = owner.state.ack_floor.last_active_ns
        for run in result.acked:
            for seq in range(run.first, run.last + 1):
                consumer_seq, attempt = numbers.get(seq, (run.consumer_seq + seq - run.first, run.count))
                if percent >= 100 or owner.rng.random() * 100 < percent:
                    owner.advisories.send(
                        subject,
                        "io.nats.jetstream.metric.v1.consumer_ack",
                        owner.name,
                        consumer_seq=consumer_seq,
                        stream_seq=seq,
                        ack_time=max(now_ns - run.time_ns, 0),
                        deliveries=attempt,
                    )
