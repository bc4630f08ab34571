"""Sessions with a server, message by message, compared with what nats-server said in them.

A session is a file in ``tests/golden/jsapi/sessions/``; nats-server's answers stand in the JSON file beside it. Run
this file as a program to record all, or those named, again. One step a line::

    ask N subject [body] [| Header: value]…     a request; N messages come to its inbox (0: none is waited for)
    sub subject                                 subscribe
    put reply subject [body] [| Header: value]… publish with this reply subject
    later subject [body] [| Header: value]…     a request whose inbox is one of the subscriptions
    get N                                       the next N messages of the subscriptions
    until subject [body]                        ask until the answer holds what the next line says
    holds text

Everything is compared but times, ids, and what names the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_oracle import oracle, oracle_binary

from jepsen.real.process import JETSTORE, ServerProcess

SESSIONS = Path(__file__).parents[2] / "golden" / "jsapi" / "sessions"
NAMES = sorted(path.stem for path in SESSIONS.glob("*.txt"))
DEVIATIONS: dict[str, str] = {}
"""Step → why it may answer otherwise."""

STEP_S = 15.0
"""A step that takes longer ends in silence."""
LATER = 1000
"""Subscription ids of late inboxes begin above."""

_VOLATILE = (
    (r'"_nats\.(level|ver)":"[^"]*",?|"cluster":\{"leader":"[^"]*"\},?', ""),
    (r"20\d\d-\d\d-\d\dT[\d:.]+Z", "T"),
    (r'"(id|pinned_id|pinned_client_id)":"[0-9A-Za-z]{22}"', r'"\1":"ID"'),
    (r"Nats-Pin-Id: \w+", "Nats-Pin-Id: P"),
    (r'"(pause_remaining|active|rtt)":-?\d+', r'"\1":0'),
    (r"(Nats-Stream-Source: .*) \w{8}\b", r"\1 ID"),
    (r'"lag":0,"seq":\d+,', '"lag":0,'),
    (r"(\$JS\.ACK\.\S+\.)\d{19}\.\d+", r"\1T.N"),
    (r'"sources":\[\{"name":"\w+",("external":[^}]*\},)?"lag".*?\],"ts"', '"sources":[],"ts"'),  # in no order
    (r"(JS_MIRROR_|JS_SRC_|\$JS\.[MS]\.)\w{8}", r"\1ID"),
    (r",}", "}"),
)


class Session:
    """A bare client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.asked = 0
        self.latest = 0
        self.heard: list[list[str]] = []
        """Messages of subscriptions that no step took yet."""

    async def message(self) -> tuple[str, list[str]]:
        """Subject of the inbox or "", and the message: subject, reply, header, body."""
        while True:
            parts = (await self.reader.readline()).split()
            if parts[0] not in (b"MSG", b"HMSG"):
                continue
            has_header = parts[0] == b"HMSG"
            payload = (await self.reader.readexactly(int(parts[-1]) + 2))[:-2]
            cut = int(parts[-2]) if has_header else 0
            names = parts[1 : -2 if has_header else -1]
            reply = names[2].decode() if len(names) > 2 else ""
            made = [names[0].decode(), reply, payload[:cut].decode(), payload[cut:].decode()]
            if int(names[1]) >= LATER:
                made[0] = f"#{int(names[1]) - LATER} {'' if made[0].startswith('lt.') else made[0]}"
            if names[1] == b"1":
                if not made[0].startswith("in."):
                    made[0] = "(" + made[0] + ")"
                return "inbox", made
            return "", made

    def publish(self, subject: str, reply: str, header: str, body: str) -> None:
        block = f"NATS/1.0\r\n{header}\r\n".encode() if header else b""
        payload = block + body.encode()
        if block:
            self.writer.write(f"HPUB {subject} {reply} {len(block)} {len(payload)}\r\n".encode() + payload + b"\r\n")
        else:
            self.writer.write(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def later(self, words: str) -> None:
        """A request that is answered when it is."""
        self.latest += 1
        subject, header, body = self.parts(words)
        self.writer.write(f"SUB lt.{self.latest} {LATER + self.latest}\r\n".encode())
        self.publish(subject, f"lt.{self.latest}", header, body)

    def parts(self, words: str) -> tuple[str, str, str]:
        """Subject, header lines, body."""
        text, *lines = words.split(" | ")
        subject, _, body = text.partition(" ")
        return subject, "".join(line + "\r\n" for line in lines), body

    async def ask(self, count: int, words: str) -> list[list[str]]:
        """The messages that come to the inbox."""
        self.asked += 1
        subject, header, body = self.parts(words)
        self.publish(subject, f"in.{self.asked}" if count else "", header, body)
        answers: list[list[str]] = []
        while len(answers) < count:
            whose, made = await self.message()
            if whose:
                answers.append(made[1:] if made[0].startswith("in.") else made)
            else:
                self.heard.append(made)
        return answers

    async def get(self, count: int) -> list[list[str]]:
        """The next messages of the subscriptions."""
        while len(self.heard) < count:
            whose, made = await self.message()
            assert not whose, made
            self.heard.append(made)
        taken, self.heard = self.heard[:count], self.heard[count:]
        return taken


def steps(name: str) -> list[str]:
    lines = (SESSIONS / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


async def run(port: int, name: str) -> list[list[list[str]]]:
    """A server's side of a session: per step the messages that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB in.* 1\r\n')
    session = Session(reader, writer)
    said: list[list[list[str]]] = []
    until = ""
    subscriptions = 1
    try:
        for step in steps(name):
            word, _, rest = step.partition(" ")
            try:
                async with asyncio.timeout(STEP_S):
                    if word == "ask":
                        count, _, words = rest.partition(" ")
                        said.append(await session.ask(int(count), words))
                    elif word == "put":
                        reply, _, words = rest.partition(" ")
                        subject, header, body = session.parts(words)
                        session.publish(subject, reply, header, body)
                        said.append([])
                    elif word == "sub":
                        subscriptions += 1
                        writer.write(f"SUB {rest} {subscriptions}\r\n".encode())
                        said.append([])
                    elif word == "later":
                        session.later(rest)
                        said.append([])
                    elif word == "get":
                        said.append(await session.get(int(rest)))
                    elif word == "until":
                        until = rest
                        said.append([])
                    elif word == "holds":
                        while rest not in str(await session.ask(1, until)):  # noqa: ASYNC110 - another process does it
                            await asyncio.sleep(0.02)
                        said.append([])
                    else:
                        raise AssertionError(f"{name}: no step {step!r}")
            except TimeoutError:
                said.append([["silence"], *session.heard])
                session.heard = []
        return said
    finally:
        writer.close()
        await writer.wait_closed()


def comparable(messages: list[list[str]]) -> list[list[str]]:
    """Without what is never the same."""
    shown = []
    for message in messages:
        made = []
        for text in message:
            for pattern, instead in _VOLATILE:
                text = re.sub(pattern, instead, text)
            made.append(text)
        shown.append(made)
    return shown


def recorded(name: str) -> list[Any]:
    said: list[Any] = json.loads((SESSIONS / f"{name}.json").read_text())
    return said


def different(name: str, ours: list[list[list[str]]]) -> list[str]:
    theirs = recorded(name)
    assert len(theirs) == len(ours) == len(steps(name)), "record the session again"
    return [
        f"{step}\n   theirs {comparable(their)}\n   ours   {comparable(our)}"
        for step, their, our in zip(steps(name), theirs, ours, strict=True)
        if comparable(their) != comparable(our) and step not in DEVIATIONS
    ]


@pytest.mark.real
def test_a_running_server_says_what_nats_server_said(
    start_server: Callable[..., ServerProcess], record_property: Callable[[str, object], None]
) -> None:
    port = start_server(JETSTORE).port
    found = [line for name in NAMES for line in different(name, asyncio.run(run(port, name)))]
    record_property("cases", sum(len(steps(name)) for name in NAMES))
    assert not found, f"{len(found)} differ:\n" + "\n".join(found)


async def _run_oracle(directory: Path, names: list[str]) -> dict[str, list[list[list[str]]]]:
    async with oracle(directory) as port:
        return {name: await run(port, name) for name in names}


@pytest.mark.oracle
@pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand")
def test_recorded_sessions_are_nats_servers(tmp_path: Path) -> None:
    live = asyncio.run(_run_oracle(tmp_path, NAMES))
    found = [line for name in NAMES for line in different(name, live[name])]
    assert not found, "\n".join(found)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        for name, said in asyncio.run(_run_oracle(Path(directory), sys.argv[1:] or NAMES)).items():
            lines = ",\n".join(json.dumps(messages) for messages in said)
            (SESSIONS / f"{name}.json").write_text(f"[\n{lines}\n]\n")
            print(f"{name}: {len(said)} steps")
