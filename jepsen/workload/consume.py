"""Consuming in a history: fetches with what they brought, acks of every kind, samples of a consumer's floors."""

from __future__ import annotations

from jepsen.history import Operation, Seen
from jepsen.sim.client import AckToken, ApiFailure, Client, Msg, NoResponders, NotSent, Unknown
from jepsen.workload.base import Setting


class Consumer:
    """One client's use of one durable consumer."""

    def __init__(self, setting: Setting, stream: str, consumer: str, client: Client, process: int) -> None:
        self.setting, self.stream, self.consumer = setting, stream, consumer
        self.client, self.process = client, process

    def begin(self, f: str, **args: object) -> Operation:
        return self.setting.history.begin(self.process, f, stream=self.stream, consumer=self.consumer, **args)

    def took(self, operation: Operation, messages: list[Msg]) -> None:
        """End a fetch with what came."""
        tokens = [AckToken.parse(message.reply) for message in messages]
        operation.ok(
            seen=[
                Seen(self.stream, token.stream_seq, message.subject, message.data, message.header)
                for token, message in zip(tokens, messages, strict=True)
            ],
            arrived_ns=[int(message.at_s * 1e9) for message in messages],
            deliveries=[(token.stream_seq, token.consumer_seq, token.num_delivered) for token in tokens],
        )

    async def fetch(self, batch: int, expires_s: float = 1.0) -> list[Msg]:
        """Pull; an operation ``fetch``."""
        operation = self.begin("fetch")
        messages = await self.client.fetch(self.stream, self.consumer, batch, expires_s)
        self.took(operation, messages)
        return messages

    async def settle(self, message: Msg, how: str, *, sync: bool) -> bool:
        """Ack, nak or term one delivery; confirmed (``sync``) or into the blue. Whether it was confirmed."""
        words = {"ack": b"+ACK", "nak": b"-NAK", "term": b"+TERM"}
        operation = self.begin(how, seq=AckToken.parse(message.reply).stream_seq)
        try:
            if sync:
                await self.client.request(message.reply, words[how], timeout_s=3.0)
                operation.ok()
                self.setting.settled += 1
                return True
            self.client.publish(message.reply, words[how])
            operation.info("not confirmed")
        except (NotSent, NoResponders) as error:
            operation.fail(str(error))
        except Unknown as error:
            operation.info(str(error))
        return False

    def touch(self, message: Msg) -> None:
        """Say that work is in progress."""
        self.client.publish(message.reply, b"+WPI")

    async def sample(self) -> dict[str, int] | None:
        """The consumer's floors; an operation ``consumer_info``. None if refused."""
        operation = self.begin("consumer_info")
        try:
            info = await self.client.api(f"CONSUMER.INFO.{self.stream}.{self.consumer}")
            last = (await self.client.api(f"STREAM.INFO.{self.stream}"))["state"]["last_seq"]
        except ApiFailure as error:
            operation.fail(str(error))
            return None
        told = {
            "ack_floor": info["ack_floor"]["stream_seq"],
            "delivered": info["delivered"]["stream_seq"],
            "last_seq": last,
        }
        operation.ok(**told)
        return {**told, "num_pending": info["num_pending"], "num_ack_pending": info["num_ack_pending"]}

    async def finish_off(self, *, sync_acks: bool = True, rounds: int = 1000) -> str:
        """Fetch and ack until nothing is pending any more; what is wrong if that does not come."""
        told: dict[str, int] | None = None
        for _ in range(rounds):
            for message in await self.fetch(200, 0.5):
                await self.settle(message, "ack", sync=sync_acks)
            told = await self.sample()
            if told is not None and not told["num_pending"] and not told["num_ack_pending"]:
                return ""
        # With everything behind it, what it still counts as to come was passed over: nobody will ever be sent it.
        is_behind_all = told is not None and told["delivered"] >= told["last_seq"] and not told["num_ack_pending"]
        kind = "passed-over" if is_behind_all else "live"
        return f"{kind}: {self.consumer} of {self.stream} never came to its end: {told}"
