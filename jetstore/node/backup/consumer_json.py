"""A consumer in an archive: its configuration and its state, as nats-server 2.15 writes and reads them, in JSON.

The state counts one message at a time: pending ones with the sequence and time of their delivery, from which the reader
derives when they are due again; how often a message was delivered *again*, also for those that have no attempts left.
A field of our own beside them, which nats-server passes over, keeps the place of a consumer that still walks the last
messages per subject.
Source: ``docs/format/archive.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jetstore.consumer.state import ConsumerState
from jetstore.errors import ArchiveError
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.json import DecodeError, decode_fields, encode

_SEQ_MAX = 2**63 - 1
OWN_FIELD = "jetstore"
STEP = 1_000
"""Messages of a consumer's state that are looked at between two turns of the event loop."""
SKIP_MAX = 50_000
"""Last messages per subject that are still to come, in an archive; a consumer with more goes on like any other."""


class TakenConsumer(NamedTuple):
    """A consumer as it was at one moment, in plain values that do not change any more."""

    head: Mapping[str, Any]
    """``ConsumerState.to_head``."""
    waits_ns: tuple[int, ...]
    """How long the first, second, … delivery may stay unacknowledged; later ones as the last."""
    delivered: tuple[int, int]
    ack_floor: tuple[int, int]
    messages: int
    """Pending ones, and those without attempts left."""


def take(state: ConsumerState) -> TakenConsumer:
    """The consumer as of now, with deliveries that are ahead of the log."""
    counters = state.counters()
    return TakenConsumer(
        state.to_head(),
        state.config.backoff or (state.config.ack_wait,),
        counters.delivered[:2],
        counters.ack_floor[:2],
        state.pending.messages + state.exhausted.messages,
    )


def encode_consumer(taken: TakenConsumer) -> Iterator[bytes]:
    """The content of its entry, the last thing given; before it, b"" now and then: for event loops."""
    head, last_wait = taken.head, len(taken.waits_ns) - 1
    positions = [("delivered", taken.delivered), ("ack_floor", taken.ack_floor)]
    state = {name: {"consumer_seq": at[0], "stream_seq": at[1]} for name, at in positions}
    parts = [b'{"config":', encode(head["config"]), b',"state":', encode(state)[:-1]]
    pending: list[bytes] = []
    again: list[bytes] = []
    looked_at = 0
    for first, last, consumer_seq, _, due_ns, count in head["pending"]:
        delivered_ns = due_ns - taken.waits_ns[min(max(count - 1, 0), last_wait)]
        for start in range(first, last + 1, STEP):
            seqs = range(start, min(start + STEP, last + 1))
            ahead = consumer_seq - first
            pending += [b'"%d":{"Sequence":%d,"Timestamp":%d}' % (seq, seq + ahead, delivered_ns) for seq in seqs]
            if count != 1:
                again += [b'"%d":%d' % (seq, max(count - 1, 0)) for seq in seqs]
            looked_at += len(seqs)
            if looked_at >= STEP:
                looked_at = 0
                yield b""
    for first, last, _, _, _, count in head["exhausted"]:
        again += [b'"%d":%d' % (seq, count) for seq in range(first, last + 1)]
    for name, rows in ((b"pending", pending), (b"redelivered", again)):
        if rows:
            parts += (b',"%b":{' % name, b",".join(rows), b"}")
    parts.append(b"}")
    _, _, skip_until, steps = head["cursor"]
    if 0 < len(steps) <= SKIP_MAX:
        parts += (b',"%b":' % OWN_FIELD.encode(), encode({"skip_until": skip_until, "skip": steps}))
    yield b"".join([*parts, b"}"])


class ReadConsumer(NamedTuple):
    """A consumer out of an archive, checked in itself."""

    name: str
    config: ConsumerConfig
    delivered: tuple[int, int]
    ack_floor: tuple[int, int]
    pending: list[list[int]]
    """Rows first, last, consumer sequence, time, attempts: when they are due follows from the configuration."""
    exhausted: list[list[int]]
    skip_until: int
    skip: list[int]


