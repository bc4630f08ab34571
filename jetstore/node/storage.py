"""From memory to files: segment flushes, checkpoints and the removal of what they make superfluous.

Nothing here is on the way of an acknowledgement; the journal has every byte until a checkpoint is durable. The order of
a checkpoint is that of ``docs/format/checkpoint.md``: segments written and synced → chunks and both copies of the head,
read back → CKPT line in the journal, durable → only then the journal forgets, old files go, the index is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from jetstore.errors import DiskFull, ReadBackFailed
from jetstore.limits import Limits
from jetstore.node.group import Group
from jetstore.store.ports import Checkpoint, Disk, JournalStatus, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term

log = structlog.get_logger(__name__)

FULL_PAUSE_S = 1.0
"""After a flush or checkpoint found no space, or could not be read back: how long until the next one is tried."""


class Checkpointable(Protocol):
    """A group's state machine together with its files, as the checkpointer needs it."""

    @property
    def group(self) -> Group:
        """Its group."""

    def unflushed_bytes(self) -> int:
        """Applied frames that are not in a segment file yet."""

    def take_unflushed(self) -> Sequence[tuple[str, int, Sequence[bytes]]]:
        """All of them as (path, offset, buffers), in order; from now on they count as being written."""

    def flushed(self) -> None:
        """The oldest ``take_unflushed`` that was not confirmed yet is in the files now."""

    def flush_failed(self) -> None:
        """No space: everything taken counts as unflushed again."""

    def capture(self) -> Checkpoint:
        """The state as of now. Everything it refers to was taken by ``take_unflushed`` before."""

    def checkpointed(self, checkpoint: Checkpoint) -> Sequence[str]:
        """It is durable, and so is its CKPT line; paths that nothing refers to any more."""

    async def commit_index(self, disk: Disk) -> None:
        """Make the subject index stand at the checkpoint that was just made durable."""

    def changed_rows(self) -> int:
        """Index rows that only memory holds."""


