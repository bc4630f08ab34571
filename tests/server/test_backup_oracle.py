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

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import APIError
from system_script import Json, oracle_binary, running
from test_system_oracle import differences

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data" }}"""
STREAM = {"name": "S", "subjects": ["s.>"], "allow_msg_ttl": True, "allow_direct": True, "max_msgs_per_subject": 30}
QUEUE = {"name": "Q", "subjects": ["q.>"], "retention": "interest"}
CONSUMERS = [
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


def test_each_restores_what_the_other_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with both(tmp_path) as (us, them):
            await asyncio.gather(fill(us), fill(them))
            await exchange(us, them)
            assert await leftovers(us) == await leftovers(them)

    asyncio.run(main())
