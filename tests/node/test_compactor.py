"""Compaction on a node: space between live messages comes back, nothing else changes, a full disk does no harm."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jetstore.errors import DiskFull
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.limits import Limits
from jetstore.node.compactor import Compactor
from jetstore.store.message_log import SegmentedLog
from jetstore.store.os_vfs import OsVfs
from jetstore.types import GroupUid

LIMITS = Limits(segment_bytes=8192, frame_bytes_max=512)


class DirectDisk:
    """Writes segments at once."""

    def __init__(self, vfs: OsVfs) -> None:
        self.vfs = vfs
        self.is_full = False

    def call(self, method: str, *args: Any) -> asyncio.Future[Any]:
        assert method == "write_segment"
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.is_full:
            future.set_exception(DiskFull("no room"))
            return future
        path, offset, buffers = args
        handle = self.vfs.open(path, create=True)
        self.vfs.pwrite(handle, buffers, offset)
        self.vfs.close(handle)
        future.set_result(None)
        return future


def make(tmp_path: Path) -> tuple[DirectDisk, SegmentedLog, Compactor, Any, list[int]]:
    (tmp_path / "groups/2/segments").mkdir(parents=True)
    vfs = OsVfs(tmp_path)
    disk = DirectDisk(vfs)
    messages = SegmentedLog(vfs, 2, LIMITS)
    for start in range(0, 400, 10):
        columns = Columns([b"s.%d" % n for n in range(start, start + 10)], (), [b"x" * 100] * 10)
        seq = messages.last_seq + 1
        for frame in encode_frames(columns, 1_000 + start, LIMITS.frame_bytes_max):
            messages.append(seq, frame)
            seq += frame.count
    for path, offset, buffers in messages.take_unflushed():
        disk.call("write_segment", path, offset, buffers)
    messages.flushed()
    for seq in range(1, 401):
        if seq % 10:
            messages.remove(seq)
    wanted: list[int] = []
    core = SimpleNamespace(log=SimpleNamespace(applied_index=2, checkpoint_index=1), is_leader=True)
    group = SimpleNamespace(uid=GroupUid(2), name="S", messages=messages, stopped=False, is_faulty=False, core=core)
    storage: Any = SimpleNamespace(want_checkpoint=wanted.append)
    return disk, messages, Compactor(disk, storage, lambda: [group]), group, wanted  # type: ignore[arg-type,list-item,return-value]


@pytest.mark.asyncio
async def test_mostly_dead_segments_shrink_and_read_as_before(tmp_path: Path) -> None:
    _, messages, compactor, group, wanted = make(tmp_path)
    before = [messages.read(seq) for seq in range(10, 401, 10)]
    bytes_before = sum(segment.file_bytes for segment in messages.segment_files())
    await compactor.compact(group)
    assert compactor.compacted_total >= 5
    assert wanted == [2] * compactor.compacted_total, "the next checkpoint gives the old files back"
    assert sum(segment.file_bytes for segment in messages.segment_files()) < bytes_before // 3
    assert [messages.read(seq) for seq in range(10, 401, 10)] == before
    assert messages.read(11) is None


@pytest.mark.asyncio
async def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    disk, messages, compactor, group, wanted = make(tmp_path)
    names = [segment.name for segment in messages.segment_files()]
    disk.is_full = True
    await compactor.compact(group)
    assert [segment.name for segment in messages.segment_files()] == names
    assert wanted == []
    message = messages.read(10)
    assert message is not None
    assert message.subject == b"s.9"