class Storage:
    """Flushes and checkpoints all groups of a node, one at a time, driven by bytes."""

    def __init__(self, disk: Disk, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """``run`` does the work; the other methods only say what is wanted."""
        self.disk = disk
        self._limits = limits
        self._loop = loop
        self._members: dict[GroupUid, Checkpointable] = {}
        self._wanted: dict[GroupUid, bool] = {}
        """Groups to be checkpointed, and whether also if nothing was applied since the last time."""
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._takes: dict[GroupUid, dict[asyncio.Future[bool], None]] = {}
        """Flushes on their way; each is done with whether all of it was written."""
        self._full_until = float("-inf")
        self.checkpoints_total = 0
        self.is_full = False
        """The last flush or checkpoint found no space."""

    def add(self, member: Checkpointable) -> None:
        """Take care of this group from now on."""
        self._members[member.group.uid] = member

    def discard(self, uid: GroupUid) -> None:
        """The group is gone."""
        self._members.pop(uid, None)
        self._wanted.pop(uid, None)
        self._takes.pop(uid, None)

    def want_checkpoint(self, uid: GroupUid, *, is_forced: bool = False) -> None:
        """Checkpoint this group soon; ``is_forced``: also if nothing was applied since the last time."""
        if uid in self._members and (is_forced or uid not in self._wanted):
            self._wanted[uid] = is_forced or self._wanted.get(uid, False)
            self._wake.set()

    # -- driven by bytes --------------------------------------------------------------------------------------------

    def note_applied(self, member: Checkpointable) -> None:
        """Entries of this group were applied: flush or checkpoint it if it has grown enough."""
        if member.unflushed_bytes() >= self._limits.segment_flush_bytes:
            self.flush(member)
        if (
            member.group.core.log.bytes_above_checkpoint > self._limits.journal_group_bytes
            or member.changed_rows() > self._limits.index_tail_rows_max
        ):
            self.want_checkpoint(member.group.uid)

    def relieve(self, status: JournalStatus) -> None:
        """Free the oldest journal file if the journal has grown too much, in files or in the table at their heads."""
        if not status.wants_relief:
            return
        self.leave_file([uid for uid, _ in status.pinned_by])

    def leave_file(self, groups: Sequence[GroupUid]) -> None:
        """These groups' live entries are to leave the journal file they are in: appended again, or checkpointed."""
        for uid in groups:
            member = self._members.get(uid)
            if member is None or member.group.is_faulty or uid in self._wanted:
                continue
            if not member.group.reappend():
                self.want_checkpoint(uid)

    def trim_memory(self) -> None:
        """Flush the largest tails if all together hold more than ``unflushed_bytes_max``."""
        total = sum(member.unflushed_bytes() for member in self._members.values())
        if total <= self._limits.unflushed_bytes_max:
            return
        for member in sorted(self._members.values(), key=lambda m: (-m.unflushed_bytes(), m.group.uid)):
            if total <= self._limits.unflushed_bytes_max // 2:
                break
            total -= member.unflushed_bytes()
            self.flush(member)

    # -- work -------------------------------------------------------------------------------------------------------

    def flush(self, member: Checkpointable) -> None:
        """Hand a group's unflushed frames to the writer. After a full disk: not again before a pause."""
        if self._loop.time() < self._full_until:
            return
        writes = member.take_unflushed()
        if not writes:
            return
        take: asyncio.Future[bool] = self._loop.create_future()
        self._takes.setdefault(member.group.uid, {})[take] = None
        results: list[asyncio.Future[Any]] = [
            self.disk.call("write_segment", path, offset, list(buffers)) for path, offset, buffers in writes
        ]
        # Writes are carried out in order, so the last one ends the take; each of them must have succeeded.
        for result in results:
            result.add_done_callback(_retrieve)
        results[-1].add_done_callback(lambda _: self._take_done(member, take, results))

    def _take_done(
        self, member: Checkpointable, take: asyncio.Future[bool], results: list[asyncio.Future[Any]]
    ) -> None:
        self._takes.get(member.group.uid, {}).pop(take, None)
        failures = [r.exception() for r in results if not r.cancelled() and r.exception() is not None]
        is_written = not failures and not any(r.cancelled() for r in results)
        if is_written:
            self.is_full = False
            member.flushed()
        elif all(isinstance(failure, DiskFull) for failure in failures):
            self.is_full = True
            self._full_until = self._loop.time() + FULL_PAUSE_S
            member.flush_failed()
        # Any other failure is a poisoned disk, which the journal's own failure reports.
        if not take.done():
            take.set_result(is_written)

    async def run(self) -> None:
        """Checkpoint what is wanted, for as long as the node lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                uid = next(iter(self._wanted))
                member = self._members.get(uid)
                try:
                    if member is not None:
                        await self.checkpoint(member, is_forced=self._wanted[uid])
                except DiskFull as error:
                    self.is_full = True
                    log.warning(
                        "no space for a checkpoint", group=member.group.name if member else uid, error=str(error)
                    )
                    await asyncio.sleep(FULL_PAUSE_S)
                except ReadBackFailed as error:
                    log.error(
                        "checkpoint cannot be read back", group=member.group.name if member else uid, error=str(error)
                    )
                    await asyncio.sleep(FULL_PAUSE_S)
                finally:
                    self._wanted.pop(uid, None)

    async def checkpoint(self, member: Checkpointable, *, is_forced: bool = False) -> None:
        """Make one group's applied state durable and let the journal forget what it covers. One at a time.

        Does nothing if nothing was applied since the last one, unless ``is_forced`` (files have changed).
        Raises DiskFull if there was no space, ReadBackFailed if the disk does not give it back; then everything is as
        it was.
        """
        async with self._one_at_a_time:  # a log and an index remember one capture: a second would confirm the first
            await self._checkpoint(member, is_forced)

    @property
    def exclusive(self) -> asyncio.Lock:
        """Held by whoever writes a checkpoint, or the head of a state that came from a peer."""
        return self._one_at_a_time

    async def settle(self, member: Checkpointable) -> None:
        """Everything applied so far is in the segment files. Raises DiskFull. Hold ``exclusive`` for it to stay so."""
        self.flush(member)
        if member.unflushed_bytes():
            raise DiskFull(f"the segments of {member.group.name} have no room")
        if not await self.written(member.group.uid):
            raise DiskFull(f"the segments of {member.group.name} have no room")

    async def written(self, uid: GroupUid) -> bool:
        """Wait until no flush of this group is on its way; whether all that were are in the files."""
        return all([await take for take in list(self._takes.get(uid, ()))])

    async def _checkpoint(self, member: Checkpointable, is_forced: bool) -> None:
        group = member.group
        core = group.core
        if group.stopped or group.is_torn:
            return
        if core.log.applied_index < max(core.log.checkpoint_index + (not is_forced), 1):
            return
        started = self._loop.time()
        self.flush(member)
        if member.unflushed_bytes():
            raise DiskFull(f"the segments of {group.name} have no room")
        checkpoint = member.capture()
        applied_bytes = core.log.applied_bytes_total
        takes = list(self._takes.get(group.uid, ()))
        if not all([await take for take in takes]):  # the head would name bytes that are not in the files
            raise DiskFull(f"the segments of {group.name} have no room")
        if group.stopped:
            return
        head_hash = await self.disk.call(
            "write_checkpoint", checkpoint.uid, checkpoint.head, checkpoint.chunks, checkpoint.segments
        )
        if group.stopped:
            return
        durable: asyncio.Future[None] = self._loop.create_future()
        group.add_record(
            Record(
                Kind.CKPT,
                checkpoint.uid,
                checkpoint.term,
                Term(0),
                checkpoint.index,
                checkpoint.index,
                0,
                head_hash,
                b"",
            ),
            lambda: _resolve(durable),
        )
        await asyncio.wait((durable, group.ended), return_when=asyncio.FIRST_COMPLETED)
        if group.stopped:
            return
        core.log.checkpointed(RaftIndex(checkpoint.index), Term(checkpoint.term), applied_bytes)
        superfluous = member.checkpointed(checkpoint)
        if superfluous:
            await self.disk.call("remove_files", list(superfluous))
        await member.commit_index(self.disk)
        self.checkpoints_total += 1
        self.is_full = False
        log.debug(
            "checkpoint durable",
            group=group.name,
            index=checkpoint.index,
            took_ms=round((self._loop.time() - started) * 1000, 1),
        )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a failure as seen: it is handled where the last write of the flush is."""
    if not future.cancelled():
        future.exception()
