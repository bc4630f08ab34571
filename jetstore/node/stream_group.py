"""One stream on the node that leads it: its group, its publishes, its consumers' deliveries, its clock-driven work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import structlog

from jetstore.clock import Clock
from jetstore.errors import ApiError, Corruption, IndexDoubt, NotNow, OutcomeUnknown
from jetstore.limits import Limits
from jetstore.meta.stream_key import name_of
from jetstore.model.api_errors import api_error
from jetstore.model.infos import StreamInfo
from jetstore.model.requests import StreamInfoRequest
from jetstore.model.stream import StreamConfig
from jetstore.model.transforms import SubjectTransform
from jetstore.node.advisories import StreamAdvisories
from jetstore.node.delivery import LEADERSHIP_CHANGE, SERVER_SHUTDOWN, Delivery
from jetstore.node.group import Group, Replication
from jetstore.node.group_commit import GroupCommit
from jetstore.node.ingest import Ingest
from jetstore.node.opening import CheckpointedLog
from jetstore.node.ports import InternalSubscription, Outlet
from jetstore.node.republish import Republisher
from jetstore.node.sourcing import Sourcing
from jetstore.node.steady_clock import SteadyClock
from jetstore.raft.options import RaftOptions
from jetstore.raft.ready import Event, LeaderChanged
from jetstore.store.checkpoint_files import chunk_path
from jetstore.store.index_layers import LayeredIndex
from jetstore.store.ports import Checkpoint, Disk, GroupRecovery
from jetstore.stream.entries import encode_expire
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, Term

log = structlog.get_logger(__name__)

CONFIG_WAIT_S = 10.0
"""How long a request waits for a configuration to be applied; after that nobody knows what became of it."""
EXPIRY_SLACK_S = 0.05
"""Clock-driven removals wait at least this long, so that messages of about the same age go in one entry."""
INDEX_SLICE_ROWS = 2_000
"""Rows prepared for an index transaction before the event loop gets its turn (about 2 µs each)."""
DAMAGE_NOTED_MAX = 1_000
"""Damaged places remembered for each stream; above: they are still never served, but not listed."""
LOOK_AGAIN_S = 1.0
LOOK_AGAIN_MAX_S = 3600.0
"""Damage that a segment's table remembers is read again after this long, then eight times later, …, to tell a passing
read error from damage: reading a whole segment costs too much to do it all the time."""
EXPIRY_DAMAGE_RETRY_S = 60.0
"""Clock-driven removals that found what they depend on unreadable are looked at again after this."""
EXPIRY_WAIT_MAX_S = 3600.0
"""A timer never waits longer than this: the wall clock may have jumped meanwhile."""


class StreamGroup(Group):
    """A stream's group, leading. ``stream`` is the applied state; only apply changes it."""

    machine: Stream
    raft_options = RaftOptions(tells_commit_at_once=False)
    """What followers know to be committed a heartbeat later changes nothing for a client: they answer nobody."""

    def __init__(
        self,
        *,
        uid: GroupUid,
        name: str,
        stream: Stream,
        recovery: GroupRecovery | None,
        commit: GroupCommit,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        outlet: Outlet,
        rng: Random,
        admission: Callable[[], ApiError | None],
        on_applied: Callable[[Group], None],
        on_pause: Callable[[Group], None],
        replication: Replication | None = None,
    ) -> None:
        """As ``Group``; ``name``: the stream's key; ``admission`` says why the node takes no publishes now, or None."""
        super().__init__(
            uid=uid,
            name=name_of(name),
            machine=stream,
            recovery=recovery,
            commit=commit,
            limits=limits,
            loop=loop,
            on_applied=on_applied,
            on_pause=on_pause,
            replication=replication,
        )
        self.key = name
        self.stream = stream
        assert isinstance(stream.log, CheckpointedLog)
        self.messages = stream.log
        assert isinstance(stream.index, LayeredIndex)
        self.index = stream.index
        self.clock = SteadyClock(clock, loop.time)
        self.outlet = outlet
        self.lock = asyncio.Lock()
        """Serialises configuration changes of the stream and of its consumers."""
        self.advisories = StreamAdvisories(outlet, clock, rng, self.name)
        self.ingest = Ingest(self)
        self.delivery = Delivery(self, outlet, rng)
        self.republisher = Republisher(outlet)
        self.sourcing = Sourcing(self)
        self.find_stream: Callable[[str], StreamGroup | None] = lambda name: None
        """Finds another stream of the account on this node."""
        self.find_at: Callable[[Outlet, str], StreamGroup | None] = lambda outlet, name: None
        """Finds a stream of any account on this node."""
        self.assigned: Callable[[str], tuple[GroupUid, StreamConfig] | None] = _unknown
        """What the metadata says of a stream, by key. Raises NotNow while that is not known."""
        self.watchers: dict[object, Callable[[], None]] = {}
        """Who copies from this stream, called after every slice of entries."""
        self._rng = rng
        self._admission = admission
        self._subscriptions: dict[str, InternalSubscription] = {}
        self._subscribed_version = -1
        """Version of the configuration whose subjects are subscribed."""
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._expiry_at_s = 0.0
        """When it is set to: uvloop gives a handle without ``when`` for what is due already."""
        self._expiring = False
        self._expiry_held_until_s = 0.0
        self.on_led: Callable[[StreamGroup], None] | None = None
        """Called when this member begins to lead."""
        self.on_quorum_lost: Callable[[StreamGroup], None] | None = None
        """Called when it led, and has not heard a quorum of the members for too long."""
        self._served_term = Term(0)
        """The last one in which this member led and served."""
        self.on_damage: Callable[[StreamGroup], None] | None = None
        """Called when stored messages turn out to be unreadable."""
        self.is_restoring = False
        """It is being made from an archive: it takes no publishes, delivers nothing and removes nothing."""
        self.config_proposed = 0
        """Version of the configuration that was proposed while leading."""
        self._config_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.index_rebuilds = 0
        """How often the index was made again from the messages since start."""
        self.damage: dict[tuple[str, int], str] = {}
        """Stored bytes found unreadable so far, by file and offset."""
        self._look_again_s = LOOK_AGAIN_S
        self._look_again_at_s = 0.0

    # -- life -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Leave the router and stop; deliveries say goodbye first."""
        self._retire(SERVER_SHUTDOWN)
        for _, waiter in self._config_waiters:
            if not waiter.done():
                waiter.set_exception(OutcomeUnknown(f"{self.name} has stopped"))
        super().stop()

    def on_resigned(self) -> None:
        """Somebody else leads, or nobody: leave the router. Publishes that wait were not proposed, and are told so."""
        self._retire(LEADERSHIP_CHANGE)
        self.ingest.resign()

    def on_event(self, event: Event) -> None:
        """As ``Group``; a leader that steps down with nobody in its place, in its own term, has lost its quorum."""
        super().on_event(event)
        if (
            isinstance(event, LeaderChanged)
            and (event.leader, event.term) == (0, self._served_term)
            and self.core.configuration.is_voter(self.core.member)
            and self.on_quorum_lost is not None
        ):
            self.on_quorum_lost(self)

    def _retire(self, line: bytes) -> None:
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions.clear()
        self._subscribed_version = -1
        self.republisher.leave()
        self.sourcing.leave()
        self.ingest.batches.clear()
        self.ingest.fast.clear()
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        self._expiring = False
        self.config_proposed = 0
        self.delivery.stop(line)

    async def configured(self, version: int) -> None:
        """Wait until this version of the configuration, or a later one, is applied here.

        Raises OutcomeUnknown if that takes longer than ``CONFIG_WAIT_S``, or the group stops.
        """
        if self.stream.config_version >= version:
            return
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._config_waiters.append((version, waiter))
        try:
            async with asyncio.timeout(CONFIG_WAIT_S):
                await waiter
        except TimeoutError:
            raise OutcomeUnknown(f"configuration {version} of {self.name} is not applied yet") from None
        finally:
            self._config_waiters = [pair for pair in self._config_waiters if pair[1] is not waiter]

    def on_serving(self) -> None:
        """Subscribe to the stream's subjects and start delivering."""
        self._served_term = self.core.term
        self.clock.raise_to(newest_time_ns(self.stream))
        if not self.is_restoring:
            self._begin()
        if self.on_led is not None:
            self.on_led(self)

    def _begin(self) -> None:
        self._subscribe()
        self.delivery.start()
        self._schedule_expiry()

    def restored(self) -> None:
        """All of the archive is in it: from now on it is a stream like any other."""
        self.is_restoring = False
        if self.serves and not self.is_faulty:
            self._begin()

    def note_damage(self, error: Corruption) -> None:
        """Stored messages turned out to be unreadable: say so once, and in the health of the node from then on."""
        place = (error.file, error.offset)
        if place not in self.damage and len(self.damage) < DAMAGE_NOTED_MAX:
            self.damage[place] = str(error)
            self._look_again_s, self._look_again_at_s = LOOK_AGAIN_S, self.loop.time() + LOOK_AGAIN_S
            log.error("stored messages unreadable", stream=self.name, error=str(error))
            if self.on_damage is not None:
                self.on_damage(self)

    def take_findings(self) -> None:
        """Note what reads found damaged, although they could do without it."""
        doubts = self.stream.contents.doubts
        if doubts:
            self.index_rebuilds += len(doubts)
            log.warning("index rebuilt", stream=self.name, finding=doubts[-1])
            doubts.clear()
        if self.messages.findings:
            findings = list(self.messages.findings)
            self.messages.findings.clear()
            for error in findings:
                self.note_damage(error)
        if self.damage and self.loop.time() >= self._look_again_at_s:
            for segment in self.messages.segment_files():
                self.messages.reader.look_again_at_damage(segment)
            self._look_again_s = min(self._look_again_s * 8, LOOK_AGAIN_MAX_S)
            self._look_again_at_s = self.loop.time() + self._look_again_s

    def info(self, request: StreamInfoRequest) -> StreamInfo:
        """What STREAM.INFO shows, with how far mirrors and sources are."""
        shown = self.stream.info(request)
        mirror, sources = self.sourcing.infos()
        return replace(shown, mirror=mirror, sources=sources) if mirror is not None or sources else shown

    def tell_abandoned(self, batch_id: str, reason: str) -> None:
        """An atomic batch that clients were sending is given up."""
        self.advisories.tell("BATCH_ABANDONED", "stream_batch_abandoned", batch=batch_id, reason=reason)

    def announce_fault(self) -> None:
        """Apply stands still: take the stream's subjects all the same, to answer every publish with 10008."""
        if not self.is_restoring:
            self._subscribe()

    def replace_machine(self, machine: Any) -> None:  # Any: a Stream over a CheckpointedLog and a LayeredIndex
        """Go on with a stream that was installed in place of this one."""
        self.delivery.stop(LEADERSHIP_CHANGE)
        super().replace_machine(machine)
        self.stream = machine
        self.messages = machine.log
        self.index = machine.index
        self.ingest.forget()
        self.damage.clear()
        self._subscribed_version = -1
        self._expiring = False
        if self.serves and not self.is_restoring:
            self.delivery.start()
        self.after_apply()

    def _subscribe(self) -> None:
        config = self.stream.config
        self._subscribed_version = self.stream.config_version
        transform = config.subject_transform if config is not None else None
        self.ingest.transform = (
            SubjectTransform(transform.src, transform.dest, self._rng.randrange)
            if transform is not None and transform.dest
            else None
        )
        self.republisher.follow(self.stream)
        if self.serves:
            self.sourcing.follow()
        self.ingest.takes_batches = config is not None and config.allow_atomic
        if not self.ingest.takes_batches:
            self.ingest.batches.clear("unsupported")
        self.ingest.fast.is_allowed = config is not None and config.allow_batched
        if not self.ingest.fast.is_allowed:
            self.ingest.fast.clear()
        wanted = set(config.subjects) if config is not None else set()
        for subject in sorted(self._subscriptions.keys() - wanted):
            self._subscriptions.pop(subject).close()
        for subject in sorted(wanted - self._subscriptions.keys()):
            self._subscriptions[subject] = self.outlet.subscribe(subject.encode(), self.ingest)

    # -- proposing --------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """A time for an entry: now, or just after every time given before."""
        return self.stream.next_time_ns(self.clock.wall_ns())

    @property
    def is_torn(self) -> bool:
        return self.stream.is_torn

    @property
    def answers(self) -> bool:
        """Whether publishers get PubAcks."""
        return self.stream.config is not None and not self.stream.config.no_ack

    def want(self) -> None:
        """There is something for the next journal block."""
        self._commit.want(self)

    def note_acks(self) -> None:
        """PubAcks of this stream wait in its router."""
        self._commit.note_acks(self.outlet)

    def fill(self, budget_bytes: int) -> bool:
        """Propose the publishes that wait (``Group.compose`` calls this)."""
        return self.ingest.fill(budget_bytes) if self.core.serves else False

    def refusal(self) -> ApiError | None:
        """Why a publish is refused before it is proposed, or None."""
        if self.is_faulty or not self.serves:
            return api_error("JSClusterNotAvailErr")
        return self._admission()

    def require_serving(self) -> Stream:
        """The applied state, for an answer that must be up to date. Raises ApiError 10008 while it is not."""
        if not self.serves or self.is_faulty:
            raise api_error("JSClusterNotAvailErr")
        return self.stream

    # -- after apply ------------------------------------------------------------------------------------------------

    def after_apply(self) -> None:
        """Follow configuration changes, wake consumers, move the expiry timer."""
        if self._config_waiters:
            for version, waiter in self._config_waiters:
                if version <= self.stream.config_version and not waiter.done():
                    waiter.set_result(None)
        if self.is_restoring:
            return
        if self._subscribed_version != self.stream.config_version and (self.is_faulty or self.serves):
            self._subscribe()  # with a fault, too: what was applied up to it says which publishes are to be refused
        if self.serves and not self.is_faulty:
            self.republisher.flush()
            self.delivery.on_applied()
            for wake in tuple(self.watchers.values()):
                wake()
            if self.stream.can_expire:
                self._schedule_expiry()

    # -- the clock ----------------------------------------------------------------------------------------------------

    def _next_expiry_ns(self) -> int | None:
        """When the clock has something to remove. What it depends on may be unreadable: then later, again."""
        if not self.stream.can_expire:
            return None
        if self.loop.time() < self._expiry_held_until_s:
            return None
        try:
            return self.stream.next_expiry_ns()
        except Corruption as error:
            self.note_damage(error)
            self._expiry_held_until_s = self.loop.time() + EXPIRY_DAMAGE_RETRY_S
            return None

    def _schedule_expiry(self) -> None:
        due_ns = self._next_expiry_ns()
        if due_ns is None or self._expiring:
            return
        wait_s = max((due_ns - self.clock.wall_ns()) / 1e9, 0.0) + EXPIRY_SLACK_S
        when = self.loop.time() + min(wait_s, EXPIRY_WAIT_MAX_S)
        if self._expiry_timer is not None:
            if not self._expiry_timer.cancelled() and self._expiry_at_s <= when:
                return
            self._expiry_timer.cancel()
        self._expiry_at_s = when
        self._expiry_timer = self.loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._expiry_timer = None
        due_ns = self._next_expiry_ns()
        now_ns = self.clock.wall_ns()
        if due_ns is None or self.stopped:
            return
        if due_ns > now_ns:
            self._schedule_expiry()
            return
        self._expiring = True

        def expired(outcome: Any) -> None:
            self._expiring = False
            self._schedule_expiry()

        try:
            self.propose_with(encode_expire(self.stream.next_time_ns(now_ns)), expired)
        except NotNow:
            self._expiring = False

    # -- files (storage.Checkpointable) -------------------------------------------------------------------------------

    @property
    def group(self) -> Group:
        """Itself."""
        return self

    def unflushed_bytes(self) -> int:
        return self.messages.unflushed_bytes

    def take_unflushed(self) -> Sequence[tuple[str, int, Sequence[bytes]]]:
        return self.messages.take_unflushed()

    def flushed(self) -> None:
        self.messages.flushed()

    def flush_failed(self) -> None:
        self.messages.flush_failed()

    def capture(self) -> Checkpoint:
        return self.stream.checkpoint(self.core.log.applied_term)

    def checkpointed(self, checkpoint: Checkpoint) -> Sequence[str]:
        superseded = self.stream.durable_chunks - checkpoint.keep_chunks
        self.stream.checkpointed(checkpoint)
        return [*self.messages.confirm(), *(chunk_path(self.uid, name) for name in sorted(superseded))]

    async def commit_index(self, disk: Disk) -> None:
        index = self.index
        is_prepared = index.prepare(INDEX_SLICE_ROWS)
        while not is_prepared:
            await asyncio.sleep(0)
            is_prepared = index.prepare(INDEX_SLICE_ROWS)
        arguments = index.commit_args()
        if arguments is None:
            return
        try:
            await disk.call("index_commit", *arguments)
        except IndexDoubt as doubt:
            log.warning("index rebuilt", stream=self.name, finding=str(doubt))
            self.index_rebuilds += 1
            try:
                index.rebuild(self.messages.index_rows())
            except Corruption as error:
                self.note_damage(error)
                self._pause(error)
        else:
            index.committed()

    def changed_rows(self) -> int:
        return self.index.changed_rows


def _unknown(name: str) -> None:
    raise NotNow("not known")


def newest_time_ns(stream: Stream) -> int:
    """The newest time in applied entries: the stream's own, and those of its consumers."""
    times = [stream.logged_ns, stream.contents.last_time_ns]
    for consumer in stream.consumers.values():
        times += [consumer.generation, consumer.delivered.last_active_ns, consumer.ack_floor.last_active_ns]
    return max(times)
