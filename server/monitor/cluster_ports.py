"""What monitoring shows of a cluster: plain values, read when a page is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What does not change about this node's place in its cluster."""

    name: str
    host: str
    port: int
    auth_timeout_ns: int
    urls: tuple[str, ...]
    """host:port of the configured routes."""


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """Another node and the links to it."""

    node_id: str
    name: str
    advertise: str
    is_up: bool
    did_solicit: bool
    ip: str
    port: int
    up_since_s: float
    """On the loop's clock."""
    rtt_s: float
    """0 = not measured yet."""
    pending_bytes: int
    in_bytes: int
    out_bytes: int
    messages_in: int
    """Raft messages."""
    messages_out: int
    messages_dropped: int
    connects: int
    has_alarm: bool
    """An old or cloned disk."""


@dataclass(frozen=True, slots=True)
class RaftCounters:
    """One group's member on this node."""

    name: str
    role: str
    term: int
    leader: str
    """The leading node's name; "" = none known."""
    committed_index: int
    applied_index: int
    is_quiet: bool
    lags: Mapping[str, int] = field(default_factory=dict)
    """On the leader: node name → entries that its member is behind."""


@dataclass(frozen=True, slots=True)
class ClusterCounters:
    """Everything that changes."""

    now_s: float
    """The loop's clock."""
    peers: Sequence[PeerCounters]
    groups: Sequence[RaftCounters]
    refused: Mapping[str, int]
    """Link attempts refused, by reason."""
    bad_frames: int
    stray_messages: int
    catch_ups: int
    """States installed that came from a peer."""
