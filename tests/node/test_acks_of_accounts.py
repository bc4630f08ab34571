"""PubAcks of a journal block leave with it, in every account that the block has publishes of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from damaged_store import create, current_server, play_over

from jepsen.sim.client import Client
from jepsen.sim.world import World
from jetstore.model.server_limits import ServerLimits
from jetstore.model.stream import StreamConfig
from jetstore.node.streams_api import StreamsApi


class Account:
    """An account's router that tells when PubAcks come to it, when they leave, and when the loop's next turn comes."""

    domain = ""

    def __init__(self, router: Any, account: str, told: list[tuple[str, str]]) -> None:
        self._router = router
        self.account = account
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)

    def pub_acks(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        self._told.append((self.account, "acks"))
        asyncio.get_running_loop().call_soon(lambda: self._told.append((self.account, "next turn")))
        self._router.pub_acks(stream, replies, seqs)

    def flush_acks(self) -> None:
        self._told.append((self.account, "flush"))
        self._router.flush_acks()


def test_every_account_is_flushed_with_the_block_and_no_other() -> None:
    told: list[tuple[str, str]] = []

    async def story(world: World, client: Client) -> None:
        await create(client)
        node = current_server(world).node
        accounts = {name: Account(node.outlet, name, told) for name in "AB"}
        node.parts = replace(node.parts, outlet_of=lambda name: accounts.get(name, node.outlet))
        for name in "AB":
            config = StreamConfig(name="T", subjects=(f"t.{name}",))
            await StreamsApi(node, ServerLimits(), account=name).create_stream(config)
        told.clear()
        for names in ("A", "B", "AB", ""):
            answers = [client.request(f"t.{name}", b"x") for name in names]
            assert all(b'"seq"' in answer.data for answer in await asyncio.gather(*answers))
            expected = sorted((name, what) for name in names for what in ("acks", "flush", "next turn"))
            assert sorted(told) == expected
            for name in names:
                assert [what for whose, what in told if whose == name] == ["acks", "flush", "next turn"]
            await client.request("o.1", b"x")
            assert sorted(told) == expected
            told.clear()

    play_over(None, story)
