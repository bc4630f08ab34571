"""Requests that nobody takes, and replicas that a lone server has not: what a nats-server says to them, or not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from system_script import Json, oracle_binary, running

from jetstore.model.times import parse_time

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

ACCOUNTS = """accounts {{
  $SYS {{ users [ {{user: s, password: x}} ] }}
  A {{ jetstream: enabled, users [ {{user: a, password: x}} ] }}
  C {{ users [ {{user: c, password: x}} ] }}
}}"""
JETSTREAM = 'jetstream {{ store_dir: "{directory}/data", domain: dom }}'
NAMES = "server_name: n1\nlisten: 127.0.0.1:-1\nhttp: 127.0.0.1:-1\n"
WITH, WITHOUT = f"{NAMES}{JETSTREAM}\n{ACCOUNTS}", NAMES + ACCOUNTS.replace("jetstream: enabled, ", "")
CLIENTS: list[Mapping[str, bool]] = [
    {"headers": True, "no_responders": True},
    {"headers": True, "no_responders": False},
    {"headers": False, "no_responders": False},
]
SUBJECTS = [
    *("", ".FOO", ".FOO.BAR", ".FOO.BAR.BAZ.X.Y", ".STREAM", ".STREAM.FOO", ".STREAM.FOO.BAR", ".INFO.X"),
    *(".CONSUMER", ".CONSUMER.FOO", ".CONSUMER.FOO.S", ".CONSUMER.CREATE", ".CONSUMER.NAMES", ".CONSUMER.MSG"),
    *(".CONSUMER.MSG.FOO", ".CONSUMER.MSG.FOO.S.C", ".CONSUMER.MSG.NEXT", ".CONSUMER.MSG.NEXT.S"),
    *(".CONSUMER.MSG.NEXT.S.C", ".CONSUMER.MSG.NEXT.S.C.D", ".DIRECT", ".DIRECT.FOO", ".DIRECT.GET", ".DIRECT.GETX.S"),
    *(".META.LEADER.STEPDOWN", ".META.FOO", ".ACCOUNT.PURGE.A", ".SERVER.REMOVE", ".SERVER.FOO"),
]
NOBODY = ["FOO", "$JS.FOO", "$JS.ACK.x", "$JS.FC.S.C.x", "$JSX.API.FOO"]


class Raw:
    """A client that sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def all_until(self, end: bytes) -> bytes:
        """What comes, up to this and without it."""
        return (await asyncio.wait_for(self.reader.readuntil(end), 10)).removesuffix(end)

    async def heard(self, subject: str, *, has_header: bool) -> bytes:
        """Everything that came for a request before what was asked behind it was answered."""
        header = b"NATS/1.0\r\nA: b\r\n\r\n" if has_header else b""
        line = f"HPUB {subject} in {len(header)} {len(header)}" if has_header else f"PUB {subject} in 0"
        self.writer.write(line.encode() + b"\r\n" + header + b"\r\nPUB last 0\r\n\r\nPING\r\n")
        return await self.all_until(b"MSG last 2 0\r\n\r\nPONG\r\n")

    async def asked(self, subject: str, body: Json) -> Json:
        """The answer of the API."""
        data = json.dumps(body).encode()
        self.writer.write(f"PUB {subject} in {len(data)}\r\n".encode() + data + b"\r\n")
        head = await self.all_until(b"\r\n")
        return json.loads(await asyncio.wait_for(self.reader.readexactly(int(head.split()[-1]) + 2), 10))


@asynccontextmanager
async def connected(port: int, user: str, **options: bool) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Raw(reader, writer)
    try:
        await client.all_until(b"\r\n")
        connect = {"verbose": False, "user": user, "pass": "x", **options}
        writer.write(b"CONNECT " + json.dumps(connect).encode() + b"\r\nSUB in 1\r\nSUB last 2\r\nPING\r\n")
        await client.all_until(b"PONG\r\n")
        yield client
    finally:
        writer.close()


async def told(directory: Path, configuration: str, *command: str) -> list[Any]:
    """What clients of each kind hear of requests that nobody takes, in each account."""
    found: list[Any] = []
    async with running(directory, configuration.format(directory=directory), *command) as (port, _):
        for user in "ac":
            for options in CLIENTS:
                async with connected(port, user, **options) as client:
                    for subject in [*(f"$JS.API{rest}" for rest in SUBJECTS), "$JS.dom.API.STREAM.FOO", *NOBODY]:
                        for has_header in (False, True)[: 1 + options["headers"]]:
                            heard = await client.heard(subject, has_header=has_header)
                            found.append((user, *options.values(), subject, has_header, heard))
    return found


