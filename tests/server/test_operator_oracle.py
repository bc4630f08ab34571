"""Clients with claims, beside a nats-server with the same operator: who is let in, and what they may do."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from claims_maker import FREE, USER, Json, Key, account_key, operator_key, token, user_key
from system_script import oracle_binary, running
from test_system_oracle import get

from jetstore.clock import RealClock
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from server.app import Server, World
from server.config.errors import ConfigError
from server.config.reader import load_options

OP, A, B, U = operator_key(), account_key("a"), account_key("b"), user_key("u")
SIGNER, SCOPED, STRANGER, ELDER = account_key("signer"), account_key("scoped"), account_key("stranger"), user_key("old")
RULES: Json = {"pub": {"allow": ["ok.>"], "deny": ["ok.no"]}, "sub": {"allow": ["ok.>", "q w"]}}
SYS = account_key("sys")


def account(key: Key, body: Json, issuer: Key = OP, **claims: Json) -> str:
    return token("account", issuer, key, {"limits": FREE, **body}, **claims)


LIMITED, GONE = account_key("limited"), account_key("gone")
FOREIGN, PICKY, MAPPED = account_key("foreign"), account_key("picky"), account_key("mapped")
ACCOUNTS = {
    SYS: account(SYS, {}),
    A: account(
        A,
        {
            "signing_keys": [
                SIGNER.public,
                {"kind": "user_scope", "key": SCOPED.public, "role": "r", "template": {**USER, **RULES, "subs": 1}},
            ],
            "revocations": {ELDER.public: 1_800_000_000},
            "exports": [{"name": "s", "subject": "q.>", "type": "service"}, {"subject": "p.>", "type": "stream"}],
        },
    ),
    B: account(
        B,
        {
            "imports": [
                {"name": "s", "account": A.public, "subject": "q.x", "local_subject": "mine", "type": "service"},
                {"name": "p", "account": A.public, "subject": "p.y", "to": "from", "type": "stream"},
            ],
            "default_permissions": RULES,
        },
    ),
    LIMITED: account(LIMITED, {"limits": {**FREE, "conn": 0, "subs": 1, "payload": 4}}),
    GONE: account(GONE, {}, exp=1_700_000_001),
    FOREIGN: account(FOREIGN, {}, operator_key("another")),
    MAPPED: account(
        MAPPED,
        {
            "mappings": {
                "from.*.*": [{"subject": "to.{{wildcard(2)}}.{{wildcard(1)}}"}],
                "plain": [{"subject": "to.plain", "weight": 100}],
                "few": [{"subject": "to.few", "weight": 1}],
                "none": [],
            }
        },
    ),
    PICKY: account(PICKY, {"limits": {**FREE, "disallow_bearer": True}}),
}
CONFIGURATION = f"""
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
operator: "{token("operator", OP, OP, {"system_account": SYS.public})}"
resolver: MEMORY
resolver_preload {{
{chr(10).join(f'  {key.public}: "{text}"' for key, text in ACCOUNTS.items())}
}}
"""


def user(issuer: Key = A, key: Key = U, *, version: int = 2, body: Json = None, **claims: Json) -> str:
    return token("user", issuer, key, {**({} if version == 1 else USER), **(body or {})}, version=version, **claims)


def broken(text: str) -> str:
    """The same with another name, the signature left as it is."""
    head, body, signature = text.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "name": "m"}).encode()).decode().rstrip("=")
    return f"{head}.{changed}.{signature}"


@dataclass
class Try:
    """One client: its claims, who signs the nonce, and what it sends after CONNECT."""

    title: str
    jwt: str
    key: Key | None = U
    lines: bytes = b""


def hours(first_h: int, last_h: int, location: str) -> Json:
    """From so many hours after now to so many after, at that place."""
    now = datetime.now(UTC if location == "UTC" else ZoneInfo(location))
    start, end = (f"{now + timedelta(hours=each):%H:%M:%S}" for each in (first_h, last_h))
    return {"times": [{"start": start, "end": end}], "times_location": location}


BY_SIGNER = {"issuer_account": A.public}
TRIES = [
    Try("plain", user()),
    Try("first version", user(version=1)),
    Try("no claims", ""),
    Try("not claims", "a.b.c"),
    Try("no signature", user(), None),
    Try("another's signature", user(), user_key("v")),
    Try("changed claims", broken(user())),
    Try("claims of an account", ACCOUNTS[A]),
    Try("bearer", user(body={"bearer_token": True}), None),
    Try("bearer where they are refused", user(PICKY, body={"bearer_token": True}), None),
    Try("expired", user(exp=1_700_000_001)),
    Try("not yet", user(nbf=4_000_000_000)),
    Try("of an account that nobody knows", user(STRANGER)),
    Try("of an account of another operator", user(FOREIGN)),
    Try("of an account that is gone", user(GONE)),
    Try("revoked", user(key=ELDER), ELDER),
    Try("issued after the revocation", user(key=ELDER, iat=1_800_000_001), ELDER),
    Try("by a signing key", user(SIGNER, body=BY_SIGNER)),
    Try("by a signing key that is none", user(STRANGER, body=BY_SIGNER)),
    Try("by a signing key that says not for whom", user(SIGNER)),
    Try(
        "by a scoped key",
        token("user", SCOPED, U, BY_SIGNER),
        lines=b"PUB x 0\r\n\r\nPUB ok.1 0\r\n\r\nSUB ok.2 1\r\nSUB ok.3 2\r\n",
    ),
    Try("by a scoped key, saying more", token("user", SCOPED, U, {**BY_SIGNER, **RULES})),
    Try("from here", user(body={"src": ["127.0.0.0/8"]})),
    Try("from elsewhere", user(body={"src": ["10.0.0.0/8", "192.168.1.1/32"]})),
    Try("within hours", user(body=hours(-1, 1, "UTC"))),
    Try("within hours elsewhere", user(body=hours(-11, 11, "Asia/Tokyo"))),
    Try("outside of hours", user(body=hours(1, 2, "UTC"))),
    Try("outside of hours elsewhere", user(body=hours(1, 23, "America/New_York"))),
    Try("hours nowhere", user(body={**hours(-1, 1, "UTC"), "times_location": "No/Where"})),
    Try("hours that are none", user(body={"times": [{"start": "00:00:00", "end": "25:00:00"}]})),
    Try("by a scoped key, with hours", token("user", SCOPED, U, {**BY_SIGNER, **hours(-1, 1, "UTC")})),
    Try("over WebSocket only", user(body={"allowed_connection_types": ["WEBSOCKET"]})),
    Try("in any of two ways", user(body={"allowed_connection_types": ["WEBSOCKET", "STANDARD"]})),
    Try(
        "permissions",
        user(body=RULES),
        lines=b"PUB ok.1 0\r\n\r\nPUB ok.no 0\r\n\r\nPUB x 0\r\n\r\nSUB ok.> 1\r\nSUB q 2\r\nSUB q w 3\r\nSUB x 4\r\n",
    ),
    Try("answers only", user(body={"resp": {"max": 1, "ttl": 0}}), lines=b"PUB x 0\r\n\r\nSUB x 1\r\n"),
    Try("default permissions", user(B), lines=b"PUB ok.1 0\r\n\r\nPUB x 0\r\n\r\nSUB x 1\r\n"),
    Try("limits of the user", user(body={"subs": 1, "payload": 2}), lines=b"SUB a 1\r\nSUB b 2\r\nPUB a 3\r\nabc\r\n"),
    Try("no room in the account", user(LIMITED)),
    Try(
        "mappings",
        user(MAPPED),
        lines=b"SUB to.> 1\r\nSUB none 2\r\nPUB from.a.b 1\r\nx\r\nPUB plain 1\r\ny\r\nPUB none 1\r\nz\r\n",
    ),
    Try("stream imports", user(B, body={"sub": {"allow": [">"]}}), lines=b"SUB from.p.y 1\r\nPUB mine 0\r\n\r\n"),
]


async def said(port: int, tried: Try) -> list[str]:
    """What a server answers, up to its PONG or its end; the names of keys in it are of no interest."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        info = json.loads((await reader.readline())[5:])
        found = [f"auth_required {info.get('auth_required')}", f"nonce {len(info.get('nonce', ''))}"]
        given: Json = {"verbose": False, "pedantic": False, "jwt": tried.jwt, "lang": "t", "version": "1"}
        if tried.key is not None:
            given["sig"] = tried.key.sign(info["nonce"])
        writer.write(b"CONNECT %b\r\nPING\r\n" % json.dumps(given).encode())
        lines = tried.lines  # sent apart: nats-server maps nothing that comes together with CONNECT
        while True:
            line = (await asyncio.wait_for(reader.readline(), 20)).decode()
            if not line.startswith("INFO"):
                found.append(line)
            if line.startswith("PONG") and lines:
                writer.write(lines + b"PING\r\n")
                lines = b""
            elif not line or line.startswith("PONG"):
                return found
    finally:
        writer.close()


