"""``CatchUpSink``: one member's catch-up of one group, from one peer at a time, from the first request to the switch.

Everything fetched is verified when it comes and durable as it goes; a run that fails, or a crash, leaves what it has
for the next run, with the same peer or another one. See ``messages.py`` for what is asked, ``install.py`` for the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from jetstore.errors import Corruption, JetstoreError
from jetstore.limits import Limits
from jetstore.node.catch_up import messages
from jetstore.node.catch_up.install import Restored, install_meta, install_stream
from jetstore.node.catch_up.messages import Peer, decode, encode
from jetstore.node.catch_up.repair import repair_ranges
from jetstore.node.storage import Storage
from jetstore.store.checkpoint_files import head_hash
from jetstore.store.install_files import Received, free_number
from jetstore.store.install_manifest import manifest_path
from jetstore.store.install_records import END, Note, RecordParser
from jetstore.store.ports import Disk
from jetstore.store.vfs import Vfs
from jetstore.stream.install import PeerState
from jetstore.types import GroupUid

if TYPE_CHECKING:
    from jetstore.node.meta_group import MetaGroup
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)

FEED_BYTES = 128 * 1024
"""Verified and decoded between two turns of the event loop."""
STATE_BYTES_MAX = 1 << 30
"""A state (without records) larger than this is refused."""
ROUNDS_MAX = 1_000
"""Ranges fetched in one run before it is given up: each brings at least ``TAIL_BYTES``."""


class CatchUpIncomplete(JetstoreError):
    """Live records are missing that this peer cannot read: ask another one. What was received is kept."""

    def __init__(self, missing: list[tuple[int, int]]) -> None:
        super().__init__(f"unreadable at the peer: {missing[:10]}")
        self.missing = missing


class CatchUpSink:
    """Everything happens on the event loop; files are written through the writer's commands only."""

    def __init__(
        self,
        *,
        disk: Disk,
        vfs: Vfs,
        limits: Limits,
        storage: Storage,
        pace: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """``pace`` is awaited with the number of bytes taken from a peer: where a rate limit belongs."""
        self._disk = disk
        self._vfs = vfs
        self._limits = limits
        self._storage = storage
        self._pace = pace
        self._running: set[int] = set()
        self.bytes_total = 0
        """Bytes taken from peers."""

    # -- streams ------------------------------------------------------------------------------------------------------

    async def catch_up(
        self, group: StreamGroup, peer: Peer, restored: Restored, *, min_index: int = 0, keeps_local: bool = True
    ) -> int:
        """Bring a stream's group to the peer's state; the index it stands at then.

        ``min_index``: the least index that helps (0 = any above what is applied). Without ``keeps_local`` nothing that
        is stored here counts (the state here has diverged). Raises ``PeerRefused`` or ``OSError`` (ask again, or
        another one), ``CatchUpIncomplete`` (ask another one), ``Corruption`` (what came is not what it should be; it
        is forgotten), ``DiskFull``, ``NotNow`` (not needed any more).
        """
        assert group.uid not in self._running, "one catch-up of a group at a time"
        self._running.add(group.uid)
        try:
            least = max(min_index, group.stream.applied_index + (1 if keeps_local else 0))
            start = await self._ask(peer, messages.BEGIN, uid=group.uid)
            if keeps_local and group.messages.message_count:
                await self._freeze(group)
            received = await self._begin(group, start, keeps_local)
            state = await self._fetch(group.uid, peer, received, start["last_seq"], least)
            lacking = [(a, b) for a, b in received.missing_seqs if _is_live_in(state, a, b)]
            if lacking:
                raise CatchUpIncomplete(lacking)
            await self._install(group, peer, state, received, restored, keeps_local)
            return int(state["index"])
        finally:
            self._running.discard(group.uid)

    async def _install(
        self,
        group: StreamGroup,
        peer: Peer,
        state: PeerState,
        received: Received,
        restored: Restored,
        keeps_local: bool,
    ) -> None:
        """Install; stored segments that turn out to lack what the state has are repaired first, each once."""
        repaired: set[int] = set()
        while True:
            try:
                await install_stream(
                    group, self._storage, self._disk, self._vfs, state, received, restored, keeps_local=keeps_local
                )
                return
            except Corruption as error:
                stored = [s for s in group.messages.segment_files() if s.path == error.file]
                if not stored:
                    await self._forget(group, received)
                    raise
                first, last = stored[0].base_seq, stored[0].last_seq
                if first in repaired:
                    raise
                repaired.add(first)
                log.warning("stored records unreadable", group=group.name, error=str(error))
                lacking = await self.repair_ranges(group, peer, [(first, last)])
                needed = [(a, b) for a, b in lacking if _is_live_in(state, a, b)]
                if needed:
                    raise CatchUpIncomplete(needed) from error

    async def _freeze(self, group: StreamGroup) -> None:
        """What is stored here ends with a segment of its own: whatever is applied later does not grow into it."""
        files = group.messages.segment_files()
        if files and not files[-1].is_sealed and not group.stream.is_torn:
            group.messages.seal_last()
            await self._storage.checkpoint(group, is_forced=True)

    async def _begin(self, group: StreamGroup, start: dict[str, Any], keeps_local: bool) -> Received:  # Any: JSON
        """What an earlier run left, if it fits, or nothing."""
        stored = group.messages.last_seq if keeps_local else 0
        wanted = max(stored + 1, start["first_seq"])
        received = Received.resume(self._vfs, group.uid, self._limits)
        if received is not None:
            for _ in received.verify(self._vfs):
                await asyncio.sleep(0)
            overlaps = keeps_local and any(
                segment.base_seq < received.first_seq <= segment.last_seq for segment in group.messages.segment_files()
            )
            if received.first_seq <= wanted and not overlaps:
                return received
            await self._forget(group, received)
        number = free_number(self._vfs, group.uid)
        keys, storage = self._vfs.keys, group.messages.storage
        return Received(group.uid, self._limits, keys, storage=storage, number=number, first_seq=wanted)

    async def _fetch(self, uid: GroupUid, peer: Peer, received: Received, last_seq: int, least: int) -> PeerState:
        """Ranges until the peer's state can be taken together with what is behind them; everything saved."""
        for first, last in received.missing_seqs:
            await self._fetch_range(uid, peer, received, first, last)
        for _ in range(ROUNDS_MAX):
            if received.covered_seq < last_seq:
                await self._fetch_range(uid, peer, received, received.covered_seq + 1, last_seq)
            taken = await self._ask(peer, messages.TAKE, uid=uid, copied_seq=received.covered_seq, min_index=least)
            last_seq = taken["last_seq"]
            if not taken["is_behind"]:
                state = await self._fetch_state(uid, peer, taken, received)
                await self._write(received, is_last=True)
                return state
        raise messages.PeerRefused("the peer stores faster than this member fetches")

    async def _fetch_range(self, uid: GroupUid, peer: Peer, received: Received, first: int, last: int) -> None:
        received.begin(first, last)
        parser = RecordParser(uid, self._limits)
        is_complete = False
        try:
            async for chunk in peer.stream(messages.RANGE, encode({"uid": uid, "first_seq": first, "last_seq": last})):
                await self._took(len(chunk))
                for start in range(0, len(chunk), FEED_BYTES):
                    is_complete = self._feed(received, parser, chunk[start : start + FEED_BYTES]) or is_complete
                    await asyncio.sleep(0)
                await self._write(received)
        except (OSError, messages.PeerRefused, Corruption):
            await self._write(received, is_last=True)  # what came is good, and is not fetched again
            raise
        if not is_complete:
            await self._write(received, is_last=True)
            raise messages.PeerRefused("the range ended early")
        received.complete()

    @staticmethod
    def _feed(received: Received, parser: RecordParser, data: bytes) -> bool:
        """Take records; whether the end of the range is among them."""
        is_complete = False
        for item in parser.feed(data):
            if not isinstance(item, Note):
                received.take(item)
            elif item.kind == END:
                is_complete = True
            else:
                received.note_missing(item.first_seq, item.last_seq)
        return is_complete

    async def _fetch_state(
        self, uid: GroupUid, peer: Peer, taken: dict[str, Any], received: Received
    ) -> PeerState:  # Any: JSON values
        sizes = [taken["head_bytes"], *[length for _, length, _ in taken["parts"]], taken["tail_bytes"]]
        data = await self._fetch_bytes(peer, taken["session"], sum(sizes))
        pieces = []
        at = 0
        for size in sizes:
            pieces.append(bytes(data[at : at + size]))
            at += size
        head, *parts, tail = pieces
        _check_head(head, taken)
        state = PeerState(uid, head, {row[0]: part for row, part in zip(taken["parts"], parts, strict=True)})
        if (state["index"], state["last_seq"]) != (taken["index"], taken["last_seq"]):
            raise Corruption("the state is not the one announced", file="peer", offset=0)
        if received.covered_seq < state.last_seq:
            received.begin(received.covered_seq + 1, state.last_seq)
            parser = RecordParser(uid, self._limits)
            for start in range(0, len(tail), FEED_BYTES):
                self._feed(received, parser, tail[start : start + FEED_BYTES])
                await asyncio.sleep(0)
            if not parser.is_between:
                raise Corruption("the records of a state end early", file="peer", offset=len(tail))
            received.complete()
        return state

    async def _fetch_bytes(self, peer: Peer, session: int, size: int) -> bytearray:
        """The bytes of a state that was taken; goes on where it was cut off, as long as the peer keeps it."""
        if not 0 <= size <= STATE_BYTES_MAX:
            raise Corruption("size of a state", file="peer", offset=0, actual=size)
        data = bytearray()
        while len(data) < size:
            before = len(data)
            try:
                request = encode({"session": session, "offset": len(data)})
                async for chunk in peer.stream(messages.STATE, request):
                    data += chunk
                    await self._took(len(chunk))
            except OSError:
                if len(data) == before:
                    raise
            if len(data) == before or len(data) > size:
                raise Corruption("the bytes of a state", file="peer", offset=0, expected=size, actual=len(data))
        with suppress(OSError, messages.PeerRefused):  # else the peer forgets it by itself
            await self._ask(peer, messages.DONE, session=session)
        return data

    async def repair_ranges(
        self, group: StreamGroup, peer: Peer, ranges: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """Repair damage in stored records of these closed ranges; see ``repair.repair_ranges``."""
        return await repair_ranges(group, self._storage, self._disk, self._vfs, self._limits, peer, ranges)

    # -- metadata -----------------------------------------------------------------------------------------------------

    async def catch_up_meta(self, group: MetaGroup, peer: Peer, restored: Restored, *, min_index: int = 0) -> int:
        """The same for the metadata group: one head."""
        least = max(min_index, group.machine.applied_index + 1)
        taken = await self._ask(peer, messages.TAKE, uid=group.uid, copied_seq=0, min_index=least)
        head = bytes(await self._fetch_bytes(peer, taken["session"], taken["head_bytes"]))
        _check_head(head, taken)
        await install_meta(group, self._storage, self._disk, head, restored)
        return int(taken["index"])

    # -- common -------------------------------------------------------------------------------------------------------

    async def _ask(self, peer: Peer, method: str, **fields: Any) -> dict[str, Any]:  # Any: JSON values
        return messages.checked(method, decode(await peer.request(method, encode(fields))))

    async def _took(self, size: int) -> None:
        self.bytes_total += size
        if self._pace is not None:
            await self._pace(size)

    async def _write(self, received: Received, *, is_last: bool = False) -> None:
        """Have what came written; now and then (and at last) make it durable and say so in the manifest."""
        if is_last:
            received.seal()
        writes = received.take_writes()
        if writes:
            await asyncio.gather(*[self._disk.call("write_segment", *write) for write in writes])
            received.written()
        if received.unsaved_bytes >= self._limits.segment_sync_bytes or (is_last and received.unsaved_bytes):
            manifest, names = received.save()
            await self._disk.call("write_manifest", received.uid, manifest, names)

    async def _forget(self, group: StreamGroup, received: Received) -> None:
        """What was received is of no use: the manifest goes first, then the files it named."""
        await self._disk.call("remove_files", [manifest_path(group.uid)])
        stored = {segment.path for segment in group.messages.segment_files()}
        assert stored.isdisjoint(segment.path for segment in received.files), "received files are in use"
        await self._disk.call("remove_files", [segment.path for segment in received.files])


def _check_head(head: bytes, taken: dict[str, Any]) -> None:  # Any: JSON values
    """Raises ``Corruption`` unless this is the head that was announced."""
    if f"{head_hash(head):016x}" != taken["head_hash"]:
        raise Corruption("the head of a state", file="peer", offset=0, expected=taken["head_hash"])


def _is_live_in(state: PeerState, first: int, last: int) -> bool:
    """Whether the state has a message in a closed range."""
    first, last = max(first, state.first_seq), min(last, state.last_seq)
    return first <= last and state.removed.count_between(first, last) < last - first + 1