def both(told: Callable[..., Coroutine[Any, Any, Any]], path: Path, configuration: str) -> tuple[Any, Any]:
    """The same beside each other: theirs and ours."""
    binary = oracle_binary()
    assert binary is not None
    for name in ("theirs", "ours"):
        (path / name).mkdir()

    async def run() -> tuple[Any, Any]:
        theirs = await told(path / "theirs", configuration, binary)
        return theirs, await told(path / "ours", configuration, sys.executable, "-m", "server.cli.main", "serve")

    return asyncio.run(run())


@pytest.mark.parametrize("configuration", [WITH, WITHOUT], ids=["with JetStream", "without"])
def test_what_nobody_takes_is_met_with_the_same_silence(tmp_path: Path, configuration: str) -> None:
    theirs, ours = both(told, tmp_path, configuration)
    assert [here for here, there in zip(ours, theirs, strict=True) if here != there] == []
    silent = {subject for *_, no_responders, subject, _, heard in theirs if no_responders and not heard}
    assert ("$JS.API.FOO" in silent) == (configuration is WITH)
    assert not silent & {*NOBODY, "$JS.API.CONSUMER.MSG.NEXT.S.C", "$JS.API.DIRECT.GET"}


ASKED: dict[str, Json] = {
    "CREATE.{}": {},
    "CREATE.{}.c": {},
    "CREATE.{}.c.s.x": {"filter_subject": "s.x"},
    "DURABLE.CREATE.{}.c": {"durable_name": "c"},
}
WRONG: list[Json] = [
    *({}, {"name": "a.b"}, {"ack_wait": -1}, {"deliver_policy": "by_start_sequence"}, {"filter_subjects": ["a", "a"]}),
    *({"durable_name": "other"}, {"filter_subject": "other"}, {"deliver_subject": "d.*"}, {"max_waiting": -1}),
]


async def refusals(directory: Path, configuration: str, *command: str) -> list[Any]:
    """Consumers with more copies than one server has, and with all else that can be wrong besides."""
    found: list[Any] = []
    async with (
        running(directory, configuration.format(directory=directory), *command) as (port, _),
        connected(port, "a", headers=True) as client,
    ):
        await client.asked("$JS.API.STREAM.CREATE.S", {"name": "S", "subjects": ["s.*"]})
        for stream in ("S", "NONE"):
            for words, fields in ASKED.items():
                for wrong in WRONG:
                    for replicas in (3, 6):
                        config = {**fields, **wrong, "num_replicas": replicas}
                        body = {"stream_name": stream, "config": config}
                        answer = await client.asked(f"$JS.API.CONSUMER.{words.format(stream)}", body)
                        found.append((words, config, stream, answer["error"]))
    return found


def test_replicas_that_a_lone_server_has_not_are_refused_before_the_stream_is_looked_for(tmp_path: Path) -> None:
    theirs, ours = both(refusals, tmp_path, WITH)
    assert [here for here, there in zip(ours, theirs, strict=True) if here != there] == []
    assert any(stream == "NONE" and error["err_code"] == 10074 for _, _, stream, error in theirs)


LAST = "2262-04-11T23:47:16Z"
"""The last second that 64 bits of nanoseconds since 1970 can say."""
BEYOND = "2262-04-11T23:47:17Z"


async def pending(directory: Path, configuration: str, *command: str) -> list[int]:
    """How much consumers get that start now, then, and beyond."""
    async with (
        running(directory, configuration.format(directory=directory), *command) as (port, _),
        connected(port, "a", headers=True) as client,
    ):
        await client.asked("$JS.API.STREAM.CREATE.S", {"name": "S", "subjects": ["s.*"]})
        await client.asked("s.1", {})
        found = []
        for start in ("2000-01-01T00:00:00Z", LAST, BEYOND):
            config = {"deliver_policy": "by_start_time", "opt_start_time": start}
            answer = await client.asked("$JS.API.CONSUMER.CREATE.S", {"stream_name": "S", "config": config})
            assert answer["config"]["opt_start_time"] == start
            found.append(answer["num_pending"])
        return found


def test_a_start_beyond_what_their_clock_can_say_is_the_future_here(tmp_path: Path) -> None:
    """The one deviation: there, the number turns over, and the start is before everything."""
    assert parse_time(LAST) < 2**63 < parse_time(BEYOND)
    theirs, ours = both(pending, tmp_path, WITH)
    assert theirs == [1, 0, 1]
    assert ours == [1, 0, 0]
