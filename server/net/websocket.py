"""WebSocket between a transport and a connection: frames in, bytes out, and the other way round.

The protocol itself is the sans-I/O part of the ``websockets`` library. To NATS it is a byte stream: operations may span
frames, frames may hold many; the server sends one binary frame a write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from jetstore.limits import MIB
from server.config.websocket import WebSocketOptions
from server.net.layer import Inner, Layer
from server.protocol.reasons import CloseReason

FRAME_BYTES_MIN = 8 * MIB
"""A frame may be at least this large, and twice the largest message."""
_CODES = {
    CloseReason.CLIENT_CLOSED: 1000,
    CloseReason.AUTHENTICATION_TIMEOUT: 1008,
    CloseReason.AUTHENTICATION_FAILURE: 1008,
    CloseReason.SLOW_CONSUMER_PENDING_BYTES: 1008,
    CloseReason.SLOW_CONSUMER_WRITE_DEADLINE: 1008,
    CloseReason.MAXIMUM_CONNECTIONS_EXCEEDED: 1008,
    CloseReason.MAXIMUM_ACCOUNT_CONNECTIONS_EXCEEDED: 1008,
    CloseReason.TLS_HANDSHAKE_FAILURE: 1015,
    CloseReason.PARSE_ERROR: 1002,
    CloseReason.PROTOCOL_VIOLATION: 1002,
    CloseReason.BAD_CLIENT_PROTOCOL_VERSION: 1002,
    CloseReason.MAXIMUM_PAYLOAD_EXCEEDED: 1009,
    CloseReason.SERVER_SHUTDOWN: 1001,
    CloseReason.STALE_CONNECTION: 1001,
    CloseReason.WRITE_ERROR: 1001,
    CloseReason.READ_ERROR: 1001,
}
_OTHER = 1011


class Connection(Inner, Protocol):
    """What the layer needs of the connection."""

    close_reason: CloseReason | None
    credentials: Mapping[str, str]


class WebSocketLayer(Layer[Connection]):
    """See the module's docstring. One object per connection."""

    def __init__(
        self, inner: Connection, options: WebSocketOptions, loop: asyncio.AbstractEventLoop, max_payload_bytes: int
    ) -> None:
        super().__init__(inner, loop)
        self._options = options
        extensions = None
        if options.compression:
            extensions = [
                ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
            ]
        self._protocol = ServerProtocol(extensions=extensions, max_size=max(FRAME_BYTES_MIN, 2 * max_payload_bytes))

    # -- as the transport's protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._arm(self._options.handshake_timeout_ns, self.abort)

    def tls_established(self, names: tuple[str, ...]) -> None:
        """As the connection has it."""
        self._inner.tls_established(names)

    def tls_failed(self, problem: str) -> None:
        """As the connection has it, if it was told of a transport at all."""
        if self._is_made:
            self._inner.tls_failed(problem)

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        chunks: list[bytes] = []
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                chunks.append(bytes(event.data))
        self._flush()
        if chunks and self._is_made:
            self._inner.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if self._is_made and protocol.state is not State.OPEN:
            self._inner.eof_received()

    def _answer(self, request: Request) -> None:
        protocol = self._protocol
        if protocol.eof_sent:
            self._flush()  # what came in one piece with the request was no frame: the connection has failed already
            return
        path = request.path.partition("?")[0].rstrip("/")
        if path.endswith(("/leafnode", "/mqtt")):
            protocol.send_response(protocol.reject(404, "Not Found\n"))
        elif not self._is_origin_allowed(request):
            protocol.send_response(protocol.reject(403, "Forbidden\n"))
        else:
            response = protocol.accept(request)
            for name, value in self._options.headers:
                response.headers[name] = value
            protocol.send_response(response)
            self._inner.credentials = self._from_cookies(request)
        self._flush()
        if protocol.state is State.OPEN:
            self._disarm()
            self._is_made = True
            self._inner.connection_made(self)

    def _from_cookies(self, request: Request) -> Mapping[str, str]:
        """Options of CONNECT that the browser keeps for the page."""
        wanted = self._options.cookies
        if not wanted:
            return {}
        pairs = [each.partition("=") for line in request.headers.get_all("Cookie") for each in line.split(";")]
        found = {name.strip(): value.strip().removeprefix('"').removesuffix('"') for name, _, value in pairs}
        return {option: found[name] for name, option in wanted.items() if name in found}

    def _is_origin_allowed(self, request: Request) -> bool:
        """Whether a page from there may connect. Origins that are no addresses, or several, may not."""
        try:
            return self._is_listed(request)
        except (LookupError, ValueError):
            return False

    def _is_listed(self, request: Request) -> bool:
        options = self._options
        origin = request.headers.get("Origin") or request.headers.get("Sec-WebSocket-Origin")
        if not origin:
            return True  # not a browser
        if options.same_origin and _authority(origin) != _authority(f"{_scheme(origin)}://{request.headers['Host']}"):
            return False
        return not options.allowed_origins or any(
            _authority(origin) == _authority(allowed) and _scheme(origin) == _scheme(allowed)
            for allowed in options.allowed_origins
        )

    def _flush(self) -> None:
        transport = self._transport
        assert transport is not None
        for data in self._protocol.data_to_send():
            if transport.is_closing():
                return
            if data:
                transport.write(data)
            else:
                transport.close()

    def eof_received(self) -> bool | None:
        self._protocol.receive_eof()
        return super().eof_received()

    # -- as the connection's transport ------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(bytes(data))
            self._flush()

    def close(self) -> None:
        transport = self._transport
        assert transport is not None
        if self._protocol.state is State.OPEN:
            reason = self._inner.close_reason
            self._protocol.send_close(_CODES.get(reason, _OTHER) if reason is not None else 1000)
            self._flush()
        transport.close()


def _scheme(origin: str) -> str:
    return origin.partition("://")[0].lower()


def _authority(origin: str) -> str:
    """Host and port of an origin, the port always there."""
    scheme, _, rest = origin.partition("://")
    host, colon, port = rest.partition("/")[0].lower().rpartition(":")
    if not colon or not port.isdigit():
        host, port = rest.partition("/")[0].lower(), "443" if scheme.lower() in ("https", "wss") else "80"
    return f"{host}:{port}"
