"""Goal: virtual time is exact, order is first in first out, and nothing outside the seed decides anything."""

# ruff: noqa: ASYNC110 (in virtual time polling costs nothing)
from __future__ import annotations

import asyncio
import subprocess
import sys
from random import Random

import pytest

from jepsen.sim.faults import SimCrash
from jepsen.sim.loop import SimDeadlock, SimLivelock, SimLoop, SimTimeout
from jepsen.sim.owner import Owner, SimForbidden


@pytest.fixture
def loop():  # type: ignore[no-untyped-def]
    loop = SimLoop(Random(1))
    yield loop
    loop.close()


def test_time_jumps_to_the_next_timer(loop: SimLoop) -> None:
    async def main() -> float:
        await asyncio.sleep(3600 * 24 * 365)
        return loop.time()

    assert loop.run_until_complete(main()) == pytest.approx(3600 * 24 * 365, abs=0.001)


def test_equal_times_run_in_the_order_they_were_set(loop: SimLoop) -> None:
    seen: list[int] = []

    async def main() -> None:
        when = loop.time() + 1
        for number in range(100):
            loop.call_at(when, seen.append, number)
        cancelled = loop.call_at(when, seen.append, -1)
        cancelled.cancel()
        for number in range(100, 200):
            loop.call_at(when, seen.append, number)
        await asyncio.sleep(2)

    loop.run_until_complete(main())
    assert seen == list(range(200))


def test_timeouts_task_groups_and_queues_work(loop: SimLoop) -> None:
    async def main() -> list[str]:
        found: list[str] = []
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def producer() -> None:
            for number in range(3):
                await queue.put(number)

        async def consumer() -> None:
            while len(found) < 3:
                found.append(f"got {await queue.get()}")

        async with asyncio.TaskGroup() as group:
            group.create_task(producer())
            group.create_task(consumer())
        try:
            async with asyncio.timeout(5):
                await loop.create_future()
        except TimeoutError:
            found.append(f"timeout at {loop.time():.0f}")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(100))
                group.create_task(asyncio.wait_for(loop.create_future(), 1))
        except* TimeoutError:
            found.append(f"group ended at {loop.time():.0f}")
        return found

    assert loop.run_until_complete(main()) == ["got 0", "got 1", "got 2", "timeout at 5", "group ended at 6"]


def test_a_deadlock_is_an_error(loop: SimLoop) -> None:
    with pytest.raises(SimDeadlock, match="no timer"):
        loop.run_until_complete(loop.create_future())


def test_a_livelock_and_a_run_that_never_ends_are_errors() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)

    for main, error in ((spin, SimLivelock), (tick, SimTimeout)):
        loop = SimLoop(Random(1), callbacks_max=10_000)
        loop.deadline_s = 1000
        task = loop.create_task(main())
        with pytest.raises(error):
            loop.run_until_complete(task)
        task.cancel()
        loop.callbacks = 0
        loop.deadline_s = 10_000
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()


def test_the_real_world_is_refused(loop: SimLoop) -> None:
    async def main() -> None:
        with pytest.raises(SimForbidden):
            await asyncio.to_thread(print)
        with pytest.raises(SimForbidden):
            loop.add_signal_handler(15, print)

    loop.run_until_complete(main())


def test_a_dead_owner_runs_nothing_more_not_even_its_clean_up(loop: SimLoop) -> None:
    seen: list[str] = []
    owner = Owner("node")

    async def child() -> None:
        try:
            await asyncio.sleep(10)
            seen.append("child")
        finally:
            seen.append("finally")

    async def process() -> None:
        loop.call_later(5, seen.append, "timer")
        loop.call_later(1, seen.append, "early")
        await asyncio.gather(child(), child())

    async def main() -> None:
        loop.call_owned(owner, loop.create_task, process())
        await asyncio.sleep(2)
        owner.is_alive = False
        await asyncio.sleep(20)

    loop.run_until_complete(main())
    assert seen == ["early"]
    loop.bury(owner)
    assert seen == ["early", "finally", "finally"]
    assert loop.failures == []


def test_failures_are_kept_and_a_crash_is_none(loop: SimLoop) -> None:
    def boom(error: BaseException) -> None:
        raise error

    async def main() -> None:
        loop.call_soon(boom, ValueError("bug"))
        loop.call_soon(boom, SimCrash("power"))
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    (failure,) = loop.failures
    assert "bug" in failure


def test_looking_at_the_clock_can_cost_time(loop: SimLoop) -> None:
    loop.time_cost_s = 0.001
    assert loop.time() < loop.time()


SCRIPT = """
import asyncio
from random import Random
from jepsen.sim.loop import SimLoop

loop = SimLoop(Random(7))

async def worker(number):
    try:
        await asyncio.sleep(number % 3)
        if number == 40:
            raise ValueError
        await asyncio.sleep(5)
    finally:
        loop.trace("done", number)

async def main():
    done, _ = await asyncio.wait([loop.create_task(asyncio.sleep(1, n)) for n in range(30)])
    loop.trace(*[task.result() for task in done])
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(worker(number))
    except* ValueError:
        pass
    for name in {"a", "b", "c"} & {"a", "b"}:
        pass

loop.run_until_complete(main())
print(loop.trace_hash())
"""


def test_the_trace_is_the_same_in_every_process() -> None:
    """Method: cancel order of a task group and iteration over sets of tasks depend on memory addresses in asyncio."""
    hashes = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(hashes) == 1


def test_what_a_dead_process_never_looked_at_is_no_failure(loop: SimLoop) -> None:
    """Its futures may be thrown away much later, while somebody else runs."""

    async def main() -> None:
        dead, alive = Owner("dead"), Owner("alive")
        futures = [loop.call_owned(owner, loop.create_future) for owner in (dead, alive)]
        dead.is_alive = False
        while futures:
            futures.pop().set_exception(OSError("nobody looks"))

    loop.run_until_complete(main())
    assert len(loop.failures) == 1
