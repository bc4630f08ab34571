"""Quorum arithmetic against brute force: every majority is written out, up to 7 voters, joint ones included."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.raft.quorum import VoteResult, committed_index, is_quorum, majority, vote_result

Half = frozenset[int]


@cache
def quorums(voters: Half) -> list[frozenset[int]]:
    """Every smallest set of voters that is more than half of them."""
    size = next(size for size in range(9) if 2 * size > len(voters))
    return [frozenset(chosen) for chosen in combinations(sorted(voters), size)]


def decides(voters: Half, outgoing: Half, members: frozenset[int]) -> bool:
    halves = [voters, outgoing] if outgoing else [voters]
    return all(any(quorum <= members for quorum in quorums(half)) for half in halves)


def brute_committed(voters: Half, outgoing: Half, match: dict[int, int]) -> int:
    """The highest index such that those who hold it decide."""
    return max(
        i
        for i in [0, *match.values()]
        if decides(voters, outgoing, frozenset(m for m in match if match[m] >= i)) or i == 0
    )


def brute_vote(voters: Half, outgoing: Half, votes: dict[int, bool]) -> VoteResult:
    """Every way in which the missing votes can still turn out is tried."""
    missing = sorted((voters | outgoing) - votes.keys())
    outcomes = set()
    for answers in product([False, True], repeat=len(missing)):
        final = votes | dict(zip(missing, answers, strict=True))
        outcomes.add(decides(voters, outgoing, frozenset(member for member, granted in final.items() if granted)))
    if outcomes == {True}:
        return VoteResult.WON
    return VoteResult.LOST if outcomes == {False} else VoteResult.PENDING


members = st.frozensets(st.integers(1, 8), max_size=7)
voting = st.frozensets(st.integers(1, 8), min_size=1, max_size=7)


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half(voters: int, needed: int) -> None:
    assert majority(voters) == needed


@given(voting, members, st.lists(st.integers(0, 9), min_size=8, max_size=8))
def test_committed_index_is_what_some_quorum_holds(voters: Half, outgoing: Half, held: list[int]) -> None:
    match = dict(enumerate(held, 1))
    assert committed_index(voters, outgoing, match.__getitem__) == brute_committed(voters, outgoing, match)


@given(voting, members, st.dictionaries(st.integers(1, 9), st.booleans()))
def test_vote_result_is_what_the_missing_votes_leave_open(voters: Half, outgoing: Half, votes: dict[int, bool]) -> None:
    assert vote_result(voters, outgoing, votes) is brute_vote(voters, outgoing, votes)


@given(voting, members, members)
def test_active_quorum(voters: Half, outgoing: Half, active: Half) -> None:
    assert is_quorum(voters, outgoing, active) == decides(voters, outgoing, active)


@given(voting, members, st.frozensets(st.integers(1, 8)), st.frozensets(st.integers(1, 8)))
def test_any_two_quorums_of_one_configuration_meet(voters: Half, outgoing: Half, one: Half, other: Half) -> None:
    if is_quorum(voters, outgoing, one) and is_quorum(voters, outgoing, other):
        assert one & other & voters


def test_every_case_of_up_to_five_voters_exhaustively() -> None:
    for count in range(1, 6):
        voters = frozenset(range(1, count + 1))
        for held in product(range(3), repeat=count):
            match = dict(enumerate(held, 1))
            assert committed_index(voters, frozenset(), match.__getitem__) == brute_committed(
                voters, frozenset(), match
            )
        for answers in product([None, False, True], repeat=count):
            votes = {member: answer for member, answer in enumerate(answers, 1) if answer is not None}
            assert vote_result(voters, frozenset(), votes) is brute_vote(voters, frozenset(), votes)


def test_a_configuration_without_voters_decides_nothing() -> None:
    nobody: Half = frozenset()
    assert committed_index(nobody, nobody, lambda _: 7) == 0
    assert vote_result(nobody, nobody, {1: True}) is VoteResult.LOST
    assert not is_quorum(nobody, nobody, {1, 2, 3})


def test_who_is_in_neither_half_is_not_counted() -> None:
    voters = frozenset({1, 2, 3})
    assert vote_result(voters, frozenset(), {1: True, 4: True, 5: True}) is VoteResult.PENDING
    assert not is_quorum(voters, frozenset(), {1, 4, 5, 6})


def test_a_joint_decision_needs_both_halves() -> None:
    """A majority of the union is not enough: 1, 2, 3 of {1, 2, 3} and {3, 4, 5}."""
    old, new = frozenset({1, 2, 3}), frozenset({3, 4, 5})
    assert not is_quorum(new, old, {1, 2, 3})
    assert is_quorum(new, old, {2, 3, 4})
    assert vote_result(new, old, {1: True, 2: True, 4: False, 5: False}) is VoteResult.LOST
    assert vote_result(new, old, {1: True, 2: True, 3: True}) is VoteResult.PENDING
    held = {1: 9, 2: 9, 3: 4, 4: 2, 5: 1}
    assert committed_index(new, old, held.__getitem__) == 2
