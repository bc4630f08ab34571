"""Group commit: one journal block, so one sync, for everything that all groups of the node want written.

While a block is on its way, groups gather what the next one will carry; that is the whole batching policy: at low load
a proposal is written at once, at high load a block carries thousands. At a block's completion the next one is composed
and submitted *before* the finished one is applied, so that the disk never waits for Python.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jetstore.errors import DiskFull, DiskPoisoned
from jetstore.limits import Limits
from jetstore.node.ports import Outlet
from jetstore.store.ports import Disk, JournalStatus, Kind, Record
from jetstore.types import GroupUid, RaftIndex, Term


class Part(NamedTuple):
    """Records of one composer that are durable together, and whom to tell: ``on_durable(argument)``."""

    composer: Composer
    records: list[Record]
    on_durable: Callable[[Any], None]
    argument: Any  # Any: whatever the composer wants to hear


class Block:
    """The next journal block while it is composed."""

    __slots__ = ("parts", "room_bytes", "takes_entries")

    def __init__(self, room_bytes: int, parts: list[Part], *, takes_entries: bool) -> None:
        self.parts = parts
        self.room_bytes = room_bytes
        """About how much more fits in."""
        self.takes_entries = takes_entries
        """False: the journal is full; only records without a body (HARD, CKPT, RESET, GROUP) can be added."""

    def add(
        self, composer: Composer, records: list[Record], on_durable: Callable[[Any], None], argument: object
    ) -> None:
        """Put these in. ``on_durable(argument)`` is called when they are durable; parts come in order."""
        self.parts.append(Part(composer, records, on_durable, argument))
        for record in records:
            self.room_bytes -= len(record.body) + RECORD_OVERHEAD_BYTES


class Composer(Protocol):
    """Whoever has records for the journal: a group."""

    def compose(self, block: Block) -> bool:
        """Add to the block what is to be written, about as much as there is room; whether more is waiting.

        Records without a body that can be written before everything else that waits are a part of their own.
        """

    def apply_committed(self) -> None:
        """Apply what the last completed block committed. Called after the next block was submitted."""


class GroupCommit:
    """The one writer of the node's journal. ``status`` is what the journal said after the last block.

    A block that found no room is taken apart. Parts without bodies are written at once: a CKPT line is what gives the
    journal room again. The others wait, in their order, and are tried again after every such line, and ``FULL_RETRY_S``
    after every refusal; meanwhile composers are asked for lines only.
    """

    def __init__(
        self,
        disk: Disk,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        *,
        on_status: Callable[[JournalStatus], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Nothing happens until ``want`` is called."""
        self._disk = disk
        self._limits = limits
        self._loop = loop
        self._on_status = on_status
        self._on_failure = on_failure
        self._wanting: dict[Composer, None] = {}
        self._in_flight = False
        self._pump_scheduled = False
        self._stopped = False
        self._refused: list[Part] = []
        """What found no room in the journal, in order."""
        self._refused_lines: list[Part] = []
        """The same without bodies: not even a line could be written. They go first."""
        self._want_room: dict[Composer, None] = {}
        """Composers that have more than lines while something is refused."""
        self._retry_due = False
        self._idle_waiters: list[asyncio.Future[None]] = []
        self.heard: Callable[[], bytes] = bytes
        """What was heard of other nodes since it was asked last, b"" = nothing: it goes with the next block."""
        self.status: JournalStatus | None = None
        self._acking: dict[Outlet, None] = {}
        self.blocks = 0
        self.records = 0
        self.sync_seconds_total = 0.0
        self.last_sync_seconds = 0.0
        self.sync_histogram = [0] * len(SYNC_BUCKETS_S)

    def want(self, composer: Composer) -> None:
        """``composer`` has something for the next block. Cheap; call as often as you like."""
        self._wanting[composer] = None
        if not (self._in_flight or self._pump_scheduled or self._stopped):
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)  # everything this loop turn reads joins the block

    def note_acks(self, outlet: Outlet) -> None:
        """PubAcks wait in this router: they are to leave together when the block is applied."""
        self._acking[outlet] = None

    def flush_acks(self) -> None:
        """Send the PubAcks that wait, of every account that has some."""
        acking, self._acking = self._acking, {}
        for outlet in acking:
            outlet.flush_acks()

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopped = True

    @property
    def takes_entries(self) -> bool:
        """False while entries wait because the journal is full: nothing that needs room should be begun."""
        return not self._refused and not self._refused_lines

    @property
    def idle(self) -> bool:
        """Nothing is on its way and nobody wants anything written."""
        return not self._in_flight and not self._wanting and self.takes_entries

    def refresh(self) -> None:
        """Write an empty block if nothing is on its way, to learn where the journal stands now."""
        if not (self._in_flight or self._pump_scheduled or self._stopped):
            self._write([])

    async def drained(self) -> None:
        """Wait until everything wanted so far, and what follows from it, is durable and applied (or has failed)."""
        while not (self.idle or self._stopped):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self._in_flight or self._stopped:
            return
        if not self.takes_entries and self._is_retried():
            return
        if not self._wanting and not self._refused_lines:
            return
        lines, self._refused_lines = self._refused_lines, []
        wanting, self._wanting = self._wanting, {}
        block = Block(self._limits.block_bytes_max, lines, takes_entries=not self._refused)
        passed_over: dict[Composer, None] = {}
        again = self._want_room if self._refused else {}
        for composer in wanting:
            if block.room_bytes <= 0:
                passed_over[composer] = None
            elif composer.compose(block):
                again[composer] = None
        if passed_over:  # they come first next time: a busy group must not keep the others out for ever
            self._wanting = {**passed_over, **self._wanting}
        if again and not self._refused:
            self._wanting |= again
        if not block.parts:
            if self._wanting:
                self._loop.call_soon(self._pump)
                self._pump_scheduled = True
            return
        self._write(block.parts)

    def _is_retried(self) -> bool:
        """While the journal is full: whether there is nothing else to do now than what this did."""
        is_due, self._retry_due = self._retry_due, False
        if self._refused_lines:
            return not is_due
        if is_due:
            self._write(self._refused)
        return is_due

    def _write(self, parts: list[Part]) -> None:
        self._in_flight = True
        records = [record for part in parts for record in part.records]
        self.blocks += 1
        self.records += len(records)
        heard = self.heard()
        if heard:
            none = RaftIndex(0)
            records.insert(0, Record(Kind.PEERS, GroupUid(0), Term(0), Term(0), none, none, 0, 0, heard))
        started = self._loop.time()
        future = self._disk.append(records)
        future.add_done_callback(lambda finished: self._finished(finished, parts, started))

    def _finished(self, future: asyncio.Future[JournalStatus], parts: list[Part], started: float) -> None:
        self._in_flight = False
        if future.cancelled():
            failure: BaseException | None = DiskPoisoned("the journal write was abandoned")
        else:
            failure = future.exception()
        if isinstance(failure, DiskFull):  # nothing was written
            self._no_room(parts)
            return
        if failure is not None:
            self._stopped = True
            self._release_idle_waiters()
            self._on_failure(failure)
            return
        self.status = status = future.result()
        self._note_sync(status.sync_ns / 1e9 or self._loop.time() - started)
        if parts is self._refused:
            self._refused = []
            self._wanting = {**self._want_room, **self._wanting}
            self._want_room = {}
        elif self._refused:  # lines went through: they may have made room
            self._retry_due = True
        for part in parts:
            part.on_durable(part.argument)
        self._pump()
        for composer in dict.fromkeys(part.composer for part in parts):
            composer.apply_committed()
        self._on_status(status)
        if self.idle:
            self._release_idle_waiters()

    def _no_room(self, parts: list[Part]) -> None:
        """The journal took nothing of this block: lines alone at once, the rest when there may be room."""
        if parts and parts is not self._refused:  # an empty block has nothing, and leaves what waits as it is
            self._refused_lines += [part for part in parts if not any(record.body for record in part.records)]
            self._refused += [part for part in parts if any(record.body for record in part.records)]
            self._retry_due = 0 < len(self._refused_lines) < len(parts)  # lines alone: now
        if not self._stopped:
            self._loop.call_later(FULL_RETRY_S, self._retry)
        self._pump()
        if self.status is not None:
            self._on_status(self.status)  # whoever can make room is reminded of it

    def _retry(self) -> None:
        if self.takes_entries:
            return
        self._retry_due = True
        self._pump()

    def _release_idle_waiters(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _note_sync(self, seconds: float) -> None:
        self.last_sync_seconds = seconds
        self.sync_seconds_total += seconds
        for position, bound in enumerate(SYNC_BUCKETS_S):
            if seconds <= bound:
                self.sync_histogram[position] += 1
                break


FULL_RETRY_S = 0.05
"""How long after a block found no room its entries are tried again (meanwhile checkpoints free journal files)."""

RECORD_OVERHEAD_BYTES = 200
"""What a record costs in the block beside its body: its line, twice, in two blocks, and its share of the sector map."""

SYNC_BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    float("inf"),
)
"""Upper bounds of the block-latency histogram (write and sync, as the writer measures it)."""
