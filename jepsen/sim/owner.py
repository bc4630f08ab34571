"""Whose callback runs: the simulated processes that share one event loop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

HARNESS_HOST = "127.0.0.1"
"""Where the harness and its clients are: no machine of the simulated ones."""


class SimForbidden(RuntimeError):
    """The code asked for the real world: a thread, a selector, a signal, TLS."""


class Owner:
    """A simulated process. ``SimLoop.call_owned`` runs code as it; once it is dead none of its callbacks runs."""

    def __init__(self, name: str, host: str = HARNESS_HOST) -> None:
        self.name = name
        self.host = host
        """The machine it runs on."""
        self.is_alive = True
        self.is_paused = False
        """SIGSTOP: its callbacks wait in ``frozen``."""
        self.has_run = True
        """Whether it did anything since somebody set this to False."""
        self.frozen: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        """Tasks it started (finished ones are dropped now and then)."""
        self.rate = 1.0
        """How fast its monotonic clock runs."""
        self._real_s = self._own_s = 0.0

    def set_rate(self, now_s: float, rate: float) -> None:
        """Its monotonic clock runs at this rate from now on; timers that are set already stay."""
        self._own_s, self._real_s = self.own_time(now_s), now_s
        self.rate = rate

    def own_time(self, real_s: float) -> float:
        """What its monotonic clock shows then."""
        return self._own_s + (real_s - self._real_s) * self.rate

    def real_time(self, own_s: float) -> float:
        """When its monotonic clock shows this."""
        return self._real_s + (own_s - self._own_s) / self.rate


OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("sim_owner", default=None)
"""The process that the current callback belongs to; None for the harness itself."""