async def mappings(http: int) -> list[str]:
    """Those that a server's page about the account that has any shows."""
    _, text = await asyncio.to_thread(get, http, f"/accountz?acc={MAPPED.public}")
    shown: Json = json.loads(text)["account_detail"]["mappings"]
    return sorted(f"{source} {json.dumps(shown[source], sort_keys=True)}" for source in shown)


def options_of(directory: Path, text: str = CONFIGURATION) -> Json:
    path = directory / "ours.conf"
    path.write_text(text)
    return load_options(path, {})


async def tried(directory: Path, tries: list[Try], binary: str) -> list[tuple[str, list[str], list[str]]]:
    world = World(asyncio.get_running_loop(), RealClock(), Random(1), Limits(), ServerLimits())
    server = Server(options_of(directory), world, None, lambda _: None)
    await server.start()
    try:
        async with running(directory, CONFIGURATION, binary) as (port, http):
            found = [(each.title, await said(server.port, each), await said(port, each)) for each in tries]
            return [*found, ("mappings shown", await mappings(server.http_port), await mappings(http))]
    finally:
        await server.stop()


@pytest.mark.oracle
@pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand")
def test_claims_are_judged_as_by_nats_server(tmp_path: Path) -> None:
    binary = oracle_binary()
    assert binary is not None
    found = asyncio.run(tried(tmp_path, TRIES, binary))
    assert {title: here for title, here, _ in found} == {title: there for title, _, there in found}


