"""InlineDisk under virtual time: one command at a time, journal blocks first, background work when nothing runs."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from journal_model import JOURNAL_ID, Model, entries, hard, small_limits

from jepsen.sim.faults import fault
from jepsen.sim.loop import SimLoop
from jepsen.sim.vfs import SimVfs
from jetstore.errors import DiskFull, DiskPoisoned
from jetstore.store.checkpoint_files import segment_path
from jetstore.store.disk import InlineDisk
from jetstore.store.journal.recovery import open_journal
from jetstore.store.writer import Writer

LIMITS = small_limits()


def on_loop(scenario: Callable[[asyncio.AbstractEventLoop, SimVfs, InlineDisk, Writer], Any]) -> SimVfs:
    """Run an async scenario with a disk whose commands take 10 ms (journal blocks 1 ms)."""
    vfs = SimVfs()
    loop = SimLoop(Random(1))
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    writer = Writer(vfs, journal, LIMITS)

    async def main() -> None:
        disk = InlineDisk(loop, writer, lambda method, size: 0.001 if method == "append" else 0.01)
        await scenario(loop, vfs, disk, writer)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return vfs


def test_blocks_overtake_waiting_calls_and_keep_their_order() -> None:
    order: list[str] = []

    async def scenario(loop: asyncio.AbstractEventLoop, vfs: SimVfs, disk: InlineDisk, writer: Writer) -> None:
        futures = [
            disk.call("make_group_dir", 1),
            disk.call("write_segment", segment_path(1, "s"), 0, [b"x"]),
            disk.append([hard(1, 1)]),
            disk.append([entries(1, 1, 0, 1, [b"a"])]),
        ]
        for name, future in zip(("dir", "segment", "block 1", "block 2"), futures, strict=True):
            future.add_done_callback(lambda _, name=name: order.append(name))
        await asyncio.gather(*futures)
        assert 0.021 < loop.time() < 0.05

    on_loop(scenario)
    assert order == ["dir", "block 1", "block 2", "segment"]


def test_the_idle_block_comes_in_time_and_only_once() -> None:
    async def scenario(loop: asyncio.AbstractEventLoop, vfs: SimVfs, disk: InlineDisk, writer: Writer) -> None:
        await asyncio.sleep(1)
        lsn = (await disk.append([hard(1, 1)])).lsn
        await asyncio.sleep(LIMITS.idle_block_ms / 1000 * 0.9)
        assert writer.journal.position.lsn == lsn
        await asyncio.sleep(LIMITS.idle_block_ms / 1000 * 0.2)
        assert writer.journal.position.lsn == lsn + 1
        await asyncio.sleep(10)
        assert writer.journal.position.lsn == lsn + 1

    on_loop(scenario)


def test_files_are_prepared_while_nothing_runs() -> None:
    async def scenario(loop: asyncio.AbstractEventLoop, vfs: SimVfs, disk: InlineDisk, writer: Writer) -> None:
        index = 0
        while writer.journal.position.file.number < 3:
            index += 1
            await disk.append([hard(1, index), entries(1, index, index - 1, index, [b"x" * 6000])])
        await asyncio.sleep(5)
        assert writer.journal.files.ready_count() == LIMITS.journal_spare_files

    on_loop(scenario)


def test_close_finishes_what_was_submitted() -> None:
    model = Model()

    async def scenario(loop: asyncio.AbstractEventLoop, vfs: SimVfs, disk: InlineDisk, writer: Writer) -> None:
        records = [hard(1, 1), entries(1, 1, 0, 1, [b"a"])]
        block = disk.append(records)
        model.told(records)
        made = disk.call("make_group_dir", 1)
        await disk.close()
        assert block.done()
        assert made.done()
        with pytest.raises(DiskPoisoned):
            await disk.append([])

    vfs = on_loop(scenario)
    vfs.crash()
    _, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    assert model.matches(recovery) == ""


def test_full_fails_one_call_and_a_failed_sync_everything() -> None:
    async def scenario(loop: asyncio.AbstractEventLoop, vfs: SimVfs, disk: InlineDisk, writer: Writer) -> None:
        poisoned: list[DiskPoisoned] = []
        disk.on_poison = poisoned.append
        await disk.call("make_group_dir", 1)
        vfs.inject(fault("pwrite", "groups/*", error=errno.ENOSPC))
        with pytest.raises(DiskFull):
            await disk.call("write_segment", segment_path(1, "s"), 0, [b"x"])
        await disk.append([hard(1, 1)])
        vfs.inject(fault("fdatasync", "journal/*"))
        with pytest.raises(DiskPoisoned):
            await disk.append([hard(1, 2)])
        with pytest.raises(DiskPoisoned):
            await disk.call("sync", [])
        assert len(poisoned) == 1

    on_loop(scenario)


def test_an_abandoned_disk_does_nothing_more() -> None:
    async def scenario(loop: asyncio.AbstractEventLoop, vfs: SimVfs, disk: InlineDisk, writer: Writer) -> None:
        future = disk.append([hard(1, 1)])
        lsn = writer.journal.position.lsn
        disk.abandon()
        await asyncio.sleep(10)
        assert not future.done()
        assert writer.journal.position.lsn == lsn

    on_loop(scenario)
