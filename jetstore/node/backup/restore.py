"""``RestoreSession``: a stream made of the archive that a client sends, chunk by chunk, each answered when it is taken.

The stream exists from the archive's first entry on, marked in the metadata as being restored: nobody sees it, it takes
no publishes and removes nothing. Its messages and consumers are entries of its own log, so its replicas have them, too.
When all is committed, one entry of the metadata makes it a stream like any other, and only then the client hears so.
Whatever happens before, the stream goes: this session takes it back where it can; after a crash, whoever leads the
metadata next does, because no session of its own makes it.

As with nats-server, a chunk's answer is empty, also after a failure; what was wrong is the answer to the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import structlog

from jetstore.errors import ApiError, ArchiveError, Corruption, JetstoreError, NotNow, OperatingError, OutcomeUnknown
from jetstore.hot.columns import Columns
from jetstore.hot.frame import HEADER_BYTES_MAX, encode_frames
from jetstore.limits import SEQUENCE_MAX
from jetstore.meta.state import encode_abandoned, encode_restored
from jetstore.meta.stream_key import account_of, name_of
from jetstore.model.api_errors import api_error
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.consumer_checks import admit_consumer, check_consumer_name, checked_consumer
from jetstore.model.json import DecodeError, GoStruct, Time, Uint64, decode_fields
from jetstore.node.backup.archive import ArchiveReader, EntryHead
from jetstore.node.backup.consumer_json import ReadConsumer, decode_consumer, rows_of
from jetstore.node.backup.s2 import S2Reader
from jetstore.node.ports import Inbound
from jetstore.store.ports import Frame
from jetstore.stream import headers
from jetstore.stream.entries import RestoredHead
from jetstore.stream.entries import encode_restored as encode_part
from jetstore.stream.outcomes import RestoredOutcome
from jetstore.stream.subjects import is_literal, is_valid_subject
from jetstore.stream.ttl import SECOND_NS

if TYPE_CHECKING:
    from jetstore.node.node import Node
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)

STALL_S: Final = 5.0
"""A client that sends nothing for this long has gone."""
SERVE_WAIT_S: Final = 10.0
"""How long the new stream may take to be led from here."""
SLICE_BYTES: Final = 16 * 1024
"""Of an archive, read between two turns of the event loop."""
PART_MESSAGES: Final = 128
PART_BYTES: Final = 256 * 1024
"""What goes into one entry, or one message."""
PARTS_IN_FLIGHT: Final = 8
ROWS: Final = 4_096
"""Rows of a consumer's state in one entry, of either kind."""
ROW_BYTES: Final = 256
"""What one of each takes in an entry, at most."""

OpenStream = Callable[[], Awaitable["StreamGroup"]]
"""Makes the stream, marked as being restored. Raises ``ApiError``."""


class _State(GoStruct):
    """``state.json``, as far as it matters."""

    first_seq: Uint64 = 0
    last_seq: Uint64 = 0
    last_ts: Time = 0
    consumer_count: Uint64 = 0