@pytest.mark.oracle
@pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand")
def test_whose_claims_end_goes(tmp_path: Path) -> None:
    """Both servers close the connection by themselves, with the same words."""
    binary = oracle_binary()
    assert binary is not None

    async def until_end(port: int) -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        nonce = json.loads((await reader.readline())[5:])["nonce"]
        jwt = user(exp=int(time.time()) + 2)
        given = {"verbose": False, "jwt": jwt, "sig": U.sign(nonce), "protocol": 1}
        writer.write(b"CONNECT %b\r\n" % json.dumps(given).encode())
        lines = (await asyncio.wait_for(reader.read(-1), 20)).decode().splitlines()
        writer.close()
        return [line for line in lines if not line.startswith(("INFO", "PING"))]

    async def main() -> None:
        world = World(asyncio.get_running_loop(), RealClock(), Random(1), Limits(), ServerLimits())
        server = Server(options_of(tmp_path), world, None, lambda _: None)
        await server.start()
        try:
            async with running(tmp_path, CONFIGURATION, binary) as (port, _):
                here, there = await asyncio.gather(until_end(server.port), until_end(port))
                assert here == there == ["-ERR 'User Authentication Expired'"]
        finally:
            await server.stop()

    asyncio.run(main())


def of_accounts(*accounts: str, **keys: str) -> str:
    lines = {"operator": f'"{token("operator", OP, OP)}"', "resolver": "MEMORY", **keys}
    preload = "\n".join(f'{A.public}: "{each}"' for each in accounts)
    return (
        "\n".join(f"{key}: {text}" for key, text in lines.items() if text) + f"\nresolver_preload {{\n{preload}\n}}\n"
    )


