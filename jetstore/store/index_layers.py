"""The subject index of one stream: rows changed lately in memory, over committed rows that prove themselves.

Three layers, newest first: *tail* (changed since the last capture), *frozen* (captured by a checkpoint, not committed
yet), *base* (one transaction of the index store: the rows as of one stamp). A capture goes into its checkpoint as one
chunk: all rows changed since the base's stamp, absolute. When the checkpoint is durable the owner has the same chunk
committed to the base. So at recovery the base is at the checkpoint's stamp (use it), or at one between the chunk's
previous stamp and its own (put the chunk over it), or anything else (rebuild from the message log).

Source: ``docs/format/index.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol

from jetstore.errors import Corruption, IndexDoubt
from jetstore.store.index_rows import Chunk, encode_chunk
from jetstore.store.ports import IndexRow, SubjectFilter
from jetstore.store.sorted_rows import RowOrGone, SortedRows, filter_ranges


class IndexBase(Protocol):
    """The committed rows of one stream. Every method raises ``IndexDoubt`` rather than answer without proof."""

    stamp: int
    """Which capture the rows are; 0 = none, and no rows."""

    def get(self, subject: bytes) -> IndexRow | None:
        """The committed row."""

    def get_many(self, subjects: list[bytes]) -> list[IndexRow | None]:
        """The committed rows."""

    def has(self, subject: bytes) -> bool:
        """Whether a row is committed, without reading it."""

    def scan(self, start: bytes, end: bytes, is_newer: Callable[[bytes], bool]) -> Iterator[tuple[bytes, IndexRow]]:
        """Rows with subjects ≥ ``start`` and < ``end`` (b"" = no bound), in order, but for those the layers above have.

        Close it soon: it holds a read transaction.
        """

    def absorb(self, rows: Iterable[tuple[bytes, RowOrGone]]) -> None:
        """These rows are about to be committed: expect them from now on."""

    def totals(self) -> tuple[int, int]:
        """Row count and XOR of row hashes after what was absorbed."""

    def committed(self, stamp: int) -> None:
        """The rows absorbed so far were committed under this stamp."""

    def verify_some(self, after_key: bytes, max_rows: int) -> tuple[bytes, int]:
        """Read rows again; the last key read and how many they were."""

    def reset(self) -> None:
        """Expect nothing: the next commit replaces all rows."""


@dataclass(frozen=True, slots=True)
class IndexParts:
    """The index's share of a checkpoint."""

    head: dict[str, Any]
    """JSON-able."""
    chunks: dict[str, bytes]
    keep_chunks: frozenset[str]
    segments: dict[str, int]
    """Always empty: the index has no files of its own kind in a checkpoint."""


def open_index(
    uid: int, base: IndexBase, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes], log: IndexedLog
) -> tuple[LayeredIndex, str]:
    """The index as of a checkpoint, and why it had to be rebuilt from the log ("" if it was not).

    ``log`` must stand at the same checkpoint. Raises what ``log.index_rows`` raises if it is needed.
    """
    index = LayeredIndex(uid, base)
    try:
        index.restore(head_part, chunks)
    except IndexDoubt as doubt:
        index.rebuild(log.index_rows())
        return index, str(doubt)
    return index, ""


class IndexedLog(Protocol):
    """What an index is rebuilt from."""

    def index_rows(self) -> dict[bytes, IndexRow]:
        """A row per subject."""


def index_chunk_names(head_part: Mapping[str, Any] | None) -> list[str]:
    """Chunks that opening an index from this head part may need."""
    return [head_part["chunk"]] if head_part and head_part["chunk"] else []


