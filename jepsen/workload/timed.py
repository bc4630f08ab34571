"""T: messages that are to be stored later, by schedule; each comes once, not before its time, and its schedule goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from jepsen.checker import stream as checks
from jepsen.checker.timed import check_timed
from jepsen.history import FinalStream
from jepsen.sim.client import Client
from jepsen.workload.base import Publisher, Setting, idle, pause, read_stream

LATEST_S = 1.5
"""How far ahead schedules lie, at most."""
SOON_S = 8.0
"""How long after its time a message must be there, once nothing is wrong any more."""


READS_MAX = 10
"""Where clocks jumped nobody waits for the last schedule: so often the stream is read to see it at one moment."""


class Timed:
    """Workload T."""

    def __init__(self, setting: Setting, name: str = "T") -> None:
        self.setting, self.name = setting, name
        self.config = {"name": name, "subjects": [f"{name}.>"], "allow_msg_schedules": True, "allow_direct": True}
        self.final: FinalStream | None = None
        self.times_ns: dict[int, int] = {}
        """Of messages that schedules stored, by sequence."""

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._work] * self.setting.rng.randint(1, 3)

    async def _work(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        publisher = Publisher(setting, self.name, client, process)
        while publisher.may_go_on:
            for _ in range(rng.randint(1, 5)):
                if setting.is_over():
                    break
                value = publisher.value()
                due_ns = setting.wall_ns() + int(rng.uniform(-0.2, LATEST_S) * 1e9)
                headers = {"Nats-Schedule": f"@at {_text(due_ns)}", "Nats-Schedule-Target": f"{self.name}.then.{value}"}
                publisher.begin(f"{self.name}.plan.{value}", value, headers, due_ns=due_ns)
            await publisher.below(1)
            await pause(setting)
        await idle(setting)

    async def finish(self, client: Client) -> None:
        setting = self.setting
        if not setting.is_damaged and not setting.clocks_jump:
            await self._wait(client)
        for _ in range(READS_MAX):
            self.final = await read_stream(client, self.name, setting.last_acked(self.name))
            if self.final.count <= len(self.final.messages) + len(self.final.unreadable):
                break  # else a schedule came due between two reads: neither it nor its message was seen
        assert self.final is not None
        if setting.is_damaged or self.final.is_halted:
            return
        for seq, message in self.final.messages.items():
            if ".then." in message.subject:
                answer = await client.api(f"STREAM.MSG.GET.{self.name}", {"seq": seq})
                self.times_ns[seq] = _time_ns(answer["message"]["time"])

    async def _wait(self, client: Client) -> None:
        """Until no schedule is left, or all must have come."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + LATEST_S + SOON_S
        while loop.time() < until_s:
            body = {"subjects_filter": f"{self.name}.plan.>"}
            if not (await client.api(f"STREAM.INFO.{self.name}", body))["state"].get("subjects"):
                return
            await asyncio.sleep(0.2)

    def check(self) -> list[str]:
        assert self.final is not None
        final, setting = self.final, self.setting
        if final.is_halted or setting.is_damaged:
            return checks.check_contents(final)
        problems = check_timed(setting.history, final, self.times_ns, all_came=not setting.clocks_jump)
        return problems if setting.clocks_jump else [*problems, *checks.check_contents(final)]


def _text(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % 10**9:09d}Z"


def _time_ns(text: str) -> int:
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0") or 0)
