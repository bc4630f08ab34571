"""What stands between a transport and a connection: to the transport a protocol, to the connection a transport.

The connection is told of its transport once the layer is ready for it; until then nothing reaches it. TLS
(``tls.py``) and WebSocket (``websocket.py``) are such layers, and may stand on each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast


class Inner(Protocol):
    """The connection, or the layer above."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def tls_established(self, names: tuple[str, ...]) -> None:
        """The handshake is over; ``names``: what the client's certificate says, most telling first."""

    def tls_failed(self, problem: str) -> None:
        """There was none."""


InnerT = TypeVar("InnerT", bound=Inner)


class Layer(asyncio.Protocol, asyncio.Transport, Generic[InnerT]):
    """What all layers pass on as it is, and one timer. One object per connection."""

    def __init__(self, inner: InnerT, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._is_made = False
        """Whether the connection has been told of its transport."""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def _arm(self, delay_ns: int, callback: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(delay_ns / 1e9, callback)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- as the transport's protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._is_made else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._is_made:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._is_made:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._is_made:
            self._inner.resume_writing()

    # -- as the connection's transport ------------------------------------------------------------------------------

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # Any: as asyncio has it
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()