def decode_consumer(name: str, content: bytes) -> Iterator[ReadConsumer | None]:
    """What an entry holds, the last thing given; before it, None now and then. Raises ``ArchiveError``."""
    try:
        fields = json.loads(content)
        if not isinstance(fields, dict):
            raise ValueError("entry is not an object")
        if fields.get("config") is None:
            raise ArchiveError(f'consumer "{name}" is missing config')
        if fields.get("state") is None:
            raise ArchiveError(f'consumer "{name}" is missing state')
        config = ConsumerConfig(
            **decode_fields(ConsumerConfig, encode(fields["config"]), "ConsumerConfig", strict=False)
        )
        state = _object(fields["state"], "state")
        delivered = _pair(state.get("delivered"), "delivered")
        ack_floor = _pair(state.get("ack_floor"), "ack_floor")
        again: dict[int, int] = {}
        for number, (seq, count) in enumerate(_object(state.get("redelivered"), "redelivered").items(), 1):
            again[_number(seq)] = _number(count)
            if number % STEP == 0:
                yield None
        pending: list[list[int]] = []
        for number, (text, value) in enumerate(_object(state.get("pending"), "pending").items(), 1):
            pending.append(_pending(_number(text), _object(value, "pending"), again, delivered))
            if number % STEP == 0:
                yield None
        own = _object(fields.get(OWN_FIELD), OWN_FIELD)
        skip = [_number(step) for step in own.get("skip", ())]
        skip_until = _number(own.get("skip_until", 0))
    except (DecodeError, TypeError, ValueError, RecursionError) as error:
        raise ArchiveError(f'failed to decode consumer "{name}" state: {error}') from None
    if ack_floor[0] > delivered[0] or ack_floor[1] > delivered[1]:
        raise ArchiveError(f'failed to set consumer "{name}" state: bad ack floor')
    if sum(skip) > skip_until or 0 in skip or len(skip) > SKIP_MAX:
        raise ArchiveError(f'failed to set consumer "{name}" state: bad place among the last messages per subject')
    pending.sort()
    yield None
    waiting = {row[0] for row in pending}
    exhausted = [
        [seq, seq, ack_floor[0] + 1, max(count, 1)]
        for seq, count in sorted(again.items())
        if seq not in waiting and ack_floor[1] < seq <= delivered[1]
    ]
    joined: list[list[int]] = []
    for start in range(0, len(pending), STEP):
        yield None
        _join(joined, pending[start : start + STEP])
    yield ReadConsumer(name, config, delivered, ack_floor, joined, exhausted, skip_until, skip)


def rows_of(read: ReadConsumer, config: ConsumerConfig) -> tuple[list[list[int]], list[list[int]]]:
    """Its pending and its exhausted runs as ``Runs.to_head`` gives them; ``config`` is the one it will have."""
    waits_ns = config.backoff or (config.ack_wait,)
    last = len(waits_ns) - 1
    pending = [
        [first, end, consumer_seq, time_ns, time_ns + waits_ns[min(max(count - 1, 0), last)], count]
        for first, end, consumer_seq, time_ns, count in read.pending
    ]
    return pending, [[first, end, consumer_seq, 0, 0, count] for first, end, consumer_seq, count in read.exhausted]


def _object(value: Any, what: str) -> dict[str, Any]:  # Any: JSON values
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def _pair(value: Any, what: str) -> tuple[int, int]:  # Any: JSON values
    fields = _object(value, what)
    return _number(fields.get("consumer_seq", 0)), _number(fields.get("stream_seq", 0))


def _number(value: Any) -> int:  # Any: JSON values
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        if value[0] == "0" and len(value) > 1:
            raise ValueError(f"{value!r} is not how a sequence is written")
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _SEQ_MAX:
        raise ValueError(f"{value!r} is not a sequence or a count")
    return value


def _pending(seq: int, fields: dict[str, Any], again: Mapping[int, int], delivered: tuple[int, int]) -> list[int]:
    """The row of a message. Any: JSON values."""
    consumer_seq, time_ns = _number(fields.get("Sequence", 0)), fields.get("Timestamp", 0)
    if not isinstance(time_ns, int) or not -_SEQ_MAX <= time_ns <= _SEQ_MAX:
        raise ValueError("time of a delivery")
    if not 0 < seq <= delivered[1] or not 0 < consumer_seq <= delivered[0]:
        raise ValueError(f"message {seq} is pending and was not delivered")
    return [seq, seq, consumer_seq, time_ns, again[seq] + 1 if again.get(seq) else 1 - (seq in again)]


def _join(joined: list[list[int]], rows: list[list[int]]) -> None:
    """Add sorted rows; neighbours that wait for the same become one row."""
    before = joined[-1] if joined else None
    for row in rows:
        if (
            before is not None
            and row[0] == before[1] + 1
            and row[2] == before[2] + before[1] - before[0] + 1
            and row[3:] == before[3:]
        ):
            before[1] = row[1]
        else:
            before = row
            joined.append(row)
