"""The reading load: blocking loops that take a stream through a push consumer, or fetch and acknowledge.

Made for the payloads of ``values.py`` (no line ends inside), so that a chunk of thousands of messages is split once.
"""

from __future__ import annotations

import json
import re
import socket
import time
from array import array
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .control import CONNECT, INFO_LINE, Control, ControlError
from .values import VALUE_DIGITS, pad

_STATUS = re.compile(rb"HMSG \S+ \S+ (?:\S+ )?\d+ \d+\r\nNATS/1\.0 (\d+)[^\r]*\r\n(?:[^\r]+\r\n)*\r\n\r\n")
_CONFIRMED = re.compile(rb"MSG \S+\.c(\d+) \S+ 0\r\n\r\n")


class Wire:
    """A blocking connection that yields raw protocol bytes; answers PINGs. For lines without line ends in payloads."""

    def __init__(self, port: int, greeting: bytes = b"", timeout_s: float = 30.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._rest = b""
        self.socket.sendall(CONNECT + greeting + b"PING\r\n")
        data = b""
        while b"PONG\r\n" not in data:
            data += self._receive()
        self._rest = data[data.index(b"PONG\r\n") + 6 :]

    def lines(self) -> bytes:
        """More complete lines, at least one. ControlError on time-out, close or -ERR."""
        while True:
            data = self._rest + self._receive()
            cut = data.rfind(b"\n") + 1
            self._rest = data[cut:]
            data = data[:cut]
            if b"PING\r\n" in data:
                self.socket.sendall(b"PONG\r\n")
                data = data.replace(b"PING\r\n", b"")
            if b"INFO {" in data:
                data = INFO_LINE.sub(b"", data)
            if b"-ERR" in data:
                raise ControlError(data[data.index(b"-ERR") :][:100].decode(errors="replace"))
            if data:
                return data

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()

    def _receive(self) -> bytes:
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            raise ControlError("nothing received in time") from None
        if not data:
            raise ControlError("connection closed by the server")
        return data


@dataclass
class Contents:
    """What a reader saw: stream sequences and values, in order of arrival, and what was wrong with the bytes."""

    sequences: array[int] = field(default_factory=lambda: array("Q"))
    values: array[int] = field(default_factory=lambda: array("Q"))
    damaged: list[str] = field(default_factory=list)
    """Messages whose payload is not what its value demands; the message is not in the columns then."""
    seconds: float = 0.0

    def add(self, headers: list[bytes], payloads: list[bytes], tail: bytes | None) -> None:
        """Take a run of messages: MSG lines with an ack reply subject, and their payloads."""
        if tail is not None:
            for header, payload in zip(headers, payloads, strict=True):
                if payload[VALUE_DIGITS:] != tail or not payload[:VALUE_DIGITS].isdigit():
                    self.damaged.append(f"{header.decode(errors='replace')}: {payload[:60]!r}…")
        sound = not self.damaged
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
        self.sequences.extend([int(header.rsplit(b".", 4)[1]) for header in headers])
        if sound:
            self.values.extend([int(payload[:VALUE_DIGITS]) for payload in payloads])
        else:
            self.values.extend([int(text[:VALUE_DIGITS]) if text[:VALUE_DIGITS].isdigit() else 0 for text in payloads])


def drain(
    port: int,
    stream: str,
    count: int,
    *,
    size: int = 128,
    collect: bool = True,
    timeout_s: float = 30.0,
    consumer: dict[str, Any] | None = None,
    partly: bool = False,
) -> Contents:
    """The first ``count`` messages of a stream through a push consumer with ack none. ControlError: they did not come.

    ``partly``: whatever came until nothing more did for ``timeout_s``.
    ``collect`` = False only counts (for measurements); then only ``seconds`` is filled, from the consumer's creation
    to the last byte.
    """
    contents = Contents()
    if count == 0:
        return contents
    inbox = f"_DRAIN.{stream}.{time.monotonic_ns()}"
    wire = Wire(port, f"SUB {inbox} 1\r\n".encode(), timeout_s)
    try:
        with Control(port, timeout_s) as control:
            config = {"deliver_subject": inbox, "ack_policy": "none", "deliver_policy": "all", "max_deliver": 1}
            config |= consumer or {}
            began = time.perf_counter()
            control.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
            lines = 0
            chunks: list[bytes] = []
            while lines < 2 * count:
                try:
                    data = wire.lines()
                except ControlError:
                    if not partly:
                        raise
                    break
                if b"HMSG" in data:
                    data = _STATUS.sub(b"", data)
                lines += data.count(b"\n")
                if collect:
                    chunks.append(data)
            contents.seconds = time.perf_counter() - began
    finally:
        wire.close()
    if collect:
        parts = b"".join(chunks).split(b"\r\n")
        payloads = parts[1 : 2 * count : 2]
        contents.add(parts[0 : 2 * count : 2][: len(payloads)], payloads, pad(size))
    return contents


@dataclass
class Fetcher:
    """Pulls from one durable consumer in batches and acknowledges each message.

    ``confirm`` = acknowledge with a reply subject and remember what the server confirmed.
    """

    port: int
    stream: str
    consumer: str
    batch: int = 1000
    confirm: bool = False
    expires_ns: int = 2_000_000_000
    delivered: Contents = field(default_factory=Contents)
    confirmed: array[int] = field(default_factory=lambda: array("Q"))
    """Stream sequences whose acknowledgement the server confirmed."""
    wire: Wire | None = None
    _left: bytes = b""

    def open(self, timeout_s: float = 30.0) -> None:
        """Connect."""
        self._inbox = f"_INBOX.f{time.monotonic_ns()}"
        self.wire = Wire(self.port, f"SUB {self._inbox}.* 1\r\n".encode(), timeout_s)

    def close(self) -> None:
        """Drop the connection. Idempotent."""
        if self.wire is not None:
            self.wire.close()
            self.wire = None

    def round(self, tail: bytes | None = None) -> int:
        """One fetch, all of it acknowledged; the number of messages, 0 when the pull expired empty."""
        assert self.wire is not None
        request = json.dumps({"batch": self.batch, "expires": self.expires_ns}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.consumer}"
        self.wire.socket.sendall(f"PUB {subject} {self._inbox}.m {len(request)}\r\n".encode() + request + b"\r\n")
        data = self._left
        has_ended = False
        while data.count(b"\n") < 2 * self.batch and not has_ended:
            data += self.wire.lines()
            if b"HMSG" in data:
                if not _STATUS.search(data):
                    continue
                data = _STATUS.sub(b"", data)
                has_ended = True
        parts = data.split(b"\r\n")
        headers = parts[0 : 2 * self.batch : 2]
        payloads = parts[1 : 2 * self.batch : 2]
        del headers[len(payloads) :]
        self._left = b""
        if not headers:
            return 0
        self.delivered.add(headers, payloads, tail)
        replies = [header.split(b" ", 4)[3] for header in headers]
        if self.confirm:
            self._acknowledge_confirmed(replies)
        else:
            self.wire.socket.sendall(b"PUB " + b" 4\r\n+ACK\r\nPUB ".join(replies) + b" 4\r\n+ACK\r\n")
        return len(headers)

    def _acknowledge_confirmed(self, replies: list[bytes]) -> None:
        assert self.wire is not None
        inbox = self._inbox.encode()
        sequences = [reply.rsplit(b".", 4)[1] for reply in replies]
        self.wire.socket.sendall(
            b"".join(
                [
                    b"PUB %b %b.c%b 4\r\n+ACK\r\n" % (reply, inbox, sequence)
                    for reply, sequence in zip(replies, sequences, strict=True)
                ]
            )
        )
        data = b""
        try:
            while data.count(b"\n") < 2 * len(replies):
                data += self.wire.lines()
        finally:
            self.confirmed.extend([int(number) for number in _CONFIRMED.findall(data)])


@dataclass
class Answers:
    """Answers to reads by sequence."""

    payloads: dict[int, bytes] = field(default_factory=dict)
    absent: list[int] = field(default_factory=list)
    """The server says there is no such message (404)."""
    refused: dict[int, str] = field(default_factory=dict)
    """Any other error: the server says that it cannot tell."""
    unanswered: list[int] = field(default_factory=list)


def get_by_sequence(
    port: int, stream: str, sequences: Sequence[int], *, window: int = 500, timeout_s: float = 20.0
) -> Answers:
    """STREAM.MSG.GET for each sequence, ``window`` at a time. What has no answer in time is in ``unanswered``."""
    answers = Answers()
    inbox = f"_GET.{time.monotonic_ns()}"
    wire = Wire(port, f"SUB {inbox}.* 1\r\n".encode(), timeout_s)
    subject = f"$JS.API.STREAM.MSG.GET.{stream}"
    try:
        for start in range(0, len(sequences), window):
            part = list(sequences[start : start + window])
            bodies = [b'{"seq":%d}' % sequence for sequence in part]
            wire.socket.sendall(
                b"".join(
                    [
                        f"PUB {subject} {inbox}.{sequence} {len(body)}\r\n".encode() + body + b"\r\n"
                        for sequence, body in zip(part, bodies, strict=True)
                    ]
                )
            )
            data = b""
            waiting = set(part)
            try:
                while data.count(b"\n") < 2 * len(part):
                    data += wire.lines()
            except ControlError:
                # Whatever came is looked at below; the rest stays unanswered.
                pass
            words = data.split(b"\r\n")
            for header, body in zip(words[0::2], words[1::2], strict=False):
                if not header.startswith(b"MSG "):
                    continue
                sequence = int(header.split(b" ", 2)[1].rsplit(b".", 1)[1])
                waiting.discard(sequence)
                _sort_answer(answers, sequence, json.loads(body))
            answers.unanswered.extend(sorted(waiting))
            if waiting:
                answers.unanswered.extend(sequences[start + window :])
                break
    finally:
        wire.close()
    return answers


def _sort_answer(answers: Answers, sequence: int, answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if error is None:
        answers.payloads[sequence] = b64decode(answer["message"].get("data", ""))
    elif error.get("code") == 404:
        answers.absent.append(sequence)
    else:
        answers.refused[sequence] = f"{error.get('code')} ({error.get('err_code')}) {error.get('description')}"
