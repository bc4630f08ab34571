"""A small blocking NATS client for the control side of a test: requests, the JetStream API, single reads and writes.

Not fast and not meant to be; ``client.py`` makes the load. Handles every message form (MSG, HMSG) by its lengths.
"""

from __future__ import annotations

import json
import re
import socket
import time
from base64 import b64decode
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any

CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"lang":"python-raw","version":"1","protocol":1,'
    b'"headers":true,"no_responders":true,"name":"jepsen"}\r\n'
)
INFO_LINE = re.compile(rb"INFO \{[^\r]*\r\n")
"""The server may send it again at any time."""
_INBOX_NUMBERS = count(1)


class ControlError(Exception):
    """The server answered with a protocol error, closed the connection, or did not answer in time."""


class ApiError(ControlError):
    """The JetStream API answered with an error; ``code`` and ``err_code`` as in the answer."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error.get('code')} ({error.get('err_code')}): {error.get('description')}")
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))


class NoRespondersError(ControlError):
    """Nobody listens on the subject of a request (status 503)."""


@dataclass(slots=True)
class Message:
    """One message as the server sent it; ``headers`` is the raw header block, b"" without one."""

    subject: bytes
    reply: bytes
    headers: bytes
    payload: bytes

    @property
    def status(self) -> int:
        """The status number of the header block's first line; 0 without one."""
        first = self.headers.split(b"\r\n", 1)[0].split(b" ")
        return int(first[1]) if len(first) > 1 and first[1].isdigit() else 0


def header_block(headers: Mapping[str, str]) -> bytes:
    """A NATS/1.0 header block for HPUB."""
    return b"NATS/1.0\r\n" + b"".join(f"{key}: {value}\r\n".encode() for key, value in headers.items()) + b"\r\n"


class Control:
    """One connection. Every call waits for its answer; ControlError or OSError when there is none."""

    def __init__(self, port: int, timeout_s: float = 10.0, host: str = "127.0.0.1") -> None:
        self.timeout_s = timeout_s
        self._buffer = bytearray()
        self._queues: dict[bytes, deque[Message]] = {}
        self._pongs = 0
        self._socket = socket.create_connection((host, port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._inbox = b"_INBOX.control%d_%d" % (self._socket.getsockname()[1], next(_INBOX_NUMBERS))
            self._numbers = count(1)
            self._sids = count(2)
            self.info: dict[str, Any] = {}
            self._socket.sendall(CONNECT + b"SUB %b.* 1\r\n" % self._inbox)
            self._queues[b"1"] = deque()
            self.flush()
        except BaseException:
            self._socket.close()
            raise

    def flush(self) -> None:
        """PING and wait for its PONG: everything sent before was taken by the server."""
        wanted = self._pongs + 1
        self._socket.sendall(b"PING\r\n")
        deadline = time.monotonic() + self.timeout_s
        while self._pongs < wanted:
            self._read(deadline)

    def send(self, data: bytes) -> None:
        """Raw protocol bytes."""
        self._socket.sendall(data)

    def publish(
        self, subject: str, payload: bytes, reply: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish without an answer."""
        space = b" " if reply else b""
        if headers:
            block = header_block(headers)
            line = b"HPUB %b %b%b%d %d\r\n" % (subject.encode(), reply, space, len(block), len(block) + len(payload))
            self._socket.sendall(line + block + payload + b"\r\n")
        else:
            self._socket.sendall(b"PUB %b %b%b%d\r\n%b\r\n" % (subject.encode(), reply, space, len(payload), payload))

    def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Message:
        """Publish and return the one answer. NoRespondersError: nobody listens. ControlError: time-out."""
        reply = b"%b.%d" % (self._inbox, next(self._numbers))
        self.publish(subject, payload, reply, headers)
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        queue = self._queues[b"1"]
        while True:
            while queue:
                message = queue.popleft()
                if message.subject == reply:
                    if message.status == 503 and not message.payload:
                        raise NoRespondersError(subject)
                    return message
            self._read(deadline)

    def api(self, name: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> dict[str, Any]:
        """The answer of ``$JS.API.<name>`` as a dict; ApiError when it carries an error."""
        payload = b"" if body is None else json.dumps(body).encode()
        answer = self.request(f"$JS.API.{name}", payload, timeout_s=timeout_s)
        result: dict[str, Any] = json.loads(answer.payload)
        if "error" in result:
            raise ApiError(result["error"])
        return result

    def publish_sync(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Publish to a stream and return its PubAck; ApiError when it was refused."""
        ack: dict[str, Any] = json.loads(self.request(subject, payload, headers, timeout_s).payload)
        if "error" in ack:
            raise ApiError(ack["error"])
        return ack

    def get(self, stream: str, sequence: int) -> bytes | None:
        """The payload stored at a sequence through STREAM.MSG.GET; None when there is no such message."""
        try:
            answer = self.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return b64decode(answer["message"].get("data", ""))

    def subscribe(self, subject: str, queue: str = "") -> bytes:
        """A subscription; its sid for ``next``."""
        sid = b"%d" % next(self._sids)
        self._queues[sid] = deque()
        group = f" {queue}" if queue else ""
        self._socket.sendall(f"SUB {subject}{group} ".encode() + sid + b"\r\n")
        return sid

    def next(self, sid: bytes, timeout_s: float | None = None) -> Message:
        """The next message of a subscription; ControlError when none came in time."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        queue = self._queues[sid]
        while not queue:
            self._read(deadline)
        return queue.popleft()

    def close(self) -> None:
        """Drop the connection."""
        self._socket.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ControlError("no answer in time")
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(262_144)
        except TimeoutError:
            raise ControlError("no answer in time") from None
        if not data:
            raise ControlError("connection closed by the server")
        self._buffer += data
        self._parse()

    def _parse(self) -> None:
        buffer = self._buffer
        at = 0
        while True:
            end = buffer.find(b"\r\n", at)
            if end < 0:
                break
            line = bytes(buffer[at:end])
            verb = line[:4].upper()
            if verb in (b"MSG ", b"HMSG"):
                words = line.split()
                total = int(words[-1])
                if len(buffer) < end + 4 + total:
                    break
                fixed = 5 if verb == b"HMSG" else 4
                header_bytes = int(words[-2]) if verb == b"HMSG" else 0
                body = bytes(buffer[end + 2 : end + 2 + total])
                reply = words[3] if len(words) > fixed else b""
                queue = self._queues.get(words[2])
                if queue is not None:
                    queue.append(Message(words[1], reply, body[:header_bytes], body[header_bytes:]))
                at = end + 4 + total
                continue
            at = end + 2
            if verb == b"PING":
                self._socket.sendall(b"PONG\r\n")
            elif verb == b"PONG":
                self._pongs += 1
            elif verb == b"INFO":
                self.info = json.loads(line[5:])
            elif verb == b"-ERR":
                raise ControlError(line.decode(errors="replace"))
        del buffer[:at]
