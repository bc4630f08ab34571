"""The same consumer scenarios against jetstore and nats-server: what clients see, line by line, must be the same.

Times become ``T``, inboxes their names; everything else (statuses, counters, ack subjects, advisories) is compared.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from jepsen.real.process import JETSTORE, NATS_SERVER, ServerProcess, find_nats_server

pytestmark = [
    pytest.mark.real,
    pytest.mark.oracle,
    pytest.mark.skipif(find_nats_server() is None, reason="no nats-server binary"),
]

MS = 1_000_000
Scenario = Callable[["Session"], Awaitable[None]]
SCENARIOS: list[Scenario] = []
_TIME = re.compile(r"\.\d{19}\.|\d{4}-\d\d-\d\dT[0-9:.]+Z|\$JS\.FC\.S\.\w+\.\w{4}")


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


class Session:
    """One client's conversation with one server; ``lines`` is what it saw."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lines: list[str] = []
        self.replies: dict[str, Msg] = {}
        self._subscriptions: dict[str, Subscription] = {}

    def note(self, text: str) -> None:
        self.lines.append(_TIME.sub("T", text))

    async def api(self, subject: str, body: Any = None) -> dict[str, Any]:
        raw = b"" if body is None else json.dumps(body).encode()
        reply = await self.client.request(f"$JS.API.{subject}", raw, timeout=3)
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            self.note(f"{subject}: {answer['error']}")
        return answer

    async def stream(self, **config: Any) -> None:
        fields = {"name": "S", "subjects": ["s.>"], "retention": "limits", "storage": "file", "discard": "old"}
        await self.api("STREAM.CREATE.S", fields | {"num_replicas": 1} | config)

    async def consumer(self, name: str = "c", **config: Any) -> None:
        fields = {"durable_name": name, "ack_policy": "explicit", "deliver_policy": "all"}
        body = {"stream_name": "S", "config": fields | config}
        await self.api(f"CONSUMER.CREATE.S.{name}", body)
        if "deliver_subject" not in config:
            await self.info(name)

    async def publish(self, *subjects: str, body: bytes = b"xy", headers: dict[str, str] | None = None) -> None:
        for subject in subjects:
            await self.client.request(subject, body, headers=headers, timeout=3)

    async def info(self, name: str = "c") -> None:
        info = await self.api(f"CONSUMER.INFO.S.{name}")
        if "error" in info:
            return
        d, f = info["delivered"], info["ack_floor"]
        self.note(
            f"{name}: delivered {d['consumer_seq']}/{d['stream_seq']} floor {f['consumer_seq']}/{f['stream_seq']}"
            f" ack pending {info['num_ack_pending']} redelivered {info['num_redelivered']}"
            f" waiting {info['num_waiting']} pending {info['num_pending']}"
            f" active {'last_active' in d}/{'last_active' in f} bound {info.get('push_bound')}"
            f" paused {info.get('paused')}"
        )

    async def count(self) -> None:
        state = (await self.api("STREAM.INFO.S"))["state"]
        self.note(f"messages {state['messages']}")

    async def listen(self, subject: str, queue: str = "") -> None:
        self._subscriptions[subject] = await self.client.subscribe(subject, queue=queue)
        await self.client.flush()

    async def leave(self, subject: str) -> None:
        await self._subscriptions.pop(subject).unsubscribe()
        await self.client.flush()

    async def request(self, body: Any, name: str = "c", inbox: str = "inbox") -> None:
        if inbox not in self._subscriptions:
            await self.listen(inbox)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.S.{name}", raw, reply=inbox)
        await self.client.flush()

    async def got(self, count: int, inbox: str = "inbox") -> list[Msg]:
        """The next ``count`` messages of a subscription, noted."""
        messages = []
        for _ in range(count):
            try:
                message = await self._subscriptions[inbox].next_msg(timeout=3)
            except nats.errors.TimeoutError:
                self.note(f"{inbox}: nothing comes")
                break
            messages.append(message)
            headers = {str(k): v for k, v in (message.headers or {}).items()}
            data = message.data
            if data.startswith(b'{"type":"io.nats'):
                event = json.loads(data)
                event["id"] = "ID"
                for name in ("ack_time",):
                    event.pop(name, None)
                data = json.dumps(event).encode()
            subject = inbox if message.subject == inbox else message.subject
            self.note(f"{inbox} <- {subject} reply {message.reply} {headers} {data!r}")
        return messages

    async def quiet(self, inbox: str = "inbox", seconds: float = 0.15) -> None:
        """Nothing comes for a moment."""
        try:
            message = await self._subscriptions[inbox].next_msg(timeout=seconds)
            self.note(f"{inbox}: unexpected {message.subject} {message.reply} {message.headers}")
        except nats.errors.TimeoutError:
            pass

    async def fetch(self, count: int, body: Any, name: str = "c", inbox: str = "inbox") -> list[Msg]:
        await self.request(body, name, inbox)
        return await self.got(count, inbox)

    async def ack(self, message: Msg, body: bytes = b"", *, confirmed: bool = True) -> None:
        try:
            answer = await self.client.request(message.reply, body, timeout=0.4)
            self.note(f"confirmed {body!r} {answer.data!r}" if confirmed else f"unexpected {answer}")
        except nats.errors.NoRespondersError:
            self.note("no responders")
        except nats.errors.TimeoutError:
            self.note(f"not confirmed {body!r}")

    async def pause(self, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds / 1000)


