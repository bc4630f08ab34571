"""Goal: a failing seed is cut down to the few events it needs, and the printed command replays exactly that."""

from __future__ import annotations

import shlex
from random import Random

import pytest

from jepsen.__main__ import main
from jepsen.sim.run import run_seed
from jepsen.sim.shrink import minimize, shrink
from jepsen.sim.vfs import SimVfs

NOISY = frozenset(["power", "kill", "reset", "clock-jump", "stall"])


@pytest.mark.parametrize("seed", range(30))
def test_the_minimum_is_found_among_many(seed: int) -> None:
    rng = Random(seed)
    events = list(range(rng.randint(1, 60)))
    needed = frozenset(rng.sample(events, min(len(events), rng.randint(0, 4))))
    assert minimize(events, lambda kept: needed <= kept) == sorted(needed)


def test_no_single_event_can_be_left_out_whatever_they_do_together() -> None:
    def fails(kept: frozenset[int]) -> bool:
        return {1, 2} <= kept or {5, 6, 7} <= kept or len(kept) > 12

    found = frozenset(minimize(list(range(20)), fails))
    assert fails(found)
    assert not any(fails(found - {event}) for event in found)


@pytest.fixture
def _lazy_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted defect: syncs of files do nothing."""

    def lazy(vfs: SimVfs, op: str, handle: int) -> None:
        vfs._check(op, vfs._handle(handle)[1])

    monkeypatch.setattr(SimVfs, "_sync", lazy)


@pytest.mark.usefixtures("_lazy_syncs")
def test_a_planted_defect_shrinks_to_a_few_events_and_is_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"workloads": ("A",), "faults": NOISY, "damaged": False, "is_small": True}
    seed = next(seed for seed in range(3, 100) if (report := run_seed(seed, **options)).events > 8 and report.problems)
    words = ["sim", "--seed", str(seed), "--workload", "A", "--small", "--no-damage"]
    words += [word for kind in sorted(NOISY) for word in ("--fault", kind)]
    assert main([*words, "--shrink"]) == 1
    printed = capsys.readouterr().out.splitlines()
    command = shlex.split(printed[-1].removeprefix("replay: "))
    assert command[:4] == ["python", "-m", "jepsen", "sim"]
    assert 1 <= len(command[command.index("--only") + 1].split(",")) <= 3
    assert any("power" in line for line in printed if line.startswith("t="))
    problems = [line for line in printed if line.startswith("PROBLEM")]
    assert problems
    assert main(command[3:]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")] == problems


def test_a_seed_that_passes_is_not_shrunk() -> None:
    assert shrink(1, is_small=True) is None
