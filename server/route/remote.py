"""Messages between the routers of several nodes: who elsewhere gets what, and what comes from elsewhere.

A node knows of each other what its clients and its engine subscribe to: such interest is a subscription in the
account's sublist like any other, with a node behind it (``peers.py`` keeps it). A run of messages goes once to each
node that has some, with the queue groups and the patterns of the engine that are meant there; what comes from another
node is for subscribers here, never for a third node: one hop.

A queue group is one group whatever nodes its members are on: each message goes to a member anywhere, all equally
likely. What the engine subscribes to (subjects of a stream that is led there, requests to a consumer) has one place:
here if it is led here, else where it was said last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from jetstore.node.ports import Inbound
from server.route.delivery import Columns, Delivery, filters, is_eligible
from server.route.peer_frames import Kind, Run
from server.route.sublist import Match, Sublist
from server.route.subscription import Sink, Subscription

FROM_PEER = object()
"""Stands for the client of what came from another node."""


class Outbound(Protocol):
    """The ways to the other nodes (``peers.py``)."""

    def send_run(self, nodes: Sequence[tuple[str, Run]]) -> bool:
        """One run of messages for several nodes; whether it was taken for one of them."""

    def is_congested(self, node_id: str) -> bool:
        """Whether producers should be slowed down for this node's sake."""

    def pending_bytes(self, node_id: str) -> int:
        """Unsent bytes if it is slow."""

    def when_writable(self, node_id: str, callback: Callable[[], None]) -> None:
        """Call back once, soon after more can be sent, or it is gone."""


class Plan:
    """The remote part of a match, sorted."""

    __slots__ = ("engines", "plain", "queues")

    def __init__(self, match: Match) -> None:
        plain: dict[str, None] = {}
        engines: dict[bytes, str] = {}
        queues: dict[bytes, dict[str, int]] = {}
        led_here = {sub.subject for sub in match.internal if not sub.is_refusal}
        for sub in match.remotes:  # in the order in which it was said: the last counts
            remote = sub.remote
            assert remote is not None
            if remote.kind == Kind.PLAIN:
                plain[remote.node_id] = None
            elif remote.kind == Kind.QUEUE:
                weights = queues.setdefault(sub.queue, {})
                weights[remote.node_id] = weights.get(remote.node_id, 0) + remote.weight
            elif sub.subject not in led_here:
                engines[sub.subject] = remote.node_id
        self.plain = tuple(plain)
        self.engines = tuple(engines.items())
        """Pattern and node."""
        self.queues = {name: tuple(weights.items()) for name, weights in queues.items()}
        """Nodes and how many members are there."""


def plan_of(match: Match) -> Plan:
    """Made once for each match: it is made anew whenever a subscription comes or goes."""
    plan = match.plan
    if plan is None:
        plan = match.plan = Plan(match)
    return plan


def has_queue(match: Match, queue: bytes) -> bool:
    """Whether that group has members on other nodes."""
    return bool(match.remotes) and queue in plan_of(match).queues


class _Share:
    """What one node gets of a run, all of it."""

    __slots__ = ("is_plain", "patterns", "queues")

    def __init__(self) -> None:
        self.is_plain = False
        self.queues: list[bytes] = []
        self.patterns: list[bytes] = []


