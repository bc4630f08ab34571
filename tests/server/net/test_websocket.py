"""WebSocket clients on real sockets: handshakes, frames, compression, TLS, the codes of an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
from test_tls import Authority, context
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from jetstore.clock import RealClock
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from server.app import Server, World
from server.config.errors import ConfigProblems
from server.config.options import start_problem
from server.config.reader import load_options

LIMIT_S = 20.0
CONNECT = b'CONNECT {"verbose":false,"protocol":1}\r\n'


def serve(folder: Path, block: str, talk: Callable[[int], Awaitable[None]], rest: str = "") -> None:
    """A server with a ``websocket`` block, and somebody who talks to its port."""
    path = folder / "x.conf"
    path.write_text(f"websocket {{ {block} }}\n{rest}")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        options = load_options(path, {})
        assert start_problem(options) == ""
        server = Server(options, World(loop, RealClock(), Random(1), Limits(), ServerLimits()), None, lambda _: None)
        port = await server.clients.start_websocket(options.websocket)
        try:
            await asyncio.wait_for(talk(port), LIMIT_S)
        finally:
            await server.clients.stop()

    asyncio.run(run())


async def received(client: ClientConnection, end: bytes) -> bytes:
    """What comes up to there."""
    found = b""
    while not found.endswith(end):
        chunk = await client.recv()
        assert isinstance(chunk, bytes)
        found += chunk
    return found


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("is_on", [True, False])
def test_a_stream_of_bytes_in_frames(tmp_path: Path, compression: str | None, is_on: bool) -> None:
    async def talk(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/any", compression=compression, max_size=None) as client:
            assert (client.response is not None and "Sec-WebSocket-Extensions" in client.response.headers) is (
                is_on and compression is not None
            )
            assert (await received(client, b"\r\n")).startswith(b"INFO {")
            await client.send(CONNECT[:9])
            await client.send(CONNECT[9:] + b"PING\r\nSU")
            assert (await received(client, b"} \r\n")).startswith(b"PONG\r\nINFO")
            await client.send(b"B a 1\r\nPUB a 3\r\nabc\r\nPI")
            await client.send([b"N", b"G", b"\r\n"])
            assert await received(client, b"PONG\r\n") == b"MSG a 1 3\r\nabc\r\nPONG\r\n"
            await client.send("PING\r\n")
            assert await received(client, b"PONG\r\n") == b"PONG\r\n", "text frames will do"
            payload = bytes(range(256)) * 4000
            await client.send(b"PUB a %d\r\n%b\r\nPING\r\n" % (len(payload), payload))
            assert await received(client, b"PONG\r\n") == b"MSG a 1 %d\r\n%b\r\nPONG\r\n" % (len(payload), payload)
            await (await client.ping())

    serve(tmp_path, f"listen: '127.0.0.1:-1', no_tls: true, compression: {str(is_on).lower()}", talk)


def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    from cryptography.x509 import DNSName

    authority.issue("server", DNSName("localhost"))
    files = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key" }}'

    async def talk(port: int) -> None:
        async with connect(f"wss://localhost:{port}", ssl=context(authority), host="127.0.0.1") as client:
            assert (await received(client, b"\r\n")).startswith(b"INFO {")
            await client.send(CONNECT + b"PING\r\n")
            assert (await received(client, b"} \r\n")).startswith(b"PONG\r\nINFO")

    serve(tmp_path, f"port: -1, {files}", talk)


def test_the_end_has_a_code(tmp_path: Path) -> None:
    async def ended(port: int, sent: bytes) -> tuple[bytes, int | None]:
        async with connect(f"ws://127.0.0.1:{port}") as client:
            await received(client, b"\r\n")
            await client.send(sent)
            found = b""
            try:
                while True:
                    chunk = await client.recv()
                    assert isinstance(chunk, bytes)
                    found += chunk
            except ConnectionClosed:
                return found, client.close_code

    async def talk(port: int) -> None:
        wrong = b'CONNECT {"user":"web","pass":"y"}\r\n'
        assert await ended(port, wrong) == (b"-ERR 'Authorization Violation'\r\n", 1008)
        assert await ended(port, b'CONNECT {"user":"tcp","pass":"x"}\r\n') == (
            b"-ERR 'Authorization Violation'\r\n",
            1008,
        )
        right = b'CONNECT {"user":"web","pass":"x","verbose":false}\r\n'
        assert await ended(port, right + b"NONSENSE\r\n") == (b"-ERR 'Unknown Protocol Operation'\r\n", 1002)
        assert await ended(port, right + b"PUB a 9999999\r\n") == (b"-ERR 'Maximum Payload Violation'\r\n", 1009)

    users = """authorization { users: [ { user: web, password: x, allowed_connection_types: [WEBSOCKET] }
                                         { user: tcp, password: x, allowed_connection_types: [STANDARD] } ] }"""
    serve(tmp_path, "port: -1, no_tls: true", talk, users)


def test_who_is_turned_away(tmp_path: Path) -> None:
    async def status(port: int, path: str = "/", origin: str | None = None) -> int:
        try:
            async with connect(f"ws://127.0.0.1:{port}{path}", origin=origin):  # type: ignore[arg-type]
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    async def talk(port: int) -> None:
        assert await status(port) == 101
        assert await status(port, origin="http://good.example") == 101
        assert await status(port, origin="https://good.example") == 403
        assert await status(port, origin="http://bad.example") == 403
        assert await status(port, "/x/leafnode") == 404
        assert await status(port, "/mqtt") == 404
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b'CONNECT {"verbose":false}\r\n\r\n')
        assert b"INFO" not in await reader.read()
        writer.close()

    serve(tmp_path, "port: -1, no_tls: true, allowed_origins: ['http://good.example']", talk)


def test_pages_from_elsewhere(tmp_path: Path) -> None:
    async def talk(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}", origin=f"http://127.0.0.1:{port}"):  # type: ignore[arg-type]
            pass
        with pytest.raises(InvalidStatus):
            async with connect(f"ws://127.0.0.1:{port}", origin="http://127.0.0.1:1"):  # type: ignore[arg-type]
                pass

    serve(tmp_path, "port: -1, no_tls: true, same_origin: true", talk)


def test_a_handshake_that_does_not_come(tmp_path: Path) -> None:
    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        try:
            assert await reader.read() == b""
        except ConnectionError:
            pass
        writer.close()

    serve(tmp_path, "port: -1, no_tls: true, handshake_timeout: '100ms'", talk)


def test_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text("websocket { port: 80 }")
    assert start_problem(load_options(path, {})) == "websocket requires TLS configuration"
    path.write_text("websocket { port: 80, no_auth_user: x }")
    with pytest.raises(ConfigProblems, match="no_auth_user"):
        load_options(path, {})
