"""The leader's side of one consumer: plan, log, send, take acknowledgements, deliver again. Pull and push build on it.

A delivery that counts goes round once: *plan* (look at the applied state, read the messages, reserve who gets them) →
*propose* DELIVERED_NEW (DELIVERED when it comes again) → when it is applied, *send* exactly what was accepted → what no
connection took is proposed as RETURNED. Several such flights may be under way; ``_planned_next`` and ``_flying_again``
keep a sequence out of two. When one of them never enters the log, those behind it are void (they would skip its
messages): planning begins again when all have come back.
Without acknowledgements there is no entry per delivery: ``unlogged.py``.

Everything runs on the event loop; nothing here awaits.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import structlog

from jetstore.consumer import counts, entries
from jetstore.consumer.cursor import runs_of
from jetstore.consumer.entries import AttemptRange
from jetstore.consumer.state import ConsumerState
from jetstore.errors import Corruption, NotNow
from jetstore.node.acks import AckIntake
from jetstore.node.advisories import Advisories
from jetstore.node.delivery_format import ack_replies, columns
from jetstore.node.delivery_ports import Sink, StreamLeader
from jetstore.node.delivery_reader import DeliveryReader
from jetstore.node.flight import Flight, Share
from jetstore.node.logged_time import LoggedTime
from jetstore.node.pacing import Pacer
from jetstore.node.ports import InternalSubscription, Outlet
from jetstore.node.unlogged import Unlogged
from jetstore.store.ports import Message

log = structlog.get_logger(__name__)

FLIGHTS_MAX = 4
"""DELIVERED entries of one consumer under way at once; above: planning waits for the first to come back."""
REFUSED_RETRY_S = 1.0
"""How soon a consumer plans again after an entry could not be proposed."""
TIMER_MAX_S = 3600.0
"""No timer waits longer: the wall clock may have jumped meanwhile."""


class ConsumerEngine(ABC):
    """Delivers for one consumer while this node leads its stream."""

    def __init__(
        self,
        leader: StreamLeader,
        outlet: Outlet,
        state: ConsumerState,
        advisories: Advisories,
        rng: Random,
    ) -> None:
        self.leader = leader
        self.outlet = outlet
        self.state = state
        self.advisories = advisories
        self.rng = rng
        self.loop = leader.loop
        self.limits = leader.limits
        self.name = state.name
        self.stream_name = leader.stream.name
        self.stopped = False
        self.generation = state.generation
        self._config = state.config
        self.ack_key = f"$JS.ACK.{self.stream_name}.{self.name}".encode()
        self.ack_prefix = self.ack_key + b"."
        self._subscriptions: list[InternalSubscription] = []
        self._pump_scheduled = False
        self._flights = 0
        self._flying_new = 0
        self._flying_again = False
        self._planned_next = 0
        self._is_flight_lost = False
        self._blocked = False
        self._naks_awaited = 0
        """New messages wait until so many entries with NAKs are applied."""
        self._full: set[bytes] = set()
        """Targets whose connections are to say when they can take more."""
        self.reader = DeliveryReader(leader, state)
        self.acks = AckIntake(self)
        self.unlogged = Unlogged(self)
        self.times = LoggedTime(leader.clock, leader.stream)
        self._checked_ns = 0
        """What was due by then has had its chance; what is due later needs the timer."""
        self._deleting = False
        self._active_s = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        """When it is set to: uvloop gives a handle without ``when`` for what is due already."""
        self._paused_until_ns = 0
        self.pacer = Pacer(state.config, state.view.last_seq)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the consumer's subjects and begin."""
        self.state.lead()
        if self.state.acks:
            # One pattern for the rest of the subject, so that the router matches a whole run of them at once.
            subject = self.ack_prefix + b">"
            self._subscriptions.append(self.outlet.subscribe(subject, self.acks))
        self._note_pause(self.now_ns(), announce=False)
        self.wake()

    def stop(self, line: bytes = b"", *, is_deleted: bool = False) -> None:
        """Leave everything as it is in the log. ``line`` is the status that waiting pull requests get."""
        if self.stopped:
            return
        if not is_deleted:
            self.acks.flush()
            self.unlogged.log_cursor()
        self.stopped = True
        for subscription in self._subscriptions:
            subscription.close()
        if self._timer is not None:
            self._timer.cancel()
        self.say_goodbye(line)
        self.state.follow()

    def now_ns(self) -> int:
        """The time for the next entry."""
        return self.times.next_ns()

    # -- what pull and push add ---------------------------------------------------------------------------------------

    @abstractmethod
    def demand(self) -> tuple[int, int]:
        """How many messages, and bytes of them, could be sent now. (0, 0) = none; somebody calls ``wake`` later."""

    @abstractmethod
    def may_deliver(self) -> bool:
        """Whether ``demand`` is worth asking. Cheap: it is asked after every slice of entries."""

    @abstractmethod
    def assign(self, messages: Sequence[Message]) -> tuple[int, list[Share]]:
        """Who gets the first n of these messages, n, and the reservation is made. Right after ``demand``."""

    @abstractmethod
    def release(self, sink: Sink, messages: int) -> None:
        """So many reserved messages were not there after all."""

    @abstractmethod
    def sent(self, sink: Sink, messages: int, size_bytes: int, taken: int) -> None:
        """Of ``messages`` reserved ones ``taken`` were taken by the sink's connection."""

    def drained(self) -> None:  # noqa: B027  # most have nothing to do
        """Nothing is left to deliver and nothing is under way."""

    @abstractmethod
    def say_goodbye(self, line: bytes) -> None:
        """Tell who waits."""

    @abstractmethod
    def has_takers(self) -> bool:
        """Whether somebody could take messages: keeps an idle consumer alive."""

    def own_deadline_s(self, now_s: float) -> float:
        """When pull or push next has something to do on its own (loop time)."""
        return now_s + TIMER_MAX_S

    @abstractmethod
    def on_deadline(self, now_s: float) -> None:
        """Do what is due on its own."""

    # -- waking -------------------------------------------------------------------------------------------------------

    def wait_writable(self, target: bytes) -> None:
        """Wake once the connection behind ``target`` can take more."""
        if target not in self._full:
            self._full.add(target)
            self.outlet.when_writable(target, lambda: self._writable(target))

    def _writable(self, target: bytes) -> None:
        self._full.discard(target)
        self.wake()

    def wake(self) -> None:
        """Deliver what can be delivered, soon. Cheap; call as often as you like."""
        if not self._pump_scheduled and not self.stopped:
            self._pump_scheduled = True
            self.loop.call_soon(self._pump)

    def on_applied(self) -> None:
        """Entries were applied: the state may have changed."""
        state = self.state
        if state.generation != self.generation:
            self.generation = state.generation
            self._planned_next = 0
            self.wake()
        if state.config is not self._config:
            self._config = state.config
            self.on_config()
            self.wake()
        if state.dropped:
            dropped, state.dropped = state.dropped, []
            self.advisories.tell_dropped(self.name, dropped)
            self.wake()
        pending = state.cursor.num_pending - self._flying_new if state.live is None else state.live.cursor.num_pending
        if pending > 0 and self.may_deliver():
            self.wake()

    def on_config(self) -> None:
        """The configuration changed."""
        self._note_pause(self.now_ns(), announce=True)

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self.stopped:
            return
        self._checked_ns = self.times.reached_ns()
        if not self.is_paused():
            try:
                if self.state.acks:
                    self._deliver_logged()
                else:
                    self.deliver_unlogged()
            except Corruption as error:
                self.reader.stand_still(error)
        elif not self._flights:
            self.drained()
        self.arm()

    def is_paused(self) -> bool:
        """Whether deliveries are paused now."""
        until = self.state.pause_until_ns
        return bool(until) and until > self.leader.clock.wall_ns()

    def deliver_unlogged(self) -> None:
        """Deliver what needs no entry."""
        self.unlogged.deliver()

    # -- deliveries that count ----------------------------------------------------------------------------------------

    def _deliver_logged(self) -> None:
        state = self.state
        if not self._flying_again and state.next_due_ns() <= self._checked_ns:
            self._deliver_again()
        while self._flights < FLIGHTS_MAX and not self._is_flight_lost and not self.awaits_naks:
            messages_max, bytes_max = self.demand()
            if messages_max <= 0:
                return
            room = messages_max
            limit = state.config.max_ack_pending
            if limit > 0:
                room = min(room, limit - state.pending.messages - self._flying_new)
                self._blocked = room <= 0
                if self._blocked:
                    self.acks.flush()
                    return
            seqs = self.reader.plan_new(min(room, self.limits.delivery_batch_messages), self._planned_next)
            messages = self.pacer.allowed(self.reader.read(seqs, bytes_max), self.loop.time()) if seqs else []
            if not messages:
                if not seqs and not self._flights:
                    self.drained()
                return
            taken, shares = self.assign(messages)
            if not taken:
                return
            del messages[taken:]
            first, last = messages[0].seq, messages[-1].seq
            from_seq, self._planned_next = max(state.cursor.next_seq, self._planned_next), last + 1
            self._flying_new += taken
            if last - first + 1 == taken:
                runs = [(first, last)]
            else:
                runs = runs_of([message.seq for message in messages])
            now_ns = self.now_ns()
            data = entries.encode_delivered_new(self.name, self.generation, now_ns, from_seq, runs)
            self._fly(Flight(messages, shares, False), data, now_ns)

    @property
    def awaits_naks(self) -> bool:
        """Whether what a client has refused goes before what is new, and is not there yet."""
        return self.acks.naks_applied < self._naks_awaited

    def await_naks(self) -> None:
        """Who asks now has seen NAKs logged: it must not be given newer messages instead."""
        if not self.awaits_naks:  # and not ever again before something was delivered
            self._naks_awaited = self.acks.naks_logged

    def next_numbers(self) -> tuple[int, int]:
        """Consumer sequence and pending count of the next new delivery, if nothing comes between."""
        counters = self.state.counters()
        flying = self._flying_new
        return counters.delivered.consumer_seq + flying + 1, counters.num_pending - flying - 1

    def _deliver_again(self) -> None:
        """Plan what is due again; and take out what has no attempts left."""
        messages_max, bytes_max = self.demand()
        now_ns = self.now_ns()
        room = min(messages_max, self.limits.delivery_batch_messages)
        again, exhausted = self.state.plan_redeliveries(self.times.reached_ns(), room)
        if exhausted:
            self._flying_again = True
            data = entries.encode_exhausted(self.name, self.generation, now_ns, exhausted)
            self.propose(data, self._exhausted)
            return
        if not again:
            return
        order = [(seq, attempt) for first, last, attempt in again for seq in range(first, last + 1)]
        found = {message.seq: message for message in self.reader.read(sorted(seq for seq, _ in order), bytes_max)}
        messages = [found[seq] for seq, _ in order if seq in found]
        taken, shares = self.assign(messages)
        if not taken:
            return
        del messages[taken:]
        attempts = dict(order)
        runs: list[AttemptRange] = []
        for message in messages:
            seq, attempt = message.seq, attempts[message.seq]
            if runs and runs[-1][1] == seq - 1 and runs[-1][2] == attempt:
                runs[-1] = (runs[-1][0], seq, attempt)
            else:
                runs.append((seq, seq, attempt))
        self._flying_again = True
        data = entries.encode_delivered(self.name, self.generation, now_ns, runs)
        self._fly(Flight(messages, shares, True), data, now_ns)

    def _fly(self, flight: Flight, data: bytes, now_ns: int) -> None:
        flight.time_ns = now_ns
        self._flights += 1
        self.propose(data, lambda result: self._landed(flight, result))

    def _landed(self, flight: Flight, result: object) -> None:
        """An entry about deliveries was applied: send exactly what it accepted."""
        self._flights -= 1
        if flight.is_again:
            self._flying_again = False
        else:
            self._flying_new -= len(flight.messages)
            if not (isinstance(result, counts.DeliveredOutcome) and result.deliveries):
                self._is_flight_lost = True
        if self.stopped:
            return
        if not self._flights:
            self._planned_next = 0
            self._is_flight_lost = False
        self._send(flight, result if isinstance(result, counts.DeliveredOutcome) else counts.DeliveredOutcome([], 0))
        self.times.sent(flight.time_ns, self.state.config.ack_wait)
        self.wake()

    def _send(self, flight: Flight, outcome: counts.DeliveredOutcome) -> None:
        messages, shares = flight.messages, flight.shares
        deliveries = outcome.deliveries
        total = sum(delivery.last - delivery.first + 1 for delivery in deliveries)
        if total != len(messages):
            messages, shares, absent = flight.narrowed(deliveries)
            for sink, missing in absent:
                self.release(sink, missing)
        replies: list[bytes] = []
        at = 0
        left = outcome.num_pending
        for delivery in deliveries:
            size = delivery.last - delivery.first + 1
            part = messages[at : at + size] if size != total else messages
            if flight.is_again:
                pending: Sequence[int] = (left,) * size
            else:
                pending = range(left + total - at - 1, left + total - at - 1 - size, -1)
            replies += ack_replies(self.ack_prefix, delivery.attempt, part, delivery.consumer_seq, pending)
            at += size
        untaken = self.hand_out(messages, replies, shares)
        if untaken:
            self._return([messages[position].seq for position in untaken])

    def hand_out(self, messages: list[Message], replies: list[bytes], shares: list[Share]) -> list[int]:
        """Send each share to its sink; the positions that nobody took, sorted."""
        if not messages:
            return []
        subjects, header_lens, payloads = columns(messages, self.state.config.headers_only)
        untaken: list[int] = []
        for sink, positions in shares:
            if positions is None:
                part = (subjects, replies, header_lens, payloads)
                wanted: Sequence[int] = range(len(messages))
            else:
                wanted = positions
                part = (
                    [subjects[p] for p in wanted],
                    [replies[p] for p in wanted],
                    [header_lens[p] for p in wanted] if header_lens else [],
                    [payloads[p] for p in wanted],
                )
            size = sum(map(len, part[0])) + sum(map(len, part[1])) + sum(map(len, part[3]))
            taken = self.transmit(sink, *part)
            self.sent(sink, len(wanted), size, taken)
            untaken += wanted[taken:]
        self._active_s = self.loop.time()
        untaken.sort()
        return untaken

    def transmit(
        self,
        sink: Sink,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
    ) -> int:
        """Put messages on the wire; how many, from the start, were taken."""
        return self.outlet.deliver(sink.target, subjects, replies, header_lens, payloads)

    def _return(self, seqs: Sequence[int]) -> None:
        """What no connection took is due again at once, and the attempt does not count."""
        data = entries.encode_returned(self.name, self.generation, self.now_ns(), runs_of(sorted(seqs)))
        self.propose(data, lambda _: self.wake())

    def _exhausted(self, result: object) -> None:
        self._flying_again = False
        if self.stopped:
            return
        if isinstance(result, counts.ExhaustedOutcome):
            self.advisories.tell_exhausted(self.name, result.runs)
        self.wake()

    # -- acknowledgements ---------------------------------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        """Held back by max_ack_pending, so acknowledgements are urgent."""
        return self._blocked

    def on_acked(self) -> None:
        """Acknowledgements were applied."""
        self._blocked = False
        self.wake()

    def touch(self) -> None:
        """Somebody used the consumer: it is not idle."""
        self._active_s = self.loop.time()

    def on_next_request(self, reply: bytes, body: bytes) -> None:  # noqa: B027  # a push consumer has none
        """A pull request came with an acknowledgement."""

    # -- proposing ----------------------------------------------------------------------------------------------------

    def propose(self, data: bytes, on_result: Callable[[object], None]) -> None:
        """Log an entry; ``on_result`` gets what the consumer's apply returned.

        If it cannot be logged now, ``on_result`` gets None a moment later: nothing was changed.
        """
        if self.stopped:
            return
        try:
            future = self.leader.propose(data)
        except NotNow:
            self.loop.call_later(REFUSED_RETRY_S, on_result, None)
            return

        def done(finished: asyncio.Future[Any]) -> None:
            if finished.cancelled() or finished.exception() is not None:
                return
            on_result(getattr(finished.result(), "result", None))

        future.add_done_callback(done)

    # -- timers -------------------------------------------------------------------------------------------------------

    def _note_pause(self, now_ns: int, *, announce: bool) -> None:
        until = self.state.pause_until_ns
        before = self._paused_until_ns
        self._paused_until_ns = until if until > now_ns else 0
        if announce and self._paused_until_ns != before:
            self.advisories.tell_pause(self.name, bool(self._paused_until_ns), self._paused_until_ns or before)

    @property
    def paused_until_ns(self) -> int:
        """Until when deliveries are paused; 0 = they are not."""
        return self._paused_until_ns

    def arm(self) -> None:
        """Set the one timer to the earliest of all deadlines; call it when one may have moved closer."""
        if self.stopped:
            return
        now_s = self.loop.time()
        when = min(now_s + TIMER_MAX_S, self.own_deadline_s(now_s))
        if self.acks.due_s:
            when = min(when, self.acks.due_s)
        if self.unlogged.due_s:
            when = min(when, self.unlogged.due_s)
        paced = self.pacer.wait_until_s
        if paced:
            when = min(when, paced)
        wall_ns = self.leader.clock.wall_ns()
        if self._paused_until_ns:
            when = min(when, now_s + max(self._paused_until_ns - wall_ns, 0) / 1e9)
        elif self.state.acks and not self._flying_again:
            # What is due already and still here has nobody to go to; whoever comes wakes us.
            wait_ns = self.state.pending.next_due_ns(self._checked_ns) - self.times.reached_ns()
            when = min(when, max(now_s + max(wait_ns, 0) / 1e9, self.reader.hold_until_s))
        if self.state.config.inactive_threshold and not self._deleting:
            when = min(when, max(self._active_s + self.idle_limit_s(), now_s))
        if self.reader.hold_until_s > now_s:
            when = min(when, self.reader.hold_until_s)
        if self._timer is not None and not self._timer.cancelled():
            if now_s < self._timer_at_s <= when:
                return
            self._timer.cancel()
        self._timer_at_s = when
        self._timer = self.loop.call_at(when, self._on_timer)

    def idle_limit_s(self) -> float:
        """How long nobody may use the consumer."""
        return self.state.config.inactive_threshold / 1e9

    def _on_timer(self) -> None:
        self._timer = None
        if self.stopped:
            return
        now_s = self.loop.time()
        if self.acks.due_s and self.acks.due_s <= now_s:
            self.acks.flush()
        if self.unlogged.due_s and self.unlogged.due_s <= now_s:
            self.unlogged.log_cursor()
        if self._paused_until_ns:
            self._note_pause(self.leader.clock.wall_ns(), announce=True)
        self.pacer.wait_until_s = 0.0
        self.on_deadline(now_s)
        if self.state.config.inactive_threshold:
            self._check_idle(now_s)
        self._pump()

    def _check_idle(self, now_s: float) -> None:
        """Delete a consumer that nobody used for its inactive_threshold."""
        if self._deleting:
            return
        if self.has_takers():
            self._active_s = now_s
        if now_s >= self._active_s + self.idle_limit_s():
            self._deleting = True
            log.info("consumer inactive", stream=self.stream_name, consumer=self.name)
            self.propose(entries.encode_delete(self.name, self.now_ns(), self.generation), self._delete_refused)

    def _delete_refused(self, result: object) -> None:
        """Deleted, and somebody stops the engine; or it was another generation by then."""
        self._deleting = False
        self._active_s = self.loop.time()
        self.arm()
