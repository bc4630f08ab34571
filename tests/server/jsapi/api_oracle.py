"""Asks a real nats-server the scenario's requests."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

WAIT_S = 2.0
"""For an answer; one that does not come within it counts as silence."""


def oracle_binary() -> str | None:
    """Path of a nats-server, beside the interpreter or on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def _ports_text(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.glob("*.ports"))


async def _port(directory: Path) -> int:
    async with asyncio.timeout(20):
        while not (text := _ports_text(directory)).endswith("}"):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    return int(json.loads(text)["nats"][0].rpartition(":")[2])


async def ask_oracle(requests: list[tuple[str, str]], directory: Path, silent: list[bool] | None = None) -> list[Any]:
    """Its answers; None where it does not reply within the wait."""
    async with oracle(directory) as port:
        return await ask_port(port, requests, silent)


@asynccontextmanager
async def oracle(directory: Path) -> AsyncIterator[int]:
    """The port of a nats-server that runs inside the block."""
    config = directory / "oracle.conf"
    config.write_text(
        f"listen: 127.0.0.1:-1\nserver_name: ORC\nports_file_dir: {directory}\n"
        f"jetstream {{ store_dir: {directory}/data, max_mem: 256MB, max_file: 1GB }}\n"
    )
    binary = oracle_binary()
    assert binary is not None
    process = await asyncio.create_subprocess_exec(binary, "-c", str(config), stderr=asyncio.subprocess.DEVNULL)
    try:
        yield await _port(directory)
    finally:
        process.terminate()
        await process.wait()


async def ask_port(port: int, requests: list[tuple[str, str]], silent: list[bool] | None = None) -> list[Any]:
    """The answers of a running server; where ``silent`` says that none is expected, the wait is short."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await _converse(reader, writer, requests, silent or [False] * len(requests))
    finally:
        writer.close()
        await writer.wait_closed()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[tuple[str, str]], silent: list[bool]
) -> list[Any]:
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB in.* 1\r\n')
    replies: list[Any] = []
    for i, (subject, body) in enumerate(requests):
        payload = body.encode()
        writer.write(b"PUB %b in.%d %d\r\n%b\r\n" % (subject.encode(), i, len(payload), payload))
        replies.append(await _reply(reader, b"in.%d" % i, 0.1 if silent[i] else WAIT_S))
    return replies


async def _reply(reader: asyncio.StreamReader, inbox: bytes, wait_s: float) -> Any:
    try:
        async with asyncio.timeout(wait_s):
            while True:
                line = await reader.readline()
                if line.startswith(b"MSG"):
                    _, subject, _, size = line.split()
                    body = (await reader.readexactly(int(size) + 2))[:-2]
                    if subject == inbox:
                        return json.loads(body)
                elif line.startswith(b"HMSG"):
                    parts = line.split()
                    payload = (await reader.readexactly(int(parts[-1]) + 2))[:-2]
                    body = payload[int(parts[-2]) :]
                    if parts[1] == inbox:
                        return json.loads(body) if body else None
    except TimeoutError:
        return None
