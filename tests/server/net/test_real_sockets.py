"""Real sockets and a public client (nats-py), on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

import nats
import pytest
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from jetstore.clock import RealClock
from jetstore.node.ports import Inbound
from server.auth.authenticator import Authenticator
from server.net.client_server import ClientServer
from server.net.options import NetOptions
from server.protocol.info import ServerInfo
from server.route.router import Router

LIMIT_S = 20.0


class Running:
    """A server on a free port and clients of it."""

    def __init__(self, options: NetOptions, authenticator: Authenticator) -> None:
        loop = asyncio.get_running_loop()
        info = ServerInfo("N" + "A" * 55, "n1", "2.15.1", "0", "python", "127.0.0.1", 0, 1 << 20)
        self.router = Router("$G", Random(1), loop.call_soon)
        self.server = ClientServer(options, info, authenticator, self.router, RealClock(), Random(2), loop)
        self.port = 0

    async def start(self) -> None:
        self.port = self.server.info.port = await self.server.start("127.0.0.1", -1)

    async def connect(self, **options: object) -> Client:
        return await nats.connect(f"nats://127.0.0.1:{self.port}", allow_reconnect=False, **options)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the server has no events for what these tests wait for
        await asyncio.sleep(0)


Scenario = Callable[[Running], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a scenario with a server, on one of the two loops."""

    def run_scenario(
        scenario: Scenario, options: NetOptions | None = None, authenticator: Authenticator | None = None
    ) -> None:
        async def main() -> None:
            running = Running(options or NetOptions(), authenticator or Authenticator())
            await running.start()
            try:
                await asyncio.wait_for(scenario(running), LIMIT_S)
            finally:
                await running.server.stop(grace_s=1.0)
            assert running.server.connections == {}
            assert len(running.router.sublist) == 0

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run_scenario


def test_publish_and_subscribe_with_headers(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        one, two = await running.connect(), await running.connect()
        subscription = await one.subscribe("foo.*")
        await one.flush()
        await two.publish("foo.a", b"hello", headers={"A": "1", "B": "x y"})
        await two.publish("foo.b", b"", reply="r")
        first, second = await subscription.next_msg(LIMIT_S), await subscription.next_msg(LIMIT_S)
        assert (first.subject, first.data, first.headers) == ("foo.a", b"hello", {"A": "1", "B": "x y"})
        assert (second.subject, second.data, second.reply) == ("foo.b", b"", "r")
        await one.close()
        await two.close()

    run(scenario)


def test_requests_and_no_responders(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        service, client = await running.connect(), await running.connect()

        async def answer(message: Msg) -> None:
            await message.respond(message.data)

        await service.subscribe("echo", cb=answer)
        await service.flush()
        replies = await asyncio.gather(*(client.request("echo", b"%d" % i, timeout=LIMIT_S) for i in range(10, 60)))
        assert [reply.data for reply in replies] == [b"%d" % i for i in range(10, 60)]
        old_style = await client.request("echo", b"old", timeout=LIMIT_S, old_style=True)
        assert old_style.data == b"old"
        with pytest.raises(NoRespondersError):
            await client.request("nobody", b"", timeout=LIMIT_S)
        await client.close()
        await service.close()

    run(scenario)


def test_queue_groups_share(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        members, publisher = [await running.connect() for _ in range(3)], await running.connect()
        got: Counter[int] = Counter()
        done = asyncio.Event()

        def collect(member: int) -> Callable[[Msg], Awaitable[None]]:
            async def callback(message: Msg) -> None:
                got[member] += 1
                if sum(got.values()) == 300:
                    done.set()

            return callback

        for at, member in enumerate(members):
            await member.subscribe("work.>", queue="q", cb=collect(at))
            await member.flush()
        for i in range(300):
            await publisher.publish(f"work.{i}", b"x")
        await done.wait()
        assert min(got.values()) > 50
        for client in (*members, publisher):
            await client.close()

    run(scenario)


def test_drain_delivers_what_was_on_its_way(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        subscriber, publisher = await running.connect(), await running.connect()
        got: list[bytes] = []

        async def collect(message: Msg) -> None:
            got.append(message.data)

        await subscriber.subscribe("a", cb=collect)
        await subscriber.flush()
        for i in range(1000):
            await publisher.publish("a", b"%d" % i)
        await publisher.flush()
        await subscriber.drain()
        assert got == [b"%d" % i for i in range(1000)]
        await publisher.drain()

    run(scenario)


def test_megabyte_messages(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect()
        subscription = await client.subscribe("big")
        bodies = [bytes([i]) * (1 << 20) for i in range(5)]
        for body in bodies:
            await client.publish("big", body)
        assert [(await subscription.next_msg(LIMIT_S)).data for _ in bodies] == bodies
        await client.close()

    run(scenario)


def test_handlers_answer_publishers(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        class Stream:
            last = 0

            def on_messages(self, batch: Inbound) -> None:
                seqs = range(self.last + 1, self.last + 1 + len(batch.payloads))
                self.last += len(batch.payloads)
                asyncio.get_running_loop().call_soon(running.router.pub_acks, b"S", batch.replies, list(seqs))

        handle = running.router.subscribe(b"orders.>", Stream())
        client = await running.connect()
        context = client.jetstream(timeout=LIMIT_S)
        acks = await asyncio.gather(*(context.publish(f"orders.{i}", b"x") for i in range(200)))
        assert sorted(ack.seq for ack in acks) == list(range(1, 201))
        handle.close()
        await client.close()

    run(scenario)


def test_token(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        client = await running.connect(token="s3cret")
        await client.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b'CONNECT {"auth_token":"wrong"}\r\n')
        assert (await reader.read()).endswith(b"\r\n-ERR 'Authorization Violation'\r\n")
        writer.close()

    run(scenario, None, Authenticator(token="s3cret"))


def test_stop_sends_what_is_owed_and_then_closes(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1 << 24)
        writer.write(b'CONNECT {"verbose":false}\r\nSUB a 1\r\nPING\r\n')
        while await reader.readline() != b"PONG\r\n":
            pass
        body = b"x" * 4_000_000
        running.router.publish([b"a"], (), [body])
        stopping = asyncio.ensure_future(running.server.stop(grace_s=LIMIT_S))
        assert await reader.read() == b"MSG a 1 4000000\r\n" + body + b"\r\n"
        writer.close()
        await stopping

    run(scenario)


def test_a_peer_that_resets_is_forgotten(run: Callable[..., None]) -> None:
    async def scenario(running: Running) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"SUB a 1\r\nPUB a 100000\r\n" + b"x" * 5000)
        await until(lambda: len(running.router.sublist) == 1)
        writer.transport.abort()
        await until(lambda: not running.server.connections)

    run(scenario)
