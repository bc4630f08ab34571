"""``SnapshotSession``: one stream as an archive, in chunks, to a subject, as fast as acknowledgements come back.

The state, the consumers and the last sequence are those of the moment in which the request was answered; messages are
read as they are when their turn comes, so one that is removed meanwhile is missing and one that comes later is not in
it. Every record is verified as it is read: a damaged one ends the snapshot, it is never sent.

A chunk is sent when there is room in the window; its reply subject gives the room back. The wire's words are those of
nats-server: an empty message at the end, with a status where there is something to say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jetstore.errors import ArchiveError, Corruption
from jetstore.model.infos import StreamState, stream_state_json
from jetstore.model.json import encode
from jetstore.node.backup import archive, s2
from jetstore.node.backup.consumer_json import TakenConsumer, encode_consumer, take
from jetstore.node.ports import Inbound

if TYPE_CHECKING:
    from jetstore.node.node import Node
    from jetstore.node.stream_group import StreamGroup

CHUNK_BYTES: Final = 128 * 1024
WINDOW_BYTES: Final = 8 << 20
_CHUNK_RANGE: Final = (1024, 1 << 20)
_WINDOW_RANGE: Final = (1024, 32 << 20)
INTEREST_WAIT_S: Final = 2.0
"""How long somebody may take to subscribe to the subject that the chunks go to."""
ACK_WAIT_S: Final = 5.0
"""How long nothing may be acknowledged while the window is full."""
READ_MESSAGES: Final = 256
READ_BYTES: Final = 128 * 1024
"""What is read and encoded in one turn of the event loop."""
PENDING_BYTES: Final = 64
"""What a pending message takes in a consumer's entry, about."""


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """What STREAM.SNAPSHOT asks for; 0 = the usual size. Every record is checked, asked for or not."""

    deliver_subject: str
    no_consumers: bool = False
    chunk_bytes: int = 0
    window_bytes: int = 0

    def sizes(self) -> tuple[int, int]:
        """Bytes of a chunk, and how many chunks may be on their way."""
        low, high = _CHUNK_RANGE
        chunk_bytes = min(max(self.chunk_bytes or CHUNK_BYTES, low), high)
        low, high = _WINDOW_RANGE
        window_bytes = max(min(max(self.window_bytes or WINDOW_BYTES, low), high), chunk_bytes)
        return chunk_bytes, window_bytes // chunk_bytes


