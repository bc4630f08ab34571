"""Snapshots and restores over the simulated network, and what must be the same on both sides of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from damaged_store import create, put, take

from jepsen.sim.client import ApiFailure, Client, Msg

CHUNK_BYTES = 1_500
CONSUMER = {"stream_name": "S", "config": {"durable_name": "F", "ack_policy": "explicit", "filter_subject": "s.1"}}


async def fill(client: Client) -> None:
    """S with gaps, headers, times to live and two consumers; one has pending messages and one delivered twice."""
    await create(client, {"allow_msg_ttl": True})
    await put(client, 1, 40)
    for number in (41, 42):
        headers = {"Nats-Msg-Id": str(number), "Nats-TTL": "10m" if number == 41 else "never", "X": "y"}
        await client.request("s.1", b"with headers", headers=headers)
    await client.api("CONSUMER.CREATE.S.F", CONSUMER)
    await take(client, 5)
    got: list[Msg] = []

    def on_message(message: Msg | None) -> None:
        if message is not None and message.reply:
            got.append(message)

    client.subscribe("pull", on_message)
    client.publish("$JS.API.CONSUMER.MSG.NEXT.S.C", b'{"batch":4,"expires":1000000000}', reply="pull")
    await asyncio.sleep(2)
    client.publish(got[1].reply, b"+ACK")
    client.publish(got[2].reply, b"-NAK")
    client.publish("$JS.API.CONSUMER.MSG.NEXT.S.C", b'{"batch":1,"expires":1000000000}', reply="pull")
    await asyncio.sleep(2)
    for seq in (2, 20, 21, 22):
        await client.api("STREAM.MSG.DELETE.S", {"seq": seq})
    await client.api("STREAM.PURGE.S", {"seq": 2})


async def seen(client: Client, stream: str = "S") -> dict[str, Any]:
    """Everything of a stream that an archive carries."""
    info = await client.api(f"STREAM.INFO.{stream}", {"deleted_details": True})
    messages = []
    for seq in range(1, info["state"]["last_seq"] + 1):
        try:
            messages.append((await client.api(f"STREAM.MSG.GET.{stream}", {"seq": seq}))["message"])
        except ApiFailure as failure:
            messages.append({"missing": failure.err_code})
    consumers = (await client.api(f"CONSUMER.LIST.{stream}"))["consumers"]
    for consumer in consumers:
        for name in ("created", "ts"):
            consumer.pop(name)
        for name in ("delivered", "ack_floor"):
            consumer[name].pop("last_active", None)
    return {"config": info["config"], "state": info["state"], "messages": messages, "consumers": consumers}


async def snapshot(
    client: Client, stream: str = "S", *, acks: int = 1 << 30, **request: Any
) -> tuple[dict[str, Any], list[Msg]]:
    """The answer, and every message to the deliver subject up to the empty one. ``acks``: how many are given."""
    got: list[Msg] = []
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_message(message: Msg | None) -> None:
        if message is None:
            return
        got.append(message)
        if message.reply and len(got) <= acks:
            client.publish(message.reply, b"")
        if not message.data and not done.done():
            done.set_result(None)

    client.subscribe("backup", on_message)
    answer = await client.api(f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": "backup"} | request)
    async with asyncio.timeout(60):
        await done
    return answer, got


def joined(chunks: list[Msg]) -> bytes:
    """The archive."""
    return b"".join(chunk.data for chunk in chunks)


async def restore(
    client: Client, archive: bytes, config: dict[str, Any], *, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, Any]:
    """The final answer. Every chunk's own must be empty."""
    name = config["name"]
    begun = await client.api(f"STREAM.RESTORE.{name}", {"config": config, "state": {}})
    subject = begun["deliver_subject"]
    for start in range(0, len(archive), chunk_bytes):
        answer = await client.request(subject, archive[start : start + chunk_bytes])
        assert answer.data == b""
    answer = await client.request(subject, b"")
    found: dict[str, Any] = json.loads(answer.data)
    assert found["type"] == "io.nats.jetstream.api.v1.stream_create_response"
    return found
