"""What the configuration says about client connections."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetstore.limits import MIB
from server.protocol.client import ProtocolOptions


@dataclass(slots=True)
class NetOptions:
    """Filled by the composition root. Fields may change while the server runs; new connections see the change."""

    protocol: ProtocolOptions = field(default_factory=ProtocolOptions)
    max_connections: int = 65_536
    """Above: INFO, -ERR, close."""
    max_subscriptions: int = 0
    """Per connection; 0 = no limit."""
    max_sub_tokens: int = 0
    """Tokens of a subscription's subject; 0 = no limit."""
    max_pending_bytes: int = 64 * MIB
    """Unsent output of one connection; above: closed without -ERR."""
    write_pause_bytes: int = MIB
    """Unsent output at which deliveries of stored messages pause."""
    write_deadline_s: float = 10.0
    """Output that makes no progress for so long closes the connection."""
    auth_timeout_s: float = 2.0
    no_fast_producer_stall: bool = False
    """True: messages to a congested consumer are dropped instead of slowing down their producer."""
    trace: bool = False
    """Log every protocol message."""
    trace_verbose: bool = False
    """Those of the system account's clients, too."""
    trace_headers: bool = False
    """Of payloads only the headers."""
    traced_bytes_max: int = 0
    """Of a payload at most so much; 0 = all of it."""
    max_closed_clients: int = 10_000
    """Closed connections that monitoring remembers."""