class Reach:
    """The router's hands on other nodes. Only for matches with remote subscriptions."""

    def __init__(
        self, account: str, sublist: Sublist, delivery: Delivery, rng: Random, outbound: Outbound, is_system: bool
    ) -> None:
        """``is_system``: handlers of every node get what is published (``$SYS.REQ.SERVER.PING``)."""
        self.outbound = outbound
        self._account = account.encode("latin-1", "replace")
        self._account_name = account
        self._sublist = sublist
        self._delivery = delivery
        self._rng = rng
        self._is_system = is_system

    # -- out --------------------------------------------------------------------------------------------------------

    def to_all(self, match: Match, columns: Columns, publisher: Sink | None, target: bytes = b"") -> int:
        """Clients here and everybody elsewhere get a run of one match; how many from the start somebody took.

        Handlers and bridges here are the caller's.
        """
        count = len(columns.payloads)
        plan = plan_of(match)
        taken = self._delivery.to_plain(match.plain, columns, publisher, target) if match.plain else 0
        shares: dict[str, _Share] = {}
        for node_id in plan.plain:
            shares.setdefault(node_id, _Share()).is_plain = True
        for pattern, node_id in plan.engines:
            shares.setdefault(node_id, _Share()).patterns.append(pattern)
        singles: list[tuple[str, bytes, list[int]]] = []
        local = dict(match.queues)
        for name in dict.fromkeys([*local, *plan.queues]):
            members, remotes = local.get(name, ()), plan.queues.get(name, ())
            if not remotes:
                taken = max(taken, self._delivery.to_queue(members, columns, publisher, target))
                continue
            for node_id, positions in self._choose(members, remotes, count, publisher):
                chosen = columns if len(positions) == count else columns.pick(positions)
                if not node_id:
                    got = self._delivery.to_queue(members, chosen, publisher, target)
                    if got == len(positions):
                        taken = max(taken, _prefix(positions))
                        continue
                    node_id, positions = remotes[0][0], positions[got:]
                if len(positions) == count:
                    shares.setdefault(node_id, _Share()).queues.append(name)
                else:
                    singles.append((node_id, name, positions))
        if self._send(columns, target, shares):
            taken = count
        if singles:
            taken = max(taken, self._send_singles(columns, target, singles, count))
        return taken

    def _choose(
        self,
        members: Sequence[Subscription],
        remotes: Sequence[tuple[str, int]],
        count: int,
        publisher: Sink | None,
    ) -> list[tuple[str, list[int]]]:
        """Which messages go to the group's members on which node ("" = here)."""
        here = sum(is_eligible(member, publisher) for member in members)
        nodes, weights = [node_id for node_id, _ in remotes], [weight for _, weight in remotes]
        if here:
            nodes.append("")
            weights.append(here)
        if len(nodes) == 1:
            return [(nodes[0], list(range(count)))]
        positions: dict[str, list[int]] = {}
        for at, node_id in enumerate(self._rng.choices(nodes, weights, k=count)):
            positions.setdefault(node_id, []).append(at)
        return list(positions.items())

    def _send(self, columns: Columns, target: bytes, shares: dict[str, _Share]) -> bool:
        if not shares:
            return False
        if any(map(self.outbound.is_congested, shares)):
            self._delivery.is_congested = True
        return self.outbound.send_run(
            [
                (node_id, Run(self._account, target, share.is_plain, share.queues, share.patterns, columns))
                for node_id, share in shares.items()
            ]
        )

    def _send_singles(
        self, columns: Columns, target: bytes, singles: list[tuple[str, bytes, list[int]]], count: int
    ) -> int:
        """Parts of a run for members of a group on several nodes. What a node cannot take is not counted."""
        lost: set[int] = set()
        for node_id, name, positions in singles:
            run = Run(self._account, target, False, (name,), (), columns.pick(positions))
            if not self.outbound.send_run([(node_id, run)]):
                lost.update(positions)
            if self.outbound.is_congested(node_id):
                self._delivery.is_congested = True
        return min(lost, default=count)

    def to_queue(self, match: Match, queue: bytes, columns: Columns, target: bytes) -> int:
        """Members of one group, here and elsewhere, one a message; how many from the start were taken."""
        count = len(columns.payloads)
        members = dict(match.queues).get(queue, ())
        remotes = plan_of(match).queues.get(queue, ())
        if not remotes:
            return self._delivery.to_queue(members, columns, None, target)
        taken = count
        for node_id, positions in self._choose(members, remotes, count, None):
            chosen = columns if len(positions) == count else columns.pick(positions)
            got = len(positions)
            if not node_id:
                got = self._delivery.to_queue(members, chosen, None, target)
            elif not self.outbound.send_run([(node_id, Run(self._account, target, False, (queue,), (), chosen))]):
                got = 0
            if got < len(positions):
                taken = min(taken, positions[got])
        return taken

    def is_led_elsewhere(self, match: Match, subscription: Subscription) -> bool:
        """Whether a handler here, that refuses, gives way to one on another node."""
        return subscription.is_refusal and any(pattern == subscription.subject for pattern, _ in plan_of(match).engines)

    def request(self, node_id: str, columns: Columns, hops: int) -> bool:
        """Requests of the JetStream API for that node; False if it cannot be reached."""
        run = Run(self._account, b"", False, (), (), columns, is_api=True, hops=hops)
        return self.outbound.send_run([(node_id, run)])

    def nodes(self, match: Match) -> list[str]:
        """Those with subscribers of this match."""
        return list(dict.fromkeys(sub.remote.node_id for sub in match.remotes if sub.remote is not None))

    # -- in ---------------------------------------------------------------------------------------------------------

    def arrived(self, run: Run, serve: Callable[[Match, Run, Inbound], None]) -> None:
        """Messages of another node for subscribers here. ``serve`` hands them to the engine and to other accounts."""
        columns = run.columns
        if run.target:
            self._arrived(self._sublist.match(run.target), columns, run, serve)
            return
        match = self._sublist.match_all(columns.subjects)
        if match is not None:
            self._arrived(match, columns, run, serve)
            return
        matches = self._sublist.match_each(columns.subjects)
        begin, current = 0, matches[0]
        for at, match in enumerate(matches):
            if match is not current:
                self._arrived(current, columns.part(begin, at), run, serve)
                begin, current = at, match
        self._arrived(current, columns.part(begin, len(matches)), run, serve)

    def _arrived(self, match: Match, columns: Columns, run: Run, serve: Callable[[Match, Run, Inbound], None]) -> None:
        count = len(columns.payloads)
        if count > 1 and filters(match):
            for at in range(count):
                self._arrived(match, columns.part(at, at + 1), run, serve)
            return
        if run.is_plain and match.plain:
            self._delivery.to_plain(match.plain, columns, None, run.target)
        if run.queues:
            for name, members in match.queues:
                if name in run.queues:
                    self._delivery.to_queue(members, columns, None, run.target)
        if run.patterns or (run.is_plain and self._is_system and match.internal):
            serve(match, run, self.inbound(columns))

    def inbound(self, columns: Columns) -> Inbound:
        """A run as handlers see it."""
        return Inbound(
            columns.subjects,
            columns.replies or [b""] * len(columns.payloads),
            columns.header_lens,
            columns.payloads,
            self._account_name,
            FROM_PEER,
        )


def _prefix(positions: Sequence[int]) -> int:
    """How many from the start these are."""
    length = 0
    while length < len(positions) and positions[length] == length:
        length += 1
    return length
