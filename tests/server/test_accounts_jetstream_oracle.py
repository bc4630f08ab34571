"""JetStream in several accounts, beside a nats-server's: the same streams in each, and what every account is told."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
from system_script import Json, oracle_binary, running
from test_system_oracle import get

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", max_file: 1G }}
accounts {{
  $SYS {{ users [ {{user: admin, password: x}} ] }}
  A {{ jetstream: enabled, users [ {{user: a, password: x}} ] }}
  B {{ jetstream: {{max_streams: 2, max_store: 1000000, max_consumers: 1}}, users [ {{user: b, password: x}} ] }}
  C {{ users [ {{user: c, password: x}} ] }}
}}"""
STREAM = {"name": "S", "subjects": ["s.>"]}
REQUESTS: list[tuple[str, str, Json]] = [
    ("a", "$JS.API.STREAM.CREATE.S", STREAM),
    ("b", "$JS.API.STREAM.CREATE.S", {**STREAM, "max_bytes": 400_000}),
    ("c", "$JS.API.STREAM.CREATE.S", STREAM),
    ("a", "s.1", "from a"),
    ("a", "s.2", "from a"),
    ("b", "s.1", "from b"),
    ("a", "$JS.API.STREAM.CREATE.T", {"name": "T", "subjects": ["t"], "max_bytes": 900_000_000}),
    ("b", "$JS.API.STREAM.CREATE.T", {"name": "T", "subjects": ["t"], "max_bytes": 700_000}),
    ("b", "$JS.API.STREAM.CREATE.T", {"name": "T", "subjects": ["s.9"]}),
    ("b", "$JS.API.STREAM.CREATE.T", {"name": "T", "subjects": ["t"]}),
    ("b", "$JS.API.STREAM.CREATE.U", {"name": "U", "subjects": ["u"]}),
    ("a", "$JS.API.STREAM.CREATE.U", {"name": "U", "subjects": ["u"], "max_bytes": 200_000_000}),
    ("b", "$JS.API.CONSUMER.CREATE.S.c", {"stream_name": "S", "config": {"durable_name": "c", "name": "c"}}),
    ("b", "$JS.API.CONSUMER.CREATE.S.d", {"stream_name": "S", "config": {"durable_name": "d", "name": "d"}}),
    ("a", "$JS.API.CONSUMER.NAMES.S", None),
    ("b", "$JS.API.CONSUMER.NAMES.S", None),
    ("a", "$JS.API.STREAM.NAMES", None),
    ("b", "$JS.API.STREAM.NAMES", None),
    ("c", "$JS.API.STREAM.NAMES", None),
    ("a", "$JS.API.STREAM.MSG.GET.S", {"last_by_subj": "s.1"}),
    ("b", "$JS.API.STREAM.MSG.GET.S", {"last_by_subj": "s.1"}),
    ("a", "$JS.API.STREAM.DELETE.S", None),
    ("a", "$JS.API.STREAM.INFO.S", None),
    ("b", "$JS.API.STREAM.INFO.S", None),
    ("a", "$JS.API.INFO", None),
    ("b", "$JS.API.INFO", None),
]
PAGES = (
    "/healthz?account=A",
    "/healthz?account=B&stream=S&consumer=c",
    "/healthz?account=C",
    "/healthz?account=A&stream=S",
)
VOLATILE = ("created", "ts", "time", "level", "metadata", "persist_mode", "last_ts", "first_ts")
"""Times, and what differs in every answer of an account."""


def comparable(value: Json) -> Json:
    """Without times, and without what one server leaves out and the other says is nothing."""
    if isinstance(value, dict):
        return {key: comparable(each) for key, each in value.items() if key not in VOLATILE}
    return [comparable(each) for each in value] if isinstance(value, list) else value


async def who_pins(client: nats.NATS) -> str:
    """The account that the advisory of a client that is pinned names."""
    told = await client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.PINNED.>")
    groups = {"priority_policy": "pinned_client", "priority_groups": ["g"], "priority_timeout": 10_000_000_000}
    config = {"durable_name": "c", "name": "c", "ack_policy": "explicit", **groups}
    requests = (
        ("$JS.API.STREAM.CREATE.P", {"name": "P", "subjects": ["p"]}),
        ("$JS.API.CONSUMER.CREATE.P.c", {"stream_name": "P", "config": config}),
        ("p", "a message"),
    )
    for subject, body in requests:
        answer = await client.request(subject, json.dumps(body).encode(), timeout=5)
        assert b'"error"' not in answer.data, answer.data
    pull = {"batch": 1, "expires": 5_000_000_000, "group": "g"}
    inbox = await client.subscribe(client.new_inbox())
    await client.publish("$JS.API.CONSUMER.MSG.NEXT.P.c", json.dumps(pull).encode(), reply=inbox.subject)
    advisory = json.loads((await told.next_msg(timeout=5)).data)
    await told.unsubscribe()
    await inbox.unsubscribe()
    return str(advisory["account"])


async def answers(directory: Path, *command: str) -> list[Json]:
    """What a server answers to all requests, and what it sends of each stream."""
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, http):
        clients = {user: await nats.connect(f"nats://{user}:x@127.0.0.1:{port}") for user in "abc"}
        heard = {user: await client.subscribe("$JS.EVENT.ADVISORY.STREAM.>") for user, client in clients.items()}
        for client in clients.values():
            await client.flush()
        for user, subject, body in REQUESTS:
            data = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
            answer = json.loads((await clients[user].request(subject, data, timeout=5)).data)
            if subject.startswith("$JS.API.INFO"):
                answer = {key: answer[key] for key in ("streams", "consumers", "limits", "storage")}
            found.append((user, subject, comparable(answer)))
        found.append(("a", "pinned", await who_pins(clients["a"])))
        for user, client in clients.items():
            await client.flush()
            await asyncio.wait_for(client.flush(), 5)
            count = heard[user].pending_msgs
            told = [(await heard[user].next_msg(timeout=5)).subject for _ in range(count)]
            found.append((user, "advisories", sorted(told)))
            await client.close()
        found += [(page, *await asyncio.to_thread(get, http, page)) for page in PAGES]
        for page in ("/jsz?accounts=1", "/jsz?acc=B&streams=1", "/jsz?acc=C", "/jsz?accounts=1&limit=1"):
            _, text = await asyncio.to_thread(get, http, page)
            shown = json.loads(text)
            counted = {key: shown[key] for key in ("accounts", "streams", "consumers", "messages", "bytes", "total")}
            details = [(each["name"], len(each.get("stream_detail", ()))) for each in shown.get("account_details", ())]
            found.append((page, counted, len(details) if "limit" in page else sorted(details)))
        for name in "ABC":
            _, text = await asyncio.to_thread(get, http, f"/accountz?acc={name}")
            found.append((name, json.loads(text)["account_detail"]["jetstream_enabled"]))
    return found


def test_every_account_has_its_own_streams_and_limits(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = await answers(tmp_path / "theirs", binary)
        return theirs, await answers(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there
