"""A part of an archive: messages that keep sequence and time, and consumers that stand where they stood.

What else a stream knows follows from its messages: ids within the duplicate window, times to live, schedules, how far
it is in its sources. Limits are enforced as by any other storing; messages that nobody wants go when all is there.
Consumers come behind all messages, so that what is pending for them can be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jetstore.consumer.cursor import Cursor
from jetstore.consumer.pending import Runs
from jetstore.consumer.state import ConsumerState, filters_of
from jetstore.errors import ApiError
from jetstore.hot.frame import frame_columns
from jetstore.model.api_errors import api_error
from jetstore.model.source_checks import shown_origin, source_key
from jetstore.store.ports import Columns, Frame
from jetstore.stream import headers, retention
from jetstore.stream.apply_sourced import ANY_ORIGIN
from jetstore.stream.entries import RestoredHead
from jetstore.stream.outcomes import RestoredOutcome
from jetstore.stream.schedules import SCHEDULES_MAX, following_time_ns
from jetstore.stream.subjects import filter_of
from jetstore.stream.ttl import SECOND_NS

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

_SPECIAL = b"\r\nNats-"


def apply_restored(stream: Stream, head: RestoredHead, frames: Sequence[Frame]) -> RestoredOutcome | ApiError:
    """Take the part. An ``ApiError``: it does not fit; whoever restores gives the stream up."""
    contents = stream.contents
    if not stream.config_version:
        return api_error("JSClusterNotAvailErr")
    for seq, frame in zip(head.seqs, frames, strict=True):
        if seq <= contents.last_seq:
            return _refusal(f"message sequence {seq} out of order")
        contents.skip_to(seq - 1)
        columns = frame_columns(frame)
        refusal = _take_headers(stream, seq, frame.base_time_ns, columns) if columns.header_lens else None
        if refusal is not None:
            return refusal
        stream.store(frame, columns)
        stream.last_msg_id = _last_id(columns)
    contents.skip_to(head.last_seq)
    for consumer in head.consumers:
        _take_consumer(stream, consumer)
    if head.is_last and stream.consumers:  # without any, all is kept for those to come, as nats-server does
        retention.remove_unneeded(stream)
    if contents.last_time_ns < head.last_time_ns <= stream.logged_ns:
        contents.last_time_ns = head.last_time_ns
    return RestoredOutcome(contents.last_seq)


def _refusal(text: str) -> ApiError:
    return api_error("JSStreamRestoreErrF", err=text)


def _last_id(columns: Columns) -> bytes:
    size = columns.header_lens[-1] if columns.header_lens else 0
    return headers.value(columns.payloads[-1][:size], headers.MSG_ID) if size else b""


def _take_headers(stream: Stream, first_seq: int, base_time_ns: int, columns: Columns) -> ApiError | None:
    """What headers say that outlives the storing."""
    settings, dedupe = stream.settings, stream.dedupe
    ids: list[bytes] = []
    id_seqs: list[int] = []
    for position, (size, payload) in enumerate(zip(columns.header_lens, columns.payloads, strict=True)):
        header = payload[:size]
        if _SPECIAL not in header:
            continue
        seq, time_ns = first_seq + position, base_time_ns + position
        fields = headers.fields(header)
        msg_id = fields.get(headers.MSG_ID)
        if msg_id and stream.logged_ns - time_ns < dedupe.window_ns:
            ids.append(msg_id)
            id_seqs.append(seq)
        if settings.allows_msg_ttl and headers.TTL in fields:
            _schedule_expiry(stream, seq, time_ns, fields[headers.TTL])
        if settings.allows_schedules and headers.SCHEDULE in fields:
            next_ns = following_time_ns(fields[headers.SCHEDULE].decode("utf-8", "replace"), time_ns)
            if next_ns and len(stream.schedules) >= SCHEDULES_MAX:
                return _refusal(f"more than {SCHEDULES_MAX} message schedules")
            if next_ns:
                stream.schedules.set(seq, next_ns)
        if settings.origin_keys and headers.STREAM_SOURCE in fields:
            _note_source(stream, fields[headers.STREAM_SOURCE])
    if len(dedupe) + len(ids) > stream.limits.dedupe_ids_max:
        return _refusal(f"more than {stream.limits.dedupe_ids_max} message ids within the duplicate window")
    dedupe.add(ids, id_seqs, base_time_ns)
    return None


def _schedule_expiry(stream: Stream, seq: int, time_ns: int, text: bytes) -> None:
    try:
        ttl_s = headers.ttl_s(text)
    except ValueError:
        return
    if ttl_s == headers.NEVER:
        stream.ttls.add_never(seq)
    elif ttl_s:
        stream.ttls.add(seq, time_ns + ttl_s * SECOND_NS)


def _note_source(stream: Stream, text: bytes) -> None:
    """Sourced messages say where they came from: name (and more behind a colon), sequence, filter, destination."""
    parts = text.split(b" ")
    if len(parts) < 2 or not parts[1].isdigit() or len(parts[1]) > 19:
        return
    origin = parts[0].decode("utf-8", "replace")
    name = origin.partition(":")[0]
    pattern = parts[2].decode("utf-8", "replace") if len(parts) > 2 else ">"
    assert stream.config is not None
    named = [source for source in stream.config.sources if source.name == name]
    named = [source for source in named if shown_origin(source) == origin] or named
    exact = [source for source in named if (source.filter_subject or ">") == pattern and not source.subject_transforms]
    for source in exact or named:
        key = source_key(source)
        stream.origins[key] = (ANY_ORIGIN, max(int(parts[1]), stream.origins.get(key, (0, 0))[1]))


def _take_consumer(stream: Stream, head: dict[str, Any]) -> None:  # Any: JSON values
    """A consumer with its first rows, or more rows of one that is there."""
    known = stream.consumers.get(head["name"])
    if known is None:
        known = ConsumerState.from_head(head | {"cursor": [1, 0, 0, []]}, None, stream.contents)
        known.subject_filter = filter_of(filters_of(known.config))
        skip_until, steps = head["skip"]
        known.cursor = Cursor.from_head([known.delivered.stream_seq + 1, 0, skip_until, steps])
        known.cursor.recount(stream.contents, known.subject_filter)
        rows = known.pending.to_head(), known.exhausted.to_head()
        known.pending, known.exhausted = Runs(), Runs()
        stream.consumers[known.name] = known
    else:
        rows = head["pending"], head["exhausted"]
    for runs, found in zip((known.pending, known.exhausted), rows, strict=True):
        for run in Runs.from_head(found):
            for seq in range(run.first, run.last + 1):
                if stream.contents.is_live(seq):
                    runs.put(run.piece(seq, seq))
