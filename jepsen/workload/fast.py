"""L: fast batches, some with gaps, refused messages or no end: what was acknowledged is stored, all of it in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from jepsen.checker import stream as checks
from jepsen.checker.fast import check_fast
from jepsen.history import FinalStream, Operation, payload
from jepsen.sim.client import Client, Msg, Unknown
from jepsen.workload.base import Setting, drain, idle, pause, read_stream

WAIT_S = 5.0
"""How long a client waits for an answer that lets it go on; it asks once more in between."""
APPEND, COMMIT, END, PING = 1, 2, 3, 4


class Fast:
    """Workload L."""

    def __init__(self, setting: Setting, name: str = "L") -> None:
        self.setting, self.name = setting, name
        self.config = {"name": name, "subjects": [f"{name}.>"], "allow_batched": True}
        self.final: FinalStream | None = None
        self._batches = 0

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        return [self._work] * self.setting.rng.randint(1, 3)

    async def _work(self, client: Client, process: int) -> None:
        setting = self.setting
        while not setting.is_over() and setting.published.get(self.name, 0) < setting.publishes_max:
            self._batches += 1
            await _Sender(self, client, process, f"{self.name}-{process}-f{self._batches}").run()
            await client.drain()
            await pause(setting)
        await idle(setting)

    async def finish(self, client: Client) -> None:
        highest = [op.args["last_seq"] for op in self.setting.history.of("fast")]
        self.final = await read_stream(client, self.name, max(highest, default=0))
        if not self.setting.is_damaged:
            self.setting.problems += await drain(client, self.final)

    def check(self) -> list[str]:
        assert self.final is not None
        problems = checks.check_contents(self.final)
        return problems if self.setting.is_damaged else problems + check_fast(self.setting.history, self.final)


class _Sender:
    """One batch of one client. What it is told stands in the operation's facts."""

    def __init__(self, workload: Fast, client: Client, process: int, batch: str) -> None:
        self.workload, self.client, self.batch = workload, client, batch
        self.setting, self.rng = workload.setting, workload.setting.rng
        self.flow = self.rng.choice((1, 3, 10, 50))
        self.mode = self.rng.choice(("ok", "fail"))
        self.inbox = f"_FAST.{client.name}.{batch}"
        self.granted = 0
        """Messages between two flow acks, as the server wants it; 0 = it has not said anything yet."""
        self.told = asyncio.Event()
        self.operation: Operation = self.setting.history.begin(
            process, "fast", stream=workload.name, batch=batch, mode=self.mode, last_seq=0
        )
        self.facts = self.operation.args
        self.facts |= {"sent": [], "wrong": [], "denied": [], "errors": [], "acked": 0}
        self.is_over = False

    async def run(self) -> None:
        """Send it; every wait ends."""
        rng = self.rng
        size = rng.randint(1, 60)
        wrong = rng.randint(1, size) if rng.random() < 0.2 else 0
        skipped = rng.randint(2, size + 1) if rng.random() < 0.15 else 0
        last = rng.choice((APPEND, COMMIT, COMMIT, END))
        sid = self.client.subscribe(f"{self.inbox}.>", self._hear)
        try:
            for number in range(1, size + 1):
                if number == skipped:
                    continue
                operation = last if number == size and last == COMMIT else 0 if number == 1 else APPEND
                self._send(number, operation, is_wrong=number == wrong)
                if number == 1 and operation != COMMIT:
                    await self._until(lambda: self.granted > 0)
                sent = number
                await self._until(lambda: sent - self.facts["acked"] < 2 * max(self.granted, 1) or sent == size)  # noqa: B023 - awaited at once
                if self.is_over:
                    break
                if rng.random() < 0.03:
                    self._send(number, PING)
            if last == END and not self.is_over:
                self._send(size + 1, END)
            if last != APPEND:
                await self._until(lambda: self.is_over)
        finally:
            self.client.unsubscribe(sid)

    def _send(self, number: int, operation: int, *, is_wrong: bool = False) -> None:
        reply = f"{self.inbox}.{self.flow}.{self.mode}.{number}.{operation}.$FI"
        subject = f"{self.workload.name}.{number % 3}"
        if operation in (END, PING):
            self.client.publish(subject, b"", reply=reply)
            return
        headers = {"Nats-Expected-Last-Subject-Sequence": "999999999"} if is_wrong else None
        data = payload(f"{self.batch}.{number}", self.rng.choice((0, 0, 200)))
        self.facts["sent"].append(number)
        if is_wrong:
            self.facts["wrong"].append(number)
        published = self.setting.published
        published[self.workload.name] = published.get(self.workload.name, 0) + 1
        self.client.publish(subject, data, reply=reply, headers=headers)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait for it, or for the end of the batch. ``Unknown`` if neither comes."""
        for _ in range(2):
            try:
                async with asyncio.timeout(WAIT_S / 2):
                    while not (is_so() or self.is_over):
                        self.told.clear()
                        await self.told.wait()
                return
            except TimeoutError:
                self._send(max(self.facts["sent"], default=1), PING)
        raise Unknown("no word of the batch")

    def _hear(self, message: Msg | None) -> None:
        self.told.set()
        if message is None or self.is_over:
            self.is_over = True
            return
        number, operation = (int(word) for word in message.subject.split(".")[-3:-1])
        if message.status:  # nobody leads the stream now, or there is too much
            if operation in (0, APPEND, COMMIT):
                self.facts["denied"].append(number)
            self.is_over = message.status == 503
            return
        body: dict[str, Any] = json.loads(message.data)
        if body.get("type") == "ack":
            self.facts["acked"] = max(self.facts["acked"], body["seq"])
            self.granted = body["msgs"]
        elif body.get("type") == "err":
            self.facts["errors"].append(body["seq"])
        elif "error" in body:
            self.is_over = True
            self.operation.info(str(body["error"]["err_code"]))
        elif "batch" in body:
            self.is_over = True
            self.facts["last_seq"] = body["seq"]
            self.operation.ok(seq=body["seq"], count=body["count"])
