"""What the operator allows on this server, as far as configurations are checked against it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """0 = no limit of the server's own."""

    max_memory_bytes: int = 0
    """Room for memory streams; reservations (max_bytes) above it are refused with 10028."""
    max_storage_bytes: int = 0
    """Room for file streams; reservations above it are refused with 10047."""
    duplicate_window_ns: int = 0
    """Ceiling of, and default for, a stream's duplicate window where lower than two minutes."""
    max_ack_pending: int = 0
    """Ceiling of, and default for, a consumer's max_ack_pending."""
    max_request_batch: int = 0
    """Ceiling of, and default for, a pull consumer's max_batch."""
    replicas_max: int = 1
    """Nodes that may have a member of a stream's group; 1 = a standalone server."""
