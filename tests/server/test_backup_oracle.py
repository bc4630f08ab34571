"""Goal: an archive that nats-server makes restores here, and ours there, with everything that an archive carries.

Both servers get the same stream, each sends its archive, and both archives are restored by both.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import APIError
from system_script import Json, oracle_binary, running
from test_system_oracle import differences

from jetstore.node.backup import archive, s2
from jetstore.store.ports import Message

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data" }}"""
STATE = archive.encode_entry(b"state.json", 1, b'{"first_seq":1,"last_seq":3,"consumer_count":0}')
ONE = archive.encode_messages([Message(1, 1, b"s.1", b"", b"x")])
STREAM = {"name": "S", "subjects": ["s.>"], "allow_msg_ttl": True, "allow_direct": True, "max_msgs_per_subject": 30}
QUEUE = {"name": "Q", "subjects": ["q.>"], "retention": "interest"}
CONSUMERS: list[dict[str, Any]] = [
    {"durable_name": "explicit", "ack_policy": "explicit", "ack_wait": 60_000_000_000, "max_deliver": 5},
    {"durable_name": "filtered", "ack_policy": "explicit", "filter_subject": "s.2"},
    {"durable_name": "all", "ack_policy": "all", "backoff": [60_000_000_000, 90_000_000_000], "max_deliver": 3},
    {"durable_name": "none", "ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": 20},
    {"name": "unnamed", "ack_policy": "explicit", "inactive_threshold": 3_600_000_000_000},
]


@asynccontextmanager
async def both(directory: Path) -> AsyncIterator[tuple[Client, Client]]:
    """A client of ours, a client of theirs."""
    binary = oracle_binary()
    assert binary is not None
    places = [directory / "us", directory / "them"]
    for place in places:
        place.mkdir()
    us, them = (CONFIGURATION.format(directory=place) for place in places)
    async with (
        running(places[0], us, sys.executable, "-m", "server.cli.main", "serve") as (our_port, _),
        running(places[1], them, binary) as (their_port, _),
    ):
        clients = [await nats.connect(f"nats://127.0.0.1:{port}") for port in (our_port, their_port)]
        try:
            yield clients[0], clients[1]
        finally:
            for client in clients:
                await client.close()


async def api(client: Client, subject: str, body: Json = None) -> Json:
    payload = b"" if body is None else json.dumps(body).encode()
    return json.loads((await client.request(f"$JS.API.{subject}", payload, timeout=20)).data)


async def fill(client: Client) -> None:
    jetstream = client.jetstream()
    assert "error" not in await api(client, "STREAM.CREATE.S", STREAM)
    for number in range(100):
        headers = {"Nats-Msg-Id": f"id{number}", "X": "ä b"} if number % 7 == 0 else None
        await jetstream.publish(f"s.{number % 4}", b"%d." % number * (number % 50), headers=headers)
    await jetstream.publish("s.ttl", b"an hour", headers={"Nats-TTL": "1h"})
    await jetstream.publish("s.empty", b"")
    await jetstream.publish("s.large", bytes(range(256)) * 1_000)
    await jetstream.publish("s.last", b"to be deleted")
    for seq in (17, 18, 40, 104):
        await jetstream.delete_msg("S", seq)
    for consumer in CONSUMERS:
        name = consumer.get("durable_name", "unnamed")
        created = await api(
            client, f"CONSUMER.CREATE.S.{name}", {"stream_name": "S", "config": {"name": name} | consumer}
        )
        assert "error" not in created, created
    for consumer in CONSUMERS:
        name = str(consumer.get("durable_name", "unnamed"))
        pull = await jetstream.pull_subscribe_bind(consumer=name, stream="S")
        messages = await pull.fetch(8, timeout=10)
        if name == "none":
            continue
        if name == "all":
            await messages[2].ack_sync()
            continue
        for at in (0, 1, 4):
            await messages[at].ack_sync()
        await messages[5].nak()
        while (await pull.fetch(1, timeout=10))[0].metadata.num_delivered != 2:
            pass
    assert "error" not in await api(client, "STREAM.CREATE.Q", QUEUE)
    config = {"durable_name": "w", "ack_policy": "explicit"}
    await api(client, "CONSUMER.CREATE.Q.w", {"stream_name": "Q", "config": config})
    for number in range(10):
        await jetstream.publish("q.a", b"%d" % number)
    pull = await jetstream.pull_subscribe_bind(consumer="w", stream="Q")
    for message in (await pull.fetch(5, timeout=10))[:3]:
        await message.ack_sync()
    await jetstream.purge_stream("Q", seq=5)


async def backup(client: Client, stream: str, **request: Json) -> tuple[Json, bytes]:
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    answer = await api(client, f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox, "chunk_size": 4096} | request)
    assert "error" not in answer, answer
    data = b""
    while (message := await subscription.next_msg(20)).data:
        data += message.data
        if message.reply:
            assert len(message.data) == 4096
            await client.publish(message.reply)
    assert (message.headers or {}).get("Status", "204") == "204"
    await subscription.unsubscribe()
    return answer, data


async def restore(client: Client, taken: Json, data: bytes) -> Json:
    name = taken["config"]["name"]
    answer = await api(client, f"STREAM.RESTORE.{name}", {"config": taken["config"], "state": taken["state"]})
    for start in range(0, len(data), 50_000):
        await client.request(answer["deliver_subject"], data[start : start + 50_000], timeout=20)
    made = json.loads((await client.request(answer["deliver_subject"], b"", timeout=20)).data)
    assert "error" not in made, made
    return made


TIMES = ("created", "ts", "last_active", "cluster", "metadata")


