"""Requests to the system account that are about the server's labels, its clients and their subscriptions."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import urllib.request
from pathlib import Path

import cramjam
import nats
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
server_tags: ["a:b", "Fast", "a:b"]
server_metadata {{ zone: x, "k": "v" }}
accounts {{
  $SYS {{ users [ {{user: admin, password: x}} ], exports [ {{service: "$SYS.DEBUG.SUBSCRIBERS"}} ] }}
  A {{ users [ {{user: a, password: x}} ],
      imports [ {{service: {{account: "$SYS", subject: "$SYS.DEBUG.SUBSCRIBERS"}}, to: "who"}} ] }}
}}"""
ANSWERED: list[tuple[str, Json, dict[str, str]]] = [
    *[("HEALTHZ", {"tags": tags}, {}) for tags in (["a:b"], ["FAST", "a:b"], [])],
    *[("HEALTHZ", None, {"Accept-Encoding": encoding}) for encoding in ("gzip", "snappy", "s2, gzip", "br")],
    ("HEALTHZ", "x", {"Accept-Encoding": "gzip"}),
    ("STATSZ", None, {"Accept-Encoding": "gzip"}),
    ("IDZ", None, {"Accept-Encoding": "gzip"}),
]
SUBJECTS = ["foo", "foo q", "foo r", "foo.bar", "foo.*", ">", "foo.>", "", "nobody"]


async def ask(client: Client, subject: str, body: Json = None, headers: dict[str, str] | None = None) -> Json:
    """The answer, in clear, and how it was encoded."""
    payload = b"" if body is None else json.dumps(body).encode()
    message = await client.request(subject, payload, timeout=5, headers=headers)
    encoding = (message.headers or {}).get("Content-Encoding")
    if encoding == "gzip":
        return encoding, json.loads(gzip.decompress(message.data))
    if encoding == "snappy":
        return encoding, json.loads(bytes(cramjam.snappy.decompress(message.data)))
    return encoding, json.loads(message.data)


def shown(answer: Json) -> Json:
    encoding, body = answer
    server = body.get("server", {})
    return encoding, server.get("tags"), server.get("metadata"), sorted(body), (body.get("error") or {}).get("code")


async def told(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, http):
        admin, a = [await nats.connect(f"nats://{user}:x@127.0.0.1:{port}") for user in ("admin", "a")]
        for kind, body, headers in ANSWERED:
            found.append(shown(await ask(admin, f"$SYS.REQ.SERVER.PING.{kind}", body, headers)))
        varz = json.loads(
            await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{http}/varz").read())
        )
        found.append((varz["tags"], varz["metadata"]))
        for subject, queue in (("foo", ""), ("foo", "q"), ("foo", "q"), ("foo.*", ""), ("foo.bar", "r"), (">", "")):
            await a.subscribe(subject, queue)
        await admin.subscribe("foo")
        for client in (a, admin):
            await client.flush()
        for text in SUBJECTS:
            for client, subject in ((a, "who"), (admin, "$SYS.DEBUG.SUBSCRIBERS")):
                answer = await client.request(subject, text.encode(), timeout=5)
                found.append((text, subject, int(answer.data) - (subject != "who" and text == ">")))
        server_id = (await ask(admin, "$SYS.REQ.SERVER.PING.IDZ"))[1]["id"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        cid = json.loads((await reader.readline())[5:])["client_id"]
        ldm = f"$SYS.REQ.SERVER.{server_id}.LDM"
        found += [(await ask(admin, ldm, body))[1].get("error") for body in ({"cid": 999}, {}, {"cid": cid})]
        writer.write(b'CONNECT {"user":"a","pass":"x","verbose":false,"protocol":1}\r\nPING\r\n')
        assert [(await reader.readline())[:4] for _ in range(2)] == [b"PONG", b"INFO"]
        found.append((await ask(admin, ldm, {"cid": cid}))[1].get("error"))
        found.append(json.loads((await reader.readline())[5:])["ldm"])
        writer.close()
        for client in (a, admin):
            await client.close()
    return found


def test_the_same_answers(tmp_path: Path) -> None:
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
