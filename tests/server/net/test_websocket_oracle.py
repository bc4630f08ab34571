"""What a browser's handshake brings and gets: cookies, headers; beside nats-server."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect

from server.config.errors import ConfigProblems
from server.config.options import start_problem
from server.config.reader import load_options

Json = object
ORACLE = str(path) if (path := Path(sys.executable).with_name("nats-server")).exists() else shutil.which("nats-server")
CONFIGURATION = """
listen: 127.0.0.1:-1
websocket {{ listen: "127.0.0.1:{port}", no_tls: true, {block} }}
{rest}
"""
USERS = "authorization { users [ {user: a, password: x}, {user: b, password: y} ] }"
NAMED = 'user_cookie: u, pass_cookie: p, token_cookie: t, headers { X-Is: "there", "x-other": y }'
CASES = [
    ("u=a; p=x", {}),
    ("p=x;u=a", {"user": "b", "pass": "y"}),
    ("u=a; p=y", {}),
    ('u="a"; p=x', {}),
    ("u=a", {"pass": "x"}),
    ("u=a", {"user": "b"}),
    ("other=1", {}),
    ("", {"user": "a", "pass": "x"}),
]
"""Cookies, and what CONNECT says besides."""


async def answered(client: ClientConnection, sent: dict[str, str]) -> bytes:
    """PONG, or the error."""
    await client.recv()
    await client.send(b"CONNECT %b\r\nPING\r\n" % json.dumps({"verbose": False, **sent}).encode())
    found = await client.recv()
    return found if isinstance(found, bytes) else found.encode()


async def told(folder: Path, *command: str) -> list[Json]:
    """What a server answers to each case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = folder / "x.conf"
    path.write_text(CONFIGURATION.format(port=port, block=NAMED, rest=USERS))
    process = await asyncio.create_subprocess_exec(*command, "-c", str(path), stderr=asyncio.subprocess.DEVNULL)
    found: list[Json] = []
    url = f"ws://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    async with connect(url):
                        break
                except OSError:
                    await asyncio.sleep(0.05)
        for cookies, sent in CASES:
            headers = {"Cookie": cookies} if cookies else {}
            async with connect(url, additional_headers=headers) as client:
                assert client.response is not None
                found.append([client.response.headers.get(name) for name in ("x-is", "X-Other")])
                found.append((cookies, sent, await answered(client, sent)))
    finally:
        process.terminate()
        await process.wait()
    return found


@pytest.mark.oracle
@pytest.mark.skipif(ORACLE is None, reason="no nats-server at hand")
def test_the_same_as_nats_server(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        assert ORACLE is not None
        theirs = await told(tmp_path / "theirs", ORACLE)
        return theirs, await told(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("headers: {Host: x}", 'websocket: invalid header "Host" not allowed'),
        ("headers: {Sec-WebSocket-Accept: x}", '"Sec-WebSocket-" prefix not allowed'),
        ('headers: {X: "a\\r\\nb"}', 'header "X" has characters that no header may have'),
        ("advertise: x", '"advertise" is not supported by this version of jetstore'),
    ],
)
def test_what_is_refused(tmp_path: Path, block: str, problem: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(f"websocket {{ port: -1, no_tls: true, {block} }}")
    with pytest.raises(ConfigProblems, match=problem):
        load_options(path, {})


def test_claims_in_cookies_need_an_operator(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("websocket { port: -1, no_tls: true, jwt_cookie: j }")
    problem = start_problem(load_options(path, {}))
    assert problem.startswith("trusted operators or trusted keys configuration is required")
