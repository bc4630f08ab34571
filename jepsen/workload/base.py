"""What every workload needs: the setting of a run, the life of a client, classes of outcomes, final reads."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from jepsen.checker.tally import compared
from jepsen.history import OK, FinalStream, History, Operation, Seen, payload
from jepsen.sim.client import ApiFailure, Client, Msg, NoResponders, NotSent, Unknown

NOT_FOUND = 10037
UNAVAILABLE = 10008
NO_ROOM = 10023
"""No room now; with room on the disk it ends by itself, as soon as a checkpoint has freed the journal."""
UNREADABLE = frozenset([UNAVAILABLE, 10051])
"""Refusals that say "it is (or may be) there and cannot be read"."""
READ_WINDOW = 64
"""Reads in flight while a stream is read message by message."""


@dataclass(slots=True)
class Setting:
    """What a run gives to its workloads."""

    history: History
    rng: Random
    connect: Callable[[str], Awaitable[Client]]
    ends: Callable[[], bool]
    """Whether the run's time has come."""
    wall_ns: Callable[[], int] = lambda: 0
    """The wall clock that clients have; those of servers may jump and drift."""
    pace_s: float = 0.02
    """Mean pause between two operations of one process."""
    payload_bytes_max: int = 400
    publishes_max: int = 500
    """Publishes per stream, so that a run stays small enough to be read one by one at its end."""
    clocks_jump: bool = False
    reads_fail: bool = False
    """Reads from the disk fail now and then: what is stored may be unreadable for a while, and say so."""
    is_damaged: bool = False
    """Stored bytes were destroyed on purpose: what was lost must be named, and may not be served."""
    operations_max: int = 1_400
    """Operations after which clients come to an end; what is left to acknowledge counts, twice."""
    is_spent: bool = False
    next_process: int = 0
    published: dict[str, int] = field(default_factory=dict)
    """Publishes so far, by stream."""
    to_settle: set[str] = field(default_factory=set)
    """Streams of which every message is acknowledged in the end."""
    settled: int = 0
    """Acknowledgements confirmed so far."""
    problems: list[str] = field(default_factory=list)
    """What workloads noticed while running."""

    def is_over(self) -> bool:
        """Whether clients should come to an end."""
        if not self.is_spent:
            left = sum(self.published.get(stream, 0) for stream in self.to_settle) - self.settled
            self.is_spent = len(self.history.operations) + 2 * max(0, left) >= self.operations_max
        return self.is_spent or self.ends()

    def acked(self, stream: str) -> list[int]:
        """Sequences that were acknowledged to publishers, in the order of their publishes."""
        return [op.result["seq"] for op in self.history.of("publish", outcome=OK) if op.args["stream"] == stream]

    def last_acked(self, stream: str) -> int:
        """The highest of them; 0 = none."""
        return max(self.acked(stream), default=0)


class Workload(Protocol):
    """One workload in one run."""

    name: str
    """Of its stream."""
    final: FinalStream | None
    """Its stream as it was read at the end."""

    async def setup(self, client: Client) -> None:
        """Create streams and consumers. Called again if the connection was lost half way."""

    def processes(self) -> list[Callable[[Client, int], Awaitable[None]]]:
        """What its clients do; each is called with a fresh connection and process number until the run is over."""

    async def finish(self, client: Client) -> None:
        """Final reads, after everything has healed."""

    def check(self) -> list[str]:
        """Problems found."""


async def pause(setting: Setting) -> None:
    """A random wait."""
    await asyncio.sleep(setting.rng.expovariate(1 / setting.pace_s))


async def idle(setting: Setting) -> None:
    """Wait for the end of the run: there is nothing more to do."""
    while not setting.is_over():
        await pause(setting)


async def live(setting: Setting, name: str, body: Callable[[Client, int], Awaitable[None]]) -> None:
    """The life of one client: connect, work, and after a lost connection or an unknown outcome a fresh process."""
    while not setting.is_over():
        process = setting.next_process = setting.next_process + 1
        try:
            client = await setting.connect(f"{name}p{process}")
        except (NotSent, Unknown):
            await asyncio.sleep(setting.rng.uniform(0.02, 0.2))
            continue
        try:
            await body(client, process)
        except (NotSent, Unknown, ApiFailure, NoResponders):
            await asyncio.sleep(setting.rng.uniform(0.001, 0.05))
        if client.errors:
            setting.problems.append(f"err: {name} got {client.errors[0]}")
        if setting.rng.random() < 0.3:
            client.abort()
        else:
            client.close()


