"""Damage to segment files: whatever byte is flipped, an answer is right or it is a Corruption that names the place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deep import IS_DEEP

from jepsen.sim.faults import fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.limits import Limits
from jetstore.store.log_checkpoint import log_chunk_names
from jetstore.store.memory_log import MemoryLog
from jetstore.store.message_log import SegmentedLog
from jetstore.stream.subjects import Filter

UID = 9
LIMITS = Limits(segment_bytes=330, frame_bytes_max=90, segment_flush_bytes=300)
LARGER = Limits(segment_bytes=600, frame_bytes_max=250, segment_flush_bytes=300)
"""For compressed frames: there is nothing to gain in fewer than 64 bytes."""
DIR = f"groups/{UID}/segments"
WILD = Filter([b"k.*"])
LITERAL = Filter([b"k.1"])


def build(is_compressing: bool = False) -> tuple[SimVfs, dict[str, Any], dict[str, bytes], MemoryLog]:
    """Two sealed segments and an unsealed one, with removed messages and a gap; all of it checkpointed."""
    limits = LARGER if is_compressing else LIMITS
    more = b" and again" * 4 if is_compressing else b""
    vfs = SimVfs()
    for path in ("groups", f"groups/{UID}", DIR):
        vfs.mkdir(path)
    log, model = SegmentedLog(vfs, UID, limits), MemoryLog()
    log.is_compressing = is_compressing
    for batch in range(7):
        first = model.last_seq + (3 if batch == 4 else 1)
        subjects = [b"k.%d" % ((batch + i) % 3) for i in range(4)] if batch % 3 else [b"one"] * 4
        header_lens = [2, 0, 0, 0] if batch % 2 else ()
        columns = Columns(subjects, header_lens, [b"HH%d-%d" % (batch, i) + more for i in range(4)])
        for frame in encode_frames(columns, 1_000 * batch, limits.frame_bytes_max):
            for target in (log, model):
                target.append(first, frame)
            first += frame.count
    for seq in (2, 9, 18):
        assert log.remove(seq) == model.remove(seq)
    for path, offset, buffers in log.take_unflushed():
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers, offset)
        vfs.close(handle)
    log.flushed()
    parts = log.checkpoint_parts()
    assert len(parts.head["segments"]) >= 3
    return vfs, parts.head, {name: parts.chunks[name] for name in log_chunk_names(parts.head)}, model


def questions(model: MemoryLog) -> Iterator[tuple[str, Callable[[SegmentedLog | MemoryLog], object]]]:
    """Everything that can be asked, one by one."""
    live = model.next_seqs(1, None, 1_000)
    for seq in live:
        yield f"read {seq}", lambda log, s=seq: log.read(s)
    for seq in live[::4]:
        yield f"meta {seq}", lambda log, s=seq: log.meta(s)
    yield "all", lambda log: log.read_many(live, 1 << 30)
    for name, subject_filter in (("wild", WILD), ("literal", LITERAL)):
        for start in (1, 12, 22):
            yield f"next {name} {start}", lambda log, f=subject_filter, s=start: log.next_seqs(s, f, 4)
            yield f"previous {name} {start}", lambda log, f=subject_filter, s=start: log.previous_seq(s, f)
    for time_ns in (500, 3_001, 5_002):
        yield f"time {time_ns}", lambda log, t=time_ns: log.seq_at_time(t)
    yield "rows", lambda log: log.index_rows()
    # Last: it changes the log. What it returns is compared in the test without damage.
    yield "purge", lambda log: log.remove_range(5, 30)


def named_range(error: Corruption) -> tuple[int, int]:
    found = re.search(r"sequences (\d+)-(\d+) unreadable", error.what)
    assert found, error
    return int(found[1]), int(found[2])


def check(vfs: SimVfs, head: dict[str, Any], chunks: dict[str, bytes], model: MemoryLog, hurt: str) -> int:
    """Ask everything of the damaged log; how many findings a scrub reports."""
    unreadable: set[int] = set()
    log = SegmentedLog.open(vfs, UID, head, chunks, LIMITS)
    for what, question in questions(model):
        try:
            answer = question(log)
        except Corruption as caught:
            error = caught
        else:
            assert what == "purge" or answer == question(model), what
            continue
        assert error.file == hurt, (what, error)
        first, last = named_range(error)
        assert model.first_seq <= first <= last <= model.last_seq, (what, error)
        if what.startswith("read "):
            unreadable.add(int(what.split()[1]))
    assert len(unreadable) <= 4, "more than one frame became unreadable"
    log = SegmentedLog.open(vfs, UID, head, chunks, LIMITS)
    found: list[Corruption] = []
    while not log.scrub(500, found):
        pass
    return len(found) + len(log.findings)


@pytest.mark.parametrize("is_compressing", [False, True])
def test_undamaged(is_compressing: bool) -> None:
    vfs, head, chunks, model = build(is_compressing)
    assert check(vfs, head, chunks, model, "") == 0


def test_unreadable_sectors() -> None:
    """A read error of the device is damage like any other: named where it is needed, and nothing else suffers."""
    vfs, head, chunks, model = build()
    for name in vfs.list_dir(DIR):
        path = f"{DIR}/{name}"
        size = len(vfs.peek(path))
        for start, end in ((0, 10), (40, 60), (size // 2, size // 2 + 1), (size - 8, size), (0, size)):
            hurt = vfs.clone()
            hurt.bad_sectors(path, start, end)
            log = SegmentedLog.open(hurt, UID, head, chunks, LIMITS)
            refused = 0
            for what, question in questions(model):
                if what == "purge":
                    continue
                try:
                    answer = question(log)
                except Corruption:
                    refused += 1
                else:
                    assert answer == question(model), what
            found: list[Corruption] = []
            while not log.scrub(500, found):
                pass
            assert found or log.findings
            assert refused or (start, end) != (0, size)


@pytest.mark.parametrize("is_compressing", [False, True])
@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_every_flipped_byte(flip: int, is_compressing: bool, record_property: Callable[[str, object], None]) -> None:
    """Also: the scrub finds each one. Compressed: every third byte unless ``JETSTORE_DEEP``."""
    vfs, head, chunks, model = build(is_compressing)
    files = b"".join(vfs.peek(f"{DIR}/{name}") for name in vfs.list_dir(DIR))
    assert files.count(b"JF\x04") == 7 * is_compressing
    step = 7 if flip != 1 else 3 if is_compressing and not IS_DEEP else 1
    cases = 0
    for name in vfs.list_dir(DIR):
        path = f"{DIR}/{name}"
        size = len(vfs.peek(path))
        for at in range(0, size, step):
            hurt = vfs.clone()
            hurt.poke(path, at, bytes((vfs.peek(path)[at] ^ flip,)))
            assert check(hurt, head, chunks, model, path), (path, at)
            cases += 1
    record_property("cases", cases)


def test_missing_and_short_files() -> None:
    vfs, head, chunks, model = build()
    for name in vfs.list_dir(DIR):
        hurt = vfs.clone()
        hurt.unlink(f"{DIR}/{name}")
        log = SegmentedLog.open(hurt, UID, head, chunks, LIMITS)
        assert log.findings
        lost = {s.name: s for s in log.segment_files()}[name]
        for seq in model.next_seqs(1, None, 1_000):
            if lost.base_seq <= seq <= lost.last_seq:
                with pytest.raises(Corruption, match="unreadable"):
                    log.read(seq)
            else:
                assert log.read(seq) == model.read(seq)
        with pytest.raises(Corruption):
            log.next_seqs(1, WILD, 1_000)
        whole = len(vfs.peek(f"{DIR}/{name}"))
        for size in (0, 10, 28, 60, whole - 1):
            hurt = vfs.clone()
            handle = hurt.open(f"{DIR}/{name}")
            hurt.truncate(handle, size)
            hurt.close(handle)
            log = SegmentedLog.open(hurt, UID, head, chunks, LIMITS)
            assert log.findings
            refused = 0
            for what, question in questions(model):
                if what == "purge":
                    continue
                try:
                    assert question(log) == question(model), what
                except Corruption:
                    refused += 1
            assert refused or size > 60  # else only the footer is gone


def test_nothing_is_appended_behind_damage() -> None:
    vfs, head, chunks, model = build()
    name = vfs.list_dir(DIR)[-1]
    vfs.poke(f"{DIR}/{name}", 70, b"\xaa\xaa")
    log = SegmentedLog.open(vfs, UID, head, chunks, LIMITS)
    frames = encode_frames(Columns([b"k.1"], (), [b"new"]), 99_999, 100)
    log.append(model.last_seq + 1, frames[0])
    assert log.segment_files()[-1].name != name
    new = log.read(model.last_seq + 1)
    assert new is not None
    assert new.data == b"new"


def test_unnamed_files_go_and_tails_are_cut() -> None:
    vfs, head, chunks, model = build()
    last = vfs.list_dir(DIR)[-1]
    size = len(vfs.peek(f"{DIR}/{last}"))
    for path, offset in ((f"{DIR}/{last}", size), (f"{DIR}/99999999999999999999.seg", 0)):
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, [b"left over from before the crash"], offset)
        vfs.close(handle)
    log = SegmentedLog.open(vfs, UID, head, chunks, LIMITS)
    assert last in vfs.list_dir(DIR)
    assert len(vfs.list_dir(DIR)) == len(head["segments"])
    assert len(vfs.peek(f"{DIR}/{last}")) == size
    assert log.findings == []
    assert log.read_many(model.next_seqs(1, None, 99), 1 << 20) == model.read_many(
        model.next_seqs(1, None, 99), 1 << 20
    )


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_table_that_changes_meanwhile_never_gives_another_message(frame: int) -> None:
    """Method: frames are cached under the footer's table. Then footer and a frame are damaged, the table is read anew
    from the frames, and frames and records have other numbers."""
    vfs, head, chunks, model = build()
    log = SegmentedLog.open(vfs, UID, head, chunks, LIMITS)
    live = model.next_seqs(1, None, 1_000)
    assert [log.read(seq) for seq in live] == [model.read(seq) for seq in live]
    assert log.read_many(live, 1 << 30) == model.read_many(live, 1 << 30)
    segment = log.segment_files()[0]
    table = log.reader.table(segment)
    compaction = log.start_erasure(segment)
    assert compaction is not None
    assert not compaction.step(1)
    vfs.poke(segment.path, table.offsets[frame], b"\xff\xff")
    vfs.poke(segment.path, table.end_offset, bytes(segment.file_bytes - table.end_offset))
    cache = log._cache
    for key in [key for key in cache._items if key == (segment.path, -1)]:
        cache.used_bytes -= cache._items.pop(key)[1]
    answers = 0
    for what, question in questions(model):
        try:
            answer = question(log)
        except Corruption:
            continue
        if what != "purge":
            answers += 1
            assert answer == question(model), what
    assert answers > 20
    try:
        while not compaction.step(1):
            pass
    except Corruption:
        return
    assert compaction._table.message_count == segment.live, "every live record, or none of the new file"


@pytest.mark.parametrize("how", ["look again", "scrub"])
@pytest.mark.parametrize("op", ["pread", "open"])
def test_a_passing_read_error_is_over_when_it_is_read_again(how: str, op: str) -> None:
    vfs, head, chunks, model = build()
    log = SegmentedLog.open(vfs, UID, head, chunks, LIMITS)
    segments = log.segment_files()
    vfs.inject(fault(op, segments[0].path, sticky=True))
    with pytest.raises(Corruption):
        log.next_seqs(1, WILD, 100)
    found: list[Corruption] = []
    while not log.scrub(500, found):
        pass
    assert {error.file for error in found} == {segments[0].path}, "the others were read all the same"
    vfs.heal()
    if how == "scrub":
        found.clear()
        while not log.scrub(500, found):
            pass
        assert found == []
    else:
        for segment in segments:
            log.reader.look_again_at_damage(segment)
    for what, question in questions(model):
        if what != "purge":
            assert question(log) == question(model), what
