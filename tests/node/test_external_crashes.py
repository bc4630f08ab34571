"""Goal: what a stream copies from another account's is in one of the two, whenever the disk dies, and only there.

One client in B, which may ask all of A's API under a prefix and publish to A's stream. The disk dies at the n-th
operation after the first publish, for many n; then the server starts again.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backup_world import joined, restore, snapshot
from damaged_store import play_over
from test_sourcing_crashes import MESSAGES, STEP, play

import jepsen.sim.server as simulated
from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent, Unknown
from jepsen.sim.machine import Boot
from jepsen.sim.world import World
from jetstore.limits import Limits
from server.config.options import Options
from server.config.reader import load_options

CONFIGURATION = """
accounts {
  A { jetstream: enabled, users [ {user: a, password: x} ],
      exports [ {service: "$JS.API.>"}, {service: "$JS.FC.>"}, {service: "o.*"}, {stream: "d.>"} ] }
  B { jetstream: enabled, users [ {user: b, password: x} ],
      imports [ {service: {account: A, subject: "$JS.API.>"}, to: "A.API.>"},
                {service: {account: A, subject: "$JS.FC.>"}}, {service: {account: A, subject: "o.*"}},
                {stream: {account: A, subject: "d.>"}} ] }
}
no_auth_user: b
"""
EXTERNAL = {"api": "A.API", "deliver": "d"}
COPIES: dict[str, dict[str, Any]] = {
    "mirror": {"name": "C", "mirror": {"name": "O", "external": EXTERNAL}},
    "source": {"name": "C", "sources": [{"name": "O", "external": EXTERNAL}]},
}


@pytest.fixture(autouse=True)
def _accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server of the test has both accounts."""
    path = tmp_path / "accounts.conf"
    path.write_text(CONFIGURATION)
    given = load_options(path, {})
    plain = simulated.options_of

    def options_of(boot: Boot, limits: Limits) -> Options:
        return replace(plain(boot, limits), accounts=given.accounts, no_auth_user="b")

    monkeypatch.setattr(simulated, "options_of", options_of)


async def ask_a(client: Client, what: str, body: Any = None) -> Any:
    """A's answer to a request of its API."""
    return (await client.request(f"A.API.{what}", b"" if body is None else json.dumps(body).encode())).json()


async def settled(client: Client) -> int:
    """The last sequence of the origin, once nothing is left in it."""
    for _ in range(100):
        state = (await ask_a(client, "STREAM.INFO.O"))["state"]
        if state["messages"] == 0 and state["consumer_count"] == 1:
            return int(state["last_seq"])
        await asyncio.sleep(0.1)
    raise AssertionError(state)


@pytest.mark.parametrize("kind", sorted(COPIES))
def test_every_message_is_in_the_copy_once(kind: str, record_property: Any) -> None:
    async def empty(world: World, client: Client) -> None:
        await ask_a(client, "STREAM.CREATE.O", {"name": "O", "subjects": ["o.*"], "retention": "workqueue"})
        await client.api("STREAM.CREATE.C", COPIES[kind])
        for _ in range(100):
            if (await ask_a(client, "STREAM.INFO.O"))["state"]["consumer_count"]:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("nobody copies")

    vfs, _ = play_over(None, empty)
    partly = 0

    async def story(world: World, client: Client) -> None:
        nonlocal partly
        if at:
            world.machine.crash_at_disk_operation(at, 0.0)
        acknowledged = 0
        for number in range(MESSAGES):
            try:
                answer = (await client.request("o.x", b"%d" % number)).json()
            except (Unknown, NotSent, NoResponders, ApiFailure):
                break
            assert answer["stream"] == "O"
            acknowledged += 1
            if number == MESSAGES // 2:
                await asyncio.sleep(0.1)  # the copy catches up
        await asyncio.sleep(1)
        if at:
            client = await world.up()
        last = await settled(client)
        assert last >= acknowledged
        found = []
        for seq in range(1, (await client.api("STREAM.INFO.C"))["state"]["last_seq"] + 1):
            message = (await client.api("STREAM.MSG.GET.C", {"seq": seq}))["message"]
            found.append(base64.b64decode(message["data"]))
        assert found == [b"%d" % number for number in range(last)], at
        partly += acknowledged < MESSAGES

    at = 0
    operations = play(vfs, story, 0)
    points = range(1, operations + 1, STEP)
    for at in points:
        play(vfs, story, at)
    record_property("cases", len(points))
    assert partly


def test_what_another_account_copied_with_goes_when_the_copy_does() -> None:
    async def story(world: World, client: Client) -> None:
        await ask_a(client, "STREAM.CREATE.O", {"name": "O", "subjects": ["o.*"], "retention": "interest"})
        await client.api("STREAM.CREATE.C", COPIES["mirror"])
        for count in (1, 0):
            for _ in range(100):
                if (await ask_a(client, "STREAM.INFO.O"))["state"]["consumer_count"] == count:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError(count)
            if count:
                await client.api("STREAM.DELETE.C")

    play_over(None, story)


def test_an_archive_tells_origins_of_one_name_apart() -> None:
    """After a restore the positions come from headers: ``O`` of A and ``O`` of B are two origins."""

    async def story(world: World, client: Client) -> None:
        config = {"name": "S", "sources": [{"name": "O", "external": EXTERNAL}, {"name": "O"}]}
        await ask_a(client, "STREAM.CREATE.O", {"name": "O", "subjects": ["o.*"]})
        await client.api("STREAM.CREATE.O", {"name": "O", "subjects": ["b"]})
        await client.api("STREAM.CREATE.S", config)

        async def put(count: int, total: int) -> None:
            for number in range(count):
                await client.request("o.x", b"a%d" % number)
            await client.request("b", b"b")
            for _ in range(50):
                await asyncio.sleep(0.1)
                if (await client.api("STREAM.INFO.S"))["state"]["messages"] >= total:
                    break
            await asyncio.sleep(3)
            assert (await client.api("STREAM.INFO.S"))["state"]["messages"] == total

        await put(3, 4)
        archive = joined((await snapshot(client))[1])
        await client.api("STREAM.DELETE.S")
        assert "error" not in await restore(client, archive, config)
        await put(1, 6)

    play_over(None, story)
