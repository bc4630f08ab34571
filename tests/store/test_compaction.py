"""Compaction: what lives stays as it was, what was removed is gone from the disk, whatever happens in between."""

from __future__ import annotations

from random import Random

import pytest

from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.limits import Limits
from jetstore.store.log_checkpoint import LogParts, log_chunk_names
from jetstore.store.memory_log import MemoryLog
from jetstore.store.message_log import SegmentedLog
from jetstore.stream.subjects import Filter

UID = 3
DIR = f"groups/{UID}/segments"
LIMITS = Limits(segment_bytes=1_500, frame_bytes_max=300, segment_flush_bytes=300)
FILTERS = [None, Filter([b"k.1"]), Filter([b"k.*"]), Filter([b"none"])]


def filled(seed: int, is_compressing: bool = False) -> tuple[SimVfs, SegmentedLog, MemoryLog]:
    """Several sealed segments with gaps and more than half of the messages removed."""
    rng = Random(seed)
    vfs = SimVfs()
    for path in ("groups", f"groups/{UID}", DIR):
        vfs.mkdir(path)
    log, model = SegmentedLog(vfs, UID, LIMITS), MemoryLog()
    log.is_compressing = is_compressing
    for _ in range(90):
        first = model.last_seq + rng.choice([1, 1, 1, 5])
        count = rng.randrange(1, 9)
        subjects = [b"k.%d" % rng.randrange(4) for _ in range(count)]
        columns = Columns(
            subjects, [2] * count if rng.random() < 0.3 else (), [rng.randbytes(3) * 3 for _ in range(count)]
        )
        time_ns = (model.meta(model.last_seq) or (0, 0))[1] + rng.randrange(1, 50)
        for frame in encode_frames(columns, time_ns + 1_000 * first, 300):
            for target in (log, model):
                target.append(first, frame)
            first += frame.count
    flush(vfs, log)
    for seq in model.next_seqs(1, None, 10_000):
        if rng.random() < 0.6:
            assert log.remove(seq) == model.remove(seq)
    return vfs, log, model


def flush(vfs: SimVfs, log: SegmentedLog) -> None:
    writes = log.take_unflushed()
    for path, offset, buffers in writes:
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers, offset)
        vfs.close(handle)
    if writes:
        log.flushed()


def compact_all(vfs: SimVfs, log: SegmentedLog, share: float = 0.99) -> int:
    done = 0
    while (compaction := log.start_compaction(share)) is not None:
        while not compaction.step(200):
            pass
        for path, offset, buffers in compaction.writes():
            handle = vfs.open(path, create=True, exclusive=True)
            vfs.pwrite(handle, buffers, offset)
            vfs.close(handle)
        compaction.finish()
        done += 1
    return done


