"""The composition root: the only place that builds the object graph, and the only one that touches the environment.

``Server`` is one server over a given ``World`` (event loop, clock, dice, disk); the simulator builds it over a virtual
one. ``run`` is the real thing: it locks the store, opens the journal, starts the writer process, and serves until told
to stop.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import platform
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import structlog

import jetstore
from jetstore.clock import Clock, RealClock
from jetstore.errors import JetstoreError, OperatingError, StoreLocked
from jetstore.limits import Limits
from jetstore.model.levels import API_LEVEL, NATS_VERSION
from jetstore.model.server_limits import ServerLimits
from jetstore.node.group_commit import SYNC_BUCKETS_S
from jetstore.node.loop_lag import BUCKETS_S
from jetstore.node.node import Node, NodeParts
from jetstore.node.open_store import open_store
from jetstore.node.opening import Indexes
from jetstore.node.streams_api import StreamsApi
from jetstore.store.disk import ProcessDisk
from jetstore.store.index import LmdbIndexes
from jetstore.store.lock import DirectoryLock
from jetstore.store.os_vfs import OsVfs
from jetstore.store.ports import Disk, JournalRecovery
from jetstore.store.vfs import Vfs
from server.auth.authenticator import Authenticator, PasswordUser, User
from server.config.options import Options
from server.config.ports_file import write_ports_file
from server.jsapi.handler import ApiHandler
from server.monitor.monitor import Monitor
from server.monitor.ports import EngineCounters, JetStreamFacts, MonitorSource, ServerFacts
from server.net.client_server import ClientServer
from server.net.options import NetOptions
from server.protocol.client import ProtocolOptions
from server.protocol.info import ServerInfo
from server.route.router import Router

log = structlog.get_logger("server")

ACCOUNT = "$G"
LOCK_WAIT_S = 30.0
"""After kill -9 the old writer process may still be inside a write: how long a start waits for it."""
LOCK_RETRY_S = 0.02
STORE_NAME = "jetstore"
INDEX_COMMANDS = "jetstore.store.index:writer_commands"
"""What the writer process adds to its commands; imported there, so that LMDB is open once per process."""


@dataclass(frozen=True, slots=True)
class Store:
    """An opened store: what the journal proved, and who writes from now on."""

    vfs: Vfs
    disk: Disk
    recovery: JournalRecovery
    indexes: Indexes


@dataclass(frozen=True, slots=True)
class World:
    """Where time, chance and disk come from."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    rng: Random
    limits: Limits
    server_limits: ServerLimits


