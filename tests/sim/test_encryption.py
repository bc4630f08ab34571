"""Goal: an encrypted store keeps every promise under every fault. Method: seeds on encrypted stores, with secrets that
change between starts. More of them with ``python -m jepsen sim --encrypted``, and a share of all seeds is."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepsen.sim.command import quiet
from jepsen.sim.encryption import UNTOUCHED, encrypt_late, is_encrypted
from jepsen.sim.run import run_seed
from jetstore.node.sealing import Sealing

LINES = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
COMMITTED = [line.split()[0] for line in LINES if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(("seed", "nodes"), [(3, 1), (12, 1), (7, 3)])
def test_seeds_on_encrypted_stores(seed: int, nodes: int) -> None:
    quiet()
    report = run_seed(seed, nodes=nodes, is_small=True, encrypted=True)
    assert not report.problems, "\n".join([f"--seed {seed} --nodes {nodes}", *report.problems[:10], *report.story])
    assert report.acks


@pytest.mark.parametrize(("seed", "nodes"), [(8, 1), (37, 1), (4, 3)])
def test_seeds_on_stores_that_get_a_key_one_day(seed: int, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet()
    done: list[str] = []
    genuine = Sealing._end

    async def ends(sealing: Sealing) -> None:
        await genuine(sealing)
        done.extend(["sealed"] if not sealing.reasons else [])

    monkeypatch.setattr("jepsen.sim.run.encrypt", encrypt_late)
    monkeypatch.setattr("jetstore.node.sealing.Sealing._end", ends)
    report = run_seed(seed, nodes=nodes, is_small=True, encrypted=True)
    assert not report.problems, "\n".join([f"--seed {seed} --nodes {nodes}", *report.problems[:10], *report.story])
    assert report.acks
    assert done


def test_what_the_dice_leave_alone() -> None:
    seeds = {int(seed.partition("x")[0]) for seed in COMMITTED} | set(range(UNTOUCHED))
    assert not any(map(is_encrypted, seeds))
    assert 100 < sum(map(is_encrypted, range(1_000_000, 1_001_000))) < 200
