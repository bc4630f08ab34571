"""The twin of ``Links`` without bytes: nodes of one process, for tests of whoever drives a node.

Same methods, same errors, same order of events; messages pass through ``loop.call_soon``. ``MemoryNetwork`` can cut and
join pairs, in one direction too. What it leaves out: frames, hellos, credit and bounds (``links.py`` has those).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from types import TracebackType

from jetstore.node.link.hello import Hello, Purpose
from jetstore.node.link.ports import (
    LinkHandler,
    LinkLost,
    NodeLinks,
    NotConnected,
    RequestFailed,
    RequestHandler,
    RequestRefused,
    StreamHandler,
)
from jetstore.node.link.raft_codec import Addressed
from jetstore.raft.message import Message
from jetstore.types import Buffer, GroupUid


class MemoryNetwork:
    """Which nodes there are, and who reaches whom."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.nodes: dict[str, MemoryLinks] = {}
        self._cut: set[tuple[str, str]] = set()

    def reaches(self, source: str, target: str) -> bool:
        """Whether what ``source`` sends arrives."""
        return (source, target) not in self._cut

    def cut(self, one: str, other: str) -> None:
        """Both lose the connection at once, as by a reset; it does not come back before ``join``."""
        self._cut |= {(one, other), (other, one)}
        self._part(one, other, "cut")

    def silence(self, source: str, target: str) -> None:
        """What ``source`` sends vanishes; both still believe in the connection."""
        self._cut.add((source, target))

    def join(self, one: str, other: str) -> None:
        """They reach each other again, and connect."""
        self._cut -= {(one, other), (other, one)}
        self.connect()

    def connect(self) -> None:
        """Whoever can be connected is."""
        for one_id, one in sorted(self.nodes.items()):
            for other_id, other in sorted(self.nodes.items()):
                can = self.reaches(one_id, other_id) and self.reaches(other_id, one_id)
                if one_id < other_id and other_id not in one.up and can:
                    one._rise(other)
                    other._rise(one)

    def leave(self, node: MemoryLinks, reason: str) -> None:
        """The node is gone."""
        if self.nodes.pop(node.node_id, None) is not None:
            for other in sorted(node.up):
                self._part(node.node_id, other, reason)

    def _part(self, one: str, other: str, reason: str) -> None:
        for here, there in ((one, other), (other, one)):
            node = self.nodes.get(here)
            if node is not None:
                node._fall(there, reason)


