"""A stream that is led in one hand: real state machines over in-memory stores, a loop and a router without sockets.

Time stands still until a test moves it; entries are applied when the loop turns.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from jetstore.consumer.entries import encode_delete, encode_pause, encode_reset, encode_set
from jetstore.consumer.state import ConsumerState
from jetstore.errors import Corruption, NotNow
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.limits import Limits
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.stream import StreamConfig
from jetstore.node.delivery import Delivery
from jetstore.node.ports import Inbound, InboundHandler
from jetstore.node.steady_clock import SteadyClock
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.memory_log import MemoryLog
from jetstore.stream.entries import encode_config, encode_publish
from jetstore.stream.entries import encode_delete as encode_message_delete
from jetstore.stream.stream import Stream
from jetstore.stream.subjects import matches
from jetstore.types import GroupUid, Nanos, RaftIndex, Term

START_NS = 1_700_000_000_000_000_000
S = 1_000_000_000


class FakeLoop(asyncio.AbstractEventLoop):
    """An event loop turned by hand: callbacks, timers and futures, no input or output."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._soon: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0

    def time(self) -> float:
        return self.now_s

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise context.get("exception") or AssertionError(context)

    def turn(self) -> bool:
        """Run what is ready; whether anything was."""
        ready, self._soon = self._soon, []
        for handle in ready:
            if not handle.cancelled():
                handle._run()
        return bool(ready)

    def next_timer_s(self) -> float:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else float("inf")

    def fire(self) -> None:
        """Run the timers whose time has come."""
        while self.next_timer_s() <= self.now_s:
            self._soon.append(heapq.heappop(self._timers)[2])


class FakeClock:
    """Wall time that moves with the loop's, and a step further each time somebody looks."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self._start_s = loop.now_s
        self.step_ns = 0
        self.shift_ns = 0
        """How far somebody has set it forward; negative = back."""
        self._stepped_ns = 0

    def wall_ns(self) -> Nanos:
        self._stepped_ns += self.step_ns
        return Nanos(self._stepped_ns + self.shift_ns + START_NS + round((self._loop.now_s - self._start_s) * 1e9))


class Closing:
    """A subscription or watch that can be ended."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def close(self) -> None:
        self._end()


class Got:
    """One message as a client saw it."""

    def __init__(self, target: bytes, subject: bytes, reply: bytes, header: bytes, data: bytes) -> None:
        self.target, self.subject, self.reply, self.header, self.data = target, subject, reply, header, data
        self.at_s = 0.0

    @property
    def status(self) -> str:
        line = self.header.split(b"\r\n")[0]
        return line[len(b"NATS/1.0 ") :].decode() if line.startswith(b"NATS/1.0 ") else ""

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """(attempt, stream seq, consumer seq, pending) of the ack reply subject."""
        parts = self.reply.split(b".")
        return int(parts[4]), int(parts[5]), int(parts[6]), int(parts[8])

    @property
    def seq(self) -> int:
        return self.numbers[1]

    def __repr__(self) -> str:
        return f"Got({self.target!r} {self.subject!r} {self.reply!r} {self.header!r} {self.data[:20]!r})"


