"""Acknowledgements as clients send them, many at once, sorted into what each consumer's log entry needs.

An acknowledgement is a message to
``$JS.ACK.<stream>.<consumer>.<attempt>.<stream seq>.<consumer seq>.<time>.<pending>``; its payload says what is
meant. Source: jetstream API, "Delivery, acks, push control".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jetstore.consumer.entries import AckOp
from jetstore.model.times import parse_duration

_PLAIN = frozenset({b"", b"+ACK", b"+OK"})
SEQ_MAX = 2**63 - 1
TIME_DIGITS_MIN = 12
"""A time in an ack subject has more digits than this; fewer mean that the tokens are not where they should be."""


class NumberedAck(NamedTuple):
    """A NAK or TERM with the numbers of its ack subject, for advisories."""

    stream_seq: int
    consumer_seq: int
    attempt: int
    reason: str


class Confirmation(NamedTuple):
    """Somebody waits for an empty message on ``reply``."""

    reply: bytes
    stream_seq: int
    unless_undelivered: bool
    """Only if this sequence was ever delivered (ACK and TERM); the others are confirmed in any case."""


@dataclass(slots=True)
class ParsedAcks:
    """What one consumer was told, in order."""

    ops: list[tuple[AckOp, int, list[int]]] = field(default_factory=list)
    """(operation, delay in ns, stream sequences); neighbours of one kind are together."""
    count: int = 0
    confirmations: list[Confirmation] = field(default_factory=list)
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Pull requests that came with ``+NXT``: reply subject and body."""
    naks: list[NumberedAck] = field(default_factory=list)
    terms: list[NumberedAck] = field(default_factory=list)
    numbers: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Stream sequence → consumer sequence and attempt, as the ack subjects say; only where metrics want them."""
    is_urgent: bool = False
    """Somebody waits, or a message is to be delivered again now: do not wait for company."""

    def add(self, op: AckOp, delay_ns: int, seqs: list[int]) -> None:
        """One more operation."""
        if self.ops and self.ops[-1][0] is op and self.ops[-1][1] == delay_ns:
            self.ops[-1][2].extend(seqs)
        else:
            self.ops.append((op, delay_ns, seqs))
        self.count += len(seqs)

    def extend(self, later: ParsedAcks) -> None:
        """Put what came later behind this."""
        for op, delay_ns, seqs in later.ops:
            self.add(op, delay_ns, seqs)
        self.confirmations += later.confirmations
        self.requests += later.requests
        self.naks += later.naks
        self.terms += later.terms
        self.numbers.update(later.numbers)
        self.is_urgent = self.is_urgent or later.is_urgent


def parse_acks(
    subjects: Sequence[bytes], replies: Sequence[bytes], header_lens: Sequence[int], payloads: Sequence[bytes]
) -> dict[bytes, ParsedAcks]:
    """What each consumer was told; the key is everything before the last five tokens: its subject up to its name.

    A subject whose numbers are none is left out; one with another number of tokens gets a key that is no consumer's.
    """
    if not any(header_lens) and _PLAIN.issuperset(payloads):
        if not any(replies):
            return _parse_plain(subjects)
        if all(replies):
            return _parse_waiting(subjects, replies)
    found: dict[bytes, ParsedAcks] = {}
    for at, subject in enumerate(subjects):
        try:
            prefix, attempt, stream_seq, consumer_seq, _, _ = subject.rsplit(b".", 5)
            seq = int(stream_seq)
            numbers = (seq, int(consumer_seq), int(attempt))
        except ValueError:
            continue
        if not 0 < seq <= SEQ_MAX:
            continue
        payload = payloads[at][header_lens[at] :] if header_lens else payloads[at]
        acks = found.get(prefix)
        if acks is None:
            acks = found[prefix] = ParsedAcks()
        _parse_one(acks, payload, numbers, replies[at] if replies else b"")
    return found


def ack_numbers(subjects: Sequence[bytes]) -> dict[int, tuple[int, int]]:
    """Stream sequence → consumer sequence and attempt of well-formed ack subjects."""
    found = {}
    for subject in subjects:
        try:
            _, attempt, stream_seq, consumer_seq, _, _ = subject.rsplit(b".", 5)
            found[int(stream_seq)] = (int(consumer_seq), int(attempt))
        except ValueError:
            continue
    return found


def _parse_plain(subjects: Sequence[bytes]) -> dict[bytes, ParsedAcks]:
    if not subjects:
        return {}
    prefix = subjects[0].rsplit(b".", 5)[0]
    lead = prefix + b"."
    text = b"\n".join(subjects)
    if text.count(lead) == len(subjects):
        # One consumer: all numbers in one flat list, every fifth is a stream sequence. No object per message survives.
        numbers = text.replace(lead, b"").replace(b"\n", b".").split(b".")
        if len(numbers) == 5 * len(subjects) and min(map(len, numbers[3::5])) >= TIME_DIGITS_MIN:
            try:
                seqs = list(map(int, numbers[1::5]))
            except ValueError:
                seqs = []
            if seqs and min(seqs) > 0 and max(seqs) <= SEQ_MAX:
                return {prefix: ParsedAcks([(AckOp.ACK, 0, seqs)], len(seqs))}
    by_prefix: dict[bytes, list[int]] = {}
    for subject in filter(_is_well_formed, subjects):
        parts = subject.rsplit(b".", 5)
        by_prefix.setdefault(parts[0], []).append(int(parts[2]))
    return {prefix: ParsedAcks([(AckOp.ACK, 0, seqs)], len(seqs)) for prefix, seqs in by_prefix.items()}


def _parse_waiting(subjects: Sequence[bytes], replies: Sequence[bytes]) -> dict[bytes, ParsedAcks]:
    found = {}
    answers: dict[bytes, list[bytes]] = {}
    good = [(subject, reply) for subject, reply in zip(subjects, replies, strict=True) if _is_well_formed(subject)]
    for subject, reply in good:
        answers.setdefault(subject.rsplit(b".", 5)[0], []).append(reply)
    for prefix, acks in _parse_plain([subject for subject, _ in good]).items():
        seqs = acks.ops[0][2]
        acks.confirmations = [Confirmation(reply, seq, True) for reply, seq in zip(answers[prefix], seqs, strict=True)]
        acks.is_urgent = True
        found[prefix] = acks
    return found


def _is_well_formed(subject: bytes) -> bool:
    parts = subject.rsplit(b".", 5)
    return len(parts) == 6 and parts[2].isdigit() and len(parts[2]) < 1_000 and 0 < int(parts[2]) <= SEQ_MAX


def _parse_one(acks: ParsedAcks, payload: bytes, numbers: tuple[int, int, int], reply: bytes) -> None:
    seq = numbers[0]
    is_settling = True
    if payload in _PLAIN:
        acks.add(AckOp.ACK, 0, [seq])
    elif payload.startswith(b"+NXT"):
        acks.add(AckOp.ACK, 0, [seq])
        acks.is_urgent = True
        if reply:
            acks.requests.append((reply, payload[4:].strip()))
        return
    elif payload.startswith(b"-NAK"):
        delay_ns = _delay_ns(payload[4:])
        acks.add(AckOp.NAK, delay_ns, [seq])
        acks.naks.append(NumberedAck(*numbers, ""))
        acks.is_urgent = True
        is_settling = False
    elif payload.startswith(b"+TERM"):
        acks.add(AckOp.TERM, 0, [seq])
        acks.terms.append(NumberedAck(*numbers, payload[5:].decode("utf-8", "replace").strip()))
    elif payload == b"+WPI":
        acks.add(AckOp.PROGRESS, 0, [seq])
        is_settling = False
    else:
        is_settling = False
    if reply:
        acks.confirmations.append(Confirmation(reply, seq, is_settling))
        acks.is_urgent = True


def _delay_ns(text: bytes) -> int:
    """Delay of ``-NAK {"delay":ns}`` or ``-NAK <go duration>``; 0 where there is none or it is no good."""
    text = text.strip()
    if not text:
        return 0
    try:
        if text.startswith(b"{"):
            delay = json.loads(text).get("delay", 0)
            if not isinstance(delay, int):
                return 0
        else:
            delay = parse_duration(text.decode())
    except (ValueError, RecursionError):
        return 0
    return min(max(delay, 0), SEQ_MAX >> 1)
