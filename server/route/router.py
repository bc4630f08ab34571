"""The router of one account: brings runs of messages from whoever publishes to whoever subscribes.

Clients come in through ``publish_from``; the engine sees the same object as ``jetstore.node.ports.Outlet``.
A run of messages that match the same subscriptions is handled as one: one call per internal subscription, one
formatted chunk per client subscription. A mixed run is cut where the match changes, so that every subscription and
every connection sees messages in the order they were published.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from jetstore.node.ports import Inbound, InboundHandler, InternalSubscription, Outlet
from server.protocol import reasons
from server.route.delivery import Columns, Delivery, filters
from server.route.imports import DEPTH_MAX, REPLY_PREFIX, ReplyTable, ServiceImport, StreamImport
from server.route.latency import Latencies
from server.route.mappings import Mappings
from server.route.peer_frames import Run
from server.route.pub_acks import PubAcks
from server.route.remote import Outbound, Reach, has_queue
from server.route.sublist import Match, Sublist
from server.route.subscription import Sink, Subscription
from server.route.tracing import Tracing, marked, publish_traced
from server.route.watch import InterestWatch

RESERVED_SUBJECTS = (b"$NRG.", b"_GR_.", b"$GR.")
"""Clients may not publish to these."""
RESERVED_REPLIES = (b"_R_.", b"_GR_.", b"$GR.", b"$JS.ACK.")
"""Clients may not ask for replies on these."""


class _Handle:
    """An internal subscription in the hands of the engine."""

    def __init__(self, router: Router, subscription: Subscription) -> None:
        self._router = router
        self._subscription = subscription

    def close(self) -> None:
        self._router.unsubscribe(self._subscription)


class Router:
    """See the module's docstring. Single-threaded; ``call_soon`` is the event loop's."""

    def __init__(
        self,
        account: str,
        rng: Random,
        call_soon: Callable[[Callable[[], None]], object],
        now_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``rng`` chooses queue members; ``now_s`` is the loop's time."""
        self.account = account
        self.domain = ""
        self.has_jetstream = False
        """Whether streams may be here; the server sets it."""
        self.rng = rng
        self.sublist = Sublist()
        self._delivery = Delivery(self.sublist, rng, self.unsubscribe)
        self._watch = InterestWatch(call_soon, self.has_interest)
        self._call_soon = call_soon
        self._deferred: deque[tuple[Match, Inbound]] = deque()
        """Internal deliveries of what the engine itself published: never from inside its own call."""
        self._is_scheduled = False
        self._acks = PubAcks(self.sublist, self._delivery, self._route_as_system, self._flush_acks_soon)
        self.stream_imports: list[StreamImport] = []
        """Accounts whose messages this one gets, too. Set before the first subscription."""
        self.mappings: Mappings | None = None
        """What clients' subjects become first."""
        self.replies = ReplyTable(rng, now_s)
        """Answers to other accounts that this one's services owe."""
        self.depth = 0
        """Accounts that the request at hand has come through."""
        self._answers: Subscription | None = None
        self.reach: Reach | None = None
        """The way to other nodes; None: there are none, and no subscription is remote."""
        self.serve_requests: Callable[[Inbound, int], None] = lambda batch, hops: None
        """Takes requests of the JetStream API that other nodes pass on, with how many have; the server sets it."""
        self._unshared: frozenset[bytes] = frozenset()
        self.tracing: Tracing | None = None
        """Begins traces of messages that ask for it; None: nobody is asked."""
        self.latencies: Latencies | None = None
        """Measures what services here do for other accounts; None: nobody does."""
        self.trace_dest = b""
        """Where traces go of messages with a sampled ``traceparent``; b"" = nowhere."""
        self.trace_sampling = 0
        """Percent of them; 0 = all."""
        self.flush_output: Callable[[], None] = lambda: None
        """Gives what connections have collected to the network; the server sets it."""

    @property
    def drops_when_congested(self) -> bool:
        """Whether a client's messages to a congested consumer are dropped (``no_fast_producer_stall``)."""
        return self._delivery.drops_when_congested

    @drops_when_congested.setter
    def drops_when_congested(self, drops: bool) -> None:
        self._delivery.drops_when_congested = drops

    def leave_unanswered(self, is_never_answered: Callable[[bytes], bool]) -> None:
        """Requests on these subjects stay without any answer where nobody gets them: no 503."""
        self._delivery.is_never_answered = is_never_answered

    # -- subscriptions ----------------------------------------------------------------------------------------------

    def subscribe_client(self, sink: Sink, subject: bytes, queue: bytes, sid: bytes) -> Subscription:
        """A new subscription of a client; the sid is free and the subject valid (the caller has checked)."""
        subscription = Subscription(subject, queue, sid, sink=sink)
        sink.subscriptions[sid] = subscription
        self.sublist.insert(subscription)
        self._watch.changed(subject)
        for each in self.stream_imports:
            shadow = each.shadow_of(subscription, self)
            if shadow is not None:
                subscription.shadows.append(shadow)
                each.source.add(shadow)
        return subscription

    def add(self, subscription: Subscription) -> None:
        """Put in a subscription that belongs to no connection here: a shadow or a bridge."""
        self.sublist.insert(subscription)
        self._watch.changed(subscription.subject)

    def take_out(self, subscription: Subscription) -> None:
        """The opposite of ``add``."""
        self.sublist.remove(subscription)
        self._watch.changed(subscription.subject)

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Idempotent."""
        if subscription.is_closed:
            return
        subscription.is_closed = True
        self.sublist.remove(subscription)
        if subscription.sink is not None and subscription.shadow is None:
            subscription.sink.subscriptions.pop(subscription.sid, None)
        self._watch.changed(subscription.subject)
        for shadow in subscription.shadows:
            assert shadow.shadow is not None
            shadow.shadow.made_by.source.unsubscribe(shadow)

    def limit(self, subscription: Subscription, max_messages: int) -> None:
        """End a subscription after this many deliveries since it was made (0, or as many already: now)."""
        if subscription.delivered >= max_messages:
            self.unsubscribe(subscription)
        else:
            subscription.max_messages = max_messages

    def drop_client(self, sink: Sink) -> None:
        """End all subscriptions of a connection."""
        for subscription in list(sink.subscriptions.values()):
            self.unsubscribe(subscription)

    # -- from clients -----------------------------------------------------------------------------------------------

    def publish_from(
        self,
        client: Sink,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
    ) -> bool:
        """Route a run of a client's messages, in order. True: some consumer is congested, slow this client down."""
        self._delivery.is_congested = False
        columns = Columns(subjects, replies, header_lens, payloads)
        if header_lens and self.tracing is not None:
            asking = marked(columns, has_dest=bool(self.trace_dest))
            if asking:
                publish_traced(self, client, columns, asking)
                return self._delivery.is_congested
        self.publish_run(client, columns)
        return self._delivery.is_congested

    def may_publish(self, client: Sink, subject: bytes) -> bool:
        """Whether a client may publish on this subject, but for answers."""
        permits = client.permits
        return not subject.startswith(RESERVED_SUBJECTS) and (permits is None or permits.may_publish(subject))

    def publish_run(self, client: Sink, columns: Columns) -> None:
        """Map a client's messages, see what it may publish, and route that."""
        if self.mappings is not None:
            given = columns
            columns = self.mappings.apply(given)
            if not columns.payloads:
                if client.verbose:
                    client.send(reasons.OK_LINE * len(given.payloads))
                return
            if client.trace is not None and columns.subjects[0] != given.subjects[0]:
                client.trace.mapped(columns.subjects[0])
        subjects, replies, _, payloads = columns
        if (
            client.permits is not None
            or _may_have_prefix(subjects, RESERVED_SUBJECTS)
            or _may_have_prefix(replies, RESERVED_REPLIES)
        ):
            self._publish_checked(client, columns)
        else:
            if client.verbose:
                client.send(reasons.OK_LINE * len(payloads))
            self._route(client, columns)

    def _publish_checked(self, client: Sink, columns: Columns) -> None:
        """Message by message: what is not permitted is answered with an error, the rest goes on in runs."""
        permits, responses = client.permits, client.responses
        accepted = 0
        for at, (subject, reply) in enumerate(zip(columns.subjects, columns.replies, strict=True)):
            if subject.startswith(RESERVED_SUBJECTS) or not (
                permits is None
                or permits.may_publish(subject)
                or (responses is not None and responses.may_answer(subject))
            ):
                violation = reasons.publish_violation(subject)
            elif reply and reply.startswith(RESERVED_REPLIES):
                violation = reasons.reply_violation(reply)
            else:
                if client.verbose:
                    client.send(reasons.OK_LINE)
                continue
            if at > accepted:
                self._route(client, columns.part(accepted, at))
            if client.trace is not None:
                client.trace.refused(violation.decode("utf-8", "replace"))
            client.send(reasons.error_line(violation))
            accepted = at + 1
        if accepted < len(columns.payloads):
            self._route(client, columns.part(accepted, len(columns.payloads)))

    def _route(self, client: Sink | None, columns: Columns) -> None:
        """Cut a run where the match changes and deliver each part."""
        match = self.sublist.match_all(columns.subjects)
        if match is not None:
            self._deliver(client, match, columns)
            return
        matches = self.sublist.match_each(columns.subjects)
        begin, current = 0, matches[0]
        for at, match in enumerate(matches):
            if match is not current:
                self._deliver(client, current, columns.part(begin, at))
                begin, current = at, match
        self._deliver(client, current, columns.part(begin, len(matches)))

    def _deliver(self, client: Sink | None, match: Match, columns: Columns) -> int:
        """Everybody gets a run of one match; the client gets 503s for what nobody took. How many somebody took."""
        count = len(columns.payloads)
        taken = 0
        if match.remotes:
            return self._deliver_everywhere(client, match, columns)
        if match.bridges and count > 1:
            return self._deliver_one_by_one(client, match, columns)
        if match.plain or match.queues:
            if count > 1 and filters(match):
                return self._deliver_one_by_one(client, match, columns)
            taken = self._delivery.to_clients(match, columns, client)
        if match.internal:
            taken = max(taken, self._to_handlers(match, columns, client))
        if match.bridges:
            taken = max(taken, self._over_bridges(match, columns, client))
        if taken < count and client is not None and client.no_responders:
            self._delivery.no_responders(client, columns.part(taken, count))
        return taken

    def _deliver_everywhere(self, client: Sink | None, match: Match, columns: Columns) -> int:
        """The same where somebody on another node gets it, too."""
        count, reach = len(columns.payloads), self.reach
        if count > 1 and (match.bridges or filters(match)):
            return self._deliver_one_by_one(client, match, columns)
        assert reach is not None
        if client is not None and client.trace is not None:
            for node_id in reach.nodes(match):
                client.trace.to_node(node_id)
        if client is not None and client.trace is not None and client.trace.is_only:
            taken = self._delivery.to_clients(match, columns, client)
        else:
            taken = reach.to_all(match, columns, client)
        handlers = [sub for sub in match.internal if not (sub.is_refusal and reach.is_led_elsewhere(match, sub))]
        if handlers:
            match_here = match if len(handlers) == len(match.internal) else Match(handlers)
            taken = max(taken, self._to_handlers(match_here, columns, client))
        if match.bridges:
            taken = max(taken, self._over_bridges(match, columns, client))
        if taken < count and client is not None and client.no_responders:
            self._delivery.no_responders(client, columns.part(taken, count))
        return taken

    def _deliver_one_by_one(self, client: Sink | None, match: Match, columns: Columns) -> int:
        return sum(self._deliver(client, match, columns.part(at, at + 1)) for at in range(len(columns.payloads)))

    def _over_bridges(self, match: Match, columns: Columns, client: Sink | None) -> int:
        taken = 0
        self.depth += 1
        try:
            for subscription in match.bridges:
                if not subscription.is_closed and subscription.bridge is not None:
                    taken = max(taken, subscription.bridge.forward(self, client, columns))
        finally:
            self.depth -= 1
        return taken

    # -- between nodes ----------------------------------------------------------------------------------------------

    def join(self, outbound: Outbound, *, is_system: bool, unshared: frozenset[bytes]) -> None:
        """There are other nodes. ``unshared``: what handlers here subscribe to for this node alone."""
        self.reach = Reach(self.account, self.sublist, self._delivery, self.rng, outbound, is_system)
        self._unshared = unshared

    def pass_on(self, node_id: str, batch: Inbound, hops: int) -> bool:
        """Requests for the JetStream API of another node; False: there is no way there."""
        columns = Columns(batch.subjects, batch.replies, batch.header_lens, batch.payloads)
        return self.reach is not None and self.reach.request(node_id, columns, hops)

    def arrived(self, run: Run) -> None:
        """Messages of another node for whoever subscribes here."""
        assert self.reach is not None
        if run.is_api:
            self.serve_requests(self.reach.inbound(run.columns), run.hops)
        else:
            self.reach.arrived(run, self._serve)

    def _serve(self, match: Match, run: Run, batch: Inbound) -> None:
        """Handlers here that another node meant, and answers to other accounts."""
        for subscription in match.internal:
            is_meant = subscription.subject in run.patterns or (run.is_plain and not run.patterns)
            if (
                is_meant
                and not subscription.is_closed
                and subscription.handler is not None
                and subscription.subject not in self._unshared
            ):
                subscription.handler.on_messages(batch)
        for subscription in match.bridges:
            if subscription.subject in run.patterns and not subscription.is_closed and subscription.bridge is not None:
                for at in range(len(batch.payloads)):
                    part = Columns(batch.subjects, batch.replies, batch.header_lens, batch.payloads).part(at, at + 1)
                    subscription.bridge.forward(self, None, part)

    # -- between accounts -------------------------------------------------------------------------------------------

    def forwarded(self, client: Sink | None, columns: Columns) -> int:
        """Route what comes from another account; how many from the start somebody took."""
        self.depth += 1
        try:
            taken = 0
            for at in range(len(columns.payloads)):
                message = columns.part(at, at + 1)
                if self._deliver(client, self.sublist.match(message.subjects[0]), message):
                    taken = at + 1
            return taken
        finally:
            self.depth -= 1

    def import_service(self, service: ServiceImport) -> Subscription:
        """From now on, and until this is unsubscribed, requests on its subject go to the other account."""
        bridge = Subscription(service.pattern.encode("latin-1"), bridge=service)
        self.add(bridge)
        service.target.expect_answers()
        return bridge

    def end_stream_import(self, stream: StreamImport) -> None:
        """From now on the other account's messages do not come any more."""
        self.stream_imports = [each for each in self.stream_imports if each is not stream]
        for subscription in list(self.sublist.all()):
            ended = [each for each in subscription.shadows if each.shadow is not None and each.shadow.made_by is stream]
            for shadow in ended:
                subscription.shadows.remove(shadow)
                stream.source.unsubscribe(shadow)

    def expect_answers(self) -> None:
        """Services here are asked from other accounts."""
        if self._answers is None:
            place = self.replies.place
            self._answers = Subscription(REPLY_PREFIX + (place + b".>" if place else b">"), bridge=self.replies)
            self.add(self._answers)

    def _to_handlers(self, match: Match, columns: Columns, client: Sink | None) -> int:
        """How many the engine took."""
        trace = client.trace if client is not None else None
        if trace is not None:
            match = Match(trace.handlers(match.internal, columns.subjects[0]))
            if not match.internal:
                return 0
        batch = Inbound(
            columns.subjects,
            columns.replies or [b""] * len(columns.payloads),
            columns.header_lens,
            columns.payloads,
            self.account,
            client,
            trace,
        )
        if client is None:
            self._deferred.append((match, batch))
            self._schedule_deferred()
        else:
            _call_handlers(match, batch)
        return len(columns.payloads)

    def _schedule_deferred(self) -> None:
        if self._deferred and not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._run_deferred)

    def _run_deferred(self) -> None:
        """Hand over what the engine published to itself before now; what that causes comes next time."""
        try:
            for _ in range(len(self._deferred)):
                match, batch = self._deferred.popleft()
                _call_handlers(match, batch)
        finally:
            self._is_scheduled = False
            self._schedule_deferred()

    # -- from the engine: jetstore.node.ports.Outlet ----------------------------------------------------------------

    def subscribe(self, subject: bytes, handler: InboundHandler) -> InternalSubscription:
        """From now on ``handler`` gets what is published on this pattern."""
        subscription = Subscription(subject, handler=handler)
        self.sublist.insert(subscription)
        self._watch.changed(subject)
        return _Handle(self, subscription)

    def publish(
        self,
        subjects: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
        replies: Sequence[bytes] = (),
    ) -> None:
        """Route messages as the system."""
        if payloads:
            self._route(None, Columns(subjects, replies, header_lens, payloads))

    def _route_as_system(self, columns: Columns) -> None:
        self._route(None, columns)

    def _flush_acks_soon(self) -> None:
        self._call_soon(self.flush_acks)

    def pub_acks(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        """One PubAck per reply subject that is not empty; see ``PubAcks``."""
        self._acks.add(stream, replies, seqs)

    def flush_acks(self) -> None:
        """Send the PubAcks that wait."""
        if self._acks.flush():
            self.flush_output()

    def deliver(
        self,
        target: bytes,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
        queue: bytes = b"",
    ) -> int:
        """Send stored messages to the subscribers of ``target``; how many from the start somebody took."""
        match = self.sublist.match(target)
        if match.is_empty or not payloads:
            return 0
        columns = Columns(subjects, replies, header_lens, payloads)
        if match.remotes and self.reach is not None:
            return self._deliver_stored_everywhere(match, target, columns, queue)
        if queue:
            for name, members in match.queues:
                if name == queue:
                    return self._delivery.to_queue(members, columns, None, target)
            return 0
        taken = self._delivery.to_clients(match, columns, None, target) if match.plain or match.queues else 0
        if match.internal:
            self._to_handlers(match, columns, None)
            taken = len(payloads)
        for router, there in self._beyond(match, target):
            taken = max(taken, router.deliver(there, subjects, replies, header_lens, payloads, queue))
        return taken

    def _deliver_stored_everywhere(self, match: Match, target: bytes, columns: Columns, queue: bytes) -> int:
        """The same where somebody on another node subscribes to ``target``."""
        assert self.reach is not None
        if queue:
            return self.reach.to_queue(match, queue, columns, target)
        taken = self.reach.to_all(match, columns, None, target)
        if match.internal:
            self._to_handlers(match, columns, None)
            taken = len(columns.payloads)
        for router, there in self._beyond(match, target):
            taken = max(taken, router.deliver(there, *columns))
        return taken

    def _beyond(self, match: Match, target: bytes) -> list[tuple[Router, bytes]]:
        """Where in other accounts messages to ``target`` go."""
        found = [subscription.bridge.resolve(target) for subscription in match.bridges if subscription.bridge]
        return [place for place in found if place is not None]

    def destination(self, subject: bytes) -> tuple[Router, bytes] | None:
        """Where messages on this subject go in the end, and on which there; None: through too many accounts."""
        router = self
        for _ in range(DEPTH_MAX):
            match = router.sublist.match(subject)
            beyond = router._beyond(match, subject)
            if not beyond:
                return router, subject
            router, subject = beyond[0]
        return None

    def hears(self, subject: bytes, publisher: Outlet) -> bool:
        """Whether a subscription to this subject here gets what ``publisher``'s account says on it."""
        imports = self.stream_imports
        return publisher is self or any(each.source is publisher and each.carries(subject) for each in imports)

    def has_interest(self, target: bytes, queue: bytes = b"") -> bool:
        """Whether somebody subscribes to ``target`` (in that queue group, if one is named)."""
        match = self.sublist.match(target)
        if match.bridges and any(there.has_interest(subject) for there, subject in self._beyond(match, target)):
            return True
        if not queue:
            return bool(match.plain or match.queues or match.internal or match.remotes)
        return any(name == queue for name, _ in match.queues) or has_queue(match, queue)

    def has_literal_interest(self, target: bytes) -> bool:
        """Whether somebody subscribes to exactly ``target``; of other accounts, to what it is there."""
        match = self.sublist.match(target)
        if any(there.has_literal_interest(subject) for there, subject in self._beyond(match, target)):
            return True
        members = [member for _, group in match.queues for member in group]
        return any(each.subject == target for each in (*match.plain, *members, *match.internal, *match.remotes))

    def _sinks(self, target: bytes) -> list[Sink]:
        match = self.sublist.match(target)
        sinks = [subscription.sink for subscription in match.plain]
        for _, members in match.queues:
            sinks += [subscription.sink for subscription in members]
        for router, there in self._beyond(match, target):
            sinks += router._sinks(there)
        return [sink for sink in sinks if sink is not None]

    def pending_bytes(self, target: bytes) -> int:
        """Most unsent output of any connection that subscribes to ``target``."""
        pending = max((sink.pending_bytes() for sink in self._sinks(target)), default=0)
        if self.reach is not None:
            outbound = self.reach.outbound
            for node_id in self.reach.nodes(self.sublist.match(target)):
                pending = max(pending, outbound.pending_bytes(node_id))
        return pending

    def when_writable(self, target: bytes, callback: Callable[[], None]) -> None:
        """Call back once, soon after the fullest of the connections behind ``target`` can take more."""
        sinks = self._sinks(target)
        if self.reach is not None:
            outbound = self.reach.outbound
            slow = {node: outbound.pending_bytes(node) for node in self.reach.nodes(self.sublist.match(target))}
            slowest = max(slow, key=lambda node: slow[node], default="")
            if slowest and slow[slowest] > max((sink.pending_bytes() for sink in sinks), default=0):
                outbound.when_writable(slowest, callback)
                return
        if sinks:
            max(sinks, key=lambda sink: sink.pending_bytes()).when_writable(callback)
        else:
            self._call_soon(callback)

    def watch_interest(self, target: bytes, callback: Callable[[bool], None]) -> InternalSubscription:
        """Call back whenever ``has_interest(target)`` may have changed."""
        return self._watch.add(target, callback)


def _call_handlers(match: Match, batch: Inbound) -> None:
    for subscription in match.internal:
        if not subscription.is_closed and subscription.handler is not None:
            subscription.handler.on_messages(batch)


def _may_have_prefix(subjects: Sequence[bytes], prefixes: tuple[bytes, ...]) -> bool:
    """Whether some subject starts with one of these prefixes of one token; may be true for odd runs without one."""
    first = subjects[0]
    if first.startswith(prefixes):
        return True
    count = len(subjects)
    if count == 1 or subjects.count(first) == count:
        return False
    # All in one first token that no prefix starts with, told by one pass in C; or else each by itself.
    token = first[: first.find(b".") + 1]
    if token and not any(prefix.startswith(token) for prefix in prefixes):
        joined = b"\n".join(subjects)
        if joined.count(b"\n" + token) == joined.count(b"\n") == count - 1:
            return False
    return any(subject.startswith(prefixes) for subject in subjects)
