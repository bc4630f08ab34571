"""In-memory TCP: listeners, connections and transports on virtual time, with the bad habits of the real thing.

Each machine is a host with a name of its own; the usual names of "this machine" mean the host of whoever asks. Each
direction of a connection is a byte stream (``transport.py``) over a link (``links.py``). A connection can be reset, cut
(half-open: both sides believe in it), or stalled. What the two ends call on each other goes through timers in the
receiver's context.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from jepsen.sim.framing import Framing, LinkFraming
from jepsen.sim.links import Links
from jepsen.sim.owner import HARNESS_HOST, OWNER, Owner, SimForbidden
from jepsen.sim.transport import Address, Profile, SimSocket, SimTransport

if TYPE_CHECKING:
    from jepsen.sim.loop import SimLoop

ANY_HOST = frozenset(["", "0.0.0.0", "::"])
LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1"])
"""Names of the machine that asks; a listener on one of them is reached from there only."""
CONNECT_BOUND_S = 31.0
"""How long a connection attempt goes on while nothing comes back."""


class SimNetwork:
    """All listeners and connections of one loop."""

    def __init__(self, loop: SimLoop, rng: Random) -> None:
        self.loop = loop
        self.rng = rng
        self.profile: Callable[[Random], Profile] = Profile.draw
        self.transports: list[SimTransport] = []
        self.connections_made = 0
        self.links = Links()
        self.links.on_heal = self._healed
        self.cluster_ports: frozenset[int] = frozenset()
        """Connections to these ports carry frames, and are treated frame by frame."""
        self.framing: Framing = LinkFraming()
        self._listeners: dict[Address, SimServer] = {}
        self._next_port = 40_000

    # -- what the loop offers -------------------------------------------------------------------------------------

    def listen(self, protocol_factory: Any, host: Any, port: int, **options: Any) -> SimServer:
        """A listener; port 0 picks a free one."""
        if options.get("ssl") is not None or options.get("sock") is not None:
            raise SimForbidden("TLS and real sockets are not simulated")
        if port == 0:
            port = self._port()
        here = _own_host()
        if (here, port) in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        if (bound := _first(host)) not in (here, *ANY_HOST, *LOOPBACK):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        server = self._listeners[here, port] = SimServer(self, protocol_factory, (here, port))
        server.is_local = bound in LOOPBACK
        return server

    async def connect(self, protocol_factory: Any, host: Any, port: int, **options: Any) -> tuple[SimTransport, Any]:
        """A connection, once the listener's side exists; ConnectionRefusedError without a listener."""
        if options.get("ssl") is not None or options.get("sock") is not None:
            raise SimForbidden("TLS and real sockets are not simulated")
        here = _own_host()
        there = _first(host)
        if there in ANY_HOST or there in LOOPBACK:
            there = here
        profile = self.profile(self.rng)
        await self._reach(here, there)
        await asyncio.sleep(self.rng.uniform(*profile.latency_s))
        server = self._listeners.get((there, port))
        if server is None or not server.owner_is_alive or (server.is_local and here != there):
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        own = (here, self._port())
        protocol = protocol_factory()
        mine = SimTransport(self, protocol, contextvars.copy_context(), profile, own, server.address)
        theirs = SimTransport(self, None, server.context, profile, server.address, own)
        mine.peer, theirs.peer = theirs, mine
        mine.is_framed = theirs.is_framed = port in self.cluster_ports
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
        for address, server in list(self._listeners.items()):
            if server.context.get(OWNER) is owner:
                del self._listeners[address]
        for transport in self.live(owner):
            transport.vanish(self.rng.uniform(0.2, 5.0) if silently else self.rng.uniform(0.0, 0.01))

    # -- inside ---------------------------------------------------------------------------------------------------

    def forget(self, server: SimServer) -> None:
        """The listener is closed."""
        if self._listeners.get(server.address) is server:
            del self._listeners[server.address]

    async def _reach(self, here: str, there: str) -> None:
        """Knock until an answer comes back, at growing intervals; TimeoutError in the end."""
        waited_s, pause_s = 0.0, 1.0
        while not self.links.is_open(here, there):
            if waited_s >= CONNECT_BOUND_S:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            pause_s *= 2
        delay_s = self.links.get(here, there).delay_s[1] + self.links.get(there, here).delay_s[1]
        if delay_s:
            await asyncio.sleep(delay_s)

    def _healed(self) -> None:
        for transport in self.live():
            transport.healed()

    def _port(self) -> int:
        self._next_port += 1
        return self._next_port


class SimServer(asyncio.AbstractServer):
    """A listener."""

    def __init__(self, network: SimNetwork, protocol_factory: Any, address: Address) -> None:
        self.network = network
        self.protocol_factory = protocol_factory
        self.address = address
        self.is_local = False
        """Reached from its own machine only."""
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


def _own_host() -> str:
    owner = OWNER.get()
    return HARNESS_HOST if owner is None else owner.host


def _first(host: Any) -> str:
    if isinstance(host, list | tuple):
        host = host[0] if host else ""
    return "" if host is None else str(host)