class LayeredIndex:
    """Implements ``SubjectIndex``. See the module docstring."""

    def __init__(self, uid: int, base: IndexBase) -> None:
        """An empty index whatever the base holds; ``restore`` and ``rebuild`` fill it."""
        self._uid = uid
        self._base = base
        self._is_whole = True
        """The layers hold all rows: the base is not asked, and the next commit replaces it."""
        self._tail = SortedRows()
        self._frozen: SortedRows | None = None
        self._stamp = 0
        """Of the last capture."""
        self._captured: IndexParts | None = None
        self._chunk = b""
        self._absorb: Iterator[tuple[bytes, RowOrGone]] = iter(())
        """Captured rows that the base does not expect yet."""
        self._committing = 0
        self._count = 0

    # -- opening ----------------------------------------------------------------------------------------------------

    def restore(self, head_part: Mapping[str, Any] | None, chunks: Mapping[str, bytes]) -> None:
        """Become the index as of a checkpoint. Raises ``IndexDoubt`` if only a ``rebuild`` can; nothing else."""
        if head_part is None:
            self._base.reset()
            return
        stamp, previous, name = head_part["stamp"], head_part["previous"], head_part["chunk"]
        at = self._base.stamp
        self._stamp = stamp
        if at == stamp:
            self._is_whole = stamp == 0
            self._count = self._base.totals()[0]
            return
        if not name:
            self._base.reset()
            raise IndexDoubt(f"index of group {self._uid} is at stamp {at}, its checkpoint at {stamp}")
        try:
            chunk = Chunk(chunks[name], name)
        except (Corruption, KeyError) as error:
            self._base.reset()
            raise IndexDoubt(f"index chunk of group {self._uid}: {error}") from error
        if not chunk.is_whole and not (0 < previous <= at < stamp):
            self._base.reset()
            raise IndexDoubt(f"index of group {self._uid} is at stamp {at}, its checkpoint at {previous}..{stamp}")
        self._is_whole = chunk.is_whole
        if self._is_whole:
            self._base.reset()
        self._count = 0 if self._is_whole else self._base.totals()[0]
        for subject, row in chunk.rows:
            if row is None:
                self.delete(subject)
            else:
                self.put(subject, row)

    def rebuild(self, rows: Mapping[bytes, IndexRow]) -> None:
        """Become exactly these rows (``MessageLog.index_rows``); the next commit replaces everything stored."""
        self._base.reset()
        self._is_whole = True
        self._tail = SortedRows(dict(rows))
        self._frozen = None
        self._captured = None
        self._absorb = iter(())
        self._committing = 0
        self._count = len(rows)

    @property
    def unused_stamp(self) -> int:
        """A stamp above all that this index has used or found."""
        return max(self._stamp, self._base.stamp) + 1_000

    def successor(self, stamp: int, rows: Mapping[bytes, IndexRow]) -> LayeredIndex:
        """The index of a state that takes this one's place: exactly these rows, as of ``stamp``. This one is void."""
        index = LayeredIndex(self._uid, self._base)
        index._stamp = stamp
        index.rebuild(rows)
        return index

    # -- lookups ----------------------------------------------------------------------------------------------------

    def get(self, subject: bytes) -> IndexRow | None:
        rows = self._tail.rows
        if subject in rows:
            return rows[subject]
        if self._frozen is not None and subject in self._frozen.rows:
            return self._frozen.rows[subject]
        return None if self._is_whole else self._base.get(subject)

    def get_many(self, subjects: Sequence[bytes]) -> list[IndexRow | None]:
        if self._is_whole and self._frozen is None:
            return list(map(self._tail.rows.get, subjects))
        tail = self._tail.rows
        frozen = self._frozen.rows if self._frozen is not None else {}
        if not self._is_whole:
            asked = [subject for subject in subjects if subject not in tail and subject not in frozen]
            if asked:
                base = dict(zip(asked, self._base.get_many(asked), strict=True))
                return [
                    tail[subject] if subject in tail else frozen[subject] if subject in frozen else base[subject]
                    for subject in subjects
                ]
        return [tail[subject] if subject in tail else frozen.get(subject) for subject in subjects]

    def __len__(self) -> int:
        return self._count

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        found: list[tuple[bytes, IndexRow]] = []
        for start, end in filter_ranges(subject_filter, after):
            for subject, row in self._scan(start, end):
                if row is not None and (subject_filter is None or subject_filter(subject)):
                    found.append((subject, row))
                    if max_count and len(found) >= max_count:
                        return found
        return found

    def _scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, RowOrGone]]:
        """The newest row of every subject in the range, in order, gone ones included."""
        if end == start + b"\0":
            yield start, self.get(start)
            return
        layers: list[Iterable[tuple[bytes, RowOrGone]]] = [self._tail.between(start, end)]
        if self._frozen is not None:
            layers.append(self._frozen.between(start, end))
        base = None if self._is_whole else self._base.scan(start, end, self._is_changed)
        if base is not None:
            layers.append(base)
        try:
            last = None
            for subject, row in merge(*layers, key=itemgetter(0)):  # stable: the newest layer comes first
                if subject != last:
                    yield subject, row
                    last = subject
        finally:
            if base is not None and hasattr(base, "close"):
                base.close()

    def _is_changed(self, subject: bytes) -> bool:
        return subject in self._tail.rows or (self._frozen is not None and subject in self._frozen.rows)

    def verify_some(self, after: tuple[int, bytes, int], max_rows: int) -> tuple[int, bytes, int] | None:
        """Check up to ``max_rows`` committed rows; what to pass next, or None at the end of a round.

        Begin with ``(0, b"", 0)``: stamp, last key, rows seen. A commit in between begins the round anew. Raises
        ``IndexDoubt`` if the stored rows are not those committed.
        """
        if self._is_whole or self._captured is not None or self._committing:
            return None  # nothing is committed, or a commit is on its way
        stamp, key, seen = after
        if stamp != self._base.stamp:
            stamp, key, seen = self._base.stamp, b"", 0
        key, count = self._base.verify_some(key, max_rows)
        seen += count
        if count == max_rows:
            return stamp, key, seen
        expected = self._base.totals()[0]
        if seen != expected:
            raise IndexDoubt(f"the index of group {self._uid} has {seen} rows, not {expected}")
        return None

    # -- changes ----------------------------------------------------------------------------------------------------

    def _has(self, subject: bytes) -> bool:
        rows = self._tail.rows
        if subject in rows:
            return rows[subject] is not None
        if self._frozen is not None and subject in self._frozen.rows:
            return self._frozen.rows[subject] is not None
        return not self._is_whole and self._base.has(subject)

    def put(self, subject: bytes, row: IndexRow) -> None:
        if not self._has(subject):
            self._count += 1
        self._tail.put(subject, row)

    def delete(self, subject: bytes) -> None:
        if self._has(subject):
            self._count -= 1
            if self._is_whole and self._frozen is None:
                self._tail.discard(subject)
            else:
                self._tail.put(subject, None)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def changed_rows(self) -> int:
        """Rows changed since the last capture: what drives a checkpoint (``limits.index_tail_rows_max``)."""
        return len(self._tail.rows)

    def capture(self) -> IndexParts:
        """The index as of now, for a checkpoint."""
        self._committing = 0
        base_stamp = 0 if self._is_whole else self._base.stamp
        if self._frozen is None and not self._tail.rows and not self._is_whole:
            return IndexParts({"stamp": base_stamp, "previous": base_stamp, "chunk": ""}, {}, frozenset(), {})
        self._stamp += 1
        frozen = self._tail
        if self._frozen is not None:
            frozen = SortedRows(self._frozen.rows | self._tail.rows)
        rows = frozen.rows
        if self._is_whole:
            self._base.reset()
            if None in rows.values():
                rows = {subject: row for subject, row in rows.items() if row is not None}
        self._chunk = encode_chunk(self._uid, self._stamp, base_stamp, self._is_whole, rows)
        self._frozen = frozen
        self._tail = SortedRows()
        self._absorb = iter(list(rows.items()))
        name = f"index-{self._stamp}"
        head = {"stamp": self._stamp, "previous": base_stamp, "chunk": name}
        self._captured = IndexParts(head, {name: self._chunk}, frozenset((name,)), {})
        return self._captured

    def prepare(self, max_rows: int) -> bool:
        """Do a bounded part of what ``commit_args`` needs (about 2 µs a row); True when nothing is left."""
        part = list(islice(self._absorb, max_rows))
        self._base.absorb(part)
        return len(part) < max_rows

    def commit_args(self) -> tuple[int, bytes, int, int] | None:
        """Once the captured checkpoint is durable: arguments of ``index_commit`` (uid, chunk, row count, XOR).

        None if there is nothing to commit. Call ``committed`` when the command is done.
        """
        if self._captured is None:
            return None
        self._base.absorb(self._absorb)
        self._committing = self._stamp
        count, xor = self._base.totals()
        return self._uid, self._chunk, count, xor

    def committed(self) -> None:
        """``index_commit`` is done: what was captured leaves memory, unless something newer was captured meanwhile."""
        if not self._committing:
            return
        self._base.committed(self._committing)
        self._is_whole = False
        self._frozen = None
        self._captured = None
        self._chunk = b""
        self._committing = 0
