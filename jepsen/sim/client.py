"""A small NATS client that speaks plain protocol bytes over the simulated network.

Deterministic: inbox names come from the client's name and a counter. Every wait ends: by an answer, a time-out or the
end of the connection. What was sent and not answered is *unknown*; what could not be sent was definitely not done.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

HEADER_LINE = b"NATS/1.0"


class NotSent(Exception):
    """There was no connection: the request never left."""


class Unknown(Exception):
    """No answer: time-out, or the connection was lost after sending."""


class NoResponders(Exception):
    """503: nobody serves this subject; definitely not done."""


class ApiFailure(Exception):
    """A JetStream error answer."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}/{error.get('err_code')} {error.get('description')}")
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))


class Msg(NamedTuple):
    """A message as it came over the wire."""

    subject: str
    sid: int
    reply: str
    header: bytes
    data: bytes
    at_s: float = 0.0
    """When it arrived, on the loop's clock."""

    @property
    def status(self) -> int:
        """The status code of the header line; 0 without one."""
        if not self.header.startswith(HEADER_LINE):
            return 0
        digits = self.header[len(HEADER_LINE) :].split(b"\r\n", 1)[0].strip()[:3]
        return int(digits) if digits.isdigit() else 0

    def headers(self) -> dict[str, str]:
        """Header fields; of repeated ones the last."""
        found = {}
        for line in self.header.split(b"\r\n")[1:]:
            key, colon, value = line.partition(b":")
            if colon:
                found[key.decode().strip()] = value.decode().strip()
        return found

    def json(self) -> dict[str, Any]:
        """The body as an API answer; ``ApiFailure`` if it carries an error."""
        answer: dict[str, Any] = json.loads(self.data)
        if "error" in answer:
            raise ApiFailure(answer["error"])
        return answer


class AckToken(NamedTuple):
    """What the reply subject of a JetStream delivery says."""

    stream: str
    consumer: str
    num_delivered: int
    stream_seq: int
    consumer_seq: int
    num_pending: int

    @staticmethod
    def parse(reply: str) -> AckToken:
        parts = reply.split(".")
        parts = parts[2:] if len(parts) == 9 else parts[4:]
        return AckToken(parts[0], parts[1], int(parts[2]), int(parts[3]), int(parts[4]), int(parts[6]))


