"""Goal: nothing acknowledged is lost, and every machine comes back, wherever in its own code one dies. Method: a run is
repeated with a death at each of its points; here at some of them, with ``JETSTORE_DEEP=1`` at all."""

from __future__ import annotations

from collections import Counter

import pytest
from deep import IS_DEEP

from jepsen.sim.points import Death, Passed, enumerate_points, run_to
from jepsen.sim.report import quiet
from jepsen.sim.vfs import SimVfs

STEP = 1 if IS_DEEP else 250


def test_a_machine_that_dies_at_any_point_loses_nothing() -> None:
    quiet()
    met: Counter[str] = Counter()

    def on_run(death: Death, passed: Passed) -> None:
        met[passed.died_at] += 1
        replay = f"python -m jepsen sim --seed 1 --die {','.join(map(str, death))}"
        assert not passed.report.problems, "\n".join([replay, passed.died_at, *passed.report.problems[:10]])

    enumerate_points(1, step=STEP, on_run=on_run)
    assert met[""] == 0, "a run never came to the point that the count had seen"
    assert sum(met.values()) >= 1500 // STEP


def test_the_points_are_of_every_kind() -> None:
    quiet()
    kinds = {name.split()[1] for name in run_to(1, Death(0, 0, "kill")).names}
    assert kinds >= {"create", "pwrite", "fdatasync", "fsync", "fsync_dir", "rename", "send", "apply"}


def test_a_death_before_a_sync_that_does_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Method: what is lost with one machine is all that there is."""
    quiet()
    names = run_to(1, Death(0, 0, "kill"), nodes=1, workloads=("A",)).names
    last = max(number for number, name in enumerate(names, 1) if name == "before apply")
    death = Death(0, last, "power")
    assert run_to(1, death, nodes=1, workloads=("A",)).report.problems == []

    def lazy(vfs: SimVfs, op: str, handle: int) -> None:
        vfs._check(op, vfs._handle(handle)[1])

    monkeypatch.setattr(SimVfs, "_sync", lazy)
    assert run_to(1, death, nodes=1, workloads=("A",)).report.problems
