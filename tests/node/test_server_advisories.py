"""What the system account hears when a server has no room for requests, or on its disk."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from damaged_store import LIMITS, create, current_server, play_over

from jepsen.sim.client import ApiFailure, Client
from jepsen.sim.world import World
from jetstore.node.ports import Inbound


class Heard:
    """Everything that comes, as JSON by subject."""

    def __init__(self) -> None:
        self.advisories: list[tuple[str, dict[str, Any]]] = []

    def on_messages(self, batch: Inbound) -> None:
        for subject, payload in zip(batch.subjects, batch.payloads, strict=True):
            self.advisories.append((subject.decode(), json.loads(payload)))


def listen(world: World) -> Heard:
    heard = Heard()
    server = current_server(world)
    server.accounts[server.options.system_name].router.subscribe(b"$JS.EVENT.ADVISORY.>", heard)
    return heard


def test_requests_that_find_no_room() -> None:
    async def story(world: World, client: Client) -> None:
        await create(client, None)
        heard = listen(world)
        api = current_server(world).api
        api._limits = replace(LIMITS, api_requests_max=0)
        client.publish("$JS.API.STREAM.INFO.S", b"", reply="answers")
        client.publish("$JS.API.DIRECT.GET.S", b"", reply="answers")
        while api.dropped < 2:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        dropped = 0
        for subject, advisory in heard.advisories:
            assert subject == "$JS.EVENT.ADVISORY.API.LIMIT_REACHED"
            assert list(advisory) == ["type", "id", "timestamp", "server", "dropped"]
            assert advisory["type"] == "io.nats.jetstream.advisory.v1.api_limit_reached"
            assert advisory["server"] == "n1"
            dropped += advisory["dropped"]
        assert dropped == 2

    play_over(None, story)


async def publish_on(client: Client) -> None:
    for _ in range(100):
        (await client.request("s.1", b"x")).json()


def test_a_full_disk() -> None:
    async def story(world: World, client: Client) -> None:
        await create(client, None)
        heard = listen(world)
        vfs = world.machine.vfs
        vfs.capacity_bytes -= vfs.free_bytes() - LIMITS.disk_reserve_bytes // 2
        with pytest.raises(ApiFailure, match="10023"):
            await publish_on(client)
        [(subject, advisory)] = heard.advisories
        assert subject == "$JS.EVENT.ADVISORY.SERVER.OUT_OF_STORAGE"
        assert list(advisory) == ["type", "id", "timestamp", "server", "server_id"]
        assert advisory["type"] == "io.nats.jetstream.advisory.v1.server_out_of_space"
        assert advisory["server_id"] == current_server(world).server_id

    play_over(None, story)