async def persist(setting: Setting, client_name: str, work: Callable[[Client], Awaitable[Any]], *, tries: int) -> Any:
    """Do something until it succeeds once; each try has a fresh connection. The last error is raised."""
    for attempt in range(tries):
        try:
            client = await setting.connect(f"{client_name}t{attempt}")
            try:
                return await work(client)
            finally:
                client.close()
        except (NotSent, Unknown, NoResponders) as error:
            failure: Exception = error
        except ApiFailure as error:
            if error.err_code not in (UNAVAILABLE, NO_ROOM):
                raise
            failure = error
        await asyncio.sleep(min(2.0, 0.05 * 2**attempt))
    raise failure


# -- publishing -------------------------------------------------------------------------------------------------------


class Publisher:
    """Unique values for one process, and publishes with their outcome in the history."""

    def __init__(self, setting: Setting, stream: str, client: Client, process: int) -> None:
        self.setting, self.stream, self.client, self.process = setting, stream, client, process
        self.count = 0
        self.outstanding = 0
        self._room: asyncio.Future[None] | None = None

    def value(self) -> str:
        self.count += 1
        return f"{self.stream}-{self.process}-{self.count}"

    def begin(self, subject: str, value: str, headers: dict[str, str], **facts: Any) -> Operation:
        """Send a publish; its operation ends by itself. ``NotSent`` fails it."""
        setting = self.setting
        setting.published[self.stream] = setting.published.get(self.stream, 0) + 1
        if setting.rng.random() < 0.2:
            headers = {**headers, "X-Sim": value}
        operation = setting.history.begin(
            self.process, "publish", stream=self.stream, subject=subject, value=value, link=self.process, **facts
        )
        operation.args["headers"] = tuple(headers)
        data = payload(value, setting.rng.choice((0, 0, 100, setting.payload_bytes_max)))
        self.outstanding += 1

        def finish(message: Msg | None) -> None:
            self.outstanding -= 1
            if self._room is not None and not self._room.done():
                self._room.set_result(None)
            conclude(operation, message)

        try:
            self.client.request_with(subject, data, finish, headers=headers)
        except NotSent as error:
            self.outstanding -= 1
            operation.fail(str(error))
            raise
        return operation

    @property
    def may_go_on(self) -> bool:
        """Whether the run goes on and the stream may have more publishes."""
        return not self.setting.is_over() and self.setting.published.get(self.stream, 0) < self.setting.publishes_max

    async def below(self, outstanding: int) -> None:
        """Wait until fewer publishes than this are unanswered."""
        while self.outstanding >= outstanding:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def bursts(self, subject: Callable[[], str], most: int = 10) -> None:
        """Publish to subjects as they are drawn, up to ``most`` at once, while the run goes on; then wait for all."""
        setting = self.setting
        while self.may_go_on:
            for _ in range(setting.rng.randint(1, most)):
                if setting.is_over():
                    break
                self.begin(subject(), self.value(), {})
            await self.below(10)
            await pause(setting)
        await self.below(1)
        await idle(setting)

    async def one(self, subject: str, value: str, headers: dict[str, str] | None = None, **facts: Any) -> Operation:
        """Publish and wait for the outcome."""
        operation = self.begin(subject, value, headers or {}, **facts)
        await self.below(1)
        return operation


def conclude(operation: Operation, message: Msg | None) -> None:
    """End a publish by what came back."""
    if message is None:
        operation.info("no answer")
    elif message.status == 503:
        operation.fail("503")
    else:
        try:
            answer = message.json()
        except ApiFailure as error:
            operation.fail(str(error), err_code=error.err_code)
        else:
            operation.ok(seq=answer["seq"], duplicate=bool(answer.get("duplicate")))


# -- reading ----------------------------------------------------------------------------------------------------------


def seen_of(stream: str, message: dict[str, Any]) -> Seen:
    """A message of a ``STREAM.MSG.GET`` answer."""
    return Seen(
        stream,
        message["seq"],
        message["subject"],
        base64.b64decode(message.get("data", "")),
        base64.b64decode(message.get("hdrs", "")),
    )