class Server:
    """One NATS server. ``start`` returns when it serves; ``stop`` ends it cleanly."""

    def __init__(
        self, options: Options, world: World, store: Store | None, on_poison: Callable[[BaseException], None]
    ) -> None:
        """``store`` None: without JetStream. ``on_poison`` is called once if the disk fails: the process must end."""
        self.options = options
        self.world = world
        self.started_ns = world.clock.wall_ns()
        self.server_id = make_server_id(world.rng)
        self.server_name = options.server_name or self.server_id
        self.router = Router(ACCOUNT, Random(world.rng.random()), world.loop.call_soon)
        self.info = ServerInfo(
            server_id=self.server_id,
            server_name=self.server_name,
            version=NATS_VERSION,
            jetstore=jetstore.__version__,
            go=f"python{platform.python_version()}",
            host=options.host,
            port=options.port,
            max_payload=options.max_payload_bytes,
            jetstream=store is not None,
            api_lvl=API_LEVEL,
            cluster=options.cluster_name,
        )
        self.clients = ClientServer(
            net_options(options),
            self.info,
            authenticator(options),
            self.router,
            world.clock,
            Random(world.rng.random()),
            world.loop,
        )
        self.monitor: Monitor | None = None
        self.http_port = 0
        self.node: Node | None = None
        self.api: ApiHandler | None = None
        if store is not None:
            self.node = Node(
                NodeParts(
                    vfs=store.vfs,
                    disk=store.disk,
                    recovery=store.recovery,
                    indexes=store.indexes,
                    limits=world.limits,
                    clock=world.clock,
                    loop=world.loop,
                    outlet=self.router,
                    rng=Random(world.rng.random()),
                    on_poison=on_poison,
                )
            )
            self.streams = StreamsApi(self.node, world.server_limits)
            self.api = ApiHandler(
                self.streams,
                self.router,
                world.clock,
                Random(world.rng.random()),
                world.limits,
                server_name=self.server_name,
                client_info=self.client_info,
                server_limits=world.server_limits,
                is_strict=options.jetstream.is_strict,
            )

    async def start(self, host: str | None = None) -> int:
        """Open the store's streams, then listen; the port in use."""
        if self.node is not None and self.api is not None:
            await self.node.start()
            self.api.start()
        options = self.options
        self.info.port = await self.clients.start(options.host if host is None else host, options.port)
        if options.http_port:
            self.monitor = Monitor(self.monitor_source())
            self.http_port = await self.monitor.start(options.http_host or options.host, options.http_port)
        return self.info.port

    async def stop(self) -> None:
        """Take no more clients, answer what is due, make it durable, let the store go."""
        self.clients.stop_listening()
        if self.api is not None:
            await self.api.close()
        if self.node is not None:
            await self.node.stop()
        await self.clients.stop()
        if self.monitor is not None:
            await self.monitor.close()

    def monitor_source(self) -> MonitorSource:
        """What the monitoring pages read."""
        options, info = self.options, self.info
        facts = ServerFacts(
            server_id=self.server_id,
            server_name=self.server_name,
            version=info.version,
            jetstore=info.jetstore,
            go=info.go,
            host=options.host,
            port=info.port,
            cluster=options.cluster_name,
            max_connections=options.max_connections,
            ping_interval_ns=options.ping_interval_ns,
            ping_max=options.ping_max,
            http_host=options.http_host or options.host,
            http_port=options.http_port,
            http_base_path=options.http_base_path,
            auth_required=info.auth_required,
            auth_timeout_ns=options.authorization.timeout_ns,
            max_control_line=options.max_control_line_bytes,
            max_payload=options.max_payload_bytes,
            max_pending=options.max_pending_bytes,
            write_deadline_ns=options.write_deadline_ns,
            start_ns=self.started_ns,
            config_digest=options.config_digest,
        )
        node, api = self.node, self.api
        if node is None or api is None:
            return MonitorSource(facts, self.clients, self.router.sublist, self.world.clock.wall_ns)
        limits = self.world.server_limits
        return MonitorSource(
            facts,
            self.clients,
            self.router.sublist,
            self.world.clock.wall_ns,
            jetstream=self.streams,
            jetstream_facts=JetStreamFacts(
                limits.max_memory_bytes,
                limits.max_storage_bytes,
                options.jetstream.store_dir,
                options.jetstream.is_strict,
            ),
            api_stats=api.stats,
            engine=lambda: engine_counters(node),
            health_problem=node.health_problem,
        )

    def client_info(self, client: object) -> dict[str, object]:
        """The ``client`` object of advisories."""
        stats = getattr(client, "stats", None)
        if stats is None:
            return {}
        shown = stats()
        return {
            "host": shown.ip,
            "id": shown.cid,
            "acc": ACCOUNT,
            "name": shown.name,
            "lang": shown.lang,
            "ver": shown.version,
            "server": self.server_name,
        }


def engine_counters(node: Node) -> EngineCounters:
    """The engine's counters now."""
    commit, lag, status = node.commit, node.lag, node.commit.status
    return EngineCounters(
        journal_blocks=commit.blocks,
        journal_records=commit.records,
        journal_used_bytes=status.used_bytes if status else 0,
        journal_max_bytes=node.limits.journal_bytes_max,
        checkpoints=node.storage.checkpoints_total,
        accepts_publishes=node.admission() is None,
        publishes=sum(group.ingest.messages_total for group in node.streams.values()),
        publish_entries=sum(group.ingest.entries_total for group in node.streams.values()),
        sync_buckets_s=SYNC_BUCKETS_S,
        sync_histogram=commit.sync_histogram,
        sync_seconds_total=commit.sync_seconds_total,
        lag_buckets_s=BUCKETS_S,
        lag_histogram=lag.histogram,
        lag_seconds_total=lag.seconds_total,
    )


