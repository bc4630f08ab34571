"""Requests to the system account: the pages, filters, errors, and who may ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import nats
from nats.errors import NoRespondersError

from jetstore.clock import RealClock
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from server.app import Server, World
from server.config.reader import load_options

CONFIGURATION = """
server_name: n1
accounts {
  $SYS { users [ {user: admin, password: x} ] }
  A { users [ {user: a, password: x, permissions: {publish: [">"], subscribe: {allow: ["_INBOX.>", "x q"], deny: y},
                                                   allow_responses: true}} ] }
}"""


class Client:
    """A user's connection."""

    def __init__(self, connection: nats.NATS) -> None:
        self.connection = connection

    async def ask(self, subject: str, body: bytes = b"") -> Any:  # Any: JSON
        reply = await self.connection.request(subject, body, timeout=20)
        return json.loads(reply.data)

    async def is_unheard(self, subject: str) -> bool:
        try:
            await self.ask(subject)
        except NoRespondersError:
            return True
        return False


def run(tmp_path: Path, talk: Callable[[Server, Client, Client], Awaitable[None]]) -> None:
    path = tmp_path / "x.conf"
    path.write_text(CONFIGURATION)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        options = load_options(path, {})
        server = Server(options, World(loop, RealClock(), Random(1), Limits(), ServerLimits()), None, lambda _: None)
        await server.clients.start("127.0.0.1", -1)
        server.system.start()
        listener = next(iter(server.clients._listeners))
        assert isinstance(listener, asyncio.Server)
        port = listener.sockets[0].getsockname()[1]
        clients = []
        for user in ("admin", "a"):
            connection = await nats.connect(f"nats://{user}:x@127.0.0.1:{port}", allow_reconnect=False)
            clients.append(Client(connection))
        try:
            await asyncio.wait_for(talk(server, *clients), 60)
        finally:
            for client in clients:
                await client.connection.close()
            await server.system.close()
            await server.clients.stop()

    asyncio.run(main())


def test_pages(tmp_path: Path) -> None:
    async def talk(server: Server, admin: Client, _: Client) -> None:
        own = f"$SYS.REQ.SERVER.{server.server_id}."
        answer = await admin.ask("$SYS.REQ.SERVER.PING")
        assert answer["server"]["name"] == "n1"
        assert answer["server"]["id"] == server.server_id
        assert answer["server"]["jetstream"] is False
        assert answer["statsz"]["connections"] == 2
        assert answer["statsz"]["active_servers"] == 1
        assert await admin.ask("$SYS.REQ.SERVER.PING.IDZ") == {
            "name": "n1",
            "host": "0.0.0.0",
            "id": server.server_id,
        }
        assert "cpu" in (await admin.ask(own + "STATSZ"))["statsz"]
        for name, field in (("VARZ", "in_msgs"), ("SUBSZ", "total"), ("ROUTEZ", "routes"), ("LEAFZ", "leafs")):
            assert field in (await admin.ask(own + name))["data"], name
        assert (await admin.ask(own + "HEALTHZ"))["data"] == {"status": "ok", "status_code": 200}
        assert (await admin.ask(own + "JSZ"))["data"]["disabled"] is True
        body = b'{"subscriptions": true, "auth": true, "limit": 1, "sort": "cid"}'
        (shown,) = (await admin.ask("$SYS.REQ.SERVER.PING.CONNZ", body))["data"]["connections"]
        assert (shown["account"], shown["authorized_user"]) == ("$SYS", "admin")
        assert shown["subscriptions_list"]

    run(tmp_path, talk)


def test_filters_and_mistakes(tmp_path: Path) -> None:
    async def talk(server: Server, admin: Client, _: Client) -> None:
        inbox = await admin.connection.subscribe("answers")
        for body in (b'{"server_name": "other"}', b'{"server_name": "n", "exact_match": true}', b'{"cluster": "c"}'):
            await admin.connection.publish("$SYS.REQ.SERVER.PING.STATSZ", body, reply="answers")
        await admin.connection.publish("$SYS.REQ.SERVER.PING.STATSZ", b'{"server_name": "n"}', reply="answers")
        assert b'"n1"' in (await inbox.next_msg(20)).data
        assert inbox.pending_msgs == 0
        bad = await admin.ask("$SYS.REQ.SERVER.PING.CONNZ", b"{x}")
        assert bad["error"]["code"] == 400
        bad = await admin.ask("$SYS.REQ.SERVER.PING.CONNZ", b'{"sort": "zzz"}')
        assert bad["error"] == {"code": 500, "description": "invalid sorting option: zzz"}
        assert await admin.is_unheard("$SYS.REQ.SERVER.PING.FOO")
        assert await admin.is_unheard("$SYS.REQ.SERVER.NOBODY.VARZ")

    run(tmp_path, talk)


