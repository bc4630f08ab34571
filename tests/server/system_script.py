"""Clients that come, fail to and go, and what the system account hears of it; for this server and for nats-server."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import nats

from jetstore.clock import RealClock
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from server.app import Server, World
from server.config.reader import load_options

Json = Any  # Any: JSON values
CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
accounts {
  $SYS { users [ {user: admin, password: x} ] }
  A { users [ {user: a, password: x} ], exports [ {service: "q.>", response: stream, accounts: [B]}, {stream: "p.>"} ],
      mappings { m1: m2, m3: [ {destination: m4, weight: 50%} ] } }
  B { users [ {user: b, password: x} ], imports [ {service: {account: A, subject: "q.x"}, to: mine},
                                                  {stream: {account: A, subject: "p.y"}, prefix: from} ] }
}"""


def oracle_binary() -> str | None:
    """Path of a nats-server, beside the interpreter or on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


@asynccontextmanager
async def ours(directory: Path) -> AsyncIterator[Server]:
    """This server, serving clients and monitoring; ``port`` and ``http_port`` are its own."""
    path = directory / "ours.conf"
    path.write_text(CONFIGURATION)
    world = World(asyncio.get_running_loop(), RealClock(), Random(1), Limits(), ServerLimits())
    server = Server(load_options(path, {}), world, None, lambda _: None)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def theirs(directory: Path) -> AsyncIterator[tuple[int, int]]:
    """A nats-server's ports for clients and monitoring."""
    binary = oracle_binary()
    assert binary is not None
    async with running(directory, CONFIGURATION, binary) as ports:
        yield ports


@asynccontextmanager
async def running(directory: Path, configuration: str, *command: str) -> AsyncIterator[tuple[int, int]]:
    """The ports of a process that this command starts, in a directory of its own."""
    path = directory / "process.conf"
    path.write_text(configuration)
    process = await asyncio.create_subprocess_exec(
        *command, "-c", str(path), "--ports_file_dir", str(directory), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while not (text := _ports_text(directory)).endswith("}"):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        found = json.loads(text)
        client, http = (int(found[kind][0].rpartition(":")[2]) for kind in ("nats", "monitoring"))
        yield client, http
    finally:
        process.terminate()
        await process.wait()


def _ports_text(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.glob("*.ports"))


async def visit(port: int, user: str, password: str = "x") -> bytes:
    """Connect, publish three bytes, leave; what the server said after INFO."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    given = {"user": user, "pass": password, "verbose": False, "name": "visitor", "lang": "py", "version": "1"}
    writer.write(b"CONNECT %b\r\nPUB x 3\r\nabc\r\nPING\r\n" % json.dumps(given).encode())
    said = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return said


class Listener:
    """A user of the system account who hears everything."""

    def __init__(self, connection: nats.NATS) -> None:
        self.connection = connection
        self.heard: list[tuple[str, Json]] = []
        self._news = asyncio.Event()

    async def listen(self, *subjects: str) -> None:
        """Subscribe."""
        for subject in subjects:
            await self.connection.subscribe(subject, cb=self._take)
        await self.connection.flush()

    async def _take(self, message: Any) -> None:
        self.heard.append((message.subject, json.loads(message.data)))
        self._news.set()

    async def until(self, subject_end: str, count: int = 1) -> Json:
        """The latest event whose subject ends so, once there are so many."""
        async with asyncio.timeout(30):
            while len(found := [body for subject, body in self.heard if subject.endswith(subject_end)]) < count:
                self._news.clear()
                await self._news.wait()
        return found[-1]


@asynccontextmanager
async def listener(port: int) -> AsyncIterator[Listener]:
    """The system account's user, connected."""
    connection = await nats.connect(f"nats://admin:x@127.0.0.1:{port}", allow_reconnect=False)
    try:
        yield Listener(connection)
    finally:
        await connection.close()


async def coming_and_going(port: int) -> list[tuple[str, Json]]:
    """What is heard of a visit, of one in vain, and of one who says nothing; counters last."""
    async with listener(port) as system:
        await system.listen("$SYS.>")
        assert await visit(port, "b") == b"PONG\r\n"
        await system.until("B.DISCONNECT")
        assert b"Authorization" in await visit(port, "b", "wrong")
        await system.until("$G.DISCONNECT")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        writer.close()
        await writer.wait_closed()
        await system.until("$G.DISCONNECT", 2)
        counters = await system.until("STATSZ")
        heard = [(subject, body) for subject, body in system.heard if not subject.endswith("STATSZ")]
        return [*heard, (f"$SYS.SERVER.{counters['server']['id']}.STATSZ", counters)]


def shape(value: Json) -> Json:
    """Names and JSON types; of a list those of its elements, each kind once."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items() if name != "feature_flags"}
    if isinstance(value, list):
        kinds = {json.dumps(shape(each), sort_keys=True): shape(each) for each in value}
        return [kinds[key] for key in sorted(kinds)]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
