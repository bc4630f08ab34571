"""Reloads of what accounts are, one after the other, with connections that stay; beside a nats-server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from reload_script import Ask, Count, Reload, Say, Step, serving
from system_script import oracle_binary

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

HEAD = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", max_mem: 1G, max_file: 1G }}
"""


def account(name: str, more: str = "", users: str = "") -> str:
    """An account with users of its name in small and that with a 2."""
    user = name.lower()
    users = users or f"{{user: {user}, password: x}}, {{user: {user}2, password: x}}"
    return f"{name} {{\n users [ {users} ]\n {more}\n}}"


def reload(*accounts: str, rest: str = "") -> Reload:
    return Reload("accounts {\n$SYS { users [ {user: s, password: x} ] }\n" + "\n".join(accounts) + "\n}\n" + rest)


def publish(subject: str, body: str = "hi", reply: str = "") -> list[str]:
    return [f"PUB {subject} {reply} {len(body)}", body]


A, B, C = account("A"), account("B"), account("C")
PASSWORD = account("A", users="{user: a, password: other}")
PERMITTED = account("A", users='{user: a, password: x, permissions: {subscribe: ["p.>"], publish: "x"}}')
BY_DEFAULT = account("A", 'default_permissions: {publish: "p.>", subscribe: "p.>"}', "{user: a, password: x}")
EXPORT = account("A", 'exports [{stream: "p.>"}]')
FROM_A = 'imports [{stream: {account: A, subject: "p.>"}%s}]'
SERVICE = account("A", 'exports [{service: "q.>"}]')
MINE = 'imports [{service: {account: A, subject: "%s"}, to: mine}]'
SHARING: list[Step] = [
    Say("a", ["SUB x 1", "SUB p.> 2", "SUB q.> 3"], "a"),
    Say("b", ["SUB x 1", "SUB p.> 2", "SUB from.p.* 3", "SUB > 4", "SUB p.* g 5"], "b"),
    reload(EXPORT, account("B", FROM_A % "")),
    Say("a", publish("p.1")),
    Say("b"),
    reload(EXPORT, account("B", FROM_A % ", prefix: from")),
    Say("a", publish("p.1")),
    Say("b"),
    reload(account("A", 'exports [{stream: "p.>", accounts: [C]}]'), account("B", FROM_A % ""), C),
    reload(A, account("B", FROM_A % "")),
    reload(A, account("B", FROM_A.replace("A", "Z") % "")),
    Say("a", publish("p.1")),
    Say("b"),
    reload(EXPORT, B),
    Say("a", publish("p.1")),
    Say("b"),
    reload(SERVICE, account("B", MINE % "q.x")),
    Say("b", ["SUB inbox 7", *publish("mine", reply="inbox")]),
    Say("a"),
    reload(SERVICE, account("B", MINE % "q.y")),
    Say("b", publish("mine", reply="inbox")),
    Say("a"),
    reload(SERVICE, B),
    Say("b", publish("mine", reply="inbox")),
    Say("a"),
    reload(account("A", "mappings {m: n}"), B),
    Say("a", ["SUB m 20", "SUB n 21", "SUB o 22", *publish("m")]),
    reload(account("A", "mappings {m: o}"), B),
    Say("a", publish("m")),
    reload(account("A", 'mappings {m: "foo.$1"}'), B),
    reload(A, B),
    Say("a", publish("m")),
]
COMING_AND_GOING: list[Step] = [
    reload(A, B, C),
    Say("c", ["SUB x 1", *publish("x")], "c"),
    Say("a"),
    Say("b"),
    reload(A, B),
    Say("c"),
    Say("c", [], "c"),
    reload(A, B, C),
    Say("c", ["SUB x 1", *publish("x")], "c"),
    # A user moves to another account, one goes, one has another password.
    Say("a2", ["SUB y 1"], "a2"),
    reload(account("A", users="{user: a, password: x}"), account("B", users="{user: a2, password: x}"), C),
    Say("a2"),
    Say("b"),
    Say("a2", ["SUB y 1"], "a2"),
    reload(PASSWORD, B, C),
    Say("a"),
    Say("a", [], "a:other"),
    Say("a", [], "a"),
    reload(A, B, C),
    Say("a"),
    # Permissions.
    Say("a", ["SUB x 1", "SUB p.> 2", "SUB q.* g 3"], "a"),
    reload(PERMITTED, B, C),
    Say("a"),
    Say("a", [*publish("x"), *publish("y"), "SUB z 9"]),
    reload(A, B, C),
    Say("a", ["SUB x 1", *publish("x"), *publish("y")]),
    reload(BY_DEFAULT, B, C),
    Say("a"),
    Say("a", [*publish("x"), *publish("p.1")]),
    reload(A, B, C),
    # What neither changes.
    reload(A, B, C, rest="no_auth_user: a"),
    Say("n"),
    reload(A, B, C, rest="system_account: A"),
]
LIMITS: list[Step] = [
    Say("l", ["SUB x 1", "SUB y 2", "SUB z 3"], "a"),
    reload(account("A", "limits {max_subs: 1}"), B, C),
    Say("l"),
    Say("l", ["SUB zz 4"]),
    reload(account("A", "limits {max_payload: 4}"), B, C),
    Say("l", publish("x", "1234")),
    reload(A, B, C),
    Say("l", publish("x", "12345")),
    reload(account("A", "limits {max_payload: 4}"), B, C),
    Say("l", publish("x", "12345")),
    *[Say(who, [], "a") for who in ("l1", "l2", "l3")],
    reload(account("A", "limits {max_conn: 1}"), account("B", users="{user: b, password: x}"), C),
    Count(["a", "l1", "l2", "l3"]),
    Say("l4", [], "a"),
    reload(A, B, C),
    Say("l4", [], "a"),
]
STREAM = '{"name": "S", "subjects": ["s.*"]}'
CONSUMER = '{"stream_name": "S", "config": {"durable_name": "c", "deliver_subject": "d", "ack_policy": "none"}}'
WITH = "jetstream: enabled"
NAMES = "$JS.API.STREAM.NAMES"
SHARED = 'exports [{service: "$JS.API.>"}, {stream: "e"}]\n'
SHARING_IN = (
    'imports [{service: {account: A, subject: "$JS.API.STREAM.NAMES"}, to: names}, {stream: {account: A, subject: e}}]'
)
JETSTREAM: list[Step] = [
    Say("ja", [], "a"),
    Say("jb", ["SUB e 1"], "b"),
    Say("e", ["SUB e 1"], "a2"),
    Ask("ja", "$JS.API.INFO"),
    reload(account("A", WITH), B),
    Ask("ja", "$JS.API.STREAM.CREATE.S", STREAM),
    Ask("ja", "$JS.API.CONSUMER.CREATE.S.c", CONSUMER),
    Ask("ja", "s.1", "hi"),
    Ask("jb", NAMES),
    # Off: nothing is kept or shown.
    reload(A, B),
    *[Ask("ja", subject) for subject in (NAMES, "$JS.API.INFO", "$JS.API.CONSUMER.NAMES.S", "s.2")],
    Say("ja", ["SUB e 1", *publish("e")]),
    Say("e"),
    # On again, with what it had.
    reload(account("A", WITH), account("B", WITH)),
    *[Ask("ja", subject) for subject in (NAMES, "$JS.API.CONSUMER.NAMES.S", "s.3")],
    Ask("jb", NAMES),
    Ask("jb", "$JS.API.STREAM.CREATE.S", STREAM),
    Ask("jb", "s.1"),
    Say("ja", publish("e")),
    Say("e"),
    reload(A, account("B", WITH)),
    Ask("jb", NAMES),
    Ask("ja", NAMES),
    Ask("jb", "s.1"),
    reload(A, B),
    Ask("jb", NAMES),
    Ask("jb", "s.1"),
    # Through imports, which follow.
    reload(account("A", WITH + "\n" + SHARED), account("B", SHARING_IN)),
    Ask("jb", "names"),
    Say("ja", publish("e")),
    Say("jb"),
    reload(account("A", SHARED), account("B", SHARING_IN)),
    Ask("jb", "names"),
    Say("ja", publish("e")),
    Say("jb"),
    reload(account("A", WITH + "\n" + SHARED), account("B", WITH + "\n" + SHARING_IN)),
    Ask("jb", "names"),
    Ask("jb", NAMES),
    Say("ja", publish("e")),
    Say("jb"),
    reload(account("A", WITH + "\n" + SHARED), account("B", SHARING_IN)),
    Ask("jb", "names"),
    Ask("jb", NAMES),
    Say("ja", publish("e")),
    Say("jb"),
    # Limits.
    reload(account("A", "jetstream: {max_streams: 1}"), account("B", WITH)),
    Ask("ja", "$JS.API.STREAM.CREATE.T", '{"name": "T", "subjects": ["t"]}'),
    reload(account("A", "jetstream: {max_streams: 5, max_store: 10, max_mem: 10}"), account("B", WITH)),
    Ask("ja", "$JS.API.STREAM.CREATE.T", '{"name": "T", "subjects": ["t"]}'),
    Ask("ja", "s.4"),
    Ask("jb", "s.4"),
    reload(account("A", WITH), account("B", WITH)),
    Ask("ja", "s.4"),
    # Without the account nobody sees its streams; with it they are back.
    reload(account("B", WITH)),
    Say("ja"),
    reload(account("A", WITH), account("B", WITH)),
    Say("ja", [], "a"),
    Ask("ja", NAMES),
    Ask("jb", "s.5"),  # not of A: there the other server's streams take nothing before a restart
    # On and off until the end, which is a restart.
    reload(A, B),
]
AFTER_A_RESTART: list[Step] = [
    Say("ja", [], "a"),
    Ask("ja", NAMES),
    reload(account("A", WITH), account("B", WITH)),
    Ask("ja", NAMES),
    Ask("ja", "s.6"),
]


async def came_of(directory: Path, *command: str) -> list[tuple[Step, object]]:
    """What came of each step."""
    found: list[tuple[Step, object]] = []
    first = reload(A, B)
    for steps in ([*SHARING, *COMING_AND_GOING, *LIMITS, *JETSTREAM], AFTER_A_RESTART):
        async with serving(directory, HEAD, first.accounts, *command) as servant:
            found += [(step, await servant.do(step)) for step in steps]
    return found


def test_the_same_after_each_reload(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[tuple[Step, object]], list[tuple[Step, object]]]:
        binary = oracle_binary()
        assert binary is not None
        theirs = await came_of(tmp_path / "theirs", binary)
        return theirs, await came_of(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve")

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there
