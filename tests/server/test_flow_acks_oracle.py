"""Consumers that are acknowledged by answers to flow control requests: what a subscriber hears, beside nats-server."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg
from system_script import Json, oracle_binary, running

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", max_mem: 1G, max_file: 1G }}
"""
CONSUMER = {"durable_name": "C", "name": "C", "ack_policy": "flow_control", "deliver_subject": "to"}
OTHERS: list[dict[str, Json]] = [
    {"inactive_threshold": 10_000_000_000},
    {"headers_only": True},
    {"rate_limit_bps": 1_000_000},
    {"replay_policy": "original"},
    {"deliver_policy": "last_per_subject", "filter_subject": "s.>"},
    {"deliver_group": "g"},
]
ANSWERS = [(2, 1), (3, 4), (4, 4), (8, 8), ("x", 9), (11, 11), (12, 12)]
"""Last consumer and stream sequence; what settles nothing is asked again with the next heartbeat."""


async def answers(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, _):
        client = await nats.connect(f"nats://127.0.0.1:{port}")

        async def ask(subject: str, body: Json = None) -> Json:
            return json.loads((await client.request(f"$JS.API.{subject}", json.dumps(body or {}).encode())).data)

        async def tell() -> None:
            info, state = await ask("CONSUMER.INFO.S.C"), (await ask("STREAM.INFO.S"))["state"]
            places = [
                [info[name][kind] for kind in ("consumer_seq", "stream_seq")] for name in ("delivered", "ack_floor")
            ]
            found.append([places, info["num_ack_pending"], info["num_pending"], state["messages"], state["first_seq"]])

        await ask("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "retention": "workqueue"})
        for number in range(12):
            await client.request(f"s.{number}", b"x")
        made = await ask("CONSUMER.CREATE.S.C", {"stream_name": "S", "config": CONSUMER | {"max_ack_pending": 5}})
        found.append(without_level(made))
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        await client.subscribe("to", cb=heard.put)
        for consumer_seq, stream_seq in ANSWERS:
            reply = await until_asked(heard, found)
            await tell()
            named = {"Nats-Last-Consumer": str(consumer_seq), "Nats-Last-Stream": str(stream_seq)}
            await client.publish(reply, headers=named)
        async with asyncio.timeout(10):
            while (await ask("CONSUMER.INFO.S.C"))["num_ack_pending"]:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.02)
        await tell()
        await ask("STREAM.CREATE.L", {"name": "L", "subjects": ["l.>"]})
        for number, other in enumerate(OTHERS):
            config = {"name": f"c{number}", "ack_policy": "flow_control", "deliver_subject": "elsewhere", **other}
            made = await ask(f"CONSUMER.CREATE.L.c{number}", {"stream_name": "L", "config": config})
            found.append(without_level(made))
        await client.close()
    return found


def without_level(made: Json) -> Json:
    """The configuration or the error; without the server's own level."""
    made.get("config", {}).get("metadata", {}).pop("_nats.level", None)
    return made.get("config") or made["error"]


async def until_asked(heard: asyncio.Queue[Msg], found: list[Json]) -> str:
    """Note everything up to the next request, and return its subject; heartbeats are not counted."""
    while True:
        message = await asyncio.wait_for(heard.get(), 10)
        if not message.headers:
            words = message.reply.split(".")
            found.append([message.subject, *words[2:7], words[8]])
        elif message.headers.get("Description") == "FlowControl Request" or message.reply:
            return message.reply


def test_a_subscriber_that_answers(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> list[list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = answers(tmp_path / "theirs", binary)
        ours = answers(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")
        return list(await asyncio.gather(theirs, ours))

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there
