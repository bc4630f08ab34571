"""Deliveries without acknowledgement: sent from the applied state; how far they got is logged a moment later.

There is no entry per delivery. Whoever leads after a crash goes on from the logged cursor: what was sent since then is
sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from jetstore.consumer import entries
from jetstore.consumer.state import ConsumerState
from jetstore.limits import Limits
from jetstore.node.delivery_format import ack_replies
from jetstore.node.delivery_ports import StreamLeader
from jetstore.node.delivery_reader import DeliveryReader
from jetstore.node.flight import Share
from jetstore.node.pacing import Pacer
from jetstore.store.ports import Message

CURSOR_DELAY_S = 0.25
"""The longest time a delivery is not in the log."""


class UnloggedOwner(Protocol):
    """The engine of the consumer."""

    name: str
    ack_prefix: bytes
    state: ConsumerState
    generation: int
    leader: StreamLeader
    limits: Limits
    loop: asyncio.AbstractEventLoop
    reader: DeliveryReader
    pacer: Pacer

    def demand(self) -> tuple[int, int]: ...
    def assign(self, messages: Sequence[Message]) -> tuple[int, list[Share]]: ...
    def hand_out(self, messages: list[Message], replies: list[bytes], shares: list[Share]) -> list[int]: ...
    def drained(self) -> None: ...
    def wake(self) -> None: ...
    def arm(self) -> None: ...
    def now_ns(self) -> int: ...
    def propose(self, data: bytes, on_result: Callable[[object], None]) -> None: ...


class Unlogged:
    """Delivers for one consumer without acknowledgements."""

    def __init__(self, owner: UnloggedOwner) -> None:
        self._owner = owner
        self.due_s = 0.0
        """Loop time at which the cursor must be logged; 0 = it is."""
        self._logged_seq = owner.state.delivered.stream_seq
        self._is_flying = False

    def deliver(self) -> None:
        """Send one batch from the applied state; the rest in the loop's next turn."""
        owner = self._owner
        live = owner.state.live
        assert live is not None
        messages_max, bytes_max = owner.demand()
        if messages_max <= 0:
            return
        seqs = owner.reader.plan_new(min(messages_max, owner.limits.delivery_batch_messages))
        messages = owner.pacer.allowed(owner.reader.read(seqs, bytes_max), owner.loop.time()) if seqs else []
        if not messages:
            if not seqs:
                owner.drained()
            return
        taken, shares = owner.assign(messages)
        if not taken:
            return
        del messages[taken:]
        left = live.cursor.num_pending - 1
        pending = range(left, left - len(messages), -1)
        replies = ack_replies(owner.ack_prefix, 1, messages, live.consumer_seq + 1, pending)
        untaken = owner.hand_out(messages, replies, shares)
        sent = untaken[0] if untaken else len(messages)
        if sent:
            last = messages[sent - 1].seq
            live.cursor.advance(last + 1, sent)
            live.consumer_seq += sent
            live.stream_seq = last
            live.active_ns = owner.leader.clock.wall_ns()
            if not self.due_s:
                self.due_s = owner.loop.time() + CURSOR_DELAY_S
        owner.wake()

    def log_cursor(self) -> None:
        """Log how far the consumer has got."""
        owner = self._owner
        live = owner.state.live
        self.due_s = 0.0
        if live is None or self._is_flying or live.stream_seq <= self._logged_seq:
            return
        self._logged_seq = live.stream_seq
        self._is_flying = True
        data = entries.encode_cursor(owner.name, owner.generation, owner.now_ns(), live.consumer_seq, live.stream_seq)
        owner.propose(data, self._cursor_logged)

    def _cursor_logged(self, _: object) -> None:
        self._is_flying = False
        live = self._owner.state.live
        if live is not None and live.stream_seq > self._logged_seq and not self.due_s:
            self.due_s = self._owner.loop.time() + CURSOR_DELAY_S
            self._owner.arm()
