"""Goal: the group table at the head of each file never outgrows the file, however many files hold entries of a group.

Method: many groups that each get a little, round and round, so that every file has entries of all of them; and an
owner who does what the status asks for, or nothing.
"""

from __future__ import annotations

from journal_model import JOURNAL_ID, Model, checkpoint, entries, hard, small_limits

from jepsen.sim.vfs import SimVfs
from jetstore.limits import KIB, STREAM_TABLE_BYTES
from jetstore.store.journal.append import Journal
from jetstore.store.journal.recovery import open_journal
from jetstore.store.ports import JournalStatus, Record

LIMITS = small_limits(file_bytes=64 * KIB, block_bytes=16 * KIB, files=64, spares=2)
GROUPS = LIMITS.journal_file_bytes // STREAM_TABLE_BYTES
ENTRY = b"x" * 50
ROUNDS = 300


def begin() -> tuple[SimVfs, Journal, Model]:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    write(journal, model, [hard(uid, 1) for uid in range(1, GROUPS + 1)])
    return vfs, journal, model


def write(journal: Journal, model: Model, records: list[Record]) -> JournalStatus:
    status = journal.append(records)
    model.told(records)
    return status


def publish(journal: Journal, model: Model, index: int) -> JournalStatus:
    """One entry for each group, in one block."""
    return write(journal, model, [entries(uid, 1, int(index > 1), index, [ENTRY]) for uid in range(1, GROUPS + 1)])


def test_relief_is_asked_for_and_helps() -> None:
    vfs, journal, model = begin()
    asked = 0
    for index in range(1, ROUNDS):
        status = publish(journal, model, index)
        assert status.accepts_publishes, index
        for pinned, first in status.pinned_by if status.wants_relief else ():
            asked += 1
            assert min(model.above_checkpoint(pinned)) == first
            write(journal, model, [checkpoint(pinned, 1, index)])
    assert asked > 5 * GROUPS
    journal.close()
    vfs.crash()
    assert model.matches(open_journal(vfs, LIMITS, JOURNAL_ID)[1]) == ""


def test_without_relief_publishes_are_refused_before_the_table_fits_nowhere() -> None:
    vfs, journal, model = begin()
    index = 1
    while (status := publish(journal, model, index)).accepts_publishes:
        index += 1
    assert status.wants_relief
    assert status.used_bytes < LIMITS.journal_bytes_max // 2, "it is not for want of files"
    assert len(journal.extents()[2]) >= 4, "not too early"
    journal.leave_file(journal.position.file.number)  # another file, with the whole table
    assert journal.position.offset * 2 <= LIMITS.journal_file_bytes + LIMITS.block_bytes_max
    journal.close()
    vfs.crash()
    assert model.matches(open_journal(vfs, LIMITS, JOURNAL_ID)[1]) == ""


def test_few_groups_never_notice() -> None:
    vfs = SimVfs()
    limits = small_limits(file_bytes=64 * KIB, block_bytes=8 * KIB, files=16, spares=2)
    journal, _ = open_journal(vfs, limits, JOURNAL_ID)
    journal.append([hard(1, 1)])
    for index in range(1, 40):
        status = journal.append([entries(1, 1, int(index > 1), index, [b"y" * 4000])])
        assert status.wants_relief == (status.used_bytes * 2 >= status.max_bytes)
