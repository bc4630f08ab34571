"""The real world around a server: lock, writer process, signals, log lines, exit code.

The only file that reads the environment and the machine. ``server/app.py`` builds the object graph; the simulator uses
that without this.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

import jetstore
from jetstore.clock import RealClock
from jetstore.errors import JetstoreError, OperatingError, StoreLocked
from jetstore.limits import Limits
from jetstore.model.levels import NATS_VERSION
from jetstore.node.open_store import check_mode, open_store
from jetstore.store.disk import ProcessDisk, WriterProcess, spawn_writer
from jetstore.store.held_index import HeldIndexes
from jetstore.store.identity import Identity
from jetstore.store.index import LmdbIndexes
from jetstore.store.journal.append import Journal
from jetstore.store.lock import DirectoryLock
from jetstore.store.os_vfs import OsVfs
from jetstore.store.ports import JournalRecovery
from server.config.options import Options
from server.loading import loading

if TYPE_CHECKING:
    from jetstore.node.cluster import ClusterOptions
    from jetstore.node.opening import Indexes
    from server.app import Server, Store
    from server.operation import Operation
    from server.surroundings import Surroundings

log = structlog.get_logger("server")

LOCK_WAIT_S = 30.0
"""After kill -9 the old writer process may still be inside a write: how long a start waits for it."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's names for mallopt."""
COLLECT_PERIOD_S = 30.0
LOCK_RETRY_S = 0.02
STORE_NAME = "jetstore"
INDEX_COMMANDS = "jetstore.store.index:writer_commands"
"""What the writer process adds to its commands; imported there, so that LMDB is open once per process."""
HELD_INDEX_COMMANDS = "jetstore.store.held_index:writer_commands"
"""The same for an encrypted store."""


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


async def start_writer(options: Options) -> tuple[DirectoryLock, WriterProcess]:
    """The store, locked, and a writer process that begins to run meanwhile."""
    root = store_root(options)
    make_store_root(root)
    lock = await lock_store(root)
    return lock, spawn_writer(lock.fd)


class OpenedStore(NamedTuple):
    """A store whose journal was read, or made; nobody writes it yet."""

    vfs: OsVfs
    journal: Journal
    recovery: JournalRecovery
    identity: Identity


def open_real_store(options: Options, limits: Limits) -> OpenedStore:
    """The real store, locked before."""
    vfs = OsVfs(store_root(options))
    encryption = options.jetstream.encryption
    journal, recovery, identity = open_store(vfs, limits, options.server_name, os.urandom, encryption)
    check_mode(identity, recovery, is_clustered=options.cluster.port != 0)
    if journal.files.file_bytes < limits.journal_file_bytes:
        raise OperatingError(
            f"max_payload ({options.max_payload_bytes}) is more than this store's journal files of"
            f" {journal.files.file_bytes} bytes can hold: choose a smaller one or a new store"
        )
    return OpenedStore(vfs, journal, recovery, identity)


async def hand_over(
    options: Options, limits: Limits, opened: OpenedStore, writer: WriterProcess
) -> tuple[Store, ProcessDisk]:
    """The store, its journal in the writer process from now on."""
    from server.app import Store

    vfs, journal, recovery, identity = opened
    root = store_root(options)
    indexes: Indexes = LmdbIndexes(str(root)) if vfs.keys is None else HeldIndexes()
    commands = INDEX_COMMANDS if vfs.keys is None else HELD_INDEX_COMMANDS
    journal_lsn = journal.position.lsn
    disk = await ProcessDisk.start(root, journal, limits, process=writer, extensions=[commands])
    cluster = None
    if options.cluster.port:
        from jetstore.node.cluster import Cluster  # with all that it needs, a tenth of the start-up time

        cluster = Cluster(
            cluster_options(options),
            identity,
            vfs=vfs,
            limits=limits,
            loop=asyncio.get_running_loop(),
            rng=Random(int.from_bytes(os.urandom(16))),
            journal_lsn=journal_lsn,
            heard=recovery.peers,
        )
    return Store(vfs, disk, recovery, indexes, cluster), disk


def cluster_options(options: Options) -> ClusterOptions:
    """What the node needs of the ``cluster`` block."""
    from jetstore.node.cluster import ClusterOptions
    from jetstore.node.link.ports import Route

    given = options.cluster
    return ClusterOptions(
        name=options.cluster_name,
        host=given.host,
        port=given.port,
        routes=tuple(Route(each.host, each.port, each.user, each.password) for each in given.others),
        advertise=given.advertise,
        user=given.user,
        password=given.password,
    )


RESERVE_JOURNAL_FILES = 4
"""The least reserve, in journal files."""


