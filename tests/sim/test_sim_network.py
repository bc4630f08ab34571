"""Goal: in-memory connections behave like TCP with all its habits, decided by the seed alone."""

# ruff: noqa: ASYNC110 (in virtual time polling costs nothing)
from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from jepsen.sim.loop import SimLoop
from jepsen.sim.network import Profile, SimTransport
from jepsen.sim.owner import Owner


class Peer(asyncio.Protocol):
    """Remembers everything; echoes if asked to."""

    def __init__(self, echo: bool = False) -> None:
        self.echo = echo
        self.transport: SimTransport | None = None
        self.chunks: list[bytes] = []
        self.events: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        if self.echo:
            assert self.transport is not None
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(error)

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)


async def pair(loop: SimLoop, echo: bool = False) -> tuple[Peer, Peer]:
    """A client and a server end."""
    served: list[Peer] = []

    def factory() -> Peer:
        served.append(Peer(echo))
        return served[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    _, client = await loop.create_connection(Peer, "localhost", server.sockets[0].getsockname()[1])
    while not served or served[0].transport is None:
        await asyncio.sleep(0)
    return client, served[0]


def run(main: Any, seed: int = 1) -> SimLoop:
    loop = SimLoop(Random(seed))
    loop.deadline_s = 3600
    loop.run_until_complete(main(loop))
    loop.close()
    assert loop.failures == []
    return loop


def transport(peer: Peer) -> SimTransport:
    assert peer.transport is not None
    return peer.transport


def test_bytes_arrive_whole_in_order_and_cut_differently() -> None:
    sizes = set()

    async def main(loop: SimLoop) -> None:
        client, server = await pair(loop, echo=True)
        sent = Random(5).randbytes(100_000)
        for start in range(0, len(sent), 7_777):
            transport(client).write(sent[start : start + 7_777])
        transport(client).write_eof()
        await server.lost
        await client.lost
        assert server.data == sent
        assert client.data == sent
        sizes.add(tuple(map(len, server.chunks)))

    for seed in range(10):
        run(main, seed)
    assert len(sizes) > 5


def test_one_seed_gives_one_trace() -> None:
    async def main(loop: SimLoop) -> None:
        client, server = await pair(loop, echo=True)
        transport(client).write(bytes(50_000))
        transport(client).close()
        await server.lost

    hashes = [run(main, seed).trace_hash() for seed in (3, 3, 4)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_reader_that_pauses_stops_the_writer() -> None:
    async def main(loop: SimLoop) -> None:
        client, server = await pair(loop)
        transport(server).pause_reading()
        for _ in range(100):
            transport(client).write(bytes(10_000))
            await asyncio.sleep(0.1)
        assert client.events == ["made", "pause"]
        assert transport(client).get_write_buffer_size() > 500_000
        assert server.data == b""
        transport(server).resume_reading()
        while len(server.data) < 1_000_000:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        assert client.events == ["made", "pause", "resume"]

    run(main)


def test_close_flushes_and_abort_does_not() -> None:
    async def main(loop: SimLoop) -> None:
        client, server = await pair(loop)
        transport(client).write(b"x" * 300_000)
        transport(client).close()
        transport(client).write(b"too late")
        assert await server.lost is None
        assert server.data == b"x" * 300_000
        client, server = await pair(loop)
        transport(server).pause_reading()
        transport(client).write(b"x" * 3_000_000)
        transport(client).abort()
        assert isinstance(await server.lost, ConnectionResetError)
        assert await client.lost is None
        assert len(server.data) < 3_000_000

    run(main)


def test_writing_to_a_closed_end_brings_a_reset() -> None:
    async def main(loop: SimLoop) -> None:
        client, server = await pair(loop)
        server.eof_received = lambda: True  # type: ignore[method-assign,assignment,return-value]
        transport(client).close()
        await client.lost
        await asyncio.sleep(1)
        assert not server.lost.done()
        transport(server).write(b"hello?")
        assert isinstance(await server.lost, ConnectionResetError)

    run(main)


def test_a_cut_connection_tells_nobody() -> None:
    async def main(loop: SimLoop) -> None:
        client, server = await pair(loop)
        transport(client).is_cut = transport(server).is_cut = True
        transport(client).write(b"into the void")
        transport(server).close()
        await asyncio.sleep(600)
        assert server.data == b""
        assert client.events == ["made"]

    run(main)


def test_a_stalled_direction_catches_up() -> None:
    async def main(loop: SimLoop) -> None:
        client, server = await pair(loop)
        transport(client).stall(True)
        transport(client).write(b"later")
        await asyncio.sleep(10)
        assert server.data == b""
        transport(client).stall(False)
        await asyncio.sleep(1)
        assert server.data == b"later"

    run(main)


def test_nobody_listens_and_ports_are_taken() -> None:
    async def main(loop: SimLoop) -> None:
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Peer, "127.0.0.1", 1)
        server = await loop.create_server(Peer, None, 4222)
        with pytest.raises(OSError, match="in use"):
            await loop.create_server(Peer, None, 4222)
        server.close()
        await server.wait_closed()
        await loop.create_server(Peer, None, 4222)

    run(main)


@pytest.mark.parametrize("silently", [True, False])
def test_a_dead_process_resets_its_peers_sooner_or_later(silently: bool) -> None:
    async def main(loop: SimLoop) -> None:
        owner = Owner("node")
        listening = loop.call_owned(owner, loop.create_task, loop.create_server(Peer, None, 4222))
        await listening
        _, client = await loop.create_connection(Peer, None, 4222)
        await asyncio.sleep(1)
        assert len(loop.network.live(owner)) == 1
        owner.is_alive = False
        loop.network.drop_process(owner, silently=silently)
        before = loop.time()
        assert isinstance(await client.lost, ConnectionResetError)
        assert (loop.time() - before > 0.1) is silently
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Peer, None, 4222)
        await loop.create_server(Peer, None, 4222)

    run(main)


def test_streams_and_buffered_protocols_work_too() -> None:
    async def main(loop: SimLoop) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        class Collect(asyncio.BufferedProtocol):
            def __init__(self) -> None:
                self.space = bytearray(10)
                self.data = b""

            def get_buffer(self, sizehint: int) -> bytearray:
                return self.space

            def buffer_updated(self, nbytes: int) -> None:
                self.data += self.space[:nbytes]

        server = await asyncio.start_server(serve, "127.0.0.1", 4222)
        reader, writer = await asyncio.open_connection("127.0.0.1", 4222)
        writer.write(b"hello\nworld\n")
        assert await reader.readexactly(12) == b"HELLO\nWORLD\n"
        writer.close()
        link, collected = await loop.create_connection(Collect, "127.0.0.1", 4222)
        link.write(b"a line longer than ten bytes\n")
        while len(collected.data) < 29:
            await asyncio.sleep(0.01)
        assert collected.data == b"A LINE LONGER THAN TEN BYTES\n"
        link.close()
        server.close()
        await asyncio.sleep(1)

    run(main)


def test_profiles_vary() -> None:
    rng = Random(0)
    assert len({str(Profile.draw(rng)) for _ in range(50)}) >= 4
