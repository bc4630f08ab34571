"""A subscription, and what the router needs of the connection behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from jetstore.node.ports import InboundHandler

if TYPE_CHECKING:
    from server.route.delivery import Columns
    from server.route.imports import Shadow
    from server.route.router import Router
    from server.route.tracing import MessageTrace


class Sink(Protocol):
    """A client connection as the router sees it. Output given in one go leaves in one write."""

    echo: bool
    """False: gets none of its own messages."""
    headers: bool
    """False: gets bodies only."""
    no_responders: bool
    verbose: bool
    is_closed: bool
    subscriptions: dict[bytes, Subscription]
    """By sid. The router removes what has ended by itself."""
    out_msgs: int
    out_bytes: int
    permits: Permits | None
    """None: everything is permitted."""
    responses: Answers | None
    """Reply subjects that may be published to because they came with a message; None: not kept."""
    trace: MessageTrace | None
    """Set while a message of this client is routed whose way is told."""

    def traced_as(self) -> tuple[int, str, str]:
        """What traces call it: cid, name, account."""

    def request_info(self, account: str, *, is_shared: bool) -> bytes:
        """What a service is told of who asks it from another account: JSON; b"" = nothing.

        ``account`` is the one that imports it, the client's own or one between; ``is_shared``: it may know everything.
        """

    def send(self, chunk: bytes) -> None:
        """Put bytes into the output. Never blocks; a slow consumer is closed."""

    def pending_bytes(self) -> int:
        """Output not yet given to the network."""

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call back once when ``pending_bytes`` is low, or the connection is gone."""

    def is_congested(self) -> bool:
        """Whether producers should be slowed down for this consumer's sake."""


class Permits(Protocol):
    """What one user may do (``server/auth/permissions.py``)."""

    def may_publish(self, subject: bytes) -> bool:
        """Whether a message may be published on this subject."""

    def may_subscribe(self, subject: bytes, queue: bytes) -> bool:
        """Whether this subscription may be made."""

    def may_receive(self, subject: bytes, queue: bytes) -> bool:
        """Whether a message on this subject may be delivered to a wider subscription (of that queue)."""

    filters_deliveries: bool
    """False: ``may_receive`` is always true for subscriptions that were permitted."""


class Answers(Protocol):
    """Permission to answer what was delivered (``server/auth/permissions.py``)."""

    def delivered(self, replies: Sequence[bytes]) -> None:
        """Messages with these reply subjects went out."""

    def may_answer(self, subject: bytes) -> bool:
        """Whether a message may be published on this reply subject; counts it."""


class Bridge(Protocol):
    """What takes messages to another account (``server/route/imports.py``)."""

    def forward(self, home: Router, client: Sink | None, columns: Columns) -> int:
        """Hand messages over; how many from the start somebody took."""

    def resolve(self, subject: bytes) -> tuple[Router, bytes] | None:
        """The account and subject where messages on this subject end up; None: nowhere."""


class RemoteInterest:
    """What stands behind a subscription of another node."""

    __slots__ = ("kind", "node_id", "weight")

    def __init__(self, node_id: str, kind: int, weight: int) -> None:
        self.node_id = node_id
        self.kind = kind
        """``peer_frames.Kind``."""
        self.weight = weight
        """Of a queue group: how many members are there."""


class Subscription:
    """Interest of a connection (``sink``), the engine (``handler``), another account (``bridge``) or another node
    (``remote``) in a pattern."""

    __slots__ = (
        *("bridge", "delivered", "handler", "is_closed", "is_refusal", "max_messages", "order", "queue", "remote"),
        *("shadow", "shadows", "sid", "sink", "subject"),
    )

    def __init__(
        self,
        subject: bytes,
        queue: bytes = b"",
        sid: bytes = b"",
        sink: Sink | None = None,
        handler: InboundHandler | None = None,
        bridge: Bridge | None = None,
        remote: RemoteInterest | None = None,
    ) -> None:
        assert (sink is not None) + (handler is not None) + (bridge is not None) + (remote is not None) == 1
        self.subject = subject
        self.queue = queue
        self.sid = sid
        self.sink = sink
        self.handler = handler
        self.bridge = bridge
        self.remote = remote
        self.is_refusal = handler is not None and getattr(handler, "refuses", False)
        """Set for a handler that says no to everything: what leads elsewhere goes before it."""
        self.shadow: Shadow | None = None
        """Set where this one stands for another account's."""
        self.shadows: list[Subscription] = []
        """Those that stand for this one in other accounts."""
        self.order = 0
        """Given by the sublist: results list subscriptions in the order they were made."""
        self.max_messages = 0
        """Deliveries after which it ends; 0 = no limit."""
        self.delivered = 0
        self.is_closed = False
