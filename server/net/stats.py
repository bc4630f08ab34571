"""What monitoring reads: a connection as it stands, or stood when it closed, and the totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jetstore.model.json import encode
from jetstore.model.times import format_time
from jetstore.types import Nanos
from server.auth.authenticator import WEBSOCKET
from server.protocol.reasons import CloseReason

if TYPE_CHECKING:
    from server.net.connection import ClientConnection

_NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """One connection at one moment. Messages and bytes are seen from the server: ``in`` was published by the client."""

    cid: int
    ip: str
    port: int
    start_ns: int
    """Wall time."""
    last_activity_ns: int
    """Wall time."""
    uptime_ns: int
    idle_ns: int
    rtt_ns: int
    """0 = not measured yet."""
    pending_bytes: int
    in_msgs: int
    out_msgs: int
    in_bytes: int
    out_bytes: int
    stalls: int
    subscriptions: int
    name: str
    lang: str
    version: str
    authorized_user: str
    account: str
    stop_ns: int = 0
    """Wall time; 0 = open."""
    reason: str = ""
    """Why it closed, in the words of /connz."""
    client_type: str = "nats"
    """Or ``websocket``."""
    claims: Mapping[str, Any] | None = None  # Any: JSON
    """What it said of itself when it connected, where clients bring claims."""


def stats_of(connection: ClientConnection) -> ConnectionStats:
    """A connection as it stands now; after its end, as it stood."""
    server, protocol, user = connection.server, connection.protocol, connection.user
    assert protocol is not None
    now_s = server.loop.time()
    active_s = protocol.keepalive.last_activity_s
    connect = protocol.claimed
    is_refused = connection.close_reason is CloseReason.AUTHENTICATION_FAILURE
    return ConnectionStats(
        cid=connection.cid,
        ip=connection.ip,
        port=connection.port,
        start_ns=connection.start_ns,
        last_activity_ns=connection.start_ns + int((active_s - connection.start_s) * _NANOS),
        uptime_ns=int((now_s - connection.start_s) * _NANOS),
        idle_ns=int((now_s - active_s) * _NANOS),
        rtt_ns=int((protocol.keepalive.rtt_s or 0.0) * _NANOS) or connection.connect_rtt_ns,
        pending_bytes=connection.pending_bytes(),
        in_msgs=connection.in_msgs,
        out_msgs=connection.out_msgs,
        in_bytes=connection.in_bytes,
        out_bytes=connection.out_bytes,
        stalls=connection.stalls,
        subscriptions=len(connection.subscriptions),
        name=connect.name,
        lang=connect.lang,
        version=connect.version,
        authorized_user=user.shown_name or user.name or (connect.user if is_refused else ""),
        account=user.account,
        stop_ns=server.clock.wall_ns() if connection.is_closed else 0,
        reason=connection.close_reason.value if connection.close_reason else "",
        client_type="websocket" if connection.connection_type == WEBSOCKET else "nats",
        claims=user.claims,
    )


@dataclass(slots=True)
class Totals:
    """Counters of a server over all its client connections, closed ones included."""

    total_connections: int = 0
    in_msgs: int = 0
    in_bytes: int = 0
    out_msgs: int = 0
    out_bytes: int = 0
    slow_consumers: int = 0
    stale_connections: int = 0
    stalled_clients: int = 0


def client_info(stats: ConnectionStats, service: str = "") -> dict[str, Any]:  # Any: JSON values
    """Who a client is. ``service``: the account between it and who asks."""
    shown: dict[str, Any] = {"start": format_time(Nanos(stats.start_ns)), "host": stats.ip, "id": stats.cid}
    given = {"acc": stats.account, "svc": service, "user": stats.authorized_user, "name": stats.name}
    given |= {"lang": stats.lang, "ver": stats.version}
    return shown | {key: value for key, value in given.items() if value}


def request_info(stats: ConnectionStats, service: str, shared_by: str) -> bytes:
    """What ``Nats-Request-Info`` says of a client; ``shared_by``: the server that tells all of it, "" = not all."""
    rtt = {"rtt": stats.rtt_ns} if stats.rtt_ns else {}
    if shared_by:
        kind = {"server": shared_by, **(stats.claims or {}), "kind": "Client", "client_type": stats.client_type}
        return encode(client_info(stats, service) | rtt | kind)
    return encode({"acc": stats.account} | ({"svc": service} if service else {}) | rtt)
