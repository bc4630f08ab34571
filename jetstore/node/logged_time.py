"""What time it is for a consumer's entries, and what is due by it when the log was slow."""

from __future__ import annotations

from jetstore.clock import Clock
from jetstore.node.delivery_ports import LedStream

LATE_NS = 100_000_000
"""A delivery that took at least this long from its entry's time to the wire was late."""


class LoggedTime:
    """Times for entries, and the time up to which pending messages count as due.

    A wait for an acknowledgement is measured from the delivery's entry. If a disk stalls in between, the client gets
    the message late; until that is over, everything counts as due that much later.
    """

    def __init__(self, clock: Clock, stream: LedStream) -> None:
        self._clock = clock
        self._stream = stream
        self._logged_ns = 0
        self._late_ns = 0
        self._late_until_ns = 0

    def next_ns(self) -> int:
        """The time for the next entry."""
        self._logged_ns = self._stream.next_time_ns(self._clock.wall_ns())
        return self._logged_ns

    def reached_ns(self) -> int:
        """What is due by now. Logged times may be a little ahead of the clock."""
        wall_ns = self._clock.wall_ns()
        reached_ns = max(wall_ns, self._logged_ns)
        return reached_ns - self._late_ns if wall_ns < self._late_until_ns else reached_ns

    def sent(self, entry_ns: int, wait_ns: int) -> None:
        """The deliveries of an entry went out just now; they may stay unacknowledged for ``wait_ns``."""
        wall_ns = self._clock.wall_ns()
        late_ns = wall_ns - entry_ns
        if late_ns >= LATE_NS:
            self._late_ns = late_ns if wall_ns >= self._late_until_ns else max(late_ns, self._late_ns)
            self._late_until_ns = wall_ns + wait_ns
