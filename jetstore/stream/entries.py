"""The bytes of everything that goes into a stream group's log: one kind byte, then what the kind says.

Publishes are binary, because they are many::

    PUBLISH = kind:u8 flags:u8 time_ns:i64 frame-run        (little-endian; frame-run as in docs/format/segment.md)
    BATCH   = the same, stored as a whole or not at all
    SOURCED = kind:u8 flags:u8 time_ns:i64 length:u32 json frame-run
    RESTORED = the same
    FAST    = the same

The rest is rare and JSON. Entries of consumers carry what ``jetstore.consumer.entries`` wrote. An unknown kind or flag
stops the group (``FormatUnknown``): it is never guessed. Source: ``docs/format/entries.md``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.columns import Frame
from jetstore.hot.frame import decode_frame_run, encode_frame_run
from jetstore.model.requests import PurgeRequest
from jetstore.model.stream import StreamConfig

_PUBLISH_HEAD = Struct("<BBq")
EXPIRE_MESSAGES_MAX = 10_000
"""Messages one EXPIRE entry removes; the leader proposes the next one while more is due."""


class EntryKind(IntEnum):
    """First byte of an entry. Empty data is a leader's no-op, too."""

    NOOP = 0
    PUBLISH = 1
    CONFIG = 2
    PURGE = 3
    DELETE_MSG = 4
    EXPIRE = 5
    BATCH = 6
    SOURCED = 7
    RESTORED = 8
    FAST = 9
    CONSUMER_SET = 16
    CONSUMER_DELETE = 17
    DELIVERED = 18
    ACKS = 19
    RETURNED = 20
    CURSOR = 21
    CONSUMER_RESET = 22
    CONSUMER_PAUSE = 23
    EXHAUSTED = 24
    DELIVERED_NEW = 25


_KINDS = {int(kind): kind for kind in EntryKind}
NOOP = bytes((EntryKind.NOOP,))


class ConfigEntry(NamedTuple):
    """A full configuration. Versions count up; one that is not higher than the one in effect changes nothing."""

    version: int
    created_ns: int
    config: StreamConfig


class ExpireEntry(NamedTuple):
    """The leader's clock: remove what is due at ``time_ns``, at most ``max_messages``."""

    time_ns: int
    max_messages: int


class SourcedHead(NamedTuple):
    """Where copied messages come from: which source of the stream, the origin's group, their sequences there."""

    key: str
    origin_uid: int
    seqs: list[int]


class RestoredHead(NamedTuple):
    """What an archive had: the first sequence of every frame, then what comes behind the messages."""

    seqs: list[int]
    last_seq: int = 0
    """The sequences up to here are given to nothing behind the frames; 0 = none."""
    consumers: Sequence[dict[str, Any]] = ()
    """Heads of ``ConsumerState`` without a cursor, or rows for those that are there (``apply_restored``)."""
    is_last: bool = False
    """There is nothing more."""
    last_time_ns: int = 0
    """When the last message was stored that ever was, if none of the archive is newer."""


class FastHead(NamedTuple):
    """Which messages of a publish entry belong to fast batches. All others are plain publishes."""

    runs: list[tuple[int, int, int]]
    """Position of the first one, how many, and the key of their batch: 0 = it goes on when one of them is refused, else
    a number that no other batch has in the leader's term; after a refusal nothing more of that batch is stored."""
    ended: list[int]
    """Keys of batches that a refusal has ended, of which nothing more will come."""


def entry_kind(data: bytes) -> EntryKind:
    """The kind of an entry. Raises ``FormatUnknown``."""
    if not data:
        return EntryKind.NOOP
    kind = _KINDS.get(data[0])
    if kind is None:
        raise FormatUnknown("unknown kind of entry", file="entry", offset=0, actual=data[0])
    return kind


def encode_publish(time_ns: int, frames: Sequence[Frame], *, is_atomic: bool = False) -> bytes:
    """A batch of messages at the leader's time, which is the time of the first one. ``is_atomic``: all or nothing."""
    kind = EntryKind.BATCH if is_atomic else EntryKind.PUBLISH
    return _PUBLISH_HEAD.pack(kind, 0, time_ns) + encode_frame_run(frames)


def decode_publish(data: bytes) -> tuple[int, list[Frame]]:
    """Time and frames, every body verified. Raises ``Corruption`` or ``FormatUnknown``."""
    if len(data) < _PUBLISH_HEAD.size:
        raise Corruption("publish entry shorter than its head", file="entry", offset=0, actual=len(data))
    time_ns = publish_time_ns(data)
    return time_ns, decode_frame_run(memoryview(data)[_PUBLISH_HEAD.size :])


def publish_time_ns(data: bytes) -> int:
    """The leader's time of a publish entry. Raises ``FormatUnknown`` for unknown flags."""
    _, flags, time_ns = _PUBLISH_HEAD.unpack_from(data)
    if flags:
        raise FormatUnknown("unknown flags of a publish entry", file="entry", offset=1, expected=0, actual=flags)
    return int(time_ns)


def encode_sourced(time_ns: int, head: SourcedHead, frames: Sequence[Frame]) -> bytes:
    """Messages copied from another stream, at the leader's time."""
    return _encode_headed(EntryKind.SOURCED, time_ns, head._asdict(), frames)


