"""Goal: the first segment of a group finds its directory, also when the disk fills up just then."""

from __future__ import annotations

import errno

import pytest

from jepsen.sim.faults import fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import DiskFull
from jetstore.limits import KIB, Limits
from jetstore.store.journal.recovery import open_journal
from jetstore.store.writer import Writer

LIMITS = Limits(
    journal_file_bytes=64 * KIB,
    journal_bytes_max=512 * KIB,
    journal_reappend_bytes=4 * KIB,
    block_bytes_max=16 * KIB,
    entry_bytes_max=KIB,
    max_payload_bytes=KIB,
)
PATH = "groups/7/segments/00000000000000000001.seg"


def writer_on(vfs: SimVfs) -> Writer:
    journal, _ = open_journal(vfs, LIMITS, b"j" * 16)
    return Writer(vfs, journal, LIMITS)


def test_the_directory_is_made_and_durable() -> None:
    vfs = SimVfs()
    writer = writer_on(vfs)
    writer.execute("write_segment", (PATH, 0, [b"frame"]))
    writer.execute("sync", ([PATH],))
    writer.close()
    vfs.crash()
    assert vfs.peek(PATH) == b"frame"


def test_no_space_for_the_directory_refuses_the_write_and_poisons_nothing() -> None:
    vfs = SimVfs()
    writer = writer_on(vfs)
    vfs.inject(fault("mkdir", error=errno.ENOSPC))
    with pytest.raises(DiskFull):
        writer.execute("write_segment", (PATH, 0, [b"frame"]))
    writer.execute("write_segment", (PATH, 0, [b"frame"]))
    assert vfs.peek(PATH) == b"frame"
