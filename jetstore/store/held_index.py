"""The subject index of an encrypted store: rows in memory, rebuilt from the message logs at every start.

The rows of an index are named by subjects and read in their order, so they cannot be sealed one by one; and LMDB writes
what it has as it is. Here nothing of them is written but the sealed chunk that each checkpoint has anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from jetstore.store.index_layers import IndexedLog, LayeredIndex, open_index
from jetstore.store.ports import IndexRow
from jetstore.store.sorted_rows import RowOrGone, SortedRows


class HeldRows:
    """Implements ``IndexBase``. What is absorbed is there at once: the layers above still say the same of it."""

    def __init__(self) -> None:
        """No rows."""
        self.stamp = 0
        self._rows = SortedRows()

    def reset(self) -> None:
        self.stamp = 0
        self._rows = SortedRows()

    def get(self, subject: bytes) -> IndexRow | None:
        return self._rows.rows.get(subject)

    def get_many(self, subjects: list[bytes]) -> list[IndexRow | None]:
        return list(map(self._rows.rows.get, subjects))

    def has(self, subject: bytes) -> bool:
        return subject in self._rows.rows

    def scan(self, start: bytes, end: bytes, is_newer: Callable[[bytes], bool]) -> Iterator[tuple[bytes, IndexRow]]:
        for subject, row in self._rows.between(start, end):
            if row is not None and not is_newer(subject):
                yield subject, row

    def absorb(self, rows: Iterable[tuple[bytes, RowOrGone]]) -> None:
        for subject, row in rows:
            if row is None:
                self._rows.discard(subject)
            else:
                self._rows.put(subject, row)

    def totals(self) -> tuple[int, int]:
        return len(self._rows.rows), 0

    def committed(self, stamp: int) -> None:
        self.stamp = stamp

    def verify_some(self, after_key: bytes, max_rows: int) -> tuple[bytes, int]:
        seen = list(islice(self._rows.subjects(after_key + b"\0" if after_key else b"", b""), max_rows))
        return (seen[-1] if seen else after_key), len(seen)


class HeldIndexes:
    """Opens the indexes of all streams of an encrypted node; the counterpart of ``LmdbIndexes``."""

    def __init__(self) -> None:
        """Nothing is kept between streams."""
        self.findings: list[str] = []
        """Always empty: rebuilding is the rule here."""

    def open(
        self, uid: int, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes], log: IndexedLog
    ) -> LayeredIndex:
        """The index of a stream as of a checkpoint (None: none yet), made from ``log``."""
        return open_index(uid, HeldRows(), head_part, chunks, log)[0]

    def close(self) -> None:
        """Nothing is held open."""


def writer_commands(*_: Any) -> dict[str, Callable[..., Any]]:
    """What stands for the commands of ``IndexWriter``: there is nothing to write (an extension of ``ProcessDisk``)."""
    return {"index_commit": lambda *_: None, "index_drop": lambda *_: None}
