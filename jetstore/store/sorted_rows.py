"""Index rows in memory, readable in subject order, and the key ranges that a subject filter can match."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeAlias

from jetstore.store.ports import IndexRow, SubjectFilter

RowOrGone: TypeAlias = IndexRow | None
"""A changed row; None: the subject is gone since."""


def prefix_end(prefix: bytes) -> bytes:
    """The least byte string greater than everything that starts with ``prefix``; b"" if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else b""


def filter_ranges(subject_filter: SubjectFilter | None, after: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Disjoint key ranges [start, end) in order that hold every matching subject > ``after``; end b"" is no bound."""
    if subject_filter is None:
        ranges = [(b"", b"")]
    else:
        ranges = [(literal, literal + b"\0") for literal in subject_filter.literals]
        for pattern in subject_filter.patterns:
            if pattern not in subject_filter.literals:
                tokens = pattern.split(b".")
                wild = next(i for i, token in enumerate(tokens) if token in (b"*", b">"))
                prefix = b"".join(token + b"." for token in tokens[:wild])
                ranges.append((prefix, prefix_end(prefix)))
    least = after + b"\0" if after else b""
    kept: list[tuple[bytes, bytes]] = []
    for start, end in sorted(ranges):
        if kept and (not kept[-1][1] or start < kept[-1][1]):
            continue  # Ranges are prefixes or single subjects: they nest or are disjoint.
        if not end or end > least:
            kept.append((max(start, least), end))
    return kept


class SortedRows:
    """Rows by subject. Changes cost O(1); the first ordered read after an added subject sorts (mostly merges)."""

    __slots__ = ("_added", "_gone", "_sorted", "rows")

    def __init__(self, rows: dict[bytes, RowOrGone] | None = None) -> None:
        self.rows: dict[bytes, RowOrGone] = rows or {}
        self._sorted: list[bytes] = []
        self._added: set[bytes] = set(self.rows)
        self._gone: set[bytes] = set()

    def put(self, subject: bytes, row: RowOrGone) -> None:
        """Replace or add the row."""
        if subject not in self.rows:
            if subject in self._gone:
                self._gone.discard(subject)
            else:
                self._added.add(subject)
        self.rows[subject] = row

    def discard(self, subject: bytes) -> None:
        """Forget the row, if there is one."""
        if self.rows.pop(subject, self) is not self:
            if subject in self._added:
                self._added.discard(subject)
            else:
                self._gone.add(subject)

    def subjects(self, start: bytes, end: bytes) -> Iterator[bytes]:
        """Subjects ≥ ``start`` and < ``end`` (b"" = no bound), in order. Rows must not change meanwhile."""
        if self._added:
            self._sorted += sorted(self._added)
            self._sorted.sort()
            self._added.clear()
        if 2 * len(self._gone) > len(self._sorted):
            self._sorted = list(filter(self.rows.__contains__, self._sorted))
            self._gone.clear()
        ordered = self._sorted
        low = bisect_left(ordered, start)
        high = bisect_left(ordered, end, low) if end else len(ordered)
        return filter(self.rows.__contains__, (ordered[i] for i in range(low, high)))

    def between(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, RowOrGone]]:
        """``subjects`` with their rows."""
        rows = self.rows
        return ((subject, rows[subject]) for subject in self.subjects(start, end))
