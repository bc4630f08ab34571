"""In-memory TCP: listeners, connections and transports on virtual time, with the bad habits of the real thing.

Each direction of a connection is a byte stream with latency, cut into segments of varying size (so that a reader never
meets the same chunking twice), a bounded window (so that a reader that pauses stops the writer), a write buffer with
``pause_writing``/``resume_writing``, FIN and RST. A connection can be reset, cut (half-open: both sides believe in
it), or stalled. What the two ends call on each other goes through timers in the receiver's context.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from jepsen.sim.owner import OWNER, Owner, SimForbidden

if TYPE_CHECKING:
    from jepsen.sim.loop import SimLoop

Address = tuple[str, int]

ANY_HOST = frozenset(["", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"])
"""Names of the one simulated machine."""
LOCAL = "127.0.0.1"


@dataclass(slots=True)
class Profile:
    """How one connection behaves."""

    latency_s: tuple[float, float] = (0.00002, 0.0002)
    segment_bytes: tuple[int, int] = (1, 65_536)
    window_bytes: int = 65_536

    @staticmethod
    def draw(rng: Random) -> Profile:
        """One of: a fast local link, a jittery one, one that brings crumbs, one with a tiny window."""
        kind = rng.randrange(8)
        if kind == 0:
            return Profile((0.0005, 0.02))
        if kind == 1:
            return Profile(segment_bytes=(1, 40), window_bytes=4096)
        if kind == 2:
            return Profile(segment_bytes=(1, 2000), window_bytes=1500)
        return Profile(segment_bytes=(rng.choice((1, 500, 60_000)), 65_536), window_bytes=262_144)


class SimNetwork:
    """All listeners and connections of one loop."""

    def __init__(self, loop: SimLoop, rng: Random) -> None:
        self.loop = loop
        self.rng = rng
        self.profile: Callable[[Random], Profile] = Profile.draw
        self.transports: list[SimTransport] = []
        self.connections_made = 0
        self._listeners: dict[int, SimServer] = {}
        self._next_port = 40_000

    # -- what the loop offers -------------------------------------------------------------------------------------

    def listen(self, protocol_factory: Any, host: Any, port: int, **options: Any) -> SimServer:
        """A listener; port 0 picks a free one."""
        if options.get("ssl") is not None or options.get("sock") is not None:
            raise SimForbidden("TLS and real sockets are not simulated")
        if port == 0:
            port = self._port()
        if port in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        server = SimServer(self, protocol_factory, (_name(host), port))
        self._listeners[port] = server
        return server

    async def connect(self, protocol_factory: Any, host: Any, port: int, **options: Any) -> tuple[SimTransport, Any]:
        """A connection, once the listener's side exists; ConnectionRefusedError without a listener."""
        if options.get("ssl") is not None or options.get("sock") is not None:
            raise SimForbidden("TLS and real sockets are not simulated")
        profile = self.profile(self.rng)
        await asyncio.sleep(self.rng.uniform(*profile.latency_s))
        server = self._listeners.get(port)
        if server is None or not server.owner_is_alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        here, there = (LOCAL, self._port()), server.address
        protocol = protocol_factory()
        mine = SimTransport(self, protocol, contextvars.copy_context(), profile, here, there)
        theirs = SimTransport(self, None, server.context, profile, there, here)
        mine.peer, theirs.peer = theirs, mine
        self.transports += (mine, theirs)
        self.connections_made += 1
        theirs.number = mine.number = self.connections_made
        theirs.accept(server.protocol_factory)
        mine.begin()
        await asyncio.sleep(0)
        return mine, protocol

    # -- faults ---------------------------------------------------------------------------------------------------

    def live(self, owner: Owner | None = None) -> list[SimTransport]:
        """Transports that are still connected (of one process)."""
        self.transports = [transport for transport in self.transports if not transport.is_lost]
        return [t for t in self.transports if owner is None or t.context.get(OWNER) is owner]

    def drop_process(self, owner: Owner, *, silently: bool) -> None:
        """The process is gone. Peers get a reset soon; ``silently`` (power cut): only when somebody answers again."""
        for port, server in list(self._listeners.items()):
            if server.context.get(OWNER) is owner:
                del self._listeners[port]
        for transport in self.live(owner):
            transport.vanish(self.rng.uniform(0.2, 5.0) if silently else self.rng.uniform(0.0, 0.01))

    # -- inside ---------------------------------------------------------------------------------------------------

    def forget(self, server: SimServer) -> None:
        """The listener is closed."""
        if self._listeners.get(server.address[1]) is server:
            del self._listeners[server.address[1]]

    def _port(self) -> int:
        self._next_port += 1
        return self._next_port


