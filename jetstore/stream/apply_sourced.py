"""Messages copied from another stream: a mirror keeps sequence and time, a source gives its own.

How far a stream has got in each origin is part of its state and moves with the messages, so nothing is copied twice or
left out whatever happens in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.hot.frame import frame_columns
from jetstore.model.source_checks import MIRROR_KEY
from jetstore.store.ports import Frame
from jetstore.stream import headers
from jetstore.stream.apply_publish import Careful, on_time
from jetstore.stream.entries import SourcedHead
from jetstore.stream.outcomes import Duplicate, PublishOutcome, SourcedOutcome
from jetstore.stream.ttl import SECOND_NS

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

ANY_ORIGIN = 0
"""In place of an origin's group: the position comes from an archive, and counts in whatever has the name."""


def apply_sourced(stream: Stream, head: SourcedHead, frames: Sequence[Frame]) -> SourcedOutcome:
    """Store the messages as far as there is room; how many were taken."""
    known = stream.origins.get(head.key)
    if head.key not in stream.settings.origin_keys or stream.settings.sealed:
        return SourcedOutcome(0)
    if known is not None and known[0] in (head.origin_uid, ANY_ORIGIN) and head.seqs[0] <= known[1]:
        return SourcedOutcome(0)  # an earlier leader's entry brought these
    taken = _mirror(stream, head, frames) if head.key == MIRROR_KEY else _source(stream, frames)
    if taken:
        stream.origins[head.key] = (head.origin_uid, head.seqs[taken - 1])
    return SourcedOutcome(taken)


def _mirror(stream: Stream, head: SourcedHead, frames: Sequence[Frame]) -> int:
    contents = stream.contents
    if head.seqs[0] <= contents.last_seq:
        return 0
    at = 0
    for given in frames:
        contents.skip_to(head.seqs[at] - 1)
        frame = on_time(stream, given)
        columns = frame_columns(frame)
        if columns.header_lens and stream.settings.allows_msg_ttl:
            for position, (cut, payload) in enumerate(zip(columns.header_lens, columns.payloads, strict=True)):
                _schedule_expiry(stream, head.seqs[at] + position, frame.base_time_ns + position, payload[:cut])
        stream.store(frame, columns)
        at += frame.count
    stream.last_msg_id = b""
    return at


def _schedule_expiry(stream: Stream, seq: int, time_ns: int, header: bytes) -> None:
    ttl_s = _ttl_s(header)
    if ttl_s == headers.NEVER:
        stream.ttls.add_never(seq)
    elif ttl_s:
        stream.ttls.add(seq, time_ns + ttl_s * SECOND_NS)


def _ttl_s(header: bytes) -> int:
    try:
        return headers.ttl_s(headers.value(header, headers.TTL))
    except ValueError:
        return 0


def _source(stream: Stream, frames: Sequence[Frame]) -> int:
    """As a publish, but nothing is refused for good: what finds no room is tried again later."""
    taken = 0
    settings = stream.settings
    for given in frames:
        frame = on_time(stream, given)
        columns = frame_columns(frame)
        storing = Careful(stream, frame, columns, PublishOutcome(0, 0))
        lens = columns.header_lens or (0,) * frame.count
        is_full = False
        for position, (subject, cut, payload) in enumerate(zip(columns.subjects, lens, columns.payloads, strict=True)):
            header = payload[:cut]
            msg_id = headers.value(header, headers.MSG_ID) if cut else b""
            known = storing.check_id(msg_id)
            is_full = isinstance(known, ApiError) or (
                settings.discard_new and known is None and storing.check_room(subject, cut, payload, b"") is not None
            )
            if is_full:
                break
            if not isinstance(known, Duplicate):
                ttl_s = _ttl_s(header) if cut and settings.allows_msg_ttl else 0
                storing.accept(position, subject, header, payload, msg_id, ttl_s, b"")
            taken += 1
        storing.finish()
        if is_full:
            break
    return taken
