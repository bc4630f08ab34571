"""How late the event loop runs its callbacks: the first thing to look at when something is slow."""

from __future__ import annotations

import asyncio

import structlog

log = structlog.get_logger(__name__)

PERIOD_S = 0.02
LOGGED_ABOVE_S = 0.1
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, float("inf"))
"""Upper bounds of the histogram."""


class LoopLag:
    """Sets a timer again and again and notes how much later than asked it fired."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Not running yet."""
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.histogram = [0] * len(BUCKETS_S)
        """Samples per bucket (not cumulative)."""
        self.seconds_total = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._loop.time() + PERIOD_S
        self._timer = self._loop.call_at(self._due, self._fired)

    def stop(self) -> None:
        """End it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        late_s = max(self._loop.time() - self._due, 0.0)
        self.seconds_total += late_s
        for position, bound in enumerate(BUCKETS_S):
            if late_s <= bound:
                self.histogram[position] += 1
                break
        if late_s > LOGGED_ABOVE_S:
            log.warning("event loop was late", late_ms=round(late_s * 1000))
        self.start()
