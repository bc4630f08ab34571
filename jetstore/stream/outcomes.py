"""What apply answers: plain values, the same on every replica. An ``ApiError`` outcome is a definite refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from jetstore.errors import ApiError


class Duplicate(NamedTuple):
    """The message id was stored before, at this sequence; nothing was stored now."""

    seq: int


class BatchEnded(NamedTuple):
    """An earlier message of the same fast batch was refused, which ended it; nothing was stored."""


BATCH_ENDED = BatchEnded()


@dataclass(slots=True)
class PublishOutcome:
    """What became of a publish entry's messages, in bulk.

    The i-th message that is no key of ``exceptions`` got sequence ``first_seq + i``. Under interest retention that
    sequence may hold nothing (nobody wanted the message); it is acknowledged all the same.
    """

    first_seq: int
    count: int
    """Messages of the entry, refused ones included."""
    exceptions: dict[int, Duplicate | ApiError | BatchEnded] = field(default_factory=dict)
    """Position in the entry → why it got no sequence."""
    values: dict[int, int] = field(default_factory=dict)
    """Position in the entry → the counter's value, on streams of counters."""


@dataclass(slots=True)
class BatchOutcome:
    """An atomic batch is stored: its messages have the sequences up to ``last_seq``."""

    last_seq: int
    count: int


@dataclass(slots=True)
class SourcedOutcome:
    """Of messages copied from another stream so many, from the first on, were taken."""

    taken: int


@dataclass(slots=True)
class RestoredOutcome:
    """A part of an archive was taken; the stream stands at ``last_seq``."""

    last_seq: int


@dataclass(slots=True)
class ConfigOutcome:
    """A configuration was taken, or it was older than the one in effect (``is_stale``)."""

    version: int
    is_stale: bool = False
    removed: int = 0
    """Messages trimmed by tighter limits."""


@dataclass(slots=True)
class PurgeOutcome:
    """How many messages a purge removed."""

    purged: int


@dataclass(slots=True)
class DeleteOutcome:
    """The message is removed."""

    seq: int


@dataclass(slots=True)
class ExpireOutcome:
    """What the clock removed."""

    removed: int
    markers: int
    """Delete markers stored in place of last messages."""
    is_complete: bool
    """False: more is due than one entry removes; propose again."""
    fired: int = 0
    """Messages stored by schedules."""


@dataclass(slots=True)
class ConsumerOutcome:
    """What an entry of one consumer did."""

    name: str
    result: Any  # Any: what jetstore.consumer's apply method of that kind returns
    removed: int = 0
    """Messages that this removed from the stream (work queue, interest)."""


@dataclass(slots=True)
class NoopOutcome:
    """A leader's first entry."""


Outcome: TypeAlias = (
    PublishOutcome
    | BatchOutcome
    | SourcedOutcome
    | RestoredOutcome
    | ConfigOutcome
    | PurgeOutcome
    | DeleteOutcome
    | ExpireOutcome
    | ConsumerOutcome
    | NoopOutcome
    | ApiError
)
