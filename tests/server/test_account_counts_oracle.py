"""What an account's info says of its limits and counts of requests, request by request, beside a nats-server's."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
from system_script import Json, oracle_binary, running

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

LIMITS = (
    "max_streams: 2, max_consumers: 2, max_ack_pending: 50, max_mem: 1MB, max_file: 2MB, max_bytes: true,"
    " mem_max_stream_bytes: 1000, disk_max_stream_bytes: 5000"
)
CONFIGURATION = f"""
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{{{ store_dir: "{{directory}}/data", max_mem: 1G, max_file: 1G }}}}
accounts {{{{
  $SYS {{{{ users [ {{{{user: admin, password: x}}}} ] }}}}
  A {{{{ jetstream: {{{{{LIMITS}}}}}, users [ {{{{user: a, password: x}}}} ],
      exports [ {{{{service: "$JS.API.INFO"}}}} ],
      limits {{{{max_payload: 600}}}} }}}}
  B {{{{ jetstream: enabled, users [ {{{{user: b, password: x}}}} ] }}}}
  C {{{{ users [ {{{{user: c, password: x}}}} ],
       imports [ {{{{service: {{{{account: A, subject: "$JS.API.INFO"}}}}, to: "of.a"}}}} ] }}}}
}}}}"""


def stream(name: str, max_bytes: int, storage: str = "file") -> tuple[str, Json]:
    config = {"name": name, "subjects": [name.lower()], "max_bytes": max_bytes, "storage": storage}
    return f"STREAM.CREATE.{name}", {**config, "allow_direct": True}


def consumer(name: str, **fields: Json) -> tuple[str, Json]:
    config = {"name": name, "durable_name": name, "ack_policy": "explicit", **fields}
    return f"CONSUMER.CREATE.S.{name}", {"stream_name": "S", "config": config}


STEPS: list[tuple[str, Json]] = [
    ("INFO", None),
    ("INFO", "{bad"),
    ("STREAM.NAMES", None),
    stream("S", 0),
    stream("S", 5001),
    stream("S", 5000),
    stream("S", 5000),
    ("s", "message"),
    ("STREAM.MSG.GET.S", {"seq": 1}),
    ("STREAM.MSG.GET.S", {"seq": 9}),
    ("STREAM.MSG.GET.S", "{"),
    ("DIRECT.GET.S", {"seq": 1}),
    ("DIRECT.GET.S", {"seq": 9}),
    ("STREAM.INFO.S", None),
    ("STREAM.INFO.NO", None),
    consumer("c", max_ack_pending=51),
    consumer("c", max_ack_pending=50),
    consumer("d"),
    consumer("e"),
    ("CONSUMER.INFO.S.c", None),
    ("CONSUMER.RESET.S.c", {}),
    ("CONSUMER.RESET.S.c", "{"),
    ("CONSUMER.UNPIN.S.c", {"group": "x"}),
    ("CONSUMER.MSG.NEXT.S.c", "{"),
    ("STREAM.LEADER.STEPDOWN.S", None),
    stream("T", 1001, "memory"),
    stream("T", 1000, "memory"),
    stream("U", 1000, "memory"),
    ("t", "x" * 400),
    ("t", "x" * 400),
    ("t", "x" * 400),
    ("STREAM.MSG.DELETE.T", {"seq": 3}),
    ("CONSUMER.DELETE.S.d", None),
    ("STREAM.PURGE.S", None),
    ("STREAM.DELETE.S", None),
    ("STREAM.DELETE.S", None),
]


async def infos(directory: Path, *command: str) -> list[Json]:
    """What each of the accounts hears of itself after every step of A's, and how A's own fare."""
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, _):
        clients = {user: await nats.connect(f"nats://{user}:x@127.0.0.1:{port}") for user in "abc"}
        found.append(clients["a"].max_payload)
        for words, body in STEPS:
            subject = words if words.islower() else f"$JS.API.{words}"
            data = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
            answer = await clients["a"].request(subject, data, timeout=5)
            is_object = answer.data.startswith(b"{")
            problem = json.loads(answer.data).get("error") if is_object else (answer.headers or {}).get("Status")
            seen = []
            for user, asked in (("a", "$JS.API.INFO"), ("b", "$JS.API.INFO"), ("c", "$JS.API.INFO"), ("c", "of.a")):
                info = json.loads((await clients[user].request(asked, b"", timeout=5)).data)
                info.get("api", {}).pop("level", None)  # each its own
                seen.append(list(info.items()))
            found.append((words, problem, seen))
        for client in clients.values():
            await client.close()
    return found


def test_what_is_counted(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = await infos(tmp_path / "theirs", binary)
        return theirs, await infos(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there
