"""Committed index rows that prove themselves, over any ordered key-value store.

At open all rows of the stream are read once against their count and the XOR of their hashes; from then on every answer
must agree with ``VerifiedRows``. What a scan cannot show is a row that vanished from the middle of a range after open;
lookups of that row do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from jetstore.errors import IndexDoubt
from jetstore.store.index_rows import (
    KEY_SUBJECT_BYTES_MAX,
    UID_BYTES,
    VerifiedRows,
    mixed_hash,
    parse_row,
    parse_stamp,
    row_key,
    row_value,
    uid_key,
)
from jetstore.store.ports import IndexRow
from jetstore.store.sorted_rows import RowOrGone


class RawRows(Protocol):
    """An ordered map from keys to values, as of the last commit. Raises ``IndexDoubt`` where it is broken."""

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        """The values."""

    def scan(self, start_key: bytes, *, look_up: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys ≥ ``start_key`` with values, in order. ``look_up``: each is also found by its key, or ``IndexDoubt``."""

    def refresh(self) -> None:
        """Something was committed."""


class ProvenBase:
    """Implements ``IndexBase`` for one stream."""

    def __init__(self, uid: int, raw: RawRows) -> None:
        """Reads and verifies all rows of the stream (about 1.5 µs each)."""
        self._uid = uid
        self._prefix = uid_key(uid)
        self._raw = raw
        self.stamp = 0
        self.finding = ""
        """Why the stored rows are not used; "" if they are, or if there are none."""
        self._rows = VerifiedRows()
        self._xor = 0
        self._row_count = 0
        try:
            self._load()
        except IndexDoubt as doubt:
            self.reset()
            self.finding = str(doubt)

    def _load(self) -> None:
        prefix = self._prefix
        rows = self._raw.scan(prefix, look_up=True)
        try:
            first = next(rows, None)
            if first is None or first[0][:UID_BYTES] != prefix:
                return
            if first[0] != prefix:
                raise IndexDoubt(f"index rows of group {self._uid} have no stamp")
            stamp, count, xor = parse_stamp(*first)
            verified = VerifiedRows(count)
            actual = 0
            for key, value in rows:
                if key[:UID_BYTES] != prefix:
                    break
                _, _, crc = parse_row(key, value)
                verified.put(key, crc)
                actual ^= mixed_hash(key, crc)
        finally:
            _close(rows)
        if (verified.count, actual) != (count, xor):
            raise IndexDoubt(
                f"index of group {self._uid} has {verified.count} rows with hash {actual:x}, not {count} with {xor:x}"
            )
        self.stamp, self._rows, self._row_count, self._xor = stamp, verified, count, xor

    def reset(self) -> None:
        self.stamp = 0
        self._rows = VerifiedRows()
        self._row_count = self._xor = 0

    def get(self, subject: bytes) -> IndexRow | None:
        return self.get_many([subject])[0]

    def get_many(self, subjects: list[bytes]) -> list[IndexRow | None]:
        prefix, find = self._prefix, self._rows.find
        keys = [row_key(prefix, subject) for subject in subjects]
        found: list[IndexRow | None] = []
        for subject, key, value in zip(subjects, keys, self._raw.read(keys), strict=True):
            expected = find(key)
            if value is None:
                if expected >= 0:
                    raise IndexDoubt(f"index row of {subject!r} is missing")
                found.append(None)
                continue
            stored, row, crc = parse_row(key, value)
            if crc != expected or stored != subject:
                raise IndexDoubt(f"index row of {subject!r} is not the one committed")
            found.append(row)
        return found

    def has(self, subject: bytes) -> bool:
        return self._rows.find(row_key(self._prefix, subject)) >= 0

    def scan(self, start: bytes, end: bytes, is_newer: Callable[[bytes], bool]) -> Iterator[tuple[bytes, IndexRow]]:
        limit = end[:KEY_SUBJECT_BYTES_MAX]
        rows = self._raw.scan(self._prefix + start[:KEY_SUBJECT_BYTES_MAX])
        try:
            for key, subject, row, crc in self._in_order(rows, limit):
                if subject < start or (end and subject >= end) or is_newer(subject):
                    continue
                if self._rows.find(key) != crc:
                    raise IndexDoubt(f"index row of {subject!r} is not the one committed")
                yield subject, row
        finally:
            _close(rows)

    def _in_order(
        self, rows: Iterator[tuple[bytes, bytes]], limit: bytes
    ) -> Iterator[tuple[bytes, bytes, IndexRow, int]]:
        """Key, subject, row and crc sorted by subject, until a key is beyond ``limit`` (b"" = none)."""
        cut = UID_BYTES + KEY_SUBJECT_BYTES_MAX
        for head, group in groupby(rows, key=lambda item: item[0][:cut]):
            if head[:UID_BYTES] != self._prefix or (limit and head[UID_BYTES:] > limit):
                return
            parsed = [(key, *parse_row(key, value)) for key, value in group if key != self._prefix]
            yield from sorted(parsed, key=itemgetter(1)) if len(parsed) > 1 else parsed

    def absorb(self, rows: Iterable[tuple[bytes, RowOrGone]]) -> None:
        prefix = self._prefix
        xor = self._xor
        for subject, row in rows:
            key = row_key(prefix, subject)
            if row is None:
                old = self._rows.remove(key)
            else:
                value = row_value(key, subject, row)
                crc = int.from_bytes(value[-4:], "little")
                old = self._rows.put(key, crc)
                xor ^= mixed_hash(key, crc)
            if old >= 0:
                xor ^= mixed_hash(key, old)
        self._xor = xor
        self._row_count = self._rows.count

    def totals(self) -> tuple[int, int]:
        return self._row_count, self._xor

    def committed(self, stamp: int) -> None:
        self.stamp = stamp
        self._raw.refresh()

    def verify_some(self, after_key: bytes, max_rows: int) -> tuple[bytes, int]:
        """Read up to ``max_rows`` rows behind ``after_key`` (b"" = all) again; the last key read, and how many.

        Fewer than ``max_rows`` = the end. Raises ``IndexDoubt`` for a row that is not the one committed. Only between a
        commit and the next ``absorb``.
        """
        prefix = self._prefix
        rows = self._raw.scan(after_key or prefix)
        seen = 0
        try:
            for key, value in rows:
                if key[:UID_BYTES] != prefix:
                    break
                if key in (prefix, after_key):
                    continue
                _, _, crc = parse_row(key, value)
                if self._rows.find(key) != crc:
                    raise IndexDoubt(f"an index row of group {self._uid} is not the one committed")
                after_key = key
                seen += 1
                if seen == max_rows:
                    break
        finally:
            _close(rows)
        return after_key, seen

    def verify(self) -> str:
        """Read all rows again: "" or what is wrong. Only between a commit and the next ``absorb``."""
        again = ProvenBase(self._uid, self._raw)
        if again.finding or (again.stamp, again.totals()) == (self.stamp, self.totals()):
            return again.finding
        return f"index of group {self._uid} changed by itself"


def _close(rows: object) -> None:
    close = getattr(rows, "close", None)
    if close is not None:
        close()