def test_only_the_system_account_is_answered(tmp_path: Path) -> None:
    async def talk(server: Server, admin: Client, a: Client) -> None:
        assert await a.is_unheard("$SYS.REQ.SERVER.PING.VARZ")
        assert await a.is_unheard(f"$SYS.REQ.SERVER.{server.server_id}.VARZ")
        assert (await a.ask("$SYS.REQ.USER.INFO"))["data"] == {
            "user": "a",
            "account": "A",
            "account_name": "A",
            "permissions": {
                "publish": {"allow": [">"]},
                "subscribe": {"allow": ["_INBOX.>", "x q"], "deny": ["y"]},
                "responses": {"max": 1, "ttl": 120_000_000_000},
            },
        }
        assert (await admin.ask("$SYS.REQ.USER.INFO"))["data"] == {
            "user": "admin",
            "account": "$SYS",
            "account_name": "$SYS",
        }

    run(tmp_path, talk)


def test_requests_about_accounts(tmp_path: Path) -> None:
    async def talk(server: Server, admin: Client, a: Client) -> None:
        def about(name: str, account: str = "A") -> str:
            return f"$SYS.REQ.ACCOUNT.{account}.{name}"

        shown = (await admin.ask(about("CONNZ"), b'{"account": "$SYS", "subscriptions": true}'))["data"]
        assert [each["cid"] for each in shown["connections"]] == [a.connection.client_id]
        assert (await admin.ask(about("CONNZ"), b'{"filter_subject": "nobody"}'))["data"]["connections"] == []
        await a.connection.subscribe("_INBOX.own.*")
        await a.connection.flush()
        assert len((await admin.ask(about("CONNZ"), b'{"filter_subject": "_INBOX.own.x"}'))["data"]["connections"]) == 1
        subjects = [each["subject"] for each in (await admin.ask(about("SUBSZ")))["data"]["subscriptions_list"]]
        assert "_INBOX.own.*" in subjects
        assert (await admin.ask(about("INFO")))["data"]["account_name"] == "A"
        assert (await admin.ask(about("INFO", "NO")))["error"]["description"] == "Account NO does not exist"
        assert (await admin.ask(about("JSZ")))["error"]["description"] == "jetstream not enabled"
        assert (await admin.ask(about("CONNS")))["conns"] == 1
        for body, names in ((b"", ["$SYS", "A"]), (b'{"accounts": ["A"]}', ["A"])):
            found = (await admin.ask(about("STATZ", "PING"), body))["data"]["account_statz"]
            assert [each["acc"] for each in found] == names
        bad = await admin.ask(about("STATZ", "PING"), b'{"accounts": true}')
        assert bad["error"]["code"] == 400
        assert bad["error"]["description"].startswith("json: cannot unmarshal bool into Go struct field Statz")

    run(tmp_path, talk)


def test_members_of_any_account_ask_about_their_own_only(tmp_path: Path) -> None:
    async def talk(server: Server, admin: Client, a: Client) -> None:
        everything = b'{"acc": "$SYS", "account": "$SYS", "auth": true, "accounts": ["$SYS"], "include_unused": true}'
        own = [a.connection.client_id]
        for subject in ("$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ"):
            for body in (b"", everything):
                shown = (await a.ask(subject, body))["data"]
                assert [each["cid"] for each in shown["connections"]] == own
            other = b'{"cid": %d}' % admin.connection.client_id
            assert (await a.ask(subject, other))["data"]["connections"] == []
        for body in (b"", everything):
            found = (await a.ask("$SYS.REQ.ACCOUNT.PING.STATZ", body))["data"]["account_statz"]
            assert [each["acc"] for each in found] == ["A"]
        for subject in ("SERVER.PING.VARZ", "ACCOUNT.PING.INFO", "ACCOUNT.A.CONNZ", "USER.X", "SERVER.PING"):
            assert await a.is_unheard(f"$SYS.REQ.{subject}"), subject

    run(tmp_path, talk)


def test_reload_and_kick(tmp_path: Path) -> None:
    async def talk(server: Server, admin: Client, a: Client) -> None:
        own = f"$SYS.REQ.SERVER.{server.server_id}."
        server.reload = lambda: ""
        assert set(await admin.ask(own + "RELOAD")) == {"server"}
        server.reload = lambda: "no"
        assert (await admin.ask(own + "RELOAD"))["error"] == {"code": 500, "description": "no"}
        for body in (b'{"cid": 999}', b"{}"):
            assert (await admin.ask(own + "KICK", body))["error"]["description"] == "no such client or leafnode id"
        cid = a.connection.client_id
        assert set(await admin.ask(own + "KICK", b'{"cid": %d}' % cid)) == {"server"}
        assert cid not in server.clients.connections or server.clients.connections[cid].is_closed

    run(tmp_path, talk)
