"""CPU cost of ``SegmentedLog`` and the index: ``python tests/bench/bench_message_log.py [messages]`` (real files)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import TypeVar

from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.limits import Limits
from jetstore.store.index import IndexWriter, LmdbIndexes
from jetstore.store.log_checkpoint import log_chunk_names
from jetstore.store.message_log import SegmentedLog
from jetstore.store.os_vfs import OsVfs
from jetstore.store.ports import IndexRow
from jetstore.stream.subjects import Filter

T = TypeVar("T")
BATCH = 1_000
UID = 7
LIMITS = Limits()


def anonymous_mib() -> float:
    """Anonymous resident memory; 0 where /proc is missing."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def timed(what: str, count: int, work: Callable[[], T]) -> T:
    """Run it once; print CPU time per item."""
    start = process_time()
    result = work()
    took = process_time() - start
    print(f"{what:44} {took * 1e9 / count:11.0f} ns  {took:7.3f} s  RssAnon {anonymous_mib():6.1f} MiB")
    return result


def write(vfs: OsVfs, log: SegmentedLog) -> None:
    """What the writer process does."""
    writes = log.take_unflushed()
    for path, offset, buffers in writes:
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers, offset)
        vfs.close(handle)
    if writes:
        log.flushed()


def fill(vfs: OsVfs, log: SegmentedLog, messages: int, subject_of: Callable[[int], bytes]) -> None:
    """Append and flush."""
    appending = flushing = 0.0
    payloads = [b"x" * 128] * BATCH
    for first in range(1, messages, BATCH):
        columns = Columns([subject_of(seq) for seq in range(first, first + BATCH)], (), payloads)
        frames = encode_frames(columns, 1_000_000 * first, 32_768)
        start = process_time()
        seq = first
        for frame in frames:
            log.append(seq, frame)
            seq += frame.count
        middle = process_time()
        appending += middle - start
        if log.unflushed_bytes > 262_144:
            write(vfs, log)
            flushing += process_time() - middle
    write(vfs, log)
    print(f"append {appending * 1e9 / messages:.0f} ns each, flush and write {flushing * 1e9 / messages:.0f}")
    print(f"{len(log.segment_files())} segments, RssAnon {anonymous_mib():.1f} MiB")


def bench_log(root: str, messages: int, subject_of: Callable[[int], bytes]) -> None:
    """One log from filling to purging."""
    vfs = OsVfs(root)
    for path in ("groups", f"groups/{UID}", f"groups/{UID}/segments"):
        vfs.mkdir(path)
    log = SegmentedLog(vfs, UID, LIMITS)
    fill(vfs, log, messages, subject_of)
    batches = [range(i, i + BATCH) for i in range(1, messages - BATCH, BATCH)]
    timed("read_many, batches of 1000", messages, lambda: [len(log.read_many(b, 1 << 30)) for b in batches])
    rare = Filter([subject_of(messages // 3)])
    timed("next_seqs literal, first match", 1, lambda: log.next_seqs(1, rare, 1))
    timed("next_seqs literal, all matches", 1, lambda: len(log.next_seqs(1, rare, 1 << 30)))
    timed("next_seqs literal that is nowhere", 1, lambda: log.next_seqs(1, Filter([b"absent"]), 10))
    some = [i * 7_919 % (messages - 1) + 1 for i in range(5_000)]
    timed("meta at random", 5_000, lambda: [log.meta(i) for i in some])
    timed("remove at random", 5_000, lambda: [log.remove(i) for i in some])
    timed("index rows from the log", messages, lambda: len(log.index_rows()))
    parts = timed("checkpoint parts", 1, log.checkpoint_parts)
    chunks = {name: parts.chunks[name] for name in log_chunk_names(parts.head)}
    timed("open", 1, lambda: SegmentedLog.open(vfs, UID, parts.head, chunks, LIMITS).last_seq)
    timed("purge", messages, lambda: len(log.remove_range(1, messages)))


def bench_index(root: str, rows: int) -> None:
    """One index from filling to opening."""
    log = SegmentedLog(OsVfs(root), UID, LIMITS)
    indexes, writer = LmdbIndexes(root), IndexWriter(root)
    index = indexes.open(UID, None, {}, log)
    names = [b"kv.key.%d" % (i * 7_919 % rows) for i in range(rows)]
    timed("put into the tail", rows, lambda: [index.put(s, IndexRow(1, 2, 3, 4)) for s in names])
    parts = timed("capture", rows, index.capture)
    args = timed("commit_args", rows, index.commit_args)
    assert args is not None
    timed("index_commit (writer process)", rows, lambda: writer.commit(*args))
    index.committed()
    timed("get", rows, lambda: sum(1 for s in names if index.get(s)))
    timed("get_many", rows, lambda: len(index.get_many(names)))
    timed("matching kv.>", rows, lambda: len(index.matching(Filter([b"kv.>"]))))
    timed("put over committed rows", rows, lambda: [index.put(s, IndexRow(1, 3, 4, 4)) for s in names])
    writer.close()
    timed("open and verify", rows, lambda: len(indexes.open(UID, parts.head, parts.chunks, log)))
    indexes.close()


def main() -> None:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_001
    for subjects in (1, 100_000):
        print(f"-- {messages} messages of 128 B, {subjects} subjects; RssAnon {anonymous_mib():.1f} MiB")
        with tempfile.TemporaryDirectory() as root:
            bench_log(root, messages, lambda seq, n=subjects: b"kv.key.%d" % (seq * 7_919 % n))  # type: ignore[misc]
    print("-- index, 200000 rows")
    with tempfile.TemporaryDirectory() as root:
        bench_index(root, 200_000)


if __name__ == "__main__":
    main()
