"""Monitoring of JetStream in an account of its own, beside a nats-server's: two processes, the same streams."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamSource
from system_script import Json, oracle_binary, running, shape
from test_system_oracle import differences, get

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data" }}
accounts {{
  $SYS {{ users [ {{user: admin, password: x}} ] }}
  A {{ jetstream: enabled, users [ {{user: a, password: x}} ] }}
  B {{ users [ {{user: b, password: x}} ] }}
}}"""
PAGES = [
    "/jsz",
    "/jsz?accounts=1",
    "/jsz?consumers=1&config=1",
    "/jsz?consumers=1&raft=1",
    "/jsz?acc=A&streams=1",
    "/jsz?acc=B",
    "/jsz?accounts=1&offset=1",
    "/jsz?streams=1&stream-leader-only=1",
    "/varz",
    "/accountz?acc=A",
    "/accountz?acc=B",
    "/healthz?account=A",
    "/healthz?account=A&stream=S&consumer=c",
    "/healthz?account=B",
    "/healthz?account=A&stream=X",
    "/healthz?account=A&stream=S&consumer=X",
    "/healthz?account=A&stream=X&details=1",
]
REQUESTS = [
    ("ACCOUNT.A.JSZ", '{"consumer": true}'),
    ("ACCOUNT.A.JSZ", '{"consumer": true, "streams": true, "config": true}'),
    ("ACCOUNT.B.JSZ", ""),
    ("ACCOUNT.NO.JSZ", ""),
    ("ACCOUNT.A.INFO", ""),
    ("SERVER.PING", ""),
    ("SERVER.PING.JSZ", '{"account": "A", "streams": true, "consumer": true}'),
    ("SERVER.PING.HEALTHZ", '{"account": "A", "stream": "X"}'),
]
KNOWN = ("sync_always is only ours", "default_max_consumers is only theirs")
"""``docs/compatibility.md``: what is acknowledged is synced; consumers are limited by memory only."""
EQUAL = ("error", "errors", "status", "streams", "consumers", "messages", "bytes", "total", "accounts", "ha_assets")


async def everything(port: int, http_port: int) -> dict[str, tuple[int, str]]:
    """All answers, once there are a stream with a consumer that acknowledged, and a mirror that has it all."""
    client = await nats.connect(f"nats://a:x@127.0.0.1:{port}", allow_reconnect=False)
    system = await nats.connect(f"nats://admin:x@127.0.0.1:{port}", allow_reconnect=False)
    try:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="S", subjects=["s.>"])
        await jetstream.add_stream(name="M", mirror=StreamSource(name="S"))
        await jetstream.publish("s.a", b"x")
        subscription = await jetstream.pull_subscribe("s.>", "c")
        (message,) = await subscription.fetch(1, timeout=20)
        await message.ack_sync(timeout=20)
        async with asyncio.timeout(30):
            while (await jetstream.stream_info("M")).state.messages == 0:
                pass
        answers = {target: await asyncio.to_thread(get, http_port, target) for target in PAGES}
        for subject, body in REQUESTS:
            reply = await system.request(f"$SYS.REQ.{subject}", body.encode(), timeout=20)
            answers[f"{subject} {body}"] = (200, reply.data.decode())
    finally:
        await client.close()
        await system.close()
    return answers


def test_answers_are_nats_servers(tmp_path: Path) -> None:
    async def main() -> list[dict[str, tuple[int, str]]]:
        binary = oracle_binary()
        assert binary is not None
        found = []
        for name, command in (("us", [sys.executable, "-m", "server.cli.main", "serve"]), ("them", [binary])):
            directory = tmp_path / name
            directory.mkdir()
            async with running(directory, CONFIGURATION.format(directory=directory), *command) as ports:
                found.append(await everything(*ports))
        return found

    us, them = asyncio.run(main())
    found = []
    for name in them:
        if us[name][0] != them[name][0]:
            found.append(f"{name}: {us[name]} instead of {them[name]}")
            continue
        ours: Json = json.loads(us[name][1])
        theirs: Json = json.loads(them[name][1])
        found += [f"{name}: {each}" for each in differences(shape(ours), shape(theirs)) if not each.endswith(KNOWN)]
        for place in EQUAL:
            one, other = (each.get(place, (each.get("data") or {}).get(place)) for each in (ours, theirs))
            found += [f"{name} {place}: {one} instead of {other}"] if one != other else []
    assert not found, "\n".join(found)
