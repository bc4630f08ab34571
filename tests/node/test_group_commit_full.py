"""A full journal: lines that free it go ahead while entries wait, and each group's entries keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jetstore.errors import DiskFull
from jetstore.limits import Limits
from jetstore.node import group_commit
from jetstore.node.group_commit import Block, GroupCommit
from jetstore.store.ports import JournalStatus, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

STATUS = JournalStatus(1, 100, 100, False, ((GroupUid(1), RaftIndex(1)),), 1)


class FullDisk:
    """Refuses every block with a body until it has written a CKPT line."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_full = True
        self.takes_lines = True
        self.refusals = 0
        self.refused_empty = 0
        self.awaited: tuple[int, asyncio.Future[None]] = 0, loop.create_future()
        self.written: list[Record] = []

    async def refused(self, times: int) -> None:
        """Wait until so many blocks were refused."""
        self.awaited = times, self.loop.create_future()
        await self.awaited[1]

    def append(self, records: Sequence[Record]) -> asyncio.Future[JournalStatus]:
        future: asyncio.Future[JournalStatus] = self.loop.create_future()
        if self.is_full and (not self.takes_lines or any(record.body for record in records)):
            self.refusals += 1
            self.refused_empty += not records
            if self.refusals == self.awaited[0]:
                self.awaited[1].set_result(None)
            self.loop.call_soon(future.set_exception, DiskFull("the journal is at its maximum"))
            return future
        self.written += records
        if any(record.kind is Kind.CKPT for record in records):
            self.is_full = False
        self.loop.call_soon(future.set_result, STATUS)
        return future


class Group:
    """Has entries and lines to write; notes what it is told."""

    def __init__(self, uid: int, entries: int) -> None:
        self.uid = uid
        self.entries = entries
        self.handed = 0
        self.lines: list[Record] = []
        self.durable: list[object] = []

    def compose(self, block: Block) -> bool:
        if self.lines:
            lines, self.lines = self.lines, []
            block.add(self, lines, self.durable.append, "lines")
        if not block.takes_entries:
            return True
        if self.handed < self.entries:
            self.handed += 1
            block.add(self, [record(Kind.ENTRIES, self.uid, self.handed, b"entry")], self.durable.append, self.handed)
        return self.handed < self.entries

    def apply_committed(self) -> None:
        pass


def record(kind: Kind, uid: int, index: int, body: bytes = b"") -> Record:
    at = RaftIndex(index)
    return Record(kind, GroupUid(uid), Term(1), Term(1), at, at, 1, 0, body)


class World:
    """A group commit over a full disk, with two groups that have entries; ``statuses`` is what the node was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(group_commit, "FULL_RETRY_S", 0.001)
        loop = asyncio.get_running_loop()
        self.disk = FullDisk(loop)
        self.statuses: list[JournalStatus] = []
        self.failures: list[BaseException] = []
        self.commit = GroupCommit(
            self.disk,  # type: ignore[arg-type]  # a twin
            Limits(),
            loop,
            on_status=self.statuses.append,
            on_failure=self.failures.append,
        )
        self.groups = [Group(1, 3), Group(2, 3)]

    def want(self) -> None:
        for group in self.groups:
            self.commit.want(group)

    async def until(self, refusals: int) -> None:
        async with asyncio.timeout(20):
            await self.disk.refused(refusals)

    async def drained(self) -> None:
        await asyncio.wait_for(self.commit.drained(), 20)
        assert not self.failures
        for group in self.groups:
            entries = [r.first_index for r in self.disk.written if r.group == group.uid and r.kind is Kind.ENTRIES]
            assert entries == [1, 2, 3]
            assert [what for what in group.durable if what != "lines"] == [1, 2, 3]


@pytest.mark.asyncio
async def test_a_later_checkpoint_goes_ahead_of_entries_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.want()
    await world.until(refusals=3)
    assert not world.disk.written
    assert not world.commit.takes_entries
    assert not world.commit.idle
    world.groups[1].lines = [record(Kind.CKPT, 2, 7)]
    world.commit.want(world.groups[1])
    await world.drained()
    assert world.disk.written[0].kind is Kind.CKPT
    assert world.groups[1].durable[0] == "lines"
    assert world.commit.takes_entries


@pytest.mark.asyncio
async def test_lines_of_the_refused_block_itself_are_written_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.groups[0].lines = [record(Kind.GROUP, 1, 0)]
    world.groups[1].lines = [record(Kind.CKPT, 2, 7)]
    world.want()
    await world.drained()
    assert [r.kind for r in world.disk.written[:2]] == [Kind.GROUP, Kind.CKPT]
    assert world.disk.refusals == 1


@pytest.mark.asyncio
async def test_lines_wait_too_where_nothing_at_all_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.disk.takes_lines = False
    world.groups[1].lines = [record(Kind.CKPT, 2, 7)]
    world.want()
    await world.until(refusals=4)
    assert not world.disk.written
    world.disk.takes_lines = True
    await world.drained()
    assert world.disk.written[0].kind is Kind.CKPT


@pytest.mark.asyncio
async def test_who_can_make_room_is_reminded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.commit.status = STATUS
    world.want()
    await world.until(refusals=3)
    assert len(world.statuses) >= 2
    world.disk.is_full = False
    await world.drained()


@pytest.mark.asyncio
async def test_an_empty_block_that_is_refused_leaves_the_lines_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 72001083: a term's HARD line was forgotten, its entries were written, and the next start knew of no vote."""
    world = World(monkeypatch)
    world.disk.takes_lines = False
    group = world.groups[0]
    group.lines = [record(Kind.HARD, 1, 0)]
    world.want()
    await world.until(3)
    while not world.disk.refused_empty:
        await asyncio.sleep(0)
        world.commit.refresh()
    await world.until(world.disk.refusals + 4)
    world.disk.is_full = False
    await world.drained()
    assert [record.kind for record in world.disk.written if record.group == 1][:2] == [Kind.HARD, Kind.ENTRIES]
    assert group.durable[:2] == ["lines", 1]
