"""What applications do through nats-py, the same on jetstore and on nats-server (which says that the test is right)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import (
    APIError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
    NotFoundError,
    ObjectNotFoundError,
)

from jepsen.real.process import ServerProcess

pytestmark = pytest.mark.asyncio
WAIT_S = 20


@asynccontextmanager
async def connected(server: ServerProcess) -> AsyncIterator[tuple[Client, JetStreamContext]]:
    """A client and its JetStream context; any asynchronous error of the client fails the test."""
    errors: list[Exception] = []

    async def failed(error: Exception) -> None:
        errors.append(error)

    client = await nats.connect(f"nats://127.0.0.1:{server.port}", error_cb=failed, allow_reconnect=False)
    try:
        yield client, client.jetstream(timeout=WAIT_S)
    finally:
        await client.close()
    assert errors == []


# -- core ---------------------------------------------------------------------------------------------------------


async def test_publish_subscribe_queue_and_headers(server: ServerProcess) -> None:
    async with connected(server) as (client, _):
        plain = await client.subscribe("greet.*")
        tail = await client.subscribe("greet.>")
        queue = [await client.subscribe("greet.joe", queue="workers") for _ in range(2)]
        for number in range(10):
            await client.publish("greet.joe", b"hello %d" % number, headers={"Number": str(number)})
        await client.flush()
        for number in range(10):
            message = await plain.next_msg(WAIT_S)
            assert (message.subject, message.data) == ("greet.joe", b"hello %d" % number)
            assert message.headers == {"Number": str(number)}
            assert (await tail.next_msg(WAIT_S)).data == message.data
        assert sum(subscription.pending_msgs for subscription in queue) == 10


async def test_request_reply_and_no_responders(server: ServerProcess) -> None:
    async with connected(server) as (client, _):

        async def double(message: Msg) -> None:
            await message.respond(message.data * 2)

        await client.subscribe("double", cb=double)
        answers = await asyncio.gather(*(client.request("double", b"%d" % n, WAIT_S) for n in range(20)))
        assert [answer.data for answer in answers] == [b"%d%d" % (n, n) for n in range(20)]
        with pytest.raises(NoRespondersError):
            await client.request("nobody.here", b"", WAIT_S)


async def test_unsubscribe_after_a_number_of_messages_and_drain(server: ServerProcess) -> None:
    async with connected(server) as (client, _):
        limited = await client.subscribe("some")
        await limited.unsubscribe(limit=3)
        drained = await client.subscribe("some")
        for number in range(5):
            await client.publish("some", b"%d" % number)
        await client.flush()
        assert [(await limited.next_msg(WAIT_S)).data for _ in range(3)] == [b"0", b"1", b"2"]
        assert [(await drained.next_msg(WAIT_S)).data for _ in range(5)] == [b"%d" % number for number in range(5)]
        await drained.drain()


async def test_payload_of_max_size_and_one_more(server: ServerProcess) -> None:
    async with connected(server) as (client, _):
        subscription = await client.subscribe("large")
        data = os.urandom(client.max_payload)
        await client.publish("large", data)
        assert (await subscription.next_msg(WAIT_S)).data == data
        with pytest.raises(nats.errors.MaxPayloadError):
            await client.publish("large", data + b"x")


# -- streams ------------------------------------------------------------------------------------------------------


async def test_publish_get_and_stream_info(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        created = await js.add_stream(name="ORDERS", subjects=["orders.>"])
        assert created.config.storage == StorageType.FILE
        for number in range(5):
            ack = await js.publish(f"orders.{number % 2}", b"%d" % number, headers={"N": str(number)})
            assert (ack.stream, ack.seq, ack.duplicate) == ("ORDERS", number + 1, None)
        info = await js.stream_info("ORDERS", subjects_filter=">")
        assert (info.state.messages, info.state.first_seq, info.state.last_seq) == (5, 1, 5)
        assert info.state.subjects == {"orders.0": 3, "orders.1": 2}
        message = await js.get_msg("ORDERS", 3)
        assert (message.subject, message.data, message.seq) == ("orders.0", b"2", 3)
        assert message.headers == {"N": "2"}
        assert (await js.get_last_msg("ORDERS", "orders.1")).seq == 4
        with pytest.raises(NotFoundError):
            await js.get_msg("ORDERS", 9)
        assert await js.delete_msg("ORDERS", 3)
        with pytest.raises(NotFoundError):
            await js.get_msg("ORDERS", 3)
        assert (await js.stream_info("ORDERS")).state.num_deleted == 1
        with pytest.raises(NoStreamResponseError):
            await js.publish("elsewhere", b"")


async def test_stream_create_update_list_delete(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        for name in ("ONE", "TWO", "THREE"):
            await js.add_stream(name=name, subjects=[f"{name}.>"])
        again = await js.add_stream(name="ONE", subjects=["ONE.>"])
        assert again.config.name == "ONE"
        with pytest.raises(APIError) as refused:
            await js.add_stream(name="ONE", subjects=["other"])
        assert refused.value.err_code == 10058
        with pytest.raises(APIError) as refused:
            await js.add_stream(name="OVERLAP", subjects=["ONE.x"])
        assert refused.value.err_code == 10065
        config = again.config
        config.max_msgs = 10
        assert (await js.update_stream(config)).config.max_msgs == 10
        assert sorted(str(info.config.name) for info in await js.streams_info()) == ["ONE", "THREE", "TWO"]
        assert await js.find_stream_name_by_subject("TWO.x") == "TWO"
        assert await js.delete_stream("TWO")
        with pytest.raises(NotFoundError):
            await js.stream_info("TWO")
        account = await js.account_info()
        assert account.streams == 2


async def test_limits_purge_and_retention(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="LAST", subjects=["last.*"], max_msgs_per_subject=2, max_msgs=5)
        for number in range(12):
            await js.publish(f"last.{number % 4}", b"%d" % number)
        info = await js.stream_info("LAST")
        assert (info.state.messages, info.state.last_seq) == (5, 12)
        assert await counts(js, "LAST") == {"last.0": 1, "last.1": 1, "last.2": 1, "last.3": 2}
        await js.purge_stream("LAST", subject="last.3")
        assert await counts(js, "LAST") == {"last.0": 1, "last.1": 1, "last.2": 1}
        await js.purge_stream("LAST")
        state = (await js.stream_info("LAST")).state
        assert (state.messages, state.first_seq, state.last_seq) == (0, 13, 12)
        await js.add_stream(name="WORK", subjects=["work"], retention=RetentionPolicy.WORK_QUEUE)
        for number in range(3):
            await js.publish("work", b"%d" % number)
        worker = await js.pull_subscribe("work", "worker")
        for message in await worker.fetch(2, timeout=WAIT_S):
            await message.ack_sync(WAIT_S)
        assert (await js.stream_info("WORK")).state.messages == 1


async def counts(js: JetStreamContext, stream: str) -> dict[str, int]:
    """Messages by subject."""
    return (await js.stream_info(stream, subjects_filter=">")).state.subjects or {}


async def test_dedupe_and_expectations(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="ONCE", subjects=["once.*"])
        first = await js.publish("once.a", b"1", headers={"Nats-Msg-Id": "id-1"})
        again = await js.publish("once.a", b"1", headers={"Nats-Msg-Id": "id-1"})
        assert (again.seq, again.duplicate) == (first.seq, True)
        await js.publish("once.a", b"2", headers={"Nats-Expected-Last-Sequence": "1"})
        for headers, err_code in (
            ({"Nats-Expected-Last-Sequence": "1"}, 10071),
            ({"Nats-Expected-Last-Msg-Id": "id-2"}, 10070),
            ({"Nats-Expected-Stream": "TWICE"}, 10060),
            ({"Nats-Expected-Last-Subject-Sequence": "1"}, 10071),
        ):
            with pytest.raises(APIError) as refused:
                await js.publish("once.a", b"x", headers=headers)
            assert refused.value.err_code == err_code
        await js.publish("once.b", b"3", headers={"Nats-Expected-Last-Subject-Sequence": "0"})
        assert (await js.stream_info("ONCE")).state.messages == 3


async def test_message_ttl(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(
            StreamConfig(name="TTL", subjects=["ttl.*"], allow_msg_ttl=True, subject_delete_marker_ttl=1.0)
        )
        expired = await js.subscribe("ttl.short", ordered_consumer=True, deliver_policy=DeliverPolicy.NEW)
        await js.publish("ttl.short", b"1", msg_ttl=1.0)
        await js.publish("ttl.long", b"2")
        assert (await expired.next_msg(WAIT_S)).data == b"1"
        marker = await expired.next_msg(WAIT_S)
        assert marker.headers is not None
        assert marker.headers["Nats-Marker-Reason"] == "MaxAge"
        with pytest.raises(NotFoundError):
            await js.get_msg("TTL", 1)
        assert (await js.get_msg("TTL", 2)).data == b"2"


async def test_many_publishes_in_flight_get_their_own_answers(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="MANY", subjects=["many"])
        acks = await asyncio.gather(*(js.publish("many", b"%d" % number) for number in range(500)))
        assert sorted(ack.seq for ack in acks) == list(range(1, 501))
        for number in (0, 17, 499):
            assert (await js.get_msg("MANY", acks[number].seq)).data == b"%d" % number


# -- consumers ----------------------------------------------------------------------------------------------------


async def test_pull_ack_nak_term_and_redelivery(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="JOBS", subjects=["jobs"])
        for number in range(4):
            await js.publish("jobs", b"%d" % number)
        config = ConsumerConfig(ack_wait=1.0, max_deliver=3)
        puller = await js.pull_subscribe("jobs", "puller", config=config)
        acked, refused, ended, left = await puller.fetch(4, timeout=WAIT_S)
        await acked.ack_sync(WAIT_S)
        await refused.nak()
        await ended.term()
        seen = {}
        while len(seen) < 2:
            for message in await puller.fetch(2, timeout=WAIT_S):
                seen[message.data] = message.metadata.num_delivered
                await message.ack_sync(WAIT_S)
        assert seen == {refused.data: 2, left.data: 2}
        info = await puller.consumer_info()
        assert (info.num_ack_pending, info.num_pending, info.ack_floor.stream_seq) == (0, 0, 4)
        with pytest.raises(nats.errors.TimeoutError):
            await puller.fetch(1, timeout=0.2)


async def test_two_pullers_share_one_consumer(server: ServerProcess) -> None:
    async with connected(server) as (_, js), connected(server) as (_, other):
        await js.add_stream(name="SHARED", subjects=["shared"])
        pullers = [await context.pull_subscribe("shared", "both") for context in (js, other)]
        seen: list[int] = []

        async def work(puller: JetStreamContext.PullSubscription) -> None:
            while len(seen) < 20:
                try:
                    batch = await puller.fetch(5, timeout=0.5)
                except TimeoutError:  # the client's own, or (on a slow machine) that of asyncio
                    continue
                for message in batch:
                    seen.append(int(message.data))
                    await message.ack_sync(WAIT_S)

        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            for puller in pullers:
                group.create_task(work(puller))
            for number in range(20):
                await js.publish("shared", b"%d" % number)
        assert sorted(seen) == list(range(20))


async def test_push_consumers(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="EVENTS", subjects=["events.>"])
        for number in range(10):
            await js.publish(f"events.{number % 2}", b"%d" % number)
        durable = await js.subscribe("events.1", durable="odd")
        for number in (1, 3, 5, 7, 9):
            message = await durable.next_msg(WAIT_S)
            assert message.data == b"%d" % number
            await message.ack_sync(WAIT_S)
        await durable.unsubscribe()
        by_sequence = await js.subscribe(
            "events.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=8)
        )
        assert [(await by_sequence.next_msg(WAIT_S)).metadata.sequence.stream for _ in range(3)] == [8, 9, 10]
        last = await js.subscribe("events.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT))
        assert [(await last.next_msg(WAIT_S)).data for _ in range(2)] == [b"8", b"9"]
        fresh = await js.subscribe("events.>", config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW))
        await js.publish("events.new", b"new")
        assert (await fresh.next_msg(WAIT_S)).data == b"new"


async def test_queue_group_of_a_push_consumer(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="Q", subjects=["q"])
        members = [await js.subscribe("q", queue="group") for _ in range(2)]
        for number in range(20):
            await js.publish("q", b"%d" % number)
        seen: list[int] = []
        async with asyncio.timeout(WAIT_S):
            while len(seen) < 20:
                for member in members:
                    while member.pending_msgs:
                        message = await member.next_msg(WAIT_S)
                        seen.append(int(message.data))
                        await message.ack()
                await asyncio.sleep(0)
        assert sorted(seen) == list(range(20))


async def test_ordered_consumer(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="LOG", subjects=["log"])
        for number in range(300):
            await js.publish("log", b"%d" % number)
        ordered = await js.subscribe("log", ordered_consumer=True)
        for number in range(300):
            assert (await ordered.next_msg(WAIT_S)).data == b"%d" % number


async def test_consumer_create_info_list_delete(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="C", subjects=["c.>"])
        for name in ("one", "two"):
            await js.add_consumer("C", ConsumerConfig(durable_name=name, ack_policy=AckPolicy.EXPLICIT))
        info = await js.consumer_info("C", "one")
        assert (info.name, info.stream_name, info.num_pending) == ("one", "C", 0)
        assert sorted(each.name for each in await js.consumers_info("C")) == ["one", "two"]
        assert await js.delete_consumer("C", "one")
        with pytest.raises(NotFoundError):
            await js.consumer_info("C", "one")
        filtered = ConsumerConfig(durable_name="filtered", filter_subjects=["c.a", "c.b.*"])
        await js.add_consumer("C", filtered)
        for subject in ("c.a", "c.b.x", "c.c"):
            await js.publish(subject, subject.encode())
        puller = await js.pull_subscribe_bind("filtered", "C")
        assert [message.data for message in await puller.fetch(2, timeout=WAIT_S)] == [b"c.a", b"c.b.x"]
        assert (await js.consumer_info("C", "filtered")).num_pending == 0


# -- key-value ----------------------------------------------------------------------------------------------------


async def test_kv_put_get_create_update_delete_purge(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        bucket = await js.create_key_value(bucket="KV", history=5)
        assert await bucket.put("name", b"one") == 1
        entry = await bucket.get("name")
        assert (entry.value, entry.revision) == (b"one", 1)
        assert await bucket.update("name", b"two", last=1) == 2
        with pytest.raises(KeyWrongLastSequenceError):
            await bucket.update("name", b"three", last=1)
        with pytest.raises(KeyWrongLastSequenceError):
            await bucket.create("name", b"x")
        assert (await bucket.get("name", revision=1)).value == b"one"
        assert await bucket.delete("name")
        with pytest.raises(KeyNotFoundError):
            await bucket.get("name")
        assert await bucket.create("name", b"again") == 4
        with pytest.raises(KeyNotFoundError):
            await bucket.get("other")
        assert [each.revision for each in await bucket.history("name")] == [1, 2, 3, 4]
        assert await bucket.purge("name")
        assert [each.operation for each in await bucket.history("name")] == ["PURGE"]
        await bucket.put("a.b", b"1")
        await bucket.put("c", b"2")
        assert sorted(await bucket.keys()) == ["a.b", "c"]
        status = await bucket.status()
        assert (status.bucket, status.history) == ("KV", 5)
        assert await js.delete_key_value("KV")
        with pytest.raises(BucketNotFoundError):
            await js.key_value("KV")


async def test_kv_watch(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        bucket = await js.create_key_value(bucket="W")
        await bucket.put("a", b"1")
        await bucket.put("b", b"2")
        watcher = await bucket.watchall()
        first = [await watcher.updates(WAIT_S) for _ in range(3)]
        assert [entry and (entry.key, entry.value) for entry in first] == [("a", b"1"), ("b", b"2"), None]
        await bucket.put("a", b"3")
        await bucket.delete("b")
        changes = [await watcher.updates(WAIT_S) for _ in range(2)]
        assert [(entry.key, entry.value or b"", entry.operation) for entry in changes if entry] == [
            ("a", b"3", None),
            ("b", b"", "DEL"),
        ]
        await watcher.stop()


async def test_kv_time_to_live(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        bucket = await js.create_key_value(KeyValueConfig(bucket="T", ttl=1.0, limit_marker_ttl=1.0))
        watcher = await bucket.watch("short")
        assert await watcher.updates(WAIT_S) is None
        await bucket.put("short", b"1")
        for value in (b"1", b""):  # it, and the marker that says that it has expired
            entry = await watcher.updates(WAIT_S)
            assert entry is not None
            assert (entry.value or b"") == value
        with pytest.raises(NotFoundError):
            await js.get_msg("KV_T", 1)
        await watcher.stop()


# -- object store -------------------------------------------------------------------------------------------------


async def test_object_store(server: ServerProcess) -> None:
    async with connected(server) as (_, js):
        store = await js.create_object_store(bucket="FILES")
        data = os.urandom(3_000_000)
        info = await store.put("photo", data)
        assert (info.size, info.chunks) == (len(data), 23)
        assert (await store.get("photo")).data == data
        smaller = os.urandom(1000)
        await store.put("photo", smaller)
        assert (await store.get("photo")).data == smaller
        await store.put("other", b"")
        assert sorted(each.name for each in await store.list()) == ["other", "photo"]
        await store.delete("photo")
        with pytest.raises(ObjectNotFoundError):
            await store.get("photo")
        status = await store.status()
        assert status.bucket == "FILES"


# -- restart ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_everything_is_there_after_a_restart(server: ServerProcess, how: str) -> None:
    async with connected(server) as (_, js):
        await js.add_stream(name="KEEP", subjects=["keep.>"])
        for number in range(100):
            await js.publish(f"keep.{number % 3}", b"%d" % number, headers={"Nats-Msg-Id": str(number)})
        puller = await js.pull_subscribe("keep.>", "durable")
        for message in await puller.fetch(10, timeout=WAIT_S):
            await message.ack_sync(WAIT_S)
        await js.delete_msg("KEEP", 50)
        bucket = await js.create_key_value(bucket="KEPT")
        await bucket.put("key", b"value")
    if how == "stop":
        server.stop()
    else:
        server.kill()
    server.start()
    async with connected(server) as (_, js):
        state = (await js.stream_info("KEEP")).state
        assert (state.messages, state.last_seq, state.num_deleted) == (99, 100, 1)
        assert (await js.publish("keep.0", b"x", headers={"Nats-Msg-Id": "99"})).duplicate
        assert (await js.publish("keep.0", b"new")).seq == 101
        puller = await js.pull_subscribe("keep.>", "durable")
        if how == "stop" or server.server == "jetstore":
            assert (await puller.fetch(1, timeout=WAIT_S))[0].metadata.sequence.stream == 11
        assert (await (await js.key_value("KEPT")).get("key")).value == b"value"
