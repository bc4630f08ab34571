"""F: a stream with a mirror, a mirror of that, and a stream that sources it; in one server, which copies in itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jepsen.checker import stream as checks
from jepsen.checker.copies import check_mirror, check_source
from jepsen.history import FinalStream
from jepsen.sim.client import Client
from jepsen.workload.base import Publisher, Setting, read_stream, read_to_end

CAUGHT_UP_S = 15.0
"""How soon copies must have everything, once nothing is wrong any more."""


class Copies:
    """Workload F."""

    def __init__(self, setting: Setting, name: str = "F") -> None:
        self.setting, self.name = setting, name
        self.mirror, self.chained, self.sourced = f"{name}1", f"{name}2", f"{name}3"
        self.others = (self.mirror, self.chained, self.sourced)
        self.final: FinalStream | None = None
        self.copies: dict[str, FinalStream] = {}

    async def setup(self, client: Client) -> None:
        for config in (
            {"name": self.name, "subjects": [f"{self.name}.>"]},
            {"name": self.mirror, "mirror": {"name": self.name}},
            {"name": self.chained, "mirror": {"name": self.mirror}},
            {"name": self.sourced, "subjects": [f"{self.sourced}.>"], "sources": [{"name": self.name}]},
        ):
            await client.api(f"STREAM.CREATE.{config['name']}", config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._publish, self._publish]

    async def _publish(self, client: Client, process: int) -> None:
        rng = self.setting.rng
        await Publisher(self.setting, self.name, client, process).bursts(lambda: f"{self.name}.{rng.randrange(3)}")

    async def finish(self, client: Client) -> None:
        setting = self.setting
        self.final = await read_to_end(setting, client, self.name)
        if setting.is_damaged:
            return
        await self._wait(client, self.final.count)
        for name in self.others:
            self.copies[name] = await read_stream(client, name, 0)

    async def _wait(self, client: Client, count: int) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + CAUGHT_UP_S
        while loop.time() < until_s:
            there = [(await client.api(f"STREAM.INFO.{name}"))["state"]["messages"] for name in self.others]
            if min(there) >= count:
                return
            await asyncio.sleep(0.2)

    def check(self) -> list[str]:
        assert self.final is not None
        history, final = self.setting.history, self.final
        removals = checks.Removals(history, self.name)
        allowed = final.unreadable if self.setting.is_damaged else ()
        problems = [
            *checks.check_lost(history, final, removals, allowed),
            *checks.check_unexpected(history, final),
            *checks.check_phantom(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_dup_msg(history, final),
            *checks.check_order(history, final),
            *checks.check_gap(history, final, removals, allowed),
            *checks.check_contents(final),
        ]
        for name, copy in self.copies.items():
            check = check_source if name == self.sourced else check_mirror
            problems += [*check(final, copy), *checks.check_contents(copy), *checks.check_whole(copy)]
        return problems
