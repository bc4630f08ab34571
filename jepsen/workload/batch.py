"""E: atomic batches; some are given up half-way or hold a message that is refused: all of it or nothing is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from jepsen.checker import stream as checks
from jepsen.checker.tally import compared
from jepsen.history import OK, FinalStream, History, payload, value_of
from jepsen.sim.client import Client, NoResponders, NotSent
from jepsen.workload.base import Setting, conclude, drain, idle, pause, read_stream


class Batch:
    """Workload E."""

    def __init__(self, setting: Setting, name: str = "E") -> None:
        self.setting, self.name = setting, name
        self.config = {"name": name, "subjects": [f"{name}.>"], "allow_atomic": True}
        self.final: FinalStream | None = None
        self._batches = 0

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._work] * self.setting.rng.randint(1, 3)

    async def _work(self, client: Client, process: int) -> None:
        setting = self.setting
        while not setting.is_over() and self._batches < setting.publishes_max // 2:
            self._batches += 1
            await self._one(client, process, f"{self.name}-{process}-b{self._batches}")
            await client.drain()
            await pause(setting)
        await idle(setting)

    async def _one(self, client: Client, process: int, batch: str) -> None:
        """Send one batch, and wait for what is said of it."""
        setting, rng = self.setting, self.setting.rng
        size = rng.randint(1, 6)
        is_given_up = rng.random() < 0.1
        refused_at = rng.randint(1, size) if rng.random() < 0.15 else 0
        subject = f"{self.name}.{process % 3}"
        operation = setting.history.begin(process, "batch", stream=self.name, batch=batch, size=size)
        for number in range(1, size + 1):
            value = f"{batch}.{number}"
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if number == refused_at:
                headers["Nats-Expected-Last-Subject-Sequence"] = "999999999"
            if number < size:
                client.publish(subject, payload(value, rng.choice((0, 200))), headers=headers)
                continue
            if is_given_up:
                operation.fail("given up")
                return
            headers["Nats-Batch-Commit"] = "1"
            try:
                conclude(operation, await client.request(subject, payload(value, 50), headers=headers))
            except (NotSent, NoResponders) as error:
                operation.fail(str(error))
                raise

    async def finish(self, client: Client) -> None:
        acked = [op.result["seq"] for op in self.setting.history.of("batch", outcome=OK)]
        self.final = await read_stream(client, self.name, max(acked, default=0))
        if not self.setting.is_damaged:
            self.setting.problems += await drain(client, self.final)

    def check(self) -> list[str]:
        assert self.final is not None
        problems = checks.check_contents(self.final)
        return problems if self.setting.is_damaged else problems + check_batches(self.setting.history, self.final)


def check_batches(history: History, final: FinalStream) -> list[str]:
    """S9: of each batch all messages, next to each other, in order, or none; all if acknowledged, none if refused."""
    found: dict[str, list[tuple[int, int]]] = {}
    problems = []
    tried = {op.args["batch"]: op for op in history.of("batch") if op.args["stream"] == final.name}
    compared("batch", len(tried))
    for seq, message in sorted(final.messages.items()):
        batch, _, number = (value_of(message.data) or "?.0").rpartition(".")
        if batch not in tried:
            problems.append(f"unexpected: seq {seq} holds {message.data[:60]!r}")
        found.setdefault(batch, []).append((seq, int(number)))
    for batch, operation in tried.items():
        there = found.get(batch, [])
        size = operation.args["size"]
        if there and there != [(there[0][0] + at, at + 1) for at in range(size)]:
            problems.append(f"batch: of {operation.line()} there is (seq, number): {there}")
        if operation.outcome == OK and (not there or there[-1][0] != operation.result["seq"]):
            problems.append(f"lost: {operation.line()} was acknowledged, there is {there}")
        if operation.outcome == "fail" and there:
            problems.append(f"phantom: {operation.line()} was refused, there is {there}")
    gaps = sorted(set(range(1, final.last_seq + 1)) - set(final.messages) - final.unreadable)
    return problems + [f"gap: seq {seq} of {final.name} is missing" for seq in gaps]
