"""Reads of a stream's applied state: info, MSG.GET and DIRECT.GET. Nothing here changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.consumer.cursor import count_from
from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.model.infos import StreamInfo, StreamState
from jetstore.model.requests import MessageGet, StreamInfoRequest
from jetstore.model.stream import StreamConfig
from jetstore.store.ports import Message
from jetstore.stream.subjects import Filter, filter_of

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

MULTI_LAST_SUBJECTS_MAX = 1_024
SUBJECTS_PAGE = 100_000
BATCH_BYTES_MAX = 64 << 20
"""What one batch read returns when the request does not say less."""


def state(stream: Stream) -> StreamState:
    """The counters of an info."""
    contents = stream.contents
    if not contents.last_seq:
        return StreamState(consumer_count=_consumer_count(stream))
    return StreamState(
        messages=contents.messages,
        bytes=contents.bytes,
        first_seq=contents.first_seq,
        first_ts_ns=contents.first_time_ns,
        last_seq=contents.last_seq,
        last_ts_ns=contents.last_time_ns,
        num_subjects=len(contents.index),
        num_deleted=contents.deleted,
        consumer_count=_consumer_count(stream),
    )


def _consumer_count(stream: Stream) -> int:
    return sum(not consumer.config.direct for consumer in stream.consumers.values())


def info(stream: Stream, request: StreamInfoRequest) -> StreamInfo:
    """What STREAM.INFO shows, with the details that were asked for."""
    counters = state(stream)
    deleted: list[int] = []
    if request.deleted_details:
        deleted = stream.log.deleted_seqs(counters.num_deleted)
    subjects: dict[str, int] | None = None
    total = 0
    if request.subjects_filter:
        rows = stream.contents.matching(filter_of([request.subjects_filter.encode()]))
        total = len(rows)
        start = min(max(request.offset, 0), total)
        page = rows[start : start + SUBJECTS_PAGE]
        subjects = {subject.decode("utf-8", "replace"): row.messages for subject, row in page}
    if deleted or subjects is not None:
        counters = StreamState(
            messages=counters.messages,
            bytes=counters.bytes,
            first_seq=counters.first_seq,
            first_ts_ns=counters.first_ts_ns,
            last_seq=counters.last_seq,
            last_ts_ns=counters.last_ts_ns,
            num_subjects=counters.num_subjects,
            num_deleted=counters.num_deleted,
            consumer_count=counters.consumer_count,
            deleted=deleted,
            subjects=subjects,
        )
    return StreamInfo(stream.config or StreamConfig(), stream.created_ns, counters, subjects_total=total)


def get_message(stream: Stream, request: MessageGet) -> Message:
    """The one selected message. Raises ``ApiError`` 10037 if there is none."""
    contents = stream.contents
    seq = 0
    if request.last_by_subj:
        pattern = Filter((request.last_by_subj.encode(),))
        if pattern.has_wildcards:
            seq = contents.previous_seq(contents.last_seq + 1, filter_of(pattern.patterns))
        else:
            seq = contents.last_seq_of(pattern.patterns[0])
    elif request.next_by_subj or request.start_time_ns:
        seqs = contents.next_seqs(_start(stream, request), _next_filter(request), 1)
        seq = seqs[0] if seqs else 0
    else:
        seq = request.seq
    message = contents.read(seq) if seq else None
    if message is None:
        raise api_error("JSNoMessageFoundErr")
    return _shown(message, request)


def _start(stream: Stream, request: MessageGet) -> int:
    if request.start_time_ns:
        return stream.contents.seq_at_time(request.start_time_ns)
    return max(request.seq, 1)


def _next_filter(request: MessageGet) -> Filter | None:
    return filter_of([request.next_by_subj.encode()] if request.next_by_subj else [])


def _shown(message: Message, request: MessageGet) -> Message:
    return message._replace(header=b"") if request.no_hdr else message


def get_batch(stream: Stream, request: MessageGet, max_bytes: int = 0) -> tuple[list[Message], int, int]:
    """Messages of a ``batch`` or ``multi_last`` request, in order; then how many match, and ``up_to_seq``.

    The second number counts the matching messages from the first returned one on; the third is the sequence up to which
    a ``multi_last`` answer is valid (0 for a ``batch``). Bounded by the request's ``batch`` and ``max_bytes`` (the
    message that reaches it is the last), at most ``max_bytes`` (0 = a fixed bound). Raises ``ApiError`` 10037 if
    nothing matches, 413 if ``multi_last`` matches too many subjects.
    """
    budget = min(request.max_bytes or BATCH_BYTES_MAX, max_bytes or BATCH_BYTES_MAX)
    if request.multi_last:
        return _multi_last(stream, request, budget)
    contents = stream.contents
    subject_filter = _next_filter(request)
    start = _start(stream, request)
    seqs = contents.next_seqs(start, subject_filter, request.batch)
    if not seqs:
        raise api_error("JSNoMessageFoundErr")
    messages = contents.log.read_many(seqs, budget)
    return [_shown(message, request) for message in messages], count_from(contents, subject_filter, seqs[0]), 0


def _multi_last(stream: Stream, request: MessageGet, budget: int) -> tuple[list[Message], int, int]:
    """The last message of each subject at a point of time, from ``seq`` on."""
    contents = stream.contents
    up_to = contents.last_seq
    if request.up_to_seq:
        up_to = request.up_to_seq
    elif request.up_to_time_ns:
        up_to = contents.seq_at_time(request.up_to_time_ns) - 1
    patterns = [pattern.encode() for pattern in request.multi_last]
    rows = contents.matching(filter_of(patterns))
    seqs = []
    for subject, row in rows:
        seq = row.last
        if seq > up_to:
            seq = contents.previous_seq(up_to + 1, Filter((subject,))) if row.first <= up_to else 0
        if seq:
            seqs.append(seq)
    if len(seqs) > MULTI_LAST_SUBJECTS_MAX:
        raise ApiError(413, 0, "Too Many Results")
    seqs = sorted(seq for seq in seqs if seq >= request.seq)
    if not seqs:
        raise api_error("JSNoMessageFoundErr")
    wanted = seqs[: request.batch] if request.batch else seqs
    return contents.log.read_many(wanted, budget), len(seqs), up_to