def same(log: SegmentedLog, model: MemoryLog) -> None:
    live = model.next_seqs(1, None, 10_000)
    assert (log.first_seq, log.last_seq, log.deleted_count()) == (
        model.first_seq,
        model.last_seq,
        model.deleted_count(),
    )
    assert log.read_many(live, 1 << 30) == model.read_many(live, 1 << 30)
    assert [log.read(seq) for seq in live[::3]] == [model.read(seq) for seq in live[::3]]
    assert [log.meta(seq) for seq in live[::3]] == [model.meta(seq) for seq in live[::3]]
    for subject_filter in FILTERS:
        for start in (1, live[len(live) // 2], live[-1]):
            assert log.next_seqs(start, subject_filter, 7) == model.next_seqs(start, subject_filter, 7)
            assert log.next_seqs(start, subject_filter, 999) == model.next_seqs(start, subject_filter, 999)
            assert log.previous_seq(start, subject_filter) == model.previous_seq(start, subject_filter)
    times = [m.time_ns for m in model.read_many(live, 1 << 30)]
    for time_ns in [t + d for t in times[::4] for d in (-1, 0, 1)]:
        assert log.seq_at_time(time_ns) == model.seq_at_time(time_ns)
    assert log.index_rows() == model.index_rows()
    assert log.findings == []


def reopened(vfs: SimVfs, parts: LogParts) -> SegmentedLog:
    chunks = {name: parts.chunks[name] for name in log_chunk_names(parts.head)}
    return SegmentedLog.open(vfs, UID, parts.head, chunks, LIMITS)


@pytest.mark.parametrize("seed", range(16))
def test_everything_stays_the_same(seed: int) -> None:
    """From seed 12 on compressed: first both, then only what is appended, or only what is rewritten, then neither."""
    vfs, log, model = filled(seed, is_compressing=seed in (12, 13))
    log.is_compressing = seed in (12, 14)
    rng = Random(seed + 1_000)
    before = sum(s.file_bytes for s in log.segment_files())
    assert compact_all(vfs, log) >= 3
    assert sum(s.file_bytes for s in log.segment_files()) < before
    same(log, model)
    parts = log.checkpoint_parts()
    for path in log.checkpointed(parts):
        vfs.unlink(path)
    assert sorted(vfs.list_dir(DIR)) == sorted(s.name for s in log.segment_files())
    same(reopened(vfs, parts), model)
    # Again, from the compacted files: with other removals, a footer lost, and another compaction on top.
    for seq in model.next_seqs(1, None, 10_000):
        if rng.random() < 0.4:
            assert log.remove(seq) == model.remove(seq)
    first = model.first_seq
    assert log.remove_range(first, first + 40) == model.remove_range(first, first + 40)
    same(log, model)
    compact_all(vfs, log)
    same(log, model)
    parts = log.checkpoint_parts()
    sealed = [s for s in log.segment_files() if s.has_footer]
    hurt = vfs.clone()
    hurt.poke(sealed[0].path, sealed[0].file_bytes - 3, b"\xff\xff")
    again = reopened(hurt, parts)
    live = model.next_seqs(1, None, 10_000)
    assert again.read_many(live, 1 << 30) == model.read_many(live, 1 << 30)
    assert again.next_seqs(1, FILTERS[1], 999) == model.next_seqs(1, FILTERS[1], 999)
    assert again.findings


def test_removed_messages_are_gone_from_the_disk() -> None:
    vfs, log, _ = filled(1)
    columns = Columns([b"secret"] * 2, (), [b"do not keep me", b"q" * 1_400])
    log.append(log.last_seq + 1, encode_frames(columns, 10**9, 5_000)[0])
    seq = log.last_seq - 1
    log.append(log.last_seq + 1, encode_frames(Columns([b"k.1"], (), [b"x" * 1_400]), 2 * 10**9, 5_000)[0])
    flush(vfs, log)
    log.remove(seq)
    compact_all(vfs, log)
    for path in log.checkpointed(log.checkpoint_parts()):
        vfs.unlink(path)
    assert not any(b"do not keep me" in vfs.peek(f"{DIR}/{name}") for name in vfs.list_dir(DIR))
    assert log.next_seqs(1, Filter([b"secret"]), 9) == [seq + 1]


def test_removals_while_it_runs_and_a_segment_that_empties() -> None:
    vfs, log, model = filled(2)
    compaction = log.start_compaction(1.0)
    assert compaction is not None
    compaction.step(100)
    segment = compaction.segment
    inside = [s for s in model.next_seqs(1, None, 10_000) if segment.base_seq <= s <= segment.last_seq]
    for seq in inside[:-1]:
        assert log.remove(seq) == model.remove(seq)
    while not compaction.step(100):
        pass
    for path, offset, buffers in compaction.writes():
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers, offset)
        vfs.close(handle)
    compaction.finish()
    same(log, model)
    other = log.start_compaction(1.0)
    assert other is not None
    segment = other.segment
    log.remove_range(segment.base_seq, segment.last_seq)
    model.remove_range(segment.base_seq, segment.last_seq)
    assert other.step(100)
    assert other.writes() == []
    other.finish()
    same(log, model)


def test_damage_stops_it_and_changes_nothing() -> None:
    vfs, log, model = filled(3)
    parts = log.checkpoint_parts()
    target = log.start_compaction(0.99)
    assert target is not None
    vfs.poke(target.segment.path, 60, b"\xff\xff\xff")
    log = reopened(vfs, parts)
    compaction = log.start_compaction(0.99)
    assert compaction is not None
    with pytest.raises(Corruption, match="unreadable"):
        compaction.step(1 << 30)
    compaction.abandon()
    other = [s for s in model.next_seqs(1, None, 999) if not target.segment.base_seq <= s <= target.segment.last_seq]
    assert log.read_many(other, 1 << 30) == model.read_many(other, 1 << 30)
