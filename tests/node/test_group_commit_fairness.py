"""A group that always has more than a block takes does not keep the others out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from jetstore.limits import Limits
from jetstore.node.group_commit import Block, GroupCommit
from jetstore.store.ports import JournalStatus, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

BLOCKS = 6


class Disk:
    """Says at once that each block is durable; remembers which groups were in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.blocks: list[list[int]] = []

    def append(self, records: Sequence[Record]) -> asyncio.Future[JournalStatus]:
        self.blocks.append([int(record.group) for record in records])
        future: asyncio.Future[JournalStatus] = self.loop.create_future()
        self.loop.call_soon(future.set_result, JournalStatus(1, 0, 100, True, (), 1))
        return future


class Group:
    """Always has a record of ``size`` bytes, and more after it."""

    def __init__(self, uid: int, size: int, disk: Disk) -> None:
        self.uid, self.size, self.disk = uid, size, disk

    def compose(self, block: Block) -> bool:
        if len(self.disk.blocks) >= BLOCKS:
            return False
        index = RaftIndex(len(self.disk.blocks) + 1)
        record = Record(Kind.ENTRIES, GroupUid(self.uid), Term(1), Term(1), index, index, 1, 0, bytes(self.size))
        block.add(self, [record], ignore, None)
        return True

    def apply_committed(self) -> None:
        pass


def ignore(_: object) -> None:
    """Nobody listens."""


@pytest.mark.asyncio
async def test_small_groups_come_in_the_next_block() -> None:
    loop = asyncio.get_running_loop()
    disk = Disk(loop)
    limits = Limits()
    commit = GroupCommit(disk, limits, loop, on_status=ignore, on_failure=ignore)  # type: ignore[arg-type]  # a twin
    large = Group(1, limits.block_bytes_max, disk)
    small = [Group(2, 100, disk), Group(3, 100, disk)]
    for group in (large, *small):
        commit.want(group)
    await asyncio.wait_for(commit.drained(), 20)
    assert len(disk.blocks) == BLOCKS
    for first, second in pairwise(disk.blocks):
        assert {2, 3} <= {*first, *second}
    assert sum(1 in block for block in disk.blocks) >= BLOCKS // 2
