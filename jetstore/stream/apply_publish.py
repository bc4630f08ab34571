"""Publishes: what is stored, what is refused, decided frame by frame.

The fast path takes a whole frame after a few checks over its columns; nothing is done per message. A frame that needs
more (expectations, rollups, ids seen before, a limit in reach) goes through ``Careful``, message by message, in
the order of checks of a clustered nats-server: duplicates are found before expectations are judged.

Outcomes are those of storing one message after the other. Limits are enforced when accepted messages are stored, which
is at the end of the frame, or earlier where a later message of it could see the difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from jetstore.errors import ApiError
from jetstore.hot.frame import encode_frames, frame_columns
from jetstore.model.api_errors import api_error
from jetstore.store.ports import Columns, Frame
from jetstore.stream import counters, headers
from jetstore.stream.outcomes import BatchEnded, Duplicate, PublishOutcome
from jetstore.stream.retention import is_wanted, roll_up, roll_up_subject
from jetstore.stream.schedules import check_schedule, following_time_ns
from jetstore.stream.subjects import Filter, filter_of, is_literal
from jetstore.stream.ttl import SECOND_NS

if TYPE_CHECKING:
    from jetstore.stream.settings import Settings
    from jetstore.stream.stream import Stream

HEADER_BYTES_MAX = 65_535
Fields: TypeAlias = Mapping[bytes, bytes]
_NO_FIELDS: Fields = {}
_SCHEDULE_FIELDS = frozenset((headers.SCHEDULE, headers.SCHEDULER, headers.SCHEDULE_NEXT))


def apply_publish(stream: Stream, frames: Sequence[Frame]) -> PublishOutcome:
    """Store the messages of one entry as far as they are accepted."""
    outcome = PublishOutcome(stream.contents.last_seq + 1, 0)
    for given in frames:
        frame = on_time(stream, given)
        columns = frame_columns(frame)
        if not store_whole(stream, frame, columns):
            Careful(stream, frame, columns, outcome).run()
        outcome.count += frame.count
    return outcome


def on_time(stream: Stream, frame: Frame) -> Frame:
    """The frame, with times after every time stored before."""
    floor = stream.contents.last_time_ns
    if frame.base_time_ns > floor:
        return frame
    return Frame(frame.count, floor + 1, frame.body, frame.body_crc, frame.columns)


def store_whole(stream: Stream, frame: Frame, columns: Columns) -> bool:
    """Store the frame as it is if every message of it is certain to be accepted as it is; else change nothing."""
    settings = stream.settings
    subjects, header_lens, payloads = columns
    if settings.sealed or settings.is_counter or not stream.config_version:
        return False
    if settings.max_msg_size_bytes >= 0 and max(map(len, payloads)) > settings.max_msg_size_bytes:
        return False
    if frame.count == 1 and len(payloads[0]) > stream.limits.record_bytes_max // 2:
        return False
    msg_ids: list[bytes] = []
    if header_lens:
        blocks = [payload[:size] for payload, size in zip(payloads, header_lens, strict=True)]
        joined = b"".join(blocks)
        if headers.SPECIAL_LINES.search(joined) or joined.count(headers.PLAIN_START) != len(blocks) - blocks.count(b""):
            return False
        if headers.MSG_ID_LINE in joined:
            if not stream.dedupe.window_ns:
                return False
            msg_ids = headers.msg_ids(blocks)
            stream.dedupe.forget(frame.base_time_ns)
            known = msg_ids if b"" not in msg_ids else [msg_id for msg_id in msg_ids if msg_id]
            if stream.dedupe.has_any(known) or len(stream.dedupe) + len(known) > stream.limits.dedupe_ids_max:
                return False
    if settings.discard_new and not _has_room(stream, frame.count, columns):
        return False
    if settings.max_bytes and settings.max_msgs_per_subject and not _fits_bytes(stream, frame.count, columns):
        return False
    if settings.is_interest and not all(is_wanted(stream, subject) for subject in dict.fromkeys(subjects)):
        return False

    first_seq = stream.contents.last_seq + 1
    stream.store(frame, columns)
    if msg_ids:
        seqs = [seq for seq, msg_id in enumerate(msg_ids, first_seq) if msg_id]
        stream.dedupe.add([msg_id for msg_id in msg_ids if msg_id], seqs, frame.base_time_ns)
        stream.last_msg_id = msg_ids[-1]
    else:
        stream.last_msg_id = b""
    return True


def _fits_bytes(stream: Stream, count: int, columns: Columns) -> bool:
    """Whether the stream stays within max_bytes with all of these."""
    settings = stream.settings
    each = settings.record_overhead_bytes + settings.header_overhead_bytes
    size = sum(map(len, columns.payloads)) + sum(map(len, columns.subjects)) + count * each
    return stream.contents.bytes + size <= settings.max_bytes


def _has_room(stream: Stream, count: int, columns: Columns) -> bool:
    """Whether a stream that discards new messages surely takes all of these."""
    settings = stream.settings
    contents = stream.contents
    if settings.max_msgs and contents.messages + count > settings.max_msgs:
        return False
    if settings.max_bytes and not _fits_bytes(stream, count, columns):
        return False
    if settings.discard_new_per_subject and settings.max_msgs_per_subject:
        counts = Counter(columns.subjects)
        for row, added in zip(contents.rows(list(counts)), counts.values(), strict=True):
            if (row.messages if row else 0) + added > settings.max_msgs_per_subject:
                return False
    return True


class Careful:
    """One frame, message by message. Accepted messages wait in ``_staged`` until ``_flush`` stores them together."""

    takes_batch_id = False
    """Whether the header of atomic batches means nothing here."""

    def __init__(self, stream: Stream, frame: Frame, columns: Columns, outcome: PublishOutcome) -> None:
        self.stream = stream
        self.frame = frame
        self.columns = columns
        self.outcome = outcome
        self.offset = outcome.count
        self._staged: list[tuple[int, int, bytes, bool]] = []
        """Position, header length, payload, whether it is stored (else it only takes its sequence)."""
        self._staged_ids: dict[bytes, int] = {}
        self._staged_last: dict[bytes, int] = {}
        self._staged_counts: Counter[bytes] = Counter()
        self._staged_bytes = 0
        self._staged_ttls: list[tuple[int, int]] = []
        self._last_msg_id = stream.last_msg_id
        self._values: dict[bytes, int] = {}
        """Counters as of the staged messages."""
        settings = stream.settings
        self._one_by_one = bool(settings.max_bytes and settings.max_msgs_per_subject)

    def run(self) -> None:
        """Judge every message, store what is accepted, and note what is not."""
        subjects, header_lens, payloads = self.columns
        lens = header_lens or (0,) * len(subjects)
        for position, (subject, header_len, payload) in enumerate(zip(subjects, lens, payloads, strict=True)):
            refusal = self.take(position, subject, header_len, payload)
            if refusal is not None:
                self.outcome.exceptions[self.offset + position] = refusal
        self._flush()

    # -- judging --------------------------------------------------------------------------------------------------

    def take(
        self, position: int, subject: bytes, header_len: int, payload: bytes
    ) -> Duplicate | ApiError | BatchEnded | None:
        """Stage one message, or say why not. Source: the clustered column of the order of checks."""
        stream = self.stream
        settings = stream.settings
        if not stream.config_version:
            return api_error("JSClusterNotAvailErr")
        header = payload[:header_len]
        fields = headers.fields(header) if header else _NO_FIELDS
        if fields.get(headers.BATCH_ID) and not self.takes_batch_id:
            return api_error("JSAtomicPublishDisabledErr")
        if settings.sealed:
            return api_error("JSStreamSealedErr")
        if 0 <= settings.max_msg_size_bytes < len(payload):
            return api_error("JSStreamMessageExceedsMaximumErr")
        if settings.record_bytes(subject, header_len, payload) > stream.limits.record_bytes_max:
            return api_error("JSStreamStoreFailedF", err="message too large")
        if header_len > HEADER_BYTES_MAX:
            return api_error("JSStreamHeaderExceedsMaximumErr")

        msg_id = b""
        ttl = 0
        rollup = b""
        if header:
            msg_id = fields.get(headers.MSG_ID, b"")
            rollup = fields.get(headers.ROLLUP, b"").lower()
            refusal: Duplicate | ApiError | None
            refusal, ttl = check_values(settings, fields, has_body=len(payload) > header_len)
            refusal = (
                refusal
                or self.check_id(msg_id)
                or self._check_source_header(fields)
                or self._check_expectations(fields, subject)
                or self._check_schedule(fields, subject)
                or check_rollup(settings, rollup)
                or self._count(position, subject, fields)
            )
            if refusal is not None:
                return refusal
        elif settings.is_counter:
            return api_error("JSMessageIncrMissingErr")
        if settings.is_counter:
            payload = header + counters.body(self._values[subject])
        if settings.discard_new:
            refusal = self.check_room(subject, header_len, payload, rollup)
            if refusal is not None:
                return refusal
        if header:
            expected_id = fields.get(headers.EXPECTED_LAST_MSG_ID)
            if expected_id and expected_id != self._last_msg_id:
                return api_error("JSStreamWrongLastMsgIDErrF", id=self._last_msg_id.decode("utf-8", "replace"))
        schedule = fields.get(headers.SCHEDULE)
        if schedule and not rollup:
            rollup = b"sub"
            header = headers.with_line(header, headers.ROLLUP, rollup)
            payload = header + payload[header_len:]
        self.accept(position, subject, header, payload, msg_id, ttl, rollup)
        if schedule:
            self._begin_schedule(schedule)
        elif fields.get(headers.SCHEDULER):
            self._end_schedule(fields[headers.SCHEDULER])
        return None

    def _check_schedule(self, fields: Fields, subject: bytes) -> ApiError | None:
        if not fields.keys().isdisjoint(_SCHEDULE_FIELDS):
            self._flush()
            return check_schedule(self.stream, fields, subject)
        return None

    def _begin_schedule(self, pattern: bytes) -> None:
        """The message that was just stored is a schedule, if it was wanted."""
        contents = self.stream.contents
        next_ns = following_time_ns(pattern.decode("utf-8", "replace"), contents.last_time_ns)
        if next_ns and contents.is_live(contents.last_seq):
            self.stream.schedules.set(contents.last_seq, next_ns)

    def _end_schedule(self, subject: bytes) -> None:
        """The message that was just taken replaces the schedule on this subject."""
        self._flush()
        seq = self.stream.contents.last_seq_of(subject)
        if seq in self.stream.schedules:
            self.stream.contents.remove(seq)

    def finish(self) -> None:
        """Store what was accepted."""
        self._flush()

    def accept(
        self, position: int, subject: bytes, header: bytes, payload: bytes, msg_id: bytes, ttl: int, rollup: bytes
    ) -> None:
        """Stage a message that passed all checks, as it is stored."""
        settings = self.stream.settings
        header_len = len(header)
        if header:
            stored_header = headers.storable(header)
            if ttl > 0 and ttl < settings.marker_ttl_s and settings.max_msgs_per_subject != 1:
                ttl = settings.marker_ttl_s
                stored_header = headers.with_line(headers.without(stored_header, headers.TTL), headers.TTL, b"%d" % ttl)
            if stored_header is not header and stored_header != header:
                payload = stored_header + payload[header_len:]
                header_len = len(stored_header)
        self._stage(position, subject, header_len, payload, msg_id, ttl)
        if rollup:
            self._roll_up(subject, is_all=rollup == b"all")
        elif self._one_by_one:
            self._flush()

    def check_id(self, msg_id: bytes) -> Duplicate | ApiError | None:
        """Whether a message of this id was stored before."""
        stream = self.stream
        if not msg_id or not stream.dedupe.window_ns:
            return None
        now_ns = self.frame.base_time_ns
        stream.dedupe.forget(now_ns)
        seq = self._staged_ids.get(msg_id) or stream.dedupe.find(msg_id, now_ns)
        if seq:
            return Duplicate(seq)
        if len(stream.dedupe) + len(self._staged_ids) >= stream.limits.dedupe_ids_max:
            return api_error("JSInsufficientResourcesErr")
        return None

    def _check_source_header(self, fields: Fields) -> ApiError | None:
        return api_error("JSMessageSourceHdrNotAllowedErr") if fields.get(headers.STREAM_SOURCE) else None

    def _count(self, position: int, subject: bytes, fields: Fields) -> ApiError | None:
        """The next value of a counter."""
        if not self.stream.settings.is_counter:
            return None
        if self._would_trim():
            self._flush()
        value = counters.next_value(self.stream.contents, self._values, subject, fields)
        if isinstance(value, ApiError):
            return value
        self.outcome.values[self.offset + position] = value
        return None

    def _check_expectations(self, fields: Fields, subject: bytes) -> ApiError | None:
        """Expected last sequence, expected last sequence of a subject."""
        text = fields.get(headers.EXPECTED_LAST_SEQ)
        if text:
            last_seq = self.stream.contents.last_seq + len(self._staged)
            if headers.sequence(text) != last_seq:
                return api_error("JSStreamWrongLastSequenceErrF", seq=last_seq)
        text = fields.get(headers.EXPECTED_LAST_SUBJECT_SEQ)
        other = fields.get(headers.EXPECTED_LAST_SUBJECT_SEQ_SUBJECT)
        if text:
            last_seq = self._last_seq_of(other or subject)
            if headers.sequence(text) != last_seq:
                return api_error("JSStreamWrongLastSequenceErrF", seq=last_seq)
        elif other:
            return api_error("JSStreamExpectedLastSeqPerSubjectInvalid")
        return None

    def _last_seq_of(self, pattern: bytes) -> int:
        """The last sequence stored on a subject or pattern, staged messages included."""
        contents = self.stream.contents
        has_wildcards = not is_literal(pattern)
        if has_wildcards or self._would_trim():
            self._flush()
        if has_wildcards:
            return contents.previous_seq(contents.last_seq + 1, filter_of((pattern,)))
        return self._staged_last.get(pattern) or contents.last_seq_of(pattern)

    def _would_trim(self) -> bool:
        """Whether storing what is staged removes older messages."""
        settings = self.stream.settings
        contents = self.stream.contents
        return bool(
            self._staged
            and not settings.discard_new
            and (
                (settings.max_msgs and contents.messages + len(self._staged) > settings.max_msgs)
                or (settings.max_bytes and contents.bytes + self._staged_bytes > settings.max_bytes)
            )
        )

    def check_room(self, subject: bytes, header_len: int, payload: bytes, rollup: bytes) -> ApiError | None:
        """Whether a stream that discards new messages has room; one that replaces its subject's oldest fits."""
        settings = self.stream.settings
        contents = self.stream.contents
        size = settings.record_bytes(subject, header_len, payload)
        if (settings.max_msgs and contents.messages + len(self._staged) >= settings.max_msgs) or (
            settings.max_bytes and contents.bytes + self._staged_bytes + size > settings.max_bytes
        ):
            self._flush()
        limit = settings.max_msgs_per_subject
        replaces = False
        if limit:
            row = contents.row(subject)
            replaces = (row.messages if row else 0) + self._staged_counts[subject] + 1 > limit
        if replaces and settings.discard_new_per_subject and not rollup:
            return api_error("JSStreamStoreFailedF", err="maximum messages per subject exceeded")
        if settings.max_msgs and contents.messages >= settings.max_msgs and not replaces:
            return api_error("JSStreamStoreFailedF", err="maximum messages exceeded")
        if settings.max_bytes and contents.bytes + self._staged_bytes + size > settings.max_bytes:
            oldest = self._oldest_size_of(subject) if replaces else 0
            if oldest < size:
                return api_error("JSStreamStoreFailedF", err="maximum bytes exceeded")
        return None

    def _oldest_size_of(self, subject: bytes) -> int:
        contents = self.stream.contents
        row = contents.row(subject)
        seqs = contents.next_seqs(row.first, Filter((subject,)), 1) if row else []
        meta = contents.meta(seqs[0]) if seqs else None
        return meta.size_bytes if meta else 0

    # -- storing --------------------------------------------------------------------------------------------------

    def _stage(self, position: int, subject: bytes, header_len: int, payload: bytes, msg_id: bytes, ttl: int) -> None:
        stream = self.stream
        settings = stream.settings
        seq = stream.contents.last_seq + len(self._staged) + 1
        stored = not settings.is_interest or is_wanted(stream, subject)
        self._staged.append((position, header_len, payload, stored))
        if stored:
            self._staged_last[subject] = seq
            self._staged_counts[subject] += 1
            self._staged_bytes += settings.record_bytes(subject, header_len, payload)
            if ttl:
                self._staged_ttls.append((seq, ttl))
        if msg_id and stream.dedupe.window_ns:
            self._staged_ids[msg_id] = seq
        self._last_msg_id = msg_id

    def _roll_up(self, subject: bytes, *, is_all: bool) -> None:
        """Store what is staged, then keep of the subject (or the stream) only the message that asked for it."""
        stored = self._staged[-1][3]
        self._flush()
        contents = self.stream.contents
        keep_from = contents.last_seq if stored else contents.last_seq + 1
        if is_all:
            roll_up(self.stream, keep_from)
        else:
            roll_up_subject(self.stream, subject, keep_from)

    def _flush(self) -> None:
        """Store the staged messages: the frame as it came if it is whole, else runs of them encoded anew."""
        staged = self._staged
        if not staged:
            return
        stream = self.stream
        frame = self.frame
        contents = stream.contents
        first_seq = contents.last_seq + 1
        last_seq = contents.last_seq + len(staged)
        if len(staged) == frame.count and self._is_verbatim():
            stream.store(frame, self.columns)
        else:
            for start, end in self._stored_runs():
                self._store_run(first_seq + start, staged[start:end])
            contents.skip_to(last_seq)
        for seq, ttl in self._staged_ttls:
            if ttl == headers.NEVER:
                stream.ttls.add_never(seq)
            else:
                time_ns = frame.base_time_ns + staged[seq - first_seq][0]
                stream.ttls.add(seq, time_ns + ttl * SECOND_NS)
        stream.dedupe.add(list(self._staged_ids), list(self._staged_ids.values()), frame.base_time_ns)
        stream.last_msg_id = self._last_msg_id
        self._staged = []
        self._staged_ids = {}
        self._staged_last = {}
        self._staged_counts = Counter()
        self._staged_bytes = 0
        self._staged_ttls = []
        self._values = {}

    def _is_verbatim(self) -> bool:
        payloads = self.columns.payloads
        return all(stored and payload is payloads[at] for at, _, payload, stored in self._staged)

    def _stored_runs(self) -> list[tuple[int, int]]:
        """Half-open ranges of staged messages that are stored next to each other."""
        runs = []
        start = -1
        for at, (_, _, _, stored) in enumerate(self._staged):
            if stored and start < 0:
                start = at
            elif not stored and start >= 0:
                runs.append((start, at))
                start = -1
        if start >= 0:
            runs.append((start, len(self._staged)))
        return runs

    def _store_run(self, first_seq: int, run: list[tuple[int, int, bytes, bool]]) -> None:
        """Store staged messages at consecutive sequences. Each keeps at least the time of its place in the frame.

        A message's time is the frame's base plus its place; places only grow, so times stay strictly increasing.
        """
        stream = self.stream
        subjects = self.columns.subjects
        stream.contents.skip_to(first_seq - 1)
        columns = Columns(
            [subjects[position] for position, _, _, _ in run],
            [header_len for _, header_len, _, _ in run],
            [payload for _, _, payload, _ in run],
        )
        base_time_ns = self.frame.base_time_ns + run[0][0]
        for frame in encode_frames(columns, base_time_ns, stream.limits.frame_bytes_max):
            stream.store(frame, frame_columns(frame))


