"""What replicas of a stream have in common: its logical head, and the live records behind it.

Two replicas that have applied the same entries give the same bytes here, whatever their segments, compaction, index or
checkpoints look like. The head is small: fields that are part of every checkpoint, and name, length and crc32c of the
*parts* that grow with data: removed sequences, message ids, expiry times. Head and parts together are the whole state
but for the records, so they are also what a replica is installed from.

Source: ``docs/format/stream-head.md``, "The logical head".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.crc import crc32c
from jetstore.store.ports import Message, MessageLog
from jetstore.store.seqset import SeqSet

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

LOGICAL_VERSION = 0
DELETED_PART = "deleted"
TTL_PART = "ttl"
READ_BYTES = 256 * 1024
"""Records hashed together."""
READ_MESSAGES = 4_096
_RECORD = Struct("<QqIII")
"""sequence, time, lengths of subject, header block and data."""

Part = Callable[[], bytes]
"""Makes the bytes of a part; they are as of the moment the part was taken."""


def logical_fields(stream: Stream) -> dict[str, Any]:  # Any: JSON values
    """The part of a checkpoint's head that equal logs make equal."""
    contents = stream.contents
    rare = {"ended_batches": stream.ended_batches.to_row()} if stream.ended_batches.keys else {}
    return rare | {
        "version": LOGICAL_VERSION,
        "uid": stream.uid,
        "index": stream.applied_index,
        "term": stream.applied_term,
        "running": f"{stream.running.value:016x}",
        "raft": stream.raft_configuration.hex(),
        "logged_ns": stream.logged_ns,
        "config_version": stream.config_version,
        "created_ns": stream.created_ns,
        "config": stream.config.to_json() if stream.config else None,
        "messages": contents.messages,
        "bytes": contents.bytes,
        "largest_bytes": contents.largest_bytes,
        "first_seq": contents.first_seq,
        "last_seq": contents.last_seq,
        "last_time_ns": contents.last_time_ns,
        "last_msg_id": stream.last_msg_id.hex(),
        "consumers": [stream.consumers[name].to_head() for name in sorted(stream.consumers)],
        "ids": stream.dedupe.to_head(),
        "next_ids": stream.dedupe.next_number,
        "schedules": stream.schedules.to_rows(),
        "origins": [[key, *stream.origins[key]] for key in sorted(stream.origins)],
    }


def take_logical(stream: Stream) -> tuple[bytes, dict[str, Part]]:
    """The logical head as of now, and the parts it names. Large parts are made when they are called."""
    assert not stream.is_torn, "an entry was applied in part"
    deleted = encode_removed(removed_of(stream.log))
    parts: dict[str, Part] = {DELETED_PART: partial(bytes, deleted)}
    rows: list[tuple[str, int, int]] = [(DELETED_PART, len(deleted), int(crc32c(deleted)))]
    if len(stream.ttls) or stream.ttls.never:
        ttl = stream.ttls.to_bytes()
        parts[TTL_PART] = partial(bytes, ttl)
        rows.append((TTL_PART, len(ttl), int(crc32c(ttl))))
    parts |= stream.dedupe.frozen_chunks()
    rows += stream.dedupe.sums()
    return encode_head(logical_fields(stream) | {"parts": rows}), parts


def logical_head(stream: Stream) -> bytes:
    """Everything that equal logs make equal, canonical; what grows with data by length and checksum."""
    return take_logical(stream)[0]


def logical_hash(stream: Stream, ranges: Sequence[tuple[int, int]] = ()) -> int:
    """64 bits over the logical head and the live records in these closed ranges, in this order.

    Raises ``Corruption`` where a record cannot be read.
    """
    digest = blake2b(logical_head(stream), digest_size=8)
    for first, last in ranges:
        digest.update(records_digest(stream.log, first, last))
    return int.from_bytes(digest.digest(), "little")


def records_digest(log: MessageLog, first: int, last: int) -> bytes:
    """32 bytes over the live records of a closed range. Raises ``Corruption`` where one cannot be read."""
    digest = blake2b(digest_size=32)
    at = first
    while at <= last:
        seqs = log.next_seqs(at, None, READ_MESSAGES)
        messages = log.read_many([seq for seq in seqs if seq <= last], READ_BYTES)
        if not messages:
            break
        digest.update(_joined(messages))
        at = messages[-1].seq + 1
    return digest.digest()


def _joined(messages: Iterable[Message]) -> bytes:
    parts: list[bytes] = []
    for seq, time_ns, subject, header, data in messages:
        parts += (_RECORD.pack(seq, time_ns, len(subject), len(header), len(data)), subject, header, data)
    return b"".join(parts)


# -- the head's bytes -------------------------------------------------------------------------------------------------


def encode_head(fields: Mapping[str, Any]) -> bytes:  # Any: JSON values
    """Canonical JSON: equal fields give equal bytes."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def decode_head(head: bytes) -> dict[str, Any]:  # Any: JSON values
    """The fields of a logical head. Raises ``Corruption`` or ``FormatUnknown``."""
    try:
        fields = json.loads(head)
    except ValueError:
        raise Corruption("logical head is not JSON", file="logical head", offset=0) from None
    if not isinstance(fields, dict) or fields.get("version") != LOGICAL_VERSION:
        raise FormatUnknown("version of a logical head", file="logical head", offset=0, expected=LOGICAL_VERSION)
    return fields


def check_parts(fields: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
    """Raises ``Corruption`` unless these are all parts that the head names, as it names them."""
    for name, length, crc in fields["parts"]:
        part = parts.get(name)
        if part is None or len(part) != length or crc32c(part) != crc:
            raise Corruption("part of a logical head", file=name, offset=0, expected=length, actual=len(part or b""))


# -- removed sequences ------------------------------------------------------------------------------------------------


def removed_of(log: MessageLog) -> SeqSet:
    """Removed and skipped sequences from ``first_seq`` to ``last_seq``."""
    dead = getattr(log, "dead", None)
    if isinstance(dead, SeqSet):
        return dead
    made = SeqSet()
    for seq in log.deleted_seqs(log.deleted_count()):
        made.add(seq)
    return made


def encode_removed(removed: SeqSet) -> bytes:
    """Runs of full chunks and images of mixed groups; equal sets give equal bytes."""
    groups = removed.groups()
    images = [removed.encode_group(group) for group in groups]
    rows = [[group, len(image)] for group, image in zip(groups, images, strict=True)]
    line = json.dumps({"full": removed.full_runs(), "groups": rows}, separators=(",", ":")).encode()
    return b"".join([b"%d\n" % len(line), line, *images])


def decode_removed(part: bytes) -> SeqSet:
    """The set that ``encode_removed`` described. Raises ``Corruption`` or ``FormatUnknown``."""
    length, _, rest = part.partition(b"\n")
    try:
        at = int(length)
        fields = json.loads(rest[:at])
        images = []
        for group, size in fields["groups"]:
            images.append((f"{DELETED_PART} {group}", rest[at : at + size]))
            at += size
        full = [(first, last) for first, last in fields["full"]]
    except (ValueError, KeyError, TypeError):
        raise Corruption("removed sequences are unreadable", file=DELETED_PART, offset=0) from None
    if at != len(rest):
        raise Corruption("removed sequences do not add up", file=DELETED_PART, offset=at, actual=len(rest))
    return SeqSet.decode(images, full)
