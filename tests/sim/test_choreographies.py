"""Goal: the named stories lose nothing, and those that cannot be told here are skipped with the reason."""

from __future__ import annotations

import pytest
from deep import IS_DEEP

from jepsen.sim.report import quiet
from jepsen.sim.scenarios import SCENARIOS, play_scenario

SEEDS = 100 if IS_DEEP else 1


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name: str) -> None:
    quiet()
    for seed in range(1, SEEDS + 1):
        outcome = play_scenario(SCENARIOS[name], seed)
        if outcome.skipped:
            pytest.skip(outcome.skipped)
        replay = f"python -m jepsen sim --scenario {name} --seed {seed}"
        assert not outcome.problems, "\n".join([replay, *outcome.story, *outcome.problems[:10]])
