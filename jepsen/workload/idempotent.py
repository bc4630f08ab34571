"""D: publishers that retry with the same message id after success, refusal, silence, and from other connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from jepsen.checker import stream as checks
from jepsen.history import FAIL, INFO, OK, FinalStream
from jepsen.sim.client import Client
from jepsen.workload.base import Publisher, Setting, idle, pause, read_to_end


class Idempotent:
    """Workload D."""

    def __init__(self, setting: Setting, name: str = "D") -> None:
        self.setting, self.name = setting, name
        self.config = {"name": name, "subjects": [f"{name}.>"], "duplicate_window": 10_000 * 24 * 3600 * 10**9}
        self.open: list[tuple[str, str]] = []
        """(value, subject) of which nobody knows yet whether it is stored."""
        self.done: list[tuple[str, str]] = []
        self.chain_seq = 0
        self.final: FinalStream | None = None

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._work] * self.setting.rng.randint(1, 4)

    async def _work(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        publisher = Publisher(setting, self.name, client, process)
        while publisher.may_go_on:
            roll = rng.random()
            if self.open and roll < 0.5:
                value, subject = self.open.pop(rng.randrange(len(self.open)))
            elif self.done and roll < 0.65:
                value, subject = rng.choice(self.done)
            else:
                value, subject = publisher.value(), f"{self.name}.{process % 7}"
            copies = [publisher.begin(subject, value, {"Nats-Msg-Id": value}, msg_id=value)]
            if rng.random() < 0.15:
                copies.append(publisher.begin(subject, value, {"Nats-Msg-Id": value}, msg_id=value))
            await publisher.below(1)
            outcomes = {copy.outcome for copy in copies}
            if OK in outcomes:
                self.done.append((value, subject))
            elif INFO in outcomes or rng.random() < 0.5:
                self.open.append((value, subject))
            if outcomes != {OK} and FAIL not in outcomes:
                return
            await pause(setting)
        await idle(setting)

    async def finish(self, client: Client) -> None:
        setting = self.setting
        publisher = Publisher(setting, self.name, client, 0)
        if not setting.is_damaged:
            for value, subject in self.open:
                await publisher.one(subject, value, {"Nats-Msg-Id": value}, msg_id=value)
        self.final = await read_to_end(setting, client, self.name)

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
        ]
