"""Consumers with ``ack_policy: flow_control``: answers to flow control requests say how far the receiver is.

Deliveries are sent ahead of the log, as without acknowledgements. An answer names the last consumer and stream sequence
that the receiver has settled (``Nats-Last-Consumer``, ``Nats-Last-Stream``); one entry moves the consumer there, and
with it everything below is acknowledged. Nothing is delivered again while this node leads; whoever leads next goes on
from the last position that was acknowledged. At most ``max_ack_pending`` messages are ahead of it.

A mirror or source of this server that was given such a consumer moves it itself: nothing is delivered meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.consumer.entries import encode_cursor
from jetstore.node.push import PushEngine
from jetstore.node.unlogged import Unlogged
from jetstore.stream import headers

if TYPE_CHECKING:
    from jetstore.node.delivery_ports import Sink
    from jetstore.node.ports import Inbound

_LAST_CONSUMER = b"Nats-Last-Consumer"
_LAST_STREAM = b"Nats-Last-Stream"


class _Ahead(Unlogged):
    """How far deliveries got is no acknowledgement: it is not logged."""

    def log_cursor(self) -> None:
        """Nothing: answers are."""
        self.due_s = 0.0


class FlowEngine(PushEngine):
    """Delivers for a consumer that is acknowledged by its flow control, unless a mirror or source has it."""

    def start(self) -> None:
        """Take the consumer's subjects and begin as soon as somebody listens."""
        self.unlogged = _Ahead(self)
        self._holder: object | None = None
        self._is_unasked = False
        """Something was delivered since the last request."""
        super().start()

    # -- a mirror or source of this server ----------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        """Whether a mirror or source takes its messages, or somebody subscribes to the deliver subject."""
        return self._holder is not None or super().is_bound

    def bind(self, holder: object) -> bool:
        """Let one have it; False: it is another's."""
        if self._holder is None:
            self._holder = holder
            self.state.follow()
        return self._holder is holder

    def let_go(self, holder: object) -> None:
        """It had it, perhaps, and does no more."""
        if self._holder is holder:
            self._holder = None
            if not self.stopped:
                self.state.lead()
                self.wake()

    def has_takers(self) -> bool:
        return self.is_bound

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def may_deliver(self) -> bool:
        return self._holder is None and super().may_deliver()

    def deliver_unlogged(self) -> None:
        """Nothing, while somebody has it."""
        if self._holder is None:
            super().deliver_unlogged()

    def demand(self) -> tuple[int, int]:
        messages, size = super().demand()
        room = self.state.config.max_ack_pending - self.state.counters().num_ack_pending
        if room <= 0:
            if self._is_unasked and not self._asked:
                self._ask()
            return 0, 0
        return min(messages, room), size

    def sent(self, sink: Sink, messages: int, size_bytes: int, taken: int) -> None:
        self._is_unasked = self._is_unasked or taken > 0
        super().sent(sink, messages, size_bytes, taken)

    # -- flow control and heartbeats ----------------------------------------------------------------------------------

    def _ask(self) -> None:
        super()._ask()
        self._is_unasked = False

    def on_heartbeat(self) -> None:
        """After a while without deliveries: ask how far the receiver is."""
        if self._holder is None:
            super().on_heartbeat()
            if not self._asked and self.state.counters().num_ack_pending:
                self._ask()

    def on_flow_answers(self, batch: Inbound) -> None:
        """Answers to the open request, and the positions that they name."""
        for at, subject in enumerate(batch.subjects):
            if subject == self._asked and not self.stopped:
                size = batch.header_lens[at] if batch.header_lens else 0
                given = batch.payloads[at][:size]
                self.on_flow_answer(subject)
                self._acknowledge(
                    headers.sequence(headers.value(given, _LAST_CONSUMER)),
                    headers.sequence(headers.value(given, _LAST_STREAM)),
                )

    def _acknowledge(self, consumer_seq: int, stream_seq: int) -> None:
        """Both must go up, and neither beyond what was delivered."""
        state = self.state
        live = state.live
        if live is None or consumer_seq > live.consumer_seq or stream_seq > live.stream_seq:
            return
        if consumer_seq > state.ack_floor.consumer_seq and stream_seq > state.ack_floor.stream_seq:
            entry = encode_cursor(self.name, self.generation, self.now_ns(), consumer_seq, stream_seq)
            self.propose(entry, lambda _: self.wake())
