"""Goal: every request ends in exactly one definite or unknown way; streams are whole, in order, bounded by credit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from link_world import SMALL, LinkNode, mesh, play, stop, until, wires

from jepsen.sim.loop import SimLoop
from jetstore.limits import KIB
from jetstore.node.link.bulk import BulkStream
from jetstore.node.link.hello import Purpose
from jetstore.node.link.ports import LinkLost, NotConnected, RequestFailed, RequestRefused

FEW = replace(SMALL, bulk_requests_max=8, bulk_request_bytes=16 * KIB, bulk_window_bytes=16 * KIB)


class Gate:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun: list[bytes] = []
        self.cancelled = 0

    async def __call__(self, node_id: str, payload: bytes) -> bytes:
        self.begun.append(payload)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return payload[::-1]


class Pieces:
    """A stream handler: ``count`` pieces of ``size``; counts what it has made."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.made = 0
        self.is_closed = False

    async def __call__(self, node_id: str, payload: bytes) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(self.count):
                self.made += 1
                yield number.to_bytes(4, "little") + bytes(self.size - 4)
        finally:
            self.is_closed = True


async def take_all(stream: BulkStream, got: list[bytes]) -> None:
    async with stream as chunks:
        async for chunk in chunks:
            got.append(chunk)  # noqa: PERF401 (what came before an error counts)


@pytest.mark.parametrize("seed", range(5))
def test_answers_find_their_requests(seed: int) -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        order: list[bytes] = []

        async def mirror(node_id: str, payload: bytes) -> bytes:
            order.append(payload)
            await asyncio.sleep(0.001 * (len(payload) % 5))
            return node_id.encode() + payload

        for node in (a, b):
            node.links.register("mirror", mirror)
        payloads = [bytes([number]) * (number * 37 % 3000) for number in range(60)]
        asked = [a.links.request(b.id, "mirror", payload) for payload in payloads]
        back = [b.links.request(a.id, "mirror", payload) for payload in payloads[:10]]
        assert await asyncio.gather(*asked) == [a.id.encode() + payload for payload in payloads]
        assert await asyncio.gather(*back) == [b.id.encode() + payload for payload in payloads[:10]]
        assert [payload for payload in order if payload in payloads[10:]] == payloads[10:]
        await stop(a, b)

    play(story, seed)


def test_definite_and_unknown_failures_are_told_apart() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)

        async def refuse(node_id: str, payload: bytes) -> bytes:
            raise RequestRefused(10077, "no: " + payload.decode())

        async def breaks(node_id: str, payload: bytes) -> bytes:
            raise KeyError("gone")

        async def too_much(node_id: str, payload: bytes) -> bytes:
            return bytes(2 * b.links.body_bytes_max(Purpose.BULK))

        for name, handler in (("refuse", refuse), ("breaks", breaks), ("too much", too_much)):
            b.links.register(name, handler)
        with pytest.raises(RequestRefused, match="no: x") as refused:
            await a.links.request(b.id, "refuse", b"x")
        assert refused.value.code == 10077
        with pytest.raises(RequestFailed, match="KeyError"):
            await a.links.request(b.id, "breaks", b"")
        with pytest.raises(RequestFailed, match="at most"):
            await a.links.request(b.id, "too much", b"")
        with pytest.raises(RequestRefused, match="no such method: nothing"):
            await a.links.request(b.id, "nothing", b"")
        with pytest.raises(NotConnected):
            a.links.request("ff" * 8, "refuse", b"")
        assert a.links.status().peers[0].requests_pending == 0
        await stop(a, b)

    play(story)


def test_a_lost_connection_fails_sent_requests_as_unknown_and_waiting_ones_as_not_sent() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2, limits=FEW)
        gate = Gate()
        b.links.register("gate", gate)
        sent = [a.links.request(b.id, "gate", bytes(8 * KIB)) for _ in range(2)]
        waiting = a.links.request(b.id, "gate", bytes(8 * KIB))
        await until(lambda: len(gate.begun) == 2)
        wires(loop, a, b, Purpose.BULK).abort()
        for request in sent:
            with pytest.raises(LinkLost, match="unknown"):
                await request
        with pytest.raises(NotConnected, match="not sent"):
            await waiting
        await until(lambda: gate.cancelled == 2)
        assert len(gate.begun) == 2
        await until(lambda: a.links.is_up(b.id, Purpose.BULK))
        assert a.heard.downs == []  # the raft link is another connection
        assert a.heard.bulk == [(b.id, True), (b.id, False), (b.id, True)]
        gate.open.set()
        assert await a.links.request(b.id, "gate", b"again") == b"niaga"
        await stop(a, b)

    play(story)


def test_requests_are_bounded_in_number_and_bytes() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2, limits=FEW)
        gate = Gate()
        b.links.register("gate", gate)
        asked = [a.links.request(b.id, "gate", bytes([number]) * 5 * KIB) for number in range(8)]
        with pytest.raises(NotConnected, match="on their way"):
            a.links.request(b.id, "gate", b"")
        await until(lambda: len(gate.begun) == 3)
        await asyncio.sleep(1)
        assert len(gate.begun) == 3  # 15 KiB of at most 16
        gate.open.set()
        assert await asyncio.gather(*asked) == [bytes([number]) * 5 * KIB for number in range(8)]
        assert [begun[0] for begun in gate.begun] == list(range(8))
        large = a.links.request(b.id, "gate", bytes(40 * KIB))  # alone it may be larger
        assert len(await large) == 40 * KIB
        await stop(a, b)

    play(story)


