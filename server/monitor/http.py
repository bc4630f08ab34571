"""A GET-only HTTP/1.1 server on the event loop, over h11.

One request at a time per connection: while one is answered, reading pauses. Request bodies are read and dropped.
A connection that says nothing for ``IDLE_S`` is closed; above ``CONNECTIONS_MAX`` new ones are closed at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, cast

import h11
import structlog

log = structlog.get_logger("monitor")

IDLE_S: Final = 60.0
HANDSHAKE_S: Final = 10.0
CONNECTIONS_MAX: Final = 256
HEADER_BYTES_MAX: Final = 16 * 1024
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class HttpListener:
    """What connections share."""

    answer: Callable[[str], Awaitable[Response]]
    """Target (path and query) → response."""
    connections: set[HttpConnection] = field(default_factory=set)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """A listening server. ``OSError`` if the address cannot be had."""
        loop = asyncio.get_running_loop()
        wait_s = HANDSHAKE_S if tls is not None else None
        return await loop.create_server(
            lambda: HttpConnection(self), host or None, max(port, 0), ssl=tls, ssl_handshake_timeout=wait_s
        )

    async def close_connections(self) -> None:
        """Drop whoever is connected, with answers under way."""
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        for connection in list(self.connections):
            connection.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


class HttpConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        if len(self._listener.connections) >= CONNECTIONS_MAX:
            transport.close()
            return
        self._listener.connections.add(self)
        self._wait_for_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        self._transport = None
        if self._idle is not None:
            self._idle.cancel()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        self._http.receive_data(b"")
        self._advance()
        return True

    def abort(self) -> None:
        """Close at once."""
        if self.task is not None:
            self.task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _wait_for_more(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._close)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _advance(self) -> None:
        """Take events until a request is complete or more bytes are needed."""
        while self._transport is not None and self.task is None:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error)
                return
            if event is h11.NEED_DATA or event is h11.PAUSED:
                self._wait_for_more()
                return
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                self._transport.pause_reading()
                if self._idle is not None:
                    self._idle.cancel()
                self.task = asyncio.get_running_loop().create_task(self._answer(self._request))
                self.task.add_done_callback(self._answered)
            elif isinstance(event, h11.ConnectionClosed):
                self._close()
                return

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(Response(error.error_status_hint or 400, b"bad request\n", TEXT), with_body=True)
        self._close()

    async def _answer(self, request: h11.Request) -> None:
        if request.method not in (b"GET", b"HEAD"):
            response = Response(405, b"Method Not Allowed\n", TEXT, (("Allow", "GET, HEAD"),))
        else:
            response = await self._listener.answer(request.target.decode("latin-1"))
        self._send(response, with_body=request.method != b"HEAD")

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if task.cancelled() or self._transport is None:
            return
        error = task.exception()
        if error is not None:
            log.error("monitoring request failed", error=repr(error), exc_info=error)
            if self._http.our_state is h11.SEND_RESPONSE:
                self._send(Response(500, b"internal error\n", TEXT), with_body=True)
            self._close()
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._transport.resume_reading()
            self._advance()
        else:
            self._close()

    def _send(self, response: Response, *, with_body: bool) -> None:
        if self._transport is None:
            return
        headers = [
            *response.headers,
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
        ]
        parts = [self._http.send(h11.Response(status_code=response.status, headers=headers))]
        if with_body:
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in parts if part))
