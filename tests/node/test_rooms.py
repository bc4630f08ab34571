"""What streams may hold: how much is given out, to whom, and how often everything is added up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetstore.meta.stream_key import GLOBAL_ACCOUNT, stream_key
from jetstore.model.infos import AccountLimits
from jetstore.model.stream import StorageType
from jetstore.node.rooms import Allowance, Room, RoomLimits, Rooms


class Held:
    """Bytes that are stored, and how often somebody asked."""

    def __init__(self) -> None:
        self.bytes = 0
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.bytes


@pytest.mark.parametrize(("is_passed_first", "stored"), [(False, 100), (True, 101)])
def test_exactly_as_much_as_fits_is_given_out(is_passed_first: bool, stored: int) -> None:
    held = Held()
    allowance = Allowance(1000, held, is_passed_first=is_passed_first)
    while allowance.take(10):
        held.bytes += 10
    assert held.bytes == stored * 10


def test_adding_up_is_rare_while_much_is_free() -> None:
    held = Held()
    allowance = Allowance(1 << 30, held)
    for _ in range(10_000):
        assert allowance.take(1000)
        held.bytes += 1000
    assert held.asked == 1


def test_what_was_removed_is_free_again() -> None:
    held = Held()
    held.bytes = 1000
    allowance = Allowance(1000, held)
    assert not allowance.take(1)
    held.bytes = 0
    assert allowance.take(1000)


def test_of_a_run_that_does_not_fit_each_message_is_judged() -> None:
    held = Held()
    held.bytes = 900
    room = Room([(Allowance(1000, held), "JSAccountResourcesExceededErr")], "S")
    refused = [None if why is None else why.err_code for why in room.judge([60, 60, 0, 40, 1])]
    assert refused == [None, 10002, None, None, 10002]


def group(key: str, stored: int, *, coming: int = 0, storage: StorageType = StorageType.FILE) -> Any:
    config = SimpleNamespace(storage=storage)
    stream = SimpleNamespace(bytes=stored, config=config)
    return SimpleNamespace(key=key, stream=stream, ingest=SimpleNamespace(coming_bytes=coming))


def test_only_streams_of_the_account_in_that_storage_count_and_what_comes_does() -> None:
    groups = [
        group(stream_key("A", "S"), 500, coming=100),
        group(stream_key("A", "M"), 900, storage=StorageType.MEMORY),
        group(stream_key("B", "S"), 900),
    ]
    rooms = Rooms(RoomLimits({"A": AccountLimits(max_storage=1000)}), lambda: groups)
    room = rooms.of(stream_key("A", "S"), in_memory=False)
    assert room is not None
    assert room.take(401) is not None
    assert room.take(400) is None
    assert rooms.of(stream_key("A", "S"), in_memory=True) is None
    assert rooms.of(stream_key("B", "S"), in_memory=False) is None


def test_plain_keys_belong_to_the_only_account() -> None:
    key = stream_key(GLOBAL_ACCOUNT, "S")
    limits = RoomLimits({"A": AccountLimits(max_storage=1000)}, only="A")
    room = Rooms(limits, lambda: [group(key, 1000)]).of(key, in_memory=False)
    assert room is not None
    refusal = room.take(1)
    assert refusal is not None
    assert refusal.err_code == 10002


def test_the_tier_of_one_replica_bounds_what_is_stored_and_without_it_nothing_is() -> None:
    key = stream_key("A", "S")
    for tier, taken in (("R1", 1000), ("R3", 0)):
        tiers = {tier: AccountLimits(max_storage=1000)}
        limits = RoomLimits({"A": AccountLimits(0, 0, tiers=tiers)})
        room = cast(Room, Rooms(limits, lambda: [group(key, 0)]).of(key, in_memory=False))
        assert room.take(taken + 1) is not None
        assert room.take(taken) is None


def test_the_server_is_asked_before_the_account() -> None:
    limits = RoomLimits({"A": AccountLimits(max_storage=10)}, max_storage_bytes=100)
    room = Rooms(limits, lambda: [group(stream_key("A", "S"), 101)]).of(stream_key("A", "S"), in_memory=False)
    refusal = cast(Room, room).take(1)
    assert refusal is not None
    assert refusal.err_code == 10023
