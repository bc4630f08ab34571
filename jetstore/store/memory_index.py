"""The in-memory subject index: the same answers as the one over LMDB, from a dict and a sorted list."""

from __future__ import annotations

from collections.abc import Sequence

from jetstore.store.ports import IndexRow, SubjectFilter
from jetstore.store.sorted_rows import SortedRows, filter_ranges


class MemoryIndex:
    """Implements ``SubjectIndex`` without a disk."""

    def __init__(self, rows: dict[bytes, IndexRow] | None = None) -> None:
        self._rows = SortedRows(dict(rows or {}))

    def get(self, subject: bytes) -> IndexRow | None:
        return self._rows.rows.get(subject)

    def get_many(self, subjects: Sequence[bytes]) -> list[IndexRow | None]:
        return list(map(self._rows.rows.get, subjects))

    def put(self, subject: bytes, row: IndexRow) -> None:
        self._rows.put(subject, row)

    def delete(self, subject: bytes) -> None:
        self._rows.discard(subject)

    def __len__(self) -> int:
        return len(self._rows.rows)

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        rows = self._rows.rows
        found: list[tuple[bytes, IndexRow]] = []
        for start, end in filter_ranges(subject_filter, after):
            for subject in self._rows.subjects(start, end):
                row = rows[subject]
                if row is not None and (subject_filter is None or subject_filter(subject)):
                    found.append((subject, row))
                    if max_count and len(found) >= max_count:
                        return found
        return found
