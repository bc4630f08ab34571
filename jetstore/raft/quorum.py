"""Quorum arithmetic: what a majority of the voters, or of both halves of a joint configuration, has agreed on.

Pure functions of sets and numbers. ``voters`` are those of the incoming configuration; ``outgoing`` those of the one
that a joint configuration is leaving, empty otherwise. A joint decision needs a majority of *each* (Raft paper §6).

A configuration without voters (a member that knows of none yet) decides nothing: nothing is committed, no election is
won, no quorum is active. Members that are in neither set are never counted, whatever they say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum

from jetstore.types import RaftIndex


class VoteResult(Enum):
    """What an election has come to."""

    WON = "won"
    LOST = "lost"
    """Enough voters refused: nothing that is still to come can win it."""
    PENDING = "pending"


def majority(voter_count: int) -> int:
    """How many of so many voters are a quorum: more than half of them."""
    return voter_count // 2 + 1


def committed_index(voters: Collection[int], outgoing: Collection[int], match_index: Callable[[int], int]) -> RaftIndex:
    """The highest index that a quorum holds, given what each voter holds durably (0 = nothing, or not counted).

    Whether that entry may be *committed* also depends on its term (§5.4.2), which is the caller's to check.
    """
    index = _majority_index(voters, match_index)
    if outgoing:
        index = min(index, _majority_index(outgoing, match_index))
    return RaftIndex(index)


def vote_result(voters: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """The result of an election, given who granted (True) and who refused (False) so far."""
    result = _majority_vote(voters, votes)
    if not outgoing or result is VoteResult.LOST:
        return result
    other = _majority_vote(outgoing, votes)
    if result is other or other is VoteResult.LOST:
        return other
    return VoteResult.PENDING


def is_quorum(voters: Collection[int], outgoing: Collection[int], members: Collection[int]) -> bool:
    """Whether ``members`` contain a quorum: of those heard from (check-quorum), or of answers to one round."""
    if not _has_majority(voters, members):
        return False
    return not outgoing or _has_majority(outgoing, members)


def _has_majority(voters: Collection[int], members: Collection[int]) -> bool:
    return bool(voters) and sum(voter in members for voter in voters) >= majority(len(voters))


def _majority_index(voters: Collection[int], match_index: Callable[[int], int]) -> int:
    if not voters:
        return 0
    held = sorted([match_index(voter) for voter in voters], reverse=True)
    return held[majority(len(held)) - 1]


def _majority_vote(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is not None:
            granted += vote
            refused += not vote
    needed = majority(len(voters))
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:  # also without voters: 0 < 1
        return VoteResult.LOST
    return VoteResult.PENDING
