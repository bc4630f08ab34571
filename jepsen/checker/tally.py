"""How much each checker has compared: one that compared nothing has judged nothing, and looks like one that passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

CHECKERS = (
    "lost",
    "unexpected",
    "phantom",
    "dup-seq",
    "dup-msg",
    "order",
    "gap",
    "contents",
    "bytes",
    "removed",
    "limit",
    "drain",
    "wq",
    "redelivered",
    "holders",
    "floor",
    "drained",
    "lin",
    "batch",
    "fast",
    "counter",
    "timed",
    "admin",
    "mirror",
    "stale",
    "live",
    "whole",
    "lost-on-node",
    "hash",
    "raft",
    "ghost",
)
"""Of all that count, in the order in which they are told."""
_TALLY: ContextVar[Counter[str] | None] = ContextVar("tally", default=None)


def compared(checker: str, count: int = 1) -> None:
    """The checker has held so many facts against others; what could not have been objected to does not count."""
    assert checker in CHECKERS, checker
    counts = _TALLY.get()
    if counts is not None:
        counts[checker] += count


@contextmanager
def tallied(counts: Counter[str]) -> Iterator[None]:
    """Within, and in tasks that begin within, what is compared is counted here."""
    token = _TALLY.set(counts)
    try:
        yield
    finally:
        _TALLY.reset(token)
