"""What the links need from and tell to whoever drives the node; and the configuration of both."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jetstore.errors import JetstoreError, NotNow, OperatingError
from jetstore.node.link.hello import Hello
from jetstore.node.link.raft_codec import Addressed


class LinkLost(OperatingError):
    """The connection went away before the answer came: the outcome is unknown."""


class NotConnected(NotNow):
    """There is no bulk connection to that node, or no room for another request: definitely not sent."""


class RequestRefused(JetstoreError):
    """The other node refused: definitely not done. A handler raises it to refuse; the caller gets it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class RequestFailed(JetstoreError):
    """The handler on the other node broke: the outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where to dial, with what the acceptor wants to hear."""

    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(slots=True)
class LinkOptions:
    """Who this node is and whom it dials."""

    cluster_name: str
    node_id: str
    """16 hexadecimal digits."""
    node_name: str
    incarnation: int
    boot_counter: int
    """Durable before the first link is made."""
    boot_nonce: str
    """16 hexadecimal digits."""
    durable_lsn: Callable[[], int]
    """Last durable block of this node's journal; never goes back."""
    cluster_id: str = ""
    """May be set later, when the node has joined or founded a cluster."""
    routes: Sequence[Route] = ()
    advertise: str = ""
    """host:port told to peers; "" = what ``listen`` bound, if it bound one address."""
    authorize: Callable[[str, str], bool] | None = None
    """Judges user and password of who dials in; None: everybody of the cluster's name may."""
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None


class LinkHandler(Protocol):
    """The node driver, as the links see it. Called on the loop; must not block."""

    def on_raft(self, node_id: str, batch: list[Addressed]) -> None:
        """Messages of one read of the raft connection, in the order sent. Nothing of a peer with an old disk."""

    def on_up(self, node_id: str, hello: Hello) -> None:
        """A raft link to that node is there. ``hello`` says name, incarnation, boot and address (no credentials)."""

    def on_down(self, node_id: str, reason: str) -> None:
        """The raft link is gone (at once on EOF or reset); may come back at any time."""

    def on_bulk(self, node_id: str, is_up: bool) -> None:
        """Requests can be made of that node from now on, or cannot."""

    def on_alarm(self, node_id: str, text: str) -> None:
        """That node has an old or cloned disk: nothing it says is counted. An operator must look."""


RequestHandler = Callable[[str, bytes], Awaitable[bytes]]
"""(node id of the caller, payload) → answer."""
StreamHandler = Callable[[str, bytes], AsyncGenerator[bytes, None]]
"""(node id of the caller, payload) → chunks. Closed early if the caller leaves or is lost."""


@dataclass(slots=True)
class ConnectionStatus:
    """One connection, for monitoring."""

    is_dialler: bool
    address: str
    up_since_s: float
    """On the loop's clock."""
    rtt_s: float | None
    in_bytes: int
    out_bytes: int
    in_frames: int
    out_frames: int
    pending_bytes: int


@dataclass(slots=True)
class PeerStatus:
    """One known node, for monitoring."""

    node_id: str
    node_name: str
    advertise: str
    incarnation: int
    boot_counter: int
    raft: ConnectionStatus | None
    bulk: ConnectionStatus | None
    messages_in: int
    messages_out: int
    messages_dropped: int
    """Raft messages not sent: no link, or too much unsent."""
    connects: int
    requests_pending: int
    alarm: str


@dataclass(slots=True)
class LinksStatus:
    """All of it."""

    peers: list[PeerStatus]
    routes: list[tuple[str, str]]
    """Configured address, and the id of the node that was last found there ("" = none yet)."""
    refused: dict[str, int] = field(default_factory=dict)
    """Refusals given, by reason."""
    bad_frames: int = 0
    inbound_waiting: int = 0