class MemoryLinks(NodeLinks):
    """One node's end. ``start`` connects it with all that have started."""

    def __init__(self, network: MemoryNetwork, hello: Hello, handler: LinkHandler) -> None:
        self.network = network
        self.hello = hello
        self.node_id = hello.node_id
        self.handler = handler
        self.up: dict[str, MemoryLinks] = {}
        self.messages_dropped = 0
        self._answers: dict[str, RequestHandler] = {}
        self._streams: dict[str, StreamHandler] = {}
        self._asked: dict[asyncio.Future[bytes], tuple[str, str]] = {}
        """Requests on their way: node and method."""
        self._tasks: dict[asyncio.Task[None], None] = {}

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self, host: str = "", port: int = 0) -> int:
        """Join the network."""
        assert self.node_id not in self.network.nodes, f"{self.node_id} is there already"
        self.network.nodes[self.node_id] = self
        self.network.connect()
        return port

    async def stop(self) -> None:
        """Leave it."""
        self.network.leave(self, "this node stops")
        for task in list(self._tasks):
            task.cancel()

    def _rise(self, other: MemoryLinks) -> None:
        self.up[other.node_id] = other
        self.network.loop.call_soon(self._told_up, other)

    def _told_up(self, other: MemoryLinks) -> None:
        if self.up.get(other.node_id) is other:
            self.handler.on_up(other.node_id, other.hello)
            self.handler.on_bulk(other.node_id, True)

    def _fall(self, node_id: str, reason: str) -> None:
        if self.up.pop(node_id, None) is None:
            return
        for answer, (node, method) in list(self._asked.items()):
            if node == node_id and not answer.done():
                answer.set_exception(LinkLost(f"{method} on {node}: connection {reason}; the outcome is unknown"))
        self.network.loop.call_soon(self._told_down, node_id, reason)

    def _told_down(self, node_id: str, reason: str) -> None:
        self.handler.on_down(node_id, reason)
        self.handler.on_bulk(node_id, False)

    def is_up(self, node_id: str, purpose: Purpose = Purpose.RAFT) -> bool:
        return node_id in self.up

    def connected(self) -> list[str]:
        return sorted(self.up)

    # -- Raft -----------------------------------------------------------------------------------------------------

    def send_raft(self, node_id: str, group: GroupUid, messages: Sequence[Message]) -> None:
        other = self.up.get(node_id)
        if other is None or not self.network.reaches(self.node_id, node_id):
            self.messages_dropped += len(messages)
            return
        batch: list[Addressed] = [(group, message) for message in messages]
        self.network.loop.call_soon(other._arrive, self, batch)

    def _arrive(self, sender: MemoryLinks, batch: list[Addressed]) -> None:
        if self.up.get(sender.node_id) is sender and batch:
            self.handler.on_raft(sender.node_id, batch)

    # -- requests -------------------------------------------------------------------------------------------------

    def register(self, method: str, handler: RequestHandler, *, concurrent_max: int = 64) -> None:
        assert method not in self._answers, f"two handlers for {method}"
        self._answers[method] = handler

    def register_stream(self, method: str, handler: StreamHandler, *, concurrent_max: int = 16) -> None:
        assert method not in self._streams, f"two handlers for {method}"
        self._streams[method] = handler

    def request(self, node_id: str, method: str, payload: Buffer) -> asyncio.Future[bytes]:
        other = self._other(node_id)
        answer: asyncio.Future[bytes] = self.network.loop.create_future()
        self._asked[answer] = (node_id, method)
        answer.add_done_callback(lambda done: self._asked.pop(done, None))
        if self.network.reaches(self.node_id, node_id):
            task = self.network.loop.create_task(other._serve(self, method, bytes(payload), answer))
            other._tasks[task] = None
            task.add_done_callback(lambda done: other._tasks.pop(done, None))
            answer.add_done_callback(lambda done: task.cancel() if done.cancelled() else None)
        return answer

    def _other(self, node_id: str) -> MemoryLinks:
        other = self.up.get(node_id)
        if other is None:
            raise NotConnected(f"no bulk connection to {node_id}")
        return other

    async def _serve(self, asker: MemoryLinks, method: str, payload: bytes, answer: asyncio.Future[bytes]) -> None:
        given = b""
        error: Exception | None = None
        try:
            handler = self._answers.get(method)
            if handler is None:
                raise RequestRefused(404, f"no such method: {method}")
            given = await handler(asker.node_id, payload)
        except RequestRefused as refused:
            error = refused
        except Exception as broken:  # noqa: BLE001  # whatever it is, the caller is told that it does not know
            error = RequestFailed(f"{method} on {self.hello.node_name}: {type(broken).__name__}: {broken}")
        if answer.done() or not self.network.reaches(self.node_id, asker.node_id):
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(given)

    def stream(self, node_id: str, method: str, payload: Buffer, *, window_bytes: int = 0) -> MemoryStream:
        other = self._other(node_id)
        return MemoryStream(self, other, other._streams.get(method), method, bytes(payload))


class MemoryStream(AsyncIterator[bytes]):
    """As ``BulkStream``; the handler runs in the reader's task, a chunk at a time."""

    def __init__(
        self, asker: MemoryLinks, server: MemoryLinks, handler: StreamHandler | None, method: str, payload: bytes
    ) -> None:
        self._asker = asker
        self._server = server
        self._method = method
        self._chunks = self._run(handler, payload)

    async def _run(self, handler: StreamHandler | None, payload: bytes) -> AsyncGenerator[bytes, None]:
        if handler is None:
            raise RequestRefused(404, f"no such method: {self._method}")
        async with aclosing(handler(self._asker.node_id, payload)) as chunks:
            while True:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    self._check()
                    return
                except RequestRefused:
                    raise
                except Exception as broken:
                    raise RequestFailed(f"{self._method}: {type(broken).__name__}: {broken}") from broken
                self._check()
                yield chunk

    def _check(self) -> None:
        if self._asker.up.get(self._server.node_id) is not self._server:
            raise LinkLost(f"{self._method}: connection lost; the outcome is unknown")

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Leave; idempotent."""
        await self._chunks.aclose()

    async def __aenter__(self) -> MemoryStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
