"""The HTTP server itself, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from monitor_fakes import JetStream, make_source

from server.monitor.http import HttpListener, Response
from server.monitor.monitor import Monitor


def run(scenario: Callable[[Monitor, int], Awaitable[None]]) -> None:
    async def main() -> None:
        monitor = Monitor(make_source(JetStream()))
        port = await monitor.start("127.0.0.1", -1)
        try:
            async with asyncio.timeout(30):
                await scenario(monitor, port)
        finally:
            await monitor.close()

    asyncio.run(main())


async def talk(port: int, request: bytes) -> bytes:
    """What comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def get(path: str, close: bool = True) -> bytes:
    connection = "close" if close else "keep-alive"
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n".encode()


def test_a_page_with_its_headers() -> None:
    async def scenario(_monitor: Monitor, port: int) -> None:
        head, _, body = (await talk(port, get("/varz"))).partition(b"\r\n\r\n")
        lines = {line.lower() for line in head.split(b"\r\n")}
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: application/json" in lines
        assert b"access-control-allow-origin: *" in lines
        assert b"content-length: %d" % len(body) in lines
        assert body.startswith(b'{\n  "server_id": "N')

    run(scenario)


def test_keep_alive_and_pipelining() -> None:
    async def scenario(_monitor: Monitor, port: int) -> None:
        answer = await talk(port, get("/healthz", close=False) + get("/varz", close=False) + get("/healthz"))
        assert answer.count(b"HTTP/1.1 200 ") == 3
        assert answer.count(b'{"status":"ok"}') == 2
        assert answer.index(b'"server_id"') > answer.index(b'{"status":"ok"}')

    run(scenario)


def test_split_requests() -> None:
    async def scenario(_monitor: Monitor, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in get("/healthz"):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await reader.read()).endswith(b'{"status":"ok"}')
        writer.close()
        await writer.wait_closed()

    run(scenario)


def test_head_has_no_body_and_post_is_refused() -> None:
    async def scenario(_monitor: Monitor, port: int) -> None:
        head = await talk(port, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"Content-Length: 15" in head or b"content-length: 15" in head
        assert head.endswith(b"\r\n\r\n")
        post = await talk(port, b"POST /varz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
        assert post.startswith(b"HTTP/1.1 405 ")

    run(scenario)


def test_http_1_0_and_half_close() -> None:
    async def scenario(_monitor: Monitor, port: int) -> None:
        assert (await talk(port, b"GET /healthz HTTP/1.0\r\n\r\n")).endswith(b'{"status":"ok"}')
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/healthz"))
        writer.write_eof()
        assert (await reader.read()).endswith(b'{"status":"ok"}')
        writer.close()
        await writer.wait_closed()

    run(scenario)


def test_nonsense_gets_400_and_oversized_headers_431() -> None:
    async def scenario(_monitor: Monitor, port: int) -> None:
        assert (await talk(port, b"NONSENSE\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        huge = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000
        assert (await talk(port, huge)).startswith(b"HTTP/1.1 431 ")
        # The server still serves.
        assert (await talk(port, get("/healthz"))).startswith(b"HTTP/1.1 200 ")

    run(scenario)


def test_failing_page_answers_500_and_the_server_goes_on() -> None:
    async def fail(target: str) -> Response:
        raise RuntimeError("bug")

    async def main() -> None:
        listener = HttpListener(fail)
        server = await listener.listen("127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):
            assert (await talk(port, get("/x"))).startswith(b"HTTP/1.1 500 ")
        server.close()
        await listener.close_connections()

    asyncio.run(main())


def test_close_drops_connections_and_waiting_answers() -> None:
    async def main() -> None:
        never = asyncio.Event()
        asked = asyncio.Event()

        async def wait(target: str) -> Response:
            asked.set()
            await never.wait()
            raise AssertionError("cancelled before")

        listener = HttpListener(wait)
        server = await listener.listen("127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/x"))
        await asked.wait()
        server.close()
        await listener.close_connections()
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass  # aborted, as it should be
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionResetError:
            pass

    asyncio.run(main())
