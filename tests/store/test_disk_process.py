"""Both disks over real files: the same answers, journal blocks first, and death of the writer as the node's end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from journal_model import JOURNAL_ID, Model, checkpoint, entries, hard, small_limits

from jetstore.errors import DiskPoisoned, StoreLocked
from jetstore.store.checkpoint_files import head_hash, read_chunk, read_heads, segment_path
from jetstore.store.disk import InlineDisk, ProcessDisk, spawn_writer
from jetstore.store.journal.recovery import open_journal
from jetstore.store.lock import DirectoryLock
from jetstore.store.os_vfs import OsVfs
from jetstore.store.writer import Writer

LIMITS = small_limits()
Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return asyncio.run if request.param == "asyncio" else uvloop.run


async def start(kind: str, root: Path) -> InlineDisk | ProcessDisk:
    vfs = OsVfs(root)
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    if kind == "inline":
        return InlineDisk(asyncio.get_running_loop(), Writer(vfs, journal, LIMITS))
    return await ProcessDisk.start(root, journal, LIMITS)


@pytest.mark.parametrize("kind", ["inline", "process"])
def test_commands(kind: str, run: Runner, tmp_path: Path) -> None:
    model = Model()

    async def scenario() -> None:
        disk = await start(kind, tmp_path)
        blocks = []
        for index in range(1, 40):
            records = [entries(5, 1, 1 if index > 1 else 0, index, [bytes([index]) * 3000])]
            if index == 1:
                records.insert(0, hard(5, 1))
            blocks.append(disk.append(records))
            model.told(records)
        await disk.call("make_group_dir", 5)
        path = segment_path(5, "1.seg")
        await disk.call("write_segment", path, 0, [b"a" * 10_000, memoryview(b"b" * 3)])
        await disk.call("write_segment", path, 10_003, [b"tail"])
        found = await disk.call("write_checkpoint", 5, b"the head", {"c1": b"chunk"}, {"1.seg": 10_007})
        assert found == head_hash(b"the head")
        statuses = await asyncio.gather(*blocks)
        assert [status.lsn for status in statuses] == sorted(status.lsn for status in statuses)
        last = [checkpoint(5, 1, 20, found)]
        await disk.append(last)
        model.told(last)
        journal_id, _, extents = await disk.call("journal_extents")
        assert journal_id == JOURNAL_ID
        assert set(await disk.call("leave_journal_file", extents[-1].number)) <= {5}
        after = (await disk.call("journal_extents"))[2]
        assert after[-1].number > extents[-1].number
        await disk.call("remove_files", [path, "groups/5/never-there"])
        await disk.close()
        with pytest.raises(DiskPoisoned):
            await disk.append([hard(5, 2)])

    run(scenario())
    vfs = OsVfs(tmp_path)
    _, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert model.matches(recovery) == ""
    assert not recovery.findings
    copies, findings = read_heads(vfs, 5)
    assert [copy.content for copy in copies] == [b"the head"] * 2
    assert not findings
    assert read_chunk(vfs, 5, "c1") == b"chunk"
    assert not vfs.exists(segment_path(5, "1.seg"))


def test_death_of_the_writer_poisons(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = await start("process", tmp_path)
        assert isinstance(disk, ProcessDisk)
        poisoned: asyncio.Future[DiskPoisoned] = asyncio.get_running_loop().create_future()
        disk.on_poison = poisoned.set_result
        await disk.append([hard(1, 1)])
        os.kill(disk.pid, signal.SIGKILL)
        waiting = [disk.append([hard(1, 2)]), disk.call("sync", [])]
        await poisoned
        for future in waiting:
            with pytest.raises(DiskPoisoned):
                await future
        with pytest.raises(DiskPoisoned):
            await disk.append([])
        await disk.close()

    run(scenario())


@pytest.mark.parametrize("kind", ["inline", "process"])
def test_a_failed_write_poisons_everything_after_it(kind: str, run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = await start(kind, tmp_path)
        poisoned: asyncio.Future[DiskPoisoned] = asyncio.get_running_loop().create_future()
        disk.on_poison = poisoned.set_result
        with pytest.raises(DiskPoisoned):
            await disk.call("write_segment", "no/such/directory/1.seg", 0, [b"x"])
        await poisoned
        with pytest.raises(DiskPoisoned):
            await disk.append([hard(1, 1)])

    run(scenario())


def test_the_store_is_locked_until_the_writer_is_gone_too(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        lock = DirectoryLock(tmp_path)
        journal, _ = open_journal(OsVfs(tmp_path), LIMITS, JOURNAL_ID)
        disk = await ProcessDisk.start(tmp_path, journal, LIMITS, process=spawn_writer(lock.fd))
        with pytest.raises(StoreLocked, match=str(os.getpid())):
            DirectoryLock(tmp_path)
        lock.close()
        with pytest.raises(StoreLocked):
            DirectoryLock(tmp_path)
        await disk.close()
        DirectoryLock(tmp_path).close()

    run(scenario())


@pytest.mark.parametrize("kind", ["inline", "process"])
def test_an_idle_journal_gets_its_idle_block(kind: str, run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = await start(kind, tmp_path)
        first = (await disk.append([hard(1, 1)])).lsn
        while True:  # condition: the journal moved on by itself
            await asyncio.sleep(0.005)
            probe = (await disk.append([hard(1, 1)])).lsn
            if probe > first + 1:
                break
            first = probe
            await asyncio.sleep(LIMITS.idle_block_ms / 1000)
        await disk.close()

    run(scenario())


def test_a_call_waits_for_the_blocks_submitted_before_it(run: Runner, tmp_path: Path) -> None:
    order: list[str] = []

    async def scenario() -> None:
        disk = await start("process", tmp_path)
        futures = []
        for index in range(1, 8):
            block = [hard(1, index), entries(1, index, index - 1, index, [b"x" * 6000])]
            for name, future in (("block", disk.append(block)), ("call", disk.call("make_group_dir", index))):
                future.add_done_callback(lambda _, name=name, index=index: order.append(f"{name} {index}"))
                futures.append(future)
        await asyncio.gather(*futures)
        await disk.close()

    run(scenario())
    for index in range(1, 8):
        assert order.index(f"block {index}") < order.index(f"call {index}")
    assert [name for name in order if name.startswith("call")] == [f"call {index}" for index in range(1, 8)]


def test_large_bodies_cross_the_socket_whole(run: Runner, tmp_path: Path) -> None:
    limits = small_limits(file_bytes=16 * 1024 * 1024, block_bytes=4 * 1024 * 1024, zeroing=4 * 1024 * 1024)
    body = os.urandom(1024 * 1024)

    async def scenario() -> None:
        journal, _ = open_journal(OsVfs(tmp_path), limits, JOURNAL_ID)
        disk = await ProcessDisk.start(tmp_path, journal, limits)
        await asyncio.gather(
            disk.append([hard(1, 1)]),
            *[disk.append([entries(1, 1, 1 if i > 1 else 0, i, [body[i:]])]) for i in range(1, 20)],
        )
        await disk.close()

    run(scenario())
    _, recovery = open_journal(OsVfs(tmp_path), limits, JOURNAL_ID)
    assert [entry.data == body[entry.index :] for entry in recovery.groups[1].entries] == [True] * 19
