"""Delivery of a run of messages to the client subscriptions of one match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from jetstore.hot.wire import format_messages, strip_headers
from server.route.sublist import Match, Sublist
from server.route.subscription import Sink, Subscription

if TYPE_CHECKING:
    from server.route.tracing import MessageTrace


class Columns(NamedTuple):
    """A run of messages. ``replies`` and ``header_lens`` may be empty: none."""

    subjects: Sequence[bytes]
    replies: Sequence[bytes]
    header_lens: Sequence[int]
    payloads: Sequence[bytes]

    def part(self, begin: int, end: int) -> Columns:
        """The messages from ``begin`` up to ``end``."""
        if begin == 0 and end == len(self.payloads):
            return self
        return Columns(
            self.subjects[begin:end], self.replies[begin:end], self.header_lens[begin:end], self.payloads[begin:end]
        )

    def pick(self, positions: Sequence[int]) -> Columns:
        """The messages at these positions."""
        subjects, replies, header_lens, payloads = self
        return Columns(
            [subjects[at] for at in positions],
            [replies[at] for at in positions] if replies else (),
            [header_lens[at] for at in positions] if header_lens else (),
            [payloads[at] for at in positions],
        )


class Delivery:
    """Formats runs into the output of connections, honours echo, limits, permissions and queue groups."""

    def __init__(self, sublist: Sublist, rng: Random, unsubscribe: Callable[[Subscription], None]) -> None:
        self.drops_when_congested = False
        """``no_fast_producer_stall``: a client's messages to a congested consumer are dropped."""
        self.is_congested = False
        """Set when some consumer's output is nearly full; reset by the owner."""
        self.is_never_answered: Callable[[bytes], bool] = lambda subject: False
        """Whether requests on a subject stay without any answer where nobody gets them."""
        self._sublist = sublist
        self._rng = rng
        self._unsubscribe = unsubscribe

    def to_clients(self, match: Match, columns: Columns, publisher: Sink | None, target: bytes = b"") -> int:
        """Every plain subscription gets a copy, every queue group one; how many from the start somebody took.

        ``target`` is the subject that was matched, if it is not the messages' own; permissions look at it.
        """
        count = len(columns.payloads)
        taken = 0
        for subscription in match.plain:
            if taken < count:
                taken = max(taken, self._give(subscription, columns, publisher, target))
            else:
                self._give(subscription, columns, publisher, target)
        for _, members in match.queues:
            taken = max(taken, self.to_queue(members, columns, publisher, target))
        return taken

    def to_plain(
        self, plain: Sequence[Subscription], columns: Columns, publisher: Sink | None, target: bytes = b""
    ) -> int:
        """Each of these gets a copy; how many from the start somebody took."""
        return max((self._give(subscription, columns, publisher, target) for subscription in plain), default=0)

    def to_queue(
        self, members: Sequence[Subscription], columns: Columns, publisher: Sink | None, target: bytes = b""
    ) -> int:
        """One member a message, chosen at random; how many from the start somebody took."""
        count = len(columns.payloads)
        if publisher is None or publisher.trace is None:  # a trace tells whom it passed over
            members = [member for member in members if is_eligible(member, publisher)]
        if not members:
            return 0
        if count == 1 or any(_is_special(member) for member in members):
            return self._to_queue_one_by_one(members, columns, publisher, target)
        if len(members) == 1:
            return self._give(members[0], columns, publisher, target)
        random = self._rng.random
        choices = len(members)
        positions: list[list[int]] = [[] for _ in members]
        for at in range(count):
            positions[int(random() * choices)].append(at)
        for member, chosen in zip(members, positions, strict=True):
            if chosen:
                self._give(member, columns.pick(chosen), publisher, target)
        return count

    def _to_queue_one_by_one(
        self, members: Sequence[Subscription], columns: Columns, publisher: Sink | None, target: bytes
    ) -> int:
        """A member that cannot take the message is skipped and the next is tried."""
        taken = 0
        for at in range(len(columns.payloads)):
            message = columns.part(at, at + 1)
            start = int(self._rng.random() * len(members))
            for turn in range(len(members)):
                if self._give(members[(start + turn) % len(members)], message, publisher, target):
                    if taken == at:
                        taken = at + 1
                    break
        return taken

    def _give(self, subscription: Subscription, columns: Columns, publisher: Sink | None, target: bytes) -> int:
        """Format a run for one subscription; how many from the start it took."""
        sink = subscription.sink
        assert sink is not None
        if publisher is not None and publisher.trace is not None:
            taken = self._tell(publisher.trace, subscription, columns, publisher, target)
            if taken is not None:
                return taken
        if subscription.is_closed or sink.is_closed or (sink is publisher and not sink.echo):
            return 0
        if publisher is not None and self.drops_when_congested and sink.is_congested():
            return 0
        count = len(columns.payloads)
        shadow = subscription.shadow
        if shadow is not None:
            columns = columns._replace(subjects=shadow.subjects(columns.subjects))
            if shadow.matches is not None and not shadow.matches(columns.subjects[0]):
                return 0
            subscription, target = shadow.owner, b""
        if (
            sink.permits is not None
            and sink.permits.filters_deliveries
            and not sink.permits.may_receive(target or columns.subjects[0], subscription.queue)
        ):
            return 0
        if subscription.max_messages:
            left = subscription.max_messages - subscription.delivered
            if left < count:
                columns = columns.part(0, left)
                count = left
        subjects, replies, header_lens, payloads = columns
        if header_lens and not sink.headers:
            payloads = strip_headers(header_lens, payloads)
            header_lens = ()
        sink.send(format_messages(subscription.sid, subjects, replies, header_lens, payloads))
        if sink.responses is not None and replies:
            sink.responses.delivered(replies)
        sink.out_msgs += count
        sink.out_bytes += sum(map(len, payloads))
        subscription.delivered += count
        if subscription.max_messages and subscription.delivered >= subscription.max_messages:
            (self._unsubscribe if shadow is None else shadow.home.unsubscribe)(subscription)
        if sink.is_congested():
            self.is_congested = True
        return count

    def _tell(
        self, trace: MessageTrace, subscription: Subscription, columns: Columns, publisher: Sink, target: bytes
    ) -> int | None:
        """Note in its trace what becomes of a message here. How many are taken; None: it is to be delivered."""
        shadow, subject = subscription.shadow, target or columns.subjects[0]
        if shadow is not None:
            seen = shadow.subjects(columns.subjects)[0]
            if shadow.matches is not None and not shadow.matches(seen):
                return 0
            trace.exported(shadow.home.account, seen)
            if not shadow.made_by.allows_trace:
                return 1 if trace.is_only else None
            subject = seen
        if not trace.reaches(subscription, publisher, subject, drops_when_congested=self.drops_when_congested):
            return 0
        return 1 if trace.is_only else None

    def acks(self, subscription: Subscription, chunk: bytes, count: int) -> None:
        """Ready-made messages for one subscription without a limit."""
        sink = subscription.sink
        assert sink is not None
        if subscription.is_closed or sink.is_closed:
            return
        sink.send(chunk)
        sink.out_msgs += count
        sink.out_bytes += len(chunk)
        subscription.delivered += count

    def no_responders(self, client: Sink, columns: Columns) -> None:
        """Tell a client that nobody got its requests, where it subscribes to the reply."""
        for subject, reply in zip(columns.subjects, columns.replies, strict=True):
            if not reply or (client.trace is None and self.is_never_answered(subject)):
                continue  # what is only traced was not passed to those who take it, and keep silent
            match = self._sublist.match(reply)
            own = [sub for sub in match.plain if sub.sink is client]
            if own:
                status = b"NATS/1.0 503\r\nNats-Subject: %b\r\n\r\n" % subject
                client.send(format_messages(own[0].sid, [reply], (), [len(status)], [status]))


def is_eligible(member: Subscription, publisher: Sink | None) -> bool:
    sink = member.sink
    return not member.is_closed and sink is not None and not sink.is_closed and (sink is not publisher or sink.echo)


def _is_special(member: Subscription) -> bool:
    """Whether each message must be looked at on its own."""
    sink = member.sink
    assert sink is not None
    if member.shadow is not None:
        if member.shadow.matches is not None:
            return True
        member = member.shadow.owner
    return member.max_messages > 0 or (sink.permits is not None and sink.permits.filters_deliveries)


def filters(match: Match) -> bool:
    """Whether permissions may keep single messages from a subscription of this match."""
    for subscription in (*match.plain, *(member for _, members in match.queues for member in members)):
        permits = subscription.sink.permits if subscription.sink is not None else None
        if permits is not None and permits.filters_deliveries:
            return True
        if subscription.shadow is not None and subscription.shadow.matches is not None:
            return True
    return False
