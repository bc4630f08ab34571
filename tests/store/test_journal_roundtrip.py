"""What was appended is what the next opening finds: over rolls, reuse, checkpoints and restarts; torn tails vanish."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
from journal_model import (
    JOURNAL_ID,
    Model,
    checkpoint,
    entries,
    generation,
    hard,
    log_of,
    reset,
    small_limits,
)

from jepsen.sim.faults import fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption, DiskFull
from jetstore.store.journal.append import Journal
from jetstore.store.journal.entries import encode_entries, iter_entries
from jetstore.store.journal.files import TEMP_PATH, file_path
from jetstore.store.journal.recovery import open_journal
from jetstore.store.os_vfs import OsVfs
from jetstore.store.ports import Record
from jetstore.store.vfs import Vfs
from jetstore.types import Buffer

LIMITS = small_limits()


def reopen(vfs: Vfs, model: Model) -> Journal:
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert model.matches(recovery) == ""
    return journal


def append(journal: Journal, model: Model, *records: Record) -> None:
    journal.append(records)
    model.told(records)


def append_until_full(journal: Journal, model: Model, index: int) -> int:
    """Append entries of group 1 until one is refused; its index."""
    for index in range(index, index + 1000):  # noqa: B020  # bounded, from where the caller stands
        try:
            append(journal, model, entries(1, 1, 1 if index > 1 else 0, index, [b"p" * 6000]))
        except DiskFull:
            return index
        journal.zero_some()
    raise AssertionError("never full")


def test_entries_codec() -> None:
    items = [(1, b"a"), (0, b""), (7, b"x" * 1000)]
    assert list(iter_entries(encode_entries(items))) == items
    with pytest.raises(ValueError):
        list(iter_entries(encode_entries(items)[:-1]))
    with pytest.raises(ValueError):
        list(iter_entries(encode_entries(items) + b"\x00"))


@pytest.mark.parametrize("kind", ["sim", "os"])
def test_append_then_open(kind: str, tmp_path: object) -> None:
    vfs: Vfs = SimVfs() if kind == "sim" else OsVfs(str(tmp_path))
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert recovery.is_new
    model = Model()
    append(journal, model, generation(1, 1), hard(1, 1), entries(1, 1, 0, 1, [b"a", b"b"]))
    append(journal, model, entries(1, 1, 1, 3, [b"c" * 3000]), hard(2, 5, 3), entries(2, 5, 0, 1, [b""]))
    journal.idle()
    append(journal, model, hard(1, 2), entries(1, 2, 1, 3, [b"replaced"]))
    for _ in range(3):
        journal.close()
        journal = reopen(vfs, model)
    append(journal, model, entries(1, 2, 2, 4, [b"after"]))
    journal.close()
    reopen(vfs, model)


def test_checkpoints_free_files_and_files_are_reused() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(1, 1))
    term, index = 1, 1
    for step in range(120):
        append(journal, model, entries(1, term, term if index > 1 else 0, index, [bytes([step]) * 5000]))
        index += 1
        if step % 5 == 4:
            append(journal, model, checkpoint(1, term, index - 2, step))
        while journal.wants_idle_block:
            journal.idle()
        while journal.zero_some():
            pass
        assert journal.status.accepts_publishes
    names = [path for path in vfs.files() if path.startswith("journal/")]
    assert len(names) <= 2 + 2 * LIMITS.journal_spare_files
    assert journal.position.file.number > 10
    assert file_path(1) not in names
    journal.close()
    reopen(vfs, model)


def test_a_group_that_pins_the_oldest_file_is_named_and_freed_by_saying_its_log_again() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(1, 1), hard(2, 1), entries(2, 1, 0, 1, [b"quiet"]))
    index = 1
    while journal.position.file.number < 3:
        append(journal, model, entries(1, 1, 1 if index > 1 else 0, index, [b"p" * 6000]))
        append(journal, model, checkpoint(1, 1, index))
        index += 1
    assert journal.status.pinned_by == ((2, 1),)
    assert journal.status.used_bytes == 2 * LIMITS.journal_file_bytes
    append(journal, model, entries(2, 1, 0, 1, [b"quiet"]))
    assert journal.status.pinned_by == ()
    assert journal.status.used_bytes == LIMITS.journal_file_bytes
    journal.close()
    reopen(vfs, model)


def test_a_full_journal_refuses_and_recovers_when_something_is_freed() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(1, 1))
    index = 1
    while journal.status.accepts_publishes:
        append(journal, model, entries(1, 1, 1 if index > 1 else 0, index, [b"p" * 6000]))
        index += 1
    assert journal.status.used_bytes > LIMITS.journal_bytes_max - 4 * LIMITS.journal_file_bytes
    index = append_until_full(journal, model, index)
    assert journal.status.used_bytes == LIMITS.journal_bytes_max
    append(journal, model, checkpoint(1, 1, index - 1))
    assert journal.status.accepts_publishes
    append(journal, model, entries(1, 1, 1, index, [b"again" * 1000]))
    journal.close()
    reopen(vfs, model)


def test_no_space_for_a_successor_refuses_the_append_and_changes_nothing() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(1, 1))
    vfs.inject(fault("create truncate", error=errno.ENOSPC, sticky=True))
    index = append_until_full(journal, model, 1)
    assert not journal.status.accepts_publishes
    vfs.heal()
    append(journal, model, entries(1, 1, 1, index, [b"p" * 6000]))
    journal.close()
    reopen(vfs, model)


def test_a_torn_last_block_is_void() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(1, 1), entries(1, 1, 0, 1, [b"a" * 2000]))
    offset = journal.position.offset
    journal.append([entries(1, 1, 1, 2, [b"b" * 2000])])
    number = journal.position.file.number
    vfs.poke(file_path(number), offset + 1024, bytes(512))
    journal.close()
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert model.matches(recovery) == ""
    assert any("torn" in finding for finding in recovery.findings)
    append(journal, model, entries(1, 1, 1, 2, [b"c"]))
    journal.close()
    reopen(vfs, model)


def test_a_tombstone_stays_until_it_is_forgotten() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(9, 1), entries(9, 1, 0, 1, [b"x"]))
    append(journal, model, generation(9, 0))
    journal.close()
    journal = reopen(vfs, model)
    journal.table.forget(9)
    for index in range(1, 20):  # the forgetting takes effect with the next table
        journal.append([hard(1, 1), entries(1, 1, 1 if index > 1 else 0, index, [b"p" * 6000])])
    journal.close()
    _, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert set(recovery.groups) == {1}


def test_a_group_that_a_later_table_does_not_name_is_gone_although_its_tombstone_is() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    last = 0

    def roll() -> int:
        """Go on in the next file; nothing of group 1 stays live."""
        nonlocal last
        number = journal.position.file.number
        while journal.position.file.number == number:
            last += 1
            journal.append([entries(1, 1, 1 if last > 1 else 0, last, [b"p" * 6000])])
        journal.append([checkpoint(1, 1, last)])
        journal.idle()
        while journal.zero_some():
            pass
        return journal.position.file.number

    journal.append([hard(9, 1), entries(9, 1, 0, 1, [b"x"]), hard(1, 1)])
    kept = roll()  # its table names group 9, whose entry is in the file before
    journal.append([hard(2, 1), entries(2, 1, 0, 1, [b"y"])])
    roll()
    journal.append([generation(9, 0)])
    roll()
    journal.table.forget(9)
    for _ in range(4):
        roll()
    journal.close()
    names = vfs.list_dir("journal")
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert set(recovery.groups) == {1, 2}
    assert journal.table.needed_files() == [kept]
    assert file_path(1).rpartition("/")[2] not in names
    for _ in range(4):
        roll()


def test_reset_keeps_only_what_follows_it() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(1, 2), entries(1, 1, 0, 1, [b"1", b"2", b"3", b"4"]))
    append(journal, model, reset(1, 1, 2))
    journal.close()
    journal = reopen(vfs, model)
    assert set(model.above_checkpoint(1)) == {3, 4}
    append(journal, model, reset(1, 2, 3))
    assert not model.above_checkpoint(1)
    append(journal, model, entries(1, 2, 2, 4, [b"new"]))
    journal.close()
    reopen(vfs, model)


def test_many_groups_need_a_table_of_several_blocks() -> None:
    vfs = SimVfs()
    limits = small_limits(file_bytes=256 * 1024)
    journal, _ = open_journal(vfs, limits, JOURNAL_ID)
    model = Model()
    for first in range(1, 301, 50):
        append(journal, model, *[hard(group, group, 2) for group in range(first, first + 50)])
        append(journal, model, *[entries(group, group, 0, 1, [b"%d" % group]) for group in range(first, first + 50)])
    for _ in range(2):
        journal.close()
        journal, recovery = open_journal(vfs, limits, JOURNAL_ID)
        assert model.matches(recovery) == ""
        assert not recovery.findings


def test_a_foreign_journal_is_not_taken_for_a_new_one() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    journal.append([hard(1, 1)])
    journal.close()
    with pytest.raises(Corruption):
        open_journal(vfs, LIMITS, b"another-journal!")


def test_entries_that_span_a_checkpoint_live_on_beyond_it() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    journal.append([hard(1, 1), entries(1, 1, 0, 1, [b"1", b"2", b"3"]), checkpoint(1, 1, 2)])
    journal.append([entries(1, 1, 0, 1, [b"1", b"2", b"3", b"4"])])
    journal.close()
    _, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert log_of(recovery.groups[1]) == {3: (1, b"3"), 4: (1, b"4")}


def test_restarts_go_round_the_same_files_even_on_a_full_disk() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = Model()
    append(journal, model, hard(1, 1), entries(1, 1, 0, 1, [b"kept"]))
    vfs.inject(fault("create truncate", error=errno.ENOSPC, sticky=True))
    for restart in range(25):
        vfs.crash() if restart % 2 else vfs.kill()
        journal = reopen(vfs, model)
        if restart % 5 == 0:
            append(journal, model, hard(1, restart + 2))
    assert len(vfs.list_dir("journal")) <= 3 + LIMITS.journal_spare_files


class ThinVfs(SimVfs):
    """A file system whose extended files have no room until they are written, as real ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.with_room: list[tuple[object, set[int]]] = []
        """Files and their blocks of 4 KiB that have room."""
        self.is_full = False

    def pwrite(self, handle: int, buffers: Sequence[Buffer], offset: int) -> None:
        size = sum(map(len, buffers))
        blocks = set(range(offset // 4096, (offset + size + 4095) // 4096))
        has_room = self._room(handle)
        if self.is_full and not blocks <= has_room:
            raise OSError(errno.ENOSPC, "no space")
        super().pwrite(handle, buffers, offset)
        has_room |= blocks

    def truncate(self, handle: int, size_bytes: int) -> None:
        if not size_bytes:
            self._room(handle).clear()
        super().truncate(handle, size_bytes)

    def _room(self, handle: int) -> set[int]:
        file = self._handles[handle][0]
        for known, blocks in self.with_room:
            if known is file:
                return blocks
        self.with_room.append((file, set()))
        return self.with_room[-1][1]


@pytest.mark.parametrize("starts", [1, 3])
def test_a_disk_that_fills_up_never_fails_a_block(starts: int) -> None:
    """Every file that counts as ready has its place on the disk: a block is written, or refused before anything is."""
    vfs, model = ThinVfs(), Model()
    journal = reopen(vfs, model)
    append(journal, model, generation(1, 1))
    for _ in range(starts):
        journal.close()
        journal = reopen(vfs, model)
        while journal.zero_some():
            pass
    vfs.is_full = True
    append_until_full(journal, model, 1)
    assert len(vfs.list_dir("journal")) > LIMITS.journal_spare_files
    journal.close()


def test_a_missing_file_is_made_on_a_full_disk_and_used_once_there_is_room() -> None:
    vfs, model = ThinVfs(), Model()
    journal = reopen(vfs, model)
    append(journal, model, generation(1, 1))
    journal.close()
    vfs.lose(file_path(journal.files.through))
    vfs.is_full = True
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert recovery.findings
    assert not journal.files.spares[-1].is_ready(LIMITS.journal_file_bytes)
    assert journal.files.is_ready()
    assert not journal.zero_some()
    vfs.is_full = False
    while journal.zero_some():
        pass
    assert journal.files.ready_count() == LIMITS.journal_spare_files
    journal.close()


def test_what_a_crash_left_of_a_new_file_is_removed() -> None:
    vfs, model = SimVfs(), Model()
    journal = reopen(vfs, model)
    handle = vfs.open(TEMP_PATH, create=True)
    vfs.pwrite(handle, [b"half"], 0)
    vfs.close(handle)
    journal.close()
    reopen(vfs, model).close()
    assert not vfs.exists(TEMP_PATH)
