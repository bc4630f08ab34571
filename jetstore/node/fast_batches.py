"""Fast batches that clients are sending to one stream: who may send what next, and what is said of it.

A batch lives here, on the node that leads the stream, from its first message to its last; its messages go into the log
as they come. The reply subject of each says everything about it::

    <prefix>.<batch id>.<flow>.<ok|fail>.<number in the batch>.<operation>.$FI

``take`` judges what comes in and gives out runs of messages for the log; ``settle`` hears of each run when it is
durable and applied, and only then the client hears of it. Whatever else is to be said (a gap, the end, an answer to a
ping) waits until the messages in front of it are settled, so that a client gets everything in order. With ``fail`` a
refused message ends the batch, and apply sees to it that nothing behind it is stored (``stream/apply_fast.py``).

A batch ends without a word when nothing comes for ``IDLE_S``, or when another node leads: what comes then is unknown.
Source: ADR-50, fast ingest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.model.json import encode
from jetstore.model.levels import API_LEVEL
from jetstore.node import pub_ack
from jetstore.node.fast_reply import APPEND, COMMIT, END, PING, START, FastReply, parse_reply
from jetstore.node.ports import Inbound
from jetstore.stream import headers
from jetstore.stream.outcomes import BatchEnded, Duplicate, PublishOutcome

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

ID_BYTES_MAX = 64
IDLE_S = 10.0
"""A batch to which nothing comes for this long, while nothing of it is under way, is forgotten."""

Said = Callable[[Sequence[bytes], Sequence[bytes]], None]
"""Told reply subjects and what to send there."""


class OpenCount:
    """Fast batches of all streams of a node."""

    def __init__(self) -> None:
        """None."""
        self.open = 0


class FastBatch:
    """One batch under way."""

    __slots__ = (
        "acked",
        "batch_id",
        "deadline_s",
        "flow",
        "grant",
        "has_failed",
        "is_over",
        "key",
        "last_seq",
        "number",
        "settled",
        "taken",
        "waiting",
    )

    def __init__(self, number: int, said: FastReply, flow: int) -> None:
        self.number = number
        """No other batch of this process has it."""
        self.batch_id = said.batch_id
        self.key = 0 if said.is_gap_ok else number
        """What apply knows it by, if a refusal is to end it; else 0."""
        self.flow = flow
        """Messages between two flow acks that the client wants at most."""
        self.grant = flow
        """Messages until the next one."""
        self.taken = 0
        """Number of the last message that was taken, or passed over."""
        self.settled = 0
        """Number of the last one whose outcome is known."""
        self.acked = 0
        """Number that the last flow ack named."""
        self.last_seq = 0
        """Sequence in the stream of the last one that was stored."""
        self.waiting: deque[tuple[int, Callable[[FastBatch], None], bytes]] = deque()
        """What to do when the message of this number is settled, and the reply subject that it is said to."""
        self.has_failed = False
        """A refused message has ended it: what else was sent of it is unknown."""
        self.is_over = False
        """There is nothing more to say."""
        self.deadline_s = 0.0


class FastRun(NamedTuple):
    """Messages of one batch, next to each other and without a gap, on their way into the log."""

    batch: FastBatch
    first: int
    """Number of the first one."""
    replies: Sequence[bytes]
    is_commit: bool
    """The last of them is the last of the batch."""

    def cut(self, count: int) -> tuple[FastRun, FastRun]:
        """The first ``count`` messages, and the rest."""
        head = FastRun(self.batch, self.first, self.replies[:count], is_commit=False)
        return head, FastRun(self.batch, self.first + count, self.replies[count:], self.is_commit)


class FastBatches:
    """The fast batches of one stream."""

    def __init__(self, group: StreamGroup, say: Said) -> None:
        """None is under way; ``say`` sends answers."""
        self._group = group
        self._name = group.name
        self._place = pub_ack.place(group.name, group.outlet.domain)
        """Of PubAcks."""
        self._say = say
        self._open: dict[bytes, FastBatch] = {}
        self._last_number = 0
        self._failed: list[int] = []
        """Keys of batches that a refusal has ended, which the log has not been told yet."""
        self._timer_is_set = False
        self._replies: list[bytes] = []
        self._bodies: list[bytes] = []
        self.is_allowed = False
        """Whether the stream takes fast batches."""
        self.all = OpenCount()
        """Those of the whole node."""

    def clear(self) -> None:
        """Forget all of them without a word."""
        for batch in self._open.values():
            batch.is_over = True
        self.all.open -= len(self._open)
        self._open = {}

    # -- in -------------------------------------------------------------------------------------------------------

    def refusal(self) -> ApiError | None:
        """Why nothing of a fast batch is taken, or None."""
        if self._group.stream.settings.sealed:
            return api_error("JSStreamSealedErr")
        return None if self.is_allowed else api_error("JSBatchPublishDisabledErr")

    def take(self, given: Inbound, at: int, *, is_plain: bool) -> tuple[int, FastRun | None]:
        """Judge the message at this place: where the next one stands, and what goes into the log.

        ``is_plain``: none of all is too long or has a header that matters before it is in the log. Whoever calls it
        calls ``flush`` afterwards.
        """
        reply = given.replies[at]
        header_len = given.header_lens[at] if given.header_lens else 0
        payload = given.payloads[at]
        limit = self._group.stream.settings.max_msg_size_bytes
        if not is_plain and 0 <= limit < len(payload):
            return self._refuse(at, reply, "JSStreamMessageExceedsMaximumErr")
        said = parse_reply(reply)
        if said is None:
            return self._refuse(at, reply, "JSBatchPublishInvalidPatternErr")
        if len(said.batch_id) > ID_BYTES_MAX:
            return self._refuse(at, reply, "JSBatchPublishInvalidBatchIDErr")
        batch = self._open.get(said.batch_id)
        if (said.operation == START and said.number != 1) or (
            batch is None and said.number == 1 and said.operation in (APPEND, END)
        ):
            return self._refuse(at, reply, "JSBatchPublishInvalidPatternErr")
        if batch is None and (said.number != 1 or said.operation == PING):
            return self._refuse(at, reply, "JSBatchPublishUnknownBatchIDErr")
        header = payload[:header_len]
        if not is_plain and not _is_level_reached(header):
            if batch is not None:
                self._close(batch)
                batch.is_over = True
            return self._refuse(at, reply, "JSRequiredApiLevelErr")
        if batch is None:
            batch = self._begin(said)
            if batch is None:
                return self._refuse(at, reply, "JSBatchPublishTooManyInflight")
            if said.operation == START:
                self._ack(batch, reply)
        batch.deadline_s = self._group.loop.time() + IDLE_S
        self._watch()
        if not self._is_next(batch, said, reply):
            return at + 1, None
        batch.taken = said.number
        is_commit = said.operation == COMMIT
        if is_commit:
            self._close(batch)
        if header_len > self._group.limits.header_bytes_max:
            self._refuse_in_turn(batch, said.number, reply, "JSStreamHeaderExceedsMaximumErr", is_commit=is_commit)
            return at + 1, None
        end = at + 1
        if is_plain and not is_commit:
            end = _follow(given.replies, end, said)
            batch.taken += end - at - 1
        return end, FastRun(batch, said.number, given.replies[at:end], is_commit)

    def _begin(self, said: FastReply) -> FastBatch | None:
        limits = self._group.limits
        if len(self._open) >= limits.fast_batches_stream_max or self.all.open >= limits.fast_batches_max:
            return None
        self._last_number += 1
        batch = FastBatch(self._last_number, said, min(said.flow, limits.fast_batch_flow_max))
        if self._open:  # others are under way: a slow start
            batch.grant = 1
        self._open[said.batch_id] = batch
        self.all.open += 1
        return batch

    def _is_next(self, batch: FastBatch, said: FastReply, reply: bytes) -> bool:
        """Whether it is a message that goes into the log; if not, what it means is on its way to the client."""
        before, number = batch.taken, said.number
        is_gap_ok = not batch.key
        if said.operation == PING:
            if number > before:
                self._tell_gap(batch, before, number + 1, reply)
                if not is_gap_ok:
                    self._end(batch, before, reply)
                    return False
                batch.taken = number
                self._after(batch, before, lambda found: _pass_over(found, number), reply)
            self._after(batch, batch.taken, lambda found: self._ack(found, reply), reply)
            return False
        if number != before + 1:
            self._tell_gap(batch, before, number, reply)
            if number <= before or not is_gap_ok:
                self._end(batch, before, reply)
                return False
        if said.operation == END:
            self._end(batch, before, reply, count=number - 1)
            return False
        return True

    def _refuse_in_turn(self, batch: FastBatch, number: int, reply: bytes, name: str, *, is_commit: bool) -> None:
        """A message that the log cannot have: for the client it is as if apply had refused it."""
        if batch.key:  # apply, which has not seen it, would store what came behind
            self._close(batch)
        error = api_error(name)
        self._after(
            batch,
            number - 1,
            lambda found: self._failed_at(found, number, reply, error, is_commit=is_commit),
            reply,
        )

    def _tell_gap(self, batch: FastBatch, before: int, number: int, reply: bytes) -> None:
        body = b'{"type":"gap","last_seq":%d,"seq":%d}' % (before + 1, number)
        self._after(batch, before, lambda found: self._note(reply, body), reply)

    def _end(self, batch: FastBatch, after: int, reply: bytes, count: int = -1) -> None:
        """Nothing more is taken; say so when everything that was is settled."""
        self._close(batch)
        self._after(batch, after, lambda found: self._finish(found, reply, after if count < 0 else count), reply)

    def _after(self, batch: FastBatch, number: int, act: Callable[[FastBatch], None], reply: bytes) -> None:
        """Do this when the message of this number is settled: now, if it is."""
        batch.waiting.append((number, act, reply))
        self._proceed(batch)

    def _close(self, batch: FastBatch) -> None:
        """Take nothing more into it."""
        if self._open.get(batch.batch_id) is batch:
            del self._open[batch.batch_id]
            self.all.open -= 1

    # -- out ------------------------------------------------------------------------------------------------------

    def take_failed(self, coming: Collection[int]) -> list[int]:
        """Keys of ended batches, for the next entry: those of which nothing is ``coming``, in it or behind it."""
        failed = [key for key in self._failed if key not in coming]
        self._failed = [key for key in self._failed if key in coming]
        return failed

    def lost(self, runs: Sequence[tuple[int, FastRun]], failed: list[int]) -> None:
        """These runs could not be proposed, nor the keys that went with them: their batches are over."""
        self._failed = failed + self._failed
        for _, run in runs:
            self._close(run.batch)
            run.batch.is_over = True
            for reply in run.replies:
                self._refuse(0, reply, "JSClusterNotAvailErr")
        self.flush()

    def settle(self, runs: Sequence[tuple[int, FastRun]], outcome: PublishOutcome) -> None:
        """These runs, each with its place in the entry, are durable and applied."""
        exceptions = outcome.exceptions
        places = sorted(exceptions)
        seen = 0
        for at, run in runs:
            while seen < len(places) and places[seen] < at:
                seen += 1
            first_seq = outcome.first_seq + at - seen
            end = at + len(run.replies)
            if seen < len(places) and places[seen] < end:
                self._settle_each(run, [exceptions.get(place) for place in range(at, end)], first_seq)
            elif not run.batch.is_over:
                last = run.first + len(run.replies) - 1
                run.batch.last_seq = first_seq + len(run.replies) - 1
                if run.is_commit:
                    self._settle_to(run, run.first, last - 1)
                    self._finish(run.batch, run.replies[-1], last)
                else:
                    self._settle_to(run, run.first, last)
        self.flush()

    def _settle_to(self, run: FastRun, first: int, last: int) -> None:
        """The messages from ``first`` to ``last`` are processed: a flow ack if one is due, and what waited for it."""
        if last < first:
            return
        batch = run.batch
        batch.settled = last
        told = 0
        number = max(first, batch.acked + batch.grant)
        while number <= last:
            told = number
            batch.acked += (number - batch.acked) // batch.grant * batch.grant
            batch.grant = self._next_grant(batch)
            number = max(number + 1, batch.acked + batch.grant)
        if told:
            self._ack(batch, run.replies[told - run.first])
        if batch.waiting:
            self._proceed(batch)

    def _next_grant(self, batch: FastBatch) -> int:
        """Twice as many as before, up to what the client wants and the batch's share of what there is for all."""
        share = self._group.limits.fast_batch_flow_max // max(len(self._open), 1)
        return min(batch.grant * 2, batch.flow, max(share, 1))

    def _settle_each(
        self, run: FastRun, exceptions: Sequence[Duplicate | ApiError | BatchEnded | None], first_seq: int
    ) -> None:
        batch = run.batch
        seq = first_seq
        for place, exception in enumerate(exceptions):
            number, reply = run.first + place, run.replies[place]
            if exception is None:
                if not batch.is_over:
                    batch.last_seq = seq
                seq += 1
            if batch.has_failed:
                self._refuse(0, reply, "JSBatchPublishUnknownBatchIDErr")
                continue
            if batch.is_over:
                continue
            is_commit = run.is_commit and place == len(exceptions) - 1
            if isinstance(exception, ApiError):
                self._failed_at(batch, number, reply, exception, is_commit=is_commit)
                continue
            if not is_commit or isinstance(exception, Duplicate):
                self._settle_to(run, number, number)
            if is_commit:
                alone = exception if isinstance(exception, Duplicate) and number == 1 else None
                self._finish(batch, reply, number, alone)

    def _failed_at(self, batch: FastBatch, number: int, reply: bytes, error: ApiError, *, is_commit: bool) -> None:
        """A message was refused: the batch goes on without it, or ends in front of it."""
        if batch.key and number == 1:
            self._note(reply, pub_ack.refused(self._name, error))
            self._fail(batch)
            return
        shown = {"code": error.code, "err_code": error.err_code, "description": error.description}
        self._note(reply, encode({"type": "err", "seq": number, "error": shown}))
        if batch.key or is_commit:
            self._finish(batch, reply, number - 1)
            self._fail(batch)
            return
        batch.settled = number
        self._proceed(batch)

    def _fail(self, batch: FastBatch) -> None:
        """A refusal has ended it; what waited behind is unknown now."""
        self._close(batch)
        batch.is_over = batch.has_failed = True
        if batch.key:
            self._failed.append(batch.key)
        waiting, batch.waiting = batch.waiting, deque()
        for reply in dict.fromkeys(reply for _, _, reply in waiting):
            self._refuse(0, reply, "JSBatchPublishUnknownBatchIDErr")

    def _proceed(self, batch: FastBatch) -> None:
        """Do what waited for the messages that are settled."""
        while batch.waiting and batch.waiting[0][0] <= batch.settled and not batch.is_over:
            _, act, _ = batch.waiting.popleft()
            act(batch)

    # -- answers --------------------------------------------------------------------------------------------------

    def _finish(self, batch: FastBatch, reply: bytes, count: int, alone: Duplicate | None = None) -> None:
        """The last word on a batch."""
        self._close(batch)
        batch.is_over = True
        seq = batch.last_seq if alone is None else alone.seq
        extra = b"" if alone is None else b'"duplicate": true,'
        named = encode(batch.batch_id.decode("utf-8", "replace"))
        body = b'{"stream":"%b","seq":%d,%b"batch":%b,"count":%d}' % (self._place, seq, extra, named, count)
        self._note(reply, body, is_last=True)

    def _ack(self, batch: FastBatch, reply: bytes) -> None:
        self._note(reply, b'{"type":"ack","seq":%d,"msgs":%d}' % (batch.acked, batch.grant))

    def _refuse(self, at: int, reply: bytes, name: str) -> tuple[int, None]:
        self._note(reply, pub_ack.refused(self._name, api_error(name)))
        return at + 1, None

    def _note(self, reply: bytes, body: bytes, *, is_last: bool = False) -> None:
        """Streams without acknowledgements say of a batch only how it ended."""
        if is_last or self._group.answers:
            self._replies.append(reply)
            self._bodies.append(body)

    def flush(self) -> None:
        """Send what is to be said."""
        if self._replies:
            replies, self._replies = self._replies, []
            bodies, self._bodies = self._bodies, []
            self._say(replies, bodies)

    # -- time -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look again when the first of them may have been idle for too long."""
        if self._open and not self._timer_is_set:
            self._timer_is_set = True
            soonest_s = min(batch.deadline_s for batch in self._open.values())
            loop = self._group.loop
            loop.call_at(max(soonest_s, loop.time() + IDLE_S / 10), self._look)

    def _look(self) -> None:
        self._timer_is_set = False
        now_s = self._group.loop.time()
        for batch in [batch for batch in self._open.values() if batch.deadline_s <= now_s]:
            if batch.settled < batch.taken:  # the disk is slow, not the client
                batch.deadline_s = now_s + IDLE_S
            else:
                self._close(batch)
                batch.is_over = True
        self._watch()


def _pass_over(batch: FastBatch, number: int) -> None:
    """Messages up to this number never came."""
    batch.settled = number


def _follow(replies: Sequence[bytes], at: int, said: FastReply) -> int:
    """Where what goes on after ``said`` without a gap ends. The one loop over messages on their way in."""
    head, number = said.head, said.number
    for reply in islice(replies, at, None):
        number += 1
        if reply != b"%b%d.1.$FI" % (head, number):
            break
        at += 1
    return at


def _is_level_reached(header: bytes) -> bool:
    """Whether this server has the API level that a message asks for."""
    level = headers.value(header, headers.REQUIRED_LEVEL)
    return not level or 0 <= headers.sequence(level) <= API_LEVEL
