"""Raw answers about stored messages (direct gets, MSG.GET, purges, deletes) compared with nats-server's.

The requests stand in ``tests/golden/jsapi/messages.txt``, nats-server's answers in ``messages.json`` beside it; run
this file as a program to record them again.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from api_oracle import oracle, oracle_binary

from jepsen.real.process import JETSTORE, ServerProcess

GOLDEN = Path(__file__).parents[2] / "golden" / "jsapi"
Answer = list[list[str]]
"""(header, body) of each message."""

SETUP = (
    ("$JS.API.STREAM.CREATE.D", '{"name":"D","subjects":["d.>"],"allow_direct":true}', ""),
    ("d.a", "one", ""),
    ("d.b", "two", ""),
    ("d.a", "three", "NATS/1.0\r\nK: v\r\n\r\n"),
    ("d.b", "four", ""),
    ("d.c", "five", ""),
    ("d.b", "", ""),
    ("$JS.API.STREAM.MSG.DELETE.D", '{"seq":4}', ""),
)
DEVIATIONS = {
    'DIRECT.GET.D {"start_time":"2901-01-01T00:00:00Z"}': "a time after the last message finds nothing",
    'STREAM.MSG.GET.D {"start_time":"2901-01-01T00:00:00Z"}': "a time after the last message finds nothing",
    'DIRECT.GET.D {"seq":1,"batch":-1}': "a negative batch counts as none",
    'STREAM.MSG.DELETE.D {"seq":400}': "a missing message is always 10043",
}


def requests() -> list[str]:
    return (GOLDEN / "messages.txt").read_text().splitlines()


def comparable(answer: Answer) -> Answer:
    """Without times and what names the server."""
    shown = []
    for header, body in answer:
        body = re.sub(r'"_nats\.(level|ver)":"[^"]*",?|"cluster":{"leader":"[^"]*"},', "", body)
        shown.append([re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "T", text) for text in (header, body.replace(",}", "}"))])
    return shown


class Asker:
    """A bare client that keeps whole answers: one message, or a batch up to its end-of-batch status."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.asked = 0

    async def _message(self) -> tuple[bytes, list[str]]:
        """(subject, answer part) of the next message."""
        while True:
            line = await self.reader.readline()
            parts = line.split()
            if parts[0] == b"MSG":
                body = (await self.reader.readexactly(int(parts[-1]) + 2))[:-2]
                return parts[1], ["", body.decode()]
            if parts[0] == b"HMSG":
                payload = (await self.reader.readexactly(int(parts[-1]) + 2))[:-2]
                length = int(parts[-2])
                return parts[1], [payload[:length].decode(), payload[length:].decode()]

    async def ask(self, subject: str, body: str, header: str = "") -> Answer:
        self.asked += 1
        inbox, payload, block = b"in.%d" % self.asked, body.encode(), header.encode()
        if block:
            size = b"%d %d" % (len(block), len(block) + len(payload))
            self.writer.write(b"HPUB %b %b %b\r\n%b%b\r\n" % (subject.encode(), inbox, size, block, payload))
        else:
            self.writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), inbox, len(payload), payload))
        answer: Answer = []
        while not answer or _expects_more(answer):
            to, part = await self._message()
            assert to == inbox
            answer.append(part)
        return answer


def _expects_more(answer: Answer) -> bool:
    """Whether a batch is under way: its messages carry a pending count, until the 204."""
    header = answer[-1][0]
    return "Nats-Num-Pending" in header and "204 EOB" not in header


async def converse(port: int) -> list[Answer]:
    """A server's answers to all requests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB in.* 1\r\n')
    asker = Asker(reader, writer)
    try:
        async with asyncio.timeout(60):
            for subject, body, header in SETUP:
                await asker.ask(subject, body, header)
            answers = []
            for line in requests():
                subject, _, body = line.partition(" ")
                answers.append(await asker.ask("$JS.API." + subject, body))
            return answers
    finally:
        writer.close()
        await writer.wait_closed()


def different(theirs: list[Answer], ours: list[Answer]) -> list[str]:
    return [
        f"{line}\n   theirs {comparable(their)}\n   ours   {comparable(our)}"
        for line, their, our in zip(requests(), theirs, ours, strict=True)
        if comparable(their) != comparable(our) and line not in DEVIATIONS
    ]


def recorded() -> list[Answer]:
    answers: list[Answer] = json.loads((GOLDEN / "messages.json").read_text())
    return answers


@pytest.mark.real
def test_a_running_server_answers_about_messages_as_recorded(start_server: Callable[..., ServerProcess]) -> None:
    found = different(recorded(), asyncio.run(converse(start_server(JETSTORE).port)))
    assert not found, f"{len(found)} differ:\n" + "\n".join(found)


async def _ask_oracle(directory: Path) -> list[Answer]:
    async with oracle(directory) as port:
        return await converse(port)


@pytest.mark.oracle
@pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand")
def test_recorded_message_answers_are_nats_servers(tmp_path: Path) -> None:
    assert [comparable(answer) for answer in recorded()] == [
        comparable(answer) for answer in asyncio.run(_ask_oracle(tmp_path))
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        answers = asyncio.run(_ask_oracle(Path(directory)))
    lines = ",\n".join(json.dumps(answer) for answer in answers)
    (GOLDEN / "messages.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(answers)} answers")
