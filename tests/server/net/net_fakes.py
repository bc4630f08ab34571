"""A loop that is turned by hand and a transport in memory, for tests of connections without sockets or waiting."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from random import Random
from typing import Any, cast

from jetstore.types import Nanos
from server.auth.authenticator import Authenticator
from server.net.client_server import ClientServer
from server.net.connection import ClientConnection
from server.net.options import NetOptions
from server.protocol.info import ServerInfo
from server.route.router import Router

QUIET = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'


class Handle:
    """What call_later returns."""

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Done:
    """The future of work that another thread would do."""

    def __init__(self, loop: FakeLoop, value: object) -> None:
        self.loop = loop
        self.value = value

    def exception(self) -> None:
        return None

    def result(self) -> object:
        return self.value

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self.loop.call_soon(callback, self)


class FakeLoop:
    """Time stands still until ``advance``."""

    def __init__(self) -> None:
        self.now = 100.0
        self._soon: list[Handle] = []
        self._later: list[tuple[float, int, Handle]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: object) -> Handle:
        handle = Handle(callback, args)
        self._soon.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Handle:
        handle = Handle(callback, args)
        self._count += 1
        heapq.heappush(self._later, (self.now + delay, self._count, handle))
        return handle

    def run_in_executor(self, _executor: None, work: Callable[[], object]) -> Done:
        return Done(self, work())

    def run_soon(self) -> None:
        while self._soon:
            soon, self._soon = self._soon, []
            for handle in soon:
                if not handle.is_cancelled:
                    handle.callback(*handle.args)

    def advance(self, seconds: float) -> None:
        """Let time pass, timers in order."""
        until = self.now + seconds
        self.run_soon()
        while self._later and self._later[0][0] <= until:
            self.now, _, handle = heapq.heappop(self._later)
            if not handle.is_cancelled:
                handle.callback(*handle.args)
            self.run_soon()
        self.now = until

    def timers(self) -> int:
        """Timers that would still fire."""
        return sum(not handle.is_cancelled for _, _, handle in self._later)


class FakeClock:
    def __init__(self, loop: FakeLoop) -> None:
        self.loop = loop

    def wall_ns(self) -> Nanos:
        return Nanos(int((1_700_000_000 + self.loop.now) * 1e9))


class FakeTransport(asyncio.Transport):
    """Takes bytes while ``is_open_valve``, else holds them as a full socket does."""

    def __init__(self, loop: FakeLoop, peer: tuple[str, int] = ("10.0.0.7", 5555)) -> None:
        super().__init__({"peername": peer})
        self.loop = loop
        self.protocol: ClientConnection | None = None
        self.is_valve_open = True
        self.received = b""
        self.held = bytearray()
        self.writes: list[bytes] = []
        self.is_reading_paused = False
        self.was_aborted = False
        self._is_closing = False
        self._is_gone = False
        self._high = self._low = 0
        self._is_paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        assert low is not None
        self._high, self._low = high, low

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._is_closing, "nothing may be written after close"
        self.writes.append(bytes(data))
        self.held += data
        if self.is_valve_open:
            self.drain()
        elif len(self.held) > self._high and not self._is_paused:
            self._is_paused = True
            assert self.protocol is not None
            self.protocol.pause_writing()

    def drain(self, count: int | None = None) -> None:
        """Let the peer take bytes."""
        count = len(self.held) if count is None else count
        self.received += self.held[:count]
        del self.held[:count]
        if self._is_paused and len(self.held) <= self._low:
            self._is_paused = False
            assert self.protocol is not None
            self.protocol.resume_writing()
        if self._is_closing and not self.held:
            self._lose(None)

    def close(self) -> None:
        self._is_closing = True
        if not self.held:
            self._lose(None)

    def abort(self) -> None:
        self.was_aborted = True
        self._is_closing = True
        self.held.clear()
        self._lose(None)

    def is_closing(self) -> bool:
        return self._is_closing

    def _lose(self, exc: Exception | None) -> None:
        if not self._is_gone:
            self._is_gone = True
            assert self.protocol is not None
            self.loop.call_soon(self.protocol.connection_lost, exc)

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    @property
    def is_gone(self) -> bool:
        return self._is_gone


class Peer:
    """A client at the other end of a fake transport."""

    def __init__(self, loop: FakeLoop, server: ClientServer) -> None:
        self.loop = loop
        self.transport = FakeTransport(loop)
        self.connection = ClientConnection(server)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)
        self.take()

    def send(self, data: bytes) -> bytes:
        """What comes back at once."""
        self.connection.data_received(data)
        self.loop.run_soon()
        return self.take()

    def take(self) -> bytes:
        received, self.transport.received = self.transport.received, b""
        return received


class ServerBench:
    """A client server on a fake loop."""

    def __init__(self, options: NetOptions | None = None, authenticator: Authenticator | None = None) -> None:
        self.loop = FakeLoop()
        self.router = Router("$G", Random(1), self.loop.call_soon)
        self.info = ServerInfo("N" + "A" * 55, "n1", "2.15.1", "0.1.0", "python", "127.0.0.1", 4222, 1 << 20)
        self.server = ClientServer(
            options or NetOptions(),
            self.info,
            authenticator or Authenticator(),
            self.router,
            FakeClock(self.loop),
            Random(2),
            cast("asyncio.AbstractEventLoop", cast("Any", self.loop)),
        )

    def connect(self, first: bytes = QUIET) -> Peer:
        peer = Peer(self.loop, self.server)
        peer.send(first)
        return peer
