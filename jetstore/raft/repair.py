"""Entries that are proved to exist and cannot be read: what a voter says about them, and what a leader concludes.

Four answers to "have you the bytes of exactly (index, term)?" (STORAGE §7):

- HAVE: the bytes. The same (index, term) is the same entry everywhere (log matching, Raft paper §5.3): always a repair.
- COMPACTED: the index is applied here, so it is committed; its effect is in this member's checkpoint, to be fetched.
- NEVER: this log proves that it does not hold the entry; and since the answer is given in the asking leader's term, it
  will not take it from an older leader any more. A majority of NEVERs intersects every majority that could have
  committed it: it was not, and the leader drops it and all later ones.
- FAULTY: evidenced here too and unreadable here too. Proves nothing.

Source: Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (FAST '18), §3.3–3.4.
"""

from __future__ import annotations

from jetstore.raft.log import Entry, RaftLog
from jetstore.raft.membership import Configuration
from jetstore.raft.message import Answer
from jetstore.raft.quorum import VoteResult, vote_result
from jetstore.types import RaftIndex, Term


def answer(log: RaftLog, index: RaftIndex, term: Term) -> tuple[Answer, tuple[Entry, ...], RaftIndex]:
    """What this log says about (index, term): the answer, the entry if HAVE, the covering index if COMPACTED."""
    if index > log.last_index:
        return Answer.NEVER, (), RaftIndex(0)
    if index >= log.first_index:
        entry = log.entry(index)
        if entry.data is not None and entry.term == term:
            return Answer.HAVE, (entry,), RaftIndex(0)
        if index > log.applied_index:
            return (Answer.FAULTY if entry.data is None else Answer.NEVER), (), RaftIndex(0)
    return Answer.COMPACTED, (), log.applied_index


class Resolution:
    """What a leader with unreadable entries has heard about each of them in its term."""

    def __init__(self) -> None:
        self._answers: dict[RaftIndex, dict[int, Answer]] = {}

    def heard(self, member: int, index: RaftIndex, reply: Answer) -> None:
        """Note an answer."""
        self._answers.setdefault(index, {})[member] = reply

    def is_never(self, index: RaftIndex, configuration: Configuration) -> bool:
        """Whether a majority of the voters (of both halves) never held the entry."""
        votes = {member: reply is Answer.NEVER for member, reply in self._answers.get(index, {}).items()}
        return vote_result(configuration.voters, configuration.voters_outgoing, votes) is VoteResult.WON

    def missing(self, index: RaftIndex, configuration: Configuration, member: int) -> tuple[int, ...]:
        """Voters other than ``member`` that have said nothing yet about the entry, ascending."""
        answers = self._answers.get(index, {})
        return tuple(sorted(voter for voter in configuration.all_voters if voter != member and voter not in answers))
