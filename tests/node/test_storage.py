"""Flushes and checkpoints over a disk that does what the test says: order, full disks, groups that end midway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from jetstore.errors import DiskFull, ReadBackFailed
from jetstore.limits import Limits
from jetstore.node.storage import Storage
from jetstore.store.ports import Checkpoint, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term


class ScriptedDisk:
    """Commands wait until the test lets each of them succeed or fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], asyncio.Future[Any]]] = []

    def call(self, method: str, *args: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.calls.append((method, args, future))
        return future

    def names(self) -> list[str]:
        return [method for method, _, _ in self.calls]

    def waiting(self) -> list[tuple[str, asyncio.Future[Any]]]:
        return [(method, future) for method, _, future in self.calls if not future.done()]

    async def finish(self, failure: BaseException | None = None, value: Any = None) -> str:
        method, future = self.waiting()[0]
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(value)
        await settle()
        return method


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


class FakeMember:
    """A group with some unflushed writes and a state at index 5."""

    def __init__(self, writes: int = 1) -> None:
        self.writes = [(f"groups/2/segments/{n}.seg", 0, [b"x"]) for n in range(writes)]
        self.events: list[str] = []
        self.records: list[tuple[Record, Callable[[], None]]] = []
        self.log = SimpleNamespace(
            applied_index=RaftIndex(5),
            checkpoint_index=RaftIndex(0),
            applied_bytes_total=100,
            bytes_above_checkpoint=100,
            checkpointed=lambda *args: self.events.append("log forgets"),
        )
        self.group = SimpleNamespace(
            uid=GroupUid(2),
            name="S",
            stopped=False,
            is_torn=False,
            ended=asyncio.get_running_loop().create_future(),
            core=SimpleNamespace(log=self.log),
            add_record=lambda record, done: self.records.append((record, done)),
        )

    def unflushed_bytes(self) -> int:
        return len(self.writes)

    def changed_rows(self) -> int:
        return 0

    def take_unflushed(self) -> Sequence[tuple[str, int, Sequence[bytes]]]:
        taken, self.writes = self.writes, []
        self.taken = taken
        return taken

    def flushed(self) -> None:
        self.events.append("flushed")

    def flush_failed(self) -> None:
        self.events.append("flush failed")
        self.writes = self.taken

    def capture(self) -> Checkpoint:
        return Checkpoint(GroupUid(2), RaftIndex(5), Term(1), b"head", {}, frozenset(), {})

    def checkpointed(self, checkpoint: Checkpoint) -> Sequence[str]:
        self.events.append("checkpointed")
        return ["groups/2/segments/old.seg"]

    async def commit_index(self, disk: Any) -> None:
        await disk.call("index_commit")


def make() -> tuple[ScriptedDisk, Storage, FakeMember]:
    disk = ScriptedDisk()
    storage = Storage(disk, Limits(), asyncio.get_running_loop())  # type: ignore[arg-type]
    member = FakeMember()
    storage.add(member)  # type: ignore[arg-type]
    return disk, storage, member


@pytest.mark.asyncio
async def test_a_checkpoint_goes_through_its_steps_in_order() -> None:
    disk, storage, member = make()
    task = asyncio.create_task(storage.checkpoint(member))  # type: ignore[arg-type]
    await settle()
    assert await disk.finish() == "write_segment"
    assert member.events == ["flushed"]
    assert await disk.finish(value=77) == "write_checkpoint"
    record, durable = member.records[0]
    assert (record.kind, record.first_index, record.aux) == (Kind.CKPT, 5, 77)
    assert member.events == ["flushed"], "nothing is forgotten before the CKPT line is durable"
    durable()
    await settle()
    assert member.events == ["flushed", "log forgets", "checkpointed"]
    assert await disk.finish() == "remove_files"
    assert await disk.finish() == "index_commit"
    await task
    assert storage.checkpoints_total == 1


@pytest.mark.asyncio
async def test_no_head_is_written_when_a_segment_write_found_no_room() -> None:
    disk, storage, member = make()
    member.writes = [("a", 0, [b"x"]), ("b", 0, [b"y"])]
    task = asyncio.create_task(storage.checkpoint(member))  # type: ignore[arg-type]
    await settle()
    await disk.finish(DiskFull("no room for a"))
    await disk.finish()  # b was written, a was not: the take as a whole has failed
    with pytest.raises(DiskFull):
        await task
    assert member.events == ["flush failed"]
    assert "write_checkpoint" not in disk.names()
    assert storage.is_full


@pytest.mark.asyncio
async def test_an_earlier_flush_that_fails_midway_also_stops_the_head() -> None:
    disk, storage, member = make()
    storage.flush(member)  # type: ignore[arg-type]
    task = asyncio.create_task(storage.checkpoint(member))  # type: ignore[arg-type]
    await settle()
    await disk.finish(DiskFull("no room"))
    with pytest.raises(DiskFull):
        await task
    assert "write_checkpoint" not in disk.names()


@pytest.mark.asyncio
async def test_a_group_that_ends_midway_does_not_hold_up_the_others() -> None:
    disk, storage, member = make()
    task = asyncio.create_task(storage.checkpoint(member))  # type: ignore[arg-type]
    await settle()
    await disk.finish()
    await disk.finish(value=1)
    member.group.stopped = True
    member.group.ended.set_result(None)
    await asyncio.wait_for(task, 5)
    assert member.events == ["flushed"]


@pytest.mark.asyncio
async def test_after_a_full_disk_flushing_pauses() -> None:
    disk, storage, member = make()
    storage.flush(member)  # type: ignore[arg-type]
    await disk.finish(DiskFull("no room"))
    storage.flush(member)  # type: ignore[arg-type]
    assert disk.names() == ["write_segment"]


@pytest.mark.asyncio
async def test_a_second_checkpoint_waits_for_the_first_and_finds_nothing_left_to_do() -> None:
    disk, storage, member = make()
    tasks = [asyncio.create_task(storage.checkpoint(member)) for _ in range(2)]  # type: ignore[arg-type]
    await settle()
    await disk.finish()
    await disk.finish(value=1)
    assert len(member.records) == 1
    member.log.checkpoint_index = member.log.applied_index
    member.records[0][1]()
    await settle()
    await disk.finish()
    await disk.finish()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert disk.names().count("write_checkpoint") == 1


@pytest.mark.asyncio
async def test_a_checkpoint_that_cannot_be_read_back_is_tried_again_when_it_is_wanted_again() -> None:
    disk, storage, member = make()
    running = asyncio.get_running_loop().create_task(storage.run())
    storage.want_checkpoint(GroupUid(2))
    await settle()
    await disk.finish()  # the flush
    assert await disk.finish(ReadBackFailed("EIO")) == "write_checkpoint"
    assert not running.done()
    assert member.records == []
    assert not storage.is_full
    running.cancel()
