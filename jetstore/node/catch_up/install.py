"""A fetched state takes the place of a group's own: on disk by the rename of its head, then in memory.

The order, which a crash may cut anywhere: received records durable under new names → chunks, both copies of the head,
read back (``write_checkpoint``; the rename of the first is the switch) → RESET in the journal, durable → the new state
in memory → what only the old one named is removed. Before RESET the old head still counts where it is there; from both
copies on, the new one does, and an opening writes RESET itself. Source: ``docs/format/catch-up.md``, "Installing".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import Corruption, NotNow
from jetstore.meta.state import MetaState
from jetstore.node.group import Group
from jetstore.node.storage import Storage
from jetstore.store.checkpoint_files import chunk_path, group_dir
from jetstore.store.install_files import Received, free_number
from jetstore.store.install_log import LogInstall, successor
from jetstore.store.install_manifest import manifest_path
from jetstore.store.ports import Checkpoint, Disk, Kind, Record
from jetstore.store.segment_files import segments_dir
from jetstore.store.vfs import Vfs
from jetstore.stream.install import PeerState, build
from jetstore.types import META_GROUP, RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.node.meta_group import MetaGroup
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)

Restored = Callable[[RaftIndex, Term, bytes], None]
"""Told (index, term, configuration) in the moment in which the group's log begins behind that index."""


async def install_stream(
    group: StreamGroup,
    storage: Storage,
    disk: Disk,
    vfs: Vfs,
    state: PeerState,
    received: Received | None,
    restored: Restored,
    *,
    keeps_local: bool = True,
) -> None:
    """Make a peer's state this group's, with the records received; stored ones in front of them stay if they may.

    ``received`` is sealed, written and saved. Raises ``Corruption`` if the records do not add up to the state,
    ``DiskFull``, or ``NotNow`` if the group ended or has gone beyond the state: then everything is as it was.
    """
    group.hold()
    try:
        work = await _put_together(group, storage, state, received, keeps_local)
        async with storage.exclusive:
            _require(group, state["index"], keeps_local)
            old = group.messages
            if work.is_stale:
                raise NotNow("stored segments were rewritten meanwhile")
            number = free_number(vfs, group.uid)
            messages = successor(old, state.storage)
            work.fill(messages, number)
            stamp = group.index.unused_stamp
            stream, checkpoint = build(state, messages, group.limits, number=number, stamp=stamp)

            def switch() -> None:
                stream.contents.index = group.index.successor(stamp, work.rows)
                stream.checkpointed(checkpoint)
                messages.confirm()
                restored(checkpoint.index, checkpoint.term, stream.raft_configuration)
                group.replace_machine(stream)

            await _switch(group, disk, checkpoint, switch)
            kept = {f"{segments_dir(group.uid)}/{segment.name}" for segment in messages.segment_files()}
            kept |= {chunk_path(group.uid, name) for name in checkpoint.keep_chunks}
            superfluous = [path for path in _files_of(vfs, group) if path not in kept]
            for path in superfluous:
                old.forget_file(path)
            await disk.call("remove_files", superfluous)
    finally:
        group.release()


async def _put_together(
    group: StreamGroup, storage: Storage, state: PeerState, received: Received | None, keeps_local: bool
) -> LogInstall:
    """The new log, proved to be what the state says. Anew if compaction rewrote a stored segment meanwhile."""
    while True:
        async with storage.exclusive:
            _require(group, state["index"], keeps_local)
            if keeps_local:
                group.messages.seal_last()
                await storage.settle(group)
            work = LogInstall(
                group.messages,
                received,
                state.removed,
                first_seq=state.first_seq,
                last_seq=state.last_seq,
                keeps_local=keeps_local,
            )
        try:
            for _ in work.steps():  # seconds, for a large log: other groups' checkpoints must not wait
                await asyncio.sleep(0)
        except Corruption:
            if not work.is_stale:
                raise
        if not work.is_stale:
            work.check(state["messages"], state["bytes"])
            return work


async def install_meta(group: MetaGroup, storage: Storage, disk: Disk, head: bytes, restored: Restored) -> None:
    """The same for the metadata, whose head is all of it."""
    group.hold()
    try:
        async with storage.exclusive:
            machine = MetaState.restore(head)
            _require(group, machine.applied_index, keeps_local=True)
            checkpoint = machine.checkpoint()

            def switch() -> None:
                restored(checkpoint.index, checkpoint.term, machine.raft_configuration)
                group.replace_machine(machine)

            await _switch(group, disk, checkpoint, switch, lambda: group.founding_records(machine))
    finally:
        group.release()


def _require(group: Group, index: int, keeps_local: bool) -> None:
    """Raises ``NotNow`` if this state would be a step back."""
    if group.stopped:
        raise NotNow(f"{group.name} has ended")
    applied = group.machine.applied_index
    if index < applied or (index == applied and keeps_local and not group.is_faulty):
        raise NotNow(f"{group.name} has applied {applied} already, the fetched state stands at {index}")


async def _switch(
    group: Group,
    disk: Disk,
    checkpoint: Checkpoint,
    switch: Callable[[], None],
    before: Callable[[], Iterable[Record]] = tuple,
) -> None:
    """Write the head, then RESET; once that is durable, and before anything else of the group is, switch.

    The records of ``before`` go into the same block, in front of RESET.
    """
    uid, index, term = checkpoint.uid, checkpoint.index, checkpoint.term
    head_hash = await disk.call("write_checkpoint", uid, checkpoint.head, checkpoint.chunks, checkpoint.segments, True)
    if group.stopped:
        raise NotNow(f"{group.name} has ended")
    durable: asyncio.Future[None] = group.loop.create_future()
    for record in before():
        group.add_record(record)

    def reset_durable() -> None:
        switch()
        if not durable.done():
            durable.set_result(None)

    group.add_record(Record(Kind.RESET, uid, term, Term(0), index, index, 0, head_hash, b""), reset_durable)
    await asyncio.wait((durable, group.ended), return_when=asyncio.FIRST_COMPLETED)
    if not durable.done():
        raise NotNow(f"{group.name} has ended")
    log.info("state installed from a peer", group=group.name, index=index, term=term)


def _files_of(vfs: Vfs, group: Group) -> Iterable[str]:
    """Every segment, chunk and manifest there is."""
    assert group.uid != META_GROUP
    root = group_dir(group.uid)
    for directory in (segments_dir(group.uid), f"{root}/chunks"):
        for name in vfs.list_dir(directory):
            yield f"{directory}/{name}"
    yield manifest_path(group.uid)
