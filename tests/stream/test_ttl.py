"""The schedule of per-message expiry alone."""

from __future__ import annotations

import pytest

from jetstore.errors import Corruption, FormatUnknown
from jetstore.stream.ttl import TICK_NS, TtlSchedule


def test_due_in_order_and_bounded() -> None:
    schedule = TtlSchedule()
    for seq, ticks in [(1, 5), (2, 3), (3, 5), (4, 3), (5, 9)]:
        schedule.add(seq, ticks * TICK_NS)
    assert schedule.next_ns() == 3 * TICK_NS
    assert schedule.take_due(3 * TICK_NS - 1, 10) == []
    assert schedule.take_due(5 * TICK_NS, 3) == [1, 2, 4]
    assert schedule.take_due(5 * TICK_NS, 3) == [3]
    assert len(schedule) == 1
    assert schedule.next_ns() == 9 * TICK_NS
    assert schedule.take_due(9 * TICK_NS, 1) == [5]
    assert schedule.next_ns() == 0


def test_never_early() -> None:
    schedule = TtlSchedule()
    schedule.add(1, 2 * TICK_NS + 1)
    assert schedule.next_ns() == 3 * TICK_NS


@pytest.mark.parametrize(
    ("first", "last", "left"), [(1, 3, {5, 9}), (1, 100, set()), (4, 8, {1, 9}), (10, 10, {1, 5, 9})]
)
def test_exemptions_go_with_their_messages(first: int, last: int, left: set[int]) -> None:
    schedule = TtlSchedule()
    for seq in (1, 5, 9):
        schedule.add_never(seq)
    before = schedule.changes
    schedule.forget_never(first, last)
    assert schedule.never == left
    assert (schedule.changes > before) == (len(left) < 3)


def test_as_bytes() -> None:
    schedule = TtlSchedule()
    assert TtlSchedule.from_bytes("x", schedule.to_bytes()).to_rows() == [[]]
    schedule.add(7, TICK_NS)
    schedule.add(8, TICK_NS)
    schedule.add(2, 90 * TICK_NS)
    schedule.add_never(4)
    again = TtlSchedule.from_bytes("x", schedule.to_bytes())
    assert again.to_rows() == schedule.to_rows() == [[4], [1, 7, 8], [90, 2]]
    assert again.take_due(10**18, 10) == [2, 7, 8]


def test_damage() -> None:
    data = TtlSchedule().to_bytes()
    with pytest.raises(Corruption):
        TtlSchedule.from_bytes("x", data[:-1])
    with pytest.raises(Corruption):
        TtlSchedule.from_bytes("x", data + bytes(8))
    with pytest.raises(FormatUnknown):
        TtlSchedule.from_bytes("x", b"\x01" + data[1:])