def check_values(settings: Settings, fields: Fields, *, has_body: bool) -> tuple[ApiError | None, int]:
    """Increment, expected stream and time to live; the latter in seconds."""
    refusal = counters.check_increment(settings, fields, has_body)
    if refusal is not None:
        return refusal, 0
    expected_stream = fields.get(headers.EXPECTED_STREAM)
    if expected_stream and expected_stream != settings.name:
        return api_error("JSStreamNotMatchErr"), 0
    ttl_text = fields.get(headers.TTL)
    if not ttl_text:
        return None, 0
    try:
        ttl = headers.ttl_s(ttl_text)
    except ValueError:
        ttl = None
    if ttl != 0 and not settings.allows_msg_ttl:
        return api_error("JSMessageTTLDisabledErr"), 0
    if ttl is None:
        return api_error("JSMessageTTLInvalidErr"), 0
    return None, ttl


def check_rollup(settings: Settings, rollup: bytes) -> ApiError | None:
    """Whether a message may remove the older ones."""
    if not rollup:
        return None
    if not settings.allows_rollup:
        return api_error("JSStreamRollupFailedF", err="rollup not permitted")
    if rollup not in (b"sub", b"all"):
        text = rollup.decode("utf-8", "replace")
        return api_error("JSStreamRollupFailedF", err=f'rollup value invalid: "{text}"')
    return None
