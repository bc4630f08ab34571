"""Three processes, and clients on every one of them: what nats-py does works wherever it is connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error, NoRespondersError
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.client import JetStreamContext

from jepsen.real.cluster import ServerCluster
from jepsen.real.process import JETSTORE

pytestmark = pytest.mark.real
NODES = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, require_server: Callable[[str], None]) -> Iterator[ServerCluster]:
    require_server(JETSTORE)
    with ServerCluster(JETSTORE, tmp_path_factory.mktemp("clients")) as started:
        started.start()
        started.create_stream("FIRST")
        yield started


@asynccontextmanager
async def clients(cluster: ServerCluster) -> AsyncIterator[list[Client]]:
    """One on each node."""
    opened: list[Client] = []
    try:
        for node in cluster.nodes:
            client = await nats.connect(f"nats://127.0.0.1:{node.port}", allow_reconnect=False)
            opened.append(client)
        yield opened
    finally:
        for client in opened:
            await client.close()


def play(cluster: ServerCluster, story: Callable[[list[Client]], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), clients(cluster) as opened:
            await story(opened)

    asyncio.run(whole())


async def until(what: Callable[[], Awaitable[Any]]) -> Any:  # Any: what it gives
    """Try until it does not fail any more: what was subscribed elsewhere is heard of soon."""
    while True:
        try:
            return await what()
        except (Error, nats.js.errors.Error):
            await asyncio.sleep(0.01)


async def leader_of(js: JetStreamContext, stream: str) -> int:
    async def ask() -> int:
        info = await js.stream_info(stream)
        assert info.cluster is not None
        assert info.cluster.leader is not None
        return int(info.cluster.leader[1:]) - 1

    return int(await until(ask))


def test_messages_and_requests_cross_between_nodes(cluster: ServerCluster) -> None:
    async def story(opened: list[Client]) -> None:
        heard = [await client.subscribe("news.>") for client in opened]

        async def serve(message: Any) -> None:
            await message.respond(b"to " + message.data)

        await opened[2].subscribe("service", queue="workers", cb=serve)
        for client in opened:
            await client.flush()
        for number, client in enumerate(opened):
            assert (await until(lambda client=client, n=number: client.request("service", b"%d" % n))).data == (
                b"to %d" % number
            )
            await client.publish(f"news.{number}", b"x" * 100, headers={"From": str(number)})
        for subscription in heard:
            got = [await subscription.next_msg(timeout=5) for _ in range(NODES)]
            assert sorted((m.subject, (m.headers or {})["From"]) for m in got) == [
                (f"news.{number}", str(number)) for number in range(NODES)
            ]
        with pytest.raises(NoRespondersError):
            await opened[0].request("nobody", b"?")

    play(cluster, story)


@pytest.mark.parametrize("number", range(NODES))
def test_jetstream_is_whole_on_every_node(cluster: ServerCluster, number: int) -> None:
    async def story(opened: list[Client]) -> None:
        js, name = opened[number].jetstream(), f"S{number}"
        config = StreamConfig(name=name, subjects=[f"{name}.>"], num_replicas=3, allow_direct=True)
        await js.add_stream(config)
        await asyncio.gather(*(js.publish(f"{name}.{at % 5}", b"%d" % at) for at in range(100)))
        assert {(await other.jetstream().add_stream(config)).state.messages for other in opened} == {100}
        config.max_msgs = 1000
        assert (await js.update_stream(config)).config.max_msgs == 1000
        pulled = await js.pull_subscribe(f"{name}.>", durable="pull")
        first = await pulled.fetch(60, timeout=5)
        for message in first:
            await message.ack_sync()
        rest = await (await opened[(number + 1) % NODES].jetstream().pull_subscribe_bind("pull", name)).fetch(40)
        assert [m.metadata.sequence.stream for m in [*first, *rest]] == list(range(1, 101))
        ordered = await js.subscribe(f"{name}.>", ordered_consumer=True)
        assert [(await ordered.next_msg(timeout=5)).metadata.sequence.stream for _ in range(100)] == list(range(1, 101))
        pushed = await js.subscribe(
            f"{name}.3", durable="push", manual_ack=True, config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT)
        )
        for at in range(20):
            message = await pushed.next_msg(timeout=5)
            assert message.data == b"%d" % (5 * at + 3)
            await message.ack_sync()
        last = await js.get_last_msg(name, f"{name}.4", direct=True)
        assert (last.seq, (await js.get_msg(name, 7)).data) == (100, b"6")
        names = {info.config.name for info in await js.streams_info()}
        assert {"FIRST", name} <= names
        bucket = await js.create_key_value(bucket=f"B{number}", replicas=3)
        watcher = await bucket.watchall()
        assert await watcher.updates(timeout=5) is None
        await bucket.put("k", b"v")
        update = await watcher.updates(timeout=5)
        assert update is not None
        assert (update.key, update.value, (await bucket.get("k")).value) == ("k", b"v", b"v")
        assert (await js.purge_stream(name), await js.delete_stream(name)) == (True, True)

    play(cluster, story)


def test_streams_follow_their_leaders(cluster: ServerCluster) -> None:
    """Led by one node after the other, while clients stay where they are."""

    async def story(opened: list[Client]) -> None:
        managers = [client.jetstream() for client in opened]
        js = managers[0]
        moving = StreamConfig(name="MOVING", subjects=["m.>"], num_replicas=3)
        await js.add_stream(moving)
        subscription = await managers[1].pull_subscribe("m.>", durable="c")
        done = 0
        for target in (1, 2, 0):
            await until(lambda: leader_of(js, "MOVING"))
            if await leader_of(js, "MOVING") != target:
                answer = await opened[0].request(
                    "$JS.API.STREAM.LEADER.STEPDOWN.MOVING", b'{"placement":{"preferred":"n%d"}}' % (target + 1), 5
                )
                assert b'"success":true' in answer.data
            assert await leader_of(managers[2], "MOVING") == target
            for each in managers:
                done += 1
                ack = await until(lambda each=each: each.publish("m.x", b"", timeout=1))
                assert ack.seq == done
                assert (await until(lambda each=each: each.add_stream(moving))).state.messages == done
            got: list[int] = []
            while len(got) < NODES:
                for message in await until(lambda: subscription.fetch(NODES, timeout=1)):
                    got.append(message.metadata.sequence.stream)
                    await message.ack_sync()
            assert got == list(range(done - 2, done + 1))

    play(cluster, story)


def test_a_client_goes_on_when_the_leader_is_killed(cluster: ServerCluster) -> None:
    """Who led the metadata is back soon, with the only copy of a stream, and leads the metadata no more."""
    lone = StreamConfig(name="LONE", subjects=["l.>"])

    async def story(opened: list[Client]) -> None:
        await until(lambda: opened[0].jetstream().add_stream(lone))
        leader = await leader_of(opened[0].jetstream(), "LONE")
        assert (await opened[(leader + 1) % NODES].jetstream().publish("l.x", b"")).seq == 1
        await opened[0].jetstream().add_stream(StreamConfig(name="KILL", subjects=["k.>"], num_replicas=3))
        assert leader == await leader_of(opened[0].jetstream(), "KILL")
        js = opened[(leader + 1) % NODES].jetstream()
        assert (await js.publish("k.x", b"")).seq == 1
        cluster.kill([leader])
        assert (await until(lambda: js.publish("k.x", b"", timeout=1))).seq >= 2
        assert await leader_of(js, "KILL") != leader
        cluster.start([leader])
        assert (await until(lambda: js.publish("l.x", b"", timeout=1))).seq == 2
        lone.max_msgs = 50
        for each in (js, opened[(leader + 2) % NODES].jetstream()):
            assert (await each.update_stream(lone)).config.max_msgs == 50
            assert (await each.add_stream(lone)).state.messages == 2
            await each.add_consumer("LONE", ConsumerConfig(durable_name="c"))
        assert {info.config.name for info in await js.streams_info()} >= {"LONE", "KILL"}

    play(cluster, story)
