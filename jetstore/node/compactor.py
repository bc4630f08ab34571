"""Gives back the space between live messages: rewrites mostly dead segments, one at a time, in small steps.

Nothing depends on when it runs: removal is logical at once, and a rewritten segment holds the same live records. The
old file goes with the next checkpoint that does not name it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from jetstore.errors import Corruption, DiskFull
from jetstore.node.storage import Storage
from jetstore.node.stream_group import StreamGroup
from jetstore.store.compaction import Compaction
from jetstore.store.ports import Disk

log = structlog.get_logger(__name__)

ROUND_S = 30.0
"""Time between looks at all streams."""
LIVE_SHARE_MAX = 0.5
"""A segment is rewritten when at most this share of its records is live."""
STEP_BYTES = 256 * 1024
"""Read and encoded before the event loop gets its turn."""
PAUSE_S = 0.01
"""Between steps: at most about 25 MiB/s are rewritten."""
WRITE_BYTES = 1 << 20
"""Handed to the writer at once."""


class Compactor:
    """Goes round all streams of a node, for as long as ``run`` runs."""

    def __init__(self, disk: Disk, storage: Storage, streams: Callable[[], Sequence[StreamGroup]]) -> None:
        """``streams`` gives the node's streams as they are now."""
        self._disk = disk
        self._storage = storage
        self._streams = streams
        self._unreadable: set[str] = set()
        self.compacted_total = 0

    async def run(self) -> None:
        """Compact what is worth it, then look again after a while, forever."""
        while True:
            for group in self._streams():
                if not (group.stopped or group.is_faulty):
                    await self.compact(group)
            await asyncio.sleep(ROUND_S)

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
            self._storage.want_checkpoint(group.uid)
            log.debug("segment compacted", stream=group.name, before_bytes=before, now=compaction.name)

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