class Client(asyncio.Protocol):
    """One connection. Made by ``connect``."""

    is_one_of_several = False
    """Whether another server may know better."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.info: dict[str, Any] = {}
        self.errors: list[str] = []
        """-ERR lines."""
        self.is_closed = False
        self._buffer = bytearray()
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._pongs: list[asyncio.Future[None]] = []
        self._handlers: dict[int, Callable[[Msg | None], None]] = {}
        self._requests: dict[str, Callable[[Msg | None], None]] = {}
        self._sid = 1
        self._request = 0
        self._writable: asyncio.Future[None] | None = None

    # -- connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        for future in (self._ready, self._writable, *self._pongs):
            if future is not None and not future.done():
                future.set_exception(Unknown("connection lost"))
                future.exception()
        waiting, self._requests = self._requests, {}
        for finish in waiting.values():
            finish(None)
        handlers, self._handlers = self._handlers, {}
        for handler in handlers.values():
            handler(None)

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    async def drain(self) -> None:
        """Wait until the write buffer is small."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def close(self) -> None:
        """End the connection politely."""
        self.transport.close()

    def abort(self) -> None:
        """End it with a reset."""
        self.transport.abort()

    # -- parsing --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return
            line = bytes(self._buffer[:end])
            verb = line.split(b" ", 1)[0].upper()
            if verb in (b"MSG", b"HMSG"):
                arguments = line.split()[1:]
                size = int(arguments[-1])
                if len(self._buffer) < end + 2 + size + 2:
                    return
                body = bytes(self._buffer[end + 2 : end + 2 + size])
                assert self._buffer[end + 2 + size : end + 4 + size] == b"\r\n", "framing"
                del self._buffer[: end + 4 + size]
                self._message(arguments, body, has_header=verb == b"HMSG")
                continue
            del self._buffer[: end + 2]
            self._line(verb, line)

    def _line(self, verb: bytes, line: bytes) -> None:
        if verb == b"PING":
            self.transport.write(b"PONG\r\n")
        elif verb == b"PONG":
            if self._pongs:
                pong = self._pongs.pop(0)
                if not pong.done():
                    pong.set_result(None)
        elif verb == b"INFO":
            self.info = json.loads(line[5:])
            if not self._ready.done():
                self._ready.set_result(None)
        elif verb == b"-ERR":
            self.errors.append(line.decode())
        else:
            assert verb == b"+OK", line

    def _message(self, arguments: list[bytes], body: bytes, *, has_header: bool) -> None:
        header_size = int(arguments[-2]) if has_header else 0
        words = arguments[: -2 if has_header else -1]
        reply = words[2].decode() if len(words) == 3 else ""
        header, data = body[:header_size], body[header_size:]
        message = Msg(words[0].decode(), int(words[1]), reply, header, data, self.loop.time())
        if message.sid == 1:
            finish = self._requests.pop(message.subject, None)
            if finish is not None:
                finish(message)
        elif message.sid in self._handlers:
            self._handlers[message.sid](message)

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Raw protocol bytes. ``NotSent`` without a connection."""
        if self.is_closed or self.transport is None or self.transport.is_closing():
            raise NotSent("not connected")
        self.transport.write(data)

    def publish(self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """PUB or HPUB."""
        target = f"{subject} {reply}" if reply else subject
        if headers:
            block = b"NATS/1.0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n"
            head = f"HPUB {target} {len(block)} {len(block) + len(data)}\r\n".encode()
            self.send(head + block + data + b"\r\n")
        else:
            self.send(f"PUB {target} {len(data)}\r\n".encode() + data + b"\r\n")

    def subscribe(self, subject: str, handler: Callable[[Msg | None], None], *, queue: str = "") -> int:
        """SUB; the handler gets each message, and None when the connection is lost."""
        self._sid += 1
        self._handlers[self._sid] = handler
        self.send(f"SUB {subject} {queue + ' ' if queue else ''}{self._sid}\r\n".encode())
        return self._sid

    def unsubscribe(self, sid: int) -> None:
        """UNSUB."""
        self._handlers.pop(sid, None)
        if not self.is_closed:
            self.send(f"UNSUB {sid}\r\n".encode())

    async def ping(self, timeout_s: float = 10.0) -> None:
        """A round trip. ``Unknown`` if it does not come back."""
        pong: asyncio.Future[None] = self.loop.create_future()
        self._pongs.append(pong)
        self.send(b"PING\r\n")
        try:
            async with asyncio.timeout(timeout_s):
                await pong
        except TimeoutError:
            raise Unknown("ping timed out") from None

    def request_with(
        self,
        subject: str,
        data: bytes,
        on_answer: Callable[[Msg | None], None],
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Send a request; the callback gets the answer, or None when there will be none."""
        self._request += 1
        inbox = f"_INBOX.{self.name}.{self._request}"

        def expired() -> None:
            finish = self._requests.pop(inbox, None)
            if finish is not None:
                finish(None)

        def answered(message: Msg | None) -> None:
            timer.cancel()
            on_answer(message)

        self.publish(subject, data, reply=inbox, headers=headers)
        timer = self.loop.call_later(timeout_s, expired)
        self._requests[inbox] = answered

    async def request(
        self, subject: str, data: bytes = b"", *, headers: dict[str, str] | None = None, timeout_s: float = 5.0
    ) -> Msg:
        """The answer. ``NotSent`` · ``Unknown`` · ``NoResponders``."""
        answer: asyncio.Future[Msg | None] = self.loop.create_future()

        def finish(message: Msg | None) -> None:
            if not answer.done():
                answer.set_result(message)

        self.request_with(subject, data, finish, headers=headers, timeout_s=timeout_s)
        message = await answer
        if message is None:
            raise Unknown("connection lost" if self.is_closed else "timed out")
        if message.status == 503:
            raise NoResponders(subject)
        return message

    async def api(self, call: str, body: dict[str, Any] | None = None, *, timeout_s: float = 5.0) -> dict[str, Any]:
        """A ``$JS.API`` request; its answer, or ``ApiFailure``."""
        data = b"" if body is None else json.dumps(body).encode()
        return (await self.request(f"$JS.API.{call}", data, timeout_s=timeout_s)).json()

    async def fetch(self, stream: str, consumer: str, batch: int, expires_s: float = 1.0) -> list[Msg]:
        """A pull: what was delivered until the batch is full, the server ends it, or it takes too long."""
        self._request += 1
        inbox = f"_INBOX.{self.name}.f{self._request}"
        got: list[Msg] = []
        done: asyncio.Future[None] = self.loop.create_future()

        def arrived(message: Msg | None) -> None:
            if message is not None and not message.status:
                got.append(message)
            ended = message is None or (message.status and message.status != 100) or len(got) >= batch
            if ended and not done.done():
                done.set_result(None)

        sid = self.subscribe(inbox, arrived)
        body = {"batch": batch, "expires": int(expires_s * 1e9)}
        self.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", json.dumps(body).encode(), reply=inbox)
        try:
            async with asyncio.timeout(expires_s + 10.0):
                await done
        except TimeoutError:
            pass  # what came counts
        if not self.is_closed:
            self.unsubscribe(sid)
        return got


C = TypeVar("C", bound=Client)


@overload
async def connect(name: str, port: int, *, host: str = ..., timeout_s: float = ...) -> Client: ...


@overload
async def connect(name: str, port: int, *, host: str = ..., timeout_s: float = ..., make: type[C]) -> C: ...


async def connect(
    name: str, port: int, *, host: str = "127.0.0.1", timeout_s: float = 5.0, make: type[Client] = Client
) -> Client:
    """A connected client. ``NotSent`` if there is no server, ``Unknown`` if it does not answer."""
    loop = asyncio.get_running_loop()
    try:
        _, client = await loop.create_connection(lambda: make(name), host, port)
    except OSError as error:
        raise NotSent(str(error)) from None
    try:
        async with asyncio.timeout(timeout_s):
            await client._ready
        options = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "lang": "sim",
            "version": "1",
            "protocol": 1,
            "name": name,
        }
        client.send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
        client.send(f"SUB _INBOX.{name}.* 1\r\n".encode())
        await client.ping(timeout_s)
    except TimeoutError:
        client.abort()
        raise Unknown("no INFO") from None
    except Unknown:
        client.abort()
        raise
    return client