@scenario
async def acks_out_of_order(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 6)
    await s.consumer()
    got = await s.fetch(4, {"batch": 4})
    for index in (1, 3, 0, 2, 2):
        await s.ack(got[index])
        await s.info()
    await s.fetch(3, {"batch": 3, "no_wait": True})


@scenario
async def ack_all_and_kinds_of_acks(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 6)
    await s.consumer(ack_policy="all")
    got = await s.fetch(5, {"batch": 5})
    await s.ack(got[2])
    await s.info()
    await s.ack(got[0], b"-NAK")
    await s.ack(got[3], b"-NAK")
    await s.fetch(1, {"batch": 1})
    await s.info()
    await s.ack(got[3], b"+TERM why")
    await s.info()
    await s.ack(got[4], b"+WPI")
    await s.ack(got[4], b"nonsense")
    await s.ack(got[4], b"+ACK")
    await s.info()


@scenario
async def nak_delay_wpi_term(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 5)
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.consumer(ack_wait=60_000 * MS)
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    got = await s.fetch(4, {"batch": 4})
    await s.ack(got[1], b"-NAK")
    await s.ack(got[0], b'-NAK {"delay": 900000000}')
    await s.ack(got[2], b"+TERM  some reason")
    await s.ack(got[3], b"-NAK bad")
    await s.info()
    await s.fetch(3, {"batch": 3})
    await s.quiet()
    await s.fetch(1, {"batch": 1})
    await s.info()
    await s.got(4, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.ack(got[2], b"+TERM")
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.ack(got[2], b"-NAK")
    await s.quiet("$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.api("CONSUMER.DELETE.S.c")
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")


@scenario
async def redelivery_and_max_deliver(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 5)
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.consumer(ack_wait=250 * MS, max_deliver=2)
    got = await s.fetch(3, {"batch": 3})
    await s.ack(got[1])
    await s.pause(400)
    again = await s.fetch(2, {"batch": 2})
    await s.ack(again[1])
    await s.info()
    await s.pause(400)
    more = await s.fetch(1, {"batch": 1})
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.ack(more[0])
    await s.info()
    await s.ack(again[0])
    await s.info()


@scenario
async def pull_statuses(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 3)
    await s.consumer(max_batch=10, max_expires=5000 * MS, max_bytes=5000, max_waiting=3)
    bodies: list[Any] = [
        {"batch": 11},
        {"expires": 6000 * MS},
        {"max_bytes": 6000},
        {"batch": 1, "idle_heartbeat": 100 * MS},
        {"batch": "x"},
        {"batch": 1.5},
        {"batch": 1, "expires": -5},
        {"no_wait": "x"},
        {"expires": []},
        {"priority": 12},
        {"min_pending": 1},
        {"id": "x"},
        b"{bad",
        b"{",
        b"{}x",
        b'{"batch":}',
        b'{"batch": 1,}',
        {"batch": 1, "no_wait": True, "max_bytes": 5},
        {"batch": 2, "unknown": 1, "max_bytes": 500},
    ]
    for body in bodies:
        await s.fetch(3 if isinstance(body, dict) and "unknown" in body else 1, body)
    await s.info()
    await s.fetch(2, {"batch": 4, "no_wait": True})
    await s.fetch(1, {"batch": 4, "no_wait": True})
    await s.fetch(1, {"batch": 4, "no_wait": True, "expires": 100 * MS})
    await s.fetch(1, {"batch": 4, "expires": 100 * MS, "max_bytes": 77})
    await s.fetch(4, {"batch": 4, "expires": 350 * MS, "idle_heartbeat": 100 * MS})
    for inbox in ("one", "two", "three"):
        await s.request({"batch": 1, "expires": 4000 * MS}, inbox=inbox)
    await s.fetch(1, {"batch": 1, "expires": 4000 * MS}, inbox="four")
    await s.info()
    await s.api("CONSUMER.DELETE.S.c")
    for inbox in ("one", "two", "three"):
        await s.got(1, inbox)


@scenario
async def no_wait_forms(s: Session) -> None:
    await s.stream()
    await s.consumer(max_ack_pending=2)
    await s.request({"batch": 3, "no_wait": True, "expires": 2000 * MS})
    await s.publish("s.a")
    await s.got(2)
    await s.publish("s.a", "s.a", "s.a")
    await s.fetch(1, {"batch": 5, "no_wait": True})
    await s.quiet()
    await s.request({"batch": 5, "expires": 3000 * MS}, inbox="other")
    await s.fetch(1, {"batch": 1, "no_wait": True}, inbox="third")
    await s.info()


@scenario
async def requests_in_turn(s: Session) -> None:
    await s.stream()
    await s.consumer()
    for inbox in ("a", "b"):
        await s.request({"batch": 2, "expires": 3000 * MS}, inbox=inbox)
    for _ in range(4):
        await s.publish("s.x")
    await s.got(2, "a")
    await s.got(2, "b")
    await s.info()


@scenario
async def push_with_heartbeats(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b")
    await s.publish("s.c", headers={"A": "b"})
    await s.consumer(deliver_subject="to", idle_heartbeat=200 * MS, flow_control=True, ack_policy="none")
    await s.listen("to")
    await s.got(4, "to")
    await s.info()
    await s.fetch(1, {"batch": 1})
    await s.publish("s.d")
    await s.got(1, "to")
    await s.leave("to")
    await s.info()
    await s.publish("s.e")
    await s.info()
    await s.listen("to")
    await s.got(1, "to")


@scenario
async def push_with_acks(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 4)
    await s.listen("to", "workers")
    await s.consumer(deliver_subject="to", deliver_group="workers", max_ack_pending=2, ack_wait=400 * MS)
    got = await s.got(2, "to")
    await s.quiet("to")
    await s.ack(got[0])
    await s.got(1, "to")
    await s.info()
    await s.got(1, "to")


@scenario
async def headers_only(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", body=b"12345", headers={"A": "b"})
    await s.publish("s.b", body=b"")
    await s.consumer(headers_only=True)
    await s.fetch(2, {"batch": 2})


@scenario
async def start_positions(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b", "s.a", "s.c", "s.b", "s.a")
    await s.api("STREAM.MSG.DELETE.S", {"seq": 1})
    await s.consumer("all")
    await s.consumer("last", deliver_policy="last")
    await s.consumer("lastb", deliver_policy="last", filter_subject="s.b")
    await s.consumer("lastnone", deliver_policy="last", filter_subject="s.zzz")
    await s.consumer("new", deliver_policy="new")
    await s.consumer("seq", deliver_policy="by_start_sequence", opt_start_seq=3)
    await s.consumer("seqold", deliver_policy="by_start_sequence", opt_start_seq=1)
    await s.consumer("seqnew", deliver_policy="by_start_sequence", opt_start_seq=20)
    await s.consumer("time", deliver_policy="by_start_time", opt_start_time="2020-01-01T00:00:00Z")
    await s.consumer("future", deliver_policy="by_start_time", opt_start_time="2099-01-01T00:00:00Z")
    await s.consumer("lps", deliver_policy="last_per_subject", filter_subject="s.>")
    await s.consumer("lpsb", deliver_policy="last_per_subject", filter_subjects=["s.b", "s.c"])
    for name, count in (("lps", 3), ("lpsb", 2), ("lastb", 1), ("seq", 4), ("all", 5)):
        await s.fetch(count + 1, {"batch": 10, "no_wait": True}, name)
        await s.info(name)
    await s.publish("s.b")
    for name in ("lps", "lpsb", "new", "seqnew", "lastnone"):
        await s.info(name)


@scenario
async def start_on_an_empty_stream(s: Session) -> None:
    await s.stream()
    for policy in ("all", "last", "new", "last_per_subject"):
        await s.consumer(policy, deliver_policy=policy, filter_subject="s.>")
    await s.publish("s.a")
    for policy in ("all", "last", "new", "last_per_subject"):
        await s.info(policy)
        await s.fetch(1, {"batch": 1}, policy)


@scenario
async def removals_and_counters(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a", "s.b"] * 5)
    await s.consumer("c")
    await s.consumer("b", filter_subject="s.b")
    await s.fetch(4, {"batch": 4})
    for seq in (1, 3, 8):
        await s.api("STREAM.MSG.DELETE.S", {"seq": seq})
        await s.info("c")
        await s.info("b")
    await s.api("STREAM.PURGE.S")
    await s.info("c")
    await s.info("b")
    await s.publish("s.a", "s.b")
    await s.info("c")
    await s.info("b")
    await s.fetch(2, {"batch": 2})


@scenario
async def purges(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a", "s.b"] * 5)
    await s.consumer("c")
    await s.consumer("b", filter_subject="s.b")
    await s.consumer("idle")
    await s.fetch(4, {"batch": 4})
    await s.fetch(2, {"batch": 2}, "b")
    await s.api("STREAM.PURGE.S", {"seq": 4})
    for name in ("c", "b", "idle"):
        await s.info(name)
    await s.api("STREAM.PURGE.S", {"filter": "s.b"})
    for name in ("c", "b"):
        await s.info(name)
    await s.api("STREAM.PURGE.S", {"keep": 1})
    for name in ("c", "b", "idle"):
        await s.info(name)
    await s.publish("s.b")
    for name in ("c", "b", "idle"):
        await s.info(name)
        await s.fetch(1, {"batch": 1}, name)


@scenario
async def deleted_while_pending(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 4)
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.c")
    await s.consumer()
    await s.fetch(3, {"batch": 3})
    await s.api("STREAM.MSG.DELETE.S", {"seq": 2})
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.c")
    await s.info()


@scenario
async def limits_behind_and_ahead(s: Session) -> None:
    await s.stream(max_msgs=4)
    await s.publish(*["s.a"] * 3)
    await s.consumer()
    got = await s.fetch(2, {"batch": 2})
    await s.publish(*["s.a"] * 6)
    await s.info()
    await s.ack(got[1])
    await s.info()
    await s.fetch(5, {"batch": 9, "no_wait": True})
    await s.info()


@scenario
async def updates(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a", "s.b"] * 4)
    await s.consumer(filter_subject="s.a", ack_wait=60_000 * MS)
    got = await s.fetch(2, {"batch": 2})
    await s.consumer(filter_subject="s.b", ack_wait=60_000 * MS)
    await s.fetch(3, {"batch": 9, "no_wait": True})
    await s.consumer(filter_subjects=["s.a", "s.b"], ack_wait=60_000 * MS, max_ack_pending=5)
    await s.ack(got[0])
    await s.info()


@scenario
async def pausing(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 3)
    await s.consumer()
    answer = await s.api("CONSUMER.PAUSE.S.c", {"pause_until": "2099-01-01T00:00:00Z"})
    s.note(f"{answer.get('paused')}")
    await s.info()
    await s.fetch(1, {"batch": 1, "no_wait": True})
    await s.fetch(1, {"batch": 1, "expires": 150 * MS})
    answer = await s.api("CONSUMER.PAUSE.S.c")
    s.note(f"{answer.get('paused')} {answer.get('pause_until')}")
    await s.fetch(1, {"batch": 1, "expires": 3000 * MS})
    await s.info()


@scenario
async def resets(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 6)
    await s.consumer()
    got = await s.fetch(4, {"batch": 4})
    await s.ack(got[0])
    for body in (None, {"seq": 3}, {"seq": 100}):
        answer = await s.api("CONSUMER.RESET.S.c", body)
        s.note(f"reset_seq {answer.get('reset_seq')}")
        await s.info()
        await s.fetch(2 if body != {"seq": 100} else 1, {"batch": 2, "no_wait": True})
    await s.info()


@scenario
async def work_queue(s: Session) -> None:
    await s.stream(retention="workqueue")
    await s.publish(*["s.a"] * 4)
    await s.consumer(max_deliver=1, ack_wait=200 * MS)
    got = await s.fetch(3, {"batch": 3})
    await s.ack(got[1])
    await s.count()
    await s.ack(got[2], b"+TERM")
    await s.count()
    await s.pause(400)
    await s.ack(got[0])
    await s.count()


@scenario
async def interest(s: Session) -> None:
    await s.stream(retention="interest")
    await s.publish("s.a")
    await s.count()
    await s.consumer("c")
    await s.consumer("d", filter_subject="s.b")
    await s.publish("s.a", "s.b")
    await s.count()
    got = await s.fetch(2, {"batch": 2})
    await s.ack(got[0])
    await s.ack(got[1])
    await s.count()
    await s.api("CONSUMER.DELETE.S.d")
    await s.count()


@scenario
async def no_such_responders(s: Session) -> None:
    await s.stream()
    await s.publish("s.a")
    await s.consumer(ack_policy="none")
    got = await s.fetch(1, {"batch": 1})
    await s.ack(got[0])
    await s.info()
    try:
        await s.client.request("$JS.API.CONSUMER.MSG.NEXT.S.nobody", b"", timeout=1)
    except nats.errors.NoRespondersError:
        s.note("no responders")


@scenario
async def next_with_ack(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 4)
    await s.consumer()
    got = await s.fetch(1, {"batch": 1})
    await s.client.publish(got[0].reply, b'+NXT {"batch": 2}', reply="inbox")
    got = await s.got(2)
    await s.client.publish(got[0].reply, b"+NXT", reply="inbox")
    await s.got(1)
    await s.info()


@scenario
async def inactivity(s: Session) -> None:
    await s.stream()
    await s.api(
        "CONSUMER.CREATE.S.e",
        {"stream_name": "S", "config": {"name": "e", "ack_policy": "explicit", "inactive_threshold": 300 * MS}},
    )
    await s.info("e")
    await s.pause(2000)
    await s.info("e")


@scenario
async def evicted_while_pending(s: Session) -> None:
    await s.stream(max_msgs_per_subject=1)
    await s.publish("s.a", "s.b", "s.c")
    await s.consumer()
    got = await s.fetch(2, {"batch": 2})
    await s.publish("s.a", "s.c")
    await s.info()
    await s.ack(got[0])
    await s.ack(got[1])
    await s.info()
    await s.fetch(3, {"batch": 9, "no_wait": True})


@scenario
async def a_new_deliver_subject(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b")
    await s.listen("one")
    await s.consumer(deliver_subject="one", ack_wait=60_000 * MS)
    await s.got(2, "one")
    await s.consumer(deliver_subject="two", ack_wait=60_000 * MS)
    await s.leave("one")
    await s.pause(100)
    await s.listen("two")
    await s.consumer(deliver_subject="two", ack_wait=60_000 * MS)
    await s.got(2, "two")
    await s.info()


@scenario
async def two_subscribers_of_a_deliver_subject(s: Session) -> None:
    await s.stream()
    await s.listen("to.one")
    other = await s.client.subscribe("to.*")
    await s.client.flush()
    await s.consumer(deliver_subject="to.one", ack_policy="none")
    await s.publish("s.a", "s.b")
    await s.got(2, "to.one")
    for _ in range(2):
        message = await other.next_msg(timeout=2)
        s.note(f"other <- {message.subject} {message.reply}")
    await s.info()


@scenario
async def ack_samples(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b", "s.c")
    await s.listen("$JS.EVENT.METRIC.>")
    await s.consumer(sample_freq="100")
    got = await s.fetch(3, {"batch": 3})
    await s.ack(got[0])
    await s.got(1, "$JS.EVENT.METRIC.>")
    await s.ack(got[1], b"+TERM")
    await s.ack(got[1])
    await s.quiet("$JS.EVENT.METRIC.>")
    await s.ack(got[2], b"-NAK")
    again = await s.fetch(1, {"batch": 1})
    await s.ack(again[0])
    await s.got(1, "$JS.EVENT.METRIC.>")


@scenario
async def paused_push(s: Session) -> None:
    await s.stream()
    await s.publish("s.a")
    await s.listen("to")
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c")
    await s.consumer(deliver_subject="to", idle_heartbeat=100 * MS, pause_until="2099-01-01T00:00:00Z")
    await s.got(2, "to")
    await s.info()
    await s.api("CONSUMER.PAUSE.S.c")
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c")


@scenario
async def max_deliver_by_nak(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b")
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.consumer(max_deliver=2)
    for _ in range(2):
        got = await s.fetch(1, {"batch": 1})
        await s.ack(got[0], b"-NAK")
    await s.fetch(1, {"batch": 1})
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.info()


@scenario
async def filters(s: Session) -> None:
    await s.stream()
    await s.consumer(filter_subjects=["s.a", "s.*.x"])
    await s.publish("s.a", "s.b", "s.b.x", "s.c.y", "s.a", "s.z.x")
    await s.info()
    await s.api("STREAM.PURGE.S", {"filter": "s.*.x"})
    await s.info()
    await s.fetch(3, {"batch": 9, "no_wait": True})
    await s.info()


@scenario
async def work_queue_with_two_consumers(s: Session) -> None:
    await s.stream(retention="workqueue")
    await s.consumer("c", filter_subject="s.a")
    await s.consumer("d", filter_subject="s.b")
    await s.consumer("e", filter_subject="s.>")
    await s.publish("s.a", "s.b", "s.c")
    got = await s.fetch(1, {"batch": 1})
    await s.ack(got[0], b"+NXT")
    await s.count()
    await s.info("d")
    await s.api("CONSUMER.DELETE.S.c")
    await s.count()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    started = [ServerProcess(name, Path(tmp_path_factory.mktemp(name)) / "store") for name in (JETSTORE, NATS_SERVER)]
    try:
        for process in started:
            process.start()
        yield started
    finally:
        for process in started:
            process.kill()


async def transcript(run: Scenario, port: int) -> list[str]:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    session = Session(client)
    try:
        await run(session)
    except Exception as problem:  # noqa: BLE001  # shown in the comparison, with what came before
        session.note(f"{type(problem).__name__}: {problem}")
    finally:
        await client.request("$JS.API.STREAM.DELETE.S", timeout=3)
        await client.close()
    return session.lines


async def both(run: Scenario, ports: list[int]) -> list[list[str]]:
    return list(await asyncio.gather(*(transcript(run, port) for port in ports)))


@pytest.mark.parametrize("run", SCENARIOS, ids=lambda run: run.__name__)
def test_same_as_nats_server(run: Scenario, servers: list[ServerProcess]) -> None:
    ours, theirs = asyncio.run(both(run, [process.port for process in servers]))
    assert ours == theirs
