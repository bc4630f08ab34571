"""What accounts share by their claims, and what templates make of permissions, beside a nats-server."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
from claims_maker import FREE, USER, Json, Key, account_key, operator_key, token, user_key
from nats.aio.client import Client
from nats.aio.msg import Msg
from system_script import oracle_binary, running
from test_latency_oracle import Metrics, account_page, settled
from test_operator_oracle import Try, said

from server.config.errors import ConfigError
from server.config.reader import load_options

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

OP, STRICT, STRICT_SIGNER = operator_key(), operator_key("strict"), operator_key("strict signer")
SYS, A, B, C = (account_key(name) for name in ("sys", "a", "b", "c"))
SIGNER, STRANGER, U = account_key("signer"), account_key("stranger"), user_key("u")
GUARDED, GUARDED_SIGNER, GUEST = account_key("guarded"), account_key("guarded signer"), account_key("guest")
TEMPLATED = account_key("templated")
ISSUED_S = 1_700_000_000
BEARER = {"bearer_token": True, "tags": ["x:y", "plain"]}


def account(key: Key, body: Json, issuer: Key = OP, **claims: Json) -> str:
    return token("account", issuer, key, {"limits": FREE, **body}, **claims)


def export(subject: str, kind: str = "service", **more: Json) -> Json:
    return {"name": subject, "subject": subject, "type": kind, **more}


def wanted(subject: str, local: str, kind: str = "service", of: Key = A, **more: Json) -> Json:
    return {"name": local, "account": of.public, "subject": subject, "local_subject": local, "type": kind, **more}


def permit(
    subject: str, kind: str = "service", *, by: Key = A, to: Key = B, of: Key | None = None, **more: Json
) -> str:
    """An activation token."""
    body = {"subject": subject, "kind": kind, **({"issuer_account": of.public} if of is not None else {})}
    return token("activation", by, to, body, **more)


PERMITS: dict[str, str] = {
    "good": permit("priv.good"),
    "wider": permit("priv.>"),
    "none": "",
    "of a stranger": permit("priv.>", by=STRANGER, of=A),
    "of the account": permit("priv.>", of=A),
    "by a signing key": permit("priv.>", by=SIGNER, of=A),
    "over": permit("priv.>", exp=1_700_000_001),
    "not yet": permit("priv.>", nbf=4_000_000_000),
    "first version": token("activation", A, B, {"subject": "priv.>", "type": "service"}, version=1),
}
BAD_PERMITS: dict[str, str] = {
    "no token": "a.b.c",
    "no activation": token("user", A, U, USER),
    "for another": permit("priv.>", to=C),
    "by another": permit("priv.>", by=C, to=GUEST),
    "of another": permit("priv.>", by=C, of=C, to=GUEST),
    "by a signing key that says not of whom": permit("priv.>", by=SIGNER, to=GUEST),
    "of another kind": permit("priv.>", "stream", to=GUEST),
    "of no kind": permit("priv.>", "x", to=GUEST),
    "narrower": permit("priv.x", to=GUEST),
}
REVOKED: dict[str, tuple[Json, str]] = {
    "it": ({B.public: ISSUED_S}, permit("revoked.>")),
    "it before": ({B.public: ISSUED_S - 1}, permit("revoked.>")),
    "all": ({"*": ISSUED_S}, permit("revoked.>")),
    "all before": ({"*": ISSUED_S - 1}, permit("revoked.>")),
    "it or all": ({"*": ISSUED_S, B.public: ISSUED_S - 5}, permit("revoked.>")),
    "another": ({C.public: ISSUED_S + 5}, permit("revoked.>")),
}


def words(title: str) -> str:
    return title.replace(" ", "-")


def accounts() -> dict[Key, str]:
    soon = int(time.time()) + 2
    return {
        SYS: account(SYS, {}),
        A: account(
            A,
            {
                "signing_keys": [SIGNER.public],
                "exports": [
                    export("priv.*", token_req=True),
                    *[
                        export(f"revoked.{words(name)}", token_req=True, revocations=times)
                        for name, (times, _) in REVOKED.items()
                    ],
                    export("news.*", "stream", token_req=True),
                    export("by.*.ask", account_token_position=2),
                    export("either.*", account_token_position=2, token_req=True),
                    export("all", service_latency={"sampling": 100, "results": "lat.all"}),
                    export("traced", service_latency={"sampling": "headers", "results": "lat.traced"}),
                ],
            },
        ),
        B: account(
            B,
            {
                "imports": [
                    *[
                        wanted(f"priv.{words(name)}", f"priv.{words(name)}", token=text)
                        for name, text in PERMITS.items()
                    ],
                    *[
                        wanted(f"revoked.{words(name)}", f"revoked.{words(name)}", token=text)
                        for name, (_, text) in REVOKED.items()
                    ],
                    wanted("priv.soon", "priv.soon", token=permit("priv.soon", exp=soon)),
                    wanted("news.soon", "news.soon", "stream", token=permit("news.soon", "stream", exp=soon)),
                    wanted("news.good", "news.good", "stream", token=permit("news.*", "stream")),
                    wanted("news.bad", "news.bad", "stream"),
                    wanted(f"by.{B.public}.ask", "by.me"),
                    wanted(f"by.{C.public}.ask", "by.another"),
                    wanted(f"either.{B.public}", "either"),
                    wanted("all", "all"),
                    wanted("all", "shared", share=True),
                    wanted("traced", "traced"),
                    wanted("nothing", "nothing"),
                    wanted("nowhere", "nowhere", of=STRANGER),
                    wanted("by.signer", "by.signer", of=GUARDED, token=permit("by.*", by=GUARDED_SIGNER, of=GUARDED)),
                    wanted("by.itself", "by.itself", of=GUARDED, token=permit("by.*", by=GUARDED, of=GUARDED)),
                ]
            },
        ),
        GUARDED: account(
            GUARDED,
            {"signing_keys": [GUARDED_SIGNER.public], "exports": [export("by.*", token_req=True)]},
            STRICT_SIGNER,
        ),
        TEMPLATED: account(
            TEMPLATED,
            {
                "tags": ["team:red", "team:blue", "Case:x", "zone:n"],
                "signing_keys": [
                    {"kind": "user_scope", "key": each.signer.public, "role": "r", "template": {**USER, **each.rules}}
                    for each in CASES
                ],
            },
            name="Acct",
        ),
    }


def rules(pub: list[str] | None = None, sub: list[str] | None = None, **deny: list[str]) -> Json:
    return {
        "pub": {"allow": pub or [], "deny": deny.get("no_pub", [])},
        "sub": {"allow": sub or [], "deny": deny.get("no_sub", [])},
    }


@dataclass
class Case:
    """A template, a user, and what it tries to publish and to subscribe to."""

    title: str
    rules: Json
    tried: list[str]
    name: str = "nick"
    tags: list[str] = field(default_factory=list)

    @property
    def signer(self) -> Key:
        return account_key(f"scope {self.title}")

    @property
    def lines(self) -> bytes:
        lines = [f"PUB {subject} 0\r\n\r\nSUB {subject} {at}\r\n" for at, subject in enumerate(self.tried)]
        return "".join(lines).encode()

    @property
    def jwt(self) -> str:
        body = {"issuer_account": TEMPLATED.public, "tags": self.tags}
        return token("user", self.signer, U, body, name=self.name)


def same(*subjects: str) -> Json:
    return rules(list(subjects), list(subjects))


TEAM = ["t.red", "t.blue", "t.one", "t.two", "t.x", "u"]
CASES = [
    Case("name", same("a.{{name()}}"), ["a.nick", "a.other", "a.{{name()}}"]),
    Case("subject", same("a.{{subject()}}.>"), [f"a.{U.public}.x", "a.b.x"]),
    Case(
        "account", same("a.{{account-name()}}", "b.{{account-subject()}}"), ["a.Acct", "a.n", f"b.{TEMPLATED.public}"]
    ),
    Case("account's tags", same("t.{{account-tag(team)}}"), TEAM),
    Case("own tags", same("t.{{tag(team)}}"), TEAM, tags=["team:one", "team:two", "x:x"]),
    Case("both", same("{{tag(a)}}.{{account-tag(team)}}"), ["1.red", "2.blue", "red.1", "3.red"], tags=["a:1", "a:2"]),
    Case("twice", same("{{tag(a)}}.{{tag(a)}}"), ["1.1", "1.2", "2.2"], tags=["a:1", "a:2"]),
    Case("no such tag", same("t.{{tag(none)}}"), TEAM),
    Case("no such tag, another entry", same("t.{{tag(none)}}", "u"), TEAM),
    Case("no such tag denied", rules(no_pub=["t.{{tag(none)}}"]), TEAM),
    Case("no such tag denied to subscribers", rules(no_sub=["t.{{tag(none)}}"]), TEAM),
    Case("name denied", rules(no_pub=["a.{{name()}}"], no_sub=["b.{{name()}}"]), ["a.nick", "b.nick", "c"]),
    Case("bad name denied", rules(no_pub=["a.{{name()}}"]), ["a.x"], name="x y"),
    Case("bad name", same("a.{{name()}}", "u"), ["a.x", "u"], name="x y"),
    Case("name of several tokens", same("a.{{name()}}"), ["a.x.y", "a.x"], name="x.y"),
    Case("name that is a wildcard", same("a.{{name()}}"), ["a.x", "a.*", "a.x.y"], name="*"),
    Case("name that is a full wildcard", same("a.{{name()}}"), ["a.x", "a.>", "a.x.y"], name=">"),
    Case("tag that is a wildcard", same("a.{{tag(x)}}"), ["a.x", "a.*", "a.x.y"], tags=["x:*"]),
    Case(
        "name that is a template", same("a.{{name()}}"), ["a.x", "a.{{tag(x)}}", "a.{{subject()}}"], name="{{tag(x)}}"
    ),
    Case("no operation", same("a.{{nick()}}"), ["a.nick"]),
    Case("operation of blanks", same("a.{{ name() }}"), ["a.nick"]),
    Case("capitals", same("a.{{NAME()}}", "b.{{Account-Tag(team)}}"), ["a.nick", "b.red", "b.x"]),
    Case("capital tag", same("b.{{account-tag(TEAM)}}", "c.{{account-tag(case)}}"), ["b.red", "c.x", "c.Case"]),
    Case("no braces", same("a.{{}}", "b.{{x", "c.{x}}", "d"), ["a.{{}}", "b.{{x", "c.{x}}", "d"]),
    Case("three braces", same("a.{{{name()}}}"), ["a.nick", "a.{nick}"]),
    Case("within a token", same("a.x{{name()}}y"), ["a.xnicky", "a.nick"]),
    Case("queue and template", rules(sub=["a w", "b.{{name()}}"]), ["a w", "a", "b.nick"]),
    Case("queue and no template", rules(sub=["a w", "b"]), ["a w", "a", "b"]),
    Case("template and queue", rules(sub=["b.{{name()}} w"]), ["b.nick", "b.nick w"]),
    Case("too many", same("{{tag(a)}}.{{tag(a)}}.{{tag(a)}}"), ["1.1.1"], tags=[f"a:{at}" for at in range(17)]),
    Case("many", same("{{tag(a)}}.{{tag(a)}}.{{tag(a)}}"), ["1.1.1", "x"], tags=[f"a:{at}" for at in range(15)]),
    Case("empty name", same("a.{{name()}}", "u"), ["a", "a.", "u"], name=""),
    Case("answers", {**same("a.{{name()}}"), "resp": {"max": 1, "ttl": 0}}, ["a.nick", "x"]),
]
UNSCOPED = [
    Try("template without scope", token("user", TEMPLATED, U, {**USER, **same("a.{{name()}}", "b")}), lines=b"", key=U),
    Try("by the account of a strict operator", token("user", GUARDED, U, USER)),
    Try(
        "by its signing key",
        token("user", GUARDED_SIGNER, U, {**USER, "issuer_account": GUARDED.public}),
    ),
]
DENIED: list[Json] = [
    {"pub": {"allow": [], "deny": ["x"]}},
    {"pub": {"deny": ["x"]}},
    {"pub": {"allow": []}},
    {"pub": {"allow": None, "deny": ["x"]}},
    {"sub": {"allow": [], "deny": ["x"]}},
    {"pub": {"allow": [], "deny": ["x"]}, "resp": {"max": 1, "ttl": 0}},
]
UNSCOPED += [
    Try(
        f"denied {body}",
        token("user", A, U, {**USER, **body}),
        U,
        b"PUB x 0\r\n\r\nPUB c 0\r\n\r\nSUB x 1\r\nSUB c 2\r\n",
    )
    for body in DENIED
]
UNSCOPED[0].lines = b"PUB a.nick 0\r\n\r\nPUB a.{{name()}} 0\r\n\r\nPUB b 0\r\n\r\nSUB a.n 1\r\nSUB a.{{name()}} 2\r\n"


def guest(text: str) -> str:
    """An account that imports with a token."""
    return account(GUEST, {"imports": [wanted("priv.good", "good", token=text)]})


def configuration(**more: str) -> str:
    strict = {"signing_keys": [STRICT_SIGNER.public], "strict_signing_key_usage": True}
    operators = [token("operator", OP, OP, {"system_account": SYS.public}), token("operator", STRICT, STRICT, strict)]
    preloaded = {**{key.public: text for key, text in accounts().items()}, **more}
    preload = "\n".join(f'  {key}: "{text}"' for key, text in preloaded.items())
    return f"""
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
operator: [ {", ".join(f'"{each}"' for each in operators)} ]
system_account: {SYS.public}
resolver: MEMORY
resolver_preload {{
{preload}
}}
"""


async def client(port: int, key: Key, **body: Json) -> Client:
    jwt = token("user", key, U, {**USER, **BEARER, **body})
    return await nats.connect(
        f"nats://127.0.0.1:{port}",
        user_jwt_cb=lambda: bytearray(jwt.encode()),
        signature_cb=lambda nonce: b"",
        allow_reconnect=False,
    )


async def is_served(c: Client, subject: str) -> bool:
    try:
        await c.request(subject, b"?", timeout=10)
    except nats.errors.NoRespondersError:
        return False
    return True


async def shared(port: int) -> dict[str, Json]:
    a, b = [await client(port, each) for each in (A, B)]
    guarded = await client(port, GUARDED_SIGNER, issuer_account=GUARDED.public)
    served: dict[str, Json] = {}

    async def answer(message: Msg) -> None:
        await a.publish(message.reply, b"!")

    async def answer_guarded(message: Msg) -> None:
        await guarded.publish(message.reply, b"!")

    for subject in ("priv.*", "revoked.*", "by.*.ask", "either.*", "all", "traced", "nothing"):
        await a.subscribe(subject, cb=answer)
    await settled(a)
    await guarded.subscribe("by.*", cb=answer_guarded)
    await settled(guarded)
    soon = await b.subscribe("news.soon")
    await settled(b)
    subjects = [*(f"priv.{words(each)}" for each in PERMITS), *(f"revoked.{words(each)}" for each in REVOKED)]
    for subject in (*subjects, "by.me", "by.another", "either", "nothing", "nowhere", *GUARDS):
        served[subject] = await is_served(b, subject)
    heard = await b.subscribe("news.*")
    await settled(b)
    for subject in ("news.bad", "news.good"):
        await a.publish(subject, b"")
    served["news"] = (await heard.next_msg(10)).subject
    metrics = Metrics(a)
    await metrics.listen()
    for subject in ("traced", "all", "shared"):
        await b.request(subject, b"?", timeout=10)
    await b.request("traced", b"?", timeout=10, headers={"B3": "1"})
    served["metrics"] = [await metrics.next() for _ in range(3)]
    async with asyncio.timeout(20):
        while await is_served(b, "priv.soon"):  # noqa: ASYNC110 - the token ends by itself
            await asyncio.sleep(0.05)
    served["soon, later"] = await is_served(b, "priv.good")
    async with asyncio.timeout(20):
        while True:
            await a.publish("news.soon", b"")
            await a.publish("news.good", b"")
            await heard.next_msg(10)
            await settled(b)
            if not heard.pending_msgs and not soon.pending_msgs:
                break
            for each in (heard, soon):
                while each.pending_msgs:
                    await each.next_msg(10)
            await asyncio.sleep(0.05)
    for each in (a, b, guarded):
        await each.close()
    return served


GUARDS = ("by.signer", "by.itself")


def pages(http: int) -> list[Json]:
    """What monitoring shows of the exporter's exports, and whether the importer has all it wants."""
    exporter, importer = [account_page(http, each.public) for each in (A, B)]
    return [sorted(([*each.items()] for each in exporter["exports"]), key=str), importer["complete"]]


