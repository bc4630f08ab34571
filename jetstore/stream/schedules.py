"""Message schedules: messages that make a stream store other messages at their time. Source: ADR-51.

A schedule is the last message on its subject, so everything that removes the message ends it. What is kept here is only
when each fires next; the rest is read from the message. Firing is part of an EXPIRE entry, at the entry's time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.hot.frame import encode_frames, frame_columns
from jetstore.model.api_errors import api_error
from jetstore.model.times import format_time
from jetstore.store.ports import Columns, Message
from jetstore.stream import cron, headers
from jetstore.stream.retention import is_wanted, roll_up_subject
from jetstore.stream.subjects import is_valid_subject, matches
from jetstore.stream.ttl import SECOND_NS

if TYPE_CHECKING:
    from jetstore.stream.settings import Settings
    from jetstore.stream.stream import Stream

SCHEDULES_MAX = 10_000
"""Of one stream, because all of them are in the head of every checkpoint; above: 10023."""
FIRED_MAX = 1_000
"""Messages that one entry makes; the rest is due for the next one."""
_NOT_PASSED_ON = re.compile(rb"\r\n(?:Nats-Schedule|Nats-Expected-|Nats-Msg-Id:|Nats-TTL:|Nats-Rollup:)[^\r\n]*")


class Schedules:
    """When the schedules of one stream fire next, by the sequence of their message."""

    def __init__(self, rows: Iterable[Sequence[int]] = ()) -> None:
        """``rows``: what ``to_rows`` gave."""
        self._next: dict[int, int] = {row[0]: row[1] for row in rows}
        self._heap = [(next_ns, seq) for seq, next_ns in self._next.items()]
        heapify(self._heap)

    def __len__(self) -> int:
        return len(self._next)

    def __contains__(self, seq: int) -> bool:
        return seq in self._next

    def set(self, seq: int, next_ns: int) -> None:
        """It fires at this time."""
        self._next[seq] = next_ns
        heappush(self._heap, (next_ns, seq))

    def forget(self, first: int, last: int) -> None:
        """Messages of the closed range are gone."""
        if last - first < len(self._next):
            for seq in range(first, last + 1):
                self._next.pop(seq, None)
        else:
            self._next = {seq: next_ns for seq, next_ns in self._next.items() if not first <= seq <= last}

    def next_ns(self) -> int:
        """When the first of them fires, or 0."""
        heap = self._heap
        while heap and self._next.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else 0

    def take_due(self, now_ns: int) -> int:
        """A sequence that is due and from now on not scheduled, or 0."""
        if not 0 < self.next_ns() <= now_ns:
            return 0
        _, seq = heappop(self._heap)
        del self._next[seq]
        return seq

    def to_rows(self) -> list[list[int]]:
        """As plain numbers; equal schedules give equal rows."""
        return [[seq, self._next[seq]] for seq in sorted(self._next)]


# -- publishing ---------------------------------------------------------------------------------------------------


def check_schedule(stream: Stream, fields: Mapping[bytes, bytes], subject: bytes) -> ApiError | None:
    """Whether a message's schedule headers, if it has any, are in order. Source: order of checks of nats-server."""
    settings = stream.settings
    pattern = fields.get(headers.SCHEDULE)
    if pattern:
        refusal = _check_pattern(stream, fields, pattern)
        if refusal is None:
            refusal = _check_places(settings, fields, subject)
        if refusal is None and fields.get(headers.ROLLUP, b"sub").lower() != b"sub":
            refusal = api_error("JSMessageSchedulesRollupInvalidErr")
        if refusal is None and len(stream.schedules) >= SCHEDULES_MAX:
            refusal = api_error("JSInsufficientResourcesErr")
        if refusal is not None:
            return refusal
    scheduler, following = fields.get(headers.SCHEDULER), fields.get(headers.SCHEDULE_NEXT)
    if not scheduler and not following:
        return None
    if following != b"purge" or not scheduler or scheduler == subject or not is_valid_subject(scheduler):
        return api_error("JSMessageSchedulesSchedulerInvalidErr")
    if not settings.allows_schedules:
        return api_error("JSMessageSchedulesDisabledErr")
    last_seq = stream.contents.last_seq_of(scheduler)
    if last_seq and last_seq not in stream.schedules:
        return api_error("JSMessageSchedulesSchedulerInvalidErr")
    return None