class _Part:
    """Messages that wait for their entry, as columns."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.times: list[int] = []
        self.subjects: list[bytes] = []
        self.header_lens: list[int] = []
        self.payloads: list[bytes] = []
        self.bytes = 0

    def frames(self, frame_bytes_max: int) -> tuple[list[int], list[Frame]]:
        """First sequences and frames: one frame for what follows each other in sequence and time."""
        seqs: list[int] = []
        frames: list[Frame] = []
        start = 0
        for at in range(1, len(self.seqs) + 1):
            if (
                at < len(self.seqs)
                and self.seqs[at] == self.seqs[at - 1] + 1
                and self.times[at] == self.times[at - 1] + 1
            ):
                continue
            run = Columns(self.subjects[start:at], self.header_lens[start:at], self.payloads[start:at])
            seq = self.seqs[start]
            for frame in encode_frames(run, self.times[start], frame_bytes_max):
                seqs.append(seq)
                frames.append(frame)
                seq += frame.count
            start = at
        return seqs, frames


class RestoreSession:
    """One restore. ``run`` is all of it; ``on_messages`` takes the chunks."""

    def __init__(self, node: Node, name: str, subject: bytes, open_stream: OpenStream) -> None:
        """``name``: the stream's key; ``subject``: where the chunks come."""
        self._node = node
        self._name = name
        self._open_stream = open_stream
        self._outlet = node.outlet_of(account_of(name))
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._is_flooded = False
        self._s2 = S2Reader()
        self._archive = ArchiveReader(self._check_head)
        self._group: StreamGroup | None = None
        self._state: _State | None = None
        self._consumers: list[ReadConsumer] = []
        self._consumer_bytes = 0
        self._is_complete = False
        self._is_unknown = False
        """Nobody knows whether the last entry came about: the client is told nothing definite."""
        self._last_seq = 0
        self._part = _Part()
        self._part_bytes = min(PART_BYTES, node.limits.entry_bytes_max // 2)
        self._in_flight: deque[asyncio.Future[Any]] = deque()
        self.bytes = 0
        """Of chunks taken."""
        self._subscription = self._outlet.subscribe(subject, self)

    # -- chunks -------------------------------------------------------------------------------------------------------

    def on_messages(self, batch: Inbound) -> None:
        """Chunks arrived."""
        for i, payload in enumerate(batch.payloads):
            body = payload[batch.header_lens[i] :] if batch.header_lens else payload
            self._queue.append((batch.replies[i], body))
            self._queued_bytes += len(body)
        if self._queued_bytes > self._node.limits.restore_queue_bytes:
            self._is_flooded = True
            self._subscription.close()
        self._arrived.set()

    async def _next(self) -> tuple[bytes, bytes] | None:
        """The next chunk and where its answer goes; None if there is none for too long."""
        try:
            async with asyncio.timeout(STALL_S):
                while not self._queue:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None
        reply, body = self._queue.popleft()
        self._queued_bytes -= len(body)
        return reply, body

    async def run(self) -> tuple[StreamGroup | ApiError, bytes] | None:
        """The stream, or why there is none, and who is to be told; None: nobody is told anything."""
        error: ApiError | None = None
        is_done = False
        try:
            while True:
                chunk = await self._next()
                if chunk is None:
                    log.warning("restore stalled", stream=self._name)
                    return None
                reply, body = chunk
                if not reply:
                    return _refusal(
                        f"restore for stream '{name_of(self._name)}' requires reply subject for each chunk"
                    ), b""
                if error is None:
                    error = await self._attempt(self._take(body) if body else self._finish())
                    if error is not None:
                        await self._give_up()
                if self._is_unknown:
                    log.warning("outcome of a restore unknown", stream=self._name)
                    return None
                if not body:
                    break
                self.bytes += len(body)
                self._outlet.publish([reply], (), [b""])
            if error is not None:
                return error, reply
            is_done = True
            assert self._group is not None
            return self._group, reply
        finally:
            self._subscription.close()
            if not is_done:
                await self._give_up()

    async def _attempt(self, work: Awaitable[None]) -> ApiError | None:
        """Why it failed, if it did."""
        try:
            if self._is_flooded:
                raise ArchiveError("more chunks were sent than answers waited for")
            await work
        except ApiError as error:
            return error
        except (ArchiveError, Corruption) as error:
            return _refusal(str(error))
        except OperatingError as error:
            log.error("restore failed", stream=self._name, error=str(error))
            return api_error("JSInsufficientResourcesErr")
        except JetstoreError as error:  # not now, or nobody knows what became of it
            return _refusal(f"the stream is not led from here any more: {error}")
        finally:
            if asyncio.iscoroutine(work):
                work.close()
        return None

    async def _give_up(self) -> None:
        """Take the stream back. Where that cannot be done, whoever leads the metadata does it."""
        group, self._group = self._group, None
        for future in self._in_flight:
            future.cancel()
        self._in_flight.clear()
        if group is None:
            return
        meta = self._node.meta
        assignment = meta.machine.streams.get(self._name)
        self._node.backups.restoring.discard(group.uid)
        if assignment is None or assignment.uid != group.uid or meta.stopped:
            return
        try:
            await meta.call(encode_abandoned(assignment))
        except JetstoreError as error:
            log.warning("half a stream is left to be deleted", stream=self._name, error=str(error))
            self._node.assignments.give_up_restores()

    # -- the archive --------------------------------------------------------------------------------------------------

    def _check_head(self, head: EntryHead) -> None:
        """Refuse an entry before its bytes are waited for."""
        limits = self._node.limits
        if not head.seq:
            size = head.header_bytes + head.body_bytes
            if size > limits.archive_consumer_bytes or size + self._consumer_bytes > limits.archive_consumers_bytes:
                raise ArchiveError(f"entry {_shown(head.name)} is too large: {size} bytes")
            return
        if head.seq > SEQUENCE_MAX:
            raise ArchiveError(f"message sequence {head.seq} is too large")
        size = head.header_bytes + head.body_bytes
        if size > limits.max_payload_bytes or head.header_bytes > HEADER_BYTES_MAX:
            raise ArchiveError(f"message sequence {head.seq} exceeds maximum payload size")
        config = self._group.stream.config if self._group is not None else None
        if config is not None and 0 <= config.max_msg_size < size:
            raise ArchiveError(f"message sequence {head.seq} exceeds maximum message size")

    async def _take(self, chunk: bytes) -> None:
        for piece in self._s2.feed(chunk):
            for start in range(0, len(piece), SLICE_BYTES):
                for head, content in self._archive.feed(piece[start : start + SLICE_BYTES]):
                    await self._take_entry(head, content)
                await asyncio.sleep(0)
            if not piece:
                await asyncio.sleep(0)

    async def _take_entry(self, head: EntryHead, content: bytes) -> None:
        state = self._state
        if state is None:
            if head.name != b"state.json":
                raise ArchiveError("expected state.json first")
            self._state = state = _decode_state(content)
            self._group = await self._open_stream()
            if not self._group.serves:
                raise ArchiveError("another server leads the new stream: restore it there")
            if state.first_seq > 1:
                await self._send(RestoredHead([], state.first_seq - 1), [])
        elif self._is_complete:
            raise ArchiveError("more entries after the end of the archive")
        elif len(self._consumers) < state.consumer_count:
            name = _shown(head.name)
            if not name.startswith("consumers/"):
                raise ArchiveError(f'expected consumer, found "{name}"')
            self._consumer_bytes += len(content)
            read: ReadConsumer | None = None
            for step in decode_consumer(name.removeprefix("consumers/"), content):
                read = step
                await asyncio.sleep(0)
            assert read is not None
            self._consumers.append(read)
        elif head.seq:
            await self._take_message(head, content)
        elif head.time_ns or content:
            raise ArchiveError("expected message sequence")
        else:
            self._is_complete = True

    async def _take_message(self, head: EntryHead, content: bytes) -> None:
        name, time_ns, seq, header_bytes, _ = head
        header = content[:header_bytes]
        if seq <= self._last_seq:
            raise ArchiveError(f"message sequence {seq} out of order")
        if not is_valid_subject(name) or not is_literal(name):
            raise ArchiveError(f"message sequence {seq} has no valid subject")
        if header and not (header.startswith(headers.PLAIN_START) and header.endswith(b"\r\n\r\n")):
            raise ArchiveError(f"message sequence {seq} has no valid header")
        self._last_seq = seq
        try:
            ttl_s = headers.ttl_s(headers.value(header, headers.TTL)) if header else 0
        except ValueError as error:
            raise ArchiveError(f"failed to parse message TTL: {error}") from None
        if 0 < ttl_s * SECOND_NS < self._node.clock.wall_ns() - time_ns:
            return  # expired meanwhile: its sequence stays empty
        size = len(content) + len(name)
        part = self._part
        if part.seqs and (part.bytes + size > self._part_bytes or len(part.seqs) >= PART_MESSAGES):
            await self._flush()
            part = self._part
        part.seqs.append(seq)
        part.times.append(time_ns)
        part.subjects.append(name)
        part.header_lens.append(header_bytes)
        part.payloads.append(content)
        part.bytes += size

    # -- entries ------------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        part, self._part = self._part, _Part()
        if part.seqs:
            seqs, frames = part.frames(self._node.limits.frame_bytes_max)
            await self._send(RestoredHead(seqs), frames)

    async def _send(self, head: RestoredHead, frames: list[Frame]) -> None:
        """Propose a part; a few are on their way at once."""
        refusal = self._node.admission()
        if refusal is not None:
            raise refusal
        assert self._group is not None
        entry = encode_part(self._group.now_ns(), head, frames)
        self._in_flight.append(self._group.propose(entry))
        if len(self._in_flight) > PARTS_IN_FLIGHT:
            await self._settle(PARTS_IN_FLIGHT)

    async def _settle(self, left: int) -> None:
        """Until only so many parts are on their way."""
        while len(self._in_flight) > left:
            outcome = await self._in_flight.popleft()
            if not isinstance(outcome, RestoredOutcome):
                raise outcome

    async def _finish(self) -> None:
        """Everything has come: put the last of it in, and make the stream one like any other."""
        state, group = self._state, self._group
        if not self._s2.is_between or not self._archive.is_between or not self._is_complete:
            raise ArchiveError("backup was truncated" if self.bytes else "EOF")
        assert state is not None
        assert group is not None
        await self._flush()
        last_seq = max(state.last_seq, self._last_seq)
        await self._send(RestoredHead([], last_seq), [])
        existing: dict[str, ConsumerConfig] = {}
        for read in self._consumers:
            if read.delivered[1] > last_seq:
                raise ArchiveError(f'failed to set consumer "{read.name}" state: delivered beyond the stream')
            config = existing[read.name] = self._admitted(read, existing)
            rows = min(ROWS, self._node.limits.entry_bytes_max // ROW_BYTES)
            for head in _consumer_heads(read, config, group.now_ns(), rows):
                await self._send(RestoredHead([], 0, [head]), [])
            await asyncio.sleep(0)
        await self._send(RestoredHead([], 0, (), is_last=True, last_time_ns=state.last_ts), [])
        await self._settle(0)
        meta = self._node.meta
        assignment = meta.machine.streams.get(self._name)
        if assignment is None or assignment.uid != group.uid:
            raise NotNow("who leads the metadata now has taken it back")
        try:
            await meta.call(encode_restored(assignment))
        except OutcomeUnknown:
            self._is_unknown = True
            raise
        self._node.backups.restoring.discard(group.uid)

    def _admitted(self, read: ReadConsumer, existing: dict[str, ConsumerConfig]) -> ConsumerConfig:
        """Its configuration, checked as that of a new one."""
        assert self._group is not None
        stream = self._group.stream.config
        assert stream is not None
        try:
            check_consumer_name(read.name)
            if read.name in existing:
                raise api_error("JSConsumerNameExistErr")
            if read.config.sourcing:  # nobody but a mirror or source could have made it
                return read.config.model_copy(update={"name": read.name})
            config = checked_consumer(read.config.model_copy(update={"name": read.name}), stream)
            return admit_consumer(config, stream, existing) or config
        except ApiError as error:
            raise ArchiveError(
                f'failed to add consumer "{read.name}": {error.description} ({error.err_code})'
            ) from None


def _consumer_heads(read: ReadConsumer, config: ConsumerConfig, now_ns: int, rows: int) -> list[dict[str, Any]]:
    """What entries say of it: the first makes it, the others bring more rows. Any: JSON values."""
    pending, exhausted = rows_of(read, config)
    heads: list[dict[str, Any]] = []
    while not heads or pending or exhausted:
        head: dict[str, Any] = {"name": read.name, "pending": pending[:rows], "exhausted": exhausted[:rows]}
        pending, exhausted = pending[rows:], exhausted[rows:]
        if not heads:
            head |= {
                "config": config.to_json(),
                "created_ns": now_ns,
                "generation": now_ns,
                "delivered": [*read.delivered, 0],
                "ack_floor": [*read.ack_floor, 0],
                "skip": [read.skip_until, read.skip],
            }
        heads.append(head)
    return heads


def _decode_state(content: bytes) -> _State:
    try:
        state = _State(**decode_fields(_State, content, "StreamState", strict=False))
    except DecodeError as error:
        raise ArchiveError(f"error in state.json: {error}") from None
    if max(state.first_seq - 1, state.last_seq) > SEQUENCE_MAX:
        raise ArchiveError("error in state.json: a sequence that is too large")
    return state


def _refusal(text: str) -> ApiError:
    return api_error("JSStreamRestoreErrF", err=text)


def _shown(name: bytes) -> str:
    return name[:256].decode("utf-8", "replace")
