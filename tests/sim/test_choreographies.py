"""Goal: the named stories lose nothing, and those that cannot be told here are skipped with the reason."""

from __future__ import annotations

import os

import pytest

from jepsen.sim.report import quiet
from jepsen.sim.scenarios import SCENARIOS, play_scenario

SEEDS = 100 if os.environ.get("JETSTORE_DEEP") == "1" else 1


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(name: str) -> None:
    quiet()
    for seed in range(1, SEEDS + 1):
        outcome = play_scenario(SCENARIOS[name], seed)
        if outcome.skipped:
            pytest.skip(outcome.skipped)
        replay = f"python -m jepsen sim --scenario {name} --seed {seed}"
        assert not outcome.problems, "\n".join([replay, *outcome.story, *outcome.problems[:10]])
