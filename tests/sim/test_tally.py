"""Goal: the summary tells how much each checker compared, and a run keeps within its operations.

Method: one small run whose workloads give most checkers something to compare; the bound by hand.
"""

from __future__ import annotations

from random import Random

import pytest

from jepsen.checker.tally import CHECKERS, compared, tallied
from jepsen.history import History
from jepsen.sim.client import Client
from jepsen.sim.report import Totals, quiet
from jepsen.sim.run import Report, run_seed
from jepsen.workload.base import Setting


def test_a_run_counts_what_its_checkers_compare(capsys: pytest.CaptureFixture[str]) -> None:
    quiet()
    report = run_seed(5, nodes=3, workloads=("A", "C"), faults=frozenset(), is_small=True, damaged=False)
    assert report.history is not None
    idle = {name for name in CHECKERS if not report.checks[name]}
    assert not idle & {"lost", "unexpected", "gap", "bytes", "wq", "floor", "lost-on-node", "hash", "raft", "live"}
    assert report.checks["lost"] == sum(
        op.outcome == "ok" and op.args["stream"] == "A" for op in report.history.of("publish")
    )
    assert report.checks["lin"] == 0
    totals = Totals()
    totals.add(report)
    totals.summary()
    told = capsys.readouterr().out
    assert f"lost {report.checks['lost']}, " in told
    assert "lin 0" in told


@pytest.mark.parametrize(
    ("problems", "is_unsafe"),
    [
        ([], False),
        (["live: final reads failed: Unknown: timed out", "err: t=1.0 nobody looked"], False),
        (["live: too slow", "lost: 3 publish"], True),
        (["raft: R10 …"], True),
        (["lost-on-node: E: 3"], True),
    ],
)
def test_what_is_only_late_is_no_failure_of_safety(
    problems: list[str], is_unsafe: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(7, problems=problems)
    assert report.is_unsafe == is_unsafe
    totals = Totals()
    totals.add(report)
    totals.summary()
    assert (f"1 FAILED, {int(is_unsafe)} of them in safety: seeds 7" in capsys.readouterr().out) == bool(problems)


def test_nothing_is_counted_outside_of_a_run() -> None:
    report = Report(1)
    compared("lost", 7)
    with tallied(report.checks):
        compared("lost", 2)
    assert report.checks == {"lost": 2}


def test_clients_end_before_a_run_has_too_many_operations() -> None:
    """What is left to acknowledge counts: it is acknowledged in the end, one by one."""
    history = History(lambda: 0)

    async def connect(name: str) -> Client:
        raise AssertionError(name)

    setting = Setting(history, Random(1), connect, ends=lambda: False, operations_max=30)
    setting.to_settle.add("C")
    for _ in range(10):
        assert not setting.is_over()
        history.begin(1, "publish", stream="C")
        setting.published["C"] = setting.published.get("C", 0) + 1
    assert setting.is_over()
    setting.settled = 10
    assert setting.is_over(), "it does not begin again"
