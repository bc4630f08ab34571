"""Medians, ratios, what is absent, and one tiny run of the real thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from deep import IS_DEEP

from jepsen.real.process import JETSTORE, NATS_SERVER, find_nats_server
from server.bench.measure import QUICK, Outcome
from server.bench.report import RowResult, cells, details, number, table
from server.bench.run import ROWS, run
from server.cli.bench import bench


def result(mine: list[float], theirs: list[float]) -> RowResult:
    outcomes = {"a": [Outcome(value) for value in mine], "b": [Outcome(value, {"p99 ms": 1.5}) for value in theirs]}
    return RowResult(ROWS["publish"], outcomes, {"c": "not here"})


def test_medians_and_ratio() -> None:
    row = result([10, 30, 20], [5, 5, 50])
    assert row.median("a") == 20
    assert row.ratio("a", "b") == 4
    assert row.ratio("a", "c") is None
    document = row.as_json("a")
    assert document["ratios"] == {"a/b": 4}
    assert document["servers"]["c"] == {"absent": "not here"}
    assert document["servers"]["b"]["details"] == {"p99 ms": 1.5}


def test_table_has_a_column_for_each_server_and_ratio() -> None:
    headings, rows = cells([result([1000], [500])], ["a", "b", "c"])
    assert headings == ["work", "unit", "a", "b", "c", "a / b", "a / c"]
    assert rows[0][2:] == ["1,000", "500", "-", "2.00×", "-"]
    assert len({len(line) for line in table(headings, rows).splitlines()}) == 1
    assert "publish, c: not here" in details([result([1], [1])], "a")


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (1234567.8, "1,234,568"), (12.345, "12.3"), (0.5, "0.50")])
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_unknown_row_is_refused() -> None:
    outcome = CliRunner().invoke(bench, ["--rows", "publish,nonsense"])
    assert outcome.exit_code == 2
    assert "nonsense" in outcome.output


def test_a_server_that_does_not_start_is_absent(tmp_path: Path) -> None:
    (row,) = run(["start"], ["false"], QUICK, 1, lambda text: None, tmp_path)
    assert "ServerError" in row.absent["false"]
    assert not list(tmp_path.iterdir())


@pytest.mark.real
@pytest.mark.parametrize("name", [JETSTORE, pytest.param(NATS_SERVER, marks=pytest.mark.oracle)])
def test_rows_measure_a_real_server(name: str, require_server: Callable[[str], None], tmp_path: Path) -> None:
    require_server(name)
    sizes = replace(QUICK, seconds=0.1, messages=2000, streams=10, large_mib=2, filtered_messages=1000)
    sizes = replace(sizes, restart_messages=2000, restart_subjects=1000, memory_messages=3000)
    rows = ["publish", "publish-one", "streams", "mixed", "core", "drain", "fetch", "restart"]
    if IS_DEEP:
        rows = [row for row in ROWS if row != "lag"]
    results = run(rows, [name], sizes, 1, lambda text: None, tmp_path)
    assert {row.row.name: row.absent for row in results if row.absent} == {}


@pytest.mark.real
@pytest.mark.oracle
def test_json_of_the_command(tmp_path: Path) -> None:
    if find_nats_server() is None:
        pytest.skip("no nats-server binary on PATH")
    path = tmp_path / "out.json"
    arguments = ["--rows", "start", "--server", NATS_SERVER, "--quick", "--json", str(path), "--folder", str(tmp_path)]
    outcome = CliRunner().invoke(bench, arguments)
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(path.read_text())
    assert document["results"][0]["servers"][NATS_SERVER]["median"] > 0


def test_without_a_slow_disk_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.bench.slow_disk.missing", lambda: "no /dev/fuse")
    outcome = CliRunner().invoke(bench, ["--rows", "publish", "--sync-ms", "1"])
    assert outcome.exit_code == 2
    assert "--sync-ms: no /dev/fuse" in outcome.output
