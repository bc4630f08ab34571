"""Memory and CPU of this process, sampled at most once a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Usage:
    """One sample."""

    resident_bytes: int
    cpu_percent: float


class ProcessUsage:
    """Samples on demand; a sample younger than a second is given again."""

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = time.process_time,
        resident: Callable[[], int] | None = None,
    ) -> None:
        self._now_s = now_s
        self._cpu_s = cpu_s
        self._resident = resident or resident_bytes
        self._at_s = now_s()
        self._at_cpu_s = cpu_s()
        self._usage: Usage | None = None

    def sample(self) -> Usage:
        """Usage now, CPU since the sample before (100 = one core)."""
        now_s = self._now_s()
        elapsed_s = now_s - self._at_s
        if self._usage is None or elapsed_s >= _SAMPLE_S:
            cpu_s = self._cpu_s()
            percent = round(100 * (cpu_s - self._at_cpu_s) / elapsed_s, 1) if elapsed_s > 0 else 0.0
            self._usage = Usage(self._resident(), percent)
            self._at_s, self._at_cpu_s = now_s, cpu_s
        return self._usage


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
