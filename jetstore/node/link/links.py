"""All links of a node: who is connected, sending and receiving Raft messages, and what two nodes agree to keep.

One connection per purpose and pair. Both sides dial, so two may come up at once: the one that the node with the lower
id dialled stays, the other is *retired* (its sender says GOODBYE and sends nothing more; it is read to the end). A
connection dialled by the same node again, or long after the other was up, proves that the older one is dead for its
peer: the newer one stays. A later life of a node ends everything of the earlier one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import structlog

from jetstore.limits import Limits
from jetstore.node.link.bulk import BulkClient, BulkStream
from jetstore.node.link.bulk_server import BulkServer, Method
from jetstore.node.link.dialler import Dialler, Target
from jetstore.node.link.frames import FrameError, Kind
from jetstore.node.link.hello import Hello, Purpose, Reason, Refused, check_hello, encode_hello
from jetstore.node.link.link import Link, State
from jetstore.node.link.peer import Peer
from jetstore.node.link.peer_memory import PeerMemory, Sighting, Verdict
from jetstore.node.link.ports import (
    LinkHandler,
    LinkOptions,
    LinksStatus,
    NodeLinks,
    NotConnected,
    RequestHandler,
    Route,
    Routing,
    StreamHandler,
)
from jetstore.node.link.raft_codec import Sender, decode_raft, encode_raft, message_bytes
from jetstore.raft.message import Message
from jetstore.types import Buffer, GroupUid

log = structlog.get_logger(__name__)

_TO_SERVER = (Kind.REQUEST, Kind.CREDIT, Kind.CANCEL)
_TO_CLIENT = (Kind.RESPONSE, Kind.CHUNK, Kind.END, Kind.ERROR)
_ADVERTISE_BYTES = 64
"""Kept free in a hello for an address that is not known yet."""
_FRAME_SLACK_BYTES = 256 * 1024
"""What a frame may have around one largest record."""


class Links(NodeLinks):
    """Built by the composition root; ``start`` listens and dials. Everything runs on the loop it was made for."""

    def __init__(
        self,
        options: LinkOptions,
        handler: LinkHandler,
        *,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        rng: Random,
        memory: PeerMemory | None = None,
    ) -> None:
        """``memory``: what an earlier life of this node remembered of its peers."""
        self.options = options
        self.handler = handler
        self.limits = limits
        self.loop = loop
        self.memory = memory if memory is not None else PeerMemory(limits.link_peers_max)
        self.peers: dict[str, Peer] = {}
        """By node id."""
        self.refused: dict[Reason, int] = {}
        self.bad_frames = 0
        self.disowned = ""
        """Who refused this disk as an old or cloned one, and why: from then on the node takes part in nothing."""
        self.routing: Routing | None = None
        self._rng = rng
        self._methods: dict[str, Method] = {}
        self._advertise = options.advertise
        self._targets: list[Target] = []
        self._diallers: list[Dialler] = []
        self._waiting: dict[Link, None] = {}
        """Accepted, hello not finished."""
        self._dirty: list[Peer] = []
        self._flush_is_due = False
        self._server: asyncio.AbstractServer | None = None
        self._is_stopping = False

    # -- start and stop -------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> int:
        """Listen and begin to dial; the port in use (≤ 0 takes a free one).

        Raises OSError; ValueError if names and credentials do not fit a hello.
        """
        for route in (None, *self.options.routes):
            size = len(encode_hello(self.my_hello(Purpose.RAFT, route)))
            if size + _ADVERTISE_BYTES > self.limits.link_hello_bytes:
                raise ValueError(f"names and credentials of {size} bytes, {self.limits.link_hello_bytes} fit a hello")
        self._server = await self.loop.create_server(
            lambda: Link(self, None, None), host or None, max(port, 0), ssl=self.options.server_tls
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        if not self._advertise and host and host not in ("0.0.0.0", "::"):
            self._advertise = f"{host}:{bound}"
        for route in self.options.routes:
            self.add_route(route)
        return bound

    def add_route(self, route: Route) -> None:
        """From now on keep a connection to that address too. Idempotent."""
        if any((target.route.host, target.route.port) == (route.host, route.port) for target in self._targets):
            return
        target = Target(route)
        self._targets.append(target)
        for purpose in Purpose:
            self._diallers.append(
                Dialler(
                    target,
                    purpose,
                    loop=self.loop,
                    limits=self.limits,
                    rng=self._rng,
                    make_link=self._make_link,
                    connect=self._connect,
                    is_served=self.is_up,
                )
            )

    async def stop(self) -> None:
        """Take and make no more connections, send what is owed, say goodbye, close."""
        self._is_stopping = True
        if self._server is not None:
            self._server.close()
        for dialler in self._diallers:
            await dialler.stop()
        self._flush()
        for link in list(self._waiting):
            link.abort("stopping")
        for peer in list(self.peers.values()):
            for link in [*peer.current.values(), *peer.retired]:
                link.say_goodbye()
                link.close("this node stops")

    def _make_link(self, purpose: Purpose, route: Route) -> Link:
        return Link(self, purpose, route)

    async def _connect(self, make: Callable[[], Link], route: Route) -> Any:
        tls = self.options.client_tls
        return await self.loop.create_connection(
            make, route.host, route.port, ssl=tls, server_hostname=route.host if tls is not None else None
        )

    # -- sending --------------------------------------------------------------------------------------------------

    def send_raft(self, node_id: str, group: GroupUid, messages: Sequence[Message]) -> None:
        peer = self.peers.get(node_id)
        link = peer.current.get(Purpose.RAFT) if peer is not None else None
        if peer is None or link is None:
            if peer is not None:
                peer.messages_dropped += len(messages)
            return
        bytes_max = self.limits.link_send_bytes_max
        unsent = link.pending_bytes + peer.queued_bytes
        if not peer.queue:
            self._dirty.append(peer)
        for message in messages:
            size = message_bytes(message)
            if unsent and unsent + size > bytes_max:
                peer.messages_dropped += 1
                continue
            unsent += size
            peer.queued_bytes += size
            peer.queue.append((group, message))
        if not self._flush_is_due:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        dirty, self._dirty = self._dirty, []
        if not dirty:
            return
        options = self.options
        sender = Sender(options.boot_counter, options.boot_nonce, options.durable_lsn())
        largest = self.body_bytes_max(Purpose.RAFT)
        for peer in dirty:
            batch, peer.queue, peer.queued_bytes = peer.queue, [], 0
            link = peer.current.get(Purpose.RAFT)
            if link is None:
                peer.messages_dropped += len(batch)
                continue
            frames = []
            for body in encode_raft(sender, batch, self.limits.link_frame_bytes):
                if sum(map(len, body)) > largest:
                    log.error("a Raft message is larger than a frame may be", node=peer.node_id, bytes_max=largest)
                    continue
                frames.append((Kind.RAFT, body))
            peer.messages_out += len(batch)
            link.send(frames)

    # -- what front ends tell each other ----------------------------------------------------------------------------

    def attach_routing(self, routing: Routing) -> None:
        """From now on ROUTE frames are taken."""
        self.routing = routing
        for node_id, peer in sorted(self.peers.items()):
            if Purpose.BULK in peer.current:
                routing.up(node_id, wants=True)

    def send_route(self, node_id: str, parts: Sequence[Buffer]) -> None:
        """Send one frame, in the order of the calls. Nothing happens if there is no connection."""
        link = self._bulk(node_id)
        if link is not None:
            size = sum(map(len, parts))
            if size > self.body_bytes_max(Purpose.BULK):
                log.error("a message is larger than a frame may be: not sent", node=node_id, bytes=size)
                return
            link.send([(Kind.ROUTE, parts)])

    def route_backlog(self, node_id: str) -> int:
        """Unsent bytes of the bulk connection to that node."""
        link = self._bulk(node_id)
        return link.pending_bytes if link is not None else 0

    def is_route_writable(self, node_id: str) -> bool:
        """Whether it takes more without being slow; True if there is none."""
        link = self._bulk(node_id)
        return link is None or link.is_writable

    def _bulk(self, node_id: str) -> Link | None:
        peer = self.peers.get(node_id)
        return peer.current.get(Purpose.BULK) if peer is not None else None

    # -- requests and streams -------------------------------------------------------------------------------------

    def register(self, method: str, handler: RequestHandler, *, concurrent_max: int = 64) -> None:
        self._register(method, concurrent_max).answer = handler

    def register_stream(self, method: str, handler: StreamHandler, *, concurrent_max: int = 16) -> None:
        self._register(method, concurrent_max).stream = handler

    def _register(self, name: str, concurrent_max: int) -> Method:
        assert name not in self._methods, f"two handlers for {name}"
        method = self._methods[name] = Method(name, concurrent_max)
        return method

    def request(self, node_id: str, method: str, payload: Buffer) -> asyncio.Future[bytes]:
        return self._client(node_id).request(method, payload)

    def stream(self, node_id: str, method: str, payload: Buffer, *, window_bytes: int = 0) -> BulkStream:
        return self._client(node_id).stream(method, payload, window_bytes or self.limits.bulk_window_bytes)

    def _client(self, node_id: str) -> BulkClient:
        peer = self.peers.get(node_id)
        link = peer.current.get(Purpose.BULK) if peer is not None else None
        if link is None or link.client is None:
            raise NotConnected(f"no bulk connection to {peer.hello.node_name if peer is not None else node_id}")
        return link.client

    # -- what the driver asks -------------------------------------------------------------------------------------

    def is_up(self, node_id: str, purpose: Purpose = Purpose.RAFT) -> bool:
        peer = self.peers.get(node_id)
        return peer is not None and purpose in peer.current

    def connected(self) -> list[str]:
        return sorted(node_id for node_id, peer in self.peers.items() if Purpose.RAFT in peer.current)

    def nodes_configured(self) -> int:
        """How many other nodes the configured routes lead to, as far as is known: its own address does not count."""
        return len({target.node_id or str(target.route) for target in self._targets if not target.is_self})

    def status(self) -> LinksStatus:
        """For monitoring."""
        return LinksStatus(
            peers=[peer.status(self.memory.alarms.get(node_id)) for node_id, peer in sorted(self.peers.items())],
            routes=[(str(target.route), target.node_id) for target in self._targets],
            refused={reason.name.lower(): count for reason, count in sorted(self.refused.items())},
            bad_frames=self.bad_frames,
            inbound_waiting=len(self._waiting),
        )

    # -- hello (LinkOwner) ----------------------------------------------------------------------------------------

    def my_hello(self, purpose: Purpose, route: Route | None) -> Hello:
        options = self.options
        return Hello(
            purpose=purpose,
            cluster_name=options.cluster_name,
            cluster_id=options.cluster_id,
            node_id=options.node_id,
            node_name=options.node_name,
            incarnation=options.incarnation,
            boot_counter=options.boot_counter,
            boot_nonce=options.boot_nonce,
            durable_lsn=options.durable_lsn(),
            advertise=self._advertise,
            user=route.user if route is not None else "",
            password=route.password if route is not None else "",
        )

    def snapshot(self) -> Mapping[str, Sighting]:
        return self.memory.snapshot()

    def body_bytes_max(self, purpose: Purpose) -> int:
        limits = self.limits
        return max(limits.link_frame_bytes, limits.record_bytes_max, limits.entry_bytes_max) + _FRAME_SLACK_BYTES

    def on_made(self, link: Link) -> bool:
        if self._is_stopping or len(self._waiting) >= self.limits.link_inbound_max:
            return False
        self._waiting[link] = None
        return True

    def check(self, link: Link, theirs: Hello) -> None:
        if self._is_stopping:
            raise Refused(Reason.STOPPING, "this node stops")
        if self.disowned:
            raise Refused(Reason.DISOWNED, "this node's own disk was refused as an old or cloned one")
        names = {peer.hello.node_name: peer.node_id for peer in self.peers.values() if peer.current}
        check_hello(
            self.my_hello(theirs.purpose, None),
            theirs,
            authorize=None if link.is_dialler else self.options.authorize,
            names=names,
        )
        if not self.memory.has_room_for(theirs.node_id):
            raise Refused(Reason.TOO_MANY, f"{self.limits.link_peers_max} nodes are known already")

    def judge(self, link: Link) -> None:
        theirs = link.theirs
        assert theirs is not None
        said = Sighting(theirs.incarnation, theirs.boot_counter, theirs.boot_nonce, link.durable_lsn)
        verdict = self.memory.observe(theirs.node_id, said, link.as_of)
        if verdict is Verdict.OVERTAKEN:
            raise Refused(Reason.OVERTAKEN, "a later life of this node has connected meanwhile")
        if verdict is Verdict.OLD_DISK:
            text = self.memory.alarms[theirs.node_id].text
            self._alarm(theirs.node_id, theirs.node_name, text)
            raise Refused(Reason.OLD_DISK, f"old or cloned disk: {text}")

    def _alarm(self, node_id: str, node_name: str, text: str) -> None:
        log.error("a peer has an old or cloned disk: nothing it says is counted", node=node_name, id=node_id, why=text)
        self.handler.on_alarm(node_id, text)

    # -- up and down (LinkOwner) ----------------------------------------------------------------------------------

    def wants(self, link: Link) -> bool:
        theirs, purpose = link.theirs, link.purpose
        assert theirs is not None
        assert purpose is not None
        self._found(link, theirs.node_id)
        peer = self.peers.get(theirs.node_id)
        current = peer.current.get(purpose) if peer is not None else None
        return current is None or current.theirs is None or current.theirs.boot_nonce != theirs.boot_nonce

    def _found(self, link: Link, node_id: str) -> None:
        """Who lives at a configured address."""
        for target in self._targets:
            if target.route is link.route:
                target.node_id = node_id

    def admit(self, link: Link) -> None:
        theirs, purpose = link.theirs, link.purpose
        assert theirs is not None
        assert purpose is not None
        self._waiting.pop(link, None)
        theirs = link.theirs = replace(theirs, user="", password="")
        peer = self.peers.get(theirs.node_id)
        if peer is None:
            peer = self.peers[theirs.node_id] = Peer(theirs.node_id, theirs)
        self._found(link, theirs.node_id)
        for other in [*peer.current.values(), *peer.retired]:
            if other.theirs is not None and other.theirs.boot_nonce != theirs.boot_nonce:
                other.abort("a later life of the node has connected")
        peer.hello = theirs
        peer.connects += 1
        if purpose is Purpose.BULK:
            self._equip(link, theirs)
        current = peer.current.get(purpose)
        if current is not None and self._is_duplicate(current, link):
            lower = min(self.options.node_id, theirs.node_id)
            dialled_by = self.options.node_id if link.is_dialler else theirs.node_id
            if dialled_by != lower:
                self._retire(peer, link)
                return
            peer.current[purpose] = link
            self._retire(peer, current)
            if purpose is Purpose.BULK and self.routing is not None:
                self.routing.up(theirs.node_id)
            return
        if current is not None:
            current.abort("the node has connected again")
        peer.current[purpose] = link
        self._wake_diallers()
        log.info(
            "link up", node=theirs.node_name, id=theirs.node_id, purpose=purpose.name.lower(), address=link.address
        )
        if purpose is Purpose.RAFT:
            self.handler.on_up(theirs.node_id, theirs)
        else:
            self.handler.on_bulk(theirs.node_id, True)
            if self.routing is not None:
                self.routing.up(theirs.node_id)

    def _equip(self, link: Link, theirs: Hello) -> None:
        limits = self.limits
        link.client = BulkClient(link, limits=limits, loop=self.loop, node_name=theirs.node_name)
        link.server = BulkServer(
            link,
            self._methods,
            limits=limits,
            loop=self.loop,
            node_id=theirs.node_id,
            answer_bytes_max=self.body_bytes_max(Purpose.BULK) - _FRAME_SLACK_BYTES // 2,
        )

    def _is_duplicate(self, current: Link, link: Link) -> bool:
        """Both sides dialled at once (else the older connection is dead for the peer, and the newer one stays)."""
        age_s = self.loop.time() - current.up_since_s
        return current.is_dialler != link.is_dialler and age_s <= self.limits.link_hello_timeout_s

    def _retire(self, peer: Peer, link: Link) -> None:
        link.state = State.RETIRED
        peer.retired.append(link)
        self._say_goodbye(link)

    def _say_goodbye(self, link: Link) -> None:
        """As soon as nothing is waited for on a retired connection."""
        if link.client is None or not link.client.pending:
            link.say_goodbye()

    def on_goodbye(self, link: Link) -> None:
        """It has another connection, which is about to come up here; or it stops, and closes."""

    def on_closed(self, link: Link, reason: str) -> None:
        self._waiting.pop(link, None)
        if link.server is not None:
            link.server.lost()
        if link.client is not None:
            link.client.lost(reason)
        if link.theirs is None or link.purpose is None:
            return
        peer = self.peers.get(link.theirs.node_id)
        if peer is None:
            return
        if link in peer.retired:
            peer.retired.remove(link)
            return
        purpose = link.purpose
        if peer.current.get(purpose) is not link:
            return
        if purpose is Purpose.RAFT:
            peer.received = []  # of a read that ended in a bad frame
        del peer.current[purpose]
        for other in [other for other in peer.retired if other.purpose is purpose]:
            other.abort("the connection that took over is lost")
        log.info("link down", node=peer.hello.node_name, id=peer.node_id, purpose=purpose.name.lower(), reason=reason)
        self._wake_diallers()
        if purpose is Purpose.RAFT:
            self.handler.on_down(peer.node_id, reason)
        else:
            self.handler.on_bulk(peer.node_id, False)
            if self.routing is not None:
                self.routing.down(peer.node_id)

    def _wake_diallers(self) -> None:
        for dialler in self._diallers:
            dialler.wake()

    def on_refusal(self, link: Link, refusal: Refused, *, is_ours: bool) -> None:
        if refusal.reason is Reason.SELF:
            for target in self._targets:
                if target.route is link.route:
                    target.is_self = True
            return
        if refusal.reason is Reason.OLD_DISK and not is_ours:
            self._disown(link, refusal.text)
        if is_ours:
            self.refused[refusal.reason] = self.refused.get(refusal.reason, 0) + 1
            log.warning("connection refused", address=link.address, reason=refusal.text)

    def _disown(self, link: Link, text: str) -> None:
        """One peer knows better what this disk held. Others may have been away then and would count what it says."""
        if self.disowned:
            return
        self.disowned = f"{link.address}: {text}"
        log.error(
            "this node's disk is an old or cloned one: it talks to nobody any more; "
            "put the right disk back, or start with an empty one",
            refused_by=link.address,
            why=text,
        )
        for peer in list(self.peers.values()):
            for other in [*peer.current.values(), *peer.retired]:
                other.abort("this node's disk is an old or cloned one")
        self.handler.on_disowned(self.disowned)

    def on_bad_frame(self, link: Link, text: str) -> None:
        self.bad_frames += 1
        node = link.theirs.node_name if link.theirs is not None else ""
        log.warning("bad frame: connection closed", node=node, address=link.address, what=text)

    def on_writable(self, link: Link, is_writable: bool) -> None:
        """Answers wait for it. Raft links are bounded by dropping, not by waiting."""
        if is_writable and link.server is not None:
            link.server.on_writable()
            if self.routing is not None and link.theirs is not None and self._bulk(link.theirs.node_id) is link:
                self.routing.writable(link.theirs.node_id)

    # -- receiving (LinkOwner) ------------------------------------------------------------------------------------

    def on_frame(self, link: Link, kind: Kind, body: memoryview) -> None:
        if kind is Kind.RAFT and link.purpose is Purpose.RAFT:
            self._take_raft(link, body)
        elif link.server is not None and kind in _TO_SERVER:
            link.server.take(kind, body)
        elif link.client is not None and kind in _TO_CLIENT:
            link.client.take(kind, body)
        elif kind is Kind.ROUTE and link.purpose is Purpose.BULK and link.theirs is not None:
            if self.routing is not None:
                self.routing.take(link.theirs.node_id, body)
        else:
            raise FrameError(f"{kind.name} on a connection for {link.purpose.name if link.purpose else '?'}")

    def _take_raft(self, link: Link, body: memoryview) -> None:
        theirs = link.theirs
        assert theirs is not None
        sender, batch = decode_raft(body)
        if (sender.boot_counter, sender.boot_nonce) != (theirs.boot_counter, theirs.boot_nonce):
            text = (
                f"boot {sender.boot_counter} with nonce {sender.boot_nonce} on a connection "
                f"of boot {theirs.boot_counter} with nonce {theirs.boot_nonce}"
            )
            self.memory.alarm(theirs.node_id, text)
            self._alarm(theirs.node_id, theirs.node_name, text)
            raise Refused(Reason.OLD_DISK, f"old or cloned disk: {text}")
        self.memory.advance(theirs.node_id, sender.durable_lsn)
        peer = self.peers[theirs.node_id]
        peer.messages_in += len(batch)
        peer.received += batch

    def on_read_end(self, link: Link) -> None:
        if link.state is State.RETIRED:
            self._say_goodbye(link)
        if link.theirs is None:
            return
        peer = self.peers.get(link.theirs.node_id)
        if peer is not None and peer.received:
            batch, peer.received = peer.received, []
            self.handler.on_raft(peer.node_id, batch)