class _Stopped(Exception):
    """The snapshot ends before its end: the status line for the receiver, and what the advisory says."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class SnapshotSession:
    """One snapshot being sent. ``run`` is all of it."""

    def __init__(self, node: Node, group: StreamGroup, request: SnapshotRequest, name: str) -> None:
        """The stream as of now; raises ``ArchiveError`` if a consumer's state is too large. ``name``: a new nuid."""
        self._node = node
        self._group = group
        self._outlet = group.outlet
        self.state: StreamState = group.stream.state()
        self._last_seq = group.stream.contents.last_seq
        self._consumers: deque[TakenConsumer] = deque()
        if not request.no_consumers:
            consumers = group.stream.consumers
            taken = [take(consumers[each]) for each in sorted(consumers) if not consumers[each].config.direct]
            for consumer in taken:
                if consumer.messages * PENDING_BYTES > node.limits.archive_consumer_bytes:
                    raise ArchiveError(f"consumer {consumer.head['name']} has too many pending messages for an archive")
            self._consumers.extend(taken)
        self._target = request.deliver_subject.encode()
        self._chunk_bytes, self._slots = request.sizes()
        self._ack_prefix = f"$JS.SNAPSHOT.ACK.{group.name}.{name}".encode()
        self._changed = asyncio.Event()
        self._is_gone = False
        self._is_literal = False
        """The receiver subscribes to the very subject, so it can be seen to leave."""

    # -- what comes back ----------------------------------------------------------------------------------------------

    def on_messages(self, batch: Inbound) -> None:
        """Acknowledgements: as many chunks more may go."""
        self._slots += len(batch.subjects)
        self._changed.set()

    def _interest_changed(self, has_interest: bool) -> None:
        self._is_gone = not (self._outlet.has_literal_interest(self._target) if self._is_literal else has_interest)
        self._changed.set()

    # -- sending ------------------------------------------------------------------------------------------------------

    async def run(self) -> str:
        """Send everything; why it ended early, or ""."""
        acks = self._outlet.subscribe(self._ack_prefix + b".>", self)
        watch = self._outlet.watch_interest(self._target, self._interest_changed)
        status = b""
        reason = ""
        try:
            await self._await_interest()
            if await self._send_all():
                status = b"NATS/1.0 204\r\n\r\n"
        except _Stopped as stopped:
            status, reason = f"NATS/1.0 {stopped.status}\r\n\r\n".encode(), str(stopped)
        except (Corruption, ArchiveError) as error:
            if isinstance(error, Corruption):
                self._group.note_damage(error)
            reason = " ".join(str(error).split())
            status = f"NATS/1.0 500 {reason}\r\n\r\n".encode()
        finally:
            acks.close()
            watch.close()
        self._outlet.publish([self._target], [len(status)] if status else (), [status])
        return reason

    async def _await_interest(self) -> None:
        """Until somebody subscribes to the very subject, for a while: clients that have a pattern for all their

        answers do so only when they have seen ours, and what came before that would be lost on them.
        """
        deadline_s = self._node.loop.time() + INTEREST_WAIT_S
        while not self._outlet.has_literal_interest(self._target):
            self._changed.clear()
            if not await self._wait(deadline_s - self._node.loop.time()):
                break
        self._is_literal = self._outlet.has_literal_interest(self._target)
        self._is_gone = False

    async def _send_all(self) -> bool:
        """Whether there was a whole chunk."""
        number = 0
        waiting = bytearray()
        size = self._chunk_bytes
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                waiting += piece
                at = 0
                while len(waiting) - at >= size:
                    await self._take_slot()
                    number += 1
                    reply = b"%b.%d.%d" % (self._ack_prefix, size, number)
                    self._outlet.publish([self._target], (), [bytes(waiting[at : at + size])], [reply])
                    at += size
                del waiting[:at]
        if waiting:
            await self._take_slot()
            self._outlet.publish([self._target], (), [bytes(waiting)])
        return number > 0

    async def _take_slot(self) -> None:
        deadline_s = self._node.loop.time() + ACK_WAIT_S
        limit = self._node.limits.write_pause_bytes
        while not self._slots or self._outlet.pending_bytes(self._target) > limit:
            if self._is_gone:
                break
            self._changed.clear()
            if self._slots:
                self._outlet.when_writable(self._target, self._changed.set)
            if not await self._wait(deadline_s - self._node.loop.time()):
                raise _Stopped("408 No Flow Response", "no flow response")
        if self._is_gone:
            raise _Stopped("408 No Interest", "no interest")
        self._slots -= 1

    async def _wait(self, timeout_s: float) -> bool:
        """Until something changes; whether it did in time."""
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """The archive, compressed as far as its framing goes; the event loop has its turn between two pieces."""
        yield s2.MAGIC
        now_ns = self._node.clock.wall_ns()
        shown = stream_state_json(self.state) | {"consumer_count": len(self._consumers)}
        yield s2.plain_chunks(archive.MAGIC + archive.encode_entry(b"state.json", now_ns, encode(shown)))
        while self._consumers:
            taken = self._consumers.popleft()
            name = f"consumers/{taken.head['name']}".encode()
            content = b""
            for step in encode_consumer(taken):
                content = step
                await asyncio.sleep(0)
            entry = archive.encode_entry(name, now_ns, content)
            for start in range(0, len(entry), READ_BYTES):
                yield s2.plain_chunks(entry[start : start + READ_BYTES])
        at = self.state.first_seq
        while at <= self._last_seq:
            if self._group.stopped:
                raise _Stopped("500 stream not found", "stream not found")
            stored = self._group.stream.log
            seqs = [seq for seq in stored.next_seqs(at, None, READ_MESSAGES) if seq <= self._last_seq]
            messages = stored.read_many(seqs, READ_BYTES)
            if not messages:
                break
            yield s2.plain_chunks(archive.encode_messages(messages))
            at = messages[-1].seq + 1
            await asyncio.sleep(0)
        yield s2.plain_chunks(archive.END)
