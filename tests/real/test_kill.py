"""kill -9 under full load, ten rounds on one store. 200 rounds: ``python -m jepsen real kill --rounds 200``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jepsen.real import kill
from jepsen.real.ledger import CONSUMER_KINDS
from jepsen.real.process import JETSTORE, NATS_SERVER

ROUNDS = 100 if os.environ.get("JETSTORE_DEEP") == "1" else 10


@pytest.mark.real
@pytest.mark.timeout(60 * ROUNDS)
def test_jetstore_loses_nothing_to_kill(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    result = kill.run(JETSTORE, ROUNDS, seed=1, folder=tmp_path)
    assert result.rounds == ROUNDS
    assert not result.findings.counts, result.findings.examples
    assert result.acked > 0
    assert result.confirmed > 0


@pytest.mark.real
@pytest.mark.oracle
@pytest.mark.timeout(120)
def test_the_harness_holds_against_nats_server(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    """nats-server keeps its messages through kill -9 (the page cache has them); its consumers' floors may go back."""
    require_server(NATS_SERVER)
    result = kill.run(NATS_SERVER, 3, seed=1, folder=tmp_path, tolerated=CONSUMER_KINDS)
    assert result.rounds == 3
    assert not result.findings.total, result.findings.examples
    assert result.acked > 0