async def get(client: Client, stream: str, request: dict[str, Any]) -> Seen | None:
    """One stored message, None if there is none; other refusals are raised."""
    try:
        answer = await client.api(f"STREAM.MSG.GET.{stream}", request)
    except ApiFailure as error:
        if error.err_code == NOT_FOUND:
            return None
        raise
    return seen_of(stream, answer["message"])


AGAIN_MAX, AGAIN_S = 10, 1.0
"""How often, and how long after, a final read is tried again where another server may lead meanwhile."""


async def direct_get(client: Client, stream: str, request: dict[str, Any]) -> Seen | None:
    """One stored message as any replica has it, None if it has none. ``NoResponders`` if it does not answer now."""
    answer = await client.request(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode())
    if answer.status == 404:
        return None
    if answer.status:
        raise NoResponders(f"DIRECT.GET: {answer.header!r}")
    fields = answer.headers()
    return Seen(stream, int(fields["Nats-Sequence"]), fields["Nats-Subject"], answer.data)


async def read_stream(client: Client, stream: str, highest: int) -> FinalStream:
    """Every sequence up to the last, one by one. ``highest``: how far to look when the stream cannot say itself."""
    messages: dict[int, Seen] = {}
    unreadable: set[int] = set()
    is_halted = False
    for turn in range(AGAIN_MAX if client.is_one_of_several else 1, 0, -1):
        try:
            info = await client.api(f"STREAM.INFO.{stream}")
            state, storage = info["state"], info["config"]["storage"]
            first, last, count, size = state["first_seq"], state["last_seq"], state["messages"], state["bytes"]
            break
        except ApiFailure as error:
            if error.err_code not in UNREADABLE:
                raise
            is_halted, first, last, count, size, storage = turn == 1, 0, highest, 0, 0, "file"
            if not is_halted:
                await asyncio.sleep(AGAIN_S)

    async def one(seq: int) -> None:
        try:
            found = await get(client, stream, {"seq": seq})
        except ApiFailure as error:
            if error.err_code not in UNREADABLE:
                raise
            unreadable.add(seq)
            return
        if found is not None:
            messages[seq] = found

    for start in range(1, last + 1, READ_WINDOW):
        await asyncio.gather(*(one(seq) for seq in range(start, min(start + READ_WINDOW, last + 1))))
    for _ in range(AGAIN_MAX if client.is_one_of_several else 0):
        if not unreadable:
            break
        again, unreadable = sorted(unreadable), set()  # leadership may have moved in the middle of it
        await asyncio.sleep(AGAIN_S)
        for start in range(0, len(again), READ_WINDOW):
            await asyncio.gather(*(one(seq) for seq in again[start : start + READ_WINDOW]))
    found = dict(sorted(messages.items()))
    return FinalStream(stream, found, first, last, count, frozenset(unreadable), size, storage, is_halted)


async def read_to_end(setting: Setting, client: Client, stream: str) -> FinalStream:
    """Every sequence, and, unless the disk was damaged, the same once more through a consumer."""
    final = await read_stream(client, stream, setting.last_acked(stream))
    if not setting.is_damaged:
        setting.problems += await drain(client, final)
    return final


async def drain(client: Client, final: FinalStream) -> list[str]:
    """Read the stream once more, through a consumer, and tell where that differs."""
    answer = await client.api(
        f"CONSUMER.CREATE.{final.name}", {"stream_name": final.name, "config": {"ack_policy": "none"}}
    )
    consumer, pending = answer["name"], answer["num_pending"]
    got: dict[int, bytes] = {}
    order: list[int] = []
    fruitless = 0
    while len(got) < pending and fruitless < 3:
        batch = await client.fetch(final.name, consumer, min(200, pending - len(got)), 5.0)
        fruitless = 0 if batch else fruitless + 1
        for message in batch:
            seq = int(message.reply.split(".")[-4])
            got[seq] = message.data
            order.append(seq)
    compared("drain", pending)
    problems = []
    if order != sorted(order):
        problems.append(f"drain: {final.name} was delivered out of order")
    if pending != len(final.messages):
        problems.append(
            f"drain: num_pending {pending} of a new consumer, {len(final.messages)} messages in {final.name}"
        )
    expected = {seq: message.data for seq, message in final.messages.items()}
    problems += [
        f"drain: seq {seq} of {final.name} is {got.get(seq)!r:.60} through a consumer, {expected.get(seq)!r:.60} by get"
        for seq in sorted(got.keys() | expected.keys())
        if got.get(seq) != expected.get(seq)
    ]
    return problems
