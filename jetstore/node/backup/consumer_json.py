"""A consumer in an archive: its configuration and its state, as nats-server 2.15 writes and reads them, in JSON.

The state counts one message at a time: pending ones with the sequence and time of their delivery, from which the reader
derives when they are due again; how often a message was delivered *again*, also for those that have no attempts left.
A field of our own beside them, which nats-server passes over, keeps the place of a consumer that still walks the last
messages per subject.
Source: ``docs/format/archive.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jetstore.consumer.pending import Run, Runs
from jetstore.consumer.state import ConsumerState
from jetstore.errors import ArchiveError
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.json import DecodeError, JsonObject, decode_fields, encode, parse

_SEQ_MAX = 2**63 - 1
OWN_FIELD = "jetstore"
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


def encode_consumer(taken: TakenConsumer) -> bytes:
    """The content of its entry."""
    head = taken.head
    state: dict[str, Any] = {  # Any: JSON values
        "delivered": {"consumer_seq": taken.delivered[0], "stream_seq": taken.delivered[1]},
        "ack_floor": {"consumer_seq": taken.ack_floor[0], "stream_seq": taken.ack_floor[1]},
    }
    pending: dict[str, dict[str, int]] = {}
    again: dict[str, int] = {}
    for first, last, consumer_seq, _, due_ns, count in head["pending"]:
        delivered_ns = due_ns - taken.waits_ns[min(max(count, 1), len(taken.waits_ns)) - 1]
        for seq in range(first, last + 1):
            pending[str(seq)] = {"Sequence": consumer_seq + seq - first, "Timestamp": delivered_ns}
            if count != 1:
                again[str(seq)] = max(count - 1, 0)
    for first, last, _, _, _, count in head["exhausted"]:
        again.update((str(seq), count) for seq in range(first, last + 1))
    if pending:
        state["pending"] = pending
    if again:
        state["redelivered"] = again
    made = {"config": head["config"], "state": state}
    _, _, skip_until, steps = head["cursor"]
    if 0 < len(steps) <= SKIP_MAX:
        made[OWN_FIELD] = {"skip_until": skip_until, "skip": steps}
    return encode(made)


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


def decode_consumer(name: str, content: bytes) -> ReadConsumer:
    """What an entry holds. Raises ``ArchiveError``."""
    try:
        fields = _object(parse(content), "entry")
        if fields.get("config") is None:
            raise ArchiveError(f'consumer "{name}" is missing config')
        if fields.get("state") is None:
            raise ArchiveError(f'consumer "{name}" is missing state')
        config = ConsumerConfig(**_config_fields(fields["config"]))
        state = _object(fields["state"], "state")
        delivered = _pair(state.get("delivered"), "delivered")
        ack_floor = _pair(state.get("ack_floor"), "ack_floor")
        again = {
            _number(seq): _number(count) for seq, count in _object(state.get("redelivered"), "redelivered").items()
        }
        pending = _pending(_object(state.get("pending"), "pending"), again, delivered)
        own = _object(fields.get(OWN_FIELD), OWN_FIELD)
        skip = [_number(step) for step in own.get("skip", ())]
        skip_until = _number(own.get("skip_until", 0))
    except (DecodeError, TypeError, ValueError) as error:
        raise ArchiveError(f'failed to decode consumer "{name}" state: {error}') from None
    if ack_floor[0] > delivered[0] or ack_floor[1] > delivered[1]:
        raise ArchiveError(f'failed to set consumer "{name}" state: bad ack floor')
    if sum(skip) > skip_until or 0 in skip or len(skip) > SKIP_MAX:
        raise ArchiveError(f'failed to set consumer "{name}" state: bad place among the last messages per subject')
    waiting = {seq for seq, *_ in pending}
    exhausted = [
        [seq, seq, ack_floor[0] + 1, max(count, 1)]
        for seq, count in sorted(again.items())
        if seq not in waiting and ack_floor[1] < seq <= delivered[1]
    ]
    return ReadConsumer(name, config, delivered, ack_floor, _joined(pending), exhausted, skip_until, skip)


def rows_of(read: ReadConsumer, config: ConsumerConfig) -> tuple[list[list[int]], list[list[int]]]:
    """Its pending and its exhausted runs as ``Runs.to_head`` gives them; ``config`` is the one it will have."""
    waits_ns = config.backoff or (config.ack_wait,)
    pending, exhausted = Runs(), Runs()
    for first, last, consumer_seq, time_ns, count in read.pending:
        due_ns = time_ns + waits_ns[min(max(count, 1), len(waits_ns)) - 1]
        pending.put(Run(first, last, consumer_seq, time_ns, due_ns, count))
    for first, last, consumer_seq, count in read.exhausted:
        exhausted.put(Run(first, last, consumer_seq, 0, 0, count))
    return pending.to_head(), exhausted.to_head()


def _config_fields(value: Any) -> dict[str, Any]:  # Any: JSON values
    return decode_fields(ConsumerConfig, encode(_plain(value)), "ConsumerConfig", strict=False)


def _plain(value: Any) -> Any:  # Any: JSON values
    """What ``parse`` made, as ``encode`` takes it."""
    if isinstance(value, JsonObject):
        return {key: _plain(each) for key, each in value}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


def _object(value: Any, what: str) -> dict[str, Any]:  # Any: JSON values
    if value is None:
        return {}
    if not isinstance(value, JsonObject):
        raise ValueError(f"{what} is not an object")
    return dict(value)


def _pair(value: Any, what: str) -> tuple[int, int]:  # Any: JSON values
    fields = _object(value, what)
    return _number(fields.get("consumer_seq", 0)), _number(fields.get("stream_seq", 0))


def _number(value: Any) -> int:  # Any: JSON values
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _SEQ_MAX:
        raise ValueError(f"{value!r} is not a sequence or a count")
    return value


def _pending(rows: dict[str, Any], again: Mapping[int, int], delivered: tuple[int, int]) -> list[list[int]]:
    """One row a message, sorted. Any: JSON values."""
    found = []
    for text, value in rows.items():
        seq, fields = _number(text), _object(value, "pending")
        consumer_seq, time_ns = _number(fields.get("Sequence", 0)), fields.get("Timestamp", 0)
        if not isinstance(time_ns, int) or not -_SEQ_MAX <= time_ns <= _SEQ_MAX:
            raise ValueError("time of a delivery")
        if not 0 < seq <= delivered[1] or not 0 < consumer_seq <= delivered[0]:
            raise ValueError(f"message {seq} is pending and was not delivered")
        found.append([seq, seq, consumer_seq, time_ns, again[seq] + 1 if again.get(seq) else 1 - (seq in again)])
    found.sort()
    return found


def _joined(rows: list[list[int]]) -> list[list[int]]:
    """Neighbours that wait for the same, as one row."""
    joined: list[list[int]] = []
    for row in rows:
        before = joined[-1] if joined else None
        if (
            before is not None
            and row[0] == before[1] + 1
            and row[2] == before[2] + before[1] - before[0] + 1
            and row[3:] == before[3:]
        ):
            before[1] = row[1]
        else:
            joined.append(list(row))
    return joined