def exported(**more: Json) -> Json:
    return {"subject": "a", "type": "service", **more}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (of_accounts(account(A, {"mappings": {"a": [{"subject": "b", "cluster": "c"}]}})), "cluster of a mapping"),
        (of_accounts(account(A, {"mappings": {"a": [{"subject": "b.{{wildcard(1)}}"}]}})), "Error adding mapping"),
        (of_accounts(account(A, {"mappings": {"a": [{"subject": "b"}, {"subject": "c"}]}})), "total weight"),
        (of_accounts(account(A, {"mappings": {"a": [{"subject": "b", "weight": 1}] * 2}})), "duplicate entry"),
        (of_accounts(account(A, {"mappings": {"a..b": [{"subject": "b"}]}})), '"a..b" is not a valid subject'),
        (of_accounts(account(A, {"imports": [{"subject": "a", "type": "stream", "token": "x"}]})), "activation token"),
        (of_accounts(account(A, {"imports": [{"subject": "a", "type": "stream", "share": True}]})), "share is for"),
        (of_accounts(account(A, {"exports": [exported(service_latency={"results": "a"})]})), "invalid publish subject"),
        (of_accounts(account(A, {"exports": [exported(service_latency={"sampling": 101})]})), "bad sampling"),
        (of_accounts(account(A, {"exports": [exported(account_token_position=1)]})), "invalid subject"),
        (of_accounts(account(A, {"exports": [exported(token_req=True, revocations={"*": "x"})]})), "not of type int"),
        (of_accounts(account(A, {"limits": {**FREE, "tiered_limits": {"R1": 1}}})), "R1 is not of type dict"),
        (of_accounts(account(A, {"authorization": {"auth_users": [U.public]}})), '"authorization" is not supported'),
        (of_accounts(account(B, {})), "the claims are those of"),
        (of_accounts(broken(account(A, {}))), "signature verification"),
        (of_accounts(account(A, {"limits": {**FREE, "subs": "1"}})), "subs is not of type int"),
        (of_accounts(resolver="URL(http://127.0.0.1:1/)"), "of type URL is not supported"),
        (of_accounts(resolver="{type: full, dir: x}"), "of type full or cache is not supported"),
        (of_accounts(resolver=""), "operators require an account resolver to be configured"),
        (of_accounts(accounts="{A: {}}"), "operators do not allow Accounts to be configured directly"),
        (of_accounts(authorization="{user: a, password: b}"), "operators do not allow users to be configured directly"),
        (of_accounts(trusted_keys=OP.public), "conflicting options"),
        (of_accounts(operator=f'"{broken(token("operator", OP, OP))}"'), "signature verification"),
    ],
)
def test_what_is_not_there_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint.replace("(", r"\(")):
        options_of(tmp_path, text)


def test_trusted_keys_and_files(tmp_path: Path) -> None:
    claims = tmp_path / "o.jwt"
    claims.write_text(
        f"-----BEGIN NATS OPERATOR JWT-----\n{token('operator', OP, OP)}\n------END NATS OPERATOR JWT------\n"
    )
    for keys in ({"operator": f"'{claims}'"}, {"operator": "", "trusted_keys": OP.public}):
        options = options_of(tmp_path, of_accounts(account(A, {}), **keys))
        assert options.operator.trusted_keys == (OP.public,)
        assert set(options.operator.accounts) == {A.public}
