"""A: unique values are appended, one by one and in windows, and read by sequence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from jepsen.checker import stream as checks
from jepsen.checker.replicas import check_stale
from jepsen.history import OK, FinalStream
from jepsen.sim.client import ApiFailure, Client, NoResponders
from jepsen.workload.base import (
    UNAVAILABLE,
    UNREADABLE,
    Publisher,
    Setting,
    direct_get,
    get,
    idle,
    pause,
    read_to_end,
)


class Append:
    """Workload A."""

    def __init__(self, setting: Setting, name: str = "A") -> None:
        self.setting, self.name = setting, name
        rng = setting.rng
        self.subjects = [f"{name}.{number}" for number in range(rng.choice((1, 1, 3, 20)))]
        self.windows = [rng.choice((1, 1, 10, 200)) for _ in range(rng.randint(1, 3))]
        self.config = {
            "name": name,
            "subjects": [f"{name}.>"],
            "storage": rng.choice(("file", "file", "memory")),
            "allow_direct": True,
        }
        self.final: FinalStream | None = None

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        def publisher(window: int) -> Callable[[Client, int], Awaitable[None]]:
            async def body(client: Client, process: int) -> None:
                await self._publish(client, process, window)

            return body

        return [*map(publisher, self.windows), self._read]

    async def _publish(self, client: Client, process: int, window: int) -> None:
        setting = self.setting
        publisher = Publisher(setting, self.name, client, process)
        while publisher.may_go_on:
            for _ in range(setting.rng.randint(1, window)):
                if setting.is_over():
                    break
                publisher.begin(setting.rng.choice(self.subjects), publisher.value(), {})
            await publisher.below(window)
            await client.drain()
            if setting.rng.random() < 0.1:
                await publisher.below(1)
                await self._read_own(client, process)
            await pause(setting)
        await publisher.below(1)
        await idle(setting)

    async def _read_own(self, client: Client, process: int) -> None:
        """What this connection was acknowledged it finds again, whichever replica answers."""
        setting = self.setting
        subject = setting.rng.choice(self.subjects)
        acked = [
            op.result["seq"]
            for op in setting.history.of("publish", outcome=OK)
            if op.args["stream"] == self.name and op.args["link"] == process and op.args["subject"] == subject
        ]
        await self._direct(client, process, {"last_by_subj": subject}, subject=subject, min_seq=max(acked, default=0))

    async def _direct(self, client: Client, process: int, request: dict[str, Any], **facts: Any) -> None:
        """A read that may be stale."""
        setting = self.setting
        if setting.reads_fail:
            return
        operation = setting.history.begin(process, "direct_get", stream=self.name, **facts)
        try:
            found = await direct_get(client, self.name, request)
        except NoResponders as error:
            operation.fail(str(error))
        else:
            operation.ok(seen=[found] if found else [], found=found is not None)

    async def _read(self, client: Client, process: int) -> None:
        setting = self.setting
        known = [
            op.result["seq"] for op in setting.history.of("publish", outcome="ok") if op.args["stream"] == self.name
        ]
        while not setting.is_over():
            await pause(setting)
            seq = setting.rng.choice(known) if known and setting.rng.random() < 0.7 else setting.rng.randint(1, 500)
            if setting.rng.random() < 0.25:
                await self._direct(client, process, {"seq": seq}, seq=seq)
                continue
            operation = setting.history.begin(process, "get", stream=self.name, seq=seq)
            try:
                found = await get(client, self.name, {"seq": seq})
            except ApiFailure as error:
                operation.fail(str(error))
                if error.err_code != UNAVAILABLE and not (setting.reads_fail and error.err_code in UNREADABLE):
                    setting.problems.append(f"err: get {seq} of {self.name}: {error}")
                continue
            operation.ok(seen=[found] if found else [], found=found is not None)
            if found is None and seq in known:
                setting.problems.append(f"lost: {operation.line()} found nothing, it was acknowledged before")
            if found is not None:
                known.append(found.seq)

    async def finish(self, client: Client) -> None:
        self.final = await read_to_end(self.setting, client, self.name)

    def check(self) -> list[str]:
        assert self.final is not None
        history, final = self.setting.history, self.final
        removals = checks.Removals(history, self.name)
        allowed = final.unreadable if self.setting.is_damaged else ()
        return [
            *checks.check_lost(history, final, removals, allowed),
            *checks.check_unexpected(history, final),
            *checks.check_phantom(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_dup_msg(history, final),
            *checks.check_order(history, final),
            *checks.check_gap(history, final, removals, allowed),
            *checks.check_contents(final),
            *check_stale(history, self.name),
        ]
