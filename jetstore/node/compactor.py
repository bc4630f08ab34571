"""Gives back the space between live messages: rewrites mostly dead segments, one at a time, in small steps.

What was erased on purpose (MSG.DELETE, PURGE) leaves the segment files within about ten minutes, whatever else is in
them: the segment is rewritten, and a checkpoint lets its old file go.

Nothing depends on when it runs: removal is logical at once, and a rewritten segment holds the same live records. The
old file goes with the next checkpoint that does not name it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from jetstore.errors import Corruption, DiskFull, NotNow
from jetstore.node.sealing import Sealing
from jetstore.node.storage import Storage
from jetstore.node.stream_group import StreamGroup
from jetstore.store.compaction import Compaction
from jetstore.store.ports import Disk
from jetstore.stream.entries import NOOP

log = structlog.get_logger(__name__)

ROUND_S = 30.0
"""Time between looks at all streams."""
LIVE_SHARE_MAX = 0.5
"""A segment is rewritten when at most this share of its records is live."""
ERASE_AFTER_S = 240.0
"""An erased record waits this long for others of its segment; two rounds, the rewrite and a checkpoint come on top."""
STEP_BYTES = 256 * 1024
"""Read and encoded before the event loop gets its turn."""
PAUSE_S = 0.01
"""Between steps: at most about 25 MiB/s are rewritten."""
WRITE_BYTES = 1 << 20
"""Handed to the writer at once."""


class Compactor:
    """Goes round all streams of a node, for as long as ``run`` runs."""

    def __init__(
        self,
        disk: Disk,
        storage: Storage,
        streams: Callable[[], Sequence[StreamGroup]],
        sealing: Sealing | None = None,
    ) -> None:
        """``streams`` gives the node's streams as they are now; ``sealing`` has its rounds between those over them."""
        self._disk = disk
        self._storage = storage
        self._streams = streams
        self._sealing = sealing
        self._unreadable: set[str] = set()
        self._erased: dict[tuple[int, str], float] = {}
        """Group and path ("": files that wait for a checkpoint) → when something erased was first seen there."""
        self.compacted_total = 0

    async def run(self) -> None:
        """Compact what is worth it, then look again after a while, forever."""
        while True:
            for group in self._streams():
                if not (group.stopped or group.is_faulty):
                    await self.compact(group)
                    await self.erase(group)
            await asyncio.sleep(await self._seal() if self._sealing is not None and self._sealing.is_due else ROUND_S)

    async def compact(self, group: StreamGroup) -> None:
        """Rewrite this stream's mostly dead segments, the worst first."""
        while not group.stopped:
            compaction = group.messages.start_compaction(LIVE_SHARE_MAX)
            if compaction is None or compaction.segment.path in self._unreadable:
                return
            before = compaction.segment.file_bytes
            if not await self._rewrite(group, compaction):
                return
            self.compacted_total += 1
            self._checkpoint(group)
            log.debug("segment compacted", stream=group.name, before_bytes=before, now=compaction.name)

    async def erase(self, group: StreamGroup) -> None:
        """Rewrite this stream's segments with erased records that have waited long enough."""
        now_s = asyncio.get_running_loop().time()
        messages, uid = group.messages, group.uid
        segments = [segment for segment in messages.segment_files() if segment.erased]
        there = {(uid, segment.path) for segment in segments} | ({(uid, "")} if messages.erased_files else set())
        self._erased = {key: at_s for key, at_s in self._erased.items() if key[0] != uid or key in there}
        due = {key for key in there if now_s >= self._erased.setdefault(key, now_s) + ERASE_AFTER_S}
        for segment in segments:
            if (uid, segment.path) not in due or segment.path in self._unreadable or group.stopped:
                continue
            compaction = messages.start_erasure(segment)
            if compaction is None:
                self._storage.flush(group)  # it was sealed just now: its footer must be in the file, then again
            elif await self._rewrite(group, compaction):
                self.compacted_total += 1
                due.add((uid, ""))
                log.debug("segment rewritten without what was erased", stream=group.name, now=compaction.name)
        if (uid, "") in due and messages.erased_files:
            self._checkpoint(group)

    async def _seal(self) -> float:
        """Seal what was stored before there were keys; how long to wait then."""
        assert self._sealing is not None
        await self._sealing.round(self._rewrite, asyncio.get_running_loop().time())
        return self._sealing.pause_s

    def _checkpoint(self, group: StreamGroup) -> None:
        """Have a checkpoint. Where nothing was applied since the last one an entry comes first, for a new index."""
        log_of_group = group.core.log
        if log_of_group.applied_index > log_of_group.checkpoint_index:
            self._storage.want_checkpoint(group.uid)
        elif group.core.is_leader:
            with contextlib.suppress(NotNow):
                group.propose_with(NOOP, lambda _: self._storage.want_checkpoint(group.uid))

    async def _rewrite(self, group: StreamGroup, compaction: Compaction) -> bool:
        """Whether the new file took the old one's place."""
        try:
            is_complete = compaction.step(STEP_BYTES)
            while not is_complete:
                await asyncio.sleep(PAUSE_S)
                is_complete = compaction.step(STEP_BYTES)
            for path, offset, buffers in compaction.writes():
                for part_offset, part in _parts(offset, buffers):
                    if group.stopped:
                        return False  # its directory may be gone by the time the writer would get there
                    await self._disk.call("write_segment", path, part_offset, part)
        except Corruption as error:
            log.error("segment not compacted", stream=group.name, error=str(error))
            self._unreadable.add(compaction.segment.path)
            compaction.abandon()
            return False
        except DiskFull:
            compaction.abandon()
            return False
        compaction.finish()
        return compaction.segment.path == compaction.path


def _parts(offset: int, buffers: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
    """The buffers in runs of about ``WRITE_BYTES``, with the offset of each run."""
    parts: list[tuple[int, list[bytes]]] = []
    size = WRITE_BYTES
    for buffer in buffers:
        if size >= WRITE_BYTES:
            parts.append((offset, []))
            size = 0
        parts[-1][1].append(buffer)
        size += len(buffer)
        offset += len(buffer)
    return parts
