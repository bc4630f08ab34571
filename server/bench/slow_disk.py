"""A disk whose syncs take as long as one chooses: the same for every server, and for nothing but syncs."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jepsen.real.fuse_layer import SlowDisk, missing

PROBES = 200
BLOCK_BYTES = 4096


class CannotMount(Exception):
    """There can be no such disk here; the text says why."""


@contextmanager
def slow_disk(sync_ms: float, say: Callable[[str], None], folder: Path | None = None) -> Iterator[Path]:
    """A folder on it while it is mounted; its bytes are kept in files in ``folder``. Says what it costs.

    fsync, fdatasync, and writes to what was opened with O_SYNC or O_DSYNC take ``sync_ms`` milliseconds and a trip
    through FUSE; those of different files overlap. Nothing else is slowed down but by FUSE, and nothing is synced.
    """
    if reason := missing():
        raise CannotMount(reason)
    home = Path(tempfile.mkdtemp(prefix="jetstore-slow-", dir=folder))
    try:
        disk = SlowDisk(home, sync_ms / 1000)
        try:
            write_ms, synced_ms = probe(disk.mount)
            say(f"the slow disk: a write of 4 KiB {write_ms:.3f} ms, fdatasync {synced_ms:.3f} ms (medians)")
            yield disk.mount
        finally:
            disk.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def probe(folder: Path) -> tuple[float, float]:
    """Medians in milliseconds of a 4 KiB write and of the fdatasync after it."""
    block = bytes(BLOCK_BYTES)
    path = folder / "probe"
    writes, syncs = [], []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(PROBES):
            began = time.perf_counter()
            os.pwrite(descriptor, block, 0)
            written = time.perf_counter()
            os.fdatasync(descriptor)
            syncs.append(time.perf_counter() - written)
            writes.append(written - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(writes) * 1000, statistics.median(syncs) * 1000