def make_server_id(rng: Random) -> str:
    """56 characters like a server's public nkey: N, then base32."""
    return "N" + base64.b32encode(rng.randbytes(35)).decode("ascii")[:55]


def authenticator(options: Options) -> Authenticator:
    """Who may connect."""
    given = options.authorization
    users = [PasswordUser(User(name=entry.user), entry.password) for entry in given.users]
    if given.user or given.password:
        users.append(PasswordUser(User(name=given.user), given.password))
    return Authenticator(token=given.token, users=users)


def net_options(options: Options) -> NetOptions:
    """What the options say about client connections."""
    return NetOptions(
        protocol=ProtocolOptions(
            max_payload_bytes=options.max_payload_bytes,
            max_control_line_bytes=options.max_control_line_bytes,
            ping_interval_s=options.ping_interval_ns / 1e9,
            ping_max=options.ping_max,
        ),
        max_connections=options.max_connections,
        max_pending_bytes=options.max_pending_bytes,
        write_deadline_s=options.write_deadline_ns / 1e9,
        auth_timeout_s=options.authorization.timeout_ns / 1e9,
    )


# -- the real world ---------------------------------------------------------------------------------------------------


def store_root(options: Options) -> Path:
    """The store's directory: ``<store_dir>/jetstore``."""
    return Path(options.jetstream.store_dir or default_store_dir()) / STORE_NAME


