"""What the nodes of a cluster tell each other about interest, and the queues of what is on its way between them.

Theory of operation. Every node tells every other one which subjects and queue groups have subscribers there, by
account: all of it when a connection is made (a *session*, numbered by who tells), then what changes. Changes of one
turn of the event loop are told together, and always before the messages that follow them, so that an answer finds its
way back. A session ends with its connection: what was told in it is void. Frames of an older session are ignored,
whatever connection they come on.

Bounds. A client that publishes faster than another node takes it is slowed down, as for a slow subscriber here.
``limits.peer_interest_max`` entries are remembered of one node; above, its further subscribers get nothing from
here, which is logged. ``limits.peer_unsent_bytes_max`` wait for a node that is slow; above, messages for it are dropped
and counted (a publish is then never acknowledged; what a consumer was sent comes again); changes of interest are kept
until twice as much waits, then all is told anew as soon as it takes something again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Protocol

import structlog

from jetstore.limits import Limits
from jetstore.node.link.frames import FrameError
from jetstore.types import Buffer
from server.route.delivery import Columns
from server.route.imports import REPLY_PREFIX
from server.route.peer_frames import (
    Change,
    Interest,
    Kind,
    Run,
    Sync,
    decode,
    encode_columns,
    encode_interest,
    encode_run,
    encode_sync,
    session_head,
)
from server.route.router import Router
from server.route.subscription import RemoteInterest, Subscription

log = structlog.get_logger("route")

RUN_BYTES: Final = 256 * 1024
"""A longer run of messages is told in several parts."""
CHANGES_AT_ONCE: Final = 1_000
Key = tuple[bytes, int, bytes, bytes]
"""Account, kind, subject, queue."""


class PeerPort(Protocol):
    """Connections to other nodes (``jetstore.node.link``)."""

    def send_route(self, node_id: str, parts: Sequence[Buffer]) -> None:
        """Send one frame, in the order of the calls. Nothing happens if there is no connection."""

    def route_backlog(self, node_id: str) -> int:
        """Unsent bytes of that connection."""

    def is_route_writable(self, node_id: str) -> bool:
        """Whether it takes more without being slow; True if there is none."""


class Peer:
    """Another node, while there is a connection to it."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.session_out = 0
        self.session_in = 0
        """The one whose interest is known; 0 = none yet."""
        self.out: list[Buffer] = []
        self.out_bytes = 0
        self.subscriptions: dict[Key, Subscription] = {}
        self.is_behind = False
        """Too much waits: it is told everything anew when it takes something again."""
        self.has_overflown = False
        self.is_dropping = False
        """It was said that messages for it are dropped."""
        self.waiting: list[Callable[[], None]] = []


