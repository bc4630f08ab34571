"""Reloads of what accounts are, and what open connections see of each; for this server and for nats-server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from system_script import running

VOLATILE = ("created", "ts", "id", "level", "_nats.level")
"""Differs by itself, or is not about accounts."""


class Wire(asyncio.Protocol):
    """One client, told in lines. What came before the connection broke is never lost."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._is_closed = False
        self._news = asyncio.Event()
        self.info: dict[str, object] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True
        self._news.set()

    @classmethod
    async def open(cls, port: int, user: str) -> tuple[Wire, list[str]]:
        """A client of this user, and what was said to it; no user: without credentials."""
        _, wire = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        wire.info = json.loads((await wire._line()).removeprefix("INFO "))
        given: dict[str, object] = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
        if user:
            name, _, password = user.partition(":")
            given |= {"user": name, "pass": password or "x"}
        return wire, await wire.say("CONNECT " + json.dumps(given))

    async def say(self, *lines: str) -> list[str]:
        """Send these lines; all that came until the server had read them."""
        self._write(*lines, "PING")
        found: list[str] = []
        while (line := await self._line()) != "PONG":
            found.append(line)
            if line == "closed":
                break
        return found

    async def ask(self, subject: str, body: str = "") -> str:
        """One request's answer; what else came before it is lost."""
        self._write("SUB _INBOX.q 9999", f"PUB {subject} _INBOX.q {len(body)}", body)
        while not (line := await self._line()).startswith(("MSG _INBOX.q", "HMSG _INBOX.q", "closed")):
            pass
        self._write("UNSUB 9999")
        return line

    def close(self) -> None:
        """Leave."""
        assert self._transport is not None
        self._transport.close()

    def _write(self, *lines: str) -> None:
        assert self._transport is not None
        if not self._is_closed:
            self._transport.write("".join(f"{line}\r\n" for line in lines).encode())

    async def _line(self) -> str:
        """One operation, its payload with it; ``closed``: no more come."""
        while True:
            line, end, rest = self._got.partition(b"\r\n")
            words = line.split()
            size = int(words[-1]) + 2 if end and words[0] in (b"MSG", b"HMSG") else 0
            if end and len(rest) >= size:
                self._got = rest[size:]
                return (line + end + rest[:size]).decode().strip()
            if self._is_closed:
                return "closed"
            self._news.clear()
            async with asyncio.timeout(10):
                await self._news.wait()


@dataclass(frozen=True)
class Reload:
    """Put another configuration in force."""

    accounts: str


@dataclass(frozen=True)
class Say:
    """``who`` says ``lines``; opened with this user if there is no such client."""

    who: str
    lines: Sequence[str] = ()
    user: str = ""


@dataclass(frozen=True)
class Ask:
    """A request whose JSON answer counts."""

    who: str
    subject: str
    body: str = ""


@dataclass(frozen=True)
class Count:
    """How many of these are still connected: which of them is not told."""

    among: Sequence[str]


Step = Reload | Say | Ask | Count


def told(line: str) -> str:
    """A line without what differs from server to server."""
    operation, _, rest = line.partition("\r\n")
    words = operation.split()
    if words[0] == "HMSG":
        rest = re.sub(r',"rtt":\d+', "", rest)
        words = words[:3]
    return " ".join("_R_" if word.startswith("_R_.") else word for word in words) + ("\n" + rest if rest else "")


def shown(answer: str) -> str:
    """The answer of a request without what differs from server to server."""
    body = answer[answer.find("{") :] if "{" in answer else answer
    try:
        value = json.loads(body)
    except ValueError:
        return told(answer)
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in VOLATILE}
    return [_plain(each) for each in value] if isinstance(value, list) else value


@asynccontextmanager
async def serving(directory: Path, head: str, accounts: str, *command: str) -> AsyncIterator[Servant]:
    """A server that this command starts, ready for reloads."""
    async with running(directory, head.format(directory=directory) + accounts, *command) as (port, _):
        servant = Servant(directory, head.format(directory=directory), port)
        await servant.prepare()
        try:
            yield servant
        finally:
            servant.close()


class Servant:
    """A running server that does steps."""

    def __init__(self, directory: Path, head: str, port: int) -> None:
        self._directory = directory
        self._head = head
        self._port = port
        self._clients: dict[str, Wire] = {}
        self._system: Wire | None = None

    async def prepare(self) -> None:
        self._system, said = await Wire.open(self._port, "s")
        assert said == []

    async def reload(self, accounts: str) -> str:
        """What the server says is wrong; "" = nothing."""
        assert self._system is not None
        (self._directory / "process.conf").write_text(self._head + accounts)
        answer = await self._system.ask(f"$SYS.REQ.SERVER.{self._system.info['server_id']}.RELOAD")
        error = json.loads(answer[answer.find("{") :]).get("error")
        return str(error["description"]).replace(str(self._directory), "").strip() if error else ""

    async def do(self, step: Step) -> object:
        """What came of it."""
        if isinstance(step, Reload):
            return await self.reload(step.accounts)
        if isinstance(step, Ask):
            return shown(await self._clients[step.who].ask(step.subject, step.body))
        if isinstance(step, Count):
            return len([who for who in step.among if "closed" not in await self._clients[who].say()])
        said: list[str] = []
        if step.who not in self._clients:
            self._clients[step.who], said = await Wire.open(self._port, step.user)
        if said and said[-1] == "closed":
            self._clients.pop(step.who).close()
            return said
        said += await self._clients[step.who].say(*step.lines)
        if said and said[-1] == "closed":
            self._clients.pop(step.who).close()
        return sorted(told(line) for line in said)  # subscriptions of one client get a message in any order

    def close(self) -> None:
        """All its clients leave."""
        for wire in (*self._clients.values(), self._system):
            if wire is not None:
                wire.close()
