"""C: a work queue. Producers, consumers with disjoint filters, every kind of settling; each message is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jepsen.checker import consumer as consumer_checks
from jepsen.checker import stream as checks
from jepsen.history import FinalStream
from jepsen.sim.client import Client
from jepsen.workload.base import Publisher, Setting, pause, read_stream
from jepsen.workload.consume import Consumer


class WorkQueue:
    """Workload C."""

    def __init__(self, setting: Setting, name: str = "C") -> None:
        self.setting, self.name = setting, name
        setting.to_settle.add(name)
        rng = setting.rng
        self.groups = [f"w{number}" for number in range(rng.randint(1, 3))]
        self.ack_wait_ns = rng.choice((500_000_000, 2_000_000_000, 4_000_000_000))
        self.config = {"name": name, "subjects": [f"{name}.>"], "retention": "workqueue"}
        self.final: FinalStream | None = None
        self.emptied: FinalStream | None = None
        self._read_at = 0

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", self.config)
        for group in self.groups:
            config = {
                "durable_name": group,
                "ack_policy": "explicit",
                "ack_wait": self.ack_wait_ns,
                "filter_subject": f"{self.name}.{group}.>",
                "max_ack_pending": self.setting.rng.choice((5, 1000)),
            }
            body = {"stream_name": self.name, "config": config}
            await client.api(f"CONSUMER.DURABLE.CREATE.{self.name}.{group}", body)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        def worker(group: str) -> Callable[[Client, int], Awaitable[None]]:
            async def body(client: Client, process: int) -> None:
                await self._consume(client, process, group)

            return body

        return [self._produce, *[worker(group) for group in self.groups for _ in range(self.setting.rng.randint(1, 3))]]

    async def _produce(self, client: Client, process: int) -> None:
        rng = self.setting.rng
        publisher = Publisher(self.setting, self.name, client, process)
        await publisher.bursts(lambda: f"{self.name}.{rng.choice(self.groups)}.{rng.randrange(5)}", most=20)

    async def _consume(self, client: Client, process: int, group: str) -> None:
        setting, rng = self.setting, self.setting.rng
        consumer = Consumer(setting, self.name, group, client, process)
        while not setting.is_over():
            for message in await consumer.fetch(rng.choice((1, 5, 50)), rng.choice((0.2, 1.0))):
                roll = rng.random()
                if roll < 0.1:
                    continue  # the worker forgot it: it must come again
                if roll < 0.2:
                    consumer.touch(message)
                how = "nak" if roll < 0.3 else "term" if roll < 0.35 else "ack"
                await consumer.settle(message, how, sync=rng.random() < 0.7)
            await consumer.sample()
            await pause(setting)

    async def finish(self, client: Client) -> None:
        setting = self.setting
        self._read_at = len(setting.history.operations)
        self.final = await read_stream(client, self.name, setting.last_acked(self.name))
        if setting.is_damaged:
            return
        workers = [Consumer(setting, self.name, group, client, 0).finish_off() for group in self.groups]
        problems = await asyncio.gather(*workers)
        setting.problems += [problem for problem in problems if problem]
        if not any(problems):
            self.emptied = await read_stream(client, self.name, 0)

    def check(self) -> list[str]:
        assert self.final is not None
        setting, final = self.setting, self.final
        history = setting.history
        problems = [
            *checks.check_unexpected(history, final),
            *checks.check_phantom(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_dup_msg(history, final),
            *checks.check_contents(final),
            *checks.check_order(history, final),
        ]
        if not setting.is_damaged:
            problems += consumer_checks.check_work_queue(history, final, self.groups, until=self._read_at)
        if self.emptied is not None:
            problems += consumer_checks.check_work_queue(history, self.emptied, self.groups)
            problems += [f"wq: seq {seq} is left after all were acked" for seq in self.emptied.messages]
        for group in self.groups:
            problems += consumer_checks.check_redelivered(history, group)
            problems += consumer_checks.check_floor(history, group)
            if not setting.clocks_jump:
                problems += consumer_checks.check_holders(history, group, self.ack_wait_ns)
        return problems
