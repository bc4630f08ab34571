"""SegmentedLog against its in-memory twin, step by step, through flushes, checkpoints, crashes and compactions."""

from __future__ import annotations

import json
from typing import Any

from deep import IS_DEEP
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jepsen.sim.vfs import SimVfs
from jetstore.hot.columns import Columns
from jetstore.hot.frame import decode_frame_run, encode_frame_run, encode_frames
from jetstore.limits import Limits
from jetstore.store.compaction import Compaction
from jetstore.store.log_checkpoint import log_chunk_names
from jetstore.store.memory_log import MemoryLog
from jetstore.store.message_log import SegmentedLog, Write
from jetstore.stream.subjects import Filter

LIMITS = Limits(segment_bytes=900, frame_bytes_max=200, segment_flush_bytes=300, read_cache_bytes=3_000)
UID = 7
FILTERS = [None, Filter([b"a"]), Filter([b"k.2", b"zz"]), Filter([b"k.*"]), Filter([b"a", b"k.>"]), Filter([b"nope"])]
PAYLOADS = st.one_of(
    st.binary(min_size=3, max_size=60), st.integers(3, 60).map(lambda size: b"same " * (size // 5) + b"-" * 3)
)
SUBJECTS = [b"a", b"b", b"k.1", b"k.2", b"k.3", b"k.1.x"]


def new_disk() -> SimVfs:
    vfs = SimVfs()
    for path in ("groups", f"groups/{UID}", f"groups/{UID}/segments"):
        vfs.mkdir(path)
    for path in ("", "groups", f"groups/{UID}"):
        vfs.fsync_dir(path)
    return vfs


def write(vfs: SimVfs, writes: list[Write], sync: bool = False) -> None:
    """What the writer process does with a log's writes."""
    for path, offset, buffers in writes:
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers, offset)
        if sync:
            vfs.fsync(handle)
        vfs.close(handle)
    if sync:
        vfs.fsync_dir(f"groups/{UID}/segments")


class LogMachine(RuleBasedStateMachine):
    """Every rule changes both logs; the invariant compares everything that can be asked."""

    storage = "file"
    is_compressing = False

    @initialize(storage=st.sampled_from(["file", "memory"]), first=st.sampled_from([1, 8_185]))
    def start(self, storage: str, first: int) -> None:
        self.storage = storage
        self.vfs = new_disk()
        self.log = SegmentedLog(self.vfs, UID, LIMITS, storage=storage, first_seq=first)
        self.model = MemoryLog(storage, first_seq=first)
        self.saved: tuple[dict[str, Any] | None, dict[str, bytes]] = None, {}
        self.saved_ops = 0
        self.ops: list[tuple[Any, ...]] = [("first", first)]
        self.takes: list[list[Write]] = []
        self.time_ns = 1_000
        self.compaction: Compaction | None = None

    def do(self, *op: Any) -> None:
        self.ops.append(op)
        outcomes = [apply(target, op) for target in (self.log, self.model)]
        assert outcomes[0] == outcomes[1], op

    @rule(
        rows=st.lists(
            st.tuples(st.sampled_from(SUBJECTS), st.booleans(), PAYLOADS),
            min_size=1,
            max_size=12,
        ),
        one_subject=st.booleans(),
        gap=st.sampled_from([0, 0, 0, 1, 3, 9_000]),
        pause=st.integers(0, 50),
        bound=st.sampled_from([60, 200, 10_000]),
    )
    def append(
        self, rows: list[tuple[bytes, bool, bytes]], one_subject: bool, gap: int, pause: int, bound: int
    ) -> None:
        subjects = [rows[0][0]] * len(rows) if one_subject else [row[0] for row in rows]
        columns = Columns(subjects, [3 if row[1] else 0 for row in rows], [row[2] for row in rows])
        self.time_ns += pause
        run = encode_frame_run(encode_frames(columns, self.time_ns, bound))
        self.time_ns += len(rows)
        self.do("append", self.model.last_seq + 1 + gap, run)

    @rule(is_on=st.booleans())
    def compress(self, is_on: bool) -> None:
        self.is_compressing = self.log.is_compressing = is_on

    @rule(by=st.sampled_from([1, 2, 40, 20_000]))
    def skip(self, by: int) -> None:
        self.do("skip", self.model.last_seq + by)

    @rule(at=st.floats(0, 1))
    def remove(self, at: float) -> None:
        self.do("remove", self.pick(at))

    @rule(at=st.floats(0, 1), width=st.sampled_from([0, 1, 5, 30, 10_000]))
    def remove_range(self, at: float, width: int) -> None:
        first = self.pick(at)
        self.do("remove_range", first, first + width)

    @rule(count=st.integers(1, 30))
    def evict(self, count: int) -> None:
        self.do("remove_range", self.model.first_seq, self.model.first_seq + count - 1)

    def pick(self, at: float) -> int:
        live = self.model.next_seqs(0, None, 10_000)
        return live[int(at * (len(live) - 1))] if live else self.model.last_seq

    @rule(max_bytes=st.sampled_from([0, 1, 300]))
    def take(self, max_bytes: int) -> None:
        writes = self.log.take_unflushed(max_bytes)
        if writes:
            self.takes.append(writes)

    @precondition(lambda self: self.takes)
    @rule()
    def flush(self) -> None:
        write(self.vfs, self.takes.pop(0))
        self.log.flushed()

    @precondition(lambda self: self.takes)
    @rule(half=st.booleans())
    def flush_fails(self, half: bool) -> None:
        writes = self.takes.pop(0)
        if half:
            path, offset, buffers = writes[0]
            write(self.vfs, [(path, offset, [b"".join(buffers)[:20]])])
        self.log.flush_failed()

    @rule(finished=st.sampled_from([True, True, False]))
    def checkpoint(self, finished: bool) -> None:
        self.take(0)
        while self.takes:
            write(self.vfs, self.takes.pop(0))
            self.log.flushed()
            self.take(0)
        parts = self.log.checkpoint_parts()
        assert self.log.unflushed_bytes == 0
        for name, size in parts.segments.items():
            handle = self.vfs.open(f"groups/{UID}/segments/{name}")
            assert self.vfs.size(handle) >= size
            self.vfs.fsync(handle)
            self.vfs.close(handle)
        self.vfs.fsync_dir(f"groups/{UID}/segments")
        if not finished:
            return
        head = json.loads(json.dumps(parts.head))
        chunks = {name: self.saved[1].get(name, parts.chunks.get(name)) for name in log_chunk_names(head)}
        assert None not in chunks.values(), "a chunk was never handed out"
        assert parts.keep_chunks == chunks.keys()
        self.saved = head, chunks  # type: ignore[assignment]
        self.saved_ops = len(self.ops)
        for path in self.log.checkpointed(parts):
            if self.vfs.exists(path):
                self.vfs.unlink(path)

    @precondition(lambda self: self.compaction is None)
    @rule(share=st.sampled_from([0.5, 0.9, 1.0]), budget=st.sampled_from([1, 100, 10_000]))
    def compaction_starts(self, share: float, budget: int) -> None:
        self.compaction = self.log.start_compaction(share)
        if self.compaction is not None and budget < 10_000:
            self.compaction.step(budget)

    @precondition(lambda self: self.compaction is not None)
    @rule(abandoned=st.sampled_from([False, False, False, True]))
    def compaction_ends(self, abandoned: bool) -> None:
        compaction, self.compaction = self.compaction, None
        assert compaction is not None
        while not compaction.step(200):
            pass
        write(self.vfs, compaction.writes())
        if abandoned:
            compaction.abandon()
        else:
            compaction.finish()

    @rule(power=st.booleans(), seed=st.integers(0, 1 << 20))
    def crash(self, power: bool, seed: int) -> None:
        """Back to the last checkpoint, then everything that came after once more."""
        from random import Random

        if power:
            self.vfs.crash(Random(seed))
        else:
            self.vfs.kill()
        self.takes.clear()
        self.compaction = None
        head, chunks = self.saved
        self.log = SegmentedLog.open(self.vfs, UID, head, chunks, LIMITS, storage=self.storage)
        self.log.is_compressing = self.is_compressing
        assert self.log.findings == []
        if head is None:
            self.log.skip_to(self.ops[0][1] - 1)
        for op in self.ops[max(1, self.saved_ops) :]:
            apply(self.log, op)

    @invariant()
    def same(self) -> None:
        log, model = self.log, self.model
        assert (log.first_seq, log.last_seq) == (model.first_seq, model.last_seq)
        assert log.deleted_count() == model.deleted_count()
        assert log.deleted_seqs(50) == model.deleted_seqs(50)
        live = model.next_seqs(0, None, 100_000)
        assert log.message_count == len(live)
        middle = live[len(live) // 2] if live else 5
        for subject_filter in FILTERS:
            for start in (0, middle, middle + 1):
                for count in (1, 3, 1_000):
                    assert log.next_seqs(start, subject_filter, count) == model.next_seqs(start, subject_filter, count)
            for below in (middle, middle + 2, model.last_seq + 9):
                assert log.previous_seq(below, subject_filter) == model.previous_seq(below, subject_filter)
        probes = {1, middle, model.first_seq, model.last_seq, model.last_seq + 1, *live[:3], *live[-3:]}
        for seq in sorted(probes):
            assert log.is_live(seq) == model.is_live(seq)
            assert log.meta(seq) == model.meta(seq)
            assert log.read(seq) == model.read(seq)
        for max_bytes in (1, 100, 1 << 30):
            assert log.read_many(live, max_bytes) == model.read_many(live, max_bytes)
        assert log.read_many(live[::3], 1 << 30) == model.read_many(live[::3], 1 << 30)
        for time_ns in (0, 1_005, (self.time_ns + 1_000) // 2, self.time_ns):
            assert log.seq_at_time(time_ns) == model.seq_at_time(time_ns)
        assert log.index_rows() == model.index_rows()


def apply(log: SegmentedLog | MemoryLog, op: tuple[Any, ...]) -> object:
    match op:
        case ("append", first, run):
            for frame in decode_frame_run(run):
                log.append(first, frame)
                first += frame.count
            return None
        case ("skip", last):
            return log.skip_to(last)
        case ("remove", seq):
            return log.remove(seq)
        case ("remove_range", first, last):
            return log.remove_range(first, last)
    raise AssertionError(op)


LogMachine.TestCase.settings = settings(
    max_examples=1000 if IS_DEEP else 25,
    stateful_step_count=25,
    deadline=None,
)
test_message_log = LogMachine.TestCase
