"""The seam between the engine and its front end: what each needs of the other, as plain values and Protocols.

Inbound: the front end's router holds internal subscriptions; it hands runs of messages to an ``InboundHandler``.
Outbound: the engine answers and delivers through an ``Outlet``, which is the same router seen from the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Inbound:
    """A run of messages for one internal subscription, as columns. One call per run, never per message."""

    subjects: Sequence[bytes]
    replies: Sequence[bytes]
    """b"" where the message has no reply subject."""
    header_lens: Sequence[int]
    """Bytes of header block at the start of each payload; an empty sequence = none has headers."""
    payloads: Sequence[bytes]
    """Header block followed by body. Immutable bytes: may be kept."""
    account: str
    client: object
    """Who published (the front end's connection object); only compared, and named in advisories."""
    trace: MessageTrace | None = None
    """Of a run of one message whose way is being told."""


class MessageTrace(Protocol):
    """The story of one message on its way; what a stream says of it goes in, too."""

    is_only: bool
    """Nothing may happen: it is only said what would."""

    def at_stream(self, stream: str) -> Callable[[str, bool, str], None]:
        """The message came to this stream. To be called when it is known what became of it.

        With the subject it is stored on ("" = it is not stored), whether nobody was interested, and what was wrong.
        """


class InboundHandler(Protocol):
    """Whoever holds an internal subscription. Must not block; may keep the batch."""

    def on_messages(self, batch: Inbound) -> None:
        """A run of messages arrived on the subscribed subject."""


class InternalSubscription(Protocol):
    """Handle of an internal subscription."""

    def close(self) -> None:
        """End it. Idempotent."""


class Outlet(Protocol):
    """One account's router as the engine sees it. All methods are synchronous and return at once."""

    account: str
    has_jetstream: bool
    """Whether it has streams of its own, or may have."""
    domain: str
    """The JetStream domain that PubAcks, infos and advisories name; "" = none."""

    def subscribe(self, subject: bytes, handler: InboundHandler) -> InternalSubscription:
        """From now on ``handler`` gets what clients (and the engine itself) publish on this pattern.

        Counts as a responder: a request on a subject that only a handler has gets no 503.
        """

    def publish(
        self,
        subjects: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
        replies: Sequence[bytes] = (),
    ) -> None:
        """Route messages as the system: answers, advisories, statuses, markers. Columns as in ``Inbound``."""

    def pub_acks(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        """The hot path of ``publish``: one PubAck ``{"stream":…,"seq":…}`` per reply subject (b"" = none wanted).

        ``stream`` is what ``pub_ack.place`` gives: escaped as JSON, perhaps with the domain behind it.
        They may wait for the loop's next turn, or ``flush_acks``, to go out together.
        """

    def flush_acks(self) -> None:
        """Send the PubAcks that wait: a journal block is applied."""

    def deliver(
        self,
        target: bytes,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
        queue: bytes = b"",
    ) -> int:
        """Send stored messages to the subscribers of ``target`` (a deliver subject or a pull inbox).

        The wire subject is the stored subject, the sid that of the subscriber. With ``queue`` only members of that
        queue group get them, one member a message; without it plain subscriptions get them (each a copy) and queue
        groups one member each. Returns how many messages, counted from the start, were taken by somebody.
        """

    def destination(self, subject: bytes) -> tuple[Outlet, bytes] | None:
        """Where messages on this subject go in the end, perhaps to another account, and on which subject there.

        Whether anybody subscribes to it there is another question. None: they go through too many accounts.
        """

    def hears(self, subject: bytes, publisher: Outlet) -> bool:
        """Whether a subscription to exactly this subject gets what the account of ``publisher`` says on it."""

    def has_interest(self, target: bytes, queue: bytes = b"") -> bool:
        """Whether somebody subscribes to ``target`` (in that queue group, if one is named)."""

    def has_literal_interest(self, target: bytes) -> bool:
        """Whether somebody subscribes to exactly ``target``; a pattern that matches it does not count."""

    def pending_bytes(self, target: bytes) -> int:
        """Most unsent output of any connection that subscribes to ``target``."""

    def when_writable(self, target: bytes, callback: Callable[[], None]) -> None:
        """Call back once, soon after ``pending_bytes(target)`` has fallen below ``limits.write_pause_bytes``."""

    def watch_interest(self, target: bytes, callback: Callable[[bool], None]) -> InternalSubscription:
        """Call back (from the loop, not from inside the change) whenever ``has_interest(target)`` may have changed."""
