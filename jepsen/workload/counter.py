"""J: counters that several clients add to; each value is the sum of what is stored up to it, nothing counts twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from jepsen.checker import stream as checks
from jepsen.checker.counter import check_counters
from jepsen.history import OK, FinalStream, Operation
from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent
from jepsen.workload.base import Setting, drain, get, idle, pause, read_stream

STEPS = (1, 1, 5, -3, 10**20)


class Counter:
    """Workload J."""

    def __init__(self, setting: Setting, name: str = "J") -> None:
        self.setting, self.name = setting, name
        self.subjects = [f"{name}.{number}" for number in range(setting.rng.choice((1, 3)))]
        self.config = {"name": name, "subjects": [f"{name}.>"], "allow_msg_counter": True}
        self.final: FinalStream | None = None
        self._used = 0

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._work] * self.setting.rng.randint(1, 4)

    async def _work(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        while not setting.is_over() and self._used < setting.publishes_max:
            subject = rng.choice(self.subjects)
            if rng.random() < 0.2:
                self._used += 1
                await self._read(client, process, subject)
            else:
                added = [
                    self._add(client, process, subject, rng.choice(STEPS)) for _ in range(rng.choice((1, 1, 2, 4)))
                ]
                await asyncio.gather(*added)
            await pause(setting)
        await idle(setting)

    async def _add(self, client: Client, process: int, subject: str, by: int) -> None:
        self._used += 1
        value = f"{self.name}-{process}-{self._used}"
        operation = self.setting.history.begin(process, "add", stream=self.name, subject=subject, by=by, value=value)
        try:
            answer = await client.request(subject, headers={"Nats-Incr": f"{by:+}", "X-Add": value})
            told = answer.json()
        except (ApiFailure, NotSent, NoResponders) as error:
            operation.fail(str(error))
            if isinstance(error, NotSent):
                raise
        else:
            operation.ok(seq=told["seq"], val=told["val"])

    async def _read(self, client: Client, process: int, subject: str) -> None:
        operation = self.setting.history.begin(process, "count", stream=self.name, subject=subject)
        try:
            found = await get(client, self.name, {"last_by_subj": subject})
        except ApiFailure as error:
            operation.fail(str(error))
        else:
            operation.ok(seq=found.seq if found else 0, val=json.loads(found.data)["val"] if found else "0")

    async def finish(self, client: Client) -> None:
        self.final = await read_stream(client, self.name, max(map(_seq, self.setting.history.of("add")), default=0))
        if not self.setting.is_damaged:
            self.setting.problems += await drain(client, self.final)

    def check(self) -> list[str]:
        assert self.final is not None
        problems = checks.check_contents(self.final)
        return problems if self.setting.is_damaged else problems + check_counters(self.setting.history, self.final)


def _seq(operation: Operation) -> int:
    return int(operation.result["seq"]) if operation.outcome == OK else 0
