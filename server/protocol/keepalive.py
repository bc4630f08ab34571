"""Keep-alive of one connection as a function of time: when to PING, when to give up."""

from __future__ import annotations

from enum import Enum

FIRST_PING_S = 2.0
"""The first PING measures the round trip soon after the connection is made."""
RTT_REFRESH_S = 3600.0
"""At least this often a PING is sent even to a busy client."""


class Due(Enum):
    """What a timer that fired asks for."""

    NOTHING = 0
    PING = 1
    STALE = 2


class Keepalive:
    """Counts unanswered PINGs. Times are seconds of one monotonic clock, handed in."""

    __slots__ = ("_ping_sent_s", "interval_s", "last_activity_s", "max_unanswered", "rtt_s", "unanswered")

    def __init__(self, now_s: float, interval_s: float, max_unanswered: int) -> None:
        self.interval_s = interval_s
        self.max_unanswered = max_unanswered
        self.last_activity_s = now_s
        self.unanswered = 0
        self.rtt_s: float | None = None
        self._ping_sent_s: float | None = None

    def first_delay_s(self, jitter: float) -> float:
        """Seconds until the first timer; ``jitter`` in [0, 1) adds up to a fifth."""
        delay_s = min(self.interval_s, FIRST_PING_S)
        return delay_s + jitter * delay_s / 5

    def timer_fired(self, now_s: float) -> Due:
        """What to do now. The next timer is due after ``interval_s``."""
        needs_rtt = self.rtt_s is None or (self._ping_sent_s or 0.0) + RTT_REFRESH_S < now_s
        if now_s - self.last_activity_s < self.interval_s and not needs_rtt:
            return Due.NOTHING
        if self.unanswered + 1 > self.max_unanswered:
            return Due.STALE
        self.unanswered += 1
        self._ping_sent_s = now_s
        return Due.PING

    def pong(self, now_s: float) -> None:
        """The client answered."""
        self.unanswered = 0
        if self._ping_sent_s is not None:
            self.rtt_s = now_s - self._ping_sent_s
