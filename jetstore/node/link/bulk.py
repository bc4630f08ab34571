"""Requests and streams over one bulk connection: the asking side. The serving side is ``bulk_server.py``.

Requests are sent in the order of the calls. What bounds memory: the number of requests on their way, the bytes of their
payloads (further ones wait here), and per stream a window that its reader opens again by reading. The answer to a
request is exactly one of: bytes; ``RequestRefused`` (definitely not done); ``RequestFailed`` or ``LinkLost`` (outcome
unknown); ``NotConnected`` (definitely not sent).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol

from jetstore.limits import Limits
from jetstore.node.link import bulk_frames
from jetstore.node.link.bulk_frames import CHUNK_COST_BYTES, ErrorKind, Outgoing
from jetstore.node.link.frames import FrameError, Kind
from jetstore.node.link.ports import LinkLost, NotConnected, RequestFailed, RequestRefused
from jetstore.types import Buffer

_ID_MASK = 0xFFFF_FFFF


class Wire(Protocol):
    """As much of a connection as requests need."""

    is_writable: bool

    def send(self, frames: list[Outgoing]) -> None:
        """All in one write."""


class _Call:
    """One request, until its last frame has come."""

    __slots__ = ("answer", "id", "is_sent", "method", "payload", "size", "stream")

    def __init__(self, request_id: int, method: str, payload: Buffer) -> None:
        self.id = request_id
        self.method = method
        self.payload: Buffer = payload
        self.size = len(payload)
        self.is_sent = False
        self.answer: asyncio.Future[bytes] | None = None
        self.stream: BulkStream | None = None

    def fail(self, error: Exception) -> None:
        if self.stream is not None:
            self.stream.finish(error)
        elif self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class BulkClient:
    """The requests of this node on one connection."""

    def __init__(self, wire: Wire, *, limits: Limits, loop: asyncio.AbstractEventLoop, node_name: str) -> None:
        self.is_lost = False
        self.sent_bytes = 0
        """Payloads that the other side holds, as far as this one knows."""
        self._wire = wire
        self._limits = limits
        self._loop = loop
        self._node_name = node_name
        self._next_id = 0
        self._calls: dict[int, _Call] = {}
        """Sent or waiting, by id."""
        self._waiting: deque[_Call] = deque()

    @property
    def pending(self) -> int:
        """Requests without their last answer."""
        return len(self._calls)

    def request(self, method: str, payload: Buffer) -> asyncio.Future[bytes]:
        """Ask for one answer. The payload must not change until then. Raises NotConnected at once.

        Cancelling the future tells the other side; what it has done by then stays done.
        """
        call = self._new_call(method, payload)
        answer = call.answer = self._loop.create_future()
        answer.add_done_callback(lambda future: self.abandon(call) if future.cancelled() else None)
        self._pump()
        return answer

    def stream(self, method: str, payload: Buffer, window_bytes: int) -> BulkStream:
        """Ask for a stream of chunks. At most ``window_bytes`` (or one larger chunk) wait here for the reader."""
        call = self._new_call(method, payload)
        call.stream = BulkStream(self, call, self._loop, max(1, min(window_bytes, 0x7FFF_FFFF)))
        self._pump()
        return call.stream

    def _new_call(self, method: str, payload: Buffer) -> _Call:
        if self.is_lost:
            raise NotConnected(f"no bulk connection to {self._node_name}")
        if len(self._calls) >= self._limits.bulk_requests_max:
            raise NotConnected(f"{len(self._calls)} requests to {self._node_name} are on their way already")
        while self._next_id in self._calls:
            self._next_id = (self._next_id + 1) & _ID_MASK
        call = self._calls[self._next_id] = _Call(self._next_id, method, payload)
        self._next_id = (self._next_id + 1) & _ID_MASK
        self._waiting.append(call)
        return call

    def _pump(self) -> None:
        """Send what has room, in order."""
        waiting, bytes_max = self._waiting, self._limits.bulk_request_bytes
        frames = []
        while waiting and (self.sent_bytes == 0 or self.sent_bytes + waiting[0].size <= bytes_max):
            call = waiting.popleft()
            call.is_sent = True
            self.sent_bytes += call.size
            window_bytes = call.stream.window_bytes if call.stream is not None else 0
            frames.append(bulk_frames.request(call.id, window_bytes, call.method, call.payload))
            call.payload = b""
        if frames:
            self._wire.send(frames)

    def abandon(self, call: _Call) -> None:
        """Nobody waits for it any more. It counts until the other side has said its last word."""
        if self._calls.get(call.id) is not call or self.is_lost:
            return
        if call.is_sent:
            self._wire.send([bulk_frames.cancel(call.id)])
        else:
            self._waiting.remove(call)
            del self._calls[call.id]

    def give_credit(self, call: _Call, size: int) -> None:
        """The reader of a stream has taken so much."""
        if self._calls.get(call.id) is call and not self.is_lost:
            self._wire.send([bulk_frames.credit(call.id, size)])

    def _over(self, call: _Call) -> None:
        del self._calls[call.id]
        self.sent_bytes -= call.size
        self._pump()

    def take(self, kind: Kind, body: memoryview) -> None:
        """A frame from the serving side. FrameError if it fits no request."""
        request_id = bulk_frames.read_id(body)
        call = self._calls.get(request_id)
        if call is None or not call.is_sent:
            raise FrameError(f"{kind.name} for a request that was not made ({request_id})")
        stream = call.stream
        if kind is Kind.CHUNK:
            if stream is None:
                raise FrameError("CHUNK for a request of one answer")
            stream.put(bulk_frames.read_payload(body)[1])
            return
        if kind is Kind.RESPONSE:
            if stream is not None or call.answer is None:
                raise FrameError("RESPONSE for a stream")
            if not call.answer.done():
                call.answer.set_result(bulk_frames.read_payload(body)[1])
        elif kind is Kind.END:
            bulk_frames.read_bare_id(body)
            if stream is None:
                raise FrameError("END for a request of one answer")
            stream.finish(None)
        else:
            error = bulk_frames.read_error(body)
            if error.kind is ErrorKind.REFUSED:
                call.fail(RequestRefused(error.code, error.text))
            else:
                call.fail(RequestFailed(f"{call.method} on {self._node_name}: {error.text}"))
        self._over(call)

    def lost(self, reason: str) -> None:
        """The connection is gone: every request ends, told apart by whether it was sent."""
        self.is_lost = True
        calls, self._calls = self._calls, {}
        self._waiting.clear()
        for call in calls.values():
            if call.is_sent:
                call.fail(LinkLost(f"{call.method} on {self._node_name}: connection {reason}; the outcome is unknown"))
            else:
                call.fail(NotConnected(f"{call.method} on {self._node_name}: connection {reason}; it was not sent"))


class BulkStream(AsyncIterator[bytes]):
    """The chunks of one stream, in order. Use it in ``async with``, so that leaving early tells the other side."""

    def __init__(self, client: BulkClient, call: _Call, loop: asyncio.AbstractEventLoop, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self.unread_bytes = 0
        """Waiting for the reader, costs included."""
        self._client = client
        self._call = call
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._owed = 0
        """Taken by the reader, not told yet."""
        self._is_over = False
        self._is_left = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, data: bytes) -> None:
        cost = len(data) + CHUNK_COST_BYTES
        held = self.unread_bytes + self._owed
        if held and held + cost > self.window_bytes:
            raise FrameError(f"more than the window of {self.window_bytes} bytes")
        if self._is_left:
            return
        self.unread_bytes += cost
        self._chunks.append(data)
        self._wake()

    def finish(self, error: Exception | None) -> None:
        self._is_over = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._is_over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self._is_left:
                raise StopAsyncIteration
            self._give_credit()
            assert self._reader is None, "one reader at a time"
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks.popleft()
        cost = len(data) + CHUNK_COST_BYTES
        self.unread_bytes -= cost
        self._owed += cost
        if self._owed * 2 >= self.window_bytes:
            self._give_credit()
        return data

    def _give_credit(self) -> None:
        if self._owed:
            owed, self._owed = self._owed, 0
            self._client.give_credit(self._call, owed)

    async def aclose(self) -> None:
        """Leave; idempotent. What was not read is thrown away."""
        if not self._is_left:
            self._is_left = True
            self._chunks.clear()
            self.unread_bytes = 0
            if not self._is_over:
                self._client.abandon(self._call)
            self._wake()

    async def __aenter__(self) -> BulkStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
