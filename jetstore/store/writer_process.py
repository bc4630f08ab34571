"""The writer process: durable writes where neither the event loop nor its GIL can be in the way.

``python -m jetstore.store.writer_process FD`` with one end of a socket pair. First message: the root directory, limits,
the open journal's state and the extension commands; then commands, answered in the order they finish as
``(number, "ok" | "full" | "refused" | "poisoned", value)``. Journal blocks go first; other commands keep their order.
It ends when the socket closes. Having nothing to do for a moment, it prepares journal files; 20 ms after the last block
with lines it writes the idle block. It inherits the LOCK descriptor: the store is free only when it is gone too.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import sys
import time
from collections import deque
from typing import Any

from jetstore.errors import DiskFull, DiskPoisoned, JetstoreError
from jetstore.store import frames
from jetstore.store.journal.append import Journal
from jetstore.store.os_vfs import OsVfs
from jetstore.store.writer import Command, Writer

QUIET_S = 0.005
"""Without a command for so long, the disk is free for background work."""


def extension_commands(names: list[str], root: str, limits: Any) -> dict[str, Command]:
    """The commands that ``module:function`` factories give, called with (root, limits)."""
    commands: dict[str, Command] = {}
    for name in names:
        module, _, function = name.partition(":")
        commands.update(getattr(importlib.import_module(module), function)(root, limits))
    return commands


class _Serving:
    """The loop of the process."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = frames.Decoder()
        self.blocks: deque[tuple[int, Any]] = deque()
        self.calls: deque[tuple[int, str, list[Any]]] = deque()
        self.is_closing = False
        self.idle_block_s = 0.0
        self.idle_block_at = 0.0
        """When the idle block is due (monotonic seconds); 0 = not owed."""
        self.quiet_at = time.monotonic()
        """From when on files are prepared in the background; 0 = there is nothing to prepare."""
        self.writer: Writer | None = None

    def run(self) -> None:
        hello = None
        while hello is None:
            if not self._receive(None):
                return
            hello = self.decoder.take()
        (_, _, (root, limits, state, extensions)), _ = hello
        vfs = OsVfs(root)
        journal = Journal(vfs, limits, *state)
        self.writer = writer = Writer(vfs, journal, limits, extension_commands(extensions, root, limits))
        self._answer(0, "ok", os.getpid())
        self.idle_block_s = limits.idle_block_ms / 1000
        self._owe_idle_block()
        while True:
            busy = bool(self.blocks or self.calls)
            if self.is_closing and not busy:
                writer.close()
                self._answer(0, "ok", None)
                return
            if not self._receive(0.0 if busy else self._patience()):
                return
            self._take_messages()
            if self.blocks:
                number, records = self.blocks.popleft()
                self._execute(number, "append", [records])
                self._background(writer.keep_up)
                self._owe_idle_block()
            elif self.calls:
                self._execute(*self.calls.popleft())
            else:
                self._use_quiet_moment()
                continue
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
        assert self.writer is not None
        now = time.monotonic()
        if self.idle_block_at and now >= self.idle_block_at:
            self._background(self.writer.idle_block)
            self._owe_idle_block()
            self.quiet_at = now
        elif self.quiet_at and now >= self.quiet_at and not self._background(self.writer.idle):
            self.quiet_at = 0.0

    def _take_messages(self) -> None:
        while (message := self.decoder.take()) is not None:
            (number, method, args), buffers = message
            if method == "append":
                self.blocks.append((number, frames.records_of(args, buffers)))
            elif method == "close":
                self.is_closing = True
            else:
                self.calls.append((number, method, frames.args_of(args, buffers)))

    def _execute(self, number: int, method: str, args: list[Any]) -> None:
        assert self.writer is not None
        try:
            value = self.writer.execute(method, args)
        except DiskFull as error:
            self._answer(number, "full", str(error))
        except DiskPoisoned as error:
            self._answer(number, "poisoned", str(error))
        except JetstoreError as error:
            self._answer(number, "refused", error)
        else:
            self._answer(number, "ok", value)

    def _background(self, action: Command) -> Any:
        try:
            return action()
        except DiskPoisoned as error:
            self._answer(0, "poisoned", str(error))
            return False

    def _answer(self, number: int, outcome: str, value: Any) -> None:
        for buffer in frames.encode((number, outcome, value)):
            self.sock.sendall(buffer)

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
