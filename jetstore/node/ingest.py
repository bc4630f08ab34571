"""Publishes of one stream on their way into its log: gathered as columns, cut into entries, answered in bulk.

The life of a batch here: ``on_messages`` (one socket read's run) → columns wait while a journal block is on its way →
``fill`` encodes all of them into as few entries as fit → the entry is durable, committed, applied → ``_answer``
sends all PubAcks of the entry with one call. Nothing is done per message on the good path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from jetstore.errors import ApiError, NotNow
from jetstore.hot.frame import encode_frames
from jetstore.model.api_errors import api_error
from jetstore.model.json import encode
from jetstore.model.transforms import SubjectTransform
from jetstore.node.batches import Batches
from jetstore.node.ports import Inbound
from jetstore.store.ports import Columns
from jetstore.stream.entries import encode_publish
from jetstore.stream.headers import BATCH_ID_LINE
from jetstore.stream.outcomes import BatchOutcome, Duplicate, PublishOutcome

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

NO_HEADERS: tuple[int, ...] = ()


class Ingest:
    """The publish side of a stream's leader."""

    def __init__(self, group: StreamGroup) -> None:
        """Starts empty; the group subscribes it to the stream's subjects."""
        self._group = group
        self._name = group.name.encode()
        self._subjects: list[bytes] = []
        self._replies: list[bytes] = []
        self._header_lens: list[int] = []
        self._payloads: list[bytes] = []
        self._has_headers = False
        self._bytes = 0
        self.takes_batches = False
        """Whether clients may send atomic batches."""
        self.batches = Batches(group, self._commit_batch, group.tell_abandoned)
        self.transform: SubjectTransform | None = None
        """What subjects become before they are stored; those that do not match stay."""
        self.in_flight_messages = 0
        self.in_flight_bytes = 0
        self.messages_total = 0
        self.entries_total = 0

    # -- in -------------------------------------------------------------------------------------------------------

    @property
    def refuses(self) -> bool:
        """Whether this member takes the subjects only to say no: who leads elsewhere then goes before it."""
        return not self._group.serves

    def on_messages(self, batch: Inbound) -> None:
        """Take a run of publishes (``InboundHandler``); refuse it at once where it definitely cannot be stored."""
        group = self._group
        if batch.header_lens and max(batch.header_lens) > group.limits.header_bytes_max:
            self._take_fitting(batch)
            return
        if self.takes_batches and batch.header_lens and any(BATCH_ID_LINE in payload for payload in batch.payloads):
            self._take_members(batch)
            return
        payloads = batch.payloads
        count = len(payloads)
        size = sum(map(len, payloads)) + sum(map(len, batch.subjects))
        limits = group.limits
        refusal = group.refusal()
        if refusal is not None:
            self._refuse(batch.replies, encode_error(self._name, refusal))
            return
        if (
            len(self._payloads) + self.in_flight_messages + count > limits.uncommitted_messages_max
            or self._bytes + self.in_flight_bytes + size > limits.uncommitted_bytes_max
        ):
            self._refuse(
                batch.replies,
                encode_error(self._name, api_error("JSStreamTooManyRequests")),
                header=b"NATS/1.0 429 Too Many Requests\r\n\r\n",
            )
            return
        if batch.header_lens:
            if not self._has_headers:
                self._header_lens = [0] * len(self._payloads)
                self._has_headers = True
            self._header_lens += batch.header_lens
        elif self._has_headers:
            self._header_lens += [0] * count
        self._subjects += batch.subjects
        self._replies += batch.replies
        self._payloads += payloads
        self._bytes += size
        group.want()

    def _take_members(self, batch: Inbound) -> None:
        """A run with members of atomic batches: each in its turn, what stands between them as runs of their own."""
        start = 0
        for at, (length, payload) in enumerate(zip(batch.header_lens, batch.payloads, strict=True)):
            if BATCH_ID_LINE not in payload[:length]:
                continue
            if start < at:
                self._take_plain(batch, start, at)
            start = at + 1
            reply = batch.replies[at]
            answer: ApiError | bytes | None = self._group.refusal()
            if answer is None:
                answer = self.batches.take(batch.subjects[at], reply, payload[:length], payload[length:])
            if answer is not None:
                self._refuse((reply,), answer if isinstance(answer, bytes) else encode_error(self._name, answer))
        if start < len(batch.payloads):
            self._take_plain(batch, start, len(batch.payloads))

    def _take_plain(self, batch: Inbound, start: int, end: int) -> None:
        """A part of a run that holds no member of a batch, or text in a body that only looks like one."""
        takes, self.takes_batches = self.takes_batches, False
        try:
            self.on_messages(
                replace(
                    batch,
                    subjects=batch.subjects[start:end],
                    replies=batch.replies[start:end],
                    header_lens=batch.header_lens[start:end],
                    payloads=batch.payloads[start:end],
                )
            )
        finally:
            self.takes_batches = takes

    def _take_fitting(self, batch: Inbound) -> None:
        """A run with header blocks that no record can hold: those are refused one by one, the rest is taken."""
        bound = self._group.limits.header_bytes_max
        too_long = encode_error(self._name, api_error("JSStreamHeaderExceedsMaximumErr"))
        fitting = [position for position, length in enumerate(batch.header_lens) if length <= bound]
        self._refuse(
            [r for r, length in zip(batch.replies, batch.header_lens, strict=True) if length > bound], too_long
        )
        if fitting:
            self.on_messages(
                replace(
                    batch,
                    subjects=[batch.subjects[position] for position in fitting],
                    replies=[batch.replies[position] for position in fitting],
                    header_lens=[batch.header_lens[position] for position in fitting],
                    payloads=[batch.payloads[position] for position in fitting],
                )
            )

    # -- to the log -----------------------------------------------------------------------------------------------

    def fill(self, budget_bytes: int) -> bool:
        """Propose what waits, up to about ``budget_bytes``; True if more is waiting."""
        while self._payloads and budget_bytes > 0:
            count = len(self._payloads)
            if self._bytes > self._group.limits.entry_bytes_max:
                count = self._entry_cut()
            size = self._propose(count)
            budget_bytes -= size
        return bool(self._payloads)

    def _commit_batch(self, columns: Columns, batch_id: bytes, reply: bytes) -> None:
        """Propose a complete batch behind everything that waits."""
        group = self._group
        self.fill(sum(map(len, self._payloads)) + sum(map(len, self._subjects)) + 1)
        count = len(columns.subjects)
        if self.transform is not None:
            columns = columns._replace(subjects=transformed(self.transform, list(columns.subjects)))
        now_ns = group.stream.next_time_ns(group.clock.wall_ns(), count)
        frames = encode_frames(columns, now_ns, group.limits.frame_bytes_max)
        size = sum(map(len, columns.payloads))
        self.in_flight_messages += count
        self.in_flight_bytes += size
        self.messages_total += count
        self.entries_total += 1

        def applied(outcome: BatchOutcome | ApiError) -> None:
            self.in_flight_messages -= count
            self.in_flight_bytes -= size
            if isinstance(outcome, ApiError):
                self._refuse((reply,), encode_error(self._name, outcome))
                return
            shown: dict[str, object] = {"stream": group.name, "seq": outcome.last_seq}
            shown |= {"batch": batch_id.decode("utf-8", "replace"), "count": outcome.count}
            self._refuse((reply,), encode(shown))

        try:
            data = encode_publish(now_ns, frames, is_atomic=True)
            group.propose_with(data, applied, message_count=count, cache=frames)
        except NotNow:
            applied(api_error("JSClusterNotAvailErr"))

    def forget(self) -> None:
        """What waits and what is under way is never answered: its outcome is unknown here."""
        self._subjects, self._replies, self._payloads, self._header_lens = [], [], [], []
        self._has_headers = False
        self._bytes = self.in_flight_messages = self.in_flight_bytes = 0
        self.batches.clear()

    def resign(self) -> None:
        """This member no longer leads: what waits was never proposed, and is told so; the rest is never answered."""
        self._refuse(self._replies, encode_error(self._name, api_error("JSClusterNotAvailErr")))
        self.forget()

    def _entry_cut(self) -> int:
        """How many of the waiting messages make one entry: as many as fit, at least one."""
        bound = self._group.limits.entry_bytes_max
        sizes = accumulate(map(len, self._payloads))
        subject_sizes = accumulate(map(len, self._subjects))
        cut = 0
        for payload_bytes, subject_bytes in zip(sizes, subject_sizes, strict=True):
            if payload_bytes + subject_bytes > bound:
                break
            cut += 1
        return max(cut, 1)

    def _propose(self, count: int) -> int:
        group = self._group
        if count == len(self._payloads):
            subjects, replies, payloads = self._subjects, self._replies, self._payloads
            header_lens: Sequence[int] = self._header_lens if self._has_headers else NO_HEADERS
            self._subjects, self._replies, self._payloads, self._header_lens = [], [], [], []
            self._has_headers = False
            size, self._bytes = self._bytes, 0
        else:
            subjects, replies, payloads = self._subjects[:count], self._replies[:count], self._payloads[:count]
            header_lens = self._header_lens[:count] if self._has_headers else NO_HEADERS
            del self._subjects[:count], self._replies[:count], self._payloads[:count], self._header_lens[:count]
            size = sum(map(len, payloads)) + sum(map(len, subjects))
            self._bytes -= size
        if header_lens and not any(header_lens):
            header_lens = NO_HEADERS
        if self.transform is not None:
            subjects = transformed(self.transform, subjects)
        now_ns = group.stream.next_time_ns(group.clock.wall_ns(), count)
        frames = encode_frames(Columns(subjects, header_lens, payloads), now_ns, group.limits.frame_bytes_max)
        data = encode_publish(now_ns, frames)
        self.in_flight_messages += count
        self.in_flight_bytes += size
        self.messages_total += count
        self.entries_total += 1
        wants_answer = any(replies)

        def applied(outcome: PublishOutcome) -> None:
            self.in_flight_messages -= count
            self.in_flight_bytes -= size
            if wants_answer and group.answers:
                self._answer(outcome, replies)

        try:
            group.propose_with(data, applied, message_count=count, cache=frames)
        except NotNow:  # leadership is being handed over, or too much is under way
            self.in_flight_messages -= count
            self.in_flight_bytes -= size
            self._refuse(replies, encode_error(self._name, api_error("JSClusterNotAvailErr")))
        return size

    # -- answers --------------------------------------------------------------------------------------------------

    def _answer(self, outcome: PublishOutcome, replies: Sequence[bytes]) -> None:
        outlet = self._group.outlet
        exceptions, values = outcome.exceptions, outcome.values
        if not exceptions and not values:
            outlet.pub_acks(self._name, replies, range(outcome.first_seq, outcome.first_seq + len(replies)))
            return
        answers = []
        seq = outcome.first_seq
        for position in range(len(replies)):
            exception = exceptions.get(position)
            if exception is None:
                value = values.get(position)
                extra = b"" if value is None else b',"val":"%d"' % value
                answers.append(b'{"stream":"%b","seq":%d%b}' % (self._name, seq, extra))
                seq += 1
            elif isinstance(exception, Duplicate):
                answers.append(b'{"stream":"%b","seq":%d,"duplicate": true}' % (self._name, exception.seq))
            else:
                answers.append(encode_error(self._name, exception))
        wanted = [position for position, reply in enumerate(replies) if reply]
        outlet.publish([replies[p] for p in wanted], NO_HEADERS, [answers[p] for p in wanted])

    def _refuse(self, replies: Sequence[bytes], answer: bytes, header: bytes = b"") -> None:
        wanted = [reply for reply in replies if reply]
        if wanted and self._group.answers:
            header_lens = [len(header)] * len(wanted) if header else NO_HEADERS
            self._group.outlet.publish(wanted, header_lens, [header + answer] * len(wanted))


def transformed(transform: SubjectTransform, subjects: list[bytes]) -> list[bytes]:
    """The subjects that the messages are stored under."""
    made = {subject: transform.apply(subject) or subject for subject in subjects} if transform.is_pure else None
    if made is not None:
        return [made[subject] for subject in subjects]
    return [transform.apply(subject) or subject for subject in subjects]


def encode_error(stream: bytes, error: object) -> bytes:
    """The PubAck of a refused publish."""
    fields = {
        "error": {"code": error.code, "err_code": error.err_code, "description": error.description},  # type: ignore[attr-defined]
        "stream": stream.decode(),
        "seq": 0,
    }
    return encode(fields)
