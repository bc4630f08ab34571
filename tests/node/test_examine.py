"""Goal: looking at a store never harms it, never fails, and never overlooks that something acknowledged is unreadable.

Method: a small store, one byte of it flipped at a time. What a start would serve is compared with the sound store,
message by message; whenever it differs, the report must name damage. ``JETSTORE_DEEP=1`` flips every byte that is
written, and one of each blank sector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from damaged_store import LIMITS, fingerprint, flip, small_store
from deep import IS_DEEP

from jepsen.sim.faults import fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import JetstoreError
from jetstore.limits import SECTOR_BYTES
from jetstore.node.examine import StoreReport, examine, verify
from jetstore.store.index_check import IndexState


@cache
def store() -> SimVfs:
    return small_store(30, 10)


def look(vfs: SimVfs) -> StoreReport:
    report, files = examine(vfs, LIMITS)
    verify(vfs, LIMITS, report)
    files.close()
    return report


def served(report: StoreReport) -> dict[str, object]:
    """What clients would read, by stream; a name instead of what is unreadable."""
    shown: dict[str, object] = {}
    for group in report.groups:
        stream = group.stream
        if stream is None:
            continue
        read: list[object] = []
        for seq in range(1, stream.contents.last_seq + 1):
            try:
                read.append(stream.contents.read(seq))
            except JetstoreError as error:
                read.append(type(error))
        consumers = [stream.consumers[name].to_head() for name in sorted(stream.consumers)]
        shown[group.name] = (read, consumers, stream.state())
    return shown


def damage(report: StoreReport) -> list[str]:
    return report.findings + [finding for group in report.groups for finding in group.findings]


def test_a_sound_store_is_sound() -> None:
    report = look(store())
    assert damage(report) == []
    assert report.is_sound
    assert {group.name: group.stream and group.stream.messages for group in report.groups} == {
        "_meta_": None,
        "S": 40,
        "OTHER": 3,
    }


def flips(kind: str) -> list[tuple[str, int]]:
    vfs = store()
    paths = [path for path in vfs.files() if path.startswith("journal/") == (kind == "journal")]
    step = 1 if IS_DEEP else 41 if kind == "journal" else 53
    found = []
    for path in paths:
        data = vfs.peek(path)
        for offset in range(number_of(path) % step, len(data), step):
            sector = offset // SECTOR_BYTES * SECTOR_BYTES
            if kind != "journal" or any(data[sector : sector + SECTOR_BYTES]) or (IS_DEEP and offset == sector):
                found.append((path, offset))  # most of the journal is blank: one byte of each sector is enough
    return found


def number_of(path: str) -> int:
    return sum(path.encode())


@pytest.mark.timeout(3600 if IS_DEEP else 120)
@pytest.mark.parametrize("kind", ["journal", "others"])
def test_one_flipped_byte(kind: str, record_property: Callable[[str, object], None]) -> None:
    vfs = store().clone()
    sound = served(look(vfs))
    before = fingerprint(vfs)
    hidden, named, cases = [], 0, 0
    for path, offset in flips(kind):
        flip(vfs, path, offset)
        cases += 1
        report = look(vfs)
        if served(report) != sound and report.is_sound:
            hidden.append((path, offset))
        named += not report.is_sound
        if path.startswith("groups/") and "HEAD" in path:
            assert any(path in finding for finding in damage(report)), (path, offset)
        flip(vfs, path, offset)
    record_property("cases", cases)
    assert hidden == []
    assert named > 3
    assert fingerprint(vfs) == before


@pytest.mark.parametrize("path", store().files())
def test_one_lost_file(path: str) -> None:
    """What nothing depends on may go unnoticed; nothing else may."""
    vfs = store().clone()
    sound = served(look(vfs))
    vfs.lose(path)
    before = fingerprint(vfs)
    report = look(vfs)
    if served(report) != sound or "HEAD" in path:
        assert not report.is_sound
    assert fingerprint(vfs) == before


@pytest.mark.parametrize("path", store().files())
@pytest.mark.parametrize("share", [0, 0.5, 0.97])
def test_one_file_cut_short(path: str, share: float) -> None:
    vfs = store().clone()
    sound = served(look(vfs))
    vfs.cut(path, int(len(vfs.peek(path)) * share))
    report = look(vfs)
    if served(report) != sound or "HEAD" in path:
        assert not report.is_sound


@pytest.mark.parametrize("path", store().files())
def test_one_file_that_cannot_be_read(path: str) -> None:
    vfs = store().clone()
    sound = served(look(vfs))
    vfs.inject(fault("pread", path, sticky=True))
    report = look(vfs)
    if served(report) != sound or "HEAD" in path:
        assert not report.is_sound


def test_both_copies_of_anything_gone() -> None:
    for names in (("IDENTITY", "IDENTITY.b"), ("groups/1/HEAD.a", "groups/1/HEAD.b")):
        vfs = store().clone()
        for name in names:
            vfs.lose(name)
        assert not look(vfs).is_sound


def test_the_whole_journal_gone() -> None:
    vfs = store().clone()
    for path in vfs.files():
        if path.startswith("journal/"):
            vfs.lose(path)
    assert "journal" in " ".join(damage(look(vfs)))


def test_a_damaged_index_is_a_note() -> None:
    report, files = examine(store(), LIMITS)
    good: dict[int, IndexState] = {
        g.uid: IndexState(g.index_stamp, g.index_digest) for g in report.groups if g.index_stamp
    }
    assert sorted(good) == [2, 3]
    verify(store(), LIMITS, report, lambda uids: good)
    assert not [note for note in report.notes if "index" in note]
    wrong = {2: IndexState(good[2].stamp, good[2].digest ^ 1), 3: IndexState(problem="torn page")}
    verify(store(), LIMITS, report, lambda uids: wrong)
    notes = [note for note in report.notes if "index will be rebuilt" in note]
    assert [note.split(":")[0] for note in notes] == ["S", "OTHER"]
    verify(store(), LIMITS, report, lambda uids: dict.fromkeys(uids, IndexState(stamp=77)))
    assert sum("at stamp 77" in note for note in report.notes) == 2
    assert report.is_sound
    files.close()
