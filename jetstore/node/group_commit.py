"""Group commit: one journal block, so one sync, for everything that all groups of the node want written.

While a block is on its way, groups gather what the next one will carry; that is the whole batching policy: at low load
a proposal is written at once, at high load a block carries thousands. At a block's completion the next one is composed
and submitted *before* the finished one is applied, so that the disk never waits for Python.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from jetstore.errors import DiskFull, DiskPoisoned
from jetstore.limits import Limits
from jetstore.store.ports import Disk, JournalStatus, Record


class Composer(Protocol):
    """Whoever has records for the journal: a group."""

    def compose(self, budget_bytes: int) -> tuple[list[Record], Callable[[], None], bool]:
        """Records for the next block (about ``budget_bytes``), what to call once they are durable, and whether more
        is waiting that did not fit."""

    def apply_committed(self) -> None:
        """Apply what the last completed block committed. Called after the next block was submitted."""


class GroupCommit:
    """The one writer of the node's journal. ``status`` is what the journal said after the last block."""

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
        self._idle_waiters: list[asyncio.Future[None]] = []
        self.status: JournalStatus | None = None
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

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopped = True

    @property
    def idle(self) -> bool:
        """Nothing is on its way and nobody wants anything written."""
        return not self._in_flight and not self._wanting

    def refresh(self) -> None:
        """Write an empty block if nothing is on its way, to learn where the journal stands now."""
        if not (self._in_flight or self._pump_scheduled or self._stopped):
            self._write([], [])

    async def drained(self) -> None:
        """Wait until everything wanted so far, and what follows from it, is durable and applied (or has failed)."""
        while not (self.idle or self._stopped):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self._in_flight or self._stopped or not self._wanting:
            return
        wanting, self._wanting = self._wanting, {}
        records: list[Record] = []
        done: list[tuple[Composer, Callable[[], None]]] = []
        budget = self._limits.block_bytes_max
        passed_over: dict[Composer, None] = {}
        again: dict[Composer, None] = {}
        for composer in wanting:
            if budget <= 0:
                passed_over[composer] = None
                continue
            composed, on_durable, more = composer.compose(budget)
            if composed:
                records += composed
                budget -= sum(len(record.body) + RECORD_OVERHEAD_BYTES for record in composed)
                done.append((composer, on_durable))
            if more:
                again[composer] = None
        # Who had to wait comes first next time: a busy group must not keep the others out for ever.
        self._wanting = {**passed_over, **self._wanting, **again}
        if not records:
            if self._wanting:
                self._loop.call_soon(self._pump)
                self._pump_scheduled = True
            return
        self.blocks += 1
        self.records += len(records)
        self._write(records, done)

    def _write(self, records: list[Record], done: list[tuple[Composer, Callable[[], None]]]) -> None:
        self._in_flight = True
        started = self._loop.time()
        future = self._disk.append(records)
        future.add_done_callback(lambda finished: self._finished(finished, records, done, started))

    def _finished(
        self,
        future: asyncio.Future[JournalStatus],
        records: list[Record],
        done: list[tuple[Composer, Callable[[], None]]],
        started: float,
    ) -> None:
        self._in_flight = False
        if future.cancelled():
            failure: BaseException | None = DiskPoisoned("the journal write was abandoned")
        else:
            failure = future.exception()
        if isinstance(failure, DiskFull):  # nothing was written: the same block again when there is room
            self._in_flight = True
            self._loop.call_later(FULL_RETRY_S, self._write, records, done)
            return
        if failure is not None:
            self._stopped = True
            self._release_idle_waiters()
            self._on_failure(failure)
            return
        self._note_sync(self._loop.time() - started)
        self.status = future.result()
        for _, on_durable in done:
            on_durable()
        self._pump()
        for composer, _ in done:
            composer.apply_committed()
        self._on_status(self.status)
        if self.idle:
            self._release_idle_waiters()

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
"""How long after a block that found no room it is tried again (meanwhile checkpoints free journal files)."""

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
"""Upper bounds of the block-latency histogram (submit to durable, as the event loop sees it)."""
