"""One Raft group as a pure state machine: inputs change memory only, ``ready()`` lists what the driver must do.

The driver's loop::

    core.propose(...) / core.campaign()      # memory only
    ready = core.ready()                     # hard state and entries to write, in one journal block
    ... the block is durable ...
    core.stored(ready.token)                 # commits what a quorum has; a lone voter is its own quorum
    core.to_apply() → apply → core.applied(index)

Several Readies may be on their way to disk at once; completions arrive in order. Nothing that promises durability
(becoming leader, committing) happens before ``stored``. Source: Raft paper §5.1–5.4; commit of older terms only
through an entry of the leader's own term (§5.4.2, figure 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from jetstore.errors import NotNow
from jetstore.raft.log import Entry, RaftLog
from jetstore.types import RaftIndex, Term


class Role(Enum):
    """What a member is in its current term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before any message that implies it. ``vote`` is a member number, 0 = none."""

    term: Term
    vote: int


@dataclass(frozen=True, slots=True)
class Token:
    """Names one Ready when its storage is done."""

    hard_state: HardState | None
    term: Term
    """Term of the last entry in it (0 = it had none)."""
    index: RaftIndex


@dataclass(frozen=True, slots=True)
class Ready:
    """What to write, in this order, in one block."""

    hard_state: HardState | None
    entries: list[Entry]
    prev_term: Term
    """Term of the entry before the first one."""
    token: Token


class RaftCore:
    """A member of one group. ``log`` is readable by the driver; only this class changes it."""

    def __init__(self, *, member: int, voters: frozenset[int], hard_state: HardState, log: RaftLog) -> None:
        """A member as recovery found it: a follower, in the recovered term.

        Raises ValueError for a configuration that this version cannot run (more than one voter).
        """
        if voters != frozenset({member}):
            raise ValueError(f"groups of one voter only; this member is {member}, voters are {sorted(voters)}")
        if log.last_term > hard_state.term:  # the vote record lags behind the log: raise it, do not vote in that term
            hard_state = HardState(log.last_term, 0)
        self.member = member
        self.log = log
        self.role = Role.FOLLOWER
        self.term = hard_state.term
        self.vote = hard_state.vote
        self._durable_hard_state = hard_state
        self._has_new_hard_state = False
        """Term or vote changed since ``ready()`` handed them out."""
        self._handed_index = log.last_index  # entries up to here were handed out by ready()
        self._term_start_index: RaftIndex | None = None

    # -- inputs ---------------------------------------------------------------------------------------------------

    def campaign(self) -> None:
        """Stand for election: next term, vote for itself. It is leader once that vote is durable."""
        if self.role is Role.LEADER:
            return
        self.term = Term(self.term + 1)
        self.vote = self.member
        self.role = Role.CANDIDATE
        self._has_new_hard_state = True

    def propose(self, data: bytes, message_count: int = 0, cache: object = None) -> Entry:
        """Append to the leader's log; the entry's (term, index) identify what becomes of it.

        Raises NotNow when this member is not the leader: then it is definitely not proposed.
        """
        if self.role is not Role.LEADER:
            raise NotNow("no leader")
        entry = Entry(self.term, RaftIndex(self.log.last_index + 1), data, message_count, cache)
        self.log.append(entry)
        return entry

    # -- outputs --------------------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether ``ready()`` would list something to write."""
        return self.log.last_index > self._handed_index or self._has_new_hard_state

    def ready(self, max_bytes: int | None = None) -> Ready:
        """Everything to write that was not handed out before (at least one entry, then up to ``max_bytes``)."""
        hard_state = HardState(self.term, self.vote) if self._has_new_hard_state else None
        self._has_new_hard_state = False
        first = RaftIndex(self._handed_index + 1)
        entries = self.log.slice(first, self.log.last_index) if first <= self.log.last_index else []
        if max_bytes is not None:
            total = 0
            for position, entry in enumerate(entries):
                total += len(entry.data or b"")
                if position and total > max_bytes:
                    entries = entries[:position]
                    break
        prev_term = self.log.term_at(RaftIndex(first - 1)) if entries else Term(0)
        if prev_term is None:  # the entry before was applied and dropped: it is the last one that was applied
            assert self.log.applied_index == first - 1
            prev_term = self.log.applied_term
        if entries:
            self._handed_index = entries[-1].index
            token = Token(hard_state, entries[-1].term, entries[-1].index)
        else:
            token = Token(hard_state, Term(0), RaftIndex(0))
        return Ready(hard_state, entries, prev_term, token)

    def stored(self, token: Token) -> None:
        """What ``ready()`` listed under this token is durable."""
        if token.hard_state is not None:
            self._durable_hard_state = token.hard_state
            won = HardState(self.term, self.member)
            if self.role is Role.CANDIDATE and token.hard_state == won:
                self._become_leader()
        if token.index and self.log.stored(token.term, token.index):
            self._maybe_commit()

    def to_apply(self) -> list[Entry]:
        """Committed entries in order, up to a FAULTY one."""
        return self.log.to_apply()

    def applied(self, index: RaftIndex) -> None:
        """The state machine has taken everything up to ``index``."""
        self.log.applied(index)

    @property
    def is_leader(self) -> bool:
        """Whether this member may propose."""
        return self.role is Role.LEADER

    @property
    def serves(self) -> bool:
        """Whether everything that was committed before this term is applied: now answers are up to date."""
        return (
            self.role is Role.LEADER
            and self._term_start_index is not None
            and self.log.applied_index >= self._term_start_index
        )

    # -- rules ----------------------------------------------------------------------------------------------------

    def _become_leader(self) -> None:
        assert self._durable_hard_state == HardState(self.term, self.member), "leader before its vote is durable"
        self.role = Role.LEADER
        self._term_start_index = self.propose(b"").index  # the no-op of §5.4.2: commits what older terms left

    def _maybe_commit(self) -> None:
        if self.role is Role.LEADER and self.log.term_at(self.log.durable_index) == self.term:
            self.log.commit(self.log.durable_index)
