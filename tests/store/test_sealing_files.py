"""Goal: plain files of a store that has keys are read until they are sealed, each alone; then they are damage."""

from __future__ import annotations

from random import Random

import pytest
from journal_model import JOURNAL_ID, checkpoint, entries, log_of, small_limits

from jepsen.sim.faults import SimCrash
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption, FormatUnknown
from jetstore.store.checkpoint_files import (
    KIND_CHUNK,
    KIND_HEAD,
    chunk_path,
    group_dir,
    head_hash,
    make_group_dir,
    read_chunk,
    read_heads,
    seal_file,
    sealed_with,
    write_chunks,
    write_head,
)
from jetstore.store.journal.append import Journal
from jetstore.store.journal.files import file_path
from jetstore.store.journal.find import EntryFinder
from jetstore.store.journal.recovery import open_journal
from jetstore.store.keys import DataKey, Keys
from jetstore.types import GroupUid, RaftIndex

UID = GroupUid(12)
HEAD = f"{group_dir(UID)}/HEAD.a"
LIMITS = small_limits()
BODIES = [b"first body", b"second body", b"third body"]


def keys(*, is_mixed: bool = True) -> Keys:
    return Keys(
        {1: DataKey("chacha", bytes(32))},
        Random(1).randbytes,
        is_mixed=is_mixed,
        when_sealed=b"then" if is_mixed else b"",
    )


def plain() -> SimVfs:
    vfs = SimVfs()
    make_group_dir(vfs, UID)
    write_chunks(vfs, UID, {"a": b"content of a chunk"})
    write_head(vfs, UID, b"content of a head", is_installed=True, journal_lsn=77)
    return vfs


def test_a_sealed_file_is_the_same_but_for_its_form() -> None:
    vfs = plain()
    before = read_heads(vfs, UID)
    vfs.keys = keys()
    assert read_heads(vfs, UID) == before, "plain forms are read"
    assert not sealed_with(vfs, HEAD)
    assert seal_file(vfs, UID, KIND_HEAD, HEAD) == ""
    assert seal_file(vfs, UID, KIND_CHUNK, chunk_path(UID, "a")) == ""
    assert sealed_with(vfs, HEAD)
    assert b"content" not in vfs.peek(HEAD) + vfs.peek(chunk_path(UID, "a"))
    copies, findings = read_heads(vfs, UID)
    assert ([copies[0], copies[1]], findings) == before
    assert copies[0][1:] == (head_hash(b"content of a head"), True, 77)
    again = vfs.peek(HEAD)
    assert seal_file(vfs, UID, KIND_HEAD, HEAD) == ""
    assert vfs.peek(HEAD) == again, "once is enough"
    vfs.keys.all_sealed()
    copies, findings = read_heads(vfs, UID)
    assert len(copies) == 1
    assert "not sealed, in an encrypted store" in findings[0]
    assert read_chunk(vfs, UID, "a") == b"content of a chunk"


def test_what_is_damaged_or_missing_stays_so() -> None:
    vfs = plain()
    vfs.keys = keys()
    vfs.poke(HEAD, 60, b"X")
    before = vfs.peek(HEAD)
    assert "checksum" in seal_file(vfs, UID, KIND_HEAD, HEAD)
    assert vfs.peek(HEAD) == before
    assert not sealed_with(vfs, HEAD)
    assert seal_file(vfs, UID, KIND_CHUNK, chunk_path(UID, "nowhere")) == ""


def test_a_power_cut_at_every_boundary_of_one_file() -> None:
    vfs = plain()
    vfs.keys = keys()
    for point in range(1, 20):
        for seed in range(4):
            twin = vfs.clone()
            twin.crash_at(twin.boundaries + point)
            try:
                seal_file(twin, UID, KIND_HEAD, HEAD)
            except SimCrash:
                twin.crash(Random(seed))
                copies, findings = read_heads(twin, UID)
                assert ({copy.content for copy in copies}, findings) == ({b"content of a head"}, [])
                assert len(copies) == 2
            else:
                assert point > 3
                return
    raise AssertionError("it never ends")


def grown() -> tuple[SimVfs, Journal]:
    """A journal of which an older file is plain and the one in use is hidden; live entries in both."""
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    journal.append([entries(2, 1, 0, 1, BODIES[:1])])
    journal.append([entries(2, 1, 1, 2, BODIES[1:2])])
    journal.close()
    vfs.keys = keys()
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert log_of(recovery.groups[GroupUid(2)]) == {1: (1, BODIES[0]), 2: (1, BODIES[1])}
    journal.append([entries(2, 1, 1, 3, BODIES[2:])])
    return vfs, journal


def test_a_journal_that_is_half_plain_is_read_whole() -> None:
    vfs, journal = grown()
    journal_id, file_bytes, extents = journal.extents()
    finder = EntryFinder(vfs, journal_id, file_bytes, 2, 0)
    for extent in extents:
        for _ in finder.look_through(extent, 4096):
            """Until all of it was looked through."""
    assert [finder.entry(RaftIndex(index)).data for index in (1, 2, 3)] == BODIES
    journal.close()
    for crash in (vfs.kill, vfs.crash):
        crash()
        twin = vfs.clone()
        _, recovery = open_journal(twin, LIMITS, JOURNAL_ID)
        assert log_of(recovery.groups[GroupUid(2)]) == {n: (1, body) for n, body in enumerate(BODIES, 1)}
    vfs.keys = keys(is_mixed=False)
    before = {path: vfs.peek(path) for path in vfs.files()}
    with pytest.raises(Corruption, match="not sealed, in an encrypted store"):
        open_journal(vfs, LIMITS, JOURNAL_ID)
    vfs.keys = None
    with pytest.raises(FormatUnknown, match="another key"):
        open_journal(vfs, LIMITS, JOURNAL_ID)
    assert {path: vfs.peek(path) for path in vfs.files()} == before


def test_older_files_go_when_nothing_needs_them_and_spares_are_blank() -> None:
    vfs, journal = grown()
    first = journal.position.file.number
    assert journal.leave_older(first) == ([2], True)
    journal.append([checkpoint(2, 1, 3)])
    assert journal.leave_older(first) == ([], True), "the list of needed files on the disk still has it"
    journal.idle()
    journal.idle()
    journal.leave_older(first)
    assert [path for path in vfs.files() if path.startswith("journal") and path < file_path(first)] == []
    while journal.zero_some():
        """Until the spares are blank."""
    assert journal.leave_older(first) == ([], False)
    journal.files.spares[0].zeroed = 0
    assert journal.leave_older(first) == ([], True), "who knows what is in it"
    journal.close()
    vfs.kill()
    vfs.keys = keys(is_mixed=False)
    _, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert recovery.findings == []
    assert recovery.groups[GroupUid(2)].checkpoint_index == 3