class FakeOutlet:
    """A router with clients that are only names: whoever ``listen``s gets messages into ``inbox``."""

    domain = ""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self.handlers: list[tuple[bytes, InboundHandler]] = []
        self.listeners: dict[tuple[bytes, bytes], int] = {}
        self.watchers: list[tuple[bytes, Callable[[bool], None]]] = []
        self.got: list[Got] = []
        self.pending: dict[bytes, int] = {}
        self.writable: dict[bytes, list[Callable[[], None]]] = {}
        self.take: dict[bytes, int] = {}
        """Target → messages its connection will still take; absent = all."""

    def listen(self, subject: bytes, queue: bytes = b"") -> None:
        self.listeners[subject, queue] = 1
        self._interest(subject)

    def leave(self, subject: bytes, queue: bytes = b"") -> None:
        self.listeners.pop((subject, queue), None)
        self._interest(subject)

    def _interest(self, subject: bytes) -> None:
        for target, callback in list(self.watchers):
            if target == subject:
                self._loop.call_soon(callback, self.has_interest(target))

    def subscribe(self, subject: bytes, handler: InboundHandler) -> Closing:
        entry = (subject, handler)
        self.handlers.append(entry)
        return Closing(lambda: self.handlers.remove(entry) if entry in self.handlers else None)

    def send(self, messages: Sequence[tuple[bytes, bytes, bytes]]) -> bool:
        """A client publishes (subject, reply, payload) each; whether every one found a responder."""
        runs: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
        handlers: dict[int, InboundHandler] = {}
        found = 0
        for subject, reply, payload in messages:
            for pattern, handler in self.handlers:
                if matches(pattern, subject):
                    found += 1
                    handlers[id(handler)] = handler
                    runs.setdefault(id(handler), []).append((subject, reply, payload))
        for key, run in runs.items():
            subjects, replies, payloads = zip(*run, strict=True)
            cuts = [p.index(b"\r\n\r\n") + 4 if p.startswith(b"NATS/1.0") else 0 for p in payloads]
            handlers[key].on_messages(Inbound(subjects, replies, cuts if any(cuts) else (), payloads, "$G", object()))
        return found >= len(messages)

    def publish(
        self,
        subjects: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
        replies: Sequence[bytes] = (),
    ) -> None:
        for at, (subject, payload) in enumerate(zip(subjects, payloads, strict=True)):
            cut = header_lens[at] if header_lens else 0
            self.got.append(Got(subject, subject, replies[at] if replies else b"", payload[:cut], payload[cut:]))

    def pub_acks(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        raise AssertionError("consumers send no PubAcks")

    def deliver(
        self,
        target: bytes,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
        queue: bytes = b"",
    ) -> int:
        assert len(subjects) == len(replies) == len(payloads)
        if not self.has_interest(target, queue):
            return 0
        taken = min(len(subjects), self.take.get(target, len(subjects)))
        if target in self.take:
            self.take[target] -= taken
        for at in range(taken):
            cut = header_lens[at] if header_lens else 0
            self.got.append(Got(target, subjects[at], replies[at], payloads[at][:cut], payloads[at][cut:]))
            self.got[-1].at_s = self._loop.now_s
        return taken

    def has_interest(self, target: bytes, queue: bytes = b"") -> bool:
        if queue:
            return (target, queue) in self.listeners
        return any(subject == target for subject, _ in self.listeners)

    def pending_bytes(self, target: bytes) -> int:
        return self.pending.get(target, 0)

    def when_writable(self, target: bytes, callback: Callable[[], None]) -> None:
        self.writable.setdefault(target, []).append(callback)

    def watch_interest(self, target: bytes, callback: Callable[[bool], None]) -> Closing:
        entry = (target, callback)
        self.watchers.append(entry)
        return Closing(lambda: self.watchers.remove(entry) if entry in self.watchers else None)

    # -- what tests look at -------------------------------------------------------------------------------------------

    def taken(self, target: bytes | None = None) -> list[Got]:
        """What arrived (for one target) since the last call."""
        found = [got for got in self.got if target is None or got.target == target]
        self.got = [got for got in self.got if got not in found]
        return found

    def drain(self, target: bytes) -> None:
        """The connection of ``target`` has caught up."""
        self.pending.pop(target, None)
        for callback in self.writable.pop(target, []):
            self._loop.call_soon(callback)


class World:
    """Stream ``S`` on subjects ``s.>``, led by this node; ``outlet`` is its router."""

    def __init__(self, limits: Limits | None = None, **config: Any) -> None:
        self.loop = FakeLoop()
        self.wall = FakeClock(self.loop)
        self.clock = SteadyClock(self.wall, self.loop.time)
        self.limits = limits or Limits()
        self.outlet = FakeOutlet(self.loop)
        self.stream = Stream(GroupUid(2), MemoryLog(), MemoryIndex(), self.limits)
        self.index = 0
        self.log: list[bytes] = []
        self._queue: list[tuple[bytes, asyncio.Future[Any] | None]] = []
        self.refuses = False
        self.damage: list[Corruption] = []
        """What the consumers said."""
        self.hold = False
        """True: entries wait, as for a slow disk."""
        fields: dict[str, Any] = {"name": "S", "subjects": ("s.>",), "max_msgs": -1, "max_bytes": -1}
        self.apply(encode_config(1, START_NS, StreamConfig(**(fields | config))))
        self.delivery = Delivery(self, self.outlet, Random(1))
        self.delivery.start()
        self.run()

    # -- StreamLeader -------------------------------------------------------------------------------------------------

    def propose(self, data: bytes, cache: object = None) -> asyncio.Future[Any]:
        if self.refuses:
            raise NotNow("not leading")
        future = self.loop.create_future()
        self._queue.append((data, future))
        return future

    def note_damage(self, error: Corruption) -> None:
        self.damage.append(error)

    # -- moving -------------------------------------------------------------------------------------------------------

    def apply(self, data: bytes) -> Any:
        self.index += 1
        self.log.append(data)
        return self.stream.apply(RaftIndex(self.index), Term(1), data, None)

    def commit(self) -> bool:
        """Apply what is proposed; whether anything was."""
        queue, self._queue = self._queue, []
        for data, future in queue:
            outcome = self.apply(data)
            if future is not None:
                future.set_result(outcome)
        if queue:
            self.delivery.on_applied()
        return bool(queue)

    def run(self) -> None:
        """Until nothing moves, without moving time."""
        for _ in range(10_000):
            self.loop.fire()
            moved = self.loop.turn()
            if not self.hold:
                moved = self.commit() or moved
            if not moved and self.loop.next_timer_s() > self.loop.now_s:
                return
        raise AssertionError("it never comes to rest")

    def pass_s(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        self.run()
        end_s = self.loop.now_s + seconds
        while self.loop.next_timer_s() <= end_s:
            self.loop.now_s = max(self.loop.next_timer_s(), self.loop.now_s)
            self.run()
        self.loop.now_s = end_s
        self.run()

    # -- doing --------------------------------------------------------------------------------------------------------

    def enter(self, data: bytes) -> Any:
        """Put an entry through the log; its outcome."""
        future = self.loop.create_future()
        self._queue.append((data, future))
        self.run()
        return future.result() if future.done() else None

    def publish(self, *messages: tuple[str, bytes] | str, header: bytes = b"") -> None:
        """Store messages: (subject, body), or just a subject."""
        pairs = [(m, b"x") if isinstance(m, str) else m for m in messages]
        columns = Columns(
            [subject.encode() for subject, _ in pairs],
            [len(header)] * len(pairs) if header else (),
            [header + body for _, body in pairs],
        )
        now_ns = self.stream.next_time_ns(self.clock.wall_ns(), len(pairs))
        self.enter(encode_publish(now_ns, encode_frames(columns, now_ns, self.limits.frame_bytes_max)))

    def fill(self, count: int, subject: str = "s.a") -> None:
        self.publish(*[subject] * count)

    def delete_message(self, seq: int) -> None:
        self.enter(encode_message_delete(seq))

    def consumer(self, name: str = "c", **config: Any) -> ConsumerState:
        """Create or update a consumer; by default durable, explicit, with nats-server's defaults."""
        fields: dict[str, Any] = {
            "durable_name": name,
            "name": name,
            "ack_policy": "explicit",
            "max_deliver": -1,
            "ack_wait": 30 * S,
            "max_ack_pending": 1000,
            "max_waiting": 512,
        }
        made = ConsumerConfig(**(fields | config))
        self.enter(encode_set(name, self.stream.next_time_ns(self.clock.wall_ns()), made.to_json()))
        return self.stream.consumers[name]

    def delete_consumer(self, name: str = "c") -> None:
        self.enter(encode_delete(name, self.clock.wall_ns()))

    def reset(self, name: str = "c", seq: int = 0) -> None:
        self.enter(encode_reset(name, self.stream.next_time_ns(self.clock.wall_ns()), seq))

    def pause(self, name: str = "c", seconds: float = 0) -> None:
        until = self.clock.wall_ns() + round(seconds * 1e9) if seconds else 0
        self.enter(encode_pause(name, self.clock.wall_ns(), until))

    def request(self, inbox: str, body: dict[str, Any] | bytes = b"", name: str = "c", header: bytes = b"") -> bool:
        """A pull request whose inbox has a subscriber; whether somebody takes requests."""
        if (inbox.encode(), b"") not in self.outlet.listeners:
            self.outlet.listen(inbox.encode())
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        found = self.outlet.send([(f"$JS.API.CONSUMER.MSG.NEXT.S.{name}".encode(), inbox.encode(), header + payload)])
        self.run()
        return found

    def fetch(self, inbox: str = "in", name: str = "c", **body: Any) -> list[Got]:
        """What a pull request with this body brought at once."""
        self.request(inbox, body, name)
        return self.outlet.taken(inbox.encode())

    def ack(self, *gots: Got, body: bytes = b"", reply: bytes = b"") -> None:
        """Acknowledge; what waits for company is logged 20 ms later."""
        self.outlet.send([(got.reply, reply, body) for got in gots])
        self.run()

    def info(self, name: str = "c") -> str:
        """The counters in one line: delivered, floor, ack pending, redelivered, waiting, pending."""
        info = self.delivery.consumer_info(name)
        d, f = info.delivered, info.ack_floor
        return (
            f"del c{d.consumer_seq} s{d.stream_seq} floor c{f.consumer_seq} s{f.stream_seq} ackp {info.num_ack_pending}"
            f" redel {info.num_redelivered} wait {info.num_waiting} pend {info.num_pending}"
        )
