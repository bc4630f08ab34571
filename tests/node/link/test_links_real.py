"""Goal: the same over real loopback sockets: order, large entries, requests, streams, TLS, a real nats-server."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
import uvloop
from link_world import LinkNode, is_meshed, mesh, note, notes, stop, until
from structlog.testing import capture_logs

from jepsen.real.process import find_nats_server
from jetstore.limits import MIB, Limits
from jetstore.node.link.hello import FOREIGN_REASON, Purpose
from jetstore.node.link.ports import LinkLost, Route
from jetstore.raft.log import Entry
from jetstore.raft.message import Message, MessageKind
from jetstore.types import RaftIndex, Term

LIMITS = Limits()
Story = Callable[[asyncio.AbstractEventLoop], Awaitable[None]]


def run(story: Story, factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        failures: list[object] = []
        loop.set_exception_handler(lambda _, context: failures.append(context))
        await story(loop)
        assert failures == []

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@LOOPS
def test_three_nodes(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(loop: asyncio.AbstractEventLoop) -> None:
        nodes = await mesh(loop, 3, limits=LIMITS)
        for number in range(50):
            for a in nodes:
                for b in nodes:
                    if a is not b:
                        a.send(b, note(number))
            if number % 5 == 0:
                await asyncio.sleep(0)
        await until(lambda: all(len(a.heard.messages(b.id)) == 50 for a in nodes for b in nodes if a is not b))
        assert all(notes(a.heard.messages(b.id)) == list(range(50)) for a in nodes for b in nodes if a is not b)
        await until(lambda: all(peer.raft and peer.raft.rtt_s is not None for peer in nodes[0].links.status().peers))
        await stop(*nodes)

    run(story, factory)


@LOOPS
def test_entries_of_all_sizes(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(loop: asyncio.AbstractEventLoop) -> None:
        a, b = await mesh(loop, 2, limits=LIMITS)
        rng = Random(1)
        entries = [
            Entry(Term(1), RaftIndex(index), rng.randbytes(size), 1)
            for index, size in enumerate((0, 1, 1023, 1025, 200_000, MIB, 32 * MIB, 5), 1)
        ]
        for entry in entries:
            a.send(b, Message(MessageKind.APPEND, 1, 2, Term(1), index=RaftIndex(entry.index - 1), entries=(entry,)))
            await until(lambda entry=entry: len(b.heard.messages(a.id)) == entry.index)
        assert [message.entries[0] for _, message in b.heard.messages(a.id)] == entries
        await stop(a, b)

    run(story, factory)


@LOOPS
def test_requests_and_streams(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(loop: asyncio.AbstractEventLoop) -> None:
        a, b = await mesh(loop, 2, limits=LIMITS)

        async def mirror(node_id: str, payload: bytes) -> bytes:
            return payload[::-1]

        async def pieces(node_id: str, payload: bytes) -> AsyncGenerator[bytes, None]:
            for number in range(100):
                yield bytes([number]) * 200_000

        b.links.register("mirror", mirror)
        b.links.register_stream("pieces", pieces)
        payloads = [bytes([number]) * 3 + bytes(number * 5000) for number in range(100)]
        asked = [a.links.request(b.id, "mirror", payload) for payload in payloads]
        async with a.links.stream(b.id, "pieces", b"") as chunks:
            got = [chunk[0] async for chunk in chunks]
        assert got == list(range(100))
        assert await asyncio.gather(*asked) == [payload[::-1] for payload in payloads]
        await stop(a, b)

    run(story, factory)


@LOOPS
def test_a_reset_fails_what_was_asked_and_is_mended(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(loop: asyncio.AbstractEventLoop) -> None:
        a, b = LinkNode(loop, 1, limits=LIMITS), LinkNode(loop, 2, limits=LIMITS)
        await b.start()
        a.dial(b)  # from one side, so that there is one connection to break
        await until(lambda: is_meshed(a, b))

        async def never(node_id: str, payload: bytes) -> bytes:
            return await loop.create_future()

        b.links.register("never", never)
        asked = a.links.request(b.id, "never", b"")
        for purpose in Purpose:
            transport = b.links.peers[a.id].current[purpose].transport
            assert transport is not None
            transport.abort()
        with pytest.raises(LinkLost):
            await asked
        await until(lambda: a.heard.downs and b.heard.downs)
        await until(lambda: is_meshed(a, b))
        await stop(a, b)

    run(story, factory)


def certificates(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "cert.pem"))
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    for context in (server, client):
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, client


@LOOPS
def test_tls_on_both_sides(factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    server, client = certificates(tmp_path)

    async def story(loop: asyncio.AbstractEventLoop) -> None:
        a, b = await mesh(loop, 2, limits=LIMITS, server_tls=server, client_tls=client)
        entry = Entry(Term(1), RaftIndex(1), Random(1).randbytes(3 * MIB), 1)
        a.send(b, Message(MessageKind.APPEND, 1, 2, Term(1), entries=(entry,)))
        await until(lambda: b.heard.batches)
        assert b.heard.messages(a.id)[0][1].entries == (entry,)
        plain = LinkNode(loop, 3, limits=LIMITS)
        with capture_logs() as entries:
            plain.dial(a)
            await until(lambda: any(each["event"] == "cannot connect to a route" for each in entries))
        assert plain.links.connected() == []
        await stop(a, b, plain)

    run(story, factory)


TOLD_WITHIN_S = 40.0


@pytest.mark.oracle
@pytest.mark.real
def test_a_real_nats_server_is_told_that_it_cannot_join(tmp_path: Path) -> None:
    """Both ways: it dials us, and we dial it."""
    binary = find_nats_server()
    if binary is None:
        pytest.skip("no nats-server binary on PATH")

    async def story(loop: asyncio.AbstractEventLoop) -> None:
        a = LinkNode(loop, 1, limits=LIMITS)
        await a.start()
        server = await asyncio.create_subprocess_exec(
            binary, "-a", "127.0.0.1", "-p", "-1", "--cluster_name", "C", "--cluster", "nats://127.0.0.1:-1",
            "--routes", f"nats://127.0.0.1:{a.port}", "--ports_file_dir", str(tmp_path), "-P", str(tmp_path / "pid"),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert server.stderr is not None
        try:
            route_port = 0
            told = ""
            with capture_logs() as entries:
                async with asyncio.timeout(TOLD_WITHIN_S):  # lines may come for ever
                    while not (route_port and FOREIGN_REASON in told):
                        line = (await server.stderr.readline()).decode()
                        assert line, f"nats-server ended: {told}"
                        told += line
                        if "Listening for route connections on" in line:
                            route_port = int(line.rsplit(":", 1)[1])
                            a.links.add_route(Route("127.0.0.1", route_port))
                    await until(lambda: any(each.get("event") == "cannot connect to a route" for each in entries))
            reasons = {str(each.get("reason")) for each in entries if each["log_level"] == "warning"}
            assert FOREIGN_REASON in reasons
            assert a.links.connected() == []
        finally:
            server.kill()
            await server.wait()
        await stop(a)

    run(story)
