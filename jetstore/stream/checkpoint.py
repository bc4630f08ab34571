"""A stream's state as a checkpoint: a small JSON head, and immutable chunks for what grows with data.

Source: ``docs/format/stream-head.md``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jetstore.store.ports import Checkpoint
from jetstore.types import Term

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

HEAD_VERSION = 0


def _logical(stream: Stream) -> dict[str, Any]:  # Any: JSON values
    contents = stream.contents
    return {
        "version": HEAD_VERSION,
        "uid": stream.uid,
        "index": stream.applied_index,
        "term": stream.applied_term,
        "config_version": stream.config_version,
        "created_ns": stream.created_ns,
        "config": stream.config.to_json() if stream.config else None,
        "messages": contents.messages,
        "bytes": contents.bytes,
        "first_seq": contents.first_seq,
        "last_seq": contents.last_seq,
        "last_time_ns": contents.last_time_ns,
        "last_msg_id": stream.last_msg_id.hex(),
        "consumers": [stream.consumers[name].to_head() for name in sorted(stream.consumers)],
        "ids": stream.dedupe.to_head(),
        "next_ids": stream.dedupe.next_number,
    }


def logical_head(stream: Stream) -> bytes:
    """Everything that equal logs make equal: counters, removals, consumers, and the contents of chunks."""
    fields = _logical(stream)
    fields["deleted"] = stream.log.deleted_seqs(stream.log.deleted_count())
    fields["ttl"] = stream.ttls.to_rows()
    fields["id_chunks"] = {name: chunk.hex() for name, chunk in sorted(stream.dedupe.chunks().items())}
    return _encode(fields)


def capture(stream: Stream, term: Term) -> Checkpoint:
    """The state as of now; see ``Stream.checkpoint``."""
    raise AssertionError("written with the segmented log")


def _encode(fields: dict[str, Any]) -> bytes:  # Any: JSON values
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
