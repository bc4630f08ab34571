"""The writer process: durable writes where neither the event loop nor its GIL can be in the way.

``python -m jetstore.store.writer_process FD`` with one end of a socket pair. First message: the root directory, limits,
the open journal's state and the extension commands; then commands, answered as they finish with
``(number, "ok" | "full" | "refused" | "poisoned", value)``. It ends when the socket closes. It inherits the LOCK
descriptor: the store is free only when it is gone too.

The main thread has the journal and the socket; a second one runs all other commands in their order, each not before
the journal blocks that were submitted earlier are durable. So a long segment sync or index commit never delays a block
(system calls give the GIL up). Having nothing to do for a moment, the main thread prepares journal files; 20 ms after
the last block with lines it writes the idle block.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from jetstore.errors import DiskFull, DiskPoisoned, JetstoreError
from jetstore.limits import MIB
from jetstore.store import frames
from jetstore.store.journal.append import Journal
from jetstore.store.os_vfs import OsVfs
from jetstore.store.ports import JournalStatus
from jetstore.store.writer import JOURNAL_METHODS, Command, Writer
from jetstore.types import Buffer

QUIET_S = 0.005
"""Without a command for so long, the disk is free for background work."""
QUIET_STEP_BYTES = MIB
"""Zeroed per step of background work: a block that comes meanwhile waits for one such step."""
SWITCH_INTERVAL_S = 0.0005
"""How long the second thread may keep the GIL when a block waits for it."""


def extension_commands(names: list[str], root: str, limits: Any) -> dict[str, Command]:
    """The commands that ``module:function`` factories give, called with (root, limits)."""
    commands: dict[str, Command] = {}
    for name in names:
        module, _, function = name.partition(":")
        commands.update(getattr(importlib.import_module(module), function)(root, limits))
    return commands


class TimedVfs(OsVfs):
    """The journal's files. ``sync_ns``: how long the last write and its sync took."""

    _began_ns = 0
    sync_ns = 0

    def pwrite(self, handle: int, buffers: Sequence[Buffer], offset: int) -> None:
        self._began_ns = time.perf_counter_ns()
        super().pwrite(handle, buffers, offset)

    def fdatasync(self, handle: int) -> None:
        super().fdatasync(handle)
        self.sync_ns = time.perf_counter_ns() - self._began_ns


