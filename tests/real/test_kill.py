"""kill -9 under full load, a few rounds on one store. 200 rounds: ``python -m jepsen real kill --rounds 200``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deep import IS_DEEP

from jepsen.real import cluster_kill, kill
from jepsen.real.ledger import CONSUMER_KINDS
from jepsen.real.process import JETSTORE, NATS_SERVER
from jepsen.real.rounds import Result

Run = Callable[..., Result]


@pytest.mark.real
@pytest.mark.timeout(12_000 if IS_DEEP else 600)
@pytest.mark.parametrize(("run", "rounds"), [(kill.run, 10), (cluster_kill.run, 3)], ids=["one node", "three nodes"])
def test_nothing_acknowledged_is_lost(
    run: Run, rounds: int, tmp_path: Path, require_server: Callable[[str], None]
) -> None:
    require_server(JETSTORE)
    rounds = 100 if IS_DEEP else rounds
    result = run(JETSTORE, rounds, seed=1, folder=tmp_path)
    assert result.rounds == rounds
    assert not result.findings.counts, result.findings.examples
    assert result.acked > 0
    assert result.confirmed > 0


@pytest.mark.real
@pytest.mark.oracle
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("run", "rounds", "options"),
    [(kill.run, 3, {}), (cluster_kill.run, 1, {"variants": {"one": 1}})],
    ids=["one node", "three nodes"],
)
def test_the_harness_holds_against_nats_server(
    run: Run, rounds: int, options: dict[str, Any], tmp_path: Path, require_server: Callable[[str], None]
) -> None:
    """nats-server keeps its messages through kill -9 (the page cache has them); its consumers' floors may go back."""
    require_server(NATS_SERVER)
    result = run(NATS_SERVER, rounds, seed=1, folder=tmp_path, tolerated=CONSUMER_KINDS, **options)
    assert result.rounds == rounds
    assert not result.findings.total, result.findings.examples
    assert result.acked > 0
