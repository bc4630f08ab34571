"""Seeds of the random cluster (``cluster.py``) that must pass; JETSTORE_DEEP=1 runs many more, from JETSTORE_SEED on.

A failing seed is named; ``python tests/raft/cluster.py SEED SEED+1`` runs it again.
"""

from __future__ import annotations

import os

import pytest
from cluster import Cluster, Report
from deep import IS_DEEP

FIRST = int(os.environ.get("JETSTORE_SEED", "0"))
ONCE_FAILED = (21376, 22569, 22724, 22754, 23191, 23345, 23685, 28763)
"""What each of them found has a test of its own; here they are kept as they were found."""
CHUNKS, CHUNK = (200, 100) if IS_DEEP else (8, 20)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_seeds(chunk: int) -> None:
    first = FIRST + chunk * CHUNK
    reports = [Cluster(seed).run() for seed in range(first, first + CHUNK)]
    assert sum(report.committed for report in reports) > 20 * CHUNK, "little happened: what is it that holds it up?"
    assert sum(report.elections for report in reports) > 2 * CHUNK
    assert sum(report.reads for report in reports) > CHUNK
    assert sum(report.changes for report in reports) > CHUNK


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_seeds_that_once_failed(seed: int) -> None:
    Cluster(seed).run()


def test_a_seed_is_one_run() -> None:
    """Whoever finds something must be able to find it again."""

    def story(seed: int) -> tuple[Report, int, list[tuple[int, bytes]]]:
        cluster = Cluster(seed)
        report = cluster.run()
        return report, len(cluster.checker.known), cluster.checker.committed

    assert story(7) == story(7)
