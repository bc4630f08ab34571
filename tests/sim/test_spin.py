"""An endless loop inside one callback ends the run with the place where it was, instead of hanging the hunt."""

from __future__ import annotations

from random import Random

import pytest

from jepsen.sim import run as runs
from jepsen.sim.loop import SimLoop
from jepsen.sim.machine import Boot
from jepsen.sim.run import run_seed
from jepsen.sim.spin import SimSpin, guarded


def spin() -> None:
    """Never ends."""
    while True:
        pass


def test_a_callback_that_never_ends_is_ended() -> None:
    loop = SimLoop(Random(1))
    loop.call_later(1.0, spin)
    with pytest.raises(SimSpin, match=r"test_spin.py:\d+ spin"), guarded(loop, 0.1):
        loop.run_forever()
    loop.close()


def test_many_callbacks_are_no_spin() -> None:
    loop = SimLoop(Random(1))

    async def busy() -> int:
        for _ in range(60_000):
            future = loop.create_future()
            loop.call_later(0.001, future.set_result, None)
            await future
        return 7

    with guarded(loop, 0.1):
        assert loop.run_until_complete(busy()) == 7
    loop.close()


def test_a_seed_that_spins_fails_as_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(boot: Boot) -> None:
        spin()

    monkeypatch.setattr(runs, "guarded", lambda loop: guarded(loop, 0.1))
    (problem,) = run_seed(5, serve, is_small=True).problems
    assert problem.startswith("spin: ")
    assert "test_spin.py" in problem
    assert "spin" in problem
