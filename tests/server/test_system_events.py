"""What the system account hears without asking: names, order, contents as nats-server's, and nothing unasked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from system_script import Json, coming_and_going, listener, oracle_binary, ours, shape, theirs, visit

from server.events import SystemEvents


def test_clients_come_fail_and_go(tmp_path: Path) -> None:
    async def main() -> list[tuple[str, Json]]:
        async with ours(tmp_path) as server:
            heard = await coming_and_going(server.port)
            return [(subject.replace(server.server_id, "ID"), body) for subject, body in heard]

    heard = asyncio.run(main())
    assert [subject.removeprefix("$SYS.") for subject, _ in heard] == [
        "SERVER.ACCOUNT.B.CONNS",
        "ACCOUNT.B.SERVER.CONNS",
        "ACCOUNT.B.CONNECT",
        "SERVER.ACCOUNT.B.CONNS",
        "ACCOUNT.B.SERVER.CONNS",
        "ACCOUNT.B.DISCONNECT",
        "SERVER.ID.CLIENT.AUTH.ERR",
        "ACCOUNT.$G.DISCONNECT",
        "ACCOUNT.$G.DISCONNECT",
        "SERVER.ID.STATSZ",
    ]
    bodies = [body for _, body in heard]
    assert [body["conns"] for body in (bodies[0], bodies[3])] == [1, 0]
    assert bodies[0]["id"] == bodies[1]["id"] != bodies[2]["id"]
    client = bodies[2]["client"]
    assert (client["user"], client["acc"], client["name"], client["kind"]) == ("b", "B", "visitor", "Client")
    assert (bodies[5]["reason"], bodies[5]["sent"]) == ("Client Closed", {"msgs": 1, "bytes": 3})
    assert bodies[5]["client"]["start"] == client["start"] < bodies[5]["client"]["stop"]
    assert (bodies[6]["reason"], bodies[6]["client"]["user"]) == ("Authentication Failure", "b")
    assert "user" not in bodies[8]["client"]
    assert (bodies[9]["statsz"]["connections"], bodies[9]["statsz"]["active_accounts"]) == (1, 1)


@pytest.mark.oracle
@pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand")
def test_events_are_nats_servers(tmp_path: Path) -> None:
    async def main() -> list[list[tuple[str, Json]]]:
        async with ours(tmp_path) as server, theirs(tmp_path) as (port, _):
            found = []
            for each in (server.port, port):
                heard = await coming_and_going(each)
                found.append([(subject.replace(body["server"]["id"], "ID"), body) for subject, body in heard])
            return found

    us, them = asyncio.run(main())
    assert [subject for subject, _ in us] == [subject for subject, _ in them]
    for (subject, ours_), (_, theirs_) in zip(us, them, strict=True):
        assert shape(ours_) == shape(theirs_), subject
    for at in (0, 3):
        assert us[at][1]["conns"] == them[at][1]["conns"]
    for at in (5, 6, 7, 8):
        for field in ("type", "reason", "received", "sent"):
            assert us[at][1][field] == them[at][1][field], field
        for field in ("acc", "user", "name", "name_tag"):
            assert us[at][1]["client"].get(field) == them[at][1]["client"].get(field), field


def test_the_end_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with ours(tmp_path) as server, listener(server.port) as system:
            await system.listen("$SYS.SERVER.*.LAMEDUCK", "$SYS.SERVER.*.SHUTDOWN")
            server.events.lame_duck()
            server.events.close()
            for name in ("LAMEDUCK", "SHUTDOWN"):
                assert (await system.until(name))["id"] == server.server_id
            server.events.close()
            await system.connection.flush()
            assert len(system.heard) == 2, "told once"

    asyncio.run(main())


def test_what_nobody_hears_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: object) -> None:
        raise AssertionError("an event was made")

    async def main() -> None:
        async with ours(tmp_path) as server:
            monkeypatch.setattr(SystemEvents, "_send", made)
            assert await visit(server.port, "b") == b"PONG\r\n"
            assert b"Authorization" in await visit(server.port, "b", "wrong")
            events = server.events
            assert events._statsz_timer is None
            assert events._connections_timer is None
            assert server.system._pages is None
            monkeypatch.undo()
            async with listener(server.port) as system:
                await system.listen("$SYS.SERVER.*.STATSZ", "$SYS.ACCOUNT.*.SERVER.CONNS")
                await system.until("STATSZ")
                assert events._connections_timer is not None
                await system.until("STATSZ", 2)
                events._tell_all_connections()
                assert (await system.until("SYS.SERVER.CONNS"))["conns"] == 1
                assert events._connections_timer is not None
            while server.clients.connections:  # noqa: ASYNC110 - the server has nothing to wait on
                await asyncio.sleep(0)
            events._tell_all_connections()
            assert events._connections_timer is None, "nobody listens any more"

    asyncio.run(main())
