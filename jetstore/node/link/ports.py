"""What the links need from and tell to whoever drives the node; and the configuration of both."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from jetstore.errors import JetstoreError, NotNow, OperatingError
from jetstore.node.link.hello import Hello, Purpose
from jetstore.node.link.raft_codec import Addressed
from jetstore.raft.message import Message
from jetstore.types import Buffer, GroupUid


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
        """Somebody with that node id has an old or cloned disk: nothing it says is counted. An operator must look.

        This is no ``on_down``: the genuine node's link may be up all the while, and ``on_down`` tells when it is not.
        """

    def on_disowned(self, text: str) -> None:
        """A peer has refused this node's own disk as an old or cloned one: it must never be believed again."""


class Routing(Protocol):
    """The front end, as the links see it: ROUTE frames go in order, as long as a connection lasts. Must not block."""

    def up(self, node_id: str, *, wants: bool = False) -> None:
        """Frames can be sent to that node from now on, or go another way than before; what was sent may be lost.

        ``wants``: what came from there until now was not taken, because nobody was attached.
        """

    def down(self, node_id: str) -> None:
        """No more."""

    def take(self, node_id: str, body: memoryview) -> None:
        """A frame, valid during the call. Raises FrameError if it is none."""

    def writable(self, node_id: str) -> None:
        """What waited in the connection is gone, as good as."""


RequestHandler = Callable[[str, bytes], Awaitable[bytes]]
"""(node id of the caller, payload) → answer."""
StreamHandler = Callable[[str, bytes], AsyncGenerator[bytes, None]]
"""(node id of the caller, payload) → chunks. Closed early if the caller leaves or is lost."""


class Chunks(Protocol):
    """A stream of bytes from another node, for one reader. Use it in ``async with``: leaving early tells the other."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself."""

    async def __anext__(self) -> bytes:
        """The next chunk. Raises RequestRefused, RequestFailed or LinkLost after what came before it."""

    async def aclose(self) -> None:
        """Leave; idempotent."""

    async def __aenter__(self) -> Chunks:
        """Itself."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""


class NodeLinks(Protocol):
    """What the node driver needs of the links: ``Links``, or ``MemoryLinks`` in tests."""

    async def start(self, host: str, port: int) -> int:
        """Listen and connect; the port in use (≤ 0 takes a free one). Raises OSError."""

    async def stop(self) -> None:
        """Send what is owed and close everything; ``on_down`` is called for each peer."""

    def send_raft(self, node_id: str, group: GroupUid, messages: Sequence[Message]) -> None:
        """Send to that node, with everything else of this loop turn in one write. Never blocks, never raises.

        Dropped and counted if there is no link or too much is unsent; Raft tolerates that.
        """

    def is_up(self, node_id: str, purpose: Purpose = Purpose.RAFT) -> bool:
        """Whether there is a connection of that purpose."""

    def connected(self) -> list[str]:
        """Ids of the nodes with a raft link, sorted."""

    def register(self, method: str, handler: RequestHandler, *, concurrent_max: int = 64) -> None:
        """Serve requests of that name from all nodes; more than ``concurrent_max`` at once are refused as busy."""

    def register_stream(self, method: str, handler: StreamHandler, *, concurrent_max: int = 16) -> None:
        """Serve streams of that name: ``handler`` is an async generator function."""

    def request(self, node_id: str, method: str, payload: Buffer) -> asyncio.Future[bytes]:
        """Ask that node; sent in the order of calls. Raises NotConnected at once.

        The future gives bytes, or RequestRefused (definitely not done), NotConnected (never sent), RequestFailed or
        LinkLost (outcome unknown). Cancelling it tells the other side. There is no timeout but the link's silence.
        """

    def stream(self, node_id: str, method: str, payload: Buffer, *, window_bytes: int = 0) -> Chunks:
        """Ask that node for chunks: ``async with links.stream(…) as chunks: async for chunk in chunks``.

        At most ``window_bytes`` (0 = limits.bulk_window_bytes) of unread chunks are held. Errors as in ``request``.
        """


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
