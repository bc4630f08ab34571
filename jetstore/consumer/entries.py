"""The bytes of consumer entries in a stream group's log.

Hot kinds are binary, little-endian (``docs/format/consumer-entries.md``)::

    entry  = kind:u8 flags:u8 time_ns:i64 generation:i64 name_len:u8 name body
    runs   = n:u32 wide:u8 [base:u64 first[n] extra[n]]    first = first sequence - base, extra = last - first,
                                                           both u32, or u64 where ``wide`` is 1
    DELIVERED body = runs uniform:u8 attempt:u32 | attempt:u32[n]
    ACKS body      = n_ops:u16 (op:u8 delay_ns:i64 runs)*
    DELIVERED_NEW body = from_seq:u64 runs
    RETURNED, EXHAUSTED body = runs
    CURSOR body    = consumer_seq:u64 stream_seq:u64

Set, delete, reset and pause are JSON. ``generation`` names one life of the consumer between changes that move its
cursor in other ways than delivering (creation, update, reset): an entry planned in another one is void.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from enum import IntEnum
from struct import Struct, error
from typing import Any, NamedTuple, TypeAlias

from jetstore.errors import Corruption, FormatUnknown


class ConsumerEntryKind(IntEnum):
    """First byte of a consumer entry; the same numbers as in ``jetstore.stream.entries.EntryKind``."""

    SET = 16
    DELETE = 17
    DELIVERED = 18
    ACKS = 19
    RETURNED = 20
    CURSOR = 21
    RESET = 22
    PAUSE = 23
    EXHAUSTED = 24
    DELIVERED_NEW = 25


class AckOp(IntEnum):
    """What a client said about delivered messages."""

    ACK = 0
    NAK = 1
    TERM = 2
    PROGRESS = 3


SeqRange: TypeAlias = tuple[int, int]
"""A closed range of stream sequences."""
AttemptRange: TypeAlias = tuple[int, int, int]
"""First, last, and the number of this delivery attempt (1 = the first)."""


class AckRuns(NamedTuple):
    """One thing said about some ranges. ``delay_ns`` is used by NAK only; 0 = at once."""

    op: AckOp
    delay_ns: int
    ranges: Sequence[SeqRange]


class Head(NamedTuple):
    """What every hot entry starts with."""

    kind: ConsumerEntryKind
    time_ns: int
    generation: int
    name: str


_HEAD = Struct("<BBqqB")
_RUNS = Struct("<IBQ")
_RUNS_EMPTY = Struct("<IB")
_UNIFORM = Struct("<BI")
_OP = Struct("<Bq")
_CURSOR = Struct("<QQ")
_U16 = Struct("<H")
_U64 = Struct("<Q")
_SWAP = sys.byteorder == "big"
_WIDE_FROM = 1 << 32


def _array_bytes(typecode: str, values: Sequence[int]) -> bytes:
    column = array(typecode, values)
    if _SWAP:
        column.byteswap()
    return column.tobytes()


def _array_from(typecode: str, data: memoryview) -> list[int]:
    column = array(typecode)
    column.frombytes(data)
    if _SWAP:
        column.byteswap()
    return column.tolist()


def _head(kind: ConsumerEntryKind, time_ns: int, generation: int, name: str) -> bytes:
    raw = name.encode()
    return _HEAD.pack(kind, 0, time_ns, generation, len(raw)) + raw


def _runs(ranges: Sequence[Sequence[int]]) -> bytes:
    if not ranges:
        return _RUNS_EMPTY.pack(0, 0)
    base = ranges[0][0]
    base = min(base, min(r[0] for r in ranges))
    firsts = [r[0] - base for r in ranges]
    extras = [r[1] - r[0] for r in ranges]
    wide = max(firsts) >= _WIDE_FROM or max(extras) >= _WIDE_FROM
    code = "Q" if wide else "I"
    return _RUNS.pack(len(ranges), wide, base) + _array_bytes(code, firsts) + _array_bytes(code, extras)


def _read_runs(data: memoryview, at: int) -> tuple[list[SeqRange], int]:
    count, wide = _RUNS_EMPTY.unpack_from(data, at)
    if not count:
        return [], at + _RUNS_EMPTY.size
    if wide > 1:
        raise FormatUnknown("unknown width of runs", file="consumer entry", offset=at, actual=wide)
    _, _, base = _RUNS.unpack_from(data, at)
    at += _RUNS.size
    size = count * (8 if wide else 4)
    if len(data) < at + 2 * size:
        raise Corruption("runs cut short", file="consumer entry", offset=at, expected=2 * size, actual=len(data) - at)
    code = "Q" if wide else "I"
    firsts = _array_from(code, data[at : at + size])
    extras = _array_from(code, data[at + size : at + 2 * size])
    return [(base + first, base + first + extra) for first, extra in zip(firsts, extras, strict=True)], at + 2 * size


def encode_delivered(name: str, generation: int, time_ns: int, runs: Sequence[AttemptRange]) -> bytes:
    """These ranges are about to be delivered, each as its n-th attempt; for what was delivered before."""
    attempts = [run[2] for run in runs]
    parts = [_head(ConsumerEntryKind.DELIVERED, time_ns, generation, name), _runs(runs)]
    if len(set(attempts)) == 1:
        parts.append(_UNIFORM.pack(1, attempts[0]))
    else:
        parts += [b"\0", _array_bytes("I", attempts)]
    return b"".join(parts)


def decode_delivered(data: memoryview, at: int) -> list[AttemptRange]:
    """The ranges of a DELIVERED body."""
    ranges, at = _read_runs(data, at)
    if data[at] == 1:
        _, attempt = _UNIFORM.unpack_from(data, at)
        return [(first, last, attempt) for first, last in ranges]
    attempts = _array_from("I", data[at + 1 : at + 1 + 4 * len(ranges)])
    return [(first, last, attempt) for (first, last), attempt in zip(ranges, attempts, strict=True)]


def encode_delivered_new(
    name: str, generation: int, time_ns: int, from_seq: int, runs: Sequence[Sequence[int]]
) -> bytes:
    """These are about to be delivered for the first time, planned from ``from_seq`` on: void while the cursor is below.

    ``runs``: first and last sequence of each.
    """
    head = _head(ConsumerEntryKind.DELIVERED_NEW, time_ns, generation, name)
    return b"".join((head, _U64.pack(from_seq), _runs(runs)))


def decode_delivered_new(data: memoryview, at: int) -> tuple[int, list[AttemptRange]]:
    """From where it was planned, and the ranges, of a DELIVERED_NEW body."""
    (from_seq,) = _U64.unpack_from(data, at)
    ranges, _ = _read_runs(data, at + _U64.size)
    return from_seq, [(first, last, 1) for first, last in ranges]


def encode_acks(name: str, generation: int, time_ns: int, ops: Sequence[AckRuns]) -> bytes:
    """What clients said, in their order. At most 65,535 operations."""
    parts = [_head(ConsumerEntryKind.ACKS, time_ns, generation, name), _U16.pack(len(ops))]
    for op, delay_ns, ranges in ops:
        parts.append(_OP.pack(op, delay_ns))
        parts.append(_runs(ranges))
    return b"".join(parts)


def decode_acks(data: memoryview, at: int) -> list[AckRuns]:
    """The operations of an ACKS body."""
    (count,) = _U16.unpack_from(data, at)
    at += _U16.size
    ops = []
    for _ in range(count):
        op, delay_ns = _OP.unpack_from(data, at)
        if op > AckOp.PROGRESS:
            raise FormatUnknown("unknown acknowledgement", file="consumer entry", offset=at, actual=op)
        ranges, at = _read_runs(data, at + _OP.size)
        ops.append(AckRuns(AckOp(op), delay_ns, ranges))
    return ops


def encode_returned(name: str, generation: int, time_ns: int, ranges: Sequence[SeqRange]) -> bytes:
    """These delivered messages were taken by no connection."""
    return _head(ConsumerEntryKind.RETURNED, time_ns, generation, name) + _runs(ranges)


def encode_exhausted(name: str, generation: int, time_ns: int, ranges: Sequence[SeqRange]) -> bytes:
    """These messages ran out of delivery attempts."""
    return _head(ConsumerEntryKind.EXHAUSTED, time_ns, generation, name) + _runs(ranges)


def decode_ranges(data: memoryview, at: int) -> list[SeqRange]:
    """The ranges of a RETURNED or EXHAUSTED body."""
    return _read_runs(data, at)[0]


def encode_cursor(name: str, generation: int, time_ns: int, consumer_seq: int, stream_seq: int) -> bytes:
    """How far a consumer without acknowledgements has got."""
    return _head(ConsumerEntryKind.CURSOR, time_ns, generation, name) + _CURSOR.pack(consumer_seq, stream_seq)


def decode_cursor(data: memoryview, at: int) -> tuple[int, int]:
    """Consumer and stream sequence of a CURSOR body."""
    consumer_seq, stream_seq = _CURSOR.unpack_from(data, at)
    return consumer_seq, stream_seq


def decode_head(data: memoryview) -> tuple[Head, int]:
    """The head of a hot entry and where its body starts. Raises ``Corruption`` or ``FormatUnknown``."""
    try:
        kind, flags, time_ns, generation, name_len = _HEAD.unpack_from(data)
    except error:
        raise Corruption(
            "consumer entry shorter than its head", file="consumer entry", offset=0, actual=len(data)
        ) from None
    if flags:
        raise FormatUnknown("unknown flags of a consumer entry", file="consumer entry", offset=1, actual=flags)
    end = _HEAD.size + name_len
    return Head(ConsumerEntryKind(kind), time_ns, generation, bytes(data[_HEAD.size : end]).decode()), end


def encode_set(name: str, time_ns: int, config: dict[str, Any]) -> bytes:  # Any: JSON of a ConsumerConfig
    """Create the consumer, or change its configuration; ``time_ns`` becomes its creation time."""
    return _json(ConsumerEntryKind.SET, {"name": name, "time_ns": time_ns, "config": config})


def encode_delete(name: str, time_ns: int, generation: int = 0) -> bytes:
    """Remove the consumer; with a ``generation`` only if it is still that one (0 = whichever)."""
    return _json(ConsumerEntryKind.DELETE, {"name": name, "time_ns": time_ns, "generation": generation})


def encode_reset(name: str, time_ns: int, seq: int) -> bytes:
    """Start again at ``seq``; 0 = just above the ack floor."""
    return _json(ConsumerEntryKind.RESET, {"name": name, "time_ns": time_ns, "seq": seq})


def encode_pause(name: str, time_ns: int, pause_until_ns: int) -> bytes:
    """Pause deliveries until then; 0 = resume."""
    return _json(ConsumerEntryKind.PAUSE, {"name": name, "time_ns": time_ns, "pause_until_ns": pause_until_ns})


def _json(kind: ConsumerEntryKind, fields: dict[str, Any]) -> bytes:  # Any: JSON values
    return bytes((kind,)) + json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


_FIELDS = {
    ConsumerEntryKind.SET: {"name", "time_ns", "config"},
    ConsumerEntryKind.DELETE: {"name", "time_ns", "generation"},
    ConsumerEntryKind.RESET: {"name", "time_ns", "seq"},
    ConsumerEntryKind.PAUSE: {"name", "time_ns", "pause_until_ns"},
}


def decode_json(data: bytes) -> tuple[ConsumerEntryKind, dict[str, Any]]:  # Any: JSON values
    """Kind and fields of a rare entry. Raises ``Corruption`` or ``FormatUnknown``."""
    kind = ConsumerEntryKind(data[0])
    try:
        fields = json.loads(data[1:])
    except ValueError:
        raise Corruption("consumer entry is not JSON", file="consumer entry", offset=1) from None
    if not isinstance(fields, dict) or fields.keys() != _FIELDS[kind]:
        raise FormatUnknown(
            "unknown fields of a consumer entry", file="consumer entry", offset=1, expected=sorted(_FIELDS[kind])
        )
    return kind, fields