def test_a_handler_that_is_busy_refuses() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        gate = Gate()
        b.links.register("gate", gate, concurrent_max=2)
        asked = [a.links.request(b.id, "gate", b"x") for _ in range(3)]
        with pytest.raises(RequestRefused, match="are being served already"):
            await asked[2]
        gate.open.set()
        assert await asyncio.gather(*asked[:2]) == [b"x", b"x"]
        await stop(a, b)

    play(story)


def test_cancelling_ends_the_handler_and_frees_the_place() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2, limits=FEW)
        gate = Gate()
        b.links.register("gate", gate)
        asked = [a.links.request(b.id, "gate", bytes(5 * KIB)) for _ in range(8)]
        await until(lambda: len(gate.begun) == 3)
        for request in asked:
            request.cancel()
        await until(lambda: a.links.status().peers[0].requests_pending == 0)
        await until(lambda: gate.cancelled == 3)
        assert len(gate.begun) == 3
        gate.open.set()
        assert await a.links.request(b.id, "gate", b"12") == b"21"
        await stop(a, b)

    play(story)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [5, 900, 15_000, 40_000])
def test_a_stream_is_whole_and_in_order(seed: int, size: int) -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2, limits=FEW)
        pieces = Pieces(60, size)
        b.links.register_stream("pieces", pieces)
        async with a.links.stream(b.id, "pieces", b"") as chunks:
            got = [chunk async for chunk in chunks]
        assert [int.from_bytes(chunk[:4], "little") for chunk in got] == list(range(60))
        assert {len(chunk) for chunk in got} == {size}
        assert a.links.status().peers[0].requests_pending == 0
        await stop(a, b)

    play(story, seed)


@pytest.mark.parametrize("size", [5, 900, 15_000])
def test_credit_bounds_what_a_slow_reader_holds(size: int) -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2, limits=FEW)
        pieces = Pieces(1000, size)
        b.links.register_stream("pieces", pieces)
        chunks = a.links.stream(b.id, "pieces", b"")
        for taken in range(1, 40):
            await chunks.__anext__()
            await asyncio.sleep(0.1)
            assert chunks.unread_bytes <= FEW.bulk_window_bytes
            assert pieces.made <= taken + FEW.bulk_window_bytes // (size + 64) + 1
        assert pieces.made < 1000
        await chunks.aclose()
        await until(lambda: pieces.is_closed)
        await until(lambda: a.links.status().peers[0].requests_pending == 0)
        await stop(a, b)

    play(story)


def test_a_slow_stream_stops_neither_raft_nor_other_requests() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2, limits=FEW)
        gate = Gate()
        gate.open.set()
        b.links.register("gate", gate)
        b.links.register_stream("pieces", Pieces(1000, 2000))
        chunks = a.links.stream(b.id, "pieces", b"")
        await chunks.__anext__()
        assert await a.links.request(b.id, "gate", b"12") == b"21"
        await asyncio.sleep(20)  # much longer than the silence after which a connection is lost
        assert await a.links.request(b.id, "gate", b"34") == b"43"
        assert (a.heard.downs, b.heard.downs) == ([], [])
        await chunks.aclose()
        await stop(a, b)

    play(story)


def test_a_stream_ends_with_its_error_after_what_came_before_it() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)

        async def breaks(node_id: str, payload: bytes) -> AsyncGenerator[bytes, None]:
            yield b"one"
            if payload == b"refuse":
                raise RequestRefused(7, "not today")
            if payload == b"break":
                raise OSError("disk")
            wires(loop, a, b, Purpose.BULK).peer.abort()
            yield b"two"

        b.links.register_stream("breaks", breaks)
        for payload, error in ((b"refuse", RequestRefused), (b"break", RequestFailed), (b"cut", LinkLost)):
            got: list[bytes] = []
            with pytest.raises(error):
                await take_all(a.links.stream(b.id, "breaks", payload), got)
            assert got[:1] == [b"one"] or error is LinkLost
            await until(lambda: a.links.is_up(b.id, Purpose.BULK) and b.links.is_up(a.id, Purpose.BULK))
        await stop(a, b)

    play(story)


@pytest.mark.parametrize("seed", range(8))
def test_a_duplicate_connection_is_read_to_the_end_of_its_requests(seed: int) -> None:
    """Both dial; a request that was made on the connection that goes is still answered."""

    async def story(loop: SimLoop) -> None:
        a, b = LinkNode(loop, 1), LinkNode(loop, 2)
        gate = Gate()
        b.links.register("gate", gate)
        a.links.register("gate", gate)
        for node in (a, b):
            await node.start()
        a.dial(b)
        b.dial(a)
        asked = []
        for node, other in ((a, b), (b, a)):
            await until(lambda node=node, other=other: node.links.is_up(other.id, Purpose.BULK))
            asked.append(node.links.request(other.id, "gate", b"12"))
        await asyncio.sleep(1)
        gate.open.set()
        assert await asyncio.gather(*asked) == [b"21", b"21"]
        await until(lambda: len(loop.network.live()) == 4)
        await stop(a, b)

    play(story, seed)
