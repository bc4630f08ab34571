"""All client connections of one server: the listener, the registry, the output round, the end."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Protocol

from jetstore.clock import Clock
from server.auth.authenticator import WEBSOCKET, Authenticator, SlowCheck, User
from server.config.tls import TlsOptions
from server.config.websocket import WebSocketOptions
from server.net.accounts import Accounts
from server.net.connection import ClientConnection
from server.net.options import NetOptions
from server.net.stats import ConnectionStats, Totals
from server.net.tls import TlsLayer, context_of
from server.protocol.info import ServerInfo
from server.protocol.reasons import CloseReason
from server.route.router import Router

_BACKLOG = 1024
NONCE_BYTES = 11
_SLOW = (CloseReason.SLOW_CONSUMER_PENDING_BYTES, CloseReason.SLOW_CONSUMER_WRITE_DEADLINE)


class ConnectionEvents(Protocol):
    """Who wants to know that clients come and go."""

    def connected(self, connection: ClientConnection) -> None:
        """Its CONNECT was accepted."""

    def disconnected(self, connection: ClientConnection, stats: ConnectionStats) -> None:
        """It is gone, and its account counts it no longer. ``connection.is_admitted``: it was ``connected``."""


class ClientServer:
    """Built by the composition root; ``start`` listens, ``accept`` takes a transport from anywhere else."""

    def __init__(
        self,
        options: NetOptions,
        info: ServerInfo,
        authenticator: Authenticator,
        router: Router,
        clock: Clock,
        rng: Random,
        loop: asyncio.AbstractEventLoop,
        entropy: Callable[[int], bytes] | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        """``info.auth_required`` and the protocol option are set from the authenticator here.

        ``entropy`` gives random bytes that nobody can foresee; None: ``rng`` does.
        ``accounts`` None: only the global one, whose router is ``router``.
        """
        self.options = options
        self.info = info
        self.authenticator = authenticator
        self.router = router
        self.accounts = accounts or Accounts(router)
        self.clock = clock
        self.rng = rng
        self.loop = loop
        self._entropy = entropy or rng.randbytes
        options.protocol.auth_required = authenticator.is_required
        info.auth_required = authenticator.is_shown
        for account in self.accounts:
            account.router.drops_when_congested = options.no_fast_producer_stall
            account.router.flush_output = self.flush
        self.connections: dict[int, ClientConnection] = {}
        """Open ones by cid."""
        self.closed: deque[ConnectionStats] = deque(maxlen=options.max_closed_clients)
        self.totals = Totals()
        """Counters of the server as a whole; message counters of closed connections only (see ``traffic``)."""
        self.events: ConnectionEvents | None = None
        self.reading = 0
        """> 0 while a read is handled: its output is flushed at its end."""
        self._last_cid = 0
        self._tls: tuple[ssl.SSLContext, TlsOptions, bool] | None = None
        self._dirty: list[ClientConnection] = []
        self._flush_is_due = False
        self._listeners: list[asyncio.AbstractServer] = []
        self._all_gone: asyncio.Future[None] | None = None

    # -- listening --------------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> int:
        """Listen; the port in use (a port ≤ 0 takes a free one). Raises OSError."""
        listener = await self.loop.create_server(self.new_protocol, host or None, max(port, 0), backlog=_BACKLOG)
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    def use_tls(self, options: TlsOptions | None, *, is_optional: bool) -> None:
        """From now on new connections are encrypted (None: not). Raises OSError if the files are no good."""
        self._tls = None if options is None else (context_of(options), options, is_optional)
        info, is_on = self.info, options is not None
        info.tls_required, info.tls_available = is_on and not is_optional, is_on and is_optional
        info.tls_verify = options is not None and options.verify

    def new_protocol(self) -> asyncio.Protocol:
        """What serves a new connection of the listener."""
        connection = ClientConnection(self)
        if self._tls is None:
            return connection
        context, options, is_optional = self._tls
        return TlsLayer(connection, context, options, self.loop, is_optional=is_optional)

    async def start_websocket(self, options: WebSocketOptions) -> int:
        """Listen for WebSocket clients, too; the port in use. Raises OSError."""
        from server.net.websocket import WebSocketLayer  # its library takes a while: only where it is wanted

        context = None if options.no_tls or options.tls is None else context_of(options.tls)

        def new_protocol() -> asyncio.Protocol:
            connection = ClientConnection(self, WEBSOCKET)
            layer = WebSocketLayer(connection, options, self.loop, self.options.protocol.max_payload_bytes)
            if context is None or options.tls is None:
                return layer
            first = replace(options.tls, handshake_first=True, first_wait_ns=0)
            return TlsLayer(layer, context, first, self.loop)

        listener = await self.loop.create_server(
            new_protocol, options.host or None, max(options.port, 0), backlog=_BACKLOG
        )
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    def accept(self, transport: asyncio.Transport) -> ClientConnection:
        """Serve a transport that somebody else accepted; its events must be given to the returned protocol."""
        connection = ClientConnection(self)
        connection.connection_made(transport)
        return connection

    def stop_listening(self) -> None:
        """Take no more connections; open ones go on."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Send what is owed to everybody, close, and cut off whoever has not taken it after ``grace_s``."""
        self.stop_listening()
        for account in self.accounts:
            account.router.flush_acks()
        self.flush()
        for connection in list(self.connections.values()):
            connection.close(CloseReason.SERVER_SHUTDOWN)
        if self.connections:
            self._all_gone = self.loop.create_future()
            timer = self.loop.call_later(grace_s, self._cut_off)
            try:
                await self._all_gone
            finally:
                timer.cancel()
                self._all_gone = None

    def _cut_off(self) -> None:
        for connection in list(self.connections.values()):
            if connection.transport is not None:
                connection.transport.abort()

    def broadcast_info(self) -> None:
        """Something in ``info`` changed: tell every client that listens."""
        for connection in list(self.connections.values()):
            connection.send_info()

    def enter_lame_duck(self) -> None:
        """Take no more connections and tell clients to go elsewhere; ``close_gradually`` and ``stop`` come later."""
        self.stop_listening()
        self.info.lame_duck = True
        self.broadcast_info()

    def close_gradually(self, duration_s: float) -> None:
        """Close the connections one by one, evenly over this time, so that clients do not all reconnect at once."""
        remaining = deque(self.connections.values())
        interval_s = duration_s / max(len(remaining), 1)

        def close_next() -> None:
            if remaining:
                remaining.popleft().close(CloseReason.SERVER_SHUTDOWN)
                self.loop.call_later(interval_s, close_next)

        close_next()

    # -- credentials ------------------------------------------------------------------------------------------------

    def new_nonce(self) -> str:
        """What a client must sign with its key."""
        return base64.urlsafe_b64encode(self._entropy(NONCE_BYTES)).rstrip(b"=").decode()

    def check_elsewhere(self, check: SlowCheck, answer: Callable[[User | None], None]) -> None:
        """Compare a password in a thread of the loop's, then call back from the loop."""
        compared = self.loop.run_in_executor(None, check.run)
        compared.add_done_callback(lambda done: answer(done.result() if done.exception() is None else None))

    # -- registry ---------------------------------------------------------------------------------------------------

    def register(self, connection: ClientConnection) -> bool:
        """Give a connection its cid; False: there is no room for it."""
        self._last_cid += 1
        connection.cid = self._last_cid
        self.totals.total_connections += 1
        self.connections[connection.cid] = connection
        return len(self.connections) <= self.options.max_connections

    def unregister(self, connection: ClientConnection) -> None:
        """The transport is gone."""
        if self.connections.pop(connection.cid, None) is None:
            return
        for totals in (self.totals, connection.account.closed):
            totals.in_msgs += connection.in_msgs
            totals.in_bytes += connection.in_bytes
            totals.out_msgs += connection.out_msgs
            totals.out_bytes += connection.out_bytes
        if connection.close_reason in _SLOW:
            connection.account.closed.slow_consumers += 1
        stats = connection.stats()
        self.closed.append(stats)
        if self.events is not None:
            self.events.disconnected(connection, stats)
        if not self.connections and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def traffic(self) -> Totals:
        """All counters, with the messages and bytes of open connections added."""
        totals = replace(self.totals)
        for connection in self.connections.values():
            totals.in_msgs += connection.in_msgs
            totals.in_bytes += connection.in_bytes
            totals.out_msgs += connection.out_msgs
            totals.out_bytes += connection.out_bytes
        return totals

    # -- output -----------------------------------------------------------------------------------------------------

    def mark_dirty(self, connection: ClientConnection) -> None:
        """A connection has output: it is flushed at the end of the current read, or in the loop's next turn."""
        self._dirty.append(connection)
        if not self.reading and not self._flush_is_due:
            self._flush_is_due = True
            self.loop.call_soon(self._flush_due)

    def _flush_due(self) -> None:
        self._flush_is_due = False
        self.flush()

    def flush(self) -> None:
        """One write for each connection with output."""
        if self.reading:
            return
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()
