"""Any sequence of strikes on a disk is possible: also on what an earlier one took away."""

from __future__ import annotations

from random import Random

from jepsen.nemesis.damage import FILE_CLASSES, KINDS, strike
from jepsen.sim.vfs import SimVfs

NAMES = ("IDENTITY", "IDENTITY.b", "journal/1", "groups/2/HEAD.a", "groups/2/segments/1", "index/data")


def disk(content: bytes) -> SimVfs:
    vfs = SimVfs()
    for name in ("journal", "groups", "groups/2", "groups/2/segments", "index"):
        vfs.mkdir(name)
    for name in NAMES:
        handle = vfs.open(name, create=True)
        vfs.pwrite(handle, [content], 0)
        vfs.close(handle)
    return vfs


def test_strikes_after_each_other() -> None:
    for seed in range(200):
        rng = Random(seed)
        now, earlier = disk(b"now" * 700), disk(b"earlier" * 200)
        done = [strike(now, rng, rng.choice(list(FILE_CLASSES)), rng.choice(KINDS), earlier) for _ in range(12)]
        assert any(done)
