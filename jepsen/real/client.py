"""The publishing load: asyncio protocols that keep a window of publishes open and remember every answer.

Made for one process of its own (``load.py``). Per message it costs about 0.3 µs: publishes come from prepared blocks
(``values.py``), answers are only counted while the load runs, and their text is kept and parsed afterwards. Each
publish has a reply subject of its own below one wildcard subscription, as every NATS client library does it.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast

from .control import CONNECT, INFO_LINE
from .values import BLOCK, Blocks, parse_acks

C = TypeVar("C", bound="Connection")
_NUMBERS = re.compile(rb"MSG \S+\.(\d{12}) ")


class Connection(asyncio.Protocol):
    """A NATS connection that hands whole lines to ``on_lines``. Only for payloads without line ends.

    ``ready`` is done when the server answered the first PING, ``closed`` when the connection is gone.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.errors: list[str] = []
        self._rest = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclass of asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=4 << 20)
        self.transport.write(CONNECT + self.greeting() + b"PING\r\n")

    def greeting(self) -> bytes:
        """Subscriptions to send right after CONNECT."""
        return b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("closed before the first PONG"))
            self.ready.exception()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        cut = data.rfind(b"\n") + 1
        self._rest = data[cut:] if cut != len(data) else b""
        if not cut:
            return
        if self._rest:
            data = data[:cut]
        if not self.ready.done():
            if b"PONG\r\n" in data:
                self.ready.set_result(None)
            return
        if b"PING\r\n" in data:
            self.transport.write(b"PONG\r\n")
            data = data.replace(b"PING\r\n", b"")
        if b"-ERR" in data:
            at = data.index(b"-ERR")
            self.errors.append(data[at : data.index(b"\r", at)].decode(errors="replace"))
        if b"INFO {" in data:
            data = INFO_LINE.sub(b"", data)
        self.on_lines(data)

    def on_lines(self, lines: bytes) -> None:
        """Complete lines; the last message's payload may still be missing."""


class Writing(Connection, ABC):
    """Writes as long as there is something to write and the transport takes it."""

    def __init__(self) -> None:
        super().__init__()
        self._is_paused = False
        self._is_filling = False

    def start(self) -> None:
        """Begin; returns at once."""
        self._fill()

    @abstractmethod
    def next_part(self) -> bytes:
        """What is to be written now; empty = nothing for the time being."""

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._fill()

    def _fill(self) -> None:
        # A write may pause and resume the transport inside itself; the outer call goes on filling then.
        if self._is_filling:
            return
        self._is_filling = True
        while not self._is_paused and (data := self.next_part()):
            self.transport.write(data)
        self._is_filling = False


class Publisher(Writing):
    """Publishes ``total`` messages with at most ``window`` unanswered; ``done`` when all are answered.

    ``sent`` and ``answered`` count; ``acks()`` afterwards gives what was acknowledged. After the connection is lost
    ``done`` is set too: what has no answer then has an unknown outcome.
    """

    def __init__(
        self, subjects: Sequence[str], *, tag: int, total: int, window: int, size: int = 128, step: int = 0
    ) -> None:
        super().__init__()
        self._inbox = b"_INBOX.p%08d" % tag
        self._blocks = Blocks(subjects, self._inbox, tag, size)
        self.tag = tag
        self.total = total
        self.window = window
        self.step = step or max(1, min(500, window // 4))
        self.sent = 0
        self.answered = 0
        self.began = 0.0
        self.ended = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines = 0
        self._raw: list[bytes] = []

    def greeting(self) -> bytes:
        return b"SUB %b.* 1\r\n" % self._inbox

    def start(self) -> None:
        self.began = self.ended = time.perf_counter()
        super().start()

    def stop(self) -> None:
        """Publish no more; ``done`` comes when everything sent is answered."""
        self.total = self.sent
        self._finish_if_complete()

    def next_part(self) -> bytes:
        wanted = min(self.step, self.total - self.sent, BLOCK - self.sent % BLOCK)
        if wanted <= 0 or self.sent + wanted - self.answered > self.window:
            return b""
        self.sent += wanted
        return self._blocks.part(self.sent - wanted, wanted)

    def on_lines(self, lines: bytes) -> None:
        self._raw.append(lines)
        if b"HMSG" in lines:
            self.errors.append(f"status: {lines[lines.index(b'HMSG') :][:80]!r}")
            self.transport.abort()
            return
        # An answer is two lines, and neither its header nor its JSON holds a line end.
        self._lines += lines.count(b"\n")
        self.answered = self._lines >> 1
        self.ended = time.perf_counter()
        self._fill()
        self._finish_if_complete()

    def _finish_if_complete(self) -> None:
        if self.answered >= self.total and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.done.done():
            self.done.set_result(None)

    def acks(self) -> tuple[array[int], array[int]]:
        """(numbers, sequences) of everything acknowledged, in order of arrival."""
        return parse_acks(b"".join(self._raw))

    def refusals(self) -> list[bytes]:
        """The error answers among the PubAcks."""
        return [line for line in b"".join(self._raw).split(b"\r\n") if b'"error"' in line]


class OneEachPublisher(Publisher):
    """One unanswered message in each of many streams: the next of a stream goes out when its last one is answered."""

    def __init__(self, subjects: Sequence[str], *, tag: int, total: int, size: int = 128) -> None:
        """``total`` messages altogether, a multiple of the number of subjects."""
        super().__init__(subjects, tag=tag, total=total, window=len(subjects), size=size, step=len(subjects))
        self._streams = len(subjects)

    def on_lines(self, lines: bytes) -> None:
        self._raw.append(lines)
        if b"HMSG" in lines:
            self.errors.append("status instead of an answer")
            self.transport.abort()
            return
        self._lines += lines.count(b"\n")
        self.answered = self._lines >> 1
        self.ended = time.perf_counter()
        follow = [int(number) + self._streams for number in _NUMBERS.findall(lines)]
        one = self._blocks.one
        out = [one(number) for number in follow if number < self.total]
        self.sent += len(out)
        if out:
            self.transport.write(b"".join(out))
        self._finish_if_complete()


class CorePublisher(Writing):
    """Publishes without replies as fast as the socket takes it; ``done`` when the server took everything."""

    def __init__(self, subject: str, *, tag: int, total: int, size: int = 128) -> None:
        super().__init__()
        self._blocks = Blocks([subject], b"", tag, size)
        self.total = total
        self.sent = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def next_part(self) -> bytes:
        wanted = min(BLOCK, self.total - self.sent)
        if wanted <= 0:
            return b""
        self.sent += wanted
        data = self._blocks.part(self.sent - wanted, wanted)
        return data + b"PING\r\n" if self.sent >= self.total else data

    def on_lines(self, lines: bytes) -> None:
        if b"PONG\r\n" in lines and self.sent >= self.total and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.done.done():
            self.done.set_exception(ConnectionError("connection lost"))
            self.done.exception()


async def connect(port: int, connection: C) -> C:
    """The connection, greeted. OSError when the server is not there or closes."""
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, "127.0.0.1", port)
    await connection.ready
    return connection


def run_loop(main: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.run on uvloop when it is installed: less client in the measurement."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