def without_times(value: Json) -> Json:
    """Without what an archive does not carry."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


async def seen(client: Client, stream: str) -> Json:
    info = await api(client, f"STREAM.INFO.{stream}", {"deleted_details": True, "subjects_filter": ">"})
    messages = []
    for seq in range(info["state"]["first_seq"], info["state"]["last_seq"] + 1):
        try:
            found = await client.jetstream().get_msg(stream, seq)
            messages.append([found.seq, found.subject, found.data, found.headers, str(found.time)])
        except APIError:
            messages.append([seq])
    consumers = (await api(client, f"CONSUMER.LIST.{stream}"))["consumers"]
    consumers.sort(key=lambda consumer: str(consumer["name"]))
    return {"state": info["state"], "messages": messages, "consumers": without_times(consumers)}


async def exchange(us: Client, them: Client) -> None:
    """Each restores what itself and what the other has sent."""
    for stream in ("S", "Q"):
        kept = {client: (await seen(client, stream), await backup(client, stream)) for client in (us, them)}
        for name, source in (("ours", us), ("theirs", them)):
            before, archived = kept[source]
            for client in (us, them):
                await api(client, f"STREAM.DELETE.{stream}")
                made = await restore(client, *archived)
                after = await seen(client, stream)
                place = (stream, name, "here" if client is us else "there")
                found = differences(before["state"], after["state"])
                if client is them:  # of a last message that is deleted it forgets the time
                    found = [each for each in found if not each.startswith("last_ts")]
                assert not found, place
                assert after["messages"] == before["messages"], place
                assert not differences(before["consumers"], after["consumers"]), place
                assert made["state"]["messages"] == before["state"]["messages"], place


async def leftovers(client: Client) -> list[Json]:
    """What is left of an interest stream restored without its consumers, and of one whose messages were all gone."""
    found: list[Json] = []
    for stream, request in (("Q", {"no_consumers": True}), ("S", {})):
        if stream == "S":
            await api(client, "STREAM.PURGE.S", {})
        taken, data = await backup(client, stream, **request)
        await api(client, f"STREAM.DELETE.{stream}")
        await restore(client, taken, data)
        after = await seen(client, stream)
        next_seq = (await client.jetstream().publish(f"{stream.lower()}.a", b"next")).seq
        counts = {key: after["state"][key] for key in ("messages", "first_seq", "last_seq")}
        found.append([stream, counts, [each["name"] for each in after["consumers"]], next_seq])
    return found


REQUESTS: list[tuple[str, Json]] = [
    ("SNAPSHOT.S", None),
    ("SNAPSHOT.NO", None),
    ("SNAPSHOT.NO", {"deliver_subject": "a b"}),
    ("SNAPSHOT.S", {}),
    ("SNAPSHOT.S", {"deliver_subject": "a b"}),
    ("SNAPSHOT.S", {"deliver_subject": "a.*"}),
    ("SNAPSHOT.S", {"unknown": 1}),
    ("SNAPSHOT.S", {"chunk_size": "x"}),
    ("RESTORE.S", None),
    ("RESTORE.S", {"config": {"name": "T"}}),
    ("RESTORE.S", {"config": {"name": "S"}}),
    ("RESTORE.S", {"config": {}}),
    ("RESTORE.N", {"config": {"name": "N", "subjects": ["a..b"]}}),
    ("RESTORE.N", {"config": {"name": "N"}, "state": {"unknown": 1}}),
    ("RESTORE.N", {"config": {"name": "N", "max_age": -1}}),
]
ARCHIVES: list[tuple[Json, bytes]] = [
    ({"name": "X", "subjects": ["s.>"]}, s2.MAGIC + s2.plain_chunks(archive.MAGIC + STATE + archive.END)),
    ({"name": "X"}, b""),
    ({"name": "X"}, s2.MAGIC + s2.plain_chunks(archive.MAGIC + archive.END)),
    ({"name": "X"}, s2.MAGIC + s2.plain_chunks(archive.MAGIC + STATE + archive.encode_entry(b"x", 1, b"y"))),
    ({"name": "X"}, s2.MAGIC + s2.plain_chunks(archive.MAGIC + STATE + ONE + ONE + archive.END)),
]


async def refusals(client: Client) -> list[Json]:
    """What is refused, and how, and what is told about it."""
    found: list[Json] = [await api(client, f"STREAM.{subject}", body) for subject, body in REQUESTS]
    told = await client.subscribe("$JS.EVENT.ADVISORY.STREAM.*.X")
    for config, data in ARCHIVES:
        begun = await api(client, "STREAM.RESTORE.X", {"config": config, "state": {}})
        pieces = [data[start : start + 40] for start in range(0, len(data), 40)]
        found += [(await client.request(begun["deliver_subject"], piece)).data for piece in pieces]
        found.append(json.loads((await client.request(begun["deliver_subject"], b"")).data))
        await api(client, "STREAM.DELETE.X")  # nats-server keeps what came before the error
        for _ in range(2):
            message = await told.next_msg(10)
            while "STREAM.CREATED" in message.subject or "STREAM.DELETED" in message.subject:
                message = await told.next_msg(10)
            advisory = json.loads(message.data)
            found.append([message.subject, sorted(advisory), advisory["type"], advisory.get("bytes")])
    return found


def test_each_restores_what_the_other_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with both(tmp_path) as (us, them):
            await asyncio.gather(fill(us), fill(them))
            for ours, theirs in zip(await refusals(us), await refusals(them), strict=True):
                assert ours == theirs
            await exchange(us, them)
            assert await leftovers(us) == await leftovers(them)

    asyncio.run(main())
