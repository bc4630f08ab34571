"""The JetStream API in the system account and in accounts without JetStream; account purge; beside a nats-server."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from system_script import Json, oracle_binary, running

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", max_mem: 1G, max_file: 1G, domain: dom }}
accounts {{
  $SYS {{ users [ {{user: s, password: x}} ] }}
  A {{ jetstream: enabled, users [ {{user: a, password: x}} ] }}
  B {{ jetstream: enabled, users [ {{user: b, password: x}} ] }}
  C {{ users [ {{user: c, password: x}} ] }}
}}"""
PAUSED = {"pause_until": "2999-01-01T00:00:00Z"}
CONSUMER = {"stream_name": "S", "config": {"name": "p", "durable_name": "p", "ack_policy": "explicit"}}
REFUSED = [
    *("$JS.API.INFO", "$JS.dom.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.S", "$JS.API.STREAM.CREATE.Q"),
    *("$JS.API.CONSUMER.NAMES.S", "$JS.API.STREAM.MSG.GET.S", "$JS.API.STREAM.PEER.REMOVE.S"),
    *("$JS.API.CONSUMER.INFO.S.C", "$JS.dom.API.STREAM.LIST"),
]
STEPS: list[tuple[str, str, Json]] = [
    ("a", "$JS.API.STREAM.CREATE.S", {"name": "S", "subjects": ["s.*"]}),
    ("a", "$JS.API.STREAM.CREATE.T", {"name": "T", "subjects": ["t"]}),
    ("b", "$JS.API.STREAM.CREATE.S", {"name": "S", "subjects": ["s.*"]}),
    ("a", "$JS.API.CONSUMER.CREATE.S.p", CONSUMER),
    ("a", "$JS.API.CONSUMER.PAUSE.S.p", PAUSED),
    ("a", "$JS.API.CONSUMER.INFO.S.p", None),
    *[(user, subject, None) for user in "cs" for subject in REFUSED],
    ("c", "$JS.API.DIRECT.GET.S", None),
    ("s", "$JS.API.DIRECT.GET.S", None),
    ("s", "$JS.API.CONSUMER.MSG.NEXT.S.p", None),
    ("s", "$SYS.REQ.SERVER.PING.IDZ", {"domain": "another"}),
    ("s", "$SYS.REQ.SERVER.PING.IDZ", {"server_name": "another"}),
    ("s", "$SYS.REQ.SERVER.PING.IDZ", "{"),
    ("s", "$JS.API.ACCOUNT.PURGE.NOBODY", None),
    ("s", "$JS.API.ACCOUNT.PURGE.$SYS", "{"),
    ("s", "$JS.API.ACCOUNT.PURGE.C", None),
    ("a", "$JS.API.STREAM.NAMES", None),
    ("s", "$JS.API.ACCOUNT.PURGE.A", None),
    ("a", "$JS.API.STREAM.NAMES", None),
    ("b", "$JS.API.STREAM.NAMES", None),
    ("s", "$JS.dom.API.ACCOUNT.PURGE.B", {}),
    ("b", "$JS.API.STREAM.NAMES", None),
    ("a", "$JS.API.STREAM.CREATE.S", {"name": "S", "subjects": ["s.*"]}),
]
SILENT_OR_NOBODY = [
    *[(user, "$JS.API.ACCOUNT.PURGE.A") for user in "ac"],
    *[("s", f"$JS.API.ACCOUNT.PURGE{names}") for names in ("", ".A.B")],
]


async def asked(client: Client, subject: str, body: Json) -> Json:
    data = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
    try:
        answer = await client.request(subject, data, timeout=5)
    except nats.errors.NoRespondersError:
        return "no responders"
    shown = json.loads(answer.data)
    for volatile in ("created", "ts", "id"):
        shown.pop(volatile, None)
    if "config" in shown:
        return [shown.get("name"), shown.get("pause_remaining")]
    return shown


async def answers(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, _):
        clients = {user: await nats.connect(f"nats://{user}:x@127.0.0.1:{port}") for user in "abcs"}
        for user, subject, body in STEPS:
            found.append((user, subject, await asked(clients[user], subject, body)))
            if ".PURGE." in subject:  # theirs are gone some time after the answer
                for each in "ab":
                    await gone(clients[each], is_meant=subject.endswith(each.upper()))
        for user, subject in SILENT_OR_NOBODY:
            with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
                await clients[user].request(subject, b"", timeout=0.2)
        names = json.loads((await clients["a"].request("$JS.API.STREAM.NAMES", b"", timeout=5)).data)
        assert names["streams"] == ["S"]
        for client in clients.values():
            await client.close()
    return found


async def gone(client: Client, *, is_meant: bool) -> None:
    """Ask until nothing is left, if that is what is to come: the other server says nothing of itself."""
    for _ in range(1_000 if is_meant else 0):
        if not json.loads((await client.request("$JS.API.STREAM.NAMES", b"", timeout=5)).data)["total"]:
            return
        await asyncio.sleep(0.02)


def test_the_same_answers(tmp_path: Path) -> None:
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
