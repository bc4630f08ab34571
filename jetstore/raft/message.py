"""What members of one group say to each other.

One flat record for every kind: a codec writes the fields that are listed for the kind and leaves the rest at zero. The
group's uid is not in it; whoever carries messages knows which group they belong to. Fields beside kind, sender, to,
term and boot, by kind:

====================  ==========================================================================================
PRE_VOTE, VOTE        last_index, last_term (evidenced, of the candidate); is_forced (a transfer: ignore the lease).
                      PRE_VOTE's term is the one the candidate would stand in; nobody's term changes by it
*_VOTE_RESPONSE       is_rejected. A granted PRE_VOTE_RESPONSE has the asked term, a refused one the voter's own
APPEND                index, log_term (of the entry before), entries, commit, sequence
APPEND_RESPONSE       index = match (durable, verified, readable), hint_index (an unreadable entry of the leader's,
                      or 0), last_index, last_term (evidenced), sequence; or
                      is_rejected: index = the refused previous index, hint_index, hint_term = where to try next
HEARTBEAT             commit (capped at the follower's match), sequence; is_quiescent: stop ticking until woken
HEARTBEAT_RESPONSE    as an APPEND_RESPONSE that is not rejected
SNAPSHOT              index, log_term: a checkpoint at least this new is needed; fetch the sender's; sequence
TIMEOUT_NOW           —: stand for election at once
READ_INDEX            context (the asking follower's number)
READ_INDEX_RESPONSE   context, index; is_rejected: ask again later
REPAIR                index, log_term: have you the bytes of exactly this entry?
REPAIR_RESPONSE       index, log_term (as asked), answer, entries (HAVE: the one), commit (COMPACTED: that index)
REMOVED               index: the configuration that is committed there no longer names you
====================  ==========================================================================================

``boot`` counts the starts of the sender, so that what it said before its last start is told from what it says now.
``sequence`` counts a leader's requests within its term; a member answers with the highest that it got.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from jetstore.raft.log import Entry
from jetstore.types import RaftIndex, Term


class MessageKind(IntEnum):
    """The numbers are those on the wire."""

    PRE_VOTE = 1
    PRE_VOTE_RESPONSE = 2
    VOTE = 3
    VOTE_RESPONSE = 4
    APPEND = 5
    APPEND_RESPONSE = 6
    HEARTBEAT = 7
    HEARTBEAT_RESPONSE = 8
    SNAPSHOT = 9
    TIMEOUT_NOW = 10
    READ_INDEX = 11
    READ_INDEX_RESPONSE = 12
    REPAIR = 13
    REPAIR_RESPONSE = 14
    REMOVED = 15


class Answer(IntEnum):
    """What a voter says about one (index, term) whose bytes another one cannot read."""

    NONE = 0
    """Not a REPAIR_RESPONSE."""
    HAVE = 1
    """Here they are."""
    COMPACTED = 2
    """The index is covered by what this member has applied: proof that it is committed."""
    NEVER = 3
    """An intact log proves that this member does not hold this entry and, in this term, never will."""
    FAULTY = 4
    """It is evidenced here too, and unreadable here too."""


class Message(NamedTuple):
    """One message. ``sender`` and ``to`` are member numbers."""

    kind: MessageKind
    sender: int
    to: int
    term: Term
    index: RaftIndex = RaftIndex(0)  # type: ignore[assignment]  # hides tuple.index
    log_term: Term = Term(0)
    commit: RaftIndex = RaftIndex(0)
    entries: tuple[Entry, ...] = ()
    is_rejected: bool = False
    hint_index: RaftIndex = RaftIndex(0)
    hint_term: Term = Term(0)
    last_index: RaftIndex = RaftIndex(0)
    last_term: Term = Term(0)
    sequence: int = 0
    context: int = 0
    answer: Answer = Answer.NONE
    is_forced: bool = False
    is_quiescent: bool = False
    boot: int = 0
