"""This node among others: links, founding, and the Raft host that its groups share.

``Cluster`` is what the links report to. A node without one is a cluster of one: no port, no ticks, no messages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import structlog

from jetstore.limits import Limits
from jetstore.node.founding import Cluster as FoundedCluster
from jetstore.node.founding import PeerState, decide
from jetstore.node.link.hello import Hello, Purpose
from jetstore.node.link.links import Links
from jetstore.node.link.peer_memory import PeerMemory, Sighting, decode_rows
from jetstore.node.link.ports import LinkOptions, Route
from jetstore.node.link.raft_codec import Addressed
from jetstore.node.raft_host import RaftHost
from jetstore.raft.membership import Configuration
from jetstore.store.identity import FoundingNode, Identity, save_identity
from jetstore.store.vfs import Vfs

log = structlog.get_logger(__name__)

INVITE = "cluster.invite"
"""Asked of a node that belongs to no cluster by who leads the metadata of one: it is a member of that, from now on."""
WAITING_LOGGED_S = 5.0
"""How often a node that is not founded yet says what it waits for."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Where this node listens for others, and where it looks for them."""

    name: str
    host: str
    port: int
    """-1 = any free one."""
    routes: tuple[Route, ...]
    """All other founding nodes; its own address among them does no harm."""
    advertise: str = ""
    user: str = ""
    password: str = ""
    """Asked of nodes that connect; both "" = nothing is asked."""


