"""Goal: a store with compressed frames keeps every promise under every fault. Method: seeds, told to compress; more of
them with ``python -m jepsen sim --compressed``, and a share of all seeds is."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepsen.sim.command import quiet
from jepsen.sim.compression import UNTOUCHED, is_compressed
from jepsen.sim.run import run_seed
from jetstore.store import frame_writing
from jetstore.store.compressed import compressed

LINES = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
COMMITTED = [line.split()[0] for line in LINES if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(("seed", "nodes"), [(2, 1), (11, 1), (4, 3)])
def test_seeds_that_compress(seed: int, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet()
    smaller = [0, 0]

    def counted(plain: bytes) -> bytes | None:
        made = compressed(plain)
        smaller[made is not None] += 1
        return made

    monkeypatch.setattr(frame_writing, "compressed", counted)
    workloads = ("A", "B", "I")
    report = run_seed(seed, nodes=nodes, workloads=workloads, is_small=True, compressed=True)
    assert not report.problems, "\n".join([f"--seed {seed} --nodes {nodes}", *report.problems[:10], *report.story])
    assert smaller[0] > 10
    assert smaller[1] > 10


def test_what_the_dice_leave_alone() -> None:
    seeds = {int(seed.partition("x")[0]) for seed in COMMITTED} | set(range(UNTOUCHED))
    assert not any(map(is_compressed, seeds))
    assert 100 < sum(map(is_compressed, range(1_000_000, 1_001_000))) < 200
