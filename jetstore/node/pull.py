"""Pull consumers: requests that wait, and who of them gets what.

Requests are served first come first served, one message each in turn. A request ends when its batch is reserved and
sent, when it expires, when its inbox has no subscriber any more, or with a status that says why. What was reserved for
a request is sent before the status that ends it.
"""

from __future__ import annotations

from bisect import insort_right
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from math import inf

from jetstore.model.infos import PriorityGroupState
from jetstore.node.consumer_engine import ConsumerEngine
from jetstore.node.delivery_format import idle_heartbeat, pending_status, status, with_header
from jetstore.node.delivery_ports import Sink
from jetstore.node.flight import Share
from jetstore.node.ports import Inbound
from jetstore.node.priority import PIN_MISMATCH, WRONG_PIN, Priorities
from jetstore.node.pull_request import PullRequest, Refused, level_refusal, parse_request
from jetstore.store.ports import Message

READY_MAX = 64
"""Requests looked at for one batch; who was served goes to the back, so the others come to the front."""


class PullEngine(ConsumerEngine):
    """Delivers for a pull consumer."""

    _waiting: deque[PullRequest]

    def start(self) -> None:
        """Take the consumer's subjects and begin."""
        self._waiting = deque()
        self._ready: list[PullRequest] = []
        self._priorities = Priorities(self.state.config, self.rng, self)
        self._deadline_s = inf
        """No request expires or wants a heartbeat earlier; perhaps none does then."""
        self._jitter_s = self.rng.uniform(0.1, 1.0)
        super().start()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream_name}.{self.name}".encode()
        self._subscriptions.append(self.outlet.subscribe(subject, RequestHandler(self)))

    # -- requests -----------------------------------------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        self._drop_unheard()
        return len(self._waiting)

    def on_next_request(self, reply: bytes, body: bytes, header: bytes = b"") -> None:
        """A request for messages."""
        if self.stopped or not reply:
            return
        self.touch()
        refusal = level_refusal(header) if header else b""
        if refusal:
            self._tell(reply, refusal)
            return
        now_s = self.loop.time()
        try:
            request = parse_request(reply, body, self.state.config, now_s)
        except Refused as refused:
            self._send_status(reply, refused.block)
            return
        if self._priorities.is_mismatch(request, now_s):
            self._tell(reply, PIN_MISMATCH)
            return
        self.await_naks()
        if request.no_wait and self._refuse_no_wait(request):
            return
        limit = self.state.config.max_waiting
        if limit > 0 and len(self._waiting) >= limit:
            self._drop_unheard()
            if len(self._waiting) >= limit:
                if not request.heartbeat_s:
                    self._tell(reply, b"409 Exceeded MaxWaiting")
                return
        self._waiting.append(request)
        self._deadline_s = min(self._deadline_s, _deadline_s(request))
        self.wake()

    def _refuse_no_wait(self, request: PullRequest) -> bool:
        """Whether there is nothing for a request that does not wait."""
        if self.awaits_naks:
            return False
        state = self.state
        pending = state.counters().num_pending - self._flying_new
        if not self._flying_again:
            due, _ = state.plan_redeliveries(self.times.reached_ns(), self.limits.delivery_batch_messages)
            pending += sum(last - first + 1 for first, last, _ in due)
        if pending <= 0 or self.is_paused():
            if request.expires_s and not self.is_paused():
                return False
            self._tell(request.target, b"404 No Messages")
            return True
        if pending < sum(waiting.left for waiting in self._waiting):
            self._tell(request.target, b"408 Requests Pending")
            return True
        return False

    def _tell(self, target: bytes, line: bytes) -> None:
        self._send_status(target, status(line))

    def _send_status(self, target: bytes, block: bytes) -> None:
        self.outlet.publish([target], [len(block)], [block])

    def _close(self, request: PullRequest, line: bytes) -> None:
        """End a request with a status that says what is left of it."""
        if request.flying:
            request.closing = line
            return
        if line.startswith(b"404"):
            self._tell(request.target, line)
            return
        self._send_status(request.target, pending_status(line, request.left, request.bytes_left))

    def _drop_unheard(self) -> None:
        """Forget requests whose inbox nobody subscribes to any more."""
        heard = self.outlet.has_interest
        if self._waiting and not all(heard(request.target) for request in self._waiting):
            self._waiting = deque(request for request in self._waiting if heard(request.target))

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def may_deliver(self) -> bool:
        return bool(self._waiting)

    def demand(self) -> tuple[int, int]:
        outlet, pause = self.outlet, self.limits.write_pause_bytes
        self._ready = []
        wanted = 0
        unheard: list[PullRequest] = []
        waiting: Iterable[PullRequest] = self._waiting
        if self._priorities.groups:
            _, pending = self.next_numbers()
            waiting = self._priorities.candidates(waiting, pending + 1, self._ack_pending())
        for request in islice(waiting, READY_MAX):
            if not outlet.has_interest(request.target):
                unheard.append(request)
            elif outlet.pending_bytes(request.target) >= pause:
                self.wait_writable(request.target)
            else:
                self._ready.append(request)
                wanted += request.left
                if wanted >= self.limits.delivery_batch_messages:
                    break
        for request in unheard:
            self._waiting.remove(request)
        if unheard:
            self.wake()
        return wanted, self.limits.delivery_batch_bytes

    def _ack_pending(self) -> int:
        """Messages delivered, or on their way, and not acknowledged."""
        return self.state.pending.messages + self._flying_new

    def assign(self, messages: Sequence[Message]) -> tuple[int, list[Share]]:
        ready = self._ready
        if self._priorities.groups:
            now_s, now_ns = self.loop.time(), self.leader.clock.wall_ns()
            self._ready, stale = self._priorities.settle(ready, now_s, now_ns)
            for request in stale:
                self._waiting.remove(request)
                self._close(request, WRONG_PIN)
            return self._assign_in_turn(messages)
        if len(ready) == 1 and not ready[0].max_bytes:
            request = ready[0]
            taken = min(request.left, len(messages))
            request.left -= taken
            request.flying += taken
            if not request.left:
                self._waiting.remove(request)
            return taken, [(request, None)]
        return self._assign_in_turn(messages)

    def _assign_in_turn(self, messages: Sequence[Message]) -> tuple[int, list[Share]]:
        turn = deque(self._ready)
        shares: dict[PullRequest, list[int]] = {}
        at = 0
        consumer_seq, pending = self.next_numbers()
        ack_pending = self._ack_pending()
        while turn and at < len(messages):
            request = turn.popleft()
            if not request.is_above(pending + 1 - at, ack_pending + at):
                continue
            if request.max_bytes:
                message = messages[at]
                # What the ack reply subject will be, if nothing comes between.
                numbers = f"1.{message.seq}.{consumer_seq + at}.{message.time_ns}.{max(pending - at, 0)}"
                size = len(message.subject) + len(self.ack_prefix) + len(numbers)
                size += len(message.header) + len(message.data)
                if size > request.bytes_left:
                    self._waiting.remove(request)
                    self._close(request, b"409 Message Size Exceeds MaxBytes")
                    continue
                request.bytes_left -= size
                if not request.bytes_left:
                    request.left = 1
            shares.setdefault(request, []).append(at)
            at += 1
            request.left -= 1
            request.flying += 1
            if not request.left:
                self._waiting.remove(request)
            elif self._priorities.is_prioritized:
                insort_right(turn, request, key=_priority)
            else:
                turn.append(request)
        # Who was served last goes to the back of the queue.
        if turn:
            served = [request for request in turn if request in shares]
            if served and len(turn) > 1:
                waiting = [request for request in self._waiting if request not in shares]
                self._waiting = deque(waiting + served)
        return at, list(shares.items())

    def release(self, sink: Sink, messages: int) -> None:
        assert isinstance(sink, PullRequest)
        if not sink.left and not sink.closing:
            self._waiting.appendleft(sink)
            self._deadline_s = min(self._deadline_s, _deadline_s(sink))
        sink.left += messages
        sink.flying -= messages
        self._finish(sink)

    def sent(self, sink: Sink, messages: int, size_bytes: int, taken: int) -> None:
        assert isinstance(sink, PullRequest)
        sink.flying -= messages
        sink.delivered += taken
        if taken < messages:
            # Its connection is gone, so is the request.
            sink.left = 0
            sink.max_bytes = 0
            sink.closing = b""
            if sink in self._waiting:
                self._waiting.remove(sink)
            return
        if sink.heartbeat_s:
            sink.heartbeat_due_s = self.loop.time() + sink.heartbeat_s
        self._finish(sink)

    def _finish(self, request: PullRequest) -> None:
        """Say the last word of a request that is done."""
        if request.flying:
            return
        if request.closing:
            line, request.closing = request.closing, b""
            self._close(request, line)
        elif not request.left and request.bytes_left > 0:
            self._close(request, b"409 Batch Completed")

    def drained(self) -> None:
        paused = self.is_paused()
        for request in [request for request in self._waiting if request.no_wait]:
            if request.delivered or not request.expires_s or paused:
                self._waiting.remove(request)
                self._close(request, b"404 No Messages")

    def say_goodbye(self, line: bytes) -> None:
        if line:
            for request in self._waiting:
                request.flying = 0
                if line.startswith(b"409 Server"):
                    self._close(request, line)
                else:
                    self._tell(request.target, line)
        self._waiting.clear()

    # -- priority groups ----------------------------------------------------------------------------------------------

    def on_config(self) -> None:
        super().on_config()
        self._priorities.follow(self.state.config)

    @property
    def priority_groups(self) -> Sequence[PriorityGroupState]:
        """The consumer's priority groups and who is pinned."""
        return self._priorities.state()

    def unpin(self) -> None:
        """An operator wants somebody else to be pinned."""
        self._priorities.unpin("admin")
        self.wake()

    def pinned(self, group: str, pin_id: str) -> None:
        """Tell who listens (``PinEvents``)."""
        self.advisories.tell_group("PINNED", "pinned", self.name, group, pinned_id=pin_id)

    def unpinned(self, group: str, reason: str) -> None:
        """Tell who listens (``PinEvents``)."""
        self.advisories.tell_group("UNPINNED", "unpinned", self.name, group, reason=reason)

    def transmit(
        self,
        sink: Sink,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
    ) -> int:
        assert isinstance(sink, PullRequest)
        if sink.pin_id:
            header_lens, payloads = with_header(b"Nats-Pin-Id", sink.pin_id.encode(), header_lens, payloads)
        return super().transmit(sink, subjects, replies, header_lens, payloads)

    # -- time ---------------------------------------------------------------------------------------------------------

    def has_takers(self) -> bool:
        self._drop_unheard()
        return bool(self._waiting)

    def idle_limit_s(self) -> float:
        return super().idle_limit_s() + self._jitter_s

    def own_deadline_s(self, now_s: float) -> float:
        return min(self._deadline_s, self._priorities.deadline_s, super().own_deadline_s(now_s))

    def on_deadline(self, now_s: float) -> None:
        """Expire requests and pins; tell the others that we are still here."""
        if self._priorities.deadline_s <= now_s:
            self._priorities.unpin("timeout")
        counters = None
        for request in list(self._waiting):
            if request.expires_s and request.expires_s <= now_s:
                self._waiting.remove(request)
                self._close(request, b"408 Request Timeout")
            elif request.heartbeat_due_s and request.heartbeat_due_s <= now_s and request.no_wait and request.delivered:
                self._waiting.remove(request)  # it has waited for more as long as nats-server does
                self._close(request, b"404 No Messages")
            elif request.heartbeat_due_s and request.heartbeat_due_s <= now_s:
                counters = counters or self.state.counters()
                at = counters.delivered
                block = idle_heartbeat(at.consumer_seq, at.stream_seq)
                self._send_status(request.target, block)
                request.heartbeat_due_s = now_s + request.heartbeat_s
        self._deadline_s = min(map(_deadline_s, self._waiting), default=inf)


def _priority(request: PullRequest) -> int:
    return request.priority


def _deadline_s(request: PullRequest) -> float:
    """When something is due for a request."""
    return min(request.expires_s or inf, request.heartbeat_due_s or inf)


class RequestHandler:
    """Takes what is published on one consumer's ``MSG.NEXT`` subject."""

    def __init__(self, engine: PullEngine) -> None:
        self._engine = engine

    def on_messages(self, batch: Inbound) -> None:
        """A run of requests."""
        for at, (reply, payload) in enumerate(zip(batch.replies, batch.payloads, strict=True)):
            cut = batch.header_lens[at] if batch.header_lens else 0
            self._engine.on_next_request(reply, payload[cut:], payload[:cut])


class PushRefusal:
    """Answers pull requests for a push consumer."""

    def __init__(self, engine: ConsumerEngine) -> None:
        self._engine = engine

    def on_messages(self, batch: Inbound) -> None:
        """A run of requests that cannot be served."""
        replies = [reply for reply in batch.replies if reply]
        block = status(b"409 Consumer is push based")
        if replies and not self._engine.stopped:
            self._engine.outlet.publish(replies, [len(block)] * len(replies), [block] * len(replies))
