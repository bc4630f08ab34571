"""What the core hands out and is handed back: hard state, Ready and its token, events, status.

Everything here is a plain value. ``core.py`` says when each is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from jetstore.raft.log import Entry
from jetstore.raft.membership import Configuration
from jetstore.types import RaftIndex, Term


class Role(Enum):
    """What a member is in its current term. A learner is a follower that never stands for election."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before any message that implies it. ``vote`` is a member number, 0 = none."""

    term: Term
    vote: int


class Token(NamedTuple):
    """Names one Ready when its storage is done. Tokens are handed back in the order they were handed out."""

    number: int
    """0: a hard state alone, which may overtake others."""
    hard_state: HardState | None
    hard_version: int
    term: Term
    """Term of the last entry in it (0 = it had none)."""
    index: RaftIndex  # type: ignore[assignment]  # hides tuple.index
    repaired: tuple[Entry, ...] = ()


class Ready(NamedTuple):
    """What to write, in this order, in one block.

    ``entries`` may start at or below what was written before: then they replace everything from there on (the journal's
    own rule for an ENTRIES line).
    """

    hard_state: HardState | None
    entries: list[Entry]
    prev_term: Term
    """Term of the entry before the first one."""
    token: Token
    repairs: tuple[Entry, ...] = ()
    """Slots that were FAULTY and whose bytes came back: one REPAIR record each, before ``entries``."""


# -- events: what the core asks of its driver, or tells it ------------------------------------------------------------


class ReadState(NamedTuple):
    """The answer to ``read_index(context)``: once ``index`` is applied here, a read is up to date."""

    context: object
    index: RaftIndex | None  # type: ignore[assignment]  # hides tuple.index
    """None: no leader could confirm it; ask again."""


class CheckpointWanted(NamedTuple):
    """``member`` needs entries that this leader no longer holds: keep a checkpoint ≥ ``index`` ready to be fetched."""

    member: int
    index: RaftIndex  # type: ignore[assignment]  # hides tuple.index


class CheckpointFetch(NamedTuple):
    """Fetch a checkpoint ≥ ``index`` from ``source`` and install it, then call ``restored``. Repeated until then."""

    source: int
    index: RaftIndex  # type: ignore[assignment]  # hides tuple.index
    term: Term
    """Term of the entry at ``index`` as far as the source said it (0 = it did not)."""


class LeaderChanged(NamedTuple):
    """This member now follows ``leader`` (0 = nobody known; itself = it leads) in ``term``."""

    leader: int
    term: Term


class Removed(NamedTuple):
    """The committed configuration at ``index`` no longer names this member: archive the group, stop running it."""

    index: RaftIndex  # type: ignore[assignment]  # hides tuple.index


class Fenced(NamedTuple):
    """This leader stopped counting ``member``: it no longer has what it acknowledged. It needs a new number."""

    member: int
    acked_index: RaftIndex
    evidenced_index: RaftIndex


Event: TypeAlias = ReadState | CheckpointWanted | CheckpointFetch | LeaderChanged | Removed | Fenced


# -- status: for people and for placement -----------------------------------------------------------------------------


class ProgressStatus(NamedTuple):
    """What a leader knows of one member."""

    state: str
    """``probe``, ``replicate`` or ``snapshot``."""
    match_index: RaftIndex
    next_index: RaftIndex
    is_active: bool
    """Heard from since the last check-quorum."""
    is_fenced: bool
    """Not counted: it lost what it had acknowledged."""
    is_damaged: bool
    """It has unreadable entries, which are being sent again."""


@dataclass(frozen=True, slots=True)
class Status:
    """One member's view, at one moment. A copy: nothing in it changes later."""

    member: int
    role: Role
    term: Term
    vote: int
    leader: int
    configuration: Configuration
    committed_index: RaftIndex
    applied_index: RaftIndex
    durable_index: RaftIndex
    last_index: RaftIndex
    last_term: Term
    is_quiescent: bool
    transfer_to: int
    """Member that leadership is being handed to; 0 = none."""
    faulty: tuple[RaftIndex, ...]
    """Indexes whose bytes this member cannot read."""
    waiting_for: tuple[int, ...]
    """Members whose answer is missing before the first of them can be resolved."""
    progress: dict[int, ProgressStatus] = field(default_factory=dict)
    """By member; a leader's only."""
