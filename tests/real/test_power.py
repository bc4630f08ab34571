"""Power cuts on a disk that forgets what was not synced. More: ``python -m jepsen real power --rounds 100``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deep import IS_DEEP

from jepsen.real import power
from jepsen.real.fuse_layer import missing
from jepsen.real.process import JETSTORE, NATS_SERVER

ROUNDS = 20 if IS_DEEP else 2

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(missing()), reason=missing() or "can run")]


@pytest.mark.timeout(60 * ROUNDS)
def test_jetstore_loses_nothing_to_a_power_cut(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    result = power.run(JETSTORE, ROUNDS, seed=1, folder=tmp_path)
    assert result.rounds == ROUNDS
    assert not result.findings.counts, result.findings.examples
    assert result.acked > 0


@pytest.mark.oracle
@pytest.mark.timeout(60)
def test_the_harness_finds_what_nats_server_loses(tmp_path: Path, require_server: Callable[[str], None]) -> None:
    """nats-server syncs every two minutes unless told otherwise: the kindest disk shows it."""
    require_server(NATS_SERVER)
    names = power.Names.AT_ONCE
    result = power.run(NATS_SERVER, 1, seed=1, names=names, tear=False, stop_at_first=False, folder=tmp_path)
    counts = result.findings.counts
    assert counts["acknowledged message lost"] + counts["scheduled message lost"] == result.acked > 0
