"""Publishes of one stream on their way into its log: gathered as columns, cut into entries, answered in bulk.

The life of a batch here: ``on_messages`` (one socket read's run) → columns wait while a journal block is on its way →
``fill`` encodes all of them into as few entries as fit → the entry is durable, committed, applied → ``_answer``
sends all PubAcks of the entry with one call. Nothing is done per message on the good path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from jetstore.errors import ApiError, NotNow
from jetstore.hot.frame import encode_frames
from jetstore.model.api_errors import api_error
from jetstore.model.json import encode
from jetstore.model.transforms import SubjectTransform
from jetstore.node import pub_ack
from jetstore.node.batches import Batches
from jetstore.node.fast_batches import FastBatches, FastRun
from jetstore.node.fast_reply import SUFFIX, is_fast
from jetstore.node.ports import Inbound, MessageTrace
from jetstore.node.rooms import Room
from jetstore.node.traced import TracedReply, answer_of, followed, stored_form, tried
from jetstore.store.ports import Columns
from jetstore.stream import headers
from jetstore.stream.entries import FastHead, encode_fast, encode_publish
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
        self._name = group.name
        self._place = pub_ack.place(group.name, group.outlet.domain)
        """Of PubAcks."""
        self._subjects: list[bytes] = []
        self._replies: list[bytes] = []
        self._header_lens: list[int] = []
        self._payloads: list[bytes] = []
        self._has_headers = False
        self._bytes = 0
        self.takes_batches = False
        """Whether clients may send atomic batches."""
        self.batches = Batches(group, self._commit_batch, group.tell_abandoned)
        self.fast = FastBatches(group, lambda replies, bodies: group.outlet.publish(replies, NO_HEADERS, bodies))
        self._runs: list[tuple[int, FastRun]] = []
        """Parts of fast batches among the columns that wait, by position."""
        self.room: Room | None = None
        """What the account and the node may hold; None: no bound."""
        self.transform: SubjectTransform | None = None
        """What subjects become before they are stored; those that do not match stay."""
        self._followed = 0
        """Messages under way whose way is told."""
        self.in_flight_messages = 0
        self.in_flight_bytes = 0
        self.messages_total = 0
        self.entries_total = 0

    # -- in -------------------------------------------------------------------------------------------------------

    @property
    def refuses(self) -> bool:
        """Whether this member takes the subjects only to say no: who leads elsewhere then goes before it."""
        return not self._group.serves

    judges_traced = True
    """It can say what would become of a message."""

    def on_messages(self, batch: Inbound) -> None:
        """Take a run of publishes (``InboundHandler``); refuse it at once where it definitely cannot be stored."""
        if batch.trace is not None:
            traced = self._traced(batch, batch.trace)
            if traced is None:
                return
            batch = traced
        joined = b" ".join(batch.replies)
        if b"$" in joined and SUFFIX[1:] in joined:  # one letter is found far faster than three
            self._take_fast(batch)
        else:
            self._take(batch)

    def _traced(self, batch: Inbound, trace: MessageTrace) -> Inbound | None:
        """A message whose way is told, as it is to be stored; None: it was only asked what would become of it."""
        group = self._group
        reply = followed(group, batch, self.transform, trace.at_stream(self._name))
        if trace.is_only:
            outcome = tried(group, batch, reply.subject)
            reply.tell(outcome)
            if outcome is not None and batch.replies[0] and group.answers:
                group.outlet.publish(batch.replies, NO_HEADERS, [answer_of(self._name, self._place, outcome)])
            return None
        if is_fast(reply) or (self.takes_batches and BATCH_ID_LINE in reply.header):
            reply.tell(None)  # of batches it is told that they came
            return stored_form(batch, batch.replies[0])
        self._followed += 1
        return stored_form(batch, reply)

    def _tell(self, replies: Sequence[bytes], of: Callable[[int, TracedReply], None]) -> None:
        """Some of these may belong to messages whose way is told."""
        for position, reply in enumerate(replies):
            if isinstance(reply, TracedReply):
                self._followed -= 1
                of(position, reply)

    def _take(self, batch: Inbound) -> None:
        group = self._group
        if batch.header_lens and max(batch.header_lens) > group.limits.header_bytes_max:
            self._take_fitting(batch)
            return
        if self.takes_batches and batch.header_lens and any(BATCH_ID_LINE in payload for payload in batch.payloads):
            self._take_members(batch)
            return
        if self._is_refused(batch, group.refusal()):
            return
        kept = batch if self.room is None else self._with_room(self.room, batch)
        if kept is not None:
            self._append(kept.subjects, kept.replies, kept.header_lens, kept.payloads)
            group.want()

    def _is_refused(self, batch: Inbound, refusal: ApiError | None) -> bool:
        """Whether nothing of the run can be taken, for this reason or for want of room; then everybody is told."""
        if refusal is not None:
            self._refuse(batch.replies, pub_ack.refused(self._name, refusal))
            return True
        limits = self._group.limits
        size = sum(map(len, batch.payloads)) + sum(map(len, batch.subjects))
        if (
            len(self._payloads) + self.in_flight_messages + len(batch.payloads) <= limits.uncommitted_messages_max
            and self._bytes + self.in_flight_bytes + size <= limits.uncommitted_bytes_max
        ):
            return False
        self._refuse(
            batch.replies,
            pub_ack.refused(self._name, api_error("JSStreamTooManyRequests")),
            header=b"NATS/1.0 429 Too Many Requests\r\n\r\n",
        )
        return True

    @property
    def coming_bytes(self) -> int:
        """What waits and is under way, about as states will count it."""
        count = len(self._payloads) + self.in_flight_messages
        return self._bytes + self.in_flight_bytes + count * self._group.stream.settings.record_overhead_bytes

    def _size(self, subjects: Sequence[bytes], header_lens: Sequence[int], payloads: Sequence[bytes]) -> int:
        """What these are in the stream's state, once stored."""
        settings = self._group.stream.settings
        size = sum(map(len, payloads)) + sum(map(len, subjects)) + len(payloads) * settings.record_overhead_bytes
        return size + (len(header_lens) - header_lens.count(0)) * settings.header_overhead_bytes

    def _with_room(self, room: Room, batch: Inbound) -> Inbound | None:
        """What there is room for; the others are told. Known message ids store nothing, and are told that later."""
        if room.take(self._size(batch.subjects, batch.header_lens, batch.payloads)) is None:
            return batch
        stream, lens = self._group.stream, batch.header_lens or [0] * len(batch.payloads)
        now_ns = max(self._group.clock.wall_ns(), stream.contents.last_time_ns)
        sizes = []
        for subject, length, payload in zip(batch.subjects, lens, batch.payloads, strict=True):
            msg_id = headers.value(payload[:length], headers.MSG_ID) if length else b""
            is_known = bool(msg_id) and stream.dedupe.find(msg_id, now_ns) > 0
            sizes.append(0 if is_known else self._size((subject,), (length,), (payload,)))
        refusals = room.judge(sizes)
        for reply, refusal in zip(batch.replies, refusals, strict=True):
            if refusal is not None:
                self._refuse((reply,), pub_ack.refused(self._name, refusal))
        kept = [at for at, refusal in enumerate(refusals) if refusal is None]
        return picked(batch, kept) if kept else None

    def _append(
        self,
        subjects: Sequence[bytes],
        replies: Sequence[bytes],
        header_lens: Sequence[int],
        payloads: Sequence[bytes],
    ) -> None:
        """Put these behind the columns that wait."""
        if header_lens:
            if not self._has_headers:
                self._header_lens = [0] * len(self._payloads)
                self._has_headers = True
            self._header_lens += header_lens
        elif self._has_headers:
            self._header_lens += [0] * len(payloads)
        self._subjects += subjects
        self._replies += replies
        self._payloads += payloads
        self._bytes += sum(map(len, payloads)) + sum(map(len, subjects))

    def _take_fast(self, batch: Inbound) -> None:
        """A run with parts of fast batches: in their turn, what stands between them as runs of their own."""
        start = 0
        for is_part, group in groupby(map(is_fast, batch.replies)):
            end = start + len(list(group))
            run = batch if end - start == len(batch.replies) else sliced(batch, start, end)
            if is_part:
                self._take_parts(run)
            else:
                self._take(run)
            start = end

    def _take_parts(self, batch: Inbound) -> None:
        """A run of which every message means to be a part of a fast batch."""
        group = self._group
        if self._is_refused(batch, group.refusal() or self.fast.refusal()):
            return
        if self.room is not None:
            refusal = self.room.take(self._size(batch.subjects, batch.header_lens, batch.payloads))
            if self._is_refused(batch, refusal):
                return
        at, total, lens = 0, len(batch.replies), batch.header_lens
        limit = group.stream.settings.max_msg_size_bytes
        is_plain = (limit < 0 or max(map(len, batch.payloads)) <= limit) and (
            not lens
            or (max(lens) <= group.limits.header_bytes_max and not any(map(headers.asks_for_level, batch.payloads)))
        )
        while at < total:
            end, run = self.fast.take(batch, at, is_plain=is_plain)
            if run is not None:
                self._runs.append((len(self._payloads), run))
                cut, payloads = lens[at:end], batch.payloads[at:end]
                if not is_plain and cut and headers.asks_for_level(payloads[0]):
                    header = headers.without(payloads[0][: cut[0]], headers.REQUIRED_LEVEL)
                    cut, payloads = (len(header),), (header + payloads[0][cut[0] :],)
                self._append(batch.subjects[at:end], [b""] * (end - at), cut, payloads)
            at = end
        self.fast.flush()
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
                self._refuse((reply,), answer if isinstance(answer, bytes) else pub_ack.refused(self._name, answer))
        if start < len(batch.payloads):
            self._take_plain(batch, start, len(batch.payloads))

    def _take_plain(self, batch: Inbound, start: int, end: int) -> None:
        """A part of a run that holds no member of a batch, or text in a body that only looks like one."""
        takes, self.takes_batches = self.takes_batches, False
        try:
            self._take(sliced(batch, start, end))
        finally:
            self.takes_batches = takes

    def _take_fitting(self, batch: Inbound) -> None:
        """A run with header blocks that no record can hold: those are refused one by one, the rest is taken."""
        bound = self._group.limits.header_bytes_max
        too_long = pub_ack.refused(self._name, api_error("JSStreamHeaderExceedsMaximumErr"))
        fitting = [position for position, length in enumerate(batch.header_lens) if length <= bound]
        self._refuse(
            [r for r, length in zip(batch.replies, batch.header_lens, strict=True) if length > bound], too_long
        )
        if fitting:
            self._take(picked(batch, fitting))

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
        refusal = None if self.room is None else self.room.take(self._size(*columns))
        if refusal is not None:
            self._refuse((reply,), pub_ack.refused(self._name, refusal))
            return
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
                self._refuse((reply,), pub_ack.refused(self._name, outcome))
                return
            named = encode(batch_id.decode("utf-8", "replace"))
            ack = b'{"stream":"%b","seq":%d,"batch":%b,"count":%d}'
            self._refuse((reply,), ack % (self._place, outcome.last_seq, named, outcome.count))

        try:
            data = encode_publish(now_ns, frames, is_atomic=True)
            group.propose_with(data, applied, message_count=count, cache=frames)
        except NotNow:
            applied(api_error("JSClusterNotAvailErr"))

    def forget(self) -> None:
        """What waits and what is under way is never answered: its outcome is unknown here."""
        self._subjects, self._replies, self._payloads, self._header_lens = [], [], [], []
        self._has_headers = False
        self._bytes = self.in_flight_messages = self.in_flight_bytes = self._followed = 0
        self.batches.clear()
        self._runs = []
        self.fast.clear()

    def resign(self) -> None:
        """This member no longer leads: what waits was never proposed, and is told so; the rest is never answered."""
        self.fast.lost(self._runs, [])
        self._refuse(self._replies, pub_ack.refused(self._name, api_error("JSClusterNotAvailErr")))
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
        runs = self._cut_runs(count)
        failed: list[int] = []
        if runs:
            rows = [(at, len(run.replies), run.batch.key) for at, run in runs]
            failed = self.fast.take_failed({run.batch.key for _, run in (*runs, *self._runs)})
            data = encode_fast(now_ns, FastHead(rows, failed), frames)
        else:
            data = encode_publish(now_ns, frames)
        self.in_flight_messages += count
        self.in_flight_bytes += size
        self.messages_total += count
        self.entries_total += 1
        wants_answer = any(replies)

        def applied(outcome: PublishOutcome) -> None:
            self.in_flight_messages -= count
            self.in_flight_bytes -= size
            if self._followed:
                self._tell(replies, lambda at, reply: reply.tell(outcome.exceptions.get(at)))
            if wants_answer and group.answers:
                self._answer(outcome, replies)
            if runs:
                self.fast.settle(runs, outcome)

        try:
            group.propose_with(data, applied, message_count=count, cache=frames)
        except NotNow:  # leadership is being handed over, or too much is under way
            self.in_flight_messages -= count
            self.in_flight_bytes -= size
            self._refuse(replies, pub_ack.refused(self._name, api_error("JSClusterNotAvailErr")))
            if runs:
                self.fast.lost(runs, failed)
        return size

    def _cut_runs(self, count: int) -> list[tuple[int, FastRun]]:
        """Parts of fast batches among the first ``count`` columns, which are on their way to the log."""
        waiting, self._runs = self._runs, []
        cut: list[tuple[int, FastRun]] = []
        for at, run in waiting:
            if at >= count:
                self._runs.append((at - count, run))
            elif at + len(run.replies) <= count:
                cut.append((at, run))
            else:
                head, rest = run.cut(count - at)
                cut.append((at, head))
                self._runs.append((0, rest))
        return cut

    # -- answers --------------------------------------------------------------------------------------------------

    def _answer(self, outcome: PublishOutcome, replies: Sequence[bytes]) -> None:
        outlet = self._group.outlet
        exceptions, values = outcome.exceptions, outcome.values
        if not exceptions and not values:
            outlet.pub_acks(self._place, replies, range(outcome.first_seq, outcome.first_seq + len(replies)))
            self._group.note_acks()
            return
        answers = []
        seq = outcome.first_seq
        for position in range(len(replies)):
            exception = exceptions.get(position)
            if exception is None:
                value = values.get(position)
                extra = b"" if value is None else b',"val":"%d"' % value
                answers.append(b'{"stream":"%b","seq":%d%b}' % (self._place, seq, extra))
                seq += 1
            elif isinstance(exception, Duplicate):
                answers.append(b'{"stream":"%b","seq":%d,"duplicate": true}' % (self._place, exception.seq))
            elif isinstance(exception, ApiError):
                answers.append(pub_ack.refused(self._name, exception))
            else:
                answers.append(b"")  # of a fast batch, which says more than one message's outcome
        wanted = [position for position, reply in enumerate(replies) if reply]
        outlet.publish([replies[p] for p in wanted], NO_HEADERS, [answers[p] for p in wanted])

    def _refuse(self, replies: Sequence[bytes], answer: bytes, header: bytes = b"") -> None:
        if self._followed:
            self._tell(replies, lambda _, reply: reply.tell_refusal(answer))
        wanted = [reply for reply in replies if reply]
        if wanted and self._group.answers:
            header_lens = [len(header)] * len(wanted) if header else NO_HEADERS
            self._group.outlet.publish(wanted, header_lens, [header + answer] * len(wanted))


def sliced(batch: Inbound, start: int, end: int) -> Inbound:
    """A part of a run."""
    return replace(
        batch,
        subjects=batch.subjects[start:end],
        replies=batch.replies[start:end],
        header_lens=batch.header_lens[start:end],
        payloads=batch.payloads[start:end],
    )


def picked(batch: Inbound, positions: Sequence[int]) -> Inbound:
    """Some messages of a run."""
    return replace(
        batch,
        subjects=[batch.subjects[at] for at in positions],
        replies=[batch.replies[at] for at in positions],
        header_lens=[batch.header_lens[at] for at in positions] if batch.header_lens else batch.header_lens,
        payloads=[batch.payloads[at] for at in positions],
    )


def transformed(transform: SubjectTransform, subjects: list[bytes]) -> list[bytes]:
    """The subjects that the messages are stored under."""
    made = {subject: transform.apply(subject) or subject for subject in subjects} if transform.is_pure else None
    if made is not None:
        return [made[subject] for subject in subjects]
    return [transform.apply(subject) or subject for subject in subjects]
