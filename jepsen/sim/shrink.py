"""From a failing seed to the few events it needs: delta debugging over the fault schedule, then the workload.

Every event of a plan has dice of its own, so leaving one out does not change what the others do (it may change whom
they find as leader: the search only keeps what still fails). A run counts as the same failure when a problem of the
same checker comes up. Source: Zeller, Hildebrandt 2002, "Simplifying and isolating failure-inducing input" (ddmin).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jepsen.sim.run import Report, run_seed

PUBLISHES_MIN = 5


def minimize(events: Sequence[int], fails: Callable[[frozenset[int]], bool]) -> list[int]:
    """The smallest subset that ddmin finds to fail still: no single event of it can be left out. ``events`` fails."""
    kept = list(events)
    parts = 2
    while kept:
        size = -(-len(kept) // parts)
        chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
        smaller = next((chunk for chunk in chunks if len(chunk) < len(kept) and fails(frozenset(chunk))), None)
        if smaller is not None:
            kept, parts = smaller, 2
            continue
        rests = ([event for event in kept if event not in chunk] for chunk in chunks)
        rest = next((rest for rest in rests if fails(frozenset(rest))), None)
        if rest is not None:
            kept, parts = rest, max(2, parts - 1)
        elif parts >= len(kept):
            break
        else:
            parts = min(len(kept), 2 * parts)
    return kept


@dataclass(slots=True)
class Shrunk:
    """What is left of a failing seed."""

    report: Report
    """Of the smallest failing run."""
    events: list[int]
    options: dict[str, Any] = field(default_factory=dict)
    """Of ``run_seed``; without ``only``."""
    runs: int = 0


def checkers_of(report: Report) -> frozenset[str]:
    """Names of the checkers that objected; safety goes before ``live``, which often only follows from it."""
    names = frozenset(problem.split(":")[0] for problem in report.problems)
    return names - {"live"} or names


def shrink(seed: int, on_step: Callable[[str], None] = lambda told: None, **options: Any) -> Shrunk | None:
    """Shrink a failing seed (``options`` are those of ``run_seed``); None if it does not fail."""
    best = run_seed(seed, **options)
    if not best.problems:
        return None
    wanted = checkers_of(best)
    runs = 1

    def fails(**changed: Any) -> bool:
        nonlocal best, runs
        runs += 1
        report = run_seed(seed, **{**options, **changed})
        if not wanted & checkers_of(report):
            return False
        best = report
        on_step(f"run {runs}: still fails with {', '.join(f'{name} {value}' for name, value in changed.items())}")
        return True

    first = options.pop("only", None)
    events = sorted(range(best.events) if first is None else first)
    events = minimize(events, lambda kept: fails(only=sorted(kept)))
    options["only"] = events
    names = list(best.workloads)
    for name in names[:]:
        rest = tuple(other for other in names if other != name)
        if rest and fails(workloads=rest):
            names.remove(name)
            options["workloads"] = rest
    publishes_max = options.get("publishes_max") or 256
    while publishes_max > PUBLISHES_MIN and fails(publishes_max=publishes_max // 2):
        publishes_max //= 2
        options["publishes_max"] = publishes_max
    events = minimize(events, lambda kept: fails(only=sorted(kept)))
    del options["only"]
    best = run_seed(seed, only=events, **options)
    return Shrunk(best, events, options, runs)
