"""The ``websocket`` block: a listener for clients in browsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.config.tls import TlsOptions, tls
from server.config.tree import Entry
from server.config.values import (
    SECOND,
    Fields,
    Reader,
    Table,
    address,
    as_map,
    boolean,
    duration,
    port,
    text,
    texts,
)


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """The listener for WebSocket clients."""

    host: str = "0.0.0.0"
    port: int = 0
    """0 = there is none."""
    no_tls: bool = False
    tls: TlsOptions | None = None
    same_origin: bool = False
    """Pages from elsewhere are refused."""
    allowed_origins: tuple[str, ...] = ()
    """Where pages may come from; empty = anywhere."""
    handshake_timeout_ns: int = 2 * SECOND
    compression: bool = False


_WEBSOCKET: Final[Table] = {
    "listen": address("host", "port"),
    "host": text("host"),
    "net": text("host"),
    "port": port("port"),
    "no_tls": boolean("no_tls"),
    "tls": tls("tls"),
    "same_origin": boolean("same_origin"),
    **dict.fromkeys(
        ("allowed_origins", "allowed_origin", "allow_origins", "allow_origin", "origins", "origin"),
        texts("allowed_origins"),
    ),
    "handshake_timeout": duration("handshake_timeout_ns"),
    **dict.fromkeys(("compression", "compress"), boolean("compression")),
}
REFUSED: Final = frozenset(
    (
        *("advertise", "authorization", "authentication", "no_auth_user", "jwt_cookie", "user_cookie", "pass_cookie"),
        *("token_cookie", "headers", "ping_interval"),
    )
)


def _websocket(reader: Reader, name: str, entry: Entry) -> Fields:
    if entry.value is False:
        return {}
    return {"websocket": WebSocketOptions(**reader.block(as_map(name, entry), _WEBSOCKET, REFUSED))}


TOP_LEVEL: Final[Table] = dict.fromkeys(("websocket", "ws"), _websocket)