def _check_pattern(stream: Stream, fields: Mapping[bytes, bytes], pattern: bytes) -> ApiError | None:
    settings = stream.settings
    zone = fields.get(headers.SCHEDULE_TIME_ZONE, b"")
    text = pattern.decode("utf-8", "replace")
    is_good = True
    try:
        cron.next_time_ns(text, stream.contents.last_time_ns)
    except ValueError:
        is_good = False
    if zone and not cron.takes_zone(text):
        is_good = False
    if not settings.allows_schedules:
        return api_error("JSMessageSchedulesDisabledErr")
    if not is_good:
        return api_error("JSMessageSchedulesPatternInvalidErr")
    if zone not in (b"", b"UTC"):
        return api_error("JSMessageSchedulesTimeZoneInvalidErr")
    ttl = fields.get(headers.SCHEDULE_TTL)
    if ttl:
        try:
            headers.ttl_s(ttl)
        except ValueError:
            return api_error("JSMessageSchedulesTTLInvalidErr")
        if not settings.allows_msg_ttl:
            return api_error("JSMessageTTLDisabledErr")
    if fields.get(headers.SCHEDULE_ROLLUP, b"sub") != b"sub":
        return api_error("JSMessageSchedulesRollupInvalidErr")
    return None


def _check_places(settings: Settings, fields: Mapping[bytes, bytes], subject: bytes) -> ApiError | None:
    target = fields.get(headers.SCHEDULE_TARGET, b"")
    if not _is_within(settings, target) or target == subject:
        return api_error("JSMessageSchedulesTargetInvalidErr")
    source = fields.get(headers.SCHEDULE_SOURCE)
    if source and (not _is_within(settings, source) or source in (subject, target)):
        return api_error("JSMessageSchedulesSourceInvalidErr")
    return None


def _is_within(settings: Settings, subject: bytes) -> bool:
    return is_valid_subject(subject) and any(matches(pattern, subject) for pattern in settings.subjects)


# -- firing ---------------------------------------------------------------------------------------------------------


def fire(stream: Stream, now_ns: int) -> int:
    """Store what the schedules that are due make; how many messages."""
    fired = 0
    while fired < FIRED_MAX:
        seq = stream.schedules.take_due(now_ns)
        if not seq:
            break
        message = stream.contents.read(seq)
        if message is not None and stream.contents.last_seq_of(message.subject) == seq:
            _fire(stream, message, now_ns)
            fired += 1
    return fired


def _fire(stream: Stream, schedule: Message, now_ns: int) -> None:
    contents = stream.contents
    fields = headers.fields(schedule.header)
    pattern = fields[headers.SCHEDULE].decode("utf-8", "replace")
    given = schedule
    source = fields.get(headers.SCHEDULE_SOURCE)
    if source:
        last_seq = contents.last_seq_of(source)
        given = (contents.read(last_seq) if last_seq else None) or schedule
    following_ns = 0 if cron.is_once(pattern) else following_time_ns(pattern, now_ns)
    following = format_time(following_ns).encode() if following_ns else b"purge"
    header = headers.with_line(_NOT_PASSED_ON.sub(b"", given.header), headers.SCHEDULER, schedule.subject)
    header = headers.with_line(header, headers.SCHEDULE_NEXT, following)
    ttl = fields.get(headers.SCHEDULE_TTL)
    if ttl:
        header = headers.with_line(header, headers.TTL, ttl)
    is_rollup = bool(fields.get(headers.SCHEDULE_ROLLUP))
    if is_rollup:
        header = headers.with_line(header, headers.ROLLUP, b"sub")
    _store(stream, fields[headers.SCHEDULE_TARGET], header, given.data, headers.ttl_s(ttl or b""), now_ns)
    if is_rollup:
        roll_up_subject(stream, fields[headers.SCHEDULE_TARGET], contents.last_seq)
    if not following_ns:
        contents.remove(schedule.seq)
    elif contents.is_live(schedule.seq):
        stream.schedules.set(schedule.seq, following_ns)


def following_time_ns(pattern: str, after_ns: int) -> int:
    """When it fires next, or 0 for never."""
    try:
        return cron.next_time_ns(pattern, after_ns)
    except ValueError:
        return 0


def _store(stream: Stream, target: bytes, header: bytes, data: bytes, ttl_s: int, now_ns: int) -> None:
    contents = stream.contents
    stream.last_msg_id = b""
    if stream.settings.is_interest and not is_wanted(stream, target):
        contents.skip_to(contents.last_seq + 1)
        return
    time_ns = max(now_ns, contents.last_time_ns + 1)
    columns = Columns([target], [len(header)], [header + data])
    (frame,) = encode_frames(columns, time_ns, stream.limits.frame_bytes_max)
    seq = contents.last_seq + 1
    if ttl_s == headers.NEVER:
        stream.ttls.add_never(seq)
    elif ttl_s:
        stream.ttls.add(seq, time_ns + ttl_s * SECOND_NS)
    stream.store(frame, frame_columns(frame))
