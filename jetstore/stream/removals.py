"""Removals somebody asked for, and those the leader's clock brings: purge, delete, expiry with delete markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.hot.frame import encode_frames, frame_columns
from jetstore.model.api_errors import api_error
from jetstore.model.requests import PurgeRequest
from jetstore.store.ports import Columns
from jetstore.stream import headers
from jetstore.stream.entries import ExpireEntry
from jetstore.stream.outcomes import DeleteOutcome, ExpireOutcome, PurgeOutcome
from jetstore.stream.retention import is_wanted, move_consumers, remove_matching
from jetstore.stream.schedules import fire
from jetstore.stream.subjects import Filter, filter_of
from jetstore.stream.ttl import SECOND_NS

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream


def apply_purge(stream: Stream, request: PurgeRequest) -> PurgeOutcome | ApiError:
    """Remove what the request names: below ``seq``, or all but the ``keep`` newest, of what matches ``filter``."""
    settings = stream.settings
    if settings.sealed:
        return api_error("JSStreamSealedErr")
    if settings.deny_purge:
        return api_error("JSStreamPurgeFailedF", err="stream purge not permitted")
    if request.seq and request.keep:
        return api_error("JSBadRequestErr")
    if request.seq == 1:
        return PurgeOutcome(0)
    subject_filter = filter_of([request.filter.encode()] if request.filter else [])
    with stream.contents.erasing():
        purged = _purge(stream, subject_filter, request)
    move_consumers(stream, subject_filter)
    return PurgeOutcome(purged)


def _purge(stream: Stream, subject_filter: Filter | None, request: PurgeRequest) -> int:
    contents = stream.contents
    if request.keep:
        matching = sum(row.messages for _, row in contents.matching(subject_filter))
        excess = matching - request.keep
        if excess <= 0:
            return 0
        if subject_filter is None:
            return contents.remove_oldest(excess)
        below = contents.last_seq + 1
        for _ in range(request.keep):
            below = contents.previous_seq(below, subject_filter)
        return remove_matching(stream, subject_filter, below - 1)
    if subject_filter is not None:
        last_seq = request.seq - 1 if request.seq else contents.last_seq
        return remove_matching(stream, subject_filter, min(last_seq, contents.last_seq))
    if not request.seq:
        return contents.remove_all()
    if request.seq > contents.last_seq:
        purged = contents.remove_all()
        contents.skip_to(request.seq - 1)
        return purged
    return contents.remove_run(contents.first_seq, request.seq - 1)


def apply_delete(stream: Stream, seq: int) -> DeleteOutcome | ApiError:
    """Remove one message."""
    settings = stream.settings
    if settings.sealed:
        return api_error("JSStreamSealedErr")
    if settings.deny_delete:
        return api_error("JSStreamMsgDeleteFailedF", err="message delete not permitted")
    with stream.contents.erasing():
        removed = stream.contents.remove(seq)
    if removed is None:
        return api_error("JSSequenceNotFoundErrF", seq=seq)
    return DeleteOutcome(seq)


def apply_expire(stream: Stream, entry: ExpireEntry) -> ExpireOutcome:
    """Remove what is due at the entry's time; store a marker where that was the last message of its subject."""
    stream.dedupe.forget(entry.time_ns)
    outcome = ExpireOutcome(0, 0, is_complete=True)
    room = entry.max_messages
    aged = _aged(stream, entry.time_ns, room)
    room -= _remove(stream, aged, entry, outcome) if aged else 0
    due = stream.ttls.take_due(entry.time_ns, max(room, 0))
    if due:
        _remove(stream, [seq for seq in due if stream.contents.is_live(seq)], entry, outcome)
    if len(stream.schedules) and not stream.settings.sealed:
        outcome.fired = fire(stream, entry.time_ns)
    next_ns = next_expiry_ns(stream)
    outcome.is_complete = next_ns is None or next_ns > entry.time_ns
    return outcome


def next_expiry_ns(stream: Stream) -> int | None:
    """The earliest time at which an EXPIRE entry would remove or store a message, or None. May be in the past."""
    times = []
    if stream.settings.max_age_ns and stream.contents.messages:
        seq = _first_ageing(stream)
        meta = stream.contents.meta(seq) if seq else None
        if meta is not None:
            times.append(meta.time_ns + stream.settings.max_age_ns)
    if stream.ttls.next_ns():
        times.append(stream.ttls.next_ns())
    if not stream.settings.sealed and stream.schedules.next_ns():
        times.append(stream.schedules.next_ns())
    return min(times, default=None)


def _first_ageing(stream: Stream) -> int:
    """The first live message that may grow too old, or 0. All below it never expire."""
    contents = stream.contents
    never = stream.ttls.never
    if not never:
        return contents.first_seq
    start = max(contents.first_seq, stream.age_cursor)
    while True:
        seqs = contents.next_seqs(start, None, 256)
        for seq in seqs:
            if seq not in never:
                stream.age_cursor = seq
                return seq
        if not seqs:
            return 0
        start = stream.age_cursor = seqs[-1] + 1


def _aged(stream: Stream, now_ns: int, max_count: int) -> list[int]:
    """Up to ``max_count`` live sequences older than the stream's age limit that are not exempt."""
    settings = stream.settings
    contents = stream.contents
    if not settings.max_age_ns or not contents.messages:
        return []
    cut = contents.seq_at_time(now_ns - settings.max_age_ns + 1)
    start = _first_ageing(stream)
    aged: list[int] = []
    never = stream.ttls.never
    while start and start < cut and len(aged) < max_count:
        seqs = contents.next_seqs(start, None, max_count - len(aged))
        if not seqs:
            break
        start = seqs[-1] + 1
        aged += [seq for seq in seqs if seq < cut and seq not in never]
    return aged


def _remove(stream: Stream, seqs: list[int], entry: ExpireEntry, outcome: ExpireOutcome) -> int:
    """Remove live messages for the clock; how many."""
    settings = stream.settings
    contents = stream.contents
    if not settings.marker_ttl_s:
        removed = contents.remove_seqs(seqs)
        outcome.removed += removed
        return removed
    marked: list[bytes] = []
    for seq in seqs:
        meta = contents.meta(seq)
        assert meta is not None
        row = contents.row(meta.subject)
        if row is not None and row.messages == 1:
            message = contents.read(seq)
            assert message is not None
            if not headers.is_marker(message.header):
                marked.append(meta.subject)
        contents.remove(seq)
    outcome.removed += len(seqs)
    if marked:
        _store_markers(stream, marked, entry.time_ns)
        outcome.markers += len(marked)
    return len(seqs)


def _store_markers(stream: Stream, subjects: list[bytes], now_ns: int) -> None:
    """One delete marker per subject, in order."""
    settings = stream.settings
    contents = stream.contents
    if settings.is_interest:
        skipped = [subject for subject in subjects if not is_wanted(stream, subject)]
        subjects = [subject for subject in subjects if is_wanted(stream, subject)]
        contents.skip_to(contents.last_seq + len(skipped))
    if not subjects:
        return
    header = headers.marker_header(settings.marker_ttl_s)
    columns = Columns(subjects, [len(header)] * len(subjects), [header] * len(subjects))
    base_time_ns = max(now_ns, contents.last_time_ns + 1)
    for frame in encode_frames(columns, base_time_ns, stream.limits.frame_bytes_max):
        first_seq = contents.last_seq + 1
        for offset in range(frame.count):
            stream.ttls.add(first_seq + offset, frame.base_time_ns + offset + settings.marker_ttl_s * SECOND_NS)
        stream.store(frame, frame_columns(frame))
    stream.last_msg_id = b""