class Cluster:
    """Implements ``jetstore.node.link.ports.LinkHandler``."""

    def __init__(
        self,
        options: ClusterOptions,
        identity: Identity,
        *,
        vfs: Vfs,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        rng: Random,
        journal_lsn: int,
        heard: bytes = b"",
    ) -> None:
        """Nothing is opened before ``start``. ``journal_lsn``: of the last durable block of the opened journal.

        ``heard``: what the journal remembers of other nodes (``JournalRecovery.peers``).
        """
        self.options = options
        self.identity = identity
        self.journal_lsn = journal_lsn
        """Last durable block of this node's journal; the node moves it on."""
        self._vfs = vfs
        self._loop = loop
        link_options = LinkOptions(
            cluster_name=options.name,
            node_id=identity.node_id,
            node_name=identity.node_name,
            incarnation=identity.incarnation,
            boot_counter=identity.boot_counter,
            boot_nonce=identity.boot_nonce,
            durable_lsn=lambda: self.journal_lsn,
            cluster_id=identity.cluster_id,
            routes=options.routes,
            advertise=options.advertise,
            authorize=self._authorize if options.user or options.password else None,
        )
        own = Sighting(identity.incarnation, identity.boot_counter, identity.boot_nonce, 0)
        others = [row for row in decode_rows(heard) if row[0] != identity.node_id]
        memory = PeerMemory(limits.link_peers_max, others, (identity.node_id, own))
        self.links = Links(link_options, self, limits=limits, loop=loop, rng=Random(rng.getrandbits(64)), memory=memory)
        self.on_heard: Callable[[], None] = lambda: None
        """Called when something of a node was heard that the journal should remember soon."""
        self.host = RaftHost(loop, Random(rng.getrandbits(64)), self.links.send_raft)
        self._link_options = link_options
        self._hellos: dict[str, Hello] = {}
        self._lost_at_s: dict[str, float] = {}
        """When nodes that are not connected were heard last; few entries: one for each node there ever was."""
        self._changed = asyncio.Event()
        self.invited = 0
        """The number under which this node was invited into the metadata group since it started; 0 = it was not."""
        self.links.register(INVITE, self._on_invitation)
        self._invitation: tuple[str, tuple[FoundingNode, ...], int] | None = None
        self.port = 0
        """The port in use."""

    def _authorize(self, user: str, password: str) -> bool:
        return (user, password) == (self.options.user, self.options.password)

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self, *, has_metadata: bool = False) -> None:
        """Listen, dial, and return once this node belongs to a cluster: at once, except at its very first start.

        ``has_metadata``: its journal has a member of the metadata group.
        """
        self.port = await self.links.start(self.options.host, self.options.port)
        log.info("cluster port", host=self.options.host, port=self.port, cluster=self.options.name)
        logged_s = self._loop.time()
        while not self.identity.cluster_id or not (has_metadata or self.member):
            if self._invitation is not None:
                cluster_id, nodes, number = self._invitation
                self._belong(cluster_id, nodes)
                self.invited = number
                break
            outcome: FoundedCluster | str = "it belongs to the cluster, and has to be told under which number"
            if not self.identity.cluster_id:
                outcome = decide(self.options.name, self.own, self._peers(), 1 + self.links.nodes_configured())
            if not isinstance(outcome, str):
                self._belong(outcome.cluster_id, outcome.nodes)
                break
            if self._loop.time() - logged_s >= WAITING_LOGGED_S:
                logged_s = self._loop.time()
                log.warning("waiting to found the cluster", why=outcome)
            self._changed.clear()
            try:
                async with asyncio.timeout(WAITING_LOGGED_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
        self.host.start()

    async def stop(self) -> None:
        """Say goodbye to everybody."""
        self.host.stop()
        await self.links.stop()

    def abandon(self) -> None:
        """No more ticks and elections: the node is ending."""
        self.host.stop()

    # -- founding -------------------------------------------------------------------------------------------------

    @property
    def own(self) -> FoundingNode:
        """This node, as founders name each other."""
        return FoundingNode(self.identity.node_name, self.identity.node_id, self.identity.incarnation)

    @property
    def founding_configuration(self) -> Configuration:
        """The metadata group's first configuration."""
        return Configuration.founding((node.node_id, node.incarnation) for node in self.identity.founding)

    @property
    def member(self) -> int:
        """This node's number in it; 0 = it is no founder."""
        nodes = self.identity.founding
        return nodes.index(self.own) + 1 if self.own in nodes else 0

    async def _on_invitation(self, node_id: str, payload: bytes) -> bytes:
        """Somebody's cluster has this node among its members: the invitation holds if it is still without one."""
        fields = json.loads(payload)
        nodes = tuple(FoundingNode(*node) for node in fields["founding"])
        is_free = self.identity.cluster_id in ("", fields["cluster_id"])
        is_meant = (self.identity.node_id, self.identity.incarnation) == tuple(fields["home"])
        if is_free and is_meant and not self.member:
            self._invitation = fields["cluster_id"], nodes, fields["member"]
            self._changed.set()
        return b""

    def invitation(self, home: tuple[str, int], member: int) -> bytes:
        """What makes the node there a member of this cluster, under that number in the metadata group."""
        identity = self.identity
        return json.dumps(
            {"cluster_id": identity.cluster_id, "founding": identity.founding, "home": home, "member": member}
        ).encode()

    def peers(self) -> list[Hello]:
        """Who is connected, by node id."""
        return [hello for _, hello in sorted(self._hellos.items())]

    def silence_s(self, node_id: str) -> float:
        """Since that node was heard last, as far as is known since this one started; 0 = never."""
        peer = self.links.peers.get(node_id)
        link = peer.current.get(Purpose.RAFT) if peer is not None else None
        heard_at_s = link.heard_at_s if link is not None else self._lost_at_s.get(node_id)
        return max(self._loop.time() - heard_at_s, 0.0) if heard_at_s is not None else 0.0

    def _peers(self) -> list[PeerState]:
        return [
            PeerState(FoundingNode(hello.node_name, node_id, hello.incarnation), hello.cluster_id)
            for node_id, hello in sorted(self._hellos.items())
        ]

    def _belong(self, cluster_id: str, nodes: tuple[FoundingNode, ...]) -> None:
        """From now on this node is one of these; durable before anything is promised to anybody."""
        self.identity = replace(self.identity, cluster_id=cluster_id, founding=nodes)
        save_identity(self._vfs, self.identity)
        self._link_options.cluster_id = cluster_id
        log.info("cluster founded", cluster_id=cluster_id, nodes=[node.name for node in nodes])

    # -- LinkHandler ----------------------------------------------------------------------------------------------

    def on_raft(self, node_id: str, batch: list[Addressed]) -> None:
        self.host.on_raft(node_id, batch)

    def on_up(self, node_id: str, hello: Hello) -> None:
        self._hellos[node_id] = hello
        self.on_heard()
        self.host.node_up(node_id, hello.incarnation)
        self._changed.set()

    def on_down(self, node_id: str, reason: str) -> None:
        self._hellos.pop(node_id, None)
        self._lost_at_s[node_id] = self._loop.time()
        self.host.node_down(node_id)
        self._changed.set()

    def on_bulk(self, node_id: str, is_up: bool) -> None:
        """Requests to that node are possible, or are not any more."""

    def on_alarm(self, node_id: str, text: str) -> None:
        """The links refuse it (and said so); the genuine node may be connected all the same."""

    def on_disowned(self, text: str) -> None:
        """No later start serves this disk: by then those who know better may be away, or have forgotten."""
        self.identity = replace(self.identity, disowned=text)
        save_identity(self._vfs, self.identity)
