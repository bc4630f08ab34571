"""The fold, line by line: what removes what, and which lines are dead."""

from __future__ import annotations

from journal_model import JOURNAL_ID, checkpoint, entries, generation, hard, reset, small_limits

from jepsen.sim.vfs import SimVfs
from jetstore.store.journal.format import Line
from jetstore.store.journal.recovery import open_journal
from jetstore.store.journal.table import GroupState, GroupTable
from jetstore.store.ports import Record


def fold(table: GroupTable, record: Record, file: int = 1) -> str:
    kind, group, term, prev_term, first, last, count, aux, body = record
    return table.apply(Line(kind, 0, count, group, term, prev_term, first, last, 0, len(body), 0, aux), file)


def folded(*records: Record) -> tuple[GroupTable, GroupState]:
    table = GroupTable(keeps_lines=False)
    for record in records:
        assert fold(table, record) == ""
    return table, table.groups[1]


def terms(group: GroupState) -> dict[int, int]:
    return {index: run.term for run in group.runs for index in range(run.first, run.last + 1)}


def test_entries_remove_what_stands_before_them_from_their_index_on() -> None:
    table, group = folded(hard(1, 1), entries(1, 1, 0, 1, [b"x"] * 5), hard(1, 2), entries(1, 2, 1, 3, [b"y"]))
    assert terms(group) == {1: 1, 2: 1, 3: 2}
    assert (group.last_index, group.last_term) == (3, 2)
    assert table.needed_files() == [1]


def test_dead_entries() -> None:
    table, group = folded(hard(1, 3), entries(1, 3, 0, 1, [b"x"] * 5), checkpoint(1, 3, 3))
    before = terms(group)
    assert "do not follow the term" in fold(table, entries(1, 3, 2, 5, [b"y"]))
    assert "gap" in fold(table, entries(1, 3, 3, 7, [b"y"]))
    assert "do not follow the checkpoint" in fold(table, entries(1, 3, 2, 4, [b"y"]))
    assert "do not pass through the checkpoint" in fold(table, entries(1, 2, 0, 2, [b"y"] * 4))
    assert fold(table, entries(1, 1, 0, 1, [b"y"])) == ""  # all of it is behind the checkpoint
    assert terms(group) == before == {4: 3, 5: 3}


def test_terms_and_votes_never_go_back() -> None:
    table, group = folded(hard(1, 4, 2))
    assert "below" in fold(table, hard(1, 3, 1))
    fold(table, hard(1, 4, 0))
    assert (group.term, group.vote) == (4, 2), "a vote is never cleared within a term"
    fold(table, entries(1, 6, 0, 1, [b"x"]))
    assert (group.term, group.vote, group.hard_known) == (6, 0, False), "its HARD line is lost: no vote in that term"
    fold(table, hard(1, 7, 1))
    assert (group.term, group.vote, group.hard_known) == (7, 1, True)


def test_a_higher_generation_voids_everything_but_the_term() -> None:
    table, group = folded(hard(1, 4, 2), entries(1, 4, 0, 1, [b"x"] * 3), checkpoint(1, 4, 2), generation(1, 5))
    assert (group.term, group.vote, group.generation) == (4, 0, 5)
    assert (group.last_index, group.checkpoint_index, group.runs) == (0, 0, [])
    assert "below" in fold(table, generation(1, 3))
    assert table.needed_files() == []
    fold(table, generation(1, 0))
    fold(table, entries(1, 9, 0, 1, [b"x"]))
    assert group.is_tombstone
    assert group.runs == []


def test_after_a_tombstone_a_group_may_begin_anew() -> None:
    table, group = folded(generation(1, 3), hard(1, 4, 2), entries(1, 4, 0, 1, [b"x"] * 3), generation(1, 0))
    fold(table, entries(1, 4, 4, 4, [b"x"]))
    fold(table, generation(1, 7))
    assert (group.generation, group.term, group.vote) == (7, 4, 0)
    assert (group.last_index, group.runs) == (0, [])
    fold(table, entries(1, 5, 0, 1, [b"y"]))
    assert group.last_index == 1


