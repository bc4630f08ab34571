"""What a consumer reports about itself and what its entries did: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from jetstore.consumer.entries import SeqRange
from jetstore.consumer.pending import Run


class Position(NamedTuple):
    """A pair of positions and when it last moved (0 = never)."""

    consumer_seq: int
    stream_seq: int
    last_active_ns: int


class Counters(NamedTuple):
    """The counters of a consumer's info."""

    delivered: Position
    ack_floor: Position
    num_ack_pending: int
    num_redelivered: int
    num_pending: int


class Delivery(NamedTuple):
    """Accepted for delivery: messages ``first``…``last``, the n-th attempt, numbered from ``consumer_seq`` on."""

    first: int
    last: int
    attempt: int
    consumer_seq: int


class DeliveredOutcome(NamedTuple):
    """What of a DELIVERED entry was accepted: exactly this may be sent."""

    deliveries: list[Delivery]
    num_pending: int
    """Messages still to be delivered for the first time, after this entry."""


@dataclass(slots=True)
class AckOutcome:
    """What acknowledgements did. The runs carry times and attempts as they were."""

    acked: list[Run] = field(default_factory=list)
    terminated: list[Run] = field(default_factory=list)
    naked: list[Run] = field(default_factory=list)
    settled: list[SeqRange] = field(default_factory=list)
    """Sequences this consumer needs no more: acknowledged, terminated, or passed without acknowledgement.

    In the last case the range also covers sequences between that it never wanted.
    """


class ExhaustedOutcome(NamedTuple):
    """Messages that ran out of delivery attempts by this entry."""

    runs: list[Run]


class SetOutcome(NamedTuple):
    """A consumer was created or its configuration changed."""

    created: bool


class DeleteOutcome(NamedTuple):
    """Whether there was such a consumer."""

    existed: bool


class ResetOutcome(NamedTuple):
    """Where the consumer starts again; 0 = there is no such consumer."""

    seq: int


class PauseOutcome(NamedTuple):
    """Until when the consumer is paused; 0 = not."""

    pause_until_ns: int
    existed: bool
