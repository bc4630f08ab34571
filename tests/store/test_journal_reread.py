"""Goal: reading a journal again finds every byte that is not what was written, and nothing else.

Method: a small journal of two files that is still open; one byte, one sector or one file of it is changed at a time.
"""

from __future__ import annotations

import errno

import pytest
from journal_model import JOURNAL_ID, Model, checkpoint, entries, hard
from test_journal_damage import BLOCKS, LIMITS, blocks_of, differences, flip, recover

from jepsen.sim.faults import fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption, DiskFull
from jetstore.limits import SECTOR_BYTES
from jetstore.store.journal.append import Journal
from jetstore.store.journal.files import file_path
from jetstore.store.journal.recovery import open_journal
from jetstore.store.journal.reread import reread_file
from jetstore.store.ports import Record

STEP_BYTES = 2048


def build() -> tuple[SimVfs, Journal, Model]:
    """An open journal over two needed files."""
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()

    def append(records: list[Record]) -> None:
        journal.append(records)
        model.told(records)

    for records in BLOCKS:
        append(records)
    journal.idle()
    while len(journal.extents()[2]) < 2:
        append([hard(3, model.hard[3][0] + 1)])
    append([entries(2, 3, 3, 3, [b"z" * 1500])])
    return vfs, journal, model


def look(vfs: SimVfs, journal: Journal) -> list[Corruption]:
    journal_id, file_bytes, extents = journal.extents()
    found: list[Corruption] = []
    for extent in extents:
        for used in reread_file(vfs, journal_id, file_bytes, extent, STEP_BYTES, found):
            assert 0 < used <= STEP_BYTES
    return found


def covered(vfs: SimVfs, journal: Journal) -> set[tuple[str, int]]:
    """Sectors that a head copy or a body fills, of blocks up to the end of each needed file."""
    ends = {extent.number: extent.last_lsn for extent in journal.extents()[2]}
    sectors = set()
    for number, block in blocks_of(vfs):
        header = block.header
        if header.lsn > ends.get(number, 0):
            continue
        for start, size in (
            (header.block_offset, header.head_bytes),
            (header.body_offset, header.body_sectors * SECTOR_BYTES),
            (header.second_offset, header.head_bytes),
        ):
            sectors |= {(file_path(number), at) for at in range(start, start + size, SECTOR_BYTES)}
    return sectors


def test_a_sound_journal_is_sound_also_while_it_grows() -> None:
    vfs, journal, _ = build()
    assert len(journal.extents()[2]) == 2
    assert look(vfs, journal) == []
    before = journal.extents()
    for term in range(50, 60):
        journal.append([hard(9, term)])
    found: list[Corruption] = []
    for extent in before[2]:
        list(reread_file(vfs, JOURNAL_ID, before[1], extent, STEP_BYTES, found))
    assert found == []


def test_every_sector_counts_and_nothing_else() -> None:
    vfs, journal, _ = build()
    sectors = covered(vfs, journal)
    assert len(sectors) > 30
    for path in vfs.files():
        for at in range(0, len(vfs.peek(path)), SECTOR_BYTES):
            offset = at + (at // SECTOR_BYTES * 37) % SECTOR_BYTES
            flip(vfs, path, offset)
            found = look(vfs, journal)
            assert bool(found) == ((path, at) in sectors), (path, offset, found)
            assert all(damage.file == path for damage in found)
            flip(vfs, path, offset)


@pytest.mark.parametrize("way", ["zero", "garbage", "unreadable", "lost"])
def test_whole_files(way: str) -> None:
    vfs, journal, _ = build()
    for extent in journal.extents()[2]:
        hurt = vfs.clone()
        path = file_path(extent.number)
        size = len(vfs.peek(path))
        if way == "lost":
            hurt.lose(path)
        elif way == "unreadable":
            hurt.bad_sectors(path, 0, size)
        else:
            hurt.poke(path, 0, (b"\0" if way == "zero" else b"\xa5") * size)
        assert [damage.file for damage in look(hurt, journal)] == [path]


def test_a_file_is_not_left_where_there_is_no_other_one() -> None:
    vfs, journal, _ = build()
    journal.files.spares.clear()
    vfs.inject(fault("create", "journal/*", error=errno.ENOSPC, sticky=True))
    current = journal.position.file.number
    with pytest.raises(DiskFull):
        journal.leave_file(current)
    assert journal.position.file.number == current


def test_a_file_that_is_left_takes_no_more_blocks_and_goes_once_its_entries_are_elsewhere() -> None:
    vfs, journal, model = build()
    older, current = (extent.number for extent in journal.extents()[2])
    assert set(journal.leave_file(older)) == {1, 2}
    assert journal.position.file.number == current
    assert journal.leave_file(current) == [1, 2]
    assert journal.position.file.number > current
    more = [checkpoint(1, 2, 6), checkpoint(2, 3, 3)]
    journal.append(more)
    model.told(more)
    for _ in range(2):
        journal.idle()
    assert [extent.number for extent in journal.extents()[2]] == [journal.position.file.number]
    journal.close()
    vfs.crash()
    assert differences(recover(vfs), model) == []
