"""Who asks: the header ``Nats-Request-Info`` for services of other accounts, and what advisories of the API say."""

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
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", max_mem: 1G, max_file: 1G }}
accounts {{
  A {{ jetstream: enabled, users [ {{user: a, password: x}} ],
       exports [ {{service: "shared"}}, {{service: "plain"}}, {{service: "s.*"}} ] }}
  B {{ users [ {{user: b, password: x}} ], exports [ {{service: "chain"}}],
       imports [ {{service: {{account: A, subject: "plain"}}, to: "chain"}} ] }}
  C {{ users [ {{user: c, password: x}} ],
       imports [ {{service: {{account: A, subject: "shared"}}, share: true}},
                 {{service: {{account: A, subject: "plain"}}}}, {{service: {{account: A, subject: "s.*"}}}},
                 {{service: {{account: B, subject: "chain"}}}} ] }}
}}"""
HEADERS: list[dict[str, str] | None] = [None, {"X": "1", "Nats-Request-Info": "mine"}]


async def answers(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, _):
        a, c = [
            await nats.connect(f"nats://{user}:x@127.0.0.1:{port}", name=f"client-{user}", no_echo=False)
            for user in "ac"
        ]

        async def tell(message: Msg) -> None:
            await a.publish(message.reply, json.dumps(list((message.headers or {}).items())).encode())

        for subject in ("shared", "plain"):
            await a.subscribe(subject, cb=tell)
        await a.flush()
        for headers in HEADERS:
            for client, subject in ((c, "shared"), (c, "plain"), (c, "chain"), (a, "plain")):
                answer = await client.request(subject, b"x", timeout=5, headers=headers)
                found.append([(name, shown(value)) for name, value in json.loads(answer.data)])
        audit = await a.subscribe("$JS.EVENT.ADVISORY.API")
        await a.request("$JS.API.STREAM.CREATE.S", json.dumps({"name": "S", "subjects": ["s.*"]}).encode())
        found.append(shown(json.dumps(json.loads((await audit.next_msg(timeout=5)).data)["client"])))
        found += [json.loads((await c.request("s.1", b"x", timeout=5, headers=each)).data) for each in HEADERS]
        for seq in (1, 2):
            stored = await a.request("$JS.API.STREAM.MSG.GET.S", json.dumps({"seq": seq}).encode())
            found.append(json.loads(stored.data)["message"].get("hdrs"))
        for client in (a, c):
            await client.close()
    return found


def shown(value: str) -> Json:
    """What a header says, without what differs from run to run."""
    if not value.startswith("{"):
        return value
    info = json.loads(value)
    assert info["rtt"] > 0
    return [(name, None if name in ("start", "rtt", "id") else told) for name, told in info.items()]


def test_the_same_header(tmp_path: Path) -> None:
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