def test_checkpoints_only_rise() -> None:
    table, group = folded(hard(1, 1), entries(1, 1, 0, 1, [b"x"] * 9), checkpoint(1, 1, 5))
    fold(table, checkpoint(1, 1, 3, 99))
    fold(table, reset(1, 1, 4, 99))
    assert (group.checkpoint_index, group.checkpoint_hash) == (5, 7)
    fold(table, checkpoint(1, 2, 20))
    assert (group.last_index, group.last_term, group.runs) == (20, 2, [])


def test_after_a_hole_only_evidence_ends_the_doubt() -> None:
    table, group = folded(hard(1, 2, 1), entries(1, 2, 0, 1, [b"x"] * 3))
    table.hole()
    assert (group.hard_known, group.last_known) == (False, False)
    assert fold(table, entries(1, 4, 3, 6, [b"y"])) == ""
    assert terms(group) == {1: 2, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4}
    assert [run.file for run in group.runs] == [1, 0, 1]
    assert (group.last_known, group.hard_known, group.term) == (True, False, 4)
    fold(table, hard(5, 1))
    assert not table.groups[5].last_known, "a group seen for the first time after a hole may be older than it looks"


def test_a_reset_says_where_the_log_stands() -> None:
    for at, term, is_known in ((3, 2, True), (9, 5, True), (2, 1, True), (2, 2, False)):
        table, group = folded(hard(1, 2, 1), entries(1, 2, 0, 1, [b"x"] * 3))
        table.hole()
        assert fold(table, reset(1, term, at)) == ""
        assert group.last_known == is_known, "entries beyond it stay, and nobody knows how many"
        assert (group.checkpoint_index, group.checkpoint_term) == (at, term)


def test_rows_say_the_same_again() -> None:
    table, group = folded(
        hard(1, 2, 1), entries(1, 1, 0, 1, [b"x"] * 3), entries(1, 2, 1, 4, [b"y"]), checkpoint(1, 1, 2)
    )
    again = GroupTable(keeps_lines=False)
    for lines in table.rows():
        for line in lines:
            assert again.apply(line, 9) == ""
    twin = again.groups[1]
    assert terms(twin) == terms(group) == {3: 1, 4: 2}
    assert (twin.term, twin.vote, twin.checkpoint_index, twin.checkpoint_hash) == (2, 1, 2, 7)
    assert [run.file for run in twin.runs] == [0, 0], "known, but their bytes are nowhere"
    for lines in table.rows():  # over a fold that has them, nothing changes
        for line in lines:
            table.apply(line, 9)
    assert [run.file for run in group.runs] == [1, 1]


def test_a_row_drops_what_was_superseded_where_nobody_can_see_it() -> None:
    table, group = folded(hard(1, 1), entries(1, 1, 0, 1, [b"x"] * 3))
    now, _ = folded(hard(1, 2), entries(1, 1, 0, 1, [b"x"] * 3), entries(1, 2, 1, 2, [b"y"] * 3))
    for lines in now.rows():
        for line in lines:
            assert table.apply(line, 9) == ""
    assert terms(group) == {1: 1, 2: 2, 3: 2, 4: 2}
    assert [(run.first, run.file) for run in group.runs] == [(1, 1), (2, 0)], "the old entry 2 is not entry 2"


def test_a_file_is_released_only_when_the_list_without_it_stands_twice() -> None:
    limits = small_limits()
    journal, _ = open_journal(SimVfs(), limits, JOURNAL_ID)
    index = 1
    while journal.position.file.number == 1:
        journal.append([hard(1, 1), entries(1, 1, 1 if index > 1 else 0, index, [b"x" * 6000])])
        index += 1
    journal.append([checkpoint(1, 1, index - 1)])
    assert 1 in journal.position.listed
    journal.idle()
    assert 1 not in journal.position.listed
    assert journal.files.released == []
    journal.idle()
    assert journal.files.released == [1]
