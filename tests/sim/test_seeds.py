"""Goal: whole servers keep every promise on the committed seeds and on a few fresh ones.

``JETSTORE_SIM_SEEDS`` says how many fresh ones (default 4; short ones unless ``JETSTORE_DEEP=1``). Their base is
printed, and a failure prints its replay.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from deep import IS_DEEP

from jepsen.nemesis.storm import storms
from jepsen.sim.command import quiet, replay_command
from jepsen.sim.plan import JOINING
from jepsen.sim.run import draw_nodes, run_seed

FRESH = int(os.environ.get("JETSTORE_SIM_SEEDS", "4"))
BASE = int(os.environ.get("JETSTORE_SIM_BASE") or random.SystemRandom().randrange(10**9))
LINES = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
COMMITTED = [line.split()[0] for line in LINES if line.strip() and not line.startswith("#")]


def check(seed: int, nodes: int, *, is_small: bool) -> None:
    quiet()
    report = run_seed(seed, nodes=nodes, is_small=is_small)
    replay = f"replay: {replay_command(seed)} --nodes {nodes}{' --small' * is_small}"
    assert not report.problems, "\n".join([replay, *report.problems[:10], *report.story])


@pytest.mark.parametrize("seed", COMMITTED)
def test_committed_seed(seed: str) -> None:
    number, _, nodes = seed.partition("x")
    check(int(number), int(nodes.rstrip("s") or 1), is_small=seed.endswith("s"))


DICED = [
    (90000729, 5),  # a disk that failed while streams were opened at the word of a leader: the error went to the link
    (90010650, 3),  # bit rot in an encrypted store was never repaired: what was good stood sealed beside what came
]
"""Committed seeds for whose runs the dice chose compression or keys: those of the file have neither."""


@pytest.mark.parametrize(("seed", "nodes"), DICED)
def test_seed_with_dice(seed: int, nodes: int) -> None:
    check(seed, nodes, is_small=True)


@pytest.mark.parametrize("number", range(FRESH))
def test_fresh_seed(number: int) -> None:
    print(f"seeds from {BASE}: this is {BASE + number}")
    check(BASE + number, draw_nodes(BASE + number), is_small=not IS_DEEP)


SCRIPT = """
import sys
from jepsen.sim.command import quiet
from jepsen.sim.run import run_seed
quiet()
for seed in map(int, sys.argv[1:]):
    for nodes in (1, 3):
        report = run_seed(seed, nodes=nodes, is_small=True)
        print(seed, nodes, report.trace_hash, report.operations, report.deaths, report.link_counts)
"""


def test_one_seed_is_one_run_in_every_process() -> None:
    """Method: the same seeds under different hash seeds give the same trace of every callback, byte and disk call."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, "3", "8", "24"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "4711")
    }
    assert len(outputs) == 1, outputs


def test_committed_seeds_are_the_runs_that_they_were() -> None:
    """No workload or storm joins them that was not there when they were committed."""
    words = [(word, chance) for word, names, chance in JOINING if names != ("E",)]
    for seed in (int(committed.partition("x")[0]) for committed in COMMITTED):
        assert all(random.Random(f"{word} {seed}").random() >= chance for word, chance in words), seed
        assert not storms(seed, 1.0), seed
