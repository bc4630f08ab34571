"""A client's conversation with a server as lines of text, to compare jetstore with nats-server line by line.

Times become ``T``, inboxes their names; everything else (statuses, counters, ack subjects, advisories) is compared.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from jepsen.real.process import JETSTORE, NATS_SERVER, ServerProcess, find_nats_server

MARKS = [
    pytest.mark.real,
    pytest.mark.oracle,
    pytest.mark.skipif(find_nats_server() is None, reason="no nats-server binary"),
]
"""Of every module of scenarios."""

MS = 1_000_000
Scenario = Callable[["Session"], Awaitable[None]]
SCENARIOS: list[Scenario] = []
"""What ``oracle_*.py`` tell."""
_TIME = re.compile(r"\.\d{19}\.|\d{4}-\d\d-\d\dT[0-9:.]+Z|\$JS\.FC\.S\.\w+\.\w{4}")


def scenario(function: Scenario) -> Scenario:
    """Told to both servers."""
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


@contextmanager
def both_servers(folder: Path) -> Iterator[list[int]]:
    """Ports of a jetstore and a nats-server on empty stores."""
    started = [ServerProcess(name, folder / name) for name in (JETSTORE, NATS_SERVER)]
    try:
        for process in started:
            process.start()
        yield [process.port for process in started]
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


async def _both(run: Scenario, ports: list[int]) -> list[list[str]]:
    return list(await asyncio.gather(*(transcript(run, port) for port in ports)))


def check_same(run: Scenario, ports: list[int]) -> None:
    """What a client sees of both servers must be the same."""
    ours, theirs = asyncio.run(_both(run, ports))
    assert ours == theirs, "\n".join(difflib.unified_diff(theirs, ours, "nats-server", "jetstore", lineterm=""))
