"""Push consumers: everything goes to the deliver subject while somebody subscribes to it.

Flow control: bytes sent and not yet confirmed are kept under a window. Past half of it a request goes out in line with
the messages; its answer frees what was sent before it and doubles the window. While an answer is missing, heartbeats
name the request, so that a client that lost it can answer all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from jetstore.node.advisories import nuid
from jetstore.node.consumer_engine import TIMER_MAX_S, ConsumerEngine
from jetstore.node.delivery_format import FLOW_CONTROL, idle_heartbeat
from jetstore.node.delivery_ports import Sink
from jetstore.node.flight import Share
from jetstore.node.ports import Inbound, InternalSubscription
from jetstore.node.pull import PushRefusal
from jetstore.store.ports import Message

WINDOW_FIRST_BYTES = 2 << 20
WINDOW_MAX_BYTES = 32 << 20
RETRY_S = 1.0
"""After somebody subscribed and yet took nothing, the next attempt is this much later."""


class DeliverSubject:
    """The one sink of a push consumer."""

    def __init__(self, target: bytes, queue: bytes) -> None:
        self.target = target
        self.queue = queue


class PushEngine(ConsumerEngine):
    """Delivers for a push consumer."""

    def start(self) -> None:
        """Take the consumer's subjects and begin as soon as somebody listens."""
        self._watch: InternalSubscription | None = None
        self._bound = False
        self._retry_s = 0.0
        self._heartbeat_due_s = 0.0
        self._window_bytes = WINDOW_FIRST_BYTES
        self._unconfirmed_bytes = 0
        self._asked_bytes = 0
        self._asked: bytes = b""
        self._flow_prefix = f"$JS.FC.{self.stream_name}.{self.name}.".encode()
        self._bind()
        super().start()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream_name}.{self.name}".encode()
        self._subscriptions.append(self.outlet.subscribe(subject, PushRefusal(self)))
        if self.state.config.flow_control:
            self._subscriptions.append(self.outlet.subscribe(self._flow_prefix + b"*", FlowHandler(self)))

    def _bind(self) -> None:
        """Follow the interest in the deliver subject of the configuration."""
        config = self.state.config
        self._sink = DeliverSubject(config.deliver_subject.encode(), config.deliver_group.encode())
        if self._watch is not None:
            self._watch.close()
        self._watch = self.outlet.watch_interest(self._sink.target, self._interest_changed)
        self._bound = False
        self._interest_changed(True)

    def stop(self, line: bytes = b"", *, is_deleted: bool = False) -> None:
        """Leave everything as it is in the log."""
        super().stop(line, is_deleted=is_deleted)
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def on_config(self) -> None:
        """The configuration changed, perhaps the deliver subject."""
        super().on_config()
        config = self.state.config
        if (config.deliver_subject.encode(), config.deliver_group.encode()) != (self._sink.target, self._sink.queue):
            self._bind()

    def _interest_changed(self, _: bool) -> None:
        if self.stopped:
            return
        bound = self.outlet.has_interest(self._sink.target, self._sink.queue)
        if bound == self._bound:
            return
        self._bound = bound
        self._retry_s = 0.0
        self.touch()
        self._unconfirmed_bytes = self._asked_bytes = 0
        self._asked = b""
        interval_s = self.state.config.idle_heartbeat / 1e9
        self._heartbeat_due_s = self.loop.time() + interval_s if bound and interval_s else 0.0
        if bound:
            self.wake()
        else:
            self.arm()

    @property
    def is_bound(self) -> bool:
        """Whether somebody subscribes to the deliver subject (in the deliver group, if there is one)."""
        return self._bound

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def may_deliver(self) -> bool:
        return self._bound

    def demand(self) -> tuple[int, int]:
        if not self._bound or self._retry_s > self.loop.time():
            return 0, 0
        if self.outlet.pending_bytes(self._sink.target) >= self.limits.write_pause_bytes:
            self.wait_writable(self._sink.target)
            return 0, 0
        room = self.limits.delivery_batch_bytes
        if self.state.config.flow_control:
            if self._unconfirmed_bytes > self._window_bytes or self._flights:
                return 0, 0  # what is under way is not counted yet
            border = self._window_bytes if self._asked else self._window_bytes // 2
            room = min(room, max(border - self._unconfirmed_bytes, 0) + 1)
        return self.limits.delivery_batch_messages, room

    def assign(self, messages: Sequence[Message]) -> tuple[int, list[Share]]:
        return len(messages), [(self._sink, None)]

    def release(self, sink: Sink, messages: int) -> None:
        """Nothing was reserved."""

    def transmit(
        self,
        sink: Sink,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
    ) -> int:
        assert isinstance(sink, DeliverSubject)
        return self.outlet.deliver(sink.target, subjects, replies, header_lens, payloads, sink.queue)

    def sent(self, sink: Sink, messages: int, size_bytes: int, taken: int) -> None:
        now_s = self.loop.time()
        if taken < messages:
            self._bound = self.outlet.has_interest(self._sink.target, self._sink.queue)
            self._retry_s = now_s + RETRY_S
        if not taken:
            return
        config = self.state.config
        if config.idle_heartbeat:
            self._heartbeat_due_s = now_s + config.idle_heartbeat / 1e9
        if config.flow_control:
            self._unconfirmed_bytes += size_bytes
            if not self._asked and self._unconfirmed_bytes > self._window_bytes // 2:
                self._ask()

    def say_goodbye(self, line: bytes) -> None:
        """Push consumers just stop."""

    # -- flow control and heartbeats ----------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask the client to confirm what it got so far."""
        self._asked = self._flow_prefix + nuid(self.rng, 4).encode()
        self._asked_bytes = self._unconfirmed_bytes
        self.outlet.publish([self._sink.target], [len(FLOW_CONTROL)], [FLOW_CONTROL], [self._asked])

    def on_flow_answers(self, batch: Inbound) -> None:
        """A run of answers."""
        for subject in batch.subjects:
            self.on_flow_answer(subject)

    def on_flow_answer(self, subject: bytes) -> None:
        """The client answered; only the open question counts."""
        if subject != self._asked or self.stopped:
            return
        self._window_bytes = min(2 * self._window_bytes, WINDOW_MAX_BYTES)
        self._unconfirmed_bytes = max(self._unconfirmed_bytes - self._asked_bytes, 0)
        self._asked, self._asked_bytes = b"", 0
        self.touch()
        self.wake()

    def has_takers(self) -> bool:
        return self._bound

    def own_deadline_s(self, now_s: float) -> float:
        when = now_s + TIMER_MAX_S
        if self._heartbeat_due_s:
            when = min(when, self._heartbeat_due_s)
        if self._retry_s > now_s:
            when = min(when, self._retry_s)
        return when

    def on_deadline(self, now_s: float) -> None:
        """Send an idle heartbeat when nothing else went out for the interval."""
        if self._retry_s and self._retry_s <= now_s:
            self._retry_s = 0.0
        if not self._heartbeat_due_s or self._heartbeat_due_s > now_s:
            return
        self._heartbeat_due_s = now_s + self.state.config.idle_heartbeat / 1e9
        if self._bound:
            self.on_heartbeat()

    def on_heartbeat(self) -> None:
        """Say that the consumer is there, and how far it is."""
        at = self.state.counters().delivered
        block = idle_heartbeat(at.consumer_seq, at.stream_seq, self._asked)
        self.outlet.publish([self._sink.target], [len(block)], [block])


class FlowHandler:
    """Takes the answers to flow control requests."""

    def __init__(self, engine: PushEngine) -> None:
        self._engine = engine

    def on_messages(self, batch: Inbound) -> None:
        """A run of answers."""
        self._engine.on_flow_answers(batch)