async def told(directory: Path, *command: str) -> dict[str, Json]:
    async with running(directory, configuration(), *command) as (port, http):
        found = await shared(port)
        found["pages"] = await asyncio.to_thread(pages, http)
        tries = [*UNSCOPED, *(Try(each.title, each.jwt, U, each.lines) for each in CASES)]
        return found | {each.title: await said(port, each) for each in tries}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Json], dict[str, Json]]:
    binary, directory = oracle_binary(), tmp_path_factory.mktemp("sharing")
    assert binary is not None
    for name in ("theirs", "ours"):
        (directory / name).mkdir()

    async def main() -> tuple[dict[str, Json], dict[str, Json]]:
        theirs, ours = await asyncio.gather(
            told(directory / "theirs", binary),
            told(directory / "ours", sys.executable, "-m", "server.cli.main", "serve"),
        )
        return theirs, ours

    return asyncio.run(main())


def test_the_same_is_shared_and_permitted(both: tuple[dict[str, Json], dict[str, Json]]) -> None:
    theirs, ours = both
    assert ours == theirs


@pytest.mark.parametrize("title", BAD_PERMITS)
def test_an_account_with_a_wrong_token_is_refused(tmp_path: Path, title: str) -> None:
    """By nats-server when somebody wants to be in it, here at start."""
    text = configuration(**{GUEST.public: guest(BAD_PERMITS[title])})
    binary = oracle_binary()
    assert binary is not None

    async def theirs() -> list[str]:
        async with running(tmp_path, text, binary) as (port, _):
            return await said(port, Try("", token("user", GUEST, U, USER)))

    assert "-ERR 'Authorization Violation'\r\n" in asyncio.run(theirs())
    (tmp_path / "ours.conf").write_text(text)
    with pytest.raises(ConfigError, match=GUEST.public):
        load_options(tmp_path / "ours.conf", {})


def test_what_activations_allow(both: tuple[dict[str, Json], dict[str, Json]]) -> None:
    _, ours = both
    good = {"priv.good", "priv.wider", "priv.by-a-signing-key", "priv.of-the-account", "by.me", "either", "by.signer"}
    assert good <= {name for name, is_good in ours.items() if is_good is True}
