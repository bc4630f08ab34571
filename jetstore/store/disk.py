"""The two disks: ``ProcessDisk`` (a writer process) and ``InlineDisk`` (on the loop; for the simulator and tests)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jetstore.errors import DiskFull, DiskPoisoned
from jetstore.limits import Limits
from jetstore.store import frames
from jetstore.store.journal.append import Journal
from jetstore.store.ports import JournalStatus, Record
from jetstore.store.writer import Writer
from jetstore.types import Buffer

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
SEND_BUFFERS_MAX = 512
"""Buffers per sendmsg call; the kernel's bound is 1024."""


class InlineDisk:
    """Runs the writer's commands on the loop, one at a time, each after ``latency(method, bytes)`` seconds.

    Journal blocks overtake other commands that have not begun. Idle blocks and zeroing run when nothing else does.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, writer: Writer, latency: Callable[[str, int], float] = lambda *_: 0.0
    ) -> None:
        self._loop = loop
        self._writer = writer
        self._latency = latency
        self._blocks: deque[tuple[str, tuple[Any, ...], asyncio.Future[Any]]] = deque()
        self._calls: deque[tuple[str, tuple[Any, ...], asyncio.Future[Any]]] = deque()
        self._running: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Of the command that is running, or else of the next piece of background work."""
        self._idle_block_due = 0.0
        self._is_zeroing_done = False
        self._closing: asyncio.Future[None] | None = None
        self.on_poison: Callable[[DiskPoisoned], None] | None = None
        self._plan_background()

    def append(self, records: Sequence[Record]) -> asyncio.Future[JournalStatus]:
        """See ``Disk.append``."""
        return self._submit(self._blocks, "append", (records,))

    def call(self, method: str, *args: Any) -> asyncio.Future[Any]:
        """See ``Disk.call``."""
        return self._submit(self._calls, method, args)

    def close(self) -> asyncio.Future[None]:
        """See ``Disk.close``."""
        if self._closing is None:
            self._closing = self._loop.create_future()
            self._next()
        return self._closing

    def abandon(self) -> None:
        """The machine is gone: nothing that was submitted happens any more and no future is ever done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._blocks.clear()
        self._calls.clear()
        self._running = self._loop.create_future()

    def _submit(
        self, queue: deque[tuple[str, tuple[Any, ...], asyncio.Future[Any]]], method: str, args: tuple[Any, ...]
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closing is not None:
            future.set_exception(DiskPoisoned("the store is closed"))
            return future
        queue.append((method, args, future))
        if self._running is None:
            self._next()
        return future

    def _next(self) -> None:
        if self._running is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue = self._blocks or self._calls
        if queue:
            method, args, future = queue.popleft()
            self._running = future
            size = _size_of(method, args)
            self._timer = self._loop.call_later(self._latency(method, size), self._run, method, args, future)
        elif self._closing is not None:
            if not self._closing.done():
                try:
                    self._writer.close()
                except DiskPoisoned as error:
                    self._closing.set_exception(error)
                else:
                    self._closing.set_result(None)
        else:
            self._plan_background()

    def _run(self, method: str, args: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        self._timer = None
        try:
            value = self._writer.execute(method, args)
            if method == "append":
                self._writer.keep_up()
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to whoever waits for the command
            if not future.done():
                future.set_exception(error)
            if isinstance(error, DiskPoisoned):
                self._note_poison(error)
        else:
            if not future.done():
                future.set_result(value)
        self._is_zeroing_done = False
        if method == "append":
            self._idle_block_due = self._loop.time() + self._writer.limits.idle_block_ms / 1000
        self._running = None
        self._next()

    def _plan_background(self) -> None:
        if self._writer.poison is not None:
            return
        now = self._loop.time()
        if not self._is_zeroing_done:
            self._timer = self._loop.call_later(self._latency("zeroing", 0), self._background, False)
        elif self._writer.journal.wants_idle_block:
            self._timer = self._loop.call_later(max(0.0, self._idle_block_due - now), self._background, True)

    def _background(self, is_idle_block: bool) -> None:
        self._timer = None
        try:
            if is_idle_block:
                self._writer.idle_block()
                self._idle_block_due = self._loop.time() + self._writer.limits.idle_block_ms / 1000
                self._is_zeroing_done = False
            else:
                self._is_zeroing_done = not self._writer.idle()
        except DiskPoisoned as error:
            self._note_poison(error)
            return
        self._next()

    def _note_poison(self, error: DiskPoisoned) -> None:
        callback, self.on_poison = self.on_poison, None
        if callback is not None:
            callback(error)


class ProcessDisk:
    """Hands commands to a writer process (``writer_process.py``). Its death, or any failure it reports, is final."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Made by ``start``."""
        self._loop = loop
        self._sock = sock
        self._process = process
        self._decoder = frames.Decoder()
        self._next_number = 1
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._unsent: deque[Buffer] = deque()
        self._is_writing = False
        self._hello: asyncio.Future[None] = loop.create_future()
        self._closing: asyncio.Future[None] | None = None
        self.poison: DiskPoisoned | None = None
        self.on_poison: Callable[[DiskPoisoned], None] | None = None
        self.pid = process.pid
        loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def start(
        cls,
        root: str | Path,
        journal: Journal,
        limits: Limits,
        *,
        process: WriterProcess | None = None,
        extensions: Sequence[str] = (),
    ) -> ProcessDisk:
        """A running writer that took the journal over (``journal`` is detached and must not be used any more).

        ``process`` was spawned before (``spawn_writer``), else it is now. ``extensions`` are ``module:function`` names
        of factories (root, limits) → commands by name, imported in the writer.
        DiskPoisoned if it does not come up.
        """
        loop = asyncio.get_running_loop()
        process = process or spawn_writer()
        disk = cls(loop, process.sock, process.process)
        keys = journal.vfs.keys
        state = journal.detach()
        disk._send(frames.encode((0, "hello", (str(root), limits, state, list(extensions), keys))))
        await disk._hello
        return disk

    def append(self, records: Sequence[Record]) -> asyncio.Future[JournalStatus]:
        """See ``Disk.append``."""
        number, future = self._expect()
        if number:
            self._send(frames.encode_append(number, records))
        return future

    def call(self, method: str, *args: Any) -> asyncio.Future[Any]:
        """See ``Disk.call``."""
        number, future = self._expect()
        if number:
            self._send(frames.encode_call(number, method, args))
        return future

    def close(self) -> asyncio.Future[None]:
        """See ``Disk.close``."""
        if self._closing is None:
            self._closing = self._loop.create_future()
            if self.poison is not None:
                self._closing.set_result(None)
            else:
                self._send(frames.encode((0, "close", ())))
        return self._closing

    # -- inside -----------------------------------------------------------------------------------------------------

    def _expect(self) -> tuple[int, asyncio.Future[Any]]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.poison is not None or self._closing is not None:
            future.set_exception(self.poison or DiskPoisoned("the store is closed"))
            return 0, future
        number = self._next_number
        self._next_number += 1
        self._waiting[number] = future
        return number, future

    def _send(self, buffers: Sequence[Buffer]) -> None:
        self._unsent.extend(buffer for buffer in buffers if len(buffer))
        if not self._is_writing:
            self._writable()

    def _writable(self) -> None:
        unsent = self._unsent
        try:
            while unsent:
                batch = [unsent[i] for i in range(min(len(unsent), SEND_BUFFERS_MAX))]
                sent = self._sock.sendmsg(batch)
                while sent:
                    first = unsent.popleft()
                    if sent < len(first):
                        unsent.appendleft(memoryview(first)[sent:])
                        break
                    sent -= len(first)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(DiskPoisoned(f"the writer process is gone: {error}"))
            return
        if bool(unsent) != self._is_writing:
            self._is_writing = bool(unsent)
            if unsent:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            else:
                self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            count = self._sock.recv_into(self._decoder.space())
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(DiskPoisoned(f"the writer process is gone: {error}"))
            return
        if count == 0:
            self._fail(DiskPoisoned("the writer process is gone"))
            return
        self._decoder.filled(count)
        while (message := self._decoder.take()) is not None:
            self._answered(*message[0])

    def _answered(self, number: int, outcome: str, value: Any) -> None:
        if outcome == "poisoned":
            self._fail(DiskPoisoned(value))
            return
        if number == 0:
            if not self._hello.done():
                self._hello.set_result(None)
            elif self._closing is not None and not self._closing.done():
                self._release()
                self._closing.set_result(None)
            return
        future = self._waiting.pop(number)
        if future.done():
            return
        if outcome == "ok":
            future.set_result(value)
        else:
            future.set_exception(DiskFull(value) if outcome == "full" else value)

    def _fail(self, error: DiskPoisoned) -> None:
        """Final: everything submitted and everything to come fails."""
        if self.poison is not None:
            return
        self.poison = error
        self._release()
        waiting, self._waiting = self._waiting, {}
        for future in [*waiting.values(), self._hello]:
            if not future.done():
                future.set_exception(error)
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
        if self.on_poison is not None:
            self.on_poison(error)

    def _release(self) -> None:
        """Close our end (the writer ends when it notices) and reap the process."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        self._unsent.clear()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=REAP_S)


LARGE_BUFFERS = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
"""glibc maps and unmaps every large buffer anew, and each of its pages faults again; so it keeps them instead (a third
more throughput with 1 MiB messages). Other libraries ignore these variables."""


class WriterProcess(NamedTuple):
    """A writer that waits for its journal, and our end of the socket pair."""

    sock: socket.socket
    process: subprocess.Popen[bytes]

    def abandon(self) -> None:
        """It is not needed: it ends, and holds no lock, when this returns."""
        self.sock.close()
        self.process.wait()


def spawn_writer(lock_fd: int = -1) -> WriterProcess:
    """A writer process, while it begins to run. ``lock_fd`` is the descriptor of ``DirectoryLock``, which it inherits.

    Takes a few milliseconds here, and a hundred until it is up: spawn it first, then prepare what it is to take over.
    """
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    ours.setblocking(False)
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH", ""))))
    inherited = [theirs.fileno()] + ([lock_fd] if lock_fd >= 0 else [])
    process = subprocess.Popen(
        [sys.executable, "-m", "jetstore.store.writer_process", str(theirs.fileno())],
        pass_fds=inherited,
        stdin=subprocess.DEVNULL,
        env={**LARGE_BUFFERS, **os.environ, "PYTHONPATH": path},
    )
    theirs.close()
    return WriterProcess(ours, process)


REAP_S = 2.0
"""How long a writer that was told to end may take (it ends at once, unless it is inside a write)."""


def _size_of(method: str, args: tuple[Any, ...]) -> int:
    if method == "append":
        return sum(len(record.body) for record in args[0])
    if method == "write_segment":
        return sum(map(len, args[2]))
    return 0