def default_store_dir() -> str:
    """A durable place: temporary directories are emptied."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(base) / "jetstore")


def make_store_root(root: Path) -> None:
    """The store's directory and its parents, their names durable."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    # Also when they exist: the start that made them may have been killed before its sync.
    for folder in sorted({*made, root, root.parent}, key=lambda folder: len(folder.parts)):
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            if folder in made:
                raise
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def lock_store(root: Path) -> DirectoryLock:
    """The store's lock. Raises StoreLocked if another server holds it for longer than a dying writer would."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOCK_WAIT_S
    while True:
        try:
            return DirectoryLock(root)
        except StoreLocked:
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(LOCK_RETRY_S)


async def open_real_store(options: Options, limits: Limits) -> tuple[Store, DirectoryLock]:
    """The real store: locked, its journal opened, its writer process running."""
    root = store_root(options)
    make_store_root(root)
    lock = await lock_store(root)
    vfs = OsVfs(root)
    journal, recovery, _ = open_store(vfs, limits, options.server_name, os.urandom)
    if journal.files.file_bytes < limits.journal_file_bytes:
        raise OperatingError(
            f"max_payload ({options.max_payload_bytes}) is more than this store's journal files of"
            f" {journal.files.file_bytes} bytes can hold: choose a smaller one or a new store"
        )
    indexes = LmdbIndexes(str(root))
    disk = await ProcessDisk.start(root, journal, limits, lock_fd=lock.fd, extensions=[INDEX_COMMANDS])
    return Store(vfs, disk, recovery, indexes), lock


def real_limits(options: Options, root: Path) -> Limits:
    """The options' bounds; journal files that hold the largest message, a disk reserve that a small disk has, too."""
    limits = options.limits()
    file_bytes = limits.journal_file_bytes
    while file_bytes < 2 * options.max_payload_bytes:
        file_bytes *= 2
    existing = root
    while not existing.exists():
        existing = existing.parent
    disk = os.statvfs(existing)
    reserve = min(limits.disk_reserve_bytes, disk.f_blocks * disk.f_frsize // 20)
    return replace(
        limits,
        journal_file_bytes=file_bytes,
        journal_bytes_max=max(limits.journal_bytes_max, 16 * file_bytes),
        disk_reserve_bytes=reserve,
        disk_resume_bytes=reserve + reserve // 4,
    )


async def serve(options: Options) -> int:
    """Run a server until it is told to stop; the process's exit code."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    def trapped(name: str) -> None:
        log.info(f'Trapped "{name}" signal')
        end(0)

    def unexpected(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # An error inside one connection ends that connection. Anywhere else nobody knows what was left half done, and
        # an engine in such a state must not answer: this is a kill, from which the store recovers.
        error = context.get("exception")
        text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
        if "protocol" in context or "transport" in context:
            log.error(f"unexpected error in a connection: {context.get('message')}\n{text}")
            return
        log.critical(f"unexpected error, this node stops: {context.get('message')}\n{text}")
        end(1)

    loop.set_exception_handler(unexpected)
    limits = real_limits(options, store_root(options))
    memory, storage = room(options)
    world = World(
        loop,
        RealClock(),
        Random(int.from_bytes(os.urandom(16))),
        limits,
        options.jetstream.server_limits(memory, storage),
    )
    store: Store | None = None
    lock: DirectoryLock | None = None
    if options.jetstream.enabled:
        store, lock = await open_real_store(options, limits)
    server = Server(options, world, store, on_poison=lambda error: end(1))
    for number, name in ((signal.SIGINT, "interrupt"), (signal.SIGTERM, "terminated")):
        loop.add_signal_handler(number, trapped, name)
    announce(server)
    tame_collector()
    starting = loop.create_task(server.start())
    await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
    if stop.done():
        # Told to stop, or poisoned, before it served: nothing was promised to anybody.
        return stop.result()
    await starting
    if options.http_port:
        log.info(f"Starting http monitor on {options.http_host or options.host}:{server.http_port}")
    log.info(f"Listening for client connections on {options.host}:{server.info.port}")
    ports_file: Path | None = None
    if options.ports_file_dir:
        listeners = {"nats": [f"nats://{options.host}:{server.info.port}"]}
        if options.http_port:
            listeners["monitoring"] = [f"http://{options.http_host or options.host}:{server.http_port}"]
        ports_file = write_ports_file(options.ports_file_dir, listeners)
    log.info("Server is ready")
    code = await stop
    if code:
        return code
    if ports_file is not None:
        ports_file.unlink(missing_ok=True)
    log.info("Initiating Shutdown...")
    await server.stop()
    if lock is not None:
        lock.close()
    log.info("Server Exiting..")
    return code


def tame_collector() -> None:
    """Keep the cyclic collector off the data path: what lives now lives long, and young garbage is nearly all acyclic.

    Collections of the oldest generation would take milliseconds per thousand streams; they become rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


def announce(server: Server) -> None:
    """The first log lines."""
    options = server.options
    log.info("Starting jetstore")
    log.info(f"  Version:  {jetstore.__version__} (NATS {NATS_VERSION})")
    if options.cluster_name:
        log.info(f"  Cluster:  {options.cluster_name}")
    log.info(f"  Name:     {server.server_name}")
    log.info(f"  ID:       {server.server_id}")
    if options.config_file:
        log.info(f"Using configuration file: {options.config_file} ({options.config_digest})")
    if server.node is not None:
        log.info("Starting JetStream")
        log.info(f"  Store Directory: {store_root(options)}")
        if options.jetstream.sync_interval:
            log.info("sync_interval changes nothing: every acknowledgement is durable")


def room(options: Options) -> tuple[int, int]:
    """Memory and storage in bytes that streams may reserve, defaults resolved."""
    memory, storage = options.jetstream.max_memory_bytes, options.jetstream.max_storage_bytes
    if memory < 0:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    if storage < 0:
        root = store_root(options)
        while not root.exists():
            root = root.parent
        free = os.statvfs(root)
        storage = free.f_bavail * free.f_frsize * 3 // 4
    return memory, storage


def run(options: Options) -> int:
    """Run a server in this process; its exit code. Errors at start are logged and end with 1."""
    try:
        try:
            import uvloop
        except ImportError:
            return asyncio.run(serve(options))
        return int(uvloop.run(serve(options)))
    except (JetstoreError, OSError) as error:
        log.critical(str(error))
        return 1
