"""Mirrors and sources of streams in other accounts, beside a nats-server's: what imports allow, and what infos say."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from system_script import Json, oracle_binary, running

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

API = '{{service: {{account: A, subject: "$JS.API.CONSUMER.>"}}, to: "JS.A.API.CONSUMER.>"}}'
FLOW = '{{service: {{account: A, subject: "$JS.FC.>"}}}}'
HEARD = '{{stream: {{account: A, subject: "da.>"}}}}'
CONFIGURATION = f"""
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{{{ store_dir: "{{directory}}/data", max_file: 1G }}}}
accounts {{{{
  A {{{{ jetstream: enabled, users [ {{{{user: a, password: x}}}} ], exports [
    {{{{service: "$JS.API.CONSUMER.>"}}}}, {{{{service: "$JS.FC.>"}}}}, {{{{stream: "da.>"}}}} ] }}}}
  B {{{{ jetstream: enabled, users [ {{{{user: b, password: x}}}} ], imports [ {API}, {FLOW}, {HEARD} ] }}}}
  C {{{{ jetstream: enabled, users [ {{{{user: c, password: x}}}} ], imports [ {API}, {HEARD} ] }}}}
  D {{{{ jetstream: enabled, users [ {{{{user: d, password: x}}}} ], imports [ {HEARD} ] }}}}
  E {{{{ jetstream: enabled, users [ {{{{user: e, password: x}}}} ], imports [ {API},
    {{{{service: {{{{account: A, subject: "$JS.API.CONSUMER.CREATE.O"}}}}, to: "AS.API.CONSUMER.CREATE.ALIAS"}}}},
    {{{{service: {{{{account: F, subject: "$JS.API.CONSUMER.>"}}}}, to: "JS.F.API.CONSUMER.>"}}}},
    {{{{service: {{{{account: A, subject: "$JS.API.CONSUMER.CREATE.O.*.o.x"}}}},
      to: "N.API.CONSUMER.CREATE.O.*.o.x"}}}},
    {{{{stream: {{{{account: A, subject: "da.e.>"}}}}}}}},
    {{{{stream: {{{{account: A, subject: "da.moved.>"}}}}, to: "moved.>"}}}} ] }}}}
  F {{{{ users [ {{{{user: f, password: x}}}} ], exports [ {{{{service: "$JS.API.CONSUMER.>"}}}} ] }}}}
}}}}"""


def origin(name: str, api: str, deliver: str, **more: Json) -> Json:
    return {"name": name, "external": {"api": api, "deliver": deliver}, **more}


COPIES: list[tuple[str, str, Json, int]] = [
    ("b", "M", {"mirror": origin("O", "JS.A.API", "da.b")}, 4),
    ("b", "S", {"sources": [origin("O", "JS.A.API", "da.b", filter_subject="o.x")]}, 2),
    ("b", "T", {"sources": [origin("O", "JS.A.API", "da.b", subject_transforms=[{"src": "o.y", "dest": "t"}])]}, 2),
    ("b", "Q", {"sources": [origin("O", "JS.A.API", "da.b", opt_start_seq=3), {"name": "M"}]}, 6),
    ("b", "W", {"mirror": origin("W1", "JS.A.API", "da.b")}, 3),
    ("b", "I", {"sources": [origin("W2", "JS.A.API", "da.b")]}, 3),
    (
        "b",
        "OWN",
        {"sources": [origin("O", "JS.A.API", "da", consumer={"name": "own", "deliver_subject": "da.own"})]},
        2,
    ),
    ("b", "OWNNO", {"mirror": origin("O", "JS.A.API", "da", consumer={"name": "no", "deliver_subject": "no"})}, 0),
    ("b", "NODELIVER", {"mirror": origin("O", "JS.A.API", "")}, 0),
    ("b", "NOWHERE", {"mirror": origin("O", "JS.A.API", "nowhere")}, 0),
    ("b", "NOAPI", {"mirror": origin("O", "JS.X.API", "da.b")}, 0),
    ("b", "EMPTY", {"mirror": origin("O", "", "da.b")}, 0),
    ("b", "NONE", {"mirror": origin("NONE", "JS.A.API", "da.b")}, 0),
    ("b", "BAD", {"mirror": origin("a b", "JS.A.API", "da.b")}, 0),
    ("c", "W", {"mirror": origin("W3", "JS.A.API", "da.c")}, 3),
    ("d", "M", {"mirror": origin("O", "JS.A.API", "da.d")}, 0),
    ("e", "E", {"mirror": origin("O", "JS.A.API", "da.e")}, 4),
    ("e", "M", {"mirror": origin("O", "JS.A.API", "da.other")}, 0),
    ("e", "MOVED", {"mirror": origin("O", "JS.A.API", "da.moved")}, 0),
    ("e", "ALIAS", {"mirror": origin("ALIAS", "AS.API", "da.e")}, 0),
    ("e", "F", {"mirror": origin("O", "JS.F.API", "da.e")}, 0),
    ("e", "N", {"mirror": origin("O", "N.API", "da.e", filter_subject="o.x")}, 2),
    ("e", "N2", {"mirror": origin("O", "N.API", "da.e", filter_subject="o.y")}, 0),
]
"""Who copies what, and how many messages come."""


async def ask(client: Client, subject: str, body: Json = None) -> Json:
    return json.loads(
        (await client.request(subject, b"" if body is None else json.dumps(body).encode(), timeout=5)).data
    )


def shown(info: Json) -> Json:
    """Which origins an info shows; ``active``: whether there is any contact."""
    origins = [info["mirror"]] if "mirror" in info else sorted(info.get("sources", ()), key=json.dumps)
    return [{**each, "active": each["active"] >= 0} for each in origins], info["config"].get("mirror_direct")


def read(message: Json) -> Json:
    """A stored message without times and ids."""
    headers = base64.b64decode(message.get("hdrs", "")).decode()
    return message["subject"], message["seq"], re.sub(r" \w{8}\r\n", " ID\r\n", headers), message["data"]


async def told(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, _):
        clients = {user: await nats.connect(f"nats://{user}:x@127.0.0.1:{port}") for user in "abcde"}
        await ask(clients["a"], "$JS.API.STREAM.CREATE.O", {"name": "O", "subjects": ["o.>"], "allow_direct": True})
        for name, retention in (("W1", "workqueue"), ("W2", "interest"), ("W3", "workqueue")):
            config = {"name": name, "subjects": [f"{name}.>"], "retention": retention}
            await ask(clients["a"], f"$JS.API.STREAM.CREATE.{name}", config)
        for name, subject in (("own", "da.own"), ("no", "no")):
            config = {"durable_name": name, "deliver_subject": subject, "ack_policy": "flow_control"}
            config |= {"filter_subject": "o.y"}
            await ask(clients["a"], f"$JS.API.CONSUMER.CREATE.O.{name}.o.y", {"stream_name": "O", "config": config})
        for number in range(4):
            await ask(clients["a"], f"o.{'xy'[number % 2]}", number)
        for user, name, origins, _ in COPIES:
            answer = await ask(clients[user], f"$JS.API.STREAM.CREATE.{name}", {"name": name, **origins})
            found.append((user, name, "error" in answer))
        async with asyncio.timeout(20):
            while (await ask(clients["a"], "$JS.API.STREAM.INFO.W2"))["state"]["consumer_count"] == 0:
                pass  # only from then on it keeps anything
        for number in range(3):
            for name in ("W1", "W2", "W3"):
                await ask(clients["a"], f"{name}.x", number)
        for user, name, origins, count in COPIES:
            async with asyncio.timeout(20):
                while True:
                    info = await ask(clients[user], f"$JS.API.STREAM.INFO.{name}")
                    is_heard = shown(info)[0][0]["active"] or info.get("mirror", {}).get("error")
                    has_begun = "filter_subject" in info.get("mirror", ()) or "filter_subject" not in origins.get(
                        "mirror", ()
                    )  # shown from the first attempt on, which the server makes in its own time
                    if (
                        has_begun
                        and info["state"]["messages"] >= count
                        and (is_heard or name in ("NOAPI", "EMPTY", "N2") or user == "d")
                    ):
                        break
            found.append((user, name, info["state"]["messages"], shown(info)))
            for seq in range(1, info["state"]["last_seq"] + 1 if name != "Q" else 1):
                message = await ask(clients[user], f"$JS.API.STREAM.MSG.GET.{name}", {"seq": seq})
                found.append(read(message["message"]) if "message" in message else "none")
        for name, left in (("W1", 0), ("W2", 0), ("W3", 3)):  # C may not say what it has
            async with asyncio.timeout(20):
                while (state := (await ask(clients["a"], f"$JS.API.STREAM.INFO.{name}"))["state"])["messages"] != left:
                    pass
            found.append((name, state["consumer_count"]))
        async with asyncio.timeout(20):
            while (await ask(clients["a"], "$JS.API.CONSUMER.INFO.O.own"))["ack_floor"]["stream_seq"] != 4:
                pass
        await ask(clients["b"], "$JS.API.STREAM.DELETE.W")
        async with asyncio.timeout(20):
            while (await ask(clients["a"], "$JS.API.CONSUMER.NAMES.W1"))["consumers"]:
                pass
        for client in clients.values():
            await client.close()
    return found


def test_what_other_accounts_allow_is_copied(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = await told(tmp_path / "theirs", binary)
        return theirs, await told(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there
