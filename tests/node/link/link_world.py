"""Nodes with nothing but links, on virtual time: what each heard, and how to break what is between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from jepsen.sim.loop import SimLoop
from jepsen.sim.network import SimTransport
from jepsen.sim.owner import Owner
from jetstore.limits import KIB, Limits
from jetstore.node.link.hello import Hello, Purpose
from jetstore.node.link.links import Links
from jetstore.node.link.ports import LinkOptions, Route
from jetstore.node.link.raft_codec import Addressed
from jetstore.raft.message import Message, MessageKind
from jetstore.types import GroupUid, RaftIndex, Term

SMALL = Limits(
    link_frame_bytes=8 * KIB, link_hello_bytes=4 * KIB, link_send_bytes_max=64 * KIB, record_bytes_max=64 * KIB
)


@dataclass
class Heard:
    """A LinkHandler that remembers."""

    batches: list[tuple[str, list[Addressed]]] = field(default_factory=list)
    ups: list[str] = field(default_factory=list)
    downs: list[tuple[str, str]] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)
    disowned: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    bulk: list[tuple[str, bool]] = field(default_factory=list)
    hellos: dict[str, Hello] = field(default_factory=dict)

    def on_raft(self, node_id: str, batch: list[Addressed]) -> None:
        self.batches.append((node_id, batch))

    def on_up(self, node_id: str, hello: Hello) -> None:
        self.ups.append(node_id)
        self.events.append(f"up {node_id}")
        self.hellos[node_id] = hello

    def on_down(self, node_id: str, reason: str) -> None:
        self.downs.append((node_id, reason))
        self.events.append(f"down {node_id}")

    def on_bulk(self, node_id: str, is_up: bool) -> None:
        self.bulk.append((node_id, is_up))

    def on_alarm(self, node_id: str, text: str) -> None:
        self.alarms.append((node_id, text))

    def on_disowned(self, text: str) -> None:
        self.disowned.append(text)

    def messages(self, node_id: str) -> list[Addressed]:
        """All that came from a node, in order."""
        return [each for sender, batch in self.batches if sender == node_id for each in batch]


def node_id(number: int) -> str:
    return f"{number:016x}"


def options(number: int, **changes: Any) -> LinkOptions:
    fields: dict[str, Any] = {
        "cluster_name": "C",
        "node_id": node_id(number),
        "node_name": f"n{number}",
        "incarnation": 1,
        "boot_counter": 1,
        "boot_nonce": f"{number:08x}00000001",
        "durable_lsn": lambda: 1,
    }
    return LinkOptions(**(fields | changes))


class LinkNode:
    """One node: its links and what it heard. ``lsn`` is its journal's last block."""

    def __init__(self, loop: asyncio.AbstractEventLoop, number: int, *, limits: Limits = SMALL, **changes: Any) -> None:
        self.loop = loop
        self.number = number
        self.id = node_id(number)
        self.lsn = changes.pop("lsn", 1)
        self.heard = Heard()
        self.owner = Owner(f"n{number}")
        self.links = Links(
            options(number, durable_lsn=lambda: self.lsn, **changes),
            self.heard,
            limits=limits,
            loop=loop,
            rng=Random(number),
        )
        self.port = 0

    async def start(self, port: int = 0) -> int:
        self.port = await self.links.start("127.0.0.1", port)
        return self.port

    def dial(self, *others: LinkNode) -> None:
        for other in others:
            self.links.add_route(Route("127.0.0.1", other.port))

    def send(self, other: LinkNode, *messages: Message, group: int = 1) -> None:
        self.links.send_raft(other.id, GroupUid(group), messages)


def note(number: int, term: int = 1) -> Message:
    """A message that can be told from others."""
    return Message(MessageKind.APPEND_RESPONSE, 1, 2, Term(term), index=RaftIndex(number))


def notes(messages: list[Addressed]) -> list[int]:
    return [message.index for _, message in messages]


async def until(condition: Callable[[], Any], bound_s: float = 30.0) -> None:
    """Wait for it; AssertionError after so much (virtual or real) time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + bound_s
    while not condition():
        assert loop.time() < end, "waited in vain"
        await asyncio.sleep(0.001)


def is_meshed(*nodes: LinkNode) -> bool:
    """Everybody has both connections to everybody."""
    return all(a.links.is_up(b.id, purpose) for a in nodes for b in nodes if a is not b for purpose in Purpose)


async def mesh(loop: asyncio.AbstractEventLoop, count: int, **changes: Any) -> list[LinkNode]:
    """Nodes that all dial each other, when all are connected and no duplicate is left."""
    nodes = [LinkNode(loop, number + 1, **changes) for number in range(count)]
    for node in nodes:
        await node.start()
    for node in nodes:
        node.dial(*(other for other in nodes if other is not node))
    await until(lambda: is_meshed(*nodes))
    if isinstance(loop, SimLoop):
        await asyncio.sleep(0.5)  # virtual: a dial that has just begun comes to its end
        assert len(loop.network.live()) == 2 * count * (count - 1)
    return nodes


async def stop(*nodes: LinkNode) -> None:
    for node in nodes:
        await node.links.stop()


def play(story: Callable[[SimLoop], Awaitable[None]], seed: int = 1) -> SimLoop:
    """Run a story in virtual time; unhandled errors fail it."""
    loop = SimLoop(Random(seed))
    loop.deadline_s = 3600
    try:
        loop.run_until_complete(story(loop))
    finally:
        loop.close()
    assert loop.failures == []
    return loop


def wires(loop: SimLoop, a: LinkNode, b: LinkNode, purpose: Purpose = Purpose.RAFT) -> SimTransport:
    """``a``'s end of the connection that it uses towards ``b``."""
    transport = a.links.peers[b.id].current[purpose].transport
    assert isinstance(transport, SimTransport)
    return transport