class Peers:
    """All other nodes. ``up``, ``down``, ``take`` and ``writable`` are the links'; routers use it as ``Outbound``."""

    def __init__(
        self,
        port: PeerPort,
        limits: Limits,
        call_soon: Callable[[Callable[[], None]], object],
        *,
        system_account: str = "$SYS",
        unshared: frozenset[bytes] = frozenset(),
    ) -> None:
        """``unshared``: what every node's own handlers subscribe to; nobody is told."""
        self.messages_dropped = 0
        """Not sent, because too much waited for that node already."""
        self.peers: dict[str, Peer] = {}
        self._port = port
        self._limits = limits
        self._call_soon = call_soon
        self._system_account = system_account
        self._unshared = unshared
        self._routers: dict[bytes, Router] = {}
        self._counts: dict[Key, int] = {}
        """Interest here: how many subscriptions."""
        self._told: dict[Key, int] = {}
        """Weights as every peer was told."""
        self._dirty: dict[Key, None] = {}
        self._session = 0
        self._is_flush_due = False

    # -- accounts here ----------------------------------------------------------------------------------------------

    def attach(self, router: Router) -> None:
        """An account: before its first subscription."""
        account = router.account.encode("latin-1", "replace")
        self._routers[account] = router
        is_system = router.account == self._system_account
        router.join(self, is_system=is_system, unshared=self._unshared)
        router.sublist.observer = lambda subscription, change: self._noted(account, is_system, subscription, change)

    def _noted(self, account: bytes, is_system: bool, subscription: Subscription, change: int) -> None:
        """A subscription here came or went."""
        queue = b""
        if subscription.sink is not None:
            queue = subscription.queue
            kind = Kind.QUEUE if queue else Kind.PLAIN
        elif subscription.handler is not None:
            if subscription.is_refusal or subscription.subject in self._unshared:
                return
            kind = Kind.PLAIN if is_system else Kind.ENGINE
        elif subscription.bridge is not None and subscription.subject.startswith(REPLY_PREFIX):
            kind = Kind.ENGINE
        else:
            return
        key = (account, int(kind), subscription.subject, queue)
        count = self._counts.get(key, 0) + change
        if count:
            self._counts[key] = count
        else:
            self._counts.pop(key, None)
        self._dirty[key] = None
        self._schedule()

    def _tell_changes(self) -> None:
        """Put what has changed since the last time before what is sent next."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        changed: dict[Key, int] = {}
        for key in dirty:
            weight = self._counts.get(key, 0)
            if key[1] != Kind.QUEUE:
                weight = min(weight, 1)
            if weight == self._told.get(key, 0):
                continue
            if weight:
                self._told[key] = weight
            else:
                del self._told[key]
            changed[key] = weight
        if changed:
            records = list(_interest_records(changed))
            for peer in tuple(self.peers.values()):
                self._add_interest(peer, records)

    def _add_interest(self, peer: Peer, records: Sequence[list[Buffer]]) -> None:
        for record in records:
            if peer.is_behind:
                return
            if peer.out_bytes + self._port.route_backlog(peer.node_id) > 2 * self._limits.peer_unsent_bytes_max:
                peer.is_behind = True
                peer.out, peer.out_bytes = [], 0
                return
            self._add(peer, record)

    def _add(self, peer: Peer, record: Sequence[Buffer]) -> None:
        size = sum(map(len, record))
        if peer.out and peer.out_bytes + size > self._limits.link_frame_bytes:
            self._flush_peer(peer)
        peer.out += record
        peer.out_bytes += size
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_flush_due and self.peers:
            self._is_flush_due = True
            self._call_soon(self.flush)

    def flush(self) -> None:
        """Send what this turn of the event loop has brought."""
        self._is_flush_due = False
        self._tell_changes()
        for peer in tuple(self.peers.values()):
            self._flush_peer(peer)

    def _flush_peer(self, peer: Peer) -> None:
        if peer.out:
            parts, peer.out, peer.out_bytes = peer.out, [], 0
            self._port.send_route(peer.node_id, [session_head(peer.session_out), *parts])

    # -- links ------------------------------------------------------------------------------------------------------

    def up(self, node_id: str, *, wants: bool = False) -> None:
        """There is a connection, or another one than before. ``wants``: what it has told so far was not heard."""
        peer = self.peers.get(node_id)
        if peer is None:
            peer = self.peers[node_id] = Peer(node_id)
        self._sync(peer, wants=wants)

    def _sync(self, peer: Peer, *, wants: bool) -> None:
        """Begin a session: all interest is told."""
        self._tell_changes()
        self._flush_peer(peer)
        self._session += 1
        peer.session_out = self._session
        peer.is_behind = False
        self._add(peer, encode_sync(wants=wants))
        for record in _interest_records(self._told):
            self._add(peer, record)

    def down(self, node_id: str) -> None:
        """The connection is gone, and with it all that was told."""
        peer = self.peers.pop(node_id, None)
        if peer is not None:
            self._forget(peer)
            self._release(peer)

    def _forget(self, peer: Peer) -> None:
        peer.has_overflown = False
        subscriptions, peer.subscriptions = peer.subscriptions, {}
        for key, subscription in subscriptions.items():
            self._routers[key[0]].unsubscribe(subscription)

    def writable(self, node_id: str) -> None:
        """The connection takes more again."""
        peer = self.peers.get(node_id)
        if peer is not None:
            peer.is_dropping = False
            if peer.is_behind:
                self._sync(peer, wants=False)
            self._release(peer)

    def _release(self, peer: Peer) -> None:
        waiting, peer.waiting = peer.waiting, []
        for callback in waiting:
            self._call_soon(callback)

    def take(self, node_id: str, body: memoryview) -> None:
        """A frame of that node. FrameError if it is none of ours."""
        peer = self.peers.get(node_id)
        if peer is None:
            return
        session, records = decode(body)
        for record in records:
            if isinstance(record, Sync):
                if session <= peer.session_in:
                    return
                self._forget(peer)
                peer.session_in = session
                if record.wants:
                    self._sync(peer, wants=False)
            elif session != peer.session_in:
                return
            elif isinstance(record, Interest):
                self._learn(peer, record)
            else:
                router = self._routers.get(record.account)
                if router is not None:
                    router.arrived(record)

    def _learn(self, peer: Peer, told: Interest) -> None:
        router = self._routers.get(told.account)
        if router is None:
            return
        for kind, subject, queue, weight in told.changes:
            key = (told.account, kind, subject, queue)
            known = peer.subscriptions.pop(key, None)
            if known is not None:
                router.unsubscribe(known)
            if not weight:
                continue
            if not subject:
                raise FrameError("interest in no subject")
            if len(peer.subscriptions) >= self._limits.peer_interest_max:
                self._overflow(peer)
                continue
            subscription = Subscription(subject, queue, remote=RemoteInterest(peer.node_id, kind, weight))
            peer.subscriptions[key] = subscription
            router.add(subscription)

    def _overflow(self, peer: Peer) -> None:
        if not peer.has_overflown:
            peer.has_overflown = True
            log.error(
                "more subscriptions on another node than are remembered: some there get nothing from here",
                node=peer.node_id,
                remembered_max=self._limits.peer_interest_max,
            )

    # -- Outbound ---------------------------------------------------------------------------------------------------

    def send_run(self, nodes: Sequence[tuple[str, Run]]) -> bool:
        """One run of messages for several nodes (each with its own share of it); whether one of them takes it."""
        self._tell_changes()
        taken = False
        for columns in _parts(nodes[0][1].columns):
            encoded = encode_columns(columns)
            size = sum(map(len, encoded))
            for node_id, run in nodes:
                peer = self.peers.get(node_id)
                if peer is None:
                    continue
                unsent = peer.out_bytes + self._port.route_backlog(node_id)
                if peer.is_behind or (unsent and unsent + size > self._limits.peer_unsent_bytes_max):
                    self._drop(peer, len(columns.payloads))
                    continue
                self._add(peer, encode_run(run, encoded))
                taken = True
        return taken

    def _drop(self, peer: Peer, count: int) -> None:
        self.messages_dropped += count
        if not peer.is_dropping:
            peer.is_dropping = True
            log.warning("a node takes messages too slowly: some are dropped", node=peer.node_id)

    def is_congested(self, node_id: str) -> bool:
        """Whether more than three quarters of what may wait for that node do: clients who publish are slowed down."""
        limit = self._limits.peer_unsent_bytes_max * 3 // 4
        return not self._port.is_route_writable(node_id) and self._port.route_backlog(node_id) > limit

    def pending_bytes(self, node_id: str) -> int:
        """Unsent bytes if the node is slow; 0 if it is not."""
        if node_id not in self.peers or self._port.is_route_writable(node_id):
            return 0
        return self._port.route_backlog(node_id)

    def when_writable(self, node_id: str, callback: Callable[[], None]) -> None:
        """Call back once, soon after more can be sent, or it is gone."""
        peer = self.peers.get(node_id)
        if peer is None or self._port.is_route_writable(node_id):
            self._call_soon(callback)
        else:
            peer.waiting.append(callback)


def _parts(columns: Columns) -> list[Columns]:
    """A run in pieces of about ``RUN_BYTES``; a larger message is one by itself."""
    sizes = list(accumulate(map(len, columns.payloads)))
    if sizes[-1] <= RUN_BYTES:
        return [columns]
    parts = []
    begin = done = 0
    for at, size in enumerate(sizes):
        if at > begin and size - done > RUN_BYTES:
            parts.append(columns.part(begin, at))
            begin, done = at, sizes[at - 1]
    parts.append(columns.part(begin, len(sizes)))
    return parts


def _interest_records(told: dict[Key, int]) -> Iterator[list[Buffer]]:
    """All of these entries, in order; one record is of one account."""
    account = b""
    changes: list[Change] = []
    for (of, kind, subject, queue), weight in told.items():
        if changes and (of != account or len(changes) >= CHANGES_AT_ONCE):
            yield encode_interest(account, changes)
            changes = []
        account = of
        changes.append(Change(kind, subject, queue, weight))
    if changes:
        yield encode_interest(account, changes)
