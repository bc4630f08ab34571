"""Goal: the twin without bytes behaves like the real links where a driver can tell: same story, same events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from link_world import Heard, LinkNode, node_id, note, notes, play, until, wires

from jepsen.sim.loop import SimLoop
from jetstore.node.link.hello import Hello, Purpose
from jetstore.node.link.links import Links
from jetstore.node.link.memory_links import MemoryLinks, MemoryNetwork
from jetstore.node.link.ports import LinkLost, NotConnected, RequestFailed, RequestRefused
from jetstore.types import GroupUid

Both = MemoryLinks | Links


class Pair:
    """Two nodes, of one kind or the other."""

    def __init__(self, loop: SimLoop, kind: str) -> None:
        self.kind = kind
        if kind == "real":
            self.real = [LinkNode(loop, 1), LinkNode(loop, 2)]
            self.links: list[Both] = [node.links for node in self.real]
            self.heard = [node.heard for node in self.real]
        else:
            self.network = MemoryNetwork(loop)
            self.heard = [Heard(), Heard()]
            self.links = [
                MemoryLinks(
                    self.network,
                    Hello(Purpose.RAFT, "C", "", node_id(n), f"n{n}", 1, 1, "aa" * 8, 1),
                    self.heard[n - 1],
                )
                for n in (1, 2)
            ]

    async def start(self) -> None:
        if self.kind == "real":
            for node in self.real:
                await node.start()
            self.real[0].dial(self.real[1])
        else:
            for links in self.links:
                await links.start("", 0)
        for links, heard, other in zip(self.links, self.heard, self.ids[::-1], strict=True):
            await until(lambda links=links, other=other: links.is_up(other, Purpose.BULK))
            await until(lambda heard=heard, other=other: (other, True) in heard.bulk)

    @property
    def ids(self) -> list[str]:
        return [node_id(1), node_id(2)]

    def reset(self, loop: SimLoop) -> None:
        if self.kind == "real":
            for purpose in Purpose:
                wires(loop, self.real[0], self.real[1], purpose).abort()
        else:
            self.network.cut(*self.ids)
            self.network.join(*self.ids)

    async def stop(self) -> None:
        for links in self.links:
            await links.stop()


KINDS = pytest.mark.parametrize("kind", ["real", "memory"])
Story = Callable[[SimLoop, Pair], Awaitable[None]]


def play_pair(kind: str, story: Story) -> None:
    async def main(loop: SimLoop) -> None:
        pair = Pair(loop, kind)
        await pair.start()
        await story(loop, pair)
        await pair.stop()

    play(main)


@KINDS
def test_messages_arrive_in_order(kind: str) -> None:
    async def story(loop: SimLoop, pair: Pair) -> None:
        a, b = pair.links
        for number in range(40):
            a.send_raft(pair.ids[1], GroupUid(5), [note(number), note(number + 100)])
        await until(lambda: len(pair.heard[1].messages(pair.ids[0])) == 80)
        got = pair.heard[1].messages(pair.ids[0])
        assert notes(got) == [number + offset for number in range(40) for offset in (0, 100)]
        assert {group for group, _ in got} == {5}
        assert (a.connected(), b.connected()) == (pair.ids[1:], pair.ids[:1])
        a.send_raft("ff" * 8, GroupUid(5), [note(1)])  # nobody: dropped

    play_pair(kind, story)


@KINDS
def test_a_reset_is_down_and_up_and_fails_requests(kind: str) -> None:
    async def story(loop: SimLoop, pair: Pair) -> None:
        async def never(caller: str, payload: bytes) -> bytes:
            return await loop.create_future()

        pair.links[1].register("never", never)
        asked = pair.links[0].request(pair.ids[1], "never", b"")
        pair.reset(loop)
        with pytest.raises(LinkLost):
            await asked
        other = pair.ids[1]
        await until(lambda: pair.heard[0].events == [f"up {other}", f"down {other}", f"up {other}"])
        await until(lambda: pair.heard[0].bulk == [(other, True), (other, False), (other, True)])

    play_pair(kind, story)


@KINDS
def test_requests_and_streams_end_the_same_way(kind: str) -> None:
    async def story(loop: SimLoop, pair: Pair) -> None:
        async def answer(caller: str, payload: bytes) -> bytes:
            if payload == b"refuse":
                raise RequestRefused(5, "no")
            if payload == b"break":
                raise KeyError("x")
            return caller.encode() + payload

        async def pieces(caller: str, payload: bytes) -> AsyncGenerator[bytes, None]:
            yield b"1"
            if payload == b"refuse":
                raise RequestRefused(5, "no")
            if payload == b"break":
                raise KeyError("x")
            yield b"2"

        a, b = pair.links
        b.register("answer", answer)
        b.register_stream("pieces", pieces)
        assert await a.request(pair.ids[1], "answer", b"x") == pair.ids[0].encode() + b"x"
        async with a.stream(pair.ids[1], "pieces", b"") as chunks:
            assert [chunk async for chunk in chunks] == [b"1", b"2"]
        for payload, error in ((b"refuse", RequestRefused), (b"break", RequestFailed)):
            with pytest.raises(error):
                await a.request(pair.ids[1], "answer", payload)
            chunks = a.stream(pair.ids[1], "pieces", payload)
            assert await chunks.__anext__() == b"1"
            with pytest.raises(error):
                await chunks.__anext__()
            await chunks.aclose()
        for method in ("nothing", "pieces"):
            with pytest.raises(RequestRefused, match="no such method"):
                await a.request(pair.ids[1], method, b"")
        missing = a.stream(pair.ids[1], "nothing", b"")
        with pytest.raises(RequestRefused, match="no such method"):
            await missing.__anext__()
        for ask in (a.request, a.stream):
            with pytest.raises(NotConnected):
                ask("ff" * 8, "answer", b"")

    play_pair(kind, story)


def test_silence_in_one_direction() -> None:
    async def story(loop: SimLoop, pair: Pair) -> None:
        a, b = pair.links
        pair.network.silence(*pair.ids)
        a.send_raft(pair.ids[1], GroupUid(1), [note(1)])
        b.send_raft(pair.ids[0], GroupUid(1), [note(2)])
        await until(lambda: notes(pair.heard[0].messages(pair.ids[1])) == [2])
        assert pair.heard[1].batches == []
        assert pair.heard[0].downs == []

    play_pair("memory", story)


def test_a_stopped_twin_is_gone() -> None:
    async def story(loop: SimLoop, pair: Pair) -> None:
        await pair.links[1].stop()
        await until(lambda: [node for node, _ in pair.heard[0].downs] == pair.ids[1:])
        with pytest.raises(NotConnected):
            pair.links[0].request(pair.ids[1], "x", b"")

    play_pair("memory", story)
