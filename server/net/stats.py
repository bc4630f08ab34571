"""What monitoring reads: a connection as it stands, or stood when it closed, and the totals."""

from __future__ import annotations

from dataclasses import dataclass


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
