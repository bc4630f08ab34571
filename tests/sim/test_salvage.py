"""Goal: an unreadable sector costs the frame that stands there, by name, and nothing else."""

from __future__ import annotations

from jepsen.sim.faults import fault
from jepsen.sim.vfs import SimVfs
from jetstore.store.salvage import REFUSED, pread_salvaged


def disk() -> tuple[SimVfs, int]:
    vfs = SimVfs()
    handle = vfs.open("a", create=True)
    vfs.pwrite(handle, [bytes(range(256)) * 10], 0)
    return vfs, handle


def test_only_the_bad_sector_is_replaced() -> None:
    vfs, handle = disk()
    whole = vfs.peek("a")
    vfs.bad_sectors("a", 1024, 1025)
    assert pread_salvaged(vfs, handle, 1000, 700) == whole[700:1024] + REFUSED * 512 + whole[1536:1700]
    assert pread_salvaged(vfs, handle, 300, 500) == whole[500:800]


def test_the_end_of_the_file_is_the_end() -> None:
    vfs, handle = disk()
    vfs.bad_sectors("a", 2048, 2560)
    assert pread_salvaged(vfs, handle, 5000, 2000) == vfs.peek("a")[2000:2048] + REFUSED * 512
    assert pread_salvaged(vfs, handle, 10, 9000) == b""


def test_a_read_that_fails_once_is_simply_read_again() -> None:
    vfs, handle = disk()
    vfs.inject(fault("pread"))
    assert pread_salvaged(vfs, handle, 100, 0) == vfs.peek("a")[:100]
