"""Reads the whole store again, slowly, forever: damage is found while there is still time to do something about it.

A round goes over the journal files that are needed, then over the groups one by one: both copies of the head, the
committed rows of the index, every frame and footer of every segment. What is found is logged once. Unreadable messages
are the stream's damage (/healthz names it); a damaged copy of a head is written again with the next checkpoint; a
damaged index is made again from the messages; what lives in a damaged journal file is in memory: written elsewhere.

It yields to everything else: at most ``limits.scrub_bytes_per_s``, in steps of ``limits.scrub_step_bytes``, and it
waits while the event loop is late. What the page cache still has is compared with nothing on the disk: a read of lately
written bytes proves little. Rounds repeat, so that every byte is read from the disk sooner or later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from jetstore.errors import Corruption, DiskFull, IndexDoubt
from jetstore.limits import Limits
from jetstore.node.group import Group
from jetstore.node.storage import Storage
from jetstore.node.stream_group import StreamGroup
from jetstore.store.checkpoint_files import HEAD_NAMES, group_dir, read_heads
from jetstore.store.journal.files import JOURNAL_DIR, file_path
from jetstore.store.journal.reread import Extent, reread_file
from jetstore.store.log_scrub import Scrubber
from jetstore.store.vfs import Vfs

log = structlog.get_logger(__name__)

ROW_BYTES = 64
"""What reading one index row counts for."""
LATE_S = 0.005
"""The event loop is busy when it is later than this."""
BUSY_PAUSE_S = 0.25
"""Then the scrub waits so long."""


FINDINGS_SHOWN = 4
"""Of one journal file, in the log."""
FIRST_ROUND_S = 10.0
"""After a start other things come first."""


class Scrub:
    """One node's scrub. ``run`` does the work; the counters are for the monitor."""

    def __init__(
        self,
        vfs: Vfs,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        storage: Storage,
        streams: Callable[[], Sequence[StreamGroup]],
        meta: Callable[[], Group],
    ) -> None:
        """``streams`` and ``meta`` give the groups as they are now."""
        self._vfs = vfs
        self._limits = limits
        self._loop = loop
        self._storage = storage
        self._streams = streams
        self._meta = meta
        self.bytes_total = 0
        """Bytes read again since start."""
        self.rounds_total = 0
        self.found_total = 0
        """Damaged places found since start, each counted once a round."""
        self.damaged_copies: dict[str, str] = {}
        """Group directory, or path of a journal file that is still needed → what is wrong with it; memory, or the other
        copy of a head, has what it should hold."""

    async def run(self) -> None:
        """Round after round. Does nothing if the limit says so."""
        if not self._limits.scrub_bytes_per_s:
            return
        await asyncio.sleep(FIRST_ROUND_S)
        while True:
            began = self._loop.time()
            await self.round()
            await asyncio.sleep(max(began + self._limits.scrub_round_s - self._loop.time(), 0.1))

    async def round(self) -> None:
        """One round over everything."""
        await self._journal()
        await self._heads(self._meta())
        for group in self._streams():
            if not group.stopped:
                await self._heads(group)
                await self._index(group)
                await self._segments(group)
        self.rounds_total += 1

    async def _pause(self, used_bytes: int) -> None:
        """Let time pass for this many bytes; longer while the event loop has other things to do."""
        self.bytes_total += used_bytes
        wait_s = used_bytes / self._limits.scrub_bytes_per_s
        while True:
            due = self._loop.time() + wait_s
            await asyncio.sleep(wait_s)
            if self._loop.time() - due < LATE_S:
                return
            wait_s = BUSY_PAUSE_S

    # -- the journal --------------------------------------------------------------------------------------------------

    async def _journal(self) -> None:
        journal_id, file_bytes, extents = await self._storage.disk.call("journal_extents")
        for extent in extents:
            found: list[Corruption] = []
            for used in reread_file(self._vfs, journal_id, file_bytes, extent, self._limits.scrub_step_bytes, found):
                await self._pause(used)
            if not found:
                self.damaged_copies.pop(file_path(extent.number), None)
            elif extent.number in await self._needed_files():  # else it was recycled
                await self._leave_file(extent.number, found)
        needed = {file_path(number) for number in await self._needed_files()}
        for path in [path for path in self.damaged_copies if path.startswith(JOURNAL_DIR) and path not in needed]:
            del self.damaged_copies[path]

    async def _needed_files(self) -> set[int]:
        extents: list[Extent] = (await self._storage.disk.call("journal_extents"))[2]
        return {extent.number for extent in extents}

    async def _leave_file(self, number: int, found: list[Corruption]) -> None:
        self.found_total += len(found)
        finding = "; ".join(str(damage) for damage in found[:FINDINGS_SHOWN])
        if self.damaged_copies.get(file_path(number)) != finding:
            log.error("journal file damaged, what lives in it is written elsewhere", finding=finding, places=len(found))
        self.damaged_copies[file_path(number)] = finding
        try:
            groups = await self._storage.disk.call("leave_journal_file", number)
        except DiskFull as error:
            log.warning("no other journal file to go on in", error=str(error))
        else:
            self._storage.leave_file(groups)

    # -- heads --------------------------------------------------------------------------------------------------------

    async def _heads(self, group: Group) -> None:
        if not group.core.log.checkpoint_index:
            return
        directory = group_dir(group.uid)
        wrong: list[str] = []
        size = 0
        try:
            copies, wrong = read_heads(self._vfs, group.uid)
            size = sum(len(copy.content) for copy in copies)
            for name in HEAD_NAMES:
                if not self._vfs.exists(f"{directory}/{name}"):
                    wrong.append(f"{directory}/{name} is missing")
        except (Corruption, OSError) as error:
            wrong.append(str(error))
        if group.stopped:
            return  # deleted meanwhile, and so are its files
        for finding in wrong:
            self.found_total += 1
            if self.damaged_copies.get(directory) != finding:
                log.error("copy of a checkpoint damaged", group=group.name, finding=finding)
            self.damaged_copies[directory] = finding
        if wrong:
            self._storage.want_checkpoint(group.uid)  # writes both copies again, if there is something to checkpoint
        else:
            self.damaged_copies.pop(directory, None)
        await self._pause(size)

    # -- the index ----------------------------------------------------------------------------------------------------

    async def _index(self, group: StreamGroup) -> None:
        rows = max(self._limits.scrub_step_bytes // ROW_BYTES, 1)
        at: tuple[int, bytes, int] | None = (0, b"", 0)
        while at is not None and not group.stopped and not group.is_faulty:
            before = at[2]
            try:
                at = group.index.verify_some(at, rows)
            except IndexDoubt as doubt:
                self.found_total += 1
                try:
                    group.stream.contents.heal(doubt)
                except Corruption as error:
                    group.note_damage(error)
                return
            await self._pause(((at[2] if at else before) - before) * ROW_BYTES)

    # -- segments -----------------------------------------------------------------------------------------------------

    async def _segments(self, group: StreamGroup) -> None:
        scrubber = Scrubber()
        known = set(group.damage)
        again: set[tuple[str, int]] = set()
        step = self._limits.scrub_step_bytes
        left = sum(segment.file_bytes for segment in group.messages.segment_files())
        is_complete = False
        while not is_complete and not group.stopped:
            found: list[Corruption] = []
            try:
                is_complete = scrubber.step(group.messages, step, found)
            except Corruption as error:  # a format of another version: nothing behind it can be judged
                found.append(error)
                is_complete = True
            except OSError as error:
                found.append(Corruption(f"segments cannot be read: {error}", file=group_dir(group.uid), offset=0))
                is_complete = True
            for damage in found:
                self.found_total += 1
                again.add((damage.file, damage.offset))
                group.note_damage(damage)
            await self._pause(max(min(step, left), 1))
            left -= step
        for place in known - again:  # removed and rewritten meanwhile, or readable after all
            if group.damage.pop(place, None) is not None:
                log.info("damage gone", stream=group.name, file=place[0], offset=place[1])
