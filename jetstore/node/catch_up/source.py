"""``CatchUpSource``: answers other members' catch-ups from the groups of this node.

Ranges are read as they are now, a piece at a time, and found again by sequence every time: compaction, purges and
limits may change everything in between. A state that was taken does not change; it is kept in memory until the other
side has it, or has been silent for ``SESSION_S``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import structlog

from jetstore.errors import Corruption, JetstoreError
from jetstore.node.catch_up import messages
from jetstore.node.catch_up.exports import Export, Position, Taken
from jetstore.node.catch_up.messages import CHUNK_BYTES, READ_BYTES, TAIL_BYTES, PeerRefused, decode, encode, refusal
from jetstore.store.checkpoint_files import head_hash
from jetstore.store.install_records import END, Note, encode_note
from jetstore.types import GroupUid

log = structlog.get_logger(__name__)

SESSIONS_MAX = 4
"""States kept for other members at once; above: the one that was used least recently goes."""
SESSION_S = 60.0
"""A state that nobody has asked for this long is given up."""
STREAMS_MAX = 8
"""Ranges and states being sent at once; above: refused."""


class CatchUpSource:
    """See the module docstring. ``request`` and ``stream`` are what a link calls; everything on the event loop."""

    def __init__(self, exports: Callable[[GroupUid], Export | None], loop: asyncio.AbstractEventLoop) -> None:
        """``exports`` gives a group of this node as it is now, or None if it has none that can be read."""
        self._exports = exports
        self._loop = loop
        self._sessions: dict[int, tuple[Taken, float]] = {}
        self._next_session = 1
        self._floors: dict[GroupUid, tuple[int, float]] = {}
        self._streams = 0
        self.bytes_total = 0
        """Bytes of ranges and states handed to links."""

    # -- requests -----------------------------------------------------------------------------------------------------

    async def request(self, method: str, payload: bytes) -> bytes:
        """The answer to a request. What cannot be answered is a refusal, not an exception."""
        try:
            fields = decode(payload)
            if method == messages.DONE:
                self._sessions.pop(fields["session"], None)
                return encode({})
            export = self._export(fields)
            if method == messages.BEGIN:
                return encode(_position(export.position()))
            if method == messages.TAKE:
                return await self._take(export, fields)
            return refusal(f"unknown request {method}")
        except (KeyError, TypeError, ValueError) as error:
            return refusal(f"request not understood: {error!r}")
        except JetstoreError as error:
            return refusal(str(error))

    def _export(self, fields: dict[str, Any]) -> Export:  # Any: JSON values
        export = self._exports(GroupUid(fields["uid"]))
        if export is None:
            raise PeerRefused(f"group {fields['uid']} is not here")
        return export

    async def _take(self, export: Export, fields: dict[str, Any]) -> bytes:  # Any: JSON values
        is_prepared = export.prepare()
        while not is_prepared:
            await asyncio.sleep(0)
            is_prepared = export.prepare()
        position = export.position()
        if position.index < fields["min_index"]:
            raise PeerRefused(f"applied only to {position.index}")
        taken = export.take(fields["copied_seq"], TAIL_BYTES)
        if taken is None:
            return encode({"is_behind": True, **_position(position)})
        session = self._keep(taken)
        self._floors[GroupUid(fields["uid"])] = taken.position.index, self._loop.time()
        return encode(
            {
                "is_behind": False,
                "session": session,
                "configuration": taken.configuration.hex(),
                "running": f"{taken.running:016x}",
                "head_bytes": len(taken.head),
                "head_hash": f"{head_hash(taken.head):016x}",
                "parts": taken.sizes,
                "tail_bytes": sum(map(len, taken.tail)),
                **_position(taken.position),
            }
        )

    def _keep(self, taken: Taken) -> int:
        now = self._loop.time()
        for number, (_, used_at) in list(self._sessions.items()):
            if now - used_at > SESSION_S:
                del self._sessions[number]
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[min(self._sessions, key=lambda number: self._sessions[number][1])]
        session = self._next_session
        self._next_session += 1
        self._sessions[session] = taken, now
        return session

    def floor(self, uid: GroupUid) -> int | None:
        """The index of the state that was last taken from a group, if that was lately: its member will ask for entries

        behind it, so they should not be given up yet. None: nobody is waiting.
        """
        index, at = self._floors.get(uid, (0, 0.0))
        if index and self._loop.time() - at > SESSION_S:
            del self._floors[uid]
            return None
        return index or None

    # -- streams ------------------------------------------------------------------------------------------------------

    async def stream(self, method: str, payload: bytes) -> AsyncIterator[bytes]:
        """Chunks of a range or a state. Raises ``PeerRefused`` or ``Corruption`` where it cannot go on."""
        fields = decode(payload)
        if self._streams >= STREAMS_MAX:
            raise PeerRefused("busy with other catch-ups")
        self._streams += 1
        try:
            if method == messages.RANGE:
                chunks = self._range(fields)
            elif method == messages.STATE:
                chunks = self._state(fields)
            else:
                raise PeerRefused(f"unknown stream {method}")
            async for chunk in chunks:
                self.bytes_total += len(chunk)
                yield chunk
        except (KeyError, TypeError, ValueError) as error:
            raise PeerRefused(f"request not understood: {error!r}") from error
        finally:
            self._streams -= 1

    async def _range(self, fields: dict[str, Any]) -> AsyncIterator[bytes]:  # Any: JSON values
        first, last = int(fields["first_seq"]), int(fields["last_seq"])
        at = first
        waiting = bytearray()
        while at <= last:
            buffers, at = self._export(fields).read(at, last, READ_BYTES)
            for buffer in buffers:
                waiting += buffer
            while len(waiting) >= CHUNK_BYTES:
                yield bytes(waiting[:CHUNK_BYTES])
                del waiting[:CHUNK_BYTES]
            await asyncio.sleep(0)
        waiting += encode_note(fields["uid"], Note(END, first, last))
        for start in range(0, len(waiting), CHUNK_BYTES):
            yield bytes(waiting[start : start + CHUNK_BYTES])

    async def _state(self, fields: dict[str, Any]) -> AsyncIterator[bytes]:  # Any: JSON values
        session, skip = fields["session"], int(fields["offset"])
        kept = self._sessions.get(session)
        if kept is None:
            raise PeerRefused("the state is not kept any more: take it again")
        for buffer in _bytes_of(kept[0]):
            for start in range(skip, len(buffer), CHUNK_BYTES):
                if session in self._sessions:
                    self._sessions[session] = kept[0], self._loop.time()
                yield buffer[start : start + CHUNK_BYTES]
                await asyncio.sleep(0)
            skip = max(skip - len(buffer), 0)


def _bytes_of(taken: Taken) -> Iterator[bytes]:
    """Head, parts, tail: one after another, each made when its turn comes."""
    yield taken.head
    for name, length, _ in taken.sizes:
        part = taken.parts[name]()
        if len(part) != length:
            raise Corruption("part of a state", file=name, offset=0, expected=length, actual=len(part))
        yield part
    yield b"".join(taken.tail)


def _position(position: Position) -> dict[str, int]:
    return {
        "index": position.index,
        "term": position.term,
        "first_seq": position.first_seq,
        "last_seq": position.last_seq,
    }
