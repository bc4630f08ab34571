"""What must happen again once nothing is wrong any more: the server starts, takes writes and answers, in bounded time.

A ``probe`` is an operation that began after everything had healed; it must end well, and soon.
"""

from __future__ import annotations

from jepsen.checker.tally import compared
from jepsen.history import OK, History


def check_live(history: History, bound_ns: int) -> list[str]:
    """Probes that failed, were never answered, or took longer than the bound."""
    problems = []
    for probe in history.of("probe"):
        compared("live")
        if probe.outcome != OK:
            problems.append(f"live: {probe.line()}")
        elif probe.end_ns - probe.start_ns > bound_ns:
            problems.append(f"live: took {(probe.end_ns - probe.start_ns) / 1e9:.1f} s: {probe.line()}")
    return problems
