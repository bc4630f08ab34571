"""Goal: a wall clock that is set back neither turns logged times back nor holds up what is due."""

from __future__ import annotations

import pytest
from delivery_world import FakeClock, FakeLoop, S, World

from jetstore.node.steady_clock import SteadyClock
from jetstore.node.stream_group import newest_time_ns


def make() -> tuple[FakeLoop, FakeClock, SteadyClock]:
    loop = FakeLoop()
    wall = FakeClock(loop)
    return loop, wall, SteadyClock(wall, loop.time)


def test_it_is_the_wall_clock_while_that_goes_forward() -> None:
    loop, wall, steady = make()
    for shift_s in (0, 0, 5, 3600):
        loop.now_s += 1
        wall.shift_ns += shift_s * S
        assert steady.wall_ns() == wall.wall_ns()


@pytest.mark.parametrize("back_s", [1, 60, 86_400])
def test_set_back_it_goes_on_slower_until_the_wall_clock_is_there(back_s: int) -> None:
    loop, wall, steady = make()
    before = steady.wall_ns()
    wall.shift_ns -= back_s * S
    assert steady.wall_ns() == before
    loop.now_s += 4
    assert steady.wall_ns() == before + 3 * S or back_s < 2
    last = steady.wall_ns()
    for _ in range(40):
        loop.now_s += back_s / 10
        now = steady.wall_ns()
        assert now > last
        last = now
    assert last == wall.wall_ns()


def test_many_looks_do_not_slow_it_down() -> None:
    loop, wall, steady = make()
    before = steady.wall_ns()
    wall.shift_ns -= 3600 * S
    for _ in range(10_000):
        loop.now_s += 1e-6
        steady.wall_ns()
    assert abs(steady.wall_ns() - before - 7_500_000) < 100_000


def test_it_goes_on_from_what_the_log_has() -> None:
    loop, wall, steady = make()
    ahead = wall.wall_ns() + 60 * S
    steady.raise_to(ahead)
    loop.now_s += 4
    assert steady.wall_ns() == ahead + 3 * S
    steady.raise_to(0)
    assert steady.wall_ns() == ahead + 3 * S


@pytest.mark.parametrize("jump_s", [-3600, -60, 0, 60])
def test_a_jump_delays_no_redelivery_and_brings_none_too_early(jump_s: int) -> None:
    world = World()
    world.fill(3)
    world.consumer(ack_wait=30 * S)
    assert len(world.fetch(batch=3)) == 3
    world.pass_s(5)
    world.wall.shift_ns += jump_s * S
    world.request("in", {"batch": 10, "expires": 600 * S})
    world.fill(1)  # an entry, so that the log has seen the new time
    assert [got.seq for got in world.outlet.taken(b"in")][:1] == [1 if jump_s > 0 else 4]
    if jump_s <= 0:
        world.pass_s(24)
        assert world.outlet.taken(b"in") == []
    world.pass_s(12)
    assert {got.seq for got in world.outlet.taken(b"in")} >= ({1, 2, 3} if jump_s <= 0 else set())


@pytest.mark.parametrize("answer", [b"+WPI", b"-NAK", b"+ACK"])
def test_a_later_leader_goes_on_from_every_time_that_consumers_go_by(answer: bytes) -> None:
    """Else what is pending becomes due when the later leader's clock is there: after days."""
    world = World()
    world.fill(1)
    world.consumer(ack_wait=30 * S)
    (got,) = world.fetch(batch=1)
    world.wall.shift_ns += 300_000 * S
    world.ack(got, body=answer)
    world.pass_s(1)
    assert newest_time_ns(world.stream) >= world.wall.wall_ns() - 2 * S
