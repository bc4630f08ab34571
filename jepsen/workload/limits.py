"""K: a stream whose limits are tiny and change; what it holds is asked all the time, not only in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from jepsen.checker import stream as checks
from jepsen.checker.limits import check_limits
from jepsen.history import FinalStream
from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent
from jepsen.workload.base import Publisher, Setting, idle, pause, read_to_end

SIZES = {"max_msgs": (5, 20), "max_bytes": (1_500, 6_000), "max_msgs_per_subject": (1, 3)}
"""The two values that each limit changes between."""
EXPIRED_S = 8.0
"""How long after its time a message may still be there, once nothing is wrong any more."""


class Limits:
    """Workload K."""

    def __init__(self, setting: Setting, name: str = "K") -> None:
        self.setting, self.name = setting, name
        rng = setting.rng
        self.subjects = [f"{name}.{number}" for number in range(rng.choice((1, 3)))]
        self.limited = [field for field in SIZES if rng.random() < 0.5] or ["max_msgs"]
        self.age_s = 0.0 if setting.clocks_jump else rng.choice((0.0, 0.0, 1.0, 3.0))
        self.config: dict[str, Any] = {
            "name": name,
            "subjects": [f"{name}.>"],
            "discard": rng.choice(("old", "old", "new")),
            "max_age": int(self.age_s * 1e9),
            **self._drawn(),
        }
        if self.config["discard"] == "new" and "max_msgs_per_subject" in self.limited:
            self.config["discard_new_per_subject"] = rng.random() < 0.5
        self.final: FinalStream | None = None

    def _drawn(self) -> dict[str, int]:
        return {field: self.setting.rng.choice(SIZES[field]) for field in self.limited}

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._publish, self._publish, self._watch, self._change]

    async def _publish(self, client: Client, process: int) -> None:
        setting = self.setting
        publisher = Publisher(setting, self.name, client, process)
        while publisher.may_go_on:
            for _ in range(setting.rng.randint(1, 12)):
                if setting.is_over():
                    break
                publisher.begin(setting.rng.choice(self.subjects), publisher.value(), {})
            await publisher.below(1)
            await pause(setting)
        await idle(setting)

    async def _watch(self, client: Client, process: int) -> None:
        while not self.setting.is_over():
            await self._look(client, process)
            await asyncio.sleep(self.setting.rng.uniform(0.01, 0.1))

    async def _look(self, client: Client, process: int) -> int:
        """What the stream holds now; the number of its messages."""
        operation = self.setting.history.begin(process, "stream_info", stream=self.name)
        try:
            state = (await client.api(f"STREAM.INFO.{self.name}", {"subjects_filter": ">"}))["state"]
        except ApiFailure as error:
            operation.fail(str(error))
            return -1
        most = max(state.get("subjects", {}).values(), default=0)
        operation.ok(max_msgs=state["messages"], max_bytes=state["bytes"], max_msgs_per_subject=most)
        return int(state["messages"])

    async def _change(self, client: Client, process: int) -> None:
        setting = self.setting
        while not setting.is_over():
            await asyncio.sleep(setting.rng.uniform(0.1, 1.0))
            wanted = self._drawn()
            operation = setting.history.begin(process, "stream_update", stream=self.name, **wanted)
            try:
                await client.api(f"STREAM.UPDATE.{self.name}", {**self.config, **wanted, **self._replicas(client)})
            except (ApiFailure, NotSent, NoResponders) as error:
                operation.fail(str(error))
                if isinstance(error, NotSent):
                    raise
            else:
                operation.ok()

    def _replicas(self, client: Client) -> dict[str, int]:
        guide = getattr(client, "guide", None)
        return {} if guide is None else {"num_replicas": guide.replicas}

    async def finish(self, client: Client) -> None:
        setting = self.setting
        if self.age_s and not setting.is_damaged:
            await self._wait_until_old(client)
        await self._look(client, 0)
        self.final = await read_to_end(setting, client, self.name)

    async def _wait_until_old(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.age_s + EXPIRED_S
        while left := await self._look(client, 0):
            if loop.time() > until_s:
                told = f"limit: {left} messages of {self.name} outlive max_age {self.age_s} s by {EXPIRED_S} s"
                self.setting.problems.append(told)
                return
            await asyncio.sleep(0.2)

    def check(self) -> list[str]:
        assert self.final is not None
        history, final = self.setting.history, self.final
        is_by_number = not self.age_s and "max_bytes" not in self.limited
        removals = checks.Removals(
            history,
            self.name,
            keep_last=SIZES["max_msgs"][0] * ("max_msgs" in self.limited),
            keep_per_subject=SIZES["max_msgs_per_subject"][0] * ("max_msgs_per_subject" in self.limited),
            ages=not is_by_number,
        )
        allowed = final.unreadable if self.setting.is_damaged else ()
        created = {field: self.config[field] for field in self.limited}
        return [
            *checks.check_lost(history, final, removals, allowed),
            *checks.check_unexpected(history, final),
            *checks.check_phantom(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_dup_msg(history, final),
            *checks.check_order(history, final),
            *checks.check_gap(history, final, removals, allowed),
            *checks.check_contents(final),
            *check_limits(history, self.name, created, removes=self.config["discard"] == "old"),
        ]
