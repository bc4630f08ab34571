"""Atomic batches: every message is judged before the first is stored, against the stream as it was before the batch.

Source: ADR-50; order of checks of a clustered nats-server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from jetstore.errors import ApiError
from jetstore.hot.frame import frame_columns
from jetstore.model.api_errors import api_error
from jetstore.store.ports import Frame
from jetstore.stream import counters, headers
from jetstore.stream.apply_publish import (
    HEADER_BYTES_MAX,
    Careful,
    check_rollup,
    check_values,
    on_time,
)
from jetstore.stream.outcomes import BatchOutcome, PublishOutcome
from jetstore.stream.subjects import filter_of, is_literal, matches

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream


class _Accepted(NamedTuple):
    """What storing a message needs besides the message."""

    header: bytes
    payload: bytes
    msg_id: bytes
    ttl_s: int
    rollup: bytes


def apply_batch(stream: Stream, frames: Sequence[Frame]) -> BatchOutcome | ApiError:
    """Store all messages of the entry, or none; then why not."""
    judge = _Judge(stream, frames[0].base_time_ns)
    accepted: list[_Accepted] = []
    for frame in frames:
        subjects, header_lens, payloads = frame_columns(frame)
        lens = header_lens or (0,) * len(subjects)
        for subject, header_len, payload in zip(subjects, lens, payloads, strict=True):
            judged = judge.take(subject, header_len, payload)
            if isinstance(judged, ApiError):
                return judged
            accepted.append(judged)
    outcome = PublishOutcome(stream.contents.last_seq + 1, 0)
    at = 0
    for given in frames:
        frame = on_time(stream, given)
        columns = frame_columns(frame)
        storing = Careful(stream, frame, columns, outcome)
        for position, subject in enumerate(columns.subjects):
            header, payload, msg_id, ttl_s, rollup = accepted[at]
            storing.accept(position, subject, header, payload, msg_id, ttl_s, rollup)
            at += 1
        storing.finish()
    return BatchOutcome(stream.contents.last_seq, len(accepted))


class _Judge:
    """Judges a batch's messages one after the other; changes nothing."""

    def __init__(self, stream: Stream, now_ns: int) -> None:
        self._stream = stream
        self._now_ns = now_ns
        self._count = 0
        self._bytes = 0
        self._subjects: Counter[bytes] = Counter()
        self._ids: set[bytes] = set()
        self._values: dict[bytes, int] = {}
        self.value: int | None = None
        """What the last message's counter says."""

    def take(self, subject: bytes, header_len: int, payload: bytes) -> _Accepted | ApiError:
        """The next message: what storing it needs, or why the batch is refused."""
        stream = self._stream
        settings = stream.settings
        if not stream.config_version:
            return api_error("JSClusterNotAvailErr")
        if not settings.allows_atomic:
            return api_error("JSAtomicPublishDisabledErr")
        if settings.sealed:
            return api_error("JSStreamSealedErr")
        if 0 <= settings.max_msg_size_bytes < len(payload):
            return api_error("JSStreamMessageExceedsMaximumErr")
        if settings.record_bytes(subject, header_len, payload) > stream.limits.record_bytes_max:
            return api_error("JSStreamStoreFailedF", err="message too large")
        if header_len > HEADER_BYTES_MAX:
            return api_error("JSStreamHeaderExceedsMaximumErr")
        header = payload[:header_len]
        fields: Mapping[bytes, bytes] = headers.fields(header) if header else {}
        refusal, ttl_s = check_values(settings, fields, has_body=len(payload) > header_len)
        msg_id = fields.get(headers.MSG_ID, b"")
        rollup = fields.get(headers.ROLLUP, b"").lower()
        refusal = (
            refusal
            or self._check_ids(fields, msg_id)
            or (self._count_up(subject, fields) if settings.is_counter else None)
            or self._check_expectations(fields, subject)
            or _check_schedule(fields)
            or check_rollup(settings, rollup)
            or self._check_place(subject, rollup)
            or (self._check_room(subject, header_len, payload, rollup) if settings.discard_new else None)
        )
        if refusal is not None:
            return refusal
        if self.value is not None:
            payload = header + counters.body(self.value)
        self._count += 1
        self._bytes += settings.record_bytes(subject, header_len, payload)
        self._subjects[subject] += 1
        return _Accepted(header, payload, msg_id, ttl_s, rollup)

    def _count_up(self, subject: bytes, fields: Mapping[bytes, bytes]) -> ApiError | None:
        value = counters.next_value(self._stream.contents, self._values, subject, fields)
        if isinstance(value, ApiError):
            return value
        self.value = value
        return None

    def _check_ids(self, fields: Mapping[bytes, bytes], msg_id: bytes) -> ApiError | None:
        if fields.get(headers.EXPECTED_LAST_MSG_ID):
            return api_error("JSAtomicPublishUnsupportedHeaderBatchErr", header=headers.EXPECTED_LAST_MSG_ID.decode())
        stream = self._stream
        if not msg_id or not stream.dedupe.window_ns:
            return None
        stream.dedupe.forget(self._now_ns)
        if msg_id in self._ids or stream.dedupe.find(msg_id, self._now_ns):
            return api_error("JSAtomicPublishContainsDuplicateMessageErr")
        if len(stream.dedupe) + len(self._ids) >= stream.limits.dedupe_ids_max:
            return api_error("JSInsufficientResourcesErr")
        self._ids.add(msg_id)
        return None

    def _check_expectations(self, fields: Mapping[bytes, bytes], subject: bytes) -> ApiError | None:
        if fields.get(headers.STREAM_SOURCE):
            return api_error("JSMessageSourceHdrNotAllowedErr")
        contents = self._stream.contents
        text = fields.get(headers.EXPECTED_LAST_SEQ)
        if text:
            last_seq = contents.last_seq + self._count
            if headers.sequence(text) != last_seq:
                return api_error("JSStreamWrongLastSequenceErrF", seq=last_seq)
            if self._count:
                return api_error("JSStreamWrongLastSequenceConstantErr")
        text = fields.get(headers.EXPECTED_LAST_SUBJECT_SEQ)
        pattern = fields.get(headers.EXPECTED_LAST_SUBJECT_SEQ_SUBJECT)
        if text:
            pattern = pattern or subject
            if is_literal(pattern):
                is_touched, last_seq = pattern in self._subjects, contents.last_seq_of(pattern)
            else:
                is_touched = any(matches(pattern, other) for other in self._subjects)
                last_seq = contents.previous_seq(contents.last_seq + 1, filter_of((pattern,)))
            if is_touched:
                return api_error("JSStreamWrongLastSequenceConstantErr")
            if headers.sequence(text) != last_seq:
                return api_error("JSStreamWrongLastSequenceErrF", seq=last_seq)
        elif pattern:
            return api_error("JSStreamExpectedLastSeqPerSubjectInvalid")
        return None

    def _check_place(self, subject: bytes, rollup: bytes) -> ApiError | None:
        """A rollup must not remove messages of its own batch."""
        if rollup == b"sub" and subject in self._subjects:
            return api_error("JSStreamRollupFailedF", err="batch rollup sub invalid")
        if rollup == b"all" and self._count:
            return api_error("JSStreamRollupFailedF", err="batch rollup all invalid")
        return None

    def _check_room(self, subject: bytes, header_len: int, payload: bytes, rollup: bytes) -> ApiError | None:
        settings = self._stream.settings
        contents = self._stream.contents
        limit = settings.max_msgs_per_subject
        replaces = False
        if limit:
            row = contents.row(subject)
            replaces = (row.messages if row else 0) + self._subjects[subject] + 1 > limit
        if replaces and settings.discard_new_per_subject and not rollup:
            return api_error("JSStreamStoreFailedF", err="maximum messages per subject exceeded")
        if settings.max_msgs and contents.messages + self._count >= settings.max_msgs and not replaces:
            return api_error("JSStreamStoreFailedF", err="maximum messages exceeded")
        size = settings.record_bytes(subject, header_len, payload)
        if settings.max_bytes and contents.bytes + self._bytes + size > settings.max_bytes and not replaces:
            return api_error("JSStreamStoreFailedF", err="maximum bytes exceeded")
        return None


def _check_schedule(fields: Mapping[bytes, bytes]) -> ApiError | None:
    """Headers of schedules, where there can be none."""
    if fields.get(headers.SCHEDULE):
        return api_error("JSMessageSchedulesDisabledErr")
    if fields.get(headers.SCHEDULE_NEXT) == b"purge" and fields.get(headers.SCHEDULER):
        return api_error("JSMessageSchedulesDisabledErr")
    if fields.get(headers.SCHEDULE_NEXT) or fields.get(headers.SCHEDULER):
        return api_error("JSMessageSchedulesSchedulerInvalidErr")
    return None
