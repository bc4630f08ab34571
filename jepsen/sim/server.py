"""The production server as a simulated process: the same object graph as ``server.app``, over a virtual world."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from jepsen.sim.machine import Boot
from jepsen.sim.node_probe import NodeProbe
from jetstore.errors import DiskPoisoned
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from jetstore.node.cluster import Cluster, ClusterOptions
from jetstore.node.link.ports import Route
from jetstore.node.open_store import check_mode, open_store
from jetstore.node.opening import Indexes
from jetstore.store.disk import InlineDisk
from jetstore.store.held_index import HeldIndexes, writer_commands
from jetstore.store.memory_index import FileIndexes, FileIndexWriter
from jetstore.store.writer import Writer
from server.app import Server, Store, World
from server.config.options import JetStreamOptions, Options

PORT = 4222
"""Where each machine serves clients."""
REPLICATES = True
"""Whether ``serve_node`` with peers is one replica among others; without, each machine has a server of its own."""
CLUSTER_PORT = 6222
"""Where each machine's node-to-node links arrive."""


def options_of(boot: Boot, limits: Limits) -> Options:
    """The server's options, with the bounds that options carry."""
    return Options(
        host=boot.host,
        port=PORT,
        server_name=boot.name,
        jetstream=JetStreamOptions(enabled=True),
        max_payload_bytes=limits.max_payload_bytes,
        max_pending_bytes=limits.max_pending_bytes,
    )


async def serve_node(boot: Boot) -> None:
    """Open the store, serve until told to stop or until the disk fails. Raises what ended it."""
    limits, loop = boot.machine.limits, boot.loop
    failed: asyncio.Future[BaseException] = loop.create_future()

    def poisoned(error: BaseException) -> None:
        if not failed.done():
            failed.set_result(error)

    secrets = boot.machine.secrets
    encryption = secrets.given() if secrets is not None else None
    journal, recovery, identity = open_store(boot.vfs, limits, boot.name, boot.rng.randbytes, encryption)
    if secrets is not None:
        secrets.opened()
    check_mode(identity, recovery, is_clustered=REPLICATES and bool(boot.peers))
    boot.findings = list(recovery.findings)
    indexes: Indexes = FileIndexes(boot.vfs) if encryption is None else HeldIndexes()
    commands = FileIndexWriter(boot.vfs).commands() if encryption is None else writer_commands()
    writer = Writer(boot.vfs, journal, limits, commands)
    disk = InlineDisk(loop, writer, boot.latency_s)
    disk.on_poison = poisoned
    cluster = None
    if REPLICATES and boot.peers:
        cluster = Cluster(
            ClusterOptions("sim", boot.host, CLUSTER_PORT, tuple(Route(peer, CLUSTER_PORT) for peer in boot.peers)),
            identity,
            vfs=boot.vfs,
            limits=limits,
            loop=loop,
            rng=Random(boot.rng.getrandbits(64)),
            journal_lsn=journal.position.lsn,
            heard=recovery.peers,
        )
    replicas_max = len(boot.peers) + 1 if cluster is not None else 1
    world = World(loop, boot.clock, Random(boot.rng.getrandbits(64)), limits, ServerLimits(replicas_max=replicas_max))
    store = Store(boot.vfs, disk, recovery, indexes, cluster)
    server = Server(options_of(boot, limits), world, store, poisoned)
    boot.server = server
    if cluster is not None and server.node is not None:
        boot.probe = NodeProbe(boot, server.node)
    await server.start()
    boot.ready()
    ends: list[asyncio.Future[Any]] = [failed, boot.stop_wanted]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        raise DiskPoisoned(str(failed.result())) from failed.result()
    await server.stop()
