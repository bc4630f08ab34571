"""Routers of several nodes, and links between them that a test moves by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from route_fakes import FakeSink

from jetstore.limits import Limits
from jetstore.types import Buffer
from server.route.peers import Peers
from server.route.router import Router
from server.route.subscription import Subscription

LIMITS = Limits()


class Sink(FakeSink):
    """A connection that keeps its messages: sid, subject, reply, payload."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.no_responders = True
        self.got: list[tuple[bytes, bytes, bytes, bytes]] = []

    def send(self, chunk: bytes) -> None:
        while chunk:
            line, _, rest = chunk.partition(b"\r\n")
            verb, subject, sid, *others = line.split(b" ")
            size = int(others.pop())
            if verb == b"HMSG":
                others.pop()
            self.got.append((sid, subject, others[0] if others else b"", rest[:size]))
            chunk = rest[size + 2 :]

    def bodies(self) -> list[bytes]:
        return [body for *_, body in self.got]

    def when_writable(self, callback: Callable[[], None]) -> None:
        callback()


class Node:
    """One node's routers and its ends of the links."""

    def __init__(self, net: Network, name: str) -> None:
        self.net = net
        self.name = name
        self.soon: list[Callable[[], None]] = []
        self.slow: set[str] = set()
        self.backlog = 0
        self.frames = 0
        self.is_slowed = False
        self.peers = Peers(self, net.limits, self.soon.append, unshared=frozenset([b"$JS.API.>"]))
        self.router = Router("$G", Random(name), self.soon.append)
        self.system = Router("$SYS", Random(name), self.soon.append)
        for router in (self.router, self.system):
            self.peers.attach(router)

    # PeerPort
    def send_route(self, node_id: str, parts: Sequence[Buffer]) -> None:
        if (self.name, node_id) in self.net.up:
            self.frames += 1
            self.net.wire.append((self.name, node_id, b"".join(parts)))

    def route_backlog(self, node_id: str) -> int:
        return self.backlog if node_id in self.slow else 0

    def is_route_writable(self, node_id: str) -> bool:
        return node_id not in self.slow

    def sub(self, sink: Sink, subject: bytes, queue: bytes = b"", sid: bytes = b"1") -> Subscription:
        return self.router.subscribe_client(sink, subject, queue, sid)

    def pub(self, *messages: tuple[bytes, ...], client: Sink | None = None) -> Sink:
        """Sets ``is_slowed`` to whether the client is to be slowed down."""
        client = client or Sink()
        replies = [message[2] if len(message) > 2 else b"" for message in messages]
        columns = [m[0] for m in messages], replies, [], [m[1] for m in messages]
        self.is_slowed = self.router.publish_from(client, *columns)
        return client


class Network:
    """Some nodes and what is on its way between them."""

    def __init__(self, count: int = 3, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.up: set[tuple[str, str]] = set()
        self.wire: list[tuple[str, str, bytes]] = []
        self.nodes = [Node(self, "abcde"[at]) for at in range(count)]
        self.by_name = {node.name: node for node in self.nodes}
        for one in self.nodes:
            for other in self.nodes:
                if one.name < other.name:
                    self.join(one.name, other.name)
        self.settle()

    def join(self, one: str, other: str) -> None:
        self.up |= {(one, other), (other, one)}
        self.by_name[one].peers.up(other)
        self.by_name[other].peers.up(one)

    def cut(self, one: str, other: str) -> None:
        self.up -= {(one, other), (other, one)}
        self.wire = [each for each in self.wire if {each[0], each[1]} != {one, other}]
        self.by_name[one].peers.down(other)
        self.by_name[other].peers.down(one)

    def settle(self) -> None:
        """Until nothing is on its way."""
        while self.wire or any(node.soon for node in self.nodes):
            for node in self.nodes:
                soon, node.soon[:] = list(node.soon), []
                for callback in soon:
                    callback()
            wire, self.wire = self.wire, []
            for source, target, body in wire:
                self.by_name[target].peers.take(source, memoryview(body))
