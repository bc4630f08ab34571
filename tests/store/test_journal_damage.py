"""Every row of the table of verdicts (``docs/format/journal.md``), and every byte of a small journal flipped.

A lone fault never loses, changes or invents anything: at worst entries are FAULTY (proved, unreadable), and only those
whose own bytes were hit. Where the evidence itself is gone twice, the group says so instead of guessing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from deep import IS_DEEP
from journal_model import JOURNAL_ID, Model, checkpoint, entries, generation, hard, log_of, small_limits

from jepsen.sim.faults import fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption
from jetstore.limits import KIB, SECTOR_BYTES, Limits
from jetstore.store.journal import format as fmt
from jetstore.store.journal.files import file_path
from jetstore.store.journal.recovery import open_journal
from jetstore.store.journal.scan import FoundBlock, FoundFile, scan_file
from jetstore.store.ports import PLAIN, GroupRecovery, JournalRecovery, Kind, Record

LIMITS = small_limits(file_bytes=32 * KIB, block_bytes=8 * KIB, spares=2)
pytestmark = pytest.mark.timeout(1800 if IS_DEEP else 120)

BLOCKS: list[list[Record]] = [
    [generation(1, 1), hard(1, 1), entries(1, 1, 0, 1, [b"a" * 300, b"b" * 900])],
    [hard(2, 3, 2), entries(2, 3, 0, 1, [b"c" * 10]), hard(1, 2), entries(1, 2, 1, 3, [b"d" * 700])],
    [checkpoint(1, 1, 1), entries(2, 3, 3, 2, [b"e" * 1200])],
    [entries(1, 2, 2, 4, [b"f" * 400, b"g" * 400, b"h" * 400]), hard(3, 1)],
]


def build(*, idle: bool = True, blocks: list[list[Record]] = BLOCKS, limits: Limits = LIMITS) -> tuple[SimVfs, Model]:
    """A journal of a few blocks, over two files, durable; with or without the idle block at its end."""
    vfs = SimVfs()
    journal, _ = open_journal(vfs, limits, JOURNAL_ID)
    model = Model()
    for records in blocks:
        journal.append(records)
        model.told(records)
    if idle:
        journal.idle()
    journal.close()
    vfs.crash()
    return vfs, model


def recover(vfs: SimVfs) -> JournalRecovery:
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    journal.close()
    vfs.crash()
    _, again = open_journal(vfs, LIMITS, JOURNAL_ID)  # what was found once is found again
    assert {uid: log_of(group) for uid, group in again.groups.items()} == {
        uid: log_of(group) for uid, group in recovery.groups.items()
    }
    for uid, group in again.groups.items():
        first = recovery.groups[uid]
        assert (group.term, group.vote, group.hard_state_known) == (first.term, first.vote, first.hard_state_known)
        assert (group.last_index, group.last_term, group.last_known) == (
            first.last_index,
            first.last_term,
            first.last_known,
        )
    return recovery


def scanned(vfs: SimVfs) -> list[FoundFile]:
    found = [scan_file(vfs, int(path[8:28]), JOURNAL_ID) for path in vfs.files()]
    return [file for file in found if file.blocks]


def blocks_of(vfs: SimVfs) -> list[tuple[int, FoundBlock]]:
    return [(file.number, block) for file in scanned(vfs) for block in file.blocks]


def flip(vfs: SimVfs, path: str, offset: int, mask: int = 0x04) -> None:
    vfs.poke(path, offset, bytes([vfs.peek(path)[offset] ^ mask]))


def destroy_heads(vfs: SimVfs, number: int, block: FoundBlock) -> None:
    for at in (block.header.block_offset, block.header.second_offset):
        flip(vfs, file_path(number), at + 20)


def differences(recovery: JournalRecovery, model: Model) -> list[str]:
    """What is not exactly the model, FAULTY entries aside; FAULTY ones are named as such."""
    found = []
    if set(recovery.groups) != set(model.logs):
        found.append(f"groups {set(recovery.groups)}")
    for uid, group in recovery.groups.items():
        if not group.last_known:
            found.append(f"last of {uid}")
        if not group.hard_state_known or (group.term, group.vote) != model.hard.get(uid, (0, 0)):
            found.append(f"hard state of {uid}")
        if (group.checkpoint_index, group.checkpoint_term) != model.checkpoints.get(uid, (0, 0, 0))[:2]:
            found.append(f"checkpoint of {uid}")
        log, expected = log_of(group), model.above_checkpoint(uid)
        if set(log) != set(expected):
            found.append(f"indexes of {uid}: {sorted(log)}")
        for index in sorted(set(log) & set(expected)):
            if log[index][0] != expected[index][0]:
                found.append(f"term of {uid}/{index}")
            if log[index][1] is None:
                found.append(f"FAULTY {uid}/{index}")
            elif log[index] != expected[index]:
                found.append(f"bytes of {uid}/{index}")
    return found


def body_ranges(vfs: SimVfs) -> list[tuple[str, int, int]]:
    return [
        (file_path(number), block.header.body_offset, block.header.body_offset + block.header.body_bytes)
        for number, block in blocks_of(vfs)
    ]


@pytest.mark.parametrize("idle", [True, False])
def test_each_byte_flipped(idle: bool, record_property: Callable[[str, object], None]) -> None:
    vfs, model = build(idle=idle)
    bodies = body_ranges(vfs)
    cases = 0
    for path in vfs.files():
        data = vfs.peek(path)
        stride = 1 if IS_DEEP else 47
        for offset in range(0, len(data), stride):
            sector = offset // SECTOR_BYTES * SECTOR_BYTES
            if not any(data[sector : sector + SECTOR_BYTES]) and offset - sector >= stride:
                continue  # one byte of each blank sector is enough
            damaged = vfs.clone()
            flip(damaged, path, offset)
            found = differences(recover(damaged), model)
            in_body = any(path == name and start <= offset < end for name, start, end in bodies)
            assert in_body or not found, (path, offset, found)
            assert all(text.startswith("FAULTY") for text in found), (path, offset, found)
            cases += 1
    record_property("cases", cases)
    assert cases > 400


def test_each_sector_zeroed_or_made_garbage(record_property: Callable[[str, object], None]) -> None:
    vfs, model = build(idle=True)
    bodies = body_ranges(vfs)
    cases = 0
    for path in vfs.files():
        data = vfs.peek(path)
        for sector in range(0, len(data), SECTOR_BYTES):
            for filling in (bytes(SECTOR_BYTES), b"\xa5" * SECTOR_BYTES):
                if data[sector : sector + SECTOR_BYTES] == filling:
                    continue
                damaged = vfs.clone()
                damaged.poke(path, sector, filling)
                found = differences(recover(damaged), model)
                in_body = any(path == name and start <= sector + 511 and sector < end for name, start, end in bodies)
                assert in_body or not found, (path, sector, found)
                assert all(text.startswith("FAULTY") for text in found), (path, sector, found)
                cases += 1
    record_property("cases", cases)
    assert cases > 200


def test_each_sector_unreadable(record_property: Callable[[str, object], None]) -> None:
    vfs, model = build(idle=True)
    bodies = body_ranges(vfs)
    cases = 0
    for number, block in blocks_of(vfs):
        path = file_path(number)
        start = block.header.block_offset
        for sector in range(start, start + block.header.block_bytes, SECTOR_BYTES):
            damaged = vfs.clone()
            damaged.bad_sectors(path, sector, sector + SECTOR_BYTES)
            cases += 1
            journal, recovery = open_journal(damaged, LIMITS, JOURNAL_ID)
            journal.close()
            found = differences(recovery, model)
            in_body = any(path == name and low <= sector + 511 and sector < high for name, low, high in bodies)
            assert in_body or not found, (path, sector, found)
            assert all(text.startswith("FAULTY") for text in found), (path, sector, found)
    record_property("cases", cases)


def test_a_damaged_record_keeps_the_entries_before_the_damage() -> None:
    vfs, _ = build()
    number, block = next(
        (number, block)
        for number, block in blocks_of(vfs)
        if block.lines and any(x.last_index == 6 for x in block.lines)
    )
    line = next(line for line in block.lines or [] if line.last_index == 6)
    flip(vfs, file_path(number), line.offset + line.length - 1)
    recovery = recover(vfs)
    log = log_of(recovery.groups[1])
    assert [index for index, (_, data) in log.items() if data is None] in ([6], [5, 6])
    assert log[4] == (2, b"f" * 400)
    assert recovery.groups[1].last_index == 6
    lost = [entry for entry in recovery.groups[1].entries if entry.data is None]
    assert sum(entry.message_count for entry in lost) == len(lost)


def test_a_line_says_of_unreadable_entries_that_they_are_no_configuration() -> None:
    """Two records say so, one does not; then the lines are gone, too."""
    blocks = [
        [generation(1, 1), hard(1, 1), entries(1, 1, 0, 1, [b"a" * 600, b"b" * 600])._replace(aux=PLAIN)],
        [entries(1, 1, 1, 3, [b"c" * 600])],
        [entries(1, 1, 1, 4, [b"d" * 600])._replace(aux=PLAIN)],
        [hard(1, 2)],
    ]
    vfs, _ = build(blocks=blocks)
    found = [(number, block) for number, block in blocks_of(vfs) if block.header.body_bytes]
    for number, block in found:
        flip(vfs, file_path(number), block.header.body_offset + 100)
    lost = [(e.index, e.is_plain) for e in recover(vfs.clone()).groups[1].entries]
    assert lost == [(1, True), (2, True), (3, False), (4, True)]
    for number, block in found[1:]:
        destroy_heads(vfs, number, block)
    assert [(e.index, e.is_plain) for e in recover(vfs).groups[1].entries] == [
        (1, True),
        (2, True),
        (3, False),
        (4, True),
    ], "a line stands in the next block, too"


def test_a_repaired_slot_is_readable_again_and_only_if_its_term_is_right() -> None:
    vfs, model = build()
    number, block = next(
        (number, block)
        for number, block in blocks_of(vfs)
        if block.lines and any(x.last_index == 6 for x in block.lines)
    )
    flip(vfs, file_path(number), block.header.body_offset + 900)
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert differences(recovery, model) == ["FAULTY 1/5", "FAULTY 1/6"]
    for index, term, data in ((5, 2, b"g" * 400), (6, 1, b"wrong"), (9, 2, b"wrong")):
        repaired = entries(1, term, 0, index, [data])._replace(kind=Kind.REPAIR)
        journal.append([repaired])
    journal.close()
    assert differences(recover(vfs), model) == ["FAULTY 1/6"]


def test_last_block_torn_is_void_and_last_block_corrupt_counts() -> None:
    """Rows 1 and 2: zero sectors → void; a sector that is neither good nor zero → its records are FAULTY."""
    vfs, model = build(idle=False)
    before = Model()
    for records in BLOCKS[:-1]:
        before.told(records)
    number, last = blocks_of(vfs)[-1]
    header = last.header
    sectors = [*range(header.head_sectors), *range(header.head_sectors, header.head_sectors + header.body_sectors)]
    sectors += [(header.second_offset - header.block_offset) // SECTOR_BYTES + i for i in range(header.head_sectors)]
    for sector in sectors:
        offset = header.block_offset + sector * SECTOR_BYTES
        torn = vfs.clone()
        torn.poke(file_path(number), offset, bytes(SECTOR_BYTES))
        recovery = recover(torn)
        assert before.matches(recovery) == "", sector
        assert any("torn" in finding for finding in recovery.findings)
        corrupt = vfs.clone()
        corrupt.poke(file_path(number), offset, b"\xff" * SECTOR_BYTES)
        recovery = recover(corrupt)
        assert all(text.startswith("FAULTY 1/") for text in differences(recovery, model))
    both = vfs.clone()  # one sector zero, another garbage: corruption, not a torn write
    both.poke(file_path(number), header.block_offset, b"\xff" * SECTOR_BYTES)
    both.poke(file_path(number), header.body_offset, bytes(SECTOR_BYTES))
    assert differences(recover(both), model) == ["FAULTY 1/4", "FAULTY 1/5", "FAULTY 1/6"]


def test_both_heads_of_a_block_unreadable_the_next_one_has_its_lines() -> None:
    vfs, model = build()
    found = blocks_of(vfs)
    for number, block in found[:-1]:
        damaged = vfs.clone()
        destroy_heads(damaged, number, block)
        assert differences(recover(damaged), model) == [], block.header.lsn


def test_both_heads_of_the_last_block_unreadable_is_a_hole() -> None:
    """It may have been acknowledged, and nothing says what it held."""
    vfs, _ = build(idle=False)
    destroy_heads(vfs, *blocks_of(vfs)[-1])
    for _ in range(2):  # and it stays so: the next table says what is unknown
        journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
        journal.close()
        assert all(not group.last_known and not group.hard_state_known for group in recovery.groups.values())
    assert log_of(group_of(recovery, 1))[3] == (2, b"d" * 700)


def hole(vfs: SimVfs, first_lsn: int) -> None:
    """Make the lines of block ``first_lsn`` unreadable everywhere: its heads and those of the next."""
    for number, block in blocks_of(vfs):
        if block.header.lsn in (first_lsn, first_lsn + 1):
            destroy_heads(vfs, number, block)


def group_of(recovery: JournalRecovery, uid: int) -> GroupRecovery:
    return recovery.groups[uid]  # type: ignore[index]  # a plain int in tests


def test_hole_then_a_table_row() -> None:
    """Row "both unreadable", first case: term, vote and evidenced last come from the table; missing is FAULTY."""
    first = [[hard(1, 1), entries(1, 1, 0, 1, [b"a" * 100])]]
    lost = [[hard(1, 2, 3), entries(1, 2, 1, 2, [b"b" * 100, b"c"])], [hard(5, 6, 7)]]
    vfs, _ = build(blocks=first + lost)
    again, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)  # the next opening writes a table, in the next file
    again.close()
    vfs.crash()
    hole(vfs, 3)
    for number, block in blocks_of(vfs):
        if block.header.lsn == 5:  # the idle block, and with it the copy of what the last records were
            destroy_heads(vfs, number, block)
    recovery = recover(vfs)
    one = group_of(recovery, 1)
    assert (one.term, one.vote, one.hard_state_known, one.last_known) == (2, 3, True, True)
    assert log_of(one) == {1: (1, b"a" * 100), 2: (2, None), 3: (2, None)}
    five = group_of(recovery, 5)
    assert (five.term, five.vote, five.hard_state_known) == (6, 7, True)


def test_hole_then_an_entries_line_or_nothing() -> None:
    """Second case: index and term from the later line, no vote in that term. Third: nothing is known."""
    blocks = [
        [hard(1, 1), entries(1, 1, 0, 1, [b"a" * 100]), hard(2, 1), entries(2, 1, 0, 1, [b"z"])],
        [hard(1, 2, 3), entries(1, 2, 1, 2, [b"b" * 100, b"c"])],
        [hard(2, 2, 1)],
        [entries(1, 2, 2, 4, [b"d" * 50])],
    ]
    vfs, _ = build(blocks=blocks, idle=False, limits=small_limits(file_bytes=64 * KIB, block_bytes=8 * KIB))
    hole(vfs, 3)
    recovery = recover(vfs)
    one = group_of(recovery, 1)
    assert (one.term, one.hard_state_known, one.last_known) == (2, False, True)
    assert log_of(one) == {1: (1, b"a" * 100), 2: (2, None), 3: (2, None), 4: (2, b"d" * 50)}
    two = group_of(recovery, 2)
    assert (two.term, two.hard_state_known) == (2, True), "block 5 repeats block 4's HARD line"
    assert not two.last_known
    assert log_of(two) == {1: (1, b"z")}


def remove(vfs: SimVfs, number: int) -> None:
    vfs.lose(file_path(number))


def two_files() -> tuple[SimVfs, Model, int]:
    """A journal that goes on in a second file while the first one is still needed."""
    vfs, model = build(idle=True)
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    more = [entries(1, 2, 2, 7, [b"second file"])]
    journal.append(more)
    model.told(more)
    newest = journal.position.file.number
    journal.close()
    vfs.crash()
    return vfs, model, newest


def test_the_newest_file_missing_is_not_taken_for_the_end() -> None:
    vfs, _, newest = two_files()
    remove(vfs, newest)
    recovery = recover(vfs)
    assert all(not group.last_known and not group.hard_state_known for group in recovery.groups.values())


def test_a_missing_spare_may_have_been_the_newest_file() -> None:
    vfs, _, newest = two_files()
    remove(vfs, newest + 1)
    for expected in (True, False):  # the alarm stays, its cause is mended
        journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
        journal.close()
        assert all(not group.last_known and not group.hard_state_known for group in recovery.groups.values())
        assert any("missing" in finding for finding in recovery.findings) == expected


def test_an_older_needed_file_missing_makes_its_entries_faulty() -> None:
    vfs, model, newest = two_files()
    oldest = scanned(vfs)[0].number
    assert oldest < newest
    remove(vfs, oldest)
    recovery = recover(vfs)
    found = differences(recovery, model)
    assert found
    assert all(text.startswith("FAULTY") for text in found)
    assert log_of(group_of(recovery, 1))[7] == (2, b"second file")


@pytest.mark.parametrize("which", ["spare", "newest"])
@pytest.mark.parametrize("size", ["zero", "blank", "longer"])
def test_files_of_a_wrong_size(which: str, size: str) -> None:
    """Cut where nothing can have stood: noticed, nothing lost. Cut to nothing: a hole. Longer: nothing lost."""
    vfs, model, newest = two_files()
    number = newest if which == "newest" else newest + 1
    length = {"zero": 0, "blank": LIMITS.journal_file_bytes - 1000, "longer": LIMITS.journal_file_bytes + 5000}[size]
    vfs.cut(file_path(number), length)
    recovery = recover(vfs)
    if size == "zero":
        assert all(not group.last_known for group in recovery.groups.values())
    else:
        assert differences(recovery, model) == []


def test_a_newest_file_cut_inside_its_blocks_is_a_hole() -> None:
    vfs, _, newest = two_files()
    last = scanned(vfs)[-1].blocks[-1]
    vfs.cut(file_path(newest), last.header.block_offset)
    recovery = recover(vfs)
    assert all(not group.last_known for group in recovery.groups.values())


def test_a_stale_recycled_file_is_blank_space() -> None:
    """A spare shows again what its file held under an older number: nothing of it is believed."""
    vfs, model, newest = two_files()
    old = vfs.peek(file_path(scanned(vfs)[0].number))
    vfs.poke(file_path(newest + 1), 0, old)
    recovery = recover(vfs)
    assert differences(recovery, model) == []


def test_a_stale_sector_of_another_file_inside_the_tail_is_blank_space() -> None:
    vfs, model, newest = two_files()
    old = vfs.peek(file_path(scanned(vfs)[0].number))
    end = scanned(vfs)[-1].end
    vfs.poke(file_path(newest), end, old[: LIMITS.journal_file_bytes - end])
    assert differences(recover(vfs), model) == []


def test_an_unknown_kind_stops_its_group_only(monkeypatch: pytest.MonkeyPatch) -> None:
    vfs, model = build(blocks=BLOCKS[:2], idle=False)
    number, block = blocks_of(vfs)[-1]
    assert block.lines
    lines = [line._replace(kind=99) if line.group == 2 and line.length else line for line in block.lines]
    assert block.repeated is not None
    body = vfs.peek(file_path(number))[block.header.body_offset :][: block.header.body_sectors * SECTOR_BYTES]
    head, _ = fmt.pack_head(block.header, fmt.pack_lines(lines), fmt.pack_lines(block.repeated), fmt.sector_map(body))
    for at in (block.header.block_offset, block.header.second_offset):
        vfs.poke(file_path(number), at, head)
    for _ in range(3):
        journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
        journal.close()
        assert group_of(recovery, 2).is_stopped
        assert not group_of(recovery, 1).is_stopped
        assert log_of(group_of(recovery, 1)) == model.above_checkpoint(1)


def test_faulty_entries_survive_checkpoints_of_others_and_restarts() -> None:
    vfs, model, _ = two_files()
    oldest = scanned(vfs)[0]
    block = next(b for b in oldest.blocks if b.lines and any(x.group == 2 and x.length > 1000 for x in b.lines))
    flip(vfs, file_path(oldest.number), block.header.body_offset + 100)
    for step in range(6):
        journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
        assert differences(recovery, model) == ["FAULTY 2/2"]
        counted = journal.status.used_bytes
        journal.leave_uncounted([])
        assert journal.status.used_bytes >= counted
        assert step < 2 or journal.status.used_bytes > counted, (
            "what only a FAULTY group pins does not fill the journal"
        )
        more = [hard(9, step + 1), entries(9, step + 1, step, step + 1, [b"x" * 3000])]
        if step == 0:
            more.append(checkpoint(1, 2, 7))
        journal.append(more)
        model.told(more)
        journal.append([checkpoint(9, step + 1, step + 1)])
        model.told([checkpoint(9, step + 1, step + 1)])
        while journal.zero_some():
            pass
        journal.close()
        vfs.crash()


def test_what_the_device_refused_to_read_is_there_when_it_reads_again() -> None:
    """Whatever an opening made of read errors: the next one, without them, finds everything."""
    vfs, _ = build()
    whole = recover(vfs.clone())

    def refuse(path: str, start: int, end: int) -> Callable[[SimVfs], None]:
        return lambda disk: disk.bad_sectors(path, start, end)

    faults = [
        refuse(path, start, start + length)
        for path in vfs.files()
        for start in range(0, LIMITS.journal_file_bytes, SECTOR_BYTES)
        for length in (SECTOR_BYTES, 4096 + SECTOR_BYTES, LIMITS.journal_file_bytes)
        if any(vfs.peek(path)[start : start + length])
    ]
    for nth in range(1, 120):
        for sticky in (False, True):
            rule = fault("pread", "journal/*", error=errno.EIO, nth=nth, sticky=sticky)
            faults.append(lambda disk, rule=rule: disk.inject(rule))
    refused = 0
    for break_it in faults:
        disk = vfs.clone()
        break_it(disk)
        before = {path: disk.peek(path) for path in disk.files()}
        try:
            journal, _ = open_journal(disk, LIMITS, JOURNAL_ID)
        except Corruption:
            assert before == {path: disk.peek(path) for path in disk.files()}
            refused += 1
        else:
            journal.close()
        disk.heal()
        for path in disk.files():
            disk.readable_again(path)
        disk.crash()
        again = recover(disk)
        assert {uid: log_of(group) for uid, group in again.groups.items()} == {
            uid: log_of(group) for uid, group in whole.groups.items()
        }
        for uid, group in again.groups.items():
            assert (group.vote, group.hard_state_known, group.last_known) == (whole.groups[uid].vote, True, True)
    assert 0 < refused < len(faults)
