"""Monitoring pages and requests to the system account beside a nats-server's: statuses, texts, names and types."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import nats
import pytest
from system_script import Json, oracle_binary, ours, shape, theirs

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

PAGES = [
    "/varz",
    "/connz",
    "/connz?auth=1",
    "/connz?subs=1",
    "/connz?subs=detail&auth=1",
    "/connz?acc=B",
    "/connz?user=b",
    "/connz?state=closed&auth=1",
    "/connz?state=any",
    "/connz?state=all",
    "/connz?state=foo",
    "/connz?sort=stop",
    "/connz?sort=zzz",
    "/connz?sort=stop&state=any",
    "/connz?sort=reason&state=closed",
    "/connz?sort=uptime&limit=1",
    "/connz?offset=1",
    "/connz?offset=99",
    "/connz?cid=99999",
    "/connz?limit=x",
    "/connz?cid=-1",
    "/connz?subs=yes",
    "/connz?mqtt_client=x",
    "/subsz",
    "/subsz?acc=B",
    "/subsz?subs=1&acc=B",
    "/subsz?subs=1&acc=NO",
    "/subsz?test=*",
    "/subsz?limit=x",
    "/subscriptionsz",
    "/accountz",
    "/accountz?acc=A",
    "/accountz?acc=B",
    "/accountz?acc=$G",
    "/accountz?acc=NO",
    "/accstatz",
    "/accstatz?unused=1",
    "/accstatz?unused=x",
    "/jsz",
    "/jsz?accounts=1",
    "/jsz?acc=A",
    "/jsz?streams=zz",
    "/routez",
    "/leafz",
    "/gatewayz",
    "/raftz",
    "/healthz",
    "/healthz?js-enabled-only=1",
    "/healthz?js-server-only=true",
    "/healthz?js-meta-only=1",
    "/healthz?details=1",
    "/healthz?stream=S",
    "/healthz?account=A&consumer=C",
    "/healthz?account=A",
    "/healthz?js-enabled-only=zz",
    "/nope",
    "/connz/",
    "/varz?x=y",
]
REQUESTS: list[tuple[str, str]] = [
    *((f"ACCOUNT.A.{name}", "") for name in ("SUBSZ", "LEAFZ", "JSZ", "INFO")),
    *((f"ACCOUNT.B.{name}", "") for name in ("CONNZ", "LEAFZ", "JSZ", "INFO", "STATZ", "CONNS")),
    *((f"ACCOUNT.NO.{name}", "") for name in ("SUBSZ", "LEAFZ", "JSZ", "INFO")),
    ("ACCOUNT.B.CONNZ", '{"subscriptions_detail": true, "auth": true, "account": "A"}'),
    ("ACCOUNT.B.CONNZ", '{"filter_subject": "nobody", "subscriptions": true}'),
    ("ACCOUNT.PING.STATZ", ""),
    ("ACCOUNT.PING.STATZ", '{"accounts": ["A"], "include_unused": true}'),
    *(
        (f"SERVER.PING{name}", "")
        for name in ("", ".IDZ", ".STATSZ", ".VARZ", ".SUBSZ", ".CONNZ", ".ROUTEZ", ".GATEWAYZ", ".LEAFZ")
    ),
    *((f"SERVER.PING.{name}", "") for name in ("ACCOUNTZ", "JSZ", "HEALTHZ")),
    ("SERVER.PING.ACCOUNTZ", '{"account": "B"}'),
    ("SERVER.PING.ACCOUNTZ", '{"account": "NO"}'),
    ("SERVER.PING.SUBSZ", '{"account": "NO", "subscriptions": true}'),
    ("SERVER.PING.CONNZ", '{"filter_subject": "x"}'),
    ("SERVER.PING.CONNZ", '{"state": 1, "auth": true}'),
    ("SERVER.PING.CONNZ", '{"state": "closed"}'),
    ("SERVER.PING.CONNZ", '{"sort": 5}'),
    ("SERVER.PING.CONNZ", '{"sort": "zzz"}'),
    ("SERVER.PING.CONNZ", "[]"),
    ("SERVER.PING.CONNZ", "null"),
    ("SERVER.PING.JSZ", '{"limit": "x"}'),
    ("SERVER.PING.JSZ", '{"accounts": 1}'),
    ("SERVER.PING.VARZ", '{"server_name": "n", "cluster": ""}'),
    ("SERVER.PING.HEALTHZ", '{"stream": "S"}'),
    ("SERVER.PING.HEALTHZ", '{"account": "A", "details": true}'),
]
FROM_B: list[tuple[str, str]] = [
    ("ACCOUNT.PING.STATZ", ""),
    ("ACCOUNT.PING.STATZ", '{"accounts": ["$SYS"]}'),
    ("ACCOUNT.PING.CONNZ", ""),
    ("SERVER.PING.CONNZ", '{"auth": true, "acc": "A", "subscriptions": true}'),
    ("USER.INFO", ""),
    ("SERVER.PING.VARZ", ""),
    ("ACCOUNT.B.CONNZ", ""),
]
OURS = {"jetstore"}
THEIRS = {"git_commit", "data.git_commit", "subscriptions_list", "data.subscriptions_list"}
"""What ``docs/compatibility.md`` says differs: their own subscriptions are listed with those of clients."""


def differences(us: Json, them: Json, place: str = "") -> list[str]:
    """Where two shapes differ, but for what is known to."""
    if not (isinstance(us, dict) and isinstance(them, dict)):
        return [] if us == them else [f"{place}: {us} instead of {them}"]
    found = []
    for name in sorted({*us, *them}):
        where = f"{place}.{name}".lstrip(".")
        if name in us and name in them:
            found += differences(us[name], them[name], where)
        elif where not in THEIRS and name not in OURS:
            found.append(f"{where} is only {'ours' if name in us else 'theirs'}")
    return found


def get(port: int, target: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{target}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def everything(port: int, http_port: int) -> dict[str, Json]:
    """All answers, of a server that one client is connected to and one was."""
    gone = await nats.connect(f"nats://b:x@127.0.0.1:{port}", allow_reconnect=False)
    await gone.close()
    system = await nats.connect(f"nats://admin:x@127.0.0.1:{port}", name="admin", allow_reconnect=False)
    client = await nats.connect(f"nats://b:x@127.0.0.1:{port}", name="client", allow_reconnect=False)
    answers: dict[str, Json] = {}
    try:
        await client.subscribe("own.subject", "group")
        await client.subscribe("own.*")
        await client.flush()
        for who, connection, requests in (("admin", system, REQUESTS), ("b", client, FROM_B)):
            for subject, body in requests:
                answer: Json
                try:
                    reply = await connection.request(f"$SYS.REQ.{subject}", body.encode(), timeout=20)
                    answer = json.loads(reply.data)
                except nats.errors.NoRespondersError:
                    answer = "no responders"
                answers[f"{who}: {subject} {body}"] = answer
        for target in PAGES:
            answers[target] = await asyncio.to_thread(get, http_port, target)
    finally:
        await client.close()
        await system.close()
    return answers


def test_answers_are_nats_servers(tmp_path: Path) -> None:
    async def main() -> list[dict[str, Json]]:
        async with ours(tmp_path) as server, theirs(tmp_path) as ports:
            return [await everything(server.port, server.http_port), await everything(*ports)]

    us, them = asyncio.run(main())
    found = []
    for name, theirs_ in them.items():
        ours_ = us[name]
        if isinstance(theirs_, tuple):
            if ours_[0] != theirs_[0]:
                found.append(f"{name}: {ours_} instead of {theirs_}")
                continue
            if not theirs_[1].startswith("{"):
                found += [f"{name}: {ours_} instead of {theirs_}"] if ours_ != theirs_ else []
                continue
            ours_, theirs_ = json.loads(ours_[1]), json.loads(theirs_[1])
        found += [f"{name}: {each}" for each in differences(shape(ours_), shape(theirs_))]
        if isinstance(theirs_, dict):
            for place in ("error", "errors", "status"):
                if ours_.get(place) != theirs_.get(place):
                    found.append(f"{name}: {ours_.get(place)} instead of {theirs_.get(place)}")
            for place in ("total", "num_connections", "offset", "limit", "accounts"):
                data = (ours_.get("data") or ours_, theirs_.get("data") or theirs_)
                if "CONNZ" in name or "connz" in name or place in ("offset", "limit"):
                    one, other = (each.get(place) for each in data)
                    found += [f"{name} {place}: {one} instead of {other}"] if one != other else []
    assert not found, "\n".join(found)
