"""The bytes that go with deliveries: ack reply subjects in bulk, status lines, heartbeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from jetstore.store.ports import Message


def ack_replies(
    prefix: bytes, attempt: int, messages: Sequence[Message], consumer_seq: int, pending: Iterable[int]
) -> list[bytes]:
    """Ack reply subjects of messages numbered from ``consumer_seq`` on.

    ``prefix`` is ``$JS.ACK.<stream>.<consumer>.``; ``pending`` says how many messages are left after each.
    """
    form = prefix.replace(b"%", b"%%") + b"%d.%%d.%%d.%%d.%%d" % attempt
    seqs = [message[0] for message in messages]
    times = [message[1] for message in messages]
    return [form % numbers for numbers in zip(seqs, count(consumer_seq), times, pending, strict=False)]


def columns(messages: Sequence[Message], headers_only: bool) -> tuple[list[bytes], list[int], list[bytes]]:
    """Subjects, header lengths (empty if none has headers) and payloads of stored messages, ready to be sent."""
    subjects = [message[2] for message in messages]
    if headers_only:
        headers = [_with_size(message[3], len(message[4])) for message in messages]
        return subjects, list(map(len, headers)), headers
    headers = [message[3] for message in messages]
    if not any(headers):
        return subjects, [], [message[4] for message in messages]
    return subjects, list(map(len, headers)), [message[3] + message[4] for message in messages]


def _with_size(header: bytes, size_bytes: int) -> bytes:
    head = header[:-2] if header else b"NATS/1.0\r\n"
    return b"%bNats-Msg-Size: %d\r\n\r\n" % (head, size_bytes)


def with_header(
    name: bytes, value: bytes, header_lens: Sequence[int], payloads: Sequence[bytes]
) -> tuple[list[int], list[bytes]]:
    """Header lengths and payloads with one more header line in every message."""
    line = b"%b: %b\r\n\r\n" % (name, value)
    lens: list[int] = []
    made: list[bytes] = []
    for cut, payload in zip(header_lens or (0,) * len(payloads), payloads, strict=True):
        head = (payload[: cut - 2] if cut else b"NATS/1.0\r\n") + line
        lens.append(len(head))
        made.append(head + payload[cut:])
    return lens, made


def status(line: bytes, *headers: tuple[bytes, bytes | int]) -> bytes:
    """A header block with only a status, such as ``404 No Messages``, and these headers."""
    block = b"NATS/1.0 " + line + b"\r\n"
    for name, value in headers:
        block += b"%b: %b\r\n" % (name, value if isinstance(value, bytes) else b"%d" % value)
    return block + b"\r\n"


def pending_status(line: bytes, messages: int, size_bytes: int) -> bytes:
    """A status that says what is left of a pull request."""
    return status(line, (b"Nats-Pending-Messages", messages), (b"Nats-Pending-Bytes", size_bytes))


def idle_heartbeat(consumer_seq: int, stream_seq: int, stalled: bytes = b"") -> bytes:
    """The heartbeat of a consumer that last delivered these; ``stalled`` = the unanswered flow control subject."""
    headers: list[tuple[bytes, bytes | int]] = [
        (b"Nats-Last-Consumer", consumer_seq),
        (b"Nats-Last-Stream", stream_seq),
    ]
    if stalled:
        headers.append((b"Nats-Consumer-Stalled", stalled))
    return status(b"100 Idle Heartbeat", *headers)


FLOW_CONTROL = status(b"100 FlowControl Request")
