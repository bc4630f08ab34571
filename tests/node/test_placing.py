"""What the metadata wants of a group's members, and the next step of the group's leader towards it."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetstore.errors import ApiError, ConfChangeRefused
from jetstore.meta.placement import Member, Placement, wanted_at
from jetstore.meta.state import MetaState, encode_create, encode_delete, encode_reassign, encode_settled, founded_by
from jetstore.node.placing import is_settled, next_change
from jetstore.raft.core import RaftCore
from jetstore.raft.membership import ConfChange, Configuration
from jetstore.types import GroupUid, Nanos, RaftIndex, Term

A, B, C, D, E = [(name, 1) for name in "abcde"]


def placed(*homes: tuple[str, int]) -> Placement:
    return Placement.founding(homes, RaftIndex(1))


def wanting(before: Placement, *homes: tuple[str, int]) -> Placement:
    after = before.reassigned(wanted_at(before, homes), RaftIndex(9))
    assert after is not None
    return after


def numbers(placement: Placement) -> list[int]:
    return [member.number for member in placement.wanted]


def core(
    configuration: Configuration, *, committed: bool = True, match_index: int = 5, is_alive: bool = True
) -> RaftCore:
    progress = SimpleNamespace(match_index=match_index, is_alive=is_alive)
    state = SimpleNamespace(
        leading=SimpleNamespace(progress=dict.fromkeys(configuration.learners, progress)),
        configuration=configuration,
        configurations=SimpleNamespace(index=5),
        log=SimpleNamespace(committed_index=5 if committed else 4),
    )
    return cast(RaftCore, state)


# -- the wish ---------------------------------------------------------------------------------------------------------


def test_who_stays_keeps_its_number_and_numbers_are_never_given_twice() -> None:
    first = placed(A, B, C)
    second = wanting(first, A, B, D)
    assert numbers(second) == [1, 2, 4]
    assert [member.since for member in second.wanted] == [1, 1, 9]
    assert [member.number for member in second.leaving] == [3]
    third = wanting(second.settled(), A, B, C)
    assert numbers(third) == [1, 2, 5]
    assert third.number_on(C) == 5
    assert third.number_on(D) == 4


def test_a_node_that_leaves_gets_no_new_number_before_that_is_settled() -> None:
    leaving = wanting(placed(A, B, C), A, B)
    again = wanted_at(leaving, [A, B, C])
    assert leaving.reassigned(again, RaftIndex(9)) is None
    assert leaving.settled().reassigned(again, RaftIndex(9)) is not None


def test_a_member_that_is_lost_gets_a_new_number_on_its_node() -> None:
    before = placed(A, B, C)
    after = before.reassigned([*before.wanted[:2], Member(4, *C)], RaftIndex(9))
    assert after is not None
    assert (numbers(after), after.number_on(C), after.next_member) == ([1, 2, 4], 4, 5)


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        [Member(3, *A)],
        [Member(1, *B)],
        [Member(4, *D), Member(4, *E)],
        [Member(1, *A), Member(4, *A)],
    ],
)
def test_what_does_not_fit_changes_nothing(wanted: list[Member]) -> None:
    assert placed(A, B, C).reassigned(wanted, RaftIndex(9)) is None


def test_the_metadata_takes_wishes_in_order_and_keeps_them() -> None:
    state = MetaState()
    state.apply(RaftIndex(1), Term(1), encode_create("S", {"name": "S"}, Nanos(1), GroupUid(2), [A, B, C]))
    before = state.streams["S"]
    wish = encode_reassign(before, wanted_at(before.placement, [A, B, D]))
    assert founded_by(wish) == (2, (Member(1, *A, 1), Member(2, *B, 1), Member(4, *D)))
    state.apply(RaftIndex(2), Term(1), wish)
    assert list(state.unsettled) == ["S"]
    assert isinstance(state.apply(RaftIndex(3), Term(1), wish), ApiError)
    assert isinstance(state.apply(RaftIndex(4), Term(1), encode_settled(before)), ApiError)
    again = MetaState.restore(state.checkpoint().head)
    assert (again.streams, again.unsettled) == (state.streams, state.unsettled)
    state.apply(RaftIndex(5), Term(1), encode_settled(state.streams["S"]))
    assert (state.unsettled, state.streams["S"].placement.leaving) == ({}, ())
    assert MetaState.restore(state.checkpoint().head).streams == state.streams
    again.apply(RaftIndex(5), Term(1), encode_delete("S"))
    assert not again.unsettled


# -- the steps ---------------------------------------------------------------------------------------------------------


def test_learners_then_one_joint_change_then_settled() -> None:
    placement = wanting(placed(A, B, C), B, D, E)
    configuration = Configuration.founding([A, B, C])
    change = next_change(core(configuration), placement)
    assert change is not None
    configuration = configuration.changed(change)
    assert (configuration.learners, configuration.voters) == ({4, 5}, {1, 2, 3})
    change = next_change(core(configuration), placement)
    assert change is not None
    configuration = configuration.changed(change)
    assert (configuration.voters, configuration.voters_outgoing) == ({2, 4, 5}, {1, 2, 3})
    assert next_change(core(configuration), placement) is None
    assert not is_settled(core(configuration), placement)
    configuration = configuration.changed(ConfChange.leave_joint())
    assert not is_settled(core(configuration, committed=False), placement)
    assert is_settled(core(configuration), placement)
    assert next_change(core(configuration), placement) is None


@pytest.mark.parametrize("silent", [{"match_index": 0}, {"is_alive": False}])
def test_a_learner_that_does_not_follow_becomes_no_voter(silent: dict[str, Any]) -> None:
    placement = wanting(placed(A, B, C), A, B, D)
    change = next_change(core(Configuration.founding([A, B, C])), placement)
    assert change is not None
    configuration = Configuration.founding([A, B, C]).changed(change)
    assert next_change(core(configuration, **silent), placement) is None
    assert next_change(core(configuration), placement) is not None


def test_nothing_while_a_change_is_not_committed() -> None:
    placement = wanting(placed(A, B, C), B, D, E)
    assert next_change(core(Configuration.founding([A, B, C]), committed=False), placement) is None


def test_older_metadata_takes_nothing_back() -> None:
    old = wanting(placed(A, B, C), A, B, D)
    new = wanting(old, A, B, E)
    configuration = Configuration.founding([A, B, C])
    for _ in range(2):
        change = next_change(core(configuration), new)
        assert change is not None
        configuration = configuration.changed(change)
        assert next_change(core(configuration), old) is None


def test_a_learner_that_is_not_wanted_any_more_goes_first() -> None:
    old = wanting(placed(A, B, C), A, B, D)
    change = next_change(core(Configuration.founding([A, B, C])), old)
    assert change is not None
    configuration = Configuration.founding([A, B, C]).changed(change)
    change = next_change(core(configuration), wanting(old, A, B, E))
    assert change is not None
    assert configuration.changed(change).learners == frozenset()


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_wished_for_in_whatever_order_is_reached(seed: int) -> None:
    """By leaders that go by newer or older metadata, in turn; and never with fewer than a quorum in common."""
    rng = Random(seed)
    homes = [A, B, C, D, E]
    placements = [placed(*homes[:3])]
    for _ in range(4):
        last = placements[-1]
        if rng.random() < 0.5:
            last = last.settled()
        wanted = wanted_at(last, sorted(rng.sample(homes, rng.choice((1, 2, 3, 5)))))
        after = last.reassigned(wanted, RaftIndex(9))
        if after is not None:
            placements.append(after)
    configuration = Configuration.founding(homes[:3])
    for turn in range(200):
        placement = placements[-1] if turn >= 100 else rng.choice(placements)
        change: Any = next_change(core(configuration), placement)
        if configuration.is_joint:
            change = ConfChange.leave_joint()
        if change is not None:
            try:
                configuration = configuration.changed(change)
            except ConfChangeRefused as error:
                raise AssertionError(f"{configuration} {placement}") from error
    assert is_settled(core(configuration), replace(placements[-1]))
