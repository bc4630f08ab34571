"""Plays the transcripts of ``tests/golden/wire`` to a server. The format is in the README there."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "wire"
LIMIT_S = 20.0
"""A server that is silent for so long has failed."""


@dataclass
class Step:
    """What one connection sends, and what came back."""

    who: str
    how: str
    lines: list[str]
    answer: list[str] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        text = "".join(self.lines)
        text = re.sub(r"\{\{(.)\*(\d+)\}\}", lambda m: m[1] * int(m[2]), text)
        return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


@dataclass
class Case:
    """Some connections and what they do, one after the other."""

    title: str
    steps: list[Step]


def load(name: str) -> list[Case]:
    """The cases of one file."""
    cases: list[Case] = []
    for line in (FOLDER / f"{name}.txt").read_text("utf-8").splitlines():
        if line.startswith("## "):
            cases.append(Case(line[3:], []))
        elif line:
            who, how, text = line[0], line[1], line[3:]
            steps = cases[-1].steps
            if how in "<=":
                steps[-1].answer.append(line)
            elif steps and (steps[-1].who, steps[-1].how) == (who, how) == (who, ">") and not steps[-1].answer:
                steps[-1].lines.append(text)
            else:
                steps.append(Step(who, how, [text]))
    return cases


def dump(cases: list[Case]) -> str:
    """The text of a file."""
    parts = []
    for case in cases:
        parts.append(f"## {case.title}")
        for step in case.steps:
            parts += [f"{step.who}{step.how} {text}" for text in step.lines]
            parts += step.answer
        parts.append("")
    return "\n".join(parts)


async def play(case: Case, host: str, port: int) -> list[list[str]]:
    """The answer to each step."""
    connections: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    answers = []
    try:
        for step in case.steps:
            if step.who not in connections:
                connections[step.who] = await asyncio.open_connection(host, port)
                await asyncio.wait_for(connections[step.who][0].readuntil(b"\r\n"), LIMIT_S)
            reader, writer = connections[step.who]
            writer.write(step.data + (b"PING\r\n" if step.how == ">" else b""))
            if step.how == ".":
                answers.append([])
                continue
            answers.append(await asyncio.wait_for(_read(reader, step), LIMIT_S))
    finally:
        for _, writer in connections.values():
            writer.close()
    return answers


async def _read(reader: asyncio.StreamReader, step: Step) -> list[str]:
    """Everything up to the PONG of our PING, or up to the end."""
    pongs = step.data.upper().count(b"PING") + 1 if step.how == ">" else 0
    received = b""
    closed = False
    while not closed and not (pongs and received.count(b"PONG\r\n") >= pongs):
        try:
            chunk = await reader.read(65536)
        except ConnectionResetError:
            chunk = b""
        closed = not chunk
        received += chunk
    return shown(step, received, closed)


def shown(step: Step, received: bytes, closed: bool) -> list[str]:
    """The answer to a step as the transcripts write it."""
    # A second INFO follows the first PONG in the same write.
    received = re.sub(rb"INFO \{.*?\} \r\n", b"INFO {\xe2\x80\xa6}\r\n", received)
    lines = received.split(b"\r\n")
    assert not lines[-1], f"half a line: {received!r}"
    del lines[-1]
    if not closed:
        last_pong = len(lines) - 1 - lines[::-1].index(b"PONG")
        del lines[last_pong]
    answer = [f"{step.who}< {_escape(line)}" for line in lines]
    return [*answer, f"{step.who}= closed"] if closed else answer


def _escape(line: bytes) -> str:
    if line == b"INFO {\xe2\x80\xa6}":
        return line.decode()
    return line.decode("latin-1").encode("unicode_escape").decode()
