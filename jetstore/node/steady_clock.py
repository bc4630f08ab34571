"""Wall time that never goes back and never stands still: what logged times, waits and ages are measured with.

The wall clock may be set back. A log's times must not go back with it, and if they only stood still until the clock is
there again, nothing would become due meanwhile. So time goes on from where it was, a little slower than it passes,
until the wall clock has caught up. Source: ``docs/ARCHITECTURE.md``, when things fail.
"""

from __future__ import annotations

from collections.abc import Callable

from jetstore.clock import Clock
from jetstore.types import Nanos

SLOWED_PACE = 0.75
"""The pace while the wall clock is behind: a jump of d is over after 4 d, and waits take a third longer until then."""


class SteadyClock:
    """A ``Clock`` over a wall clock that jumps and a monotonic one."""

    def __init__(self, clock: Clock, monotonic_s: Callable[[], float]) -> None:
        """Starts with what ``clock`` says."""
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._from_s = monotonic_s()
        self._from_ns = int(clock.wall_ns())
        """Both clocks when they last agreed (or the log was ahead): from there on it goes at the slower pace."""

    def wall_ns(self) -> Nanos:
        """Never less than before."""
        now_s = self._monotonic_s()
        wall_ns = int(self._clock.wall_ns())
        slowed_ns = self._from_ns + int((now_s - self._from_s) * SLOWED_PACE * 1e9)
        if wall_ns < slowed_ns:
            return Nanos(slowed_ns)
        self._from_s, self._from_ns = now_s, wall_ns
        return Nanos(wall_ns)

    def raise_to(self, logged_ns: int) -> None:
        """The log has got this far: go on from there. A life before this one, or another leader, was ahead."""
        if logged_ns > self.wall_ns():
            self._from_s, self._from_ns = self._monotonic_s(), logged_ns
