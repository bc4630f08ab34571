"""A stream's state as a checkpoint: a small JSON head, and immutable self-checking chunks for what grows with data.

Chunks: one per bucket of message ids (a closed bucket never changes, its name counts the ids), and one for the schedule
of per-message expiry, named after the index at which it was captured. Log and index add their own parts.
Source: ``docs/format/stream-head.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from jetstore.consumer.state import ConsumerState, filters_of
from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.crc import crc32c
from jetstore.limits import Limits
from jetstore.model.stream import StreamConfig
from jetstore.store.ports import Checkpoint, MessageLog, SubjectIndex
from jetstore.store.running_hash import RunningHash
from jetstore.stream.dedupe import Dedupe
from jetstore.stream.ended_batches import EndedBatches
from jetstore.stream.logical import logical_fields
from jetstore.stream.schedules import Schedules
from jetstore.stream.settings import Settings
from jetstore.stream.subjects import filter_of
from jetstore.stream.ttl import TtlSchedule
from jetstore.types import GroupUid, RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

HEAD_VERSION = 0
_CRC_BYTES = 4


class Part(NamedTuple):
    """What log or index put into a checkpoint."""

    head: Any  # Any: a JSON value; None = nothing
    chunks: dict[str, bytes]
    keep_chunks: frozenset[str]
    segments: dict[str, int]


@runtime_checkable
class Captured(Protocol):
    """A log or index that has files; the in-memory twins have not and are not asked."""

    def capture(self) -> Part:
        """Its part of a checkpoint at what is applied now."""


_NOTHING = Part(None, {}, frozenset(), {})


def capture(stream: Stream, term: Term) -> Checkpoint:
    """The state as of now, with the chunks that the last durable checkpoint does not have."""
    assert not stream.is_torn, "an entry was applied in part"
    log, index = _part_of(stream.log), _part_of(stream.index)
    fields = logical_fields(stream) | {"version": HEAD_VERSION, "install": stream.install_number}
    suffix = f".{stream.install_number}" if stream.install_number else ""
    made = {name + suffix: chunk for name, chunk in stream.dedupe.chunks().items()}
    keep = set(made)
    if stream.ttl_chunk_name and stream.ttl_chunk_changes == stream.ttls.changes:
        keep.add(stream.ttl_chunk_name)
    elif stream.ttls.changes:
        stream.ttl_chunk_name = f"ttl-{stream.applied_index:020d}{suffix}"
        stream.ttl_chunk_changes = stream.ttls.changes
    fields["ttl"] = stream.ttl_chunk_name
    if stream.ttl_chunk_name:
        keep.add(stream.ttl_chunk_name)
        if stream.ttl_chunk_name not in stream.durable_chunks:
            made[stream.ttl_chunk_name] = stream.ttls.to_bytes()
    fields["log"], fields["index_part"] = log.head, index.head
    new = {name: _sealed(name, chunk) for name, chunk in made.items() if name not in stream.durable_chunks}
    return Checkpoint(
        uid=stream.uid,
        index=stream.applied_index,
        term=term,
        head=_encode(fields),
        chunks=new | log.chunks | index.chunks,
        keep_chunks=frozenset(keep) | log.keep_chunks | index.keep_chunks,
        segments=log.segments | index.segments,
    )


def _part_of(thing: object) -> Part:
    return thing.capture() if isinstance(thing, Captured) else _NOTHING


def parts_of(head: bytes) -> tuple[Any, Any]:  # Any: JSON values
    """What log and index wrote into a head: needed to open them before ``restore``."""
    fields = _decode(head)
    return fields["log"], fields["index_part"]


def restore(
    stream_type: type[Stream],
    uid: GroupUid,
    head: bytes,
    chunks: Mapping[str, bytes],
    log: MessageLog,
    index: SubjectIndex,
    limits: Limits,
) -> Stream:
    """The stream that a checkpoint described, over the log and index restored to the same checkpoint.

    Raises ``Corruption`` or ``FormatUnknown`` if head, chunks and log do not belong together.
    """
    fields = _decode(head)
    if fields["uid"] != uid:
        raise Corruption("head of another group", file="head", offset=0, expected=uid, actual=fields["uid"])
    if log.last_seq != fields["last_seq"]:
        raise Corruption("log and head differ", file="head", offset=0, expected=fields["last_seq"], actual=log.last_seq)
    stream = stream_type(uid, log, index, limits)
    stream.install_number = fields["install"]
    suffix = f".{stream.install_number}" if stream.install_number else ""
    names = (Dedupe.chunk_name(number, length) for number, length in fields["ids"])
    ids = {name: _opened(name + suffix, chunks) for name in names}
    ttl = _opened(fields["ttl"], chunks) if fields["ttl"] else b""
    fill(stream, fields, ids, ttl)
    if fields["ttl"]:
        stream.ttl_chunk_name = fields["ttl"]
        stream.ttl_chunk_changes = stream.ttls.changes
    stream.durable_chunks = frozenset(chunks)
    return stream


def fill(stream: Stream, fields: Mapping[str, Any], ids: Mapping[str, bytes], ttl: bytes) -> None:  # Any: JSON values
    """Make a new stream the state of these fields (``logical_fields``), over its log; ``ids`` by their logical names.

    Raises ``Corruption`` or ``FormatUnknown`` if they do not belong together.
    """
    stream.applied_index = RaftIndex(fields["index"])
    stream.applied_term = Term(fields["term"])
    stream.running = RunningHash(fields["index"], int(fields["running"], 16))
    stream.raft_configuration = bytes.fromhex(fields["raft"])
    stream.logged_ns = fields["logged_ns"]
    stream.config_version = fields["config_version"]
    stream.created_ns = fields["created_ns"]
    if fields["config"] is not None:
        stream.config = StreamConfig.from_json(fields["config"])
        stream.settings = Settings.of(stream.config)
        stream.log.is_compressing = stream.settings.is_compressing
    contents = stream.contents
    contents.messages = fields["messages"]
    contents.bytes = fields["bytes"]
    contents.largest_bytes = fields["largest_bytes"]
    contents.last_time_ns = fields["last_time_ns"]
    stream.last_msg_id = bytes.fromhex(fields["last_msg_id"])
    window_ns = stream.settings.duplicate_window_ns
    stream.dedupe = Dedupe.from_head(window_ns, fields["ids"], fields["next_ids"], ids)
    if ttl:
        stream.ttls = TtlSchedule.from_bytes("ttl", ttl)
    stream.schedules = Schedules(fields.get("schedules", ()))
    stream.origins = {key: (uid, seq) for key, uid, seq in fields.get("origins", ())}
    stream.ended_batches = EndedBatches.from_row(fields.get("ended_batches"))
    for consumer_head in fields["consumers"]:
        # ``from_head`` needs the filter of a configuration that only it decodes: the filter follows.
        consumer = ConsumerState.from_head(consumer_head, None, contents)
        consumer.subject_filter = filter_of(filters_of(consumer.config))
        stream.consumers[consumer.name] = consumer


def _sealed(name: str, body: bytes) -> bytes:
    """A chunk with a checksum over its name and its body."""
    return body + int(crc32c(body, crc32c(name.encode()))).to_bytes(_CRC_BYTES, "little")


def _opened(name: str, chunks: Mapping[str, bytes]) -> bytes:
    """The body of a chunk. Raises ``Corruption``."""
    chunk = chunks.get(name)
    if chunk is None:
        raise Corruption("a chunk that the head names is missing", file=name, offset=0)
    body = chunk[:-_CRC_BYTES]
    if _sealed(name, body) != chunk:
        raise Corruption("checksum of a chunk", file=name, offset=0)
    return body


def _encode(fields: dict[str, Any]) -> bytes:  # Any: JSON values
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _decode(head: bytes) -> dict[str, Any]:  # Any: JSON values
    try:
        fields = json.loads(head)
    except ValueError:
        raise Corruption("head is not JSON", file="head", offset=0) from None
    if not isinstance(fields, dict) or fields.get("version") != HEAD_VERSION:
        raise FormatUnknown("version of a stream head", file="head", offset=0, expected=HEAD_VERSION)
    return fields
