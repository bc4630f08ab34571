"""Messages between the plan to deliver them and the moment their delivery is in the log."""

from __future__ import annotations

from collections.abc import Sequence

from jetstore.consumer.counts import Delivery
from jetstore.node.delivery_ports import Sink
from jetstore.store.ports import Message

Share = tuple[Sink, Sequence[int] | None]
"""A sink and the positions of its messages in the batch; None = all of them."""


class Flight:
    """Messages whose delivery is proposed and not applied yet, and who is to get them."""

    __slots__ = ("is_again", "messages", "shares", "time_ns")

    def __init__(self, messages: list[Message], shares: list[Share], is_again: bool) -> None:
        self.messages = messages
        self.shares = shares
        self.is_again = is_again
        self.time_ns = 0
        """Of its entry."""

    def narrowed(self, deliveries: Sequence[Delivery]) -> tuple[list[Message], list[Share], list[tuple[Sink, int]]]:
        """Messages and shares if only these were accepted, and how many each sink will not get."""
        by_seq = {message.seq: message for message in self.messages}
        messages = [by_seq[seq] for d in deliveries for seq in range(d.first, d.last + 1)]
        places = {message.seq: place for place, message in enumerate(messages)}
        shares: list[Share] = []
        absent: list[tuple[Sink, int]] = []
        for sink, positions in self.shares:
            wanted = range(len(self.messages)) if positions is None else positions
            kept = [places[seq] for p in wanted if (seq := self.messages[p].seq) in places]
            if len(kept) < len(wanted):
                absent.append((sink, len(wanted) - len(kept)))
            if kept:
                shares.append((sink, kept))
        return messages, shares, absent