def real_limits(options: Options, root: Path) -> Limits:
    """The options' bounds; a disk reserve that a small disk has, too."""
    limits = options.limits()
    file_bytes = limits.journal_file_bytes
    existing = root
    while not existing.exists():
        existing = existing.parent
    disk = os.statvfs(existing)
    # Never less than what is written without being asked: journal files made ahead, and a checkpoint that makes room.
    share = max(disk.f_blocks * disk.f_frsize // 20, RESERVE_JOURNAL_FILES * file_bytes)
    reserve = min(limits.disk_reserve_bytes, share)
    return replace(
        limits,
        disk_reserve_bytes=reserve,
        disk_resume_bytes=reserve + reserve // 4,
    )


async def serve(options: Options, around: Surroundings) -> int:
    """Run a server until it is told to stop; the process's exit code."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

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
    lock: DirectoryLock | None = None
    if options.jetstream.enabled:
        lock, writer = await start_writer(options)
        opening = loop.run_in_executor(None, open_real_store, options, limits)
    # Most of the start-up time: the writer process gets ready meanwhile, and the disk has its time, too.
    with loading():
        from server.app import Server, World
        from server.operation import Operation

    world = World(
        loop,
        RealClock(),
        Random(int.from_bytes(os.urandom(16))),
        limits,
        options.jetstream.server_limits(memory, storage, replicas_max=len(options.cluster.others) + 1),
        os.urandom,
    )
    store: Store | None = None
    if options.jetstream.enabled:
        try:
            store, disk = await hand_over(options, limits, await opening, writer)
        except BaseException:
            writer.abandon()
            raise
    server = Server(options, world, store, on_poison=lambda error: end(1))
    if server.node is not None:
        disk.on_poison = server.node.fail  # also when the writer dies while nothing waits for it
    operation = Operation(server, around)
    listen_to_signals(operation, end)
    announce(server)
    keep_large_buffers()
    tame_collector()
    starting = loop.create_task(server.start())
    await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
    if stop.done():
        # Told to stop, or poisoned, before it served: nothing was promised to anybody.
        return stop.result()
    await starting
    if server.monitor is not None:
        scheme = "https" if options.https_port else "http"
        log.info(f"Starting {scheme} monitor on {options.http_host or options.host}:{server.http_port}")
    log.info(f"Listening for client connections on {options.host}:{server.port}")
    if store is not None and store.cluster is not None:
        log.info(f"Listening for route connections on {options.cluster.host}:{store.cluster.port}")
    operation.write_ports()
    log.info("Server is ready")
    collect_when_idle(server)
    code = await stop
    if code:
        return code
    operation.remove_ports()
    log.info("Initiating Shutdown...")
    await server.stop()
    if lock is not None:
        lock.close()
    log.info("Server Exiting..")
    return code


def listen_to_signals(operation: Operation, end: Callable[[int], None]) -> None:
    """Signals do what ``docs/operations/running.md`` says; ``end`` stops the server with an exit code."""
    loop, rng = operation.server.world.loop, Random(int.from_bytes(os.urandom(16)))
    leaving: list[asyncio.Task[None]] = []

    def stop() -> None:
        end(0)

    def stop_gently() -> None:
        if not operation.is_lame_duck:  # else it is leaving already
            end(0)

    def gone(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                log.error(f"lame duck mode failed: {error!r}")
            end(0)

    def go_lame() -> None:
        if not operation.is_lame_duck:
            leaving.append(loop.create_task(operation.lame_duck(rng)))
            leaving[0].add_done_callback(gone)

    def reload() -> None:
        operation.reload()

    for number, name, act in (
        (signal.SIGINT, "interrupt", stop),
        (signal.SIGTERM, "terminated", stop_gently),
        (signal.SIGHUP, "hangup", reload),
        (signal.SIGUSR1, "user defined signal 1", operation.reopen_log),
        (signal.SIGUSR2, "user defined signal 2", go_lame),
    ):

        def trapped(name: str = name, act: Callable[[], None] = act) -> None:
            log.info(f'Trapped "{name}" signal')
            act()

        loop.add_signal_handler(number, trapped)


def keep_large_buffers() -> None:
    """Have the C library keep freed buffers of the size of messages and reads (``store/disk.py`` says why)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # no glibc: nothing to tell
    mallopt(M_MMAP_THRESHOLD, 64 << 20)
    mallopt(M_TRIM_THRESHOLD, 128 << 20)


def tame_collector() -> None:
    """Keep the cyclic collector off the data path: what lives now lives long, and young garbage is nearly all acyclic.

    Collections of the oldest generation would take milliseconds per thousand streams; they become rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


def collect_when_idle(server: Server, seen: tuple[int, int] = (-1, -1)) -> None:
    """Collect cyclic garbage whenever a whole period has brought no message, so that nobody waits for it."""
    traffic = server.clients.traffic()
    now = (traffic.in_msgs, traffic.out_msgs)
    if now == seen:
        gc.collect()
    server.world.loop.call_later(COLLECT_PERIOD_S, collect_when_idle, server, now)


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
        if server.node.parts.vfs.keys is not None:
            log.info(f"  Encryption:      {server.node.parts.vfs.keys.cipher_name}")
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


def run(options: Options, around: Surroundings) -> int:
    """Run a server in this process; its exit code. Errors at start are logged and end with 1."""
    try:
        try:
            import uvloop
        except ImportError:
            return asyncio.run(serve(options, around))
        return int(uvloop.run(serve(options, around)))
    except (JetstoreError, OSError) as error:
        log.critical(str(error))
        return 1
