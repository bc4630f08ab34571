"""Requests and streams over one bulk connection: the serving side. Handlers are registered by method name.

A handler starts in the order in which requests came; each is a task that ends with its connection. ``RequestRefused``
from a handler is a definite answer; any other error is logged here and told as an unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from jetstore.limits import Limits
from jetstore.node.link import bulk_frames
from jetstore.node.link.bulk import Wire
from jetstore.node.link.bulk_frames import CHUNK_COST_BYTES, ErrorKind, Outgoing, Request
from jetstore.node.link.frames import FrameError, Kind
from jetstore.node.link.ports import RequestHandler, RequestRefused, StreamHandler

log = structlog.get_logger(__name__)

NO_METHOD = 404
BUSY = 429
CANCELLED = 499
TOO_LARGE = 413


@dataclass(slots=True)
class Method:
    """A registered handler."""

    name: str
    concurrent_max: int
    """Running at once over all connections; above: refused as BUSY."""
    answer: RequestHandler | None = None
    stream: StreamHandler | None = None
    running: int = 0


class _Serving:
    """One request being served."""

    __slots__ = ("credit", "request_id", "size", "task", "waiter", "window_bytes")

    def __init__(self, request: Request) -> None:
        self.request_id = request.id
        self.size = len(request.payload)
        self.window_bytes = self.credit = request.window_bytes
        self.waiter: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None


class BulkServer:
    """What this node does for the other one on one connection."""

    def __init__(
        self,
        wire: Wire,
        methods: dict[str, Method],
        *,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        node_id: str,
        answer_bytes_max: int,
    ) -> None:
        """``methods`` may grow later. Answers and chunks above ``answer_bytes_max`` are the handler's error."""
        self.is_lost = False
        self.held_bytes = 0
        """Payloads of the requests being served."""
        self._wire = wire
        self._methods = methods
        self._limits = limits
        self._loop = loop
        self._node_id = node_id
        self._answer_bytes_max = answer_bytes_max
        self._serving: dict[int, _Serving] = {}
        self._for_room: deque[asyncio.Future[None]] = deque()
        """Handlers that wait until the connection takes more."""

    @property
    def running(self) -> int:
        """Requests being served."""
        return len(self._serving)

    def take(self, kind: Kind, body: memoryview) -> None:
        """A frame from the asking side."""
        if kind is Kind.REQUEST:
            self._begin(bulk_frames.read_request(body))
            return
        size = 0
        if kind is Kind.CREDIT:
            request_id, size = bulk_frames.read_credit(body)
        else:
            request_id = bulk_frames.read_bare_id(body)
        serving = self._serving.get(request_id)
        if serving is None:
            return  # it ended while this was on its way
        if kind is Kind.CANCEL:
            if serving.task is not None:
                serving.task.cancel()
            return
        serving.credit += size
        if serving.credit > serving.window_bytes:
            raise FrameError("more credit than was used")
        if serving.waiter is not None and not serving.waiter.done():
            serving.waiter.set_result(None)

    def _begin(self, request: Request) -> None:
        limits = self._limits
        if request.id in self._serving:
            raise FrameError(f"two requests with one id ({request.id})")
        size = len(request.payload)
        method = self._methods.get(request.method)
        handler = method and (method.stream if request.window_bytes else method.answer)
        text, code = "", BUSY
        if method is None or handler is None:
            text, code = f"no such method: {request.method}", NO_METHOD
        elif len(self._serving) >= limits.bulk_requests_max:
            text = f"{limits.bulk_requests_max} requests are being served already"
        elif self.held_bytes and self.held_bytes + size > limits.bulk_request_bytes:
            text = f"requests of {limits.bulk_request_bytes} bytes are being served already"
        elif method.running >= method.concurrent_max:
            text = f"{method.concurrent_max} requests for {method.name} are being served already"
        if text or method is None:
            self._wire.send([bulk_frames.error(request.id, ErrorKind.REFUSED, code, text)])
            return
        serving = self._serving[request.id] = _Serving(request)
        self.held_bytes += size
        method.running += 1
        serving.task = self._loop.create_task(self._serve(serving, method, request.payload))
        serving.task.add_done_callback(lambda task: self._ended(serving, method, task))

    async def _serve(self, serving: _Serving, method: Method, payload: bytes) -> None:
        """Run one handler, and send what it gives."""
        if method.stream is not None and serving.window_bytes:
            async with aclosing(method.stream(self._node_id, payload)) as chunks:
                async for chunk in chunks:
                    self._check_size(method, len(chunk))
                    await self._credit(serving, len(chunk) + CHUNK_COST_BYTES)
                    await self._send(bulk_frames.chunk(serving.request_id, chunk))
            await self._send(bulk_frames.end(serving.request_id))
            return
        assert method.answer is not None
        answer = await method.answer(self._node_id, payload)
        self._check_size(method, len(answer))
        await self._send(bulk_frames.response(serving.request_id, answer))

    def _check_size(self, method: Method, size: int) -> None:
        if size > self._answer_bytes_max:
            raise ValueError(f"{method.name} gave {size} bytes at once, at most {self._answer_bytes_max} can be sent")

    async def _credit(self, serving: _Serving, cost: int) -> None:
        """Wait until the reader has room; a chunk larger than its window goes alone."""
        while serving.credit < cost and serving.credit < serving.window_bytes:
            serving.waiter = self._loop.create_future()
            await serving.waiter
        serving.waiter = None
        serving.credit -= cost

    async def _send(self, frame: Outgoing) -> None:
        while not self._wire.is_writable:
            waiter = self._loop.create_future()
            self._for_room.append(waiter)
            await waiter
        self._wire.send([frame])

    def on_writable(self) -> None:
        """The connection takes more: those who wait try in turn."""
        waiting, self._for_room = self._for_room, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _ended(self, serving: _Serving, method: Method, task: asyncio.Task[None]) -> None:
        method.running -= 1
        self._serving.pop(serving.request_id, None)
        self.held_bytes -= serving.size
        error: BaseException | None = None if task.cancelled() else task.exception()
        if not task.cancelled() and error is None:
            return
        if isinstance(error, RequestRefused):
            frame = bulk_frames.error(serving.request_id, ErrorKind.REFUSED, error.code, error.text)
        elif task.cancelled():
            frame = bulk_frames.error(serving.request_id, ErrorKind.FAILED, CANCELLED, "cancelled")
        else:
            log.error("a request of another node failed", method=method.name, node=self._node_id, exc_info=error)
            frame = bulk_frames.error(serving.request_id, ErrorKind.FAILED, 500, f"{type(error).__name__}: {error}")
        if not self.is_lost:
            self._wire.send([frame])

    def lost(self) -> None:
        """The connection is gone: nobody waits for what is being done."""
        self.is_lost = True
        for serving in list(self._serving.values()):
            if serving.task is not None:
                serving.task.cancel()
