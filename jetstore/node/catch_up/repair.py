"""Damage in records that were applied long ago, repaired from a peer: the bad frames only, by sequence.

Nothing of the group's state changes: the segment that has bad frames is rewritten under a new name with the peer's
records in their place, and a checkpoint names it from then on. Until that is durable the old file stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import Corruption
from jetstore.limits import Limits
from jetstore.node.catch_up.messages import RANGE, READ_BYTES, Peer, PeerRefused, encode
from jetstore.node.storage import Storage
from jetstore.store.install_files import free_number
from jetstore.store.install_records import END, Note, RecordParser
from jetstore.store.install_splice import SegmentRepair, damaged_segments
from jetstore.store.ports import Disk
from jetstore.store.vfs import Vfs

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)

Ranges = list[tuple[int, int]]


def damaged_ranges(group: StreamGroup) -> Ranges:
    """The sequences of all segments in which damage was noted: what ``repair_ranges`` should look through."""
    paths = {path for path, _ in group.damage}
    return [(s.base_seq, s.last_seq) for s in group.messages.segment_files() if s.path in paths]


async def repair_ranges(
    group: StreamGroup,
    storage: Storage,
    disk: Disk,
    vfs: Vfs,
    limits: Limits,
    peer: Peer,
    ranges: Sequence[tuple[int, int]],
) -> Ranges:
    """Make all segments that hold these sequences whole again; what the peer could not give (ask another one).

    A range may be wider than the damage: the segments are read through. Apply that stood still for want of a record
    goes on, unless it stood in the middle of an entry: then the group has to catch up. Raises ``PeerRefused``,
    ``OSError``, ``Corruption`` (what came is wrong) or ``DiskFull``; what was repaired until then stays so.
    """
    messages = group.messages
    async with storage.exclusive:
        if any(not segment.is_sealed for segment in damaged_segments(messages, ranges)):
            messages.seal_last()
        await storage.settle(group)
    lacking: Ranges = []
    repaired = 0
    for segment in damaged_segments(messages, ranges):
        if group.messages is not messages or group.stopped:
            raise PeerRefused("the state was replaced meanwhile")
        if not segment.has_footer and segment.table is not None:
            continue  # sealed a moment ago and not written yet: it cannot be damaged
        repair = SegmentRepair(messages, segment, limits, free_number(vfs, group.uid))
        is_read = repair.examine(READ_BYTES)
        while not is_read:
            await asyncio.sleep(0)
            is_read = repair.examine(READ_BYTES)
        for first, last in repair.bad:
            await _fetch(group, limits, peer, repair, first, last)
        missing = repair.lacking()
        if missing:
            lacking += _runs(missing)
        elif repair.is_damaged and not repair.is_stale:
            path = segment.path
            for write in repair.writes():
                await disk.call("write_segment", *write)
            if repair.finish():
                repaired += 1
                log.info("segment repaired", stream=group.name, before=path, now=segment.path, ranges=repair.bad)
                for place in [place for place in group.damage if place[0] == path]:
                    del group.damage[place]
    if repaired and not group.stream.is_torn:
        await storage.checkpoint(group, is_forced=True)
    if not lacking and group.paused_by is not None and not group.stream.is_torn:
        group.paused_by = None
        group.apply_committed()
    return lacking


async def _fetch(group: StreamGroup, limits: Limits, peer: Peer, repair: SegmentRepair, first: int, last: int) -> None:
    parser = RecordParser(group.uid, limits)
    is_complete = False
    request = encode({"uid": group.uid, "first_seq": first, "last_seq": last})
    async for chunk in peer.stream(RANGE, request):
        for item in parser.feed(chunk):
            if not isinstance(item, Note):
                repair.supply(item)
            elif item.kind == END:
                is_complete = True
    if not is_complete or not parser.is_between:
        raise Corruption("the range ended early", file="peer", offset=0)


def _runs(seqs: Sequence[int]) -> Ranges:
    """Increasing sequences as closed ranges."""
    runs: Ranges = []
    for seq in seqs:
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = runs[-1][0], seq
        else:
            runs.append((seq, seq))
    return runs
