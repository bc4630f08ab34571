"""Kernel micro-benchmark of ``jetstore.hot.wire``: ns per message at 128 B, best of many rounds. Not a test.

Run: ``python tests/bench/bench_wire.py [messages per buffer]``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from jetstore.hot import wire

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 1500
ROUNDS = 100
BODY = b"x" * 128
BINARY = bytes(range(128))
HEADER = b"NATS/1.0\r\nNats-Msg-Id: %07d\r\n\r\n"
INBOX = b"_INBOX.abcdefghijklmnopqrstuv.%07x"


def measure(name: str, work: Callable[[], object]) -> None:
    best = min(_timed(work) for _ in range(ROUNDS))
    print(f"{name:<46}{best / COUNT * 1e9:8.0f} ns/msg")


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def parse(buffer: bytes) -> wire.Parsed:
    return wire.parse_publishes(buffer, 0, 4096, 1 << 20)


def main() -> None:
    numbers = range(COUNT)
    buffers = {
        "PUB one subject, no reply": [b"PUB orders.new 128\r\n%b\r\n" % BODY for _ in numbers],
        "PUB unique replies": [b"PUB orders.new %b 128\r\n%b\r\n" % (INBOX % i, BODY) for i in numbers],
        "PUB unique replies, binary body": [b"PUB orders.new %b 128\r\n%b\r\n" % (INBOX % i, BINARY) for i in numbers],
        "PUB text of varying length": [
            b"PUB orders.new %b %d\r\n%b\r\n" % (INBOX % i, 100 + i * 7 % 60, BODY.ljust(200)[: 100 + i * 7 % 60])
            for i in numbers
        ],
        "PUB binary of varying length": [
            b"PUB orders.new %b %d\r\n%b\r\n" % (INBOX % i, 100 + i * 7 % 28, BINARY[: 100 + i * 7 % 28])
            for i in numbers
        ],
        "PUB acks ($JS.ACK, 0 bytes)": [
            b"PUB $JS.ACK.S.C.1.%d.%d.1700000000000000000.%d 0\r\n\r\n" % (i + 5, i + 1, COUNT - i) for i in numbers
        ],
        "HPUB unique ids": [
            b"HPUB orders.new %b %d %d\r\n%b%b\r\n" % (INBOX % i, 34, 162, HEADER % i, BODY) for i in numbers
        ],
        "HPUB varying length": [
            b"HPUB orders.new %b 34 %d\r\n%b%b\r\n" % (INBOX % i, 34 + i % 128, HEADER % i, BODY[: i % 128])
            for i in numbers
        ],
    }
    for name, lines in buffers.items():
        buffer = b"".join(lines)
        assert parse(buffer).pos == len(buffer)
        measure("parse " + name, lambda buffer=buffer: parse(buffer))  # type: ignore[misc]
    subjects = [b"orders.%d" % (i % 100) for i in numbers]
    same = [b"orders.new"] * COUNT
    replies = [INBOX % i for i in numbers]
    bodies = [BODY[: 100 + i % 28] for i in numbers]
    headed = [HEADER % i + BODY for i in numbers]
    seqs = list(range(1_234_567, 1_234_567 + COUNT))
    measure("format MSG one shape", lambda: wire.format_messages(b"1", same, (), (), [BODY] * COUNT))
    measure("format MSG varying length", lambda: wire.format_messages(b"1", same, (), (), bodies))
    measure("format MSG varying subject", lambda: wire.format_messages(b"1", subjects, (), (), bodies))
    measure("format MSG varying subject and reply", lambda: wire.format_messages(b"1", subjects, replies, (), bodies))
    measure("format HMSG", lambda: wire.format_messages(b"1", subjects, replies, [34] * COUNT, headed))
    measure("format PubAck", lambda: wire.format_pub_acks(b"ORDERS", replies, b"1", seqs))


if __name__ == "__main__":
    main()