class _Answers:
    """Our end of the socket, for answers of both threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def send(self, number: int, outcome: str, value: Any) -> None:
        """Answer a message; number 0 is for what nobody asked."""
        buffers = frames.encode((number, outcome, value))
        with self._lock:
            for buffer in buffers:
                self._sock.sendall(buffer)

    def send_status(self, number: int, status: JournalStatus, sync_ns: int) -> None:
        """A journal block is durable."""
        answer = frames.encode_status(number, status, sync_ns)
        with self._lock:
            self._sock.sendall(answer)

    def execute(self, writer: Writer, number: int, method: str, args: list[Any]) -> None:
        """Run a command and answer it."""
        try:
            value = writer.execute(method, args)
        except DiskFull as error:
            self.send(number, "full", str(error))
        except DiskPoisoned as error:
            self.send(number, "poisoned", str(error))
        except JetstoreError as error:
            self.send(number, "refused", error)
        else:
            if type(value) is JournalStatus:
                assert isinstance(writer.journal.vfs, TimedVfs)
                self.send_status(number, value, writer.journal.vfs.sync_ns)
            else:
                self.send(number, "ok", value)


class _Calls:
    """The second thread: commands that are not the journal's, in their order."""

    def __init__(self, writer: Writer, answers: _Answers) -> None:
        self._writer = writer
        self._answers = answers
        self._queue: deque[tuple[int, int, str, list[Any]]] = deque()
        self._changed = threading.Condition()
        self._blocks_done = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="calls", daemon=True)
        self._thread.start()

    def submit(self, after_block: int, number: int, method: str, args: list[Any]) -> None:
        """Run this after everything submitted before, and after that many journal blocks."""
        with self._changed:
            self._queue.append((after_block, number, method, args))
            self._changed.notify()

    def blocks_done(self, count: int) -> None:
        """So many journal blocks are durable."""
        self._blocks_done = count
        if self._queue:
            with self._changed:
                self._changed.notify()

    def close(self) -> None:
        """Return when everything submitted is done."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (call := self._next()) is not None:
                self._answers.execute(self._writer, *call)
        except OSError:
            pass  # the socket is gone, and with it whoever would hear of it: the main thread ends the process

    def _next(self) -> tuple[int, str, list[Any]] | None:
        with self._changed:
            while True:
                if self._queue and self._queue[0][0] <= self._blocks_done:
                    return self._queue.popleft()[1:]
                if self._is_closing and not self._queue:
                    return None
                self._changed.wait()


class _Serving:
    """The main thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answers = _Answers(sock)
        self.decoder = frames.Decoder()
        self.commands: deque[tuple[int, str, list[Any]]] = deque()
        """Of the journal, not yet run."""
        self.received = 0
        """Journal commands that came, ever; and of them the finished ones."""
        self.done = 0
        self.is_closing = False
        self.idle_block_s = 0.0
        self.idle_block_at = 0.0
        """When the idle block is due (monotonic seconds); 0 = not owed."""
        self.quiet_at = time.monotonic()
        """From when on files are prepared in the background; 0 = there is nothing to prepare."""
        self.writer: Writer | None = None
        self.calls: _Calls | None = None

    def run(self) -> None:
        hello = None
        while hello is None:
            if not self._receive(None):
                return
            hello = self.decoder.take()
        (_, _, (root, limits, state, extensions, keys)), _ = hello
        vfs, journals = OsVfs(root), TimedVfs(root)
        vfs.keys = journals.keys = keys
        journal = Journal(journals, limits, *state)
        self.writer = writer = Writer(vfs, journal, limits, extension_commands(extensions, root, limits))
        self.calls = _Calls(writer, self.answers)
        self.answers.send(0, "ok", os.getpid())
        self.idle_block_s = limits.idle_block_ms / 1000
        self._owe_idle_block()
        while True:
            if self.is_closing and not self.commands:
                self.calls.close()
                writer.close()
                self.answers.send(0, "ok", None)
                return
            if not self._receive(0.0 if self.commands else self._patience()):
                return
            self._take_messages()
            if not self.commands:
                self._use_quiet_moment()
                continue
            self.answers.execute(writer, *self.commands.popleft())
            self.done += 1
            self.calls.blocks_done(self.done)
            self._background(writer.keep_up)
            self._owe_idle_block()
            self.quiet_at = time.monotonic() + QUIET_S

    def _patience(self) -> float | None:
        """How long to wait for a message before there is something else to do; None = for ever."""
        due = [at for at in (self.idle_block_at, self.quiet_at) if at]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _owe_idle_block(self) -> None:
        assert self.writer is not None
        owed = self.writer.journal.wants_idle_block
        self.idle_block_at = time.monotonic() + self.idle_block_s if owed else 0.0

    def _use_quiet_moment(self) -> None:
        """Nothing came in time: write the idle block, or prepare files as long as there are any to prepare."""
        writer = self.writer
        assert writer is not None
        now = time.monotonic()
        if self.idle_block_at and now >= self.idle_block_at:
            self._background(writer.idle_block)
            self._owe_idle_block()
            self.quiet_at = now
        elif self.quiet_at and now >= self.quiet_at and not self._background(lambda: writer.idle(QUIET_STEP_BYTES)):
            self.quiet_at = 0.0

    def _take_messages(self) -> None:
        assert self.calls is not None
        while (message := self.decoder.take()) is not None:
            (number, method, args), buffers = message
            if method == "append":
                self.commands.append((number, method, [frames.records_of(args, buffers)]))
            elif method in JOURNAL_METHODS:
                self.commands.append((number, method, frames.args_of(args, buffers)))
            elif method == "close":
                self.is_closing = True
                continue
            else:
                self.calls.submit(self.received, number, method, frames.args_of(args, buffers))
                continue
            self.received += 1

    def _background(self, action: Command) -> Any:
        try:
            return action()
        except DiskPoisoned as error:
            self.answers.send(0, "poisoned", str(error))
            return False

    def _receive(self, timeout: float | None) -> bool:
        """Take what has come, waiting at most ``timeout`` seconds for the first byte; False at the end."""
        if timeout is not None and not select.select([self.sock], [], [], timeout)[0]:
            return True
        while True:
            space = self.decoder.space()
            count = self.sock.recv_into(space)
            if count == 0:
                return False
            self.decoder.filled(count)
            if count < len(space) or not select.select([self.sock], [], [], 0)[0]:
                return True


def main() -> None:
    """Serve until the socket closes."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(True)
    try:
        _Serving(sock).run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server is gone: so is whoever would hear of it
    # No interpreter shutdown: LOCK must not be held a moment longer than needed.
    os._exit(0)


if __name__ == "__main__":
    main()
