"""Machines share one processor in a run: looks at the clock, which take its time, must not take nearly all of it."""

from __future__ import annotations

from random import Random

import pytest

from jepsen.sim import run as runs
from jepsen.sim.command import quiet
from jepsen.sim.loop import SimLoop
from jepsen.sim.plan import draw_plan

SEED = 5020
"""Has looks that cost, and no faults."""


def test_five_machines_leave_time_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet()
    spent_s = 0.0
    loops: set[SimLoop] = set()
    genuine = SimLoop.time

    def look(loop: SimLoop) -> float:
        nonlocal spent_s
        spent_s += loop.time_cost_s
        loops.add(loop)
        return genuine(loop)

    monkeypatch.setattr(SimLoop, "time", look)
    report = runs.run_seed(SEED, nodes=5, is_small=True, workloads=("C",), publishes_max=15)
    assert report.problems == []
    (loop,) = loops
    assert 0.1 < spent_s / loop.now() < 0.8


def test_runs_of_one_and_three_machines_are_what_they_were() -> None:
    costs = {nodes: [draw_plan(Random(seed), nodes=nodes).time_cost_s for seed in range(40)] for nodes in (1, 3, 5)}
    assert set(costs[1]) == set(costs[3]) == {0.0, 0.001}
    assert len(set(costs[5])) == 2
    assert 0.0 < max(costs[5]) < 0.001
