"""``Stream``: the state machine of one stream. Everything that changes it is an entry; everything else only looks.

``apply`` takes one entry to one outcome, the same on every replica: a pure function of state and entry. It never fails
on what a client sent; it raises only when its own input is unreadable (``Corruption``): then the group stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from jetstore.consumer.apply import apply_entry as apply_consumer_entry
from jetstore.consumer.state import ConsumerState
from jetstore.limits import Limits
from jetstore.model.infos import StreamInfo, StreamState
from jetstore.model.requests import MessageGet, StreamInfoRequest
from jetstore.model.stream import StreamConfig
from jetstore.store.ports import Checkpoint, Columns, Frame, Message, MessageLog, SubjectIndex
from jetstore.store.running_hash import RunningHash
from jetstore.stream import checkpoint, entries, logical, reads, removals, retention
from jetstore.stream.apply_batch import apply_batch
from jetstore.stream.apply_fast import apply_fast
from jetstore.stream.apply_publish import apply_publish
from jetstore.stream.apply_restored import apply_restored
from jetstore.stream.apply_sourced import apply_sourced
from jetstore.stream.contents import Contents
from jetstore.stream.dedupe import Dedupe
from jetstore.stream.ended_batches import EndedBatches
from jetstore.stream.entries import EntryKind
from jetstore.stream.outcomes import ConfigOutcome, ConsumerOutcome, NoopOutcome, Outcome
from jetstore.stream.schedules import Schedules
from jetstore.stream.settings import Settings
from jetstore.stream.subjects import filter_of
from jetstore.stream.ttl import TtlSchedule
from jetstore.types import GroupUid, RaftIndex, Term

Blob: TypeAlias = bytes
"""``bytes`` inside the class is a counter."""


class Stream:
    """One stream and its consumers, as of ``applied_index``."""

    def __init__(self, uid: GroupUid, log: MessageLog, index: SubjectIndex, limits: Limits) -> None:
        """A stream without configuration: its first CONFIG entry brings that. ``restore`` makes others."""
        self.uid = uid
        self.limits = limits
        self.applied_index = RaftIndex(0)
        self.applied_term = Term(0)
        self.running = RunningHash()
        """Stands for all applied entries."""
        self.raft_configuration: Blob = b""
        """The group's members as of ``applied_index``, encoded; its driver's business, kept with the state."""
        self.config: StreamConfig | None = None
        self.config_version = 0
        """0 = no configuration yet: every publish is refused."""
        self.created_ns = 0
        self.settings = Settings.of(StreamConfig())
        self.contents = Contents(log, index)
        self.contents.on_removed = self._on_removed
        self.dedupe = Dedupe(0)
        self.ttls = TtlSchedule()
        self.schedules = Schedules()
        self.origins: dict[str, tuple[int, int]] = {}
        """By key of a mirror or source: the origin's group, and the last sequence of it that was taken."""
        self.ended_batches = EndedBatches()
        self.last_msg_id = b""
        """Message id of the last stored message; b"" if it had none."""
        self.consumers: dict[str, ConsumerState] = {}
        self.age_cursor = 0
        """All live messages below never expire (derived: where the search for the next one to expire begins)."""
        self.before_store: Callable[[int, Frame, Columns], None] | None = None
        """Sees every frame, and its first sequence, right before it is stored. It only looks."""
        self.durable_chunks: frozenset[str] = frozenset()
        """Chunks that the last durable checkpoint refers to: they need not be written again."""
        self.ttl_chunk_name = ""
        """The chunk that held ``ttls`` when it had counted ``ttl_chunk_changes`` changes; "" before the first."""
        self.ttl_chunk_changes = 0
        self.install_number = 0
        """How often this state was installed from a peer: part of chunk names, so that none ever has two contents."""
        self.is_torn = False
        """Apply was left by an exception halfway through an entry (or is inside one now): this state is of no use."""
        self.logged_ns = 0
        """The leader's time in the last entry that carried one."""
        self._proposed_time_ns = 0

    # -- apply ----------------------------------------------------------------------------------------------------

    def apply(self, index: RaftIndex, term: Term, data: bytes, cache: Sequence[Frame] | None = None) -> Outcome:
        """Take the next entry. ``cache`` is a publish entry's frames where they are at hand, else decoded here.

        Raises ``FormatUnknown`` or ``Corruption`` for an unreadable entry; nothing is changed then. ``Corruption`` from
        the log or the index while the entry is being applied leaves the stream torn: it serves and applies nothing
        more, and is built anew from its checkpoint and the entries once the damage is repaired.
        """
        assert index == self.applied_index + 1, (index, self.applied_index)
        assert not self.is_torn, "an entry was applied in part"
        kind = entries.entry_kind(data)
        outcome: Outcome
        if kind is EntryKind.PUBLISH or kind is EntryKind.BATCH:
            frames: Sequence[Frame]
            if cache is None:
                self.logged_ns, frames = entries.decode_publish(data)
            else:
                self.logged_ns, frames = entries.publish_time_ns(data), cache
            self.is_torn = True
            outcome = apply_publish(self, frames) if kind is EntryKind.PUBLISH else apply_batch(self, frames)
        elif kind is EntryKind.FAST:
            if cache is None:
                self.logged_ns, head, frames = entries.decode_fast(data)
            else:
                (self.logged_ns, head), frames = entries.decode_fast_head(data), cache
            self.is_torn = True
            outcome = apply_fast(self, term, head, frames)
        else:
            outcome = self._apply_rare(kind, data)
        self.is_torn = False
        self.applied_index = index
        self.applied_term = term
        self.running.take(index, term, data)
        return outcome

    def _apply_rare(self, kind: EntryKind, data: bytes) -> Outcome:
        if kind is EntryKind.NOOP:
            return NoopOutcome()
        if kind is EntryKind.SOURCED:
            self.logged_ns, head, frames = entries.decode_sourced(data)
            self.is_torn = True
            return apply_sourced(self, head, frames)
        if kind is EntryKind.RESTORED:
            self.logged_ns, part, frames = entries.decode_restored(data)
            self.is_torn = True
            return apply_restored(self, part, frames)
        if kind is EntryKind.CONFIG:
            config = entries.decode_config(data)
            self.is_torn = True
            return self._apply_config(config)
        if kind is EntryKind.PURGE:
            purge = entries.decode_purge(data)
            self.is_torn = True
            return removals.apply_purge(self, purge)
        if kind is EntryKind.DELETE_MSG:
            seq = entries.decode_delete(data)
            self.is_torn = True
            return removals.apply_delete(self, seq)
        if kind is EntryKind.EXPIRE:
            expire = entries.decode_expire(data)
            self.logged_ns = expire.time_ns
            self.is_torn = True
            return removals.apply_expire(self, expire)
        return self._apply_consumer(data)

    def _apply_config(self, entry: entries.ConfigEntry) -> ConfigOutcome:
        if entry.version <= self.config_version:
            return ConfigOutcome(self.config_version, is_stale=True)
        before = self.settings
        is_first = not self.config_version
        self.config = entry.config
        self.config_version = entry.version
        self.settings = settings = Settings.of(entry.config)
        self.log.is_compressing = settings.is_compressing
        self.origins = {key: self.origins[key] for key in self.origins if key in settings.origin_keys}
        self.dedupe.window_ns = settings.duplicate_window_ns
        self.age_cursor = 0
        removed = 0
        if is_first:
            self.created_ns = entry.created_ns
            if settings.first_seq > 1:
                self.contents.skip_to(settings.first_seq - 1)
        else:
            removed = retention.enforce_limits(self, retention.overfull_subjects(self))
            if settings.is_interest and not before.is_interest:
                removed += retention.remove_unneeded(self)
        return ConfigOutcome(entry.version, removed=removed)

    def _apply_consumer(self, data: bytes) -> ConsumerOutcome:
        self.is_torn = True
        applied = apply_consumer_entry(self.consumers, data, filter_of, self.contents)
        self.logged_ns = max(self.logged_ns, applied.time_ns)
        removed = 0
        if applied.settled:
            removed = retention.remove_settled(self, applied.name, applied.settled)
        if applied.gone:
            removed = retention.remove_unneeded(self)
        return ConsumerOutcome(applied.name, applied.result, removed)

    def store(self, frame: Frame, columns: Columns) -> None:
        """Give a frame's messages the next sequences, tell the consumers, enforce the limits. Part of apply only."""
        first_seq = self.contents.last_seq + 1
        if self.before_store is not None:
            self.before_store(first_seq, frame, columns)
        overfull = self.contents.append(first_seq, frame, columns, self.settings)
        for consumer in self.consumers.values():
            consumer.on_stored(first_seq, columns.subjects)
        retention.enforce_limits(self, overfull)

    def _on_removed(self, first: int, last: int, subjects: Sequence[bytes]) -> None:
        if self.ttls.never:
            self.ttls.forget_never(first, last)
        if len(self.schedules):
            self.schedules.forget(first, last)
        for consumer in self.consumers.values():
            if first == last:
                consumer.on_removed((first,), subjects, self.logged_ns)
            else:
                consumer.on_removed_range(first, last, subjects, self.logged_ns)

    # -- for the leader -------------------------------------------------------------------------------------------

    def next_time_ns(self, now_ns: int, count: int = 1) -> int:
        """The time for an entry with ``count`` messages: now, or just after every time given or stored before.

        Only a proposer's convenience: apply itself sees to it that stored times strictly increase.
        """
        time_ns = max(now_ns, self.contents.last_time_ns + 1, self._proposed_time_ns + 1)
        self._proposed_time_ns = time_ns + count - 1
        return time_ns

    @property
    def can_expire(self) -> bool:
        """Whether the clock alone may ever remove or store something."""
        return bool(self.settings.max_age_ns or self.ttls.next_ns() or len(self.schedules))

    def next_expiry_ns(self) -> int | None:
        """The earliest time at which an EXPIRE entry would do something, or None. May be in the past."""
        return removals.next_expiry_ns(self)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def log(self) -> MessageLog:
        """The messages."""
        return self.contents.log

    @property
    def index(self) -> SubjectIndex:
        """The subject index."""
        return self.contents.index

    @property
    def name(self) -> str:
        """The stream's name; "" before its configuration is known."""
        return self.config.name if self.config else ""

    @property
    def messages(self) -> int:
        """Stored messages."""
        return self.contents.messages

    @property
    def bytes(self) -> int:
        """Their size as users see it."""
        return self.contents.bytes

    def state(self) -> StreamState:
        """The counters of an info."""
        return reads.state(self)

    def info(self, request: StreamInfoRequest) -> StreamInfo:
        """What STREAM.INFO shows."""
        return reads.info(self, request)

    def get_message(self, request: MessageGet) -> Message:
        """The selected message. Raises ``ApiError`` 10037 if there is none."""
        return reads.get_message(self, request)

    def get_batch(self, request: MessageGet, max_bytes: int = 0) -> tuple[list[Message], int, int]:
        """Several messages: (in order, how many match from the first one on, up_to_seq). See ``reads.get_batch``."""
        return reads.get_batch(self, request, max_bytes)

    # -- checkpoint -----------------------------------------------------------------------------------------------

    def logical_head(self) -> Blob:
        """What every replica that has applied the same entries has, byte for byte (``stream/logical.py``)."""
        return logical.logical_head(self)

    def logical_hash(self, ranges: Sequence[tuple[int, int]] = ()) -> int:
        """64 bits over the logical head and the live records in these closed ranges. Raises ``Corruption``."""
        return logical.logical_hash(self, ranges)

    def checkpoint(self, term: Term) -> Checkpoint:
        """The applied state, ready to be made durable; ``term`` is that of the last applied entry."""
        return checkpoint.capture(self, term)

    @classmethod
    def restore(
        cls,
        uid: GroupUid,
        head: Blob,
        chunks: Mapping[str, Blob],
        log: MessageLog,
        index: SubjectIndex,
        limits: Limits,
    ) -> Stream:
        """The stream of a checkpoint, over its log and index opened at that checkpoint (``checkpoint.parts_of``)."""
        return checkpoint.restore(cls, uid, head, chunks, log, index, limits)

    def checkpointed(self, done: Checkpoint) -> None:
        """This checkpoint is durable: what it wrote need not be written again."""
        self.durable_chunks = done.keep_chunks
