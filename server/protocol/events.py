"""What a client's bytes mean: the events the connection's owner acts on, strictly in order."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from server.protocol.connect import ConnectOptions
from server.protocol.reasons import CloseReason


class Publishes(NamedTuple):
    """A run of messages as columns, in the order they were published. The owner routes them."""

    subjects: list[bytes]
    replies: list[bytes]
    header_lens: list[int]
    """Empty = no message here has headers."""
    payloads: list[bytes]


class Subscribe(NamedTuple):
    """A subscription; the owner checks the subject, too, and answers with ``ClientProtocol.accept`` or ``refuse``."""

    subject: bytes
    queue: bytes
    sid: bytes


class Unsubscribe(NamedTuple):
    """End a subscription: at once (``max_messages`` 0) or after that many deliveries in all. Answer: ``accept``."""

    sid: bytes
    max_messages: int


class Connected(NamedTuple):
    """A CONNECT was accepted. Subscriptions made before it are void (a second CONNECT)."""

    options: ConnectOptions
    user: object
    """What the authenticator returned."""


class Oversized(NamedTuple):
    """What can be said of a message with headers that is larger than allowed."""

    subject: bytes
    header: bytes
    """As much of it as has been read."""
    size: int


class Closing(NamedTuple):
    """The connection is over: send what is owed, then close. Nothing follows this event."""

    reason: CloseReason
    oversized: Oversized | None = None
    """Why, if a message was too large."""


Event: TypeAlias = Publishes | Subscribe | Unsubscribe | Connected | Closing
