"""A JetStream domain, beside a nats-server's: the API under its second name, and everything that names the domain."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
from nats.errors import NoRespondersError
from system_script import Json, oracle_binary, running
from test_accounts_jetstream_oracle import comparable
from test_system_oracle import get

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", domain: hub }}
accounts {{
  $SYS {{ users [ {{user: admin, password: x}} ] }}
  A {{ jetstream: enabled, users [ {{user: a, password: x}} ] }}
}}
no_auth_user: a"""
STREAM = {"name": "S", "subjects": ["s.>"], "allow_direct": True, "allow_atomic": True}
BATCH = {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"}
CONSUMER = {"stream_name": "S", "config": {"durable_name": "c", "name": "c", "ack_policy": "explicit"}}
REQUESTS: list[tuple[str, Json, dict[str, str] | None]] = [
    ("$JS.API.INFO", None, None),
    ("$JS.hub.API.INFO", None, None),
    ("$JS.other.API.INFO", None, None),
    ("$JS.hub.API.NOTHING", None, None),
    ("$JS.hub.API.STREAM.CREATE.S", STREAM, None),
    ("$JS.API.STREAM.CREATE.N", {"name": "N", "subjects": ["n"], "allow_msg_counter": True}, None),
    ("$JS.hub.API.STREAM.INFO.S", None, None),
    ("$JS.API.STREAM.LIST", None, None),
    ("$JS.hub.API.STREAM.NAMES", None, None),
    ("$JS.API.STREAM.UPDATE.S", {**STREAM, "description": "x"}, None),
    ("s.1", "plain", None),
    ("s.1", "named", {"Nats-Msg-Id": "1"}),
    ("s.1", "named", {"Nats-Msg-Id": "1"}),
    ("s.1", "refused", {"Nats-Expected-Last-Sequence": "9"}),
    ("s.1", "batch", BATCH),
    ("n", "", {"Nats-Incr": "5"}),
    ("$JS.hub.API.CONSUMER.CREATE.S.c", CONSUMER, None),
    ("$JS.hub.API.CONSUMER.INFO.S.c", None, None),
    ("$JS.hub.API.STREAM.MSG.GET.S", {"seq": 1}, None),
    ("$JS.hub.API.CONSUMER.PAUSE.S.c", {"pause_until": "2099-01-01T00:00:00Z"}, None),
    ("$JS.hub.API.CONSUMER.PAUSE.S.c", {"pause_until": "2020-01-01T00:00:00Z"}, None),
    ("$JS.hub.API.CONSUMER.INFO.S.c", None, None),
    ("$JS.hub.API.CONSUMER.DELETE.S.c", None, None),
    ("$JS.hub.API.STREAM.DELETE.S", None, None),
]


async def answer_of(client: nats.NATS, subject: str, body: Json, headers: dict[str, str] | None) -> Json:
    data = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
    try:
        answer = json.loads((await client.request(subject, data, timeout=5, headers=headers)).data)
    except NoRespondersError:
        return "no responders"
    for volatile in ("api", "pause_remaining"):
        answer.pop(volatile, None)
    return list(answer.items())  # in their order


async def seen(directory: Path, *command: str) -> list[Json]:
    """What a server answers, tells and shows."""
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, http):
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        admin = await nats.connect(f"nats://admin:x@127.0.0.1:{port}")
        found.append(client._server_info.get("domain"))
        told = await client.subscribe("$JS.EVENT.ADVISORY.>")
        for subject, body, headers in REQUESTS:
            answer = await answer_of(client, subject, body, headers)
            found.append((subject, answer if isinstance(answer, str) else [comparable({k: v}) for k, v in answer]))
        events = [json.loads((await told.next_msg(timeout=5)).data) for _ in range(told.pending_msgs)]
        found.append(sorted((event["type"], list(event)[-1], event["domain"]) for event in events))
        js = client.jetstream(domain="hub")
        bucket = await js.create_key_value(bucket="K")
        found.append((await bucket.put("k", b"v"), (await bucket.get("k")).value))
        store = await js.create_object_store("O")
        found.append(((await store.put("o", b"data")).size, (await store.get("o")).data))
        await js.add_stream(name="P", subjects=["p"])
        found.append((await js.publish("p", b"1")).domain)
        pulled = await (await js.pull_subscribe("p", "d")).fetch(1)
        await pulled[0].ack_sync()
        found.append((await js.account_info()).domain)
        for body in ({}, {"domain": "hub"}):
            answer = await admin.request("$SYS.REQ.SERVER.PING.IDZ", json.dumps(body).encode(), timeout=5)
            found.append(sorted(json.loads(answer.data)))
        served = json.loads((await admin.request("$SYS.REQ.SERVER.PING", timeout=5)).data)["server"]
        found.append((served["domain"], await answer_of_nobody(admin)))
        for page in ("/jsz", "/varz"):
            _, text = await asyncio.to_thread(get, http, page)
            shown = json.loads(text)
            found.append((page, shown.get("jetstream", shown)["config"]["domain"]))
        await client.close()
        await admin.close()
    return found


async def answer_of_nobody(admin: nats.NATS) -> bool:
    """Whether servers of another domain are silent."""
    inbox = await admin.subscribe("answers")
    await admin.publish("$SYS.REQ.SERVER.PING", b'{"domain":"other"}', reply="answers")
    await admin.request("$SYS.REQ.SERVER.PING", timeout=5)  # answered in turn
    return inbox.pending_msgs == 0


def test_a_domain_is_named_and_reached_as_with_nats_server(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = await seen(tmp_path / "theirs", binary)
        return theirs, await seen(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there
