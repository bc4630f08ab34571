"""Another node, as the links know it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetstore.node.link.hello import Hello, Purpose
from jetstore.node.link.link import Link
from jetstore.node.link.peer_memory import Alarm
from jetstore.node.link.ports import PeerStatus
from jetstore.node.link.raft_codec import Addressed


@dataclass(slots=True)
class Peer:
    """Another node. Kept when it is away: counters and memory of it go on."""

    node_id: str
    hello: Hello
    current: dict[Purpose, Link] = field(default_factory=dict)
    retired: list[Link] = field(default_factory=list)
    queue: list[Addressed] = field(default_factory=list)
    """Raft messages of this loop turn."""
    queued_bytes: int = 0
    received: list[Addressed] = field(default_factory=list)
    """Raft messages of this read."""
    messages_in: int = 0
    messages_out: int = 0
    messages_dropped: int = 0
    connects: int = 0

    def status(self, alarm: Alarm | None) -> PeerStatus:
        """For monitoring."""
        raft, bulk = self.current.get(Purpose.RAFT), self.current.get(Purpose.BULK)
        return PeerStatus(
            node_id=self.node_id,
            node_name=self.hello.node_name,
            advertise=self.hello.advertise,
            incarnation=self.hello.incarnation,
            boot_counter=self.hello.boot_counter,
            raft=raft.status() if raft is not None else None,
            bulk=bulk.status() if bulk is not None else None,
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            messages_dropped=self.messages_dropped,
            connects=self.connects,
            requests_pending=bulk.client.pending if bulk is not None and bulk.client is not None else 0,
            alarm=alarm.text if alarm is not None else "",
        )
