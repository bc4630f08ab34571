"""A lone member whose apply stands still tries again by itself: what the device refused to read it may read later.

Apply that failed in the middle of an entry leaves a state of no use. So it is made anew, beside the old one: the last
checkpoint, and on top of it every entry that was applied, from memory or from the journal. It takes the old one's
place only if its running hash is the same, that is if exactly the same entries went in; then apply goes on with the
entry that it failed at. Until the switch nothing is written, and the group refuses what it cannot answer. If apply
fails at that entry again, the next attempt comes twice as late.

A slot of the log that was unreadable at start is looked up again likewise. Members that are not alone have their state
from others (``behind``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import Corruption, JetstoreError, NotNow
from jetstore.node.group import APPLY_SLICE_S, apply_entry
from jetstore.raft.log import Entry
from jetstore.store.journal.find import EntryFinder
from jetstore.store.ports import EntryRef, GroupRecovery
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, RaftIndex

if TYPE_CHECKING:
    from jetstore.node.node import Node
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)

RETRY_S = 1.0
RETRY_MAX_S = 300.0
"""Between two attempts: an attempt reads what the group has in the journal, and applies it again."""


class Resuming:
    """One task for each lone group that stands still."""

    def __init__(self, node: Node) -> None:
        """Does nothing before ``stands_still``."""
        self._node = node
        self._tasks: dict[GroupUid, asyncio.Task[None]] = {}
        self._waits: dict[GroupUid, tuple[RaftIndex, float]] = {}
        """Where the group stood when an attempt was made last, and how long the next one waits if it stands there."""
        self.attempts_total = 0
        self.resumed_total = 0

    def stop(self) -> None:
        """Try nothing more."""
        for task in self._tasks.values():
            task.cancel()

    def stands_still(self, group: StreamGroup) -> None:
        """Apply of this group was paused, or its log has an unreadable entry, and nobody else can help."""
        if group.uid not in self._tasks:
            task = self._tasks[group.uid] = self._node.loop.create_task(self._run(group))
            task.add_done_callback(lambda done: self._done(group.uid, done))

    def _done(self, uid: GroupUid, task: asyncio.Task[None]) -> None:
        self._tasks.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            self._node.fail(task.exception())

    async def _run(self, group: StreamGroup) -> None:
        while not group.stopped and group.is_faulty:
            at = group.core.log.applied_index
            before, wait_s = self._waits.get(group.uid, (at, RETRY_S))
            if before != at:
                wait_s = RETRY_S
            self._waits[group.uid] = at, min(2 * wait_s, RETRY_MAX_S)
            await asyncio.sleep(wait_s)
            if not group.is_alone:
                self._node.assignments.paused(group)
                return
            self.attempts_total += 1
            try:
                await self._attempt(group)
            except (JetstoreError, OSError) as error:
                log.warning("apply cannot go on yet", group=group.name, at=at, error=str(error))
        if group.stopped:
            self._waits.pop(group.uid, None)

    async def _attempt(self, group: StreamGroup) -> None:
        """Go on, or raise why not: then everything is as it was."""
        if group.core.log.faulty:
            await self._find_unreadable(group)
        if group.paused_by is None:
            return
        for segment in group.messages.segment_files():  # what was remembered of them may be what made apply fail
            self._node.files.cache.forget(segment.path)
        async with self._node.storage.exclusive:  # the checkpoint from which it begins must be the last one at its end
            stream = await self._made_anew(group)
            if not await self._node.storage.written(group.uid):
                raise NotNow("segments were not written")
            if group.stopped or group.paused_by is None:
                return
            self._switch(group, stream)
        if group.paused_by is not None:  # at the same entry, or one behind it
            return
        log.warning("apply goes on", group=group.name, index=group.core.log.applied_index)
        self.resumed_total += 1
        self._node.assignments.tell_standing()
        self._node.assignments.bring_config_up(group)

    def _switch(self, group: StreamGroup, stream: Stream) -> None:
        """The new state from now on. Files that only the old one began are of no use, those of the checkpoint stay."""
        old = group.messages
        group.replace_machine(stream)
        paths = {segment.path for segment in old.segment_files()}
        for path in paths:
            self._node.files.cache.forget(path)
        kept = {segment.path for segment in group.messages.segment_files()} | group.messages.confirmed_paths()
        superfluous = sorted(paths - kept)
        if superfluous:
            self._node.parts.disk.call("remove_files", superfluous).add_done_callback(_seen)
        group.apply_committed()

    # -- the state --------------------------------------------------------------------------------------------------

    async def _made_anew(self, group: StreamGroup) -> Stream:
        """The state at the applied index, from the checkpoint and the entries. Raises ``Corruption``."""
        core_log, files = group.core.log, self._node.files
        at, term = core_log.checkpoint_index, core_log.checkpoint_term
        known = GroupRecovery(group.uid, checkpoint_index=at, checkpoint_term=term, last_index=at)
        head, seen_from = files.head_of(known)
        if seen_from.checkpoint_index != at:
            raise Corruption(f"the checkpoint at {at} is not there", file="groups", offset=seen_from.checkpoint_index)
        stream = files.open_beside(group.uid, group.messages.storage, head)
        last = core_log.applied_index
        in_memory = core_log.slice(max(core_log.first_index, RaftIndex(at + 1)), last)
        dropped = last - at - len(in_memory)
        finder = await self._finder(group) if dropped else None
        until = self._node.loop.time() + APPLY_SLICE_S
        for position in range(last - at):
            if finder is not None and position < dropped:
                apply_entry(stream, _readable(finder.entry(RaftIndex(at + 1 + position))))
            else:
                apply_entry(stream, in_memory[position - dropped])
            if self._node.loop.time() > until:
                await asyncio.sleep(0)
                until = self._node.loop.time() + APPLY_SLICE_S
        was = group.stream.running
        if (stream.running.index, stream.running.value) != (was.index, was.value):
            raise Corruption(f"other entries up to {last} than were applied", file="journal", offset=0)
        return stream

    # -- the journal ------------------------------------------------------------------------------------------------

    async def _finder(self, group: StreamGroup) -> EntryFinder:
        parts = self._node.parts
        journal_id, file_bytes, extents = await parts.disk.call("journal_extents")
        finder = EntryFinder(parts.vfs, journal_id, file_bytes, group.uid, group.core.member)
        used = 0
        for extent in sorted(extents):
            for size in finder.look_through(extent, parts.limits.scrub_step_bytes):
                used += size
                if used >= parts.limits.scrub_step_bytes:
                    used = 0
                    await asyncio.sleep(0)
        return finder

    async def _find_unreadable(self, group: StreamGroup) -> None:
        """Slots that were unreadable at start: what can be read by now is written again, and counts from then on."""
        core = group.core
        finder = await self._finder(group)
        wrong: Corruption | None = None
        for index in list(core.log.faulty):
            try:
                found = finder.entry(index)
            except Corruption as error:
                wrong = wrong or error
                continue
            if core.log.unreadable(index, found.term):
                core.repair(_readable(found))
        group.advance()
        if wrong is not None:
            raise wrong


def _readable(found: EntryRef) -> Entry:
    return Entry(found.term, found.index, found.data, found.message_count)


def _seen(future: asyncio.Future[None]) -> None:
    """A failure is a poisoned disk, which the journal's own failure reports."""
    if not future.cancelled():
        future.exception()
