"""Mirrors and sources of streams in this server: the leader reads its origins and proposes what it finds.

An origin says when it has applied something; the copier then reads the next messages from the applied state of the
origin and proposes them as one entry, together with how far that is. One entry of a source is under way at a time.
An origin with work-queue or interest retention gets a consumer for it (``sourced_consumers.py``), before anything is
copied; when an entry is applied, it is durable in the copy, and only then the consumer in the origin passes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from jetstore.consumer.state import ConsumerState
from jetstore.errors import ApiError, Corruption, NotNow
from jetstore.hot.frame import encode_frames
from jetstore.model.api_errors import api_error
from jetstore.model.consumer import AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy
from jetstore.model.consumer_checks import unsupported
from jetstore.model.infos import SourceInfo
from jetstore.model.source_checks import MIRROR_KEY, origin_keys, origins_of, shown_origin
from jetstore.model.stream import RetentionPolicy, StreamSource
from jetstore.model.transforms import SubjectTransform
from jetstore.node.external import ExternalOrigin
from jetstore.node.sourced_consumers import (
    encode_settled,
    encode_sourced_consumer,
    remove_abandoned,
    sourced_consumer_name,
)
from jetstore.store.ports import Columns, Frame, Message
from jetstore.stream import headers
from jetstore.stream.apply_sourced import ANY_ORIGIN
from jetstore.stream.entries import SourcedHead, encode_sourced
from jetstore.stream.outcomes import SourcedOutcome
from jetstore.stream.subjects import filter_of

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

MESSAGES_AT_ONCE = 512
BYTES_AT_ONCE = 256 * 1024
"""What one entry copies, at most; or one message."""
NEAR = 10
"""A mirror that is fewer messages behind its origin may answer direct gets in its place."""
RETRY_S = 1.0
"""How soon an origin that was not there, or a stream that had no room, is tried again."""
ASK_AGAIN_S = 10.0
"""How often nats-server asks an origin that is not heard of."""
SWEEP_S = 5.0
"""How often an origin looks whether mirrors and sources that have consumers in it still exist."""
_DROPPED = (
    headers.EXPECTED_STREAM,
    headers.EXPECTED_LAST_SEQ,
    headers.EXPECTED_LAST_SUBJECT_SEQ,
    headers.EXPECTED_LAST_SUBJECT_SEQ_SUBJECT,
    headers.EXPECTED_LAST_MSG_ID,
    headers.BATCH_ID,
    headers.BATCH_SEQUENCE,
    headers.BATCH_COMMIT,
)
"""Headers that meant something to the origin only."""


class Sourcing:
    """The mirror or the sources of one stream, while this node leads it."""

    def __init__(self, group: StreamGroup) -> None:
        """Idle until ``follow``."""
        self._group = group
        self._copiers: list[_Copier] = []
        self._sweep: asyncio.Handle | None = None

    def follow(self) -> None:
        """Copy what the stream's configuration says now."""
        self.leave()
        config = self._group.stream.config
        if config is not None and (config.mirror is not None or config.sources):
            pairs = zip(origin_keys(config), origins_of(config), strict=True)
            self._copiers = [_Copier(self._group, key, source) for key, source in pairs]
            for copier in self._copiers:
                copier.wake()
        self.sweep_soon()

    def sweep_soon(self) -> None:
        """A mirror or source of somebody else may have left its consumer here."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = self._group.loop.call_soon(self._run_sweep)

    def _run_sweep(self) -> None:
        self._sweep = None
        group = self._group
        if group.serves and not group.is_faulty and not group.is_restoring and remove_abandoned(group):
            self._sweep = group.loop.call_later(SWEEP_S, self._run_sweep)

    def leave(self) -> None:
        """Copy nothing more."""
        for copier in self._copiers:
            copier.close()
        self._copiers = []
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    @property
    def is_near(self) -> bool:
        """Whether everything has nearly caught up with its origin, once."""
        return bool(self._copiers) and all(copier.is_near for copier in self._copiers)

    def infos(self) -> tuple[SourceInfo | None, Sequence[SourceInfo]]:
        """The mirror, and the sources, as infos show them."""
        shown = [copier.info() for copier in self._copiers]
        if self._copiers and self._copiers[0].is_mirror:
            return shown[0], ()
        return None, shown


def direct_mirror(groups: Iterable[StreamGroup], origin: str) -> str:
    """The mirror that answers direct gets of a stream that does not itself: its origin may be gone. "" = none."""
    names = []
    for group in groups:
        config = group.stream.config
        if config is not None and config.mirror is not None and config.mirror.name == origin:
            names += [group.name] if config.mirror_direct and group.sourcing.is_near else []
    return min(names, default="")


class _Copier:
    """Copies from one origin."""

    def __init__(self, group: StreamGroup, key: str, source: StreamSource) -> None:
        self.group = group
        self.key = key
        self.source = source
        self.is_mirror = key == MIRROR_KEY
        self.error: ApiError | None = None
        self.is_near = False
        """It was fewer than ``NEAR`` messages behind since it follows."""
        self._external = None if source.external is None else ExternalOrigin(group, key, source)
        self._origin: StreamGroup | None = None
        self._looked_s = -1.0
        self._is_closed = self._is_scheduled = self._in_flight = False
        self._is_settling = False
        """An entry about the consumer in the origin is under way."""
        self._retry: asyncio.TimerHandle | None = None
        transforms = source.subject_transforms
        self._patterns = patterns = [each.src or ">" for each in transforms] or [source.filter_subject or ">"]
        self._filter = filter_of([pattern.encode() for pattern in patterns])
        self._transforms = [SubjectTransform(each.src, each.dest) for each in transforms if each.dest]
        self._transform_text = b">"
        if len(transforms) == 1 and transforms[0].dest:
            self._transform_text = transforms[0].dest.encode()
        self._filter_text = " ".join(patterns).encode() if len(patterns) == 1 else b">"

    def close(self) -> None:
        """Look at the origin no more. What is under way may still be stored."""
        self._is_closed = True
        if self._origin is not None:
            self._origin.watchers.pop(self, None)
            self._origin.sourcing.sweep_soon()
            engine = self._origin.delivery.sourced(self.source.consumer.name) if self.source.consumer else None
            if engine is not None:
                engine.let_go(self)
        if self._retry is not None:
            self._retry.cancel()

    def info(self) -> SourceInfo:
        """How far it is."""
        origin = self._origin
        position = self.group.stream.origins.get(self.key, (0, 0))[1]
        lag = 0
        if origin is not None and self._in_flight:
            lag = max(origin.stream.contents.last_seq - position, 0)
        active_ns = -1 if self._looked_s < 0 else int((self.group.loop.time() - self._looked_s) * 1e9)
        seq = 0 if self.is_mirror else position
        return SourceInfo(self.source, lag, seq, active_ns, self.error)

    def wake(self) -> None:
        """There may be something to copy. Cheap."""
        if not (self._is_scheduled or self._is_closed or self._in_flight):
            self._is_scheduled = True
            self.group.loop.call_soon(self._run)

    def _later(self, wait_s: float = RETRY_S) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if not self._is_closed:
            self._retry = self.group.loop.call_later(wait_s, self.wake)

    def _run(self) -> None:
        self._is_scheduled = False
        if self._is_closed or self._in_flight or not self.group.serves:
            return
        origin = self._find()
        if origin is None:
            self._later()
            return
        if self.group.refusal() is not None:
            self._later()
            return
        own = None if self.source.consumer is None else origin.stream.consumers.get(self.source.consumer.name)
        if self.source.consumer is not None and not self._may_have(own):
            self._later()
            return
        is_silent = (self._external is not None and self._external.is_silent) or not self._is_heard(origin, own)
        self._note_look(is_silent)
        if is_silent and own is not None:  # it may be another's: it is not ours to move
            self._later()
            return
        try:
            if not self._settle(origin):
                return
            if is_silent:
                self._later()
                return
            contents = origin.stream.contents
            wanted = self._filter if own is None else own.subject_filter
            seqs = contents.next_seqs(self._position(origin) + 1, wanted, MESSAGES_AT_ONCE)
            self.is_near = self.is_near or len(seqs) < NEAR
            messages = contents.log.read_many(seqs, BYTES_AT_ONCE) if seqs else []
        except Corruption as error:
            origin.note_damage(error)
            self._later(60.0)
            return
        if messages:
            self._propose(origin, messages)
        else:
            self._later()  # nobody says so when an origin is deleted, or made anew

    def _may_have(self, own: ConsumerState | None) -> bool:
        """Whether the consumer that was made for this one can be."""
        if own is not None and own.config.ack_policy is not AckPolicy.FLOW_CONTROL:
            kind = "Mirror" if self.is_mirror else "Source"
            self.error = api_error(f"JS{kind}ConsumerRequiresAckFCErr")
            return False
        if own is not None and (way := _uncopied(own.config)):
            self.error = unsupported(f"a mirror or source by a consumer with {way}")
            return False
        return own is not None

    def _is_heard(self, origin: StreamGroup, own: ConsumerState | None) -> bool:
        """Whether the consumer that was made for this one would deliver to it now."""
        wanted = self.source.consumer
        if wanted is None or own is None:
            return True
        engine = origin.delivery.sourced(wanted.name)
        if engine is None:
            return False
        config = own.config
        if config.deliver_subject != wanted.deliver_subject or config.deliver_group:
            engine.let_go(self)
            return False
        if not engine.bind(self):
            self.error = api_error("JSSourceDurableConsumerDuplicateDetected")
            return False
        return own.pause_until_ns <= self.group.clock.wall_ns()

    def _find(self) -> StreamGroup | None:
        """The origin, if it can be read now."""
        origin: StreamGroup | None
        error: ApiError | None = None
        if self._external is None:
            origin = self.group.find_stream(self.source.name)
            if origin is None:
                error = api_error("JSStreamNotFoundErr")
        else:
            origin, error = self._external.find()
        if origin is not self._origin:
            if self._origin is not None:
                self._origin.watchers.pop(self, None)
            self._origin = origin
            self._is_settling = False
        if origin is None:
            self.error = error
            return None
        origin.watchers[self] = self.wake
        config = origin.stream.config
        if not origin.serves or origin.is_faulty or config is None:
            self._is_settling = False  # what waits for an outcome there gets none any more
            self.error = api_error("JSClusterNotAvailErr")
            return None
        self.error = None
        return origin

    def _note_look(self, is_silent: bool) -> None:
        """Of an origin that would answer a request, and then not reach us, the request is all that there is."""
        now_s = self.group.loop.time()
        if not is_silent or self._looked_s < 0 or now_s - self._looked_s >= ASK_AGAIN_S:
            self._looked_s = now_s

    def _settle(self, origin: StreamGroup) -> bool:
        """Let the origin know what is durable here, if it keeps messages for us; whether copying may go on.

        The position in the applied state is durable: apply takes no entry before the journal has it.
        """
        config = origin.stream.config
        own = self.source.consumer
        name = own.name if own is not None else sourced_consumer_name(self.group.uid, self.key)
        state = origin.stream.consumers.get(name)
        assert config is not None
        if state is None:
            if config.retention is RetentionPolicy.LIMITS:
                return True
            if not self._is_settling:
                prefix = self.source.external.deliver if self.source.external is not None else ""
                position, now_ns = self._position(origin), origin.now_ns()
                made = encode_sourced_consumer(self.group, self.key, self._patterns, prefix, position, now_ns)
                self._tell(origin, made, known=False)
            return False
        if self._external is not None and not self._external.may_settle(origin):
            return True
        known = self.group.stream.origins.get(self.key)
        is_behind = known is not None and known[0] == origin.uid and known[1] >= state.cursor.next_seq
        if known is not None and is_behind and not self._is_settling:
            self._tell(origin, encode_settled(state, known[1], origin.now_ns()), known=True)
        return True

    def _tell(self, origin: StreamGroup, entry: bytes, *, known: bool) -> None:
        self._is_settling = True

        def applied(outcome: object) -> None:
            if origin is self._origin:
                self._is_settling = False
            if not known:
                origin.sourcing.sweep_soon()  # we may be gone meanwhile
            self.wake()

        try:
            origin.propose_with(entry, applied)
        except NotNow:
            self._is_settling = False
            self._later()

    def _position(self, origin: StreamGroup) -> int:
        """The last sequence of the origin that needs no more copying."""
        stream = self.group.stream
        known = stream.origins.get(self.key)
        if known is not None and known[0] in (origin.uid, ANY_ORIGIN):
            return known[1]
        if self.is_mirror and stream.contents.last_seq:
            return stream.contents.last_seq
        own = None if self.source.consumer is None else origin.stream.consumers.get(self.source.consumer.name)
        if own is not None:
            return own.cursor.next_seq - 1
        if known is not None:  # the origin was made anew
            return 0
        if self.source.opt_start_seq:
            return self.source.opt_start_seq - 1
        if self.source.opt_start_time:
            return origin.stream.contents.seq_at_time(self.source.opt_start_time) - 1
        return 0

    # -- proposing ----------------------------------------------------------------------------------------------------

    def _propose(self, origin: StreamGroup, messages: Sequence[Message]) -> None:
        group = self.group
        now_ns = group.stream.next_time_ns(group.clock.wall_ns(), len(messages))
        frames = self._mirrored(messages) if self.is_mirror else self._sourced(origin, messages, now_ns)
        head = SourcedHead(self.key, origin.uid, [message.seq for message in messages])
        self._in_flight = True

        def applied(outcome: SourcedOutcome) -> None:
            self._in_flight = False
            if outcome.taken < len(messages):
                self._later()
            else:
                self.wake()

        try:
            group.propose_with(encode_sourced(now_ns, head, frames), applied, message_count=len(messages))
        except NotNow:
            self._in_flight = False
            self._later()

    def _subject(self, subject: bytes) -> bytes:
        for transform in self._transforms:
            made = transform.apply(subject)
            if made is not None:
                return made
        return subject

    def _mirrored(self, messages: Sequence[Message]) -> list[Frame]:
        """Frames of messages whose sequences and times follow each other."""
        frames: list[Frame] = []
        start = 0
        for at in range(1, len(messages) + 1):
            if at < len(messages):
                before, this = messages[at - 1], messages[at]
                if this.seq == before.seq + 1 and this.time_ns == before.time_ns + 1:
                    continue
            run = messages[start:at]
            blocks = [_kept(message.header) for message in run]
            frames += self._frames([self._subject(message.subject) for message in run], blocks, run, run[0].time_ns)
            start = at
        return frames

    def _sourced(self, origin: StreamGroup, messages: Sequence[Message], now_ns: int) -> list[Frame]:
        name, identity = shown_origin(self.source).encode(), b"%08x" % (origin.uid & 0xFFFFFFFF)
        subjects = [self._subject(message.subject) for message in messages]
        blocks = [
            headers.with_line(
                headers.without(_kept(message.header), headers.STREAM_SOURCE),
                headers.STREAM_SOURCE,
                b" ".join(
                    (name, b"%d" % message.seq, self._filter_text, self._transform_text, message.subject, identity)
                ),
            )
            for message in messages
        ]
        return self._frames(subjects, blocks, messages, now_ns)

    def _frames(
        self, subjects: list[bytes], blocks: list[bytes], messages: Sequence[Message], time_ns: int
    ) -> list[Frame]:
        lens = list(map(len, blocks))
        payloads = [block + message.data for block, message in zip(blocks, messages, strict=True)]
        return encode_frames(
            Columns(subjects, lens if any(lens) else (), payloads), time_ns, self.group.limits.frame_bytes_max
        )


def _uncopied(config: ConsumerConfig) -> str:
    """What a consumer is asked for that copying does not do; "" = nothing."""
    if config.headers_only:
        return "headers_only"
    if config.rate_limit_bps:
        return "rate_limit_bps"
    if config.replay_policy is not ReplayPolicy.INSTANT:
        return "replay_policy original"
    return "deliver_policy last_per_subject" if config.deliver_policy is DeliverPolicy.LAST_PER_SUBJECT else ""


def _kept(header: bytes) -> bytes:
    """The block without what meant something to the origin only."""
    if b"\r\nNats-Expected-" not in header and b"\r\nNats-Batch-" not in header:
        return header
    for name in _DROPPED:
        header = headers.without(header, name)
    return header
