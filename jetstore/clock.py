"""Wall time as a port. Monotonic time is the event loop's own (``loop.time()``), which the simulator replaces."""

from __future__ import annotations

import time
from typing import Protocol

from jetstore.types import Nanos


class Clock(Protocol):
    """Where wall time comes from. Safety never depends on it (it may jump); only timestamps and ages do."""

    def wall_ns(self) -> Nanos:
        """Nanoseconds since 1970-01-01 UTC."""


class RealClock:
    """The machine's own clock."""

    def wall_ns(self) -> Nanos:
        return Nanos(time.time_ns())