class SimSocket:
    """As much of a socket as code asks a transport or a server for."""

    def __init__(self, own: Address, peer: Address | None) -> None:
        self._own, self._peer = own, peer

    def getsockname(self) -> Address:
        return self._own

    def getpeername(self) -> Address:
        if self._peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._peer

    def setsockopt(self, *args: object) -> None:
        """Options have no effect on memory."""


class SimServer(asyncio.AbstractServer):
    """A listener."""

    def __init__(self, network: SimNetwork, protocol_factory: Any, address: Address) -> None:
        self.network = network
        self.protocol_factory = protocol_factory
        self.address = address
        self.context = contextvars.copy_context()
        self.sockets: tuple[SimSocket, ...] = (SimSocket(address, None),)

    @property
    def owner_is_alive(self) -> bool:
        owner = self.context.get(OWNER)
        return owner is None or owner.is_alive

    def close(self) -> None:
        self.sockets = ()
        self.network.forget(self)

    def is_serving(self) -> bool:
        return bool(self.sockets)

    async def start_serving(self) -> None:
        """It serves from birth."""

    async def serve_forever(self) -> None:
        await self.network.loop.create_future()

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.network.loop


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(
        self,
        network: SimNetwork,
        protocol: Any,
        context: contextvars.Context,
        profile: Profile,
        own: Address,
        peer: Address,
    ) -> None:
        super().__init__({"sockname": own, "peername": peer, "socket": SimSocket(own, peer)})
        self.network = network
        self.context = context
        self.profile = profile
        self.peer: SimTransport = self
        self.number = 0
        self.is_lost = False
        """connection_lost was called or will never be: the end does not exist any more."""
        self.is_cut = False
        """Half-open: what is sent goes nowhere, nobody is told."""
        self.is_stalled = False
        """Nothing is sent for now; buffers fill."""
        self.bytes_sent = 0
        self._protocol = protocol
        self._out = bytearray()
        self._in_flight = 0
        self._last_arrival = 0.0
        self._in: deque[bytes | None] = deque()
        self._reading = True
        self._closing = False
        self._fin_wanted = False
        self._fin_sent = False
        self._writing_paused = False
        self._high, self._low = 65_536, 16_384

    # -- life -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._soon(self._protocol.connection_made, self)

    def accept(self, protocol_factory: Any) -> None:
        def made() -> None:
            if self.is_lost:
                return
            self._protocol = protocol_factory()
            self._protocol.connection_made(self)
            self._take()

        self._soon(made)

    def vanish(self, reset_after_s: float) -> None:
        """This end's process died."""
        self.is_lost = self._closing = True
        self._out.clear()
        self._in.clear()
        self._later(self.peer, reset_after_s, self.peer.reset)

    def reset(self) -> None:
        """An RST arrived: everything unsent is lost, and perhaps what was not read yet."""
        if self.is_lost or (self._closing and not self._out):
            return
        if self.network.rng.random() < 0.5:
            self._in.clear()
        self._lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _lose(self, error: Exception | None) -> None:
        if self.is_lost:
            return
        self.is_lost = self._closing = True
        self._out.clear()
        if self._protocol is not None:
            self._soon(self._protocol.connection_lost, error)

    # -- asyncio.Transport ----------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._in.clear()
        self._flush()

    def abort(self) -> None:
        if self.is_lost:
            return
        self._later(self.peer, self._latency(), self.peer.reset)
        self._lose(None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._fin_wanted or not data:
            return
        self._out += data
        self._flush()
        if len(self._out) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._fin_wanted = True
        self._flush()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 65_536 if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._soon(self._take)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    # -- moving bytes ---------------------------------------------------------------------------------------------

    def stall(self, stalled: bool) -> None:
        """Stop or go on sending."""
        self.is_stalled = stalled
        if not stalled:
            self._flush()

    def _flush(self) -> None:
        rng, profile, out = self.network.rng, self.profile, self._out
        while out and not self.is_stalled:
            room = profile.window_bytes - self._in_flight
            if room <= 0:
                return
            size = min(room, rng.randint(*profile.segment_bytes), len(out))
            segment = bytes(memoryview(out)[:size])
            del out[:size]
            self._in_flight += size
            self.bytes_sent += size
            self._send(segment)
        if out:
            return
        if (self._closing or self._fin_wanted) and not self._fin_sent:
            self._fin_sent = True
            self._send(None)
        if self._closing:
            self._lose(None)

    def _send(self, segment: bytes | None) -> None:
        if self.is_cut:
            return
        loop = self.network.loop
        arrival = self._last_arrival = max(self._last_arrival, loop.time() + self._latency())
        loop.trace("net", self.number, len(segment) if segment is not None else -1)
        loop.call_at(arrival, self.peer._arrived, segment, context=self.peer.context)

    def _arrived(self, segment: bytes | None) -> None:
        if self.is_lost or self._closing:
            if segment is not None and not self.peer.is_lost:
                self._later(self.peer, self._latency(), self.peer.reset)
            return
        self._in.append(segment)
        self._take()

    def _take(self) -> None:
        """Give the protocol what arrived, as long as it reads."""
        if self._protocol is None:
            return
        while self._in and self._reading and not self._closing:
            segment = self._in.popleft()
            try:
                if segment is None:
                    if not self._protocol.eof_received():
                        self.close()
                    break
                self._deliver(segment)
            except Exception as error:  # noqa: BLE001  # asyncio, too, turns any error into a lost connection
                self.network.loop.call_exception_handler(
                    {"message": "Fatal error: protocol.data_received() call failed.", "exception": error}
                )
                self.abort()
                return
            self.peer._consumed(len(segment))

    def _deliver(self, segment: bytes) -> None:
        protocol = self._protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(segment)
            return
        view = memoryview(segment)
        while view:
            buffer = memoryview(protocol.get_buffer(len(view)))
            taken = min(len(buffer), len(view))
            buffer[:taken] = view[:taken]
            protocol.buffer_updated(taken)
            view = view[taken:]

    def _consumed(self, size: int) -> None:
        self._in_flight -= size
        if self.is_lost:
            return
        if self._out:
            self._soon(self._flush)
        if self._writing_paused and len(self._out) <= self._low:
            self._writing_paused = False
            self._soon(self._resume_writing)

    def _resume_writing(self) -> None:
        if not self.is_lost:
            self._protocol.resume_writing()

    # -- scheduling -----------------------------------------------------------------------------------------------

    def _latency(self) -> float:
        return self.network.rng.uniform(*self.profile.latency_s)

    def _soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.network.loop.call_soon(callback, *args, context=self.context)

    def _later(self, end: SimTransport, delay_s: float, callback: Callable[..., object]) -> None:
        self.network.loop.call_later(delay_s, callback, context=end.context)


def _name(host: Any) -> str:
    if isinstance(host, list | tuple):
        host = host[0] if host else LOCAL
    return LOCAL if host is None or host in ANY_HOST else str(host)
