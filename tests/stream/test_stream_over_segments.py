"""The dense scripts over real segment files: log, index and stream are closed and opened again from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from deep import IS_DEEP
from stream_driver import SECOND, Driver
from stream_model import StreamModel
from test_stream_against_model import check_contents, dense_config, dense_step, run_step

from jetstore.limits import Limits
from jetstore.store.log_checkpoint import LogParts
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.message_log import SegmentedLog
from jetstore.store.os_vfs import OsVfs
from jetstore.stream.checkpoint import parts_of
from jetstore.stream.logical import logical_head
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, RaftIndex, Term

SEEDS = 150 if IS_DEEP else 15
SMALL = Limits(segment_bytes=2_000, frame_bytes_max=500, segment_flush_bytes=400, unflushed_bytes_max=4_000)


class Log(SegmentedLog):
    """A segmented log that gives its part of a checkpoint."""

    def capture(self) -> LogParts:
        return self.checkpoint_parts()


class Store:
    """What the node does for a stream's files."""

    def __init__(self, root: Path, storage: str) -> None:
        self.vfs = OsVfs(str(root))
        self.vfs.mkdir("groups")
        self.vfs.mkdir("groups/2")
        self.vfs.mkdir("groups/2/segments")
        self.storage = storage
        self.chunks: dict[str, bytes] = {}

    def flush(self, log: Log) -> None:
        writes = log.take_unflushed()
        for path, offset, buffers in writes:
            handle = self.vfs.open(path, create=True)
            self.vfs.pwrite(handle, buffers, offset)
            self.vfs.close(handle)
        if writes:
            log.flushed()

    def reopen(self, stream: Stream) -> Stream:
        log = stream.log
        assert isinstance(log, Log)
        self.flush(log)
        done = stream.checkpoint(Term(1))
        self.chunks = {n: c for n, c in (self.chunks | done.chunks).items() if n in done.keep_chunks}
        stream.checkpointed(done)
        log_part, _ = parts_of(done.head)
        again = Log.open(self.vfs, 2, log_part, self.chunks, SMALL, storage=self.storage)
        index = MemoryIndex(again.index_rows())
        restored = Stream.restore(GroupUid(2), done.head, self.chunks, again, index, SMALL)
        assert logical_head(restored) == logical_head(stream)
        return restored


@pytest.mark.parametrize("seed", range(SEEDS))
def test_agrees_with_the_model_over_segments(seed: int, tmp_path: Path) -> None:
    dice = Random(1_000_000 + seed)
    config: dict[str, Any] = dense_config(dice)
    storage = config.pop("storage")
    config.setdefault("duplicate_window", 120 * SECOND)
    store = Store(tmp_path, storage)
    driver = Driver(storage=storage, **config)
    driver.stream = Stream(GroupUid(2), Log(store.vfs, 2, SMALL, storage=storage), MemoryIndex(), SMALL)
    driver.stream.apply(RaftIndex(1), Term(1), driver.log[0])
    model = StreamModel(config | {"storage": storage})
    for _ in range(60):
        step = dense_step(dice)
        if step[0] == "restart":
            driver.stream = store.reopen(driver.stream)
        else:
            run_step(driver, model, step, False)
        if dice.random() < 0.3:
            store.flush(driver.stream.log)  # type: ignore[arg-type]  # always a Log here
        check_contents(driver, model)