def decode_sourced(data: bytes) -> tuple[int, SourcedHead, list[Frame]]:
    """Time, head and frames, every body verified. Raises ``Corruption`` or ``FormatUnknown``."""
    time_ns, fields, frames = _decode_headed(data, set(SourcedHead._fields))
    return time_ns, SourcedHead(**fields), frames


def encode_restored(time_ns: int, head: RestoredHead, frames: Sequence[Frame]) -> bytes:
    """A part of an archive, at the leader's time."""
    return _encode_headed(EntryKind.RESTORED, time_ns, head._asdict(), frames)


def decode_restored(data: bytes) -> tuple[int, RestoredHead, list[Frame]]:
    """Time, head and frames, every body verified. Raises ``Corruption`` or ``FormatUnknown``."""
    time_ns, fields, frames = _decode_headed(data, set(RestoredHead._fields))
    return time_ns, RestoredHead(**fields), frames


def encode_fast(time_ns: int, head: FastHead, frames: Sequence[Frame]) -> bytes:
    """Publishes, some of them parts of fast batches, at the leader's time."""
    return _encode_headed(EntryKind.FAST, time_ns, head._asdict(), frames)


def decode_fast_head(data: bytes) -> tuple[int, FastHead]:
    """Time and head alone. Raises ``Corruption`` or ``FormatUnknown``."""
    time_ns, fields, _ = _decode_head(data, set(FastHead._fields))
    return time_ns, FastHead(**fields)


def decode_fast(data: bytes) -> tuple[int, FastHead, list[Frame]]:
    """Time, head and frames, every body verified. Raises ``Corruption`` or ``FormatUnknown``."""
    time_ns, fields, frames = _decode_headed(data, set(FastHead._fields))
    return time_ns, FastHead(**fields), frames


def _encode_headed(kind: EntryKind, time_ns: int, head: dict[str, Any], frames: Sequence[Frame]) -> bytes:
    line = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    start = _PUBLISH_HEAD.pack(kind, 0, time_ns) + len(line).to_bytes(4, "little")
    return start + line + encode_frame_run(frames)


def _decode_headed(data: bytes, names: set[str]) -> tuple[int, dict[str, Any], list[Frame]]:
    time_ns, fields, end = _decode_head(data, names)
    return time_ns, fields, decode_frame_run(memoryview(data)[end:])


def _decode_head(data: bytes, names: set[str]) -> tuple[int, dict[str, Any], int]:
    """Time, fields, and where the frames begin."""
    at = _PUBLISH_HEAD.size + 4
    if len(data) < at:
        raise Corruption("entry with a head shorter than it", file="entry", offset=0, actual=len(data))
    time_ns = publish_time_ns(data)
    end = at + int.from_bytes(data[at - 4 : at], "little")
    return time_ns, _decode(b" " + data[at:end], names), end


def encode_config(version: int, created_ns: int, config: StreamConfig) -> bytes:
    """A configuration for the stream's own log."""
    return _encode(
        EntryKind.CONFIG, {"version": version, "created_ns": created_ns, "config": config.to_json()}
    )  # fmt: skip


def decode_config(data: bytes) -> ConfigEntry:
    """What ``encode_config`` wrote."""
    fields = _decode(data, {"version", "created_ns", "config"})
    return ConfigEntry(fields["version"], fields["created_ns"], StreamConfig.from_json(fields["config"]))


def encode_purge(request: PurgeRequest) -> bytes:
    """A purge by filter and sequence or number to keep."""
    return _encode(EntryKind.PURGE, {"filter": request.filter, "seq": request.seq, "keep": request.keep})


def decode_purge(data: bytes) -> PurgeRequest:
    """What ``encode_purge`` wrote."""
    return PurgeRequest(**_decode(data, {"filter", "seq", "keep"}))


def encode_delete(seq: int) -> bytes:
    """The removal of one message."""
    return _encode(EntryKind.DELETE_MSG, {"seq": seq})


def decode_delete(data: bytes) -> int:
    """What ``encode_delete`` wrote."""
    return int(_decode(data, {"seq"})["seq"])


def encode_expire(time_ns: int, max_messages: int = EXPIRE_MESSAGES_MAX) -> bytes:
    """Removal of what is due at the leader's time."""
    return _encode(EntryKind.EXPIRE, {"time_ns": time_ns, "max_messages": max_messages})


def decode_expire(data: bytes) -> ExpireEntry:
    """What ``encode_expire`` wrote."""
    return ExpireEntry(**_decode(data, {"time_ns", "max_messages"}))


def _encode(kind: EntryKind, fields: dict[str, Any]) -> bytes:  # Any: JSON values
    return bytes((kind,)) + json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _decode(data: bytes, names: set[str]) -> dict[str, Any]:  # Any: JSON values
    try:
        fields = json.loads(data[1:])
    except ValueError:
        raise Corruption("entry is not JSON", file="entry", offset=1) from None
    if not isinstance(fields, dict) or fields.keys() != names:
        raise FormatUnknown("unknown fields of an entry", file="entry", offset=1, expected=sorted(names))
    return fields
