"""G: durable consumers of every ack policy, pulled and pushed, whose floors are watched while everything goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from jepsen.checker import consumer as consumer_checks
from jepsen.checker import stream as checks
from jepsen.history import FinalStream
from jepsen.sim.client import AckToken, Client, Msg
from jepsen.workload.base import Publisher, Setting, pause, read_stream
from jepsen.workload.consume import Consumer


class Acks:
    """Workload G."""

    def __init__(self, setting: Setting, name: str = "G") -> None:
        self.setting, self.name = setting, name
        setting.to_settle.add(name)
        rng = setting.rng
        self.policy = rng.choice(("explicit", "explicit", "all"))
        self.is_push = self.policy == "explicit" and rng.random() < 0.3
        self.ack_wait_ns = rng.choice((300_000_000, 1_000_000_000, 4_000_000_000))
        self.workers = 1 if self.policy == "all" else rng.randint(1, 3)
        self.config = {
            "durable_name": "c",
            "ack_policy": self.policy,
            "ack_wait": self.ack_wait_ns,
            "max_ack_pending": rng.choice((3, 20, 1000)),
        }
        if self.is_push:
            self.config["deliver_subject"] = f"deliver.{name}"
        self.final: FinalStream | None = None

    async def setup(self, client: Client) -> None:
        await client.api(f"STREAM.CREATE.{self.name}", {"name": self.name, "subjects": [f"{self.name}.>"]})
        body = {"stream_name": self.name, "config": self.config}
        await client.api(f"CONSUMER.DURABLE.CREATE.{self.name}.c", body)

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        worker = self._pushed if self.is_push else self._pull
        return [self._produce, *([worker] * (1 if self.is_push else self.workers)), self._watch]

    async def _produce(self, client: Client, process: int) -> None:
        await Publisher(self.setting, self.name, client, process).bursts(lambda: f"{self.name}.x")

    async def _pull(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        consumer = Consumer(setting, self.name, "c", client, process)
        while not setting.is_over():
            messages = await consumer.fetch(rng.choice((1, 10, 100)), rng.choice((0.1, 0.5)))
            if self.policy == "all":
                messages = messages[-1:]
            for message in messages:
                if rng.random() < 0.85:
                    how = "nak" if rng.random() < 0.1 and self.policy == "explicit" else "ack"
                    await consumer.settle(message, how, sync=rng.random() < 0.6)
            await pause(setting)

    async def _pushed(self, client: Client, process: int) -> None:
        setting, rng = self.setting, self.setting.rng
        consumer = Consumer(setting, self.name, "c", client, process)
        arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        operation = consumer.begin("fetch")
        got: list[Msg] = []
        client.subscribe(f"deliver.{self.name}", arrived.put_nowait)
        try:
            while not setting.is_over():
                try:
                    async with asyncio.timeout(1.0):
                        message = await arrived.get()
                except TimeoutError:
                    continue
                if message is None:
                    return
                if message.status or not message.reply.startswith("$JS.ACK."):
                    continue
                got.append(message)
                if rng.random() < 0.9:
                    await consumer.settle(message, "ack", sync=rng.random() < 0.6)
        finally:
            consumer.took(operation, got)

    async def _watch(self, client: Client, process: int) -> None:
        consumer = Consumer(self.setting, self.name, "c", client, process)
        while not self.setting.is_over():
            await consumer.sample()
            await pause(self.setting)

    async def finish(self, client: Client) -> None:
        setting = self.setting
        self.final = await read_stream(client, self.name, setting.last_acked(self.name))
        if setting.is_damaged:
            return
        consumer = Consumer(setting, self.name, "c", client, 0)
        problem = await (self._finish_push(consumer) if self.is_push else consumer.finish_off())
        if problem:
            setting.problems.append(problem)

    async def _finish_push(self, consumer: Consumer) -> str:
        """Take and ack what is pushed until nothing is pending."""
        arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        consumer.client.subscribe(f"deliver.{self.name}", arrived.put_nowait)
        operation = consumer.begin("fetch")
        got: list[Msg] = []
        settled: set[int] = set()
        told = None
        for _ in range(800):
            while True:
                try:
                    async with asyncio.timeout(0.2):
                        message = await arrived.get()
                except TimeoutError:
                    break
                if message is None:
                    return f"live: the connection of {self.name} was lost while nothing was wrong"
                if message.reply.startswith("$JS.ACK."):
                    got.append(message)
                    # One ack each: with a short ack_wait more copies arrive than could be acknowledged one by one.
                    seq = AckToken.parse(message.reply).stream_seq
                    if seq not in settled and await consumer.settle(message, "ack", sync=True):
                        settled.add(seq)
            told = await consumer.sample()
            if told is not None and not told["num_pending"] and not told["num_ack_pending"]:
                consumer.took(operation, got)
                return ""
        consumer.took(operation, got)
        return f"live: pushed consumer of {self.name} never came to its end: {told}"

    def check(self) -> list[str]:
        assert self.final is not None
        setting, final = self.setting, self.final
        history = setting.history
        removals = checks.Removals(history, self.name)
        allowed = final.unreadable if setting.is_damaged else ()
        problems = [
            *checks.check_lost(history, final, removals, allowed),
            *checks.check_unexpected(history, final),
            *checks.check_dup_seq(history, final),
            *checks.check_dup_msg(history, final),
            *checks.check_contents(final),
            *checks.check_gap(history, final, removals, allowed),
            *consumer_checks.check_floor(history, "c"),
        ]
        if not self.is_push:
            problems += consumer_checks.check_redelivered(history, "c")
            if not setting.clocks_jump and self.policy == "explicit":
                problems += consumer_checks.check_holders(history, "c", self.ack_wait_ns)
        if not setting.is_damaged:
            # "all" acknowledges what a lost connection was sent and nobody saw, too: that is what clients ask for.
            acks = [op.args["seq"] for op in history.of("ack") if op.args["stream"] == self.name]
            settled = max(acks, default=0) if self.policy == "all" else 0
            problems += consumer_checks.check_drained(history, final, "c", above_seq=settled)
        return problems
