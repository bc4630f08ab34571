"""The ``websocket`` block: a listener for clients in browsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.config.tls import TlsOptions, tls
from server.config.tree import Entry
from server.config.values import (
    SECOND,
    Fields,
    Mistake,
    Reader,
    Table,
    address,
    as_map,
    as_text,
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
    headers: tuple[tuple[str, str], ...] = ()
    """What answers to a handshake have besides."""
    jwt_cookie: str = ""
    """The cookies that hold what a CONNECT leaves out; "" = none does."""
    user_cookie: str = ""
    password_cookie: str = ""
    token_cookie: str = ""

    @property
    def cookies(self) -> dict[str, str]:
        """Cookie → the option of CONNECT that it stands for."""
        named = {
            self.jwt_cookie: "jwt",
            self.user_cookie: "user",
            self.password_cookie: "password",
            self.token_cookie: "auth_token",
        }
        return {cookie: option for cookie, option in named.items() if cookie}


def _headers(reader: Reader, name: str, entry: Entry) -> Fields:
    found = [(key, as_text(f"{name} {key}", each)) for key, each in as_map(name, entry).items()]
    for key, value in found:
        if key.lower() in _OWN_HEADERS:
            raise Mistake(f'websocket: invalid header "{key}" not allowed')
        if key.lower().startswith("sec-websocket-"):
            raise Mistake(f'websocket: invalid header "{key}", "Sec-WebSocket-" prefix not allowed')
        if not (key + value).isprintable():
            raise Mistake(f'websocket: header "{key}" has characters that no header may have')
    return {"headers": tuple(found)}


_OWN_HEADERS: Final = frozenset(("host", "content-length", "connection", "upgrade", "nats-no-masking"))
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
    "headers": _headers,
    "jwt_cookie": text("jwt_cookie"),
    "user_cookie": text("user_cookie"),
    "pass_cookie": text("password_cookie"),
    "token_cookie": text("token_cookie"),
}
REFUSED: Final = frozenset(("advertise", "authorization", "authentication", "no_auth_user", "ping_interval"))


def _websocket(reader: Reader, name: str, entry: Entry) -> Fields:
    if entry.value is False:
        return {}
    return {"websocket": WebSocketOptions(**reader.block(as_map(name, entry), _WEBSOCKET, REFUSED))}


TOP_LEVEL: Final[Table] = dict.fromkeys(("websocket", "ws"), _websocket)
