"""Micro-benchmark of the front end's data path in one process, without sockets: ns per message at 128 B. Not a test.

Bytes go into a connection as one socket read brings them and come out in an in-memory transport.
``yardstick`` is a fixed loop of plain Python: divide by it when comparing runs on a machine that is shared.

Run: ``python tests/bench/bench_route.py [messages per read]``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from random import Random

from jetstore.clock import RealClock
from jetstore.node.ports import Inbound
from server.auth.authenticator import Authenticator
from server.net.client_server import ClientServer
from server.net.options import NetOptions
from server.protocol.info import ServerInfo
from server.route.router import Router

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
ROUNDS = 200
BODY = b"x" * 128
CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'


class Memory(asyncio.Transport):
    """Takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += len(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Counting:
    """An internal subscriber that only counts."""

    def __init__(self) -> None:
        self.messages = 0
        self.last: Inbound | None = None

    def on_messages(self, batch: Inbound) -> None:
        self.messages += len(batch.payloads)
        self.last = batch


def measure(name: str, work: Callable[[], object]) -> None:
    best = min(_timed(work) for _ in range(ROUNDS))
    print(f"{name:<46}{best / COUNT * 1e9:8.0f} ns/msg")


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def yardstick() -> None:
    total = 0
    for i in range(COUNT):
        total += i * 3 % 7


async def main() -> None:
    loop = asyncio.get_running_loop()
    router = Router("$G", Random(1), loop.call_soon)
    info = ServerInfo("N" + "A" * 55, "bench", "2.15.1", "0", "python", "127.0.0.1", 4222, 1 << 20)
    server = ClientServer(NetOptions(), info, Authenticator(), router, RealClock(), Random(2), loop)
    counting = Counting()
    router.subscribe(b"orders.>", counting)
    router.subscribe(b"$JS.API.>", counting)
    router.subscribe(b"$JS.ACK.>", counting)
    publisher = server.accept(Memory())
    publisher.data_received(CONNECT + b"SUB _INBOX.abcdefghijklmnopqrstuv.* 1\r\n")
    for i in range(50):
        other = server.accept(Memory())
        other.data_received(CONNECT + b"SUB _INBOX.other%02d.* 1\r\n" % i)
    inbox = b"_INBOX.abcdefghijklmnopqrstuv.%07x"
    numbers = range(COUNT)
    measure("yardstick", yardstick)
    read = b"".join(b"PUB orders.new %b 128\r\n%b\r\n" % (inbox % i, BODY) for i in numbers)
    measure("PUB with unique inbox → handler", lambda: publisher.data_received(read))
    read2 = b"".join(b"PUB orders.new %b %d\r\n%b\r\n" % (inbox % i, i % 128, BODY[: i % 128]) for i in numbers)
    measure("PUB, varying length → handler", lambda: publisher.data_received(read2))
    read3 = b"".join(b"PUB orders.%05d %b 128\r\n%b\r\n" % (i * 7 % 10007, inbox % i, BODY) for i in numbers)
    measure("PUB, 10,007 subjects → handler", lambda: publisher.data_received(read3))
    acks = b"".join(b"PUB $JS.ACK.S.C.1.%d.%d.17%017d.%d 0\r\n\r\n" % (i, i, i, COUNT - i) for i in numbers)
    measure("PUB acks → handler", lambda: publisher.data_received(acks))
    assert counting.messages == 4 * ROUNDS * COUNT
    for i in range(1000):
        router.subscribe(b"stream%04d.>" % i, counting)
    read4 = b"".join(b"PUB stream%04d.x %b 128\r\n%b\r\n" % (i * 7 % 1000, inbox % i, BODY) for i in numbers)
    measure("PUB, round robin over 1,000 handlers", lambda: publisher.data_received(read4))
    replies = [inbox % i for i in numbers]
    seqs = list(range(1_000_000, 1_000_000 + COUNT))
    measure("pub_acks", lambda: (router.pub_acks(b"ORDERS", replies, seqs), router.flush_acks()))
    subjects = [b"orders.new"] * COUNT
    ack_replies = [b"$JS.ACK.S.C.1.%d.%d.1700000000000000000.0" % (i, i) for i in numbers]
    bodies = [BODY] * COUNT
    target = b"_INBOX.abcdefghijklmnopqrstuv.1"
    measure("deliver", lambda: (router.deliver(target, subjects, ack_replies, (), bodies), server.flush()))
    subscriber = server.accept(Memory())
    subscriber.data_received(CONNECT + b"SUB core.> 1\r\n")
    core = b"".join(b"PUB core.a 128\r\n%b\r\n" % BODY for _ in numbers)
    measure("core PUB → 1 subscription", lambda: publisher.data_received(core))
    core2 = b"".join(b"PUB core.%03d %d\r\n%b\r\n" % (i % 1000, i % 128, BODY[: i % 128]) for i in numbers)
    measure("core PUB, many subjects and lengths → 1", lambda: publisher.data_received(core2))
    for i in range(4):
        server.accept(Memory()).data_received(CONNECT + b"SUB queued q %d\r\n" % i)
    queued = b"".join(b"PUB queued 128\r\n%b\r\n" % BODY for _ in numbers)
    measure("core PUB → queue of 4", lambda: publisher.data_received(queued))
    nobody = b"".join(b"PUB nobody %b 128\r\n%b\r\n" % (inbox % i, BODY) for i in numbers)
    measure("core PUB → 503", lambda: publisher.data_received(nobody))


if __name__ == "__main__":
    asyncio.run(main())
