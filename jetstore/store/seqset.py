"""A set of sequences in bitmaps: the removed and skipped sequences of one stream.

8,192 sequences make a chunk: absent (no member), a bitmap, or full. Full chunks are kept as runs, so a purge or a jump
of a billion sequences costs one tuple. 64 chunks make a group: the unit that a checkpoint writes, and only if it
changed. Memory is at most one bit per sequence between the first live one and the last, plus a few words per chunk.

Source: ``docs/format/segment.md``, "Deleted sequences".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, compress
from struct import Struct

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.crc import crc32c

CHUNK_BITS = 13
CHUNK_SEQS = 1 << CHUNK_BITS
GROUP_CHUNKS = 64
_GROUP_BITS = CHUNK_BITS + 6
_CHUNK_BYTES = CHUNK_SEQS // 8
_LOW = CHUNK_SEQS - 1
_ALL = (1 << CHUNK_SEQS) - 1
_MEMBERS = [tuple(value >> bit & 1 for bit in range(8)) for value in range(256)]
_ABSENT = [tuple(1 - bit for bit in bits) for bits in _MEMBERS]

_MAGIC = b"JSDL"
_HEAD = Struct("<4sB3xQ64s")
"""magic, version, group number, state of each chunk (0 absent, 1 bitmap, 2 full)."""


class SeqSet:
    """Sequences ≥ 1, added singly or in ranges; only whole prefixes are ever taken out again."""

    __slots__ = ("_bitmaps", "_counts", "_dirty", "_floor_chunk", "_full_first", "_full_last", "count")

    def __init__(self) -> None:
        self.count = 0
        """Number of members."""
        self._bitmaps: dict[int, bytearray] = {}
        self._counts: dict[int, int] = {}
        self._full_first: list[int] = []
        self._full_last: list[int] = []
        self._dirty: set[int] = set()
        self._floor_chunk = 0
        """No bitmap stands below this chunk."""

    # -- one chunk --------------------------------------------------------------------------------------------------

    def _run_of(self, chunk: int) -> int:
        """Position of the run of full chunks that holds this chunk, or -1."""
        at = bisect_right(self._full_first, chunk) - 1
        return at if at >= 0 and chunk <= self._full_last[at] else -1

    def _set_full(self, first: int, last: int) -> None:
        """Chunks first … last (none of them full) become full."""
        at = bisect_left(self._full_first, first)
        if at < len(self._full_first) and self._full_first[at] == last + 1:
            self._full_first[at] = first
        else:
            self._full_first.insert(at, first)
            self._full_last.insert(at, last)
        if at and self._full_last[at - 1] == first - 1:
            self._full_last[at - 1] = self._full_last[at]
            del self._full_first[at], self._full_last[at]

    def _add_bits(self, chunk: int, low: int, high: int) -> None:
        """Add positions low … high - 1 of a chunk that is not full."""
        bitmap = self._bitmaps.get(chunk)
        value = int.from_bytes(bitmap, "little") if bitmap is not None else 0
        value |= (1 << high) - (1 << low)
        before = self._counts.get(chunk, 0)
        after = value.bit_count()
        self.count += after - before
        if after == CHUNK_SEQS:
            self._bitmaps.pop(chunk, None)
            self._counts.pop(chunk, None)
            self._set_full(chunk, chunk)
        else:
            self._bitmaps[chunk] = bytearray(value.to_bytes(_CHUNK_BYTES, "little"))
            self._counts[chunk] = after
            self._floor_chunk = min(self._floor_chunk, chunk)

    # -- changes ----------------------------------------------------------------------------------------------------

    def add(self, seq: int) -> bool:
        """Add one sequence; False if it was there."""
        chunk = seq >> CHUNK_BITS
        bitmap = self._bitmaps.get(chunk)
        if bitmap is None:
            if self._run_of(chunk) >= 0:
                return False
            bitmap = self._bitmaps[chunk] = bytearray(_CHUNK_BYTES)
            self._counts[chunk] = 0
            self._floor_chunk = min(self._floor_chunk, chunk)
        at, bit = (seq & _LOW) >> 3, 1 << (seq & 7)
        if bitmap[at] & bit:
            return False
        bitmap[at] |= bit
        self.count += 1
        self._counts[chunk] += 1
        self._dirty.add(seq >> _GROUP_BITS)
        if self._counts[chunk] == CHUNK_SEQS:
            del self._bitmaps[chunk], self._counts[chunk]
            self._set_full(chunk, chunk)
        return True

    def add_range(self, first: int, last: int) -> None:
        """Add all sequences of the closed range. Whole chunks cost nothing but the bitmaps they replace."""
        if first > last:
            return
        first_chunk, last_chunk = first >> CHUNK_BITS, last >> CHUNK_BITS
        for group in {first >> _GROUP_BITS, last >> _GROUP_BITS, *self._groups_between(first, last)}:
            self._dirty.add(group)
        if first_chunk == last_chunk:
            if self._run_of(first_chunk) < 0:
                self._add_bits(first_chunk, first & _LOW, (last & _LOW) + 1)
            return
        if self._run_of(first_chunk) < 0:
            self._add_bits(first_chunk, first & _LOW, CHUNK_SEQS)
        if self._run_of(last_chunk) < 0:
            self._add_bits(last_chunk, 0, (last & _LOW) + 1)
        if first_chunk + 1 < last_chunk:
            self._fill(first_chunk + 1, last_chunk - 1)

    def _groups_between(self, first: int, last: int) -> Iterator[int]:
        """Groups that hold something within the range, for a range of any width."""
        low, high = first >> CHUNK_BITS, last >> CHUNK_BITS
        shift = _GROUP_BITS - CHUNK_BITS
        if high - low < 2 * len(self._bitmaps) + 64:
            yield from range(low >> shift, (high >> shift) + 1)
        else:
            yield from (chunk >> shift for chunk in self._bitmaps if low <= chunk <= high)

    def _fill(self, first: int, last: int) -> None:
        """Chunks first … last become full."""
        if last - first < len(self._bitmaps):
            inside = [chunk for chunk in range(first, last + 1) if chunk in self._bitmaps]
        else:
            inside = [chunk for chunk in self._bitmaps if first <= chunk <= last]
        for chunk in inside:
            del self._bitmaps[chunk]
            self.count -= self._counts.pop(chunk)
        low = bisect_left(self._full_last, first)
        high = bisect_right(self._full_first, last)
        if low < high:
            inside_runs = zip(self._full_first[low:high], self._full_last[low:high], strict=True)
            self.count -= sum(b - a + 1 for a, b in inside_runs) * CHUNK_SEQS
            start, end = min(first, self._full_first[low]), max(last, self._full_last[high - 1])
            del self._full_first[low:high], self._full_last[low:high]
        else:
            start, end = first, last
        self.count += (end - start + 1) * CHUNK_SEQS
        self._set_full(start, end)

    def discard_below(self, seq: int) -> None:
        """Take out every member < ``seq``."""
        chunk = seq >> CHUNK_BITS
        if not self.count:
            return
        if chunk > self._floor_chunk:
            self._floor_chunk = chunk
            for old in [c for c in self._bitmaps if c < chunk]:
                del self._bitmaps[old]
                self.count -= self._counts.pop(old)
        boundary = self._run_of(chunk)
        while self._full_first and self._full_first[0] <= chunk:
            first, last = self._full_first.pop(0), self._full_last.pop(0)
            self.count -= (min(last, chunk) - first + 1) * CHUNK_SEQS
            if last > chunk:
                self._full_first.insert(0, chunk + 1)
                self._full_last.insert(0, last)
        if boundary >= 0 and seq & _LOW:
            self._add_bits(chunk, seq & _LOW, CHUNK_SEQS)
        elif boundary >= 0:
            self._set_full(chunk, chunk)
            self.count += CHUNK_SEQS
        elif chunk in self._bitmaps and seq & _LOW:
            value = int.from_bytes(self._bitmaps[chunk], "little") >> (seq & _LOW) << (seq & _LOW)
            left = value.bit_count()
            self.count -= self._counts[chunk] - left
            if left:
                self._bitmaps[chunk] = bytearray(value.to_bytes(_CHUNK_BYTES, "little"))
                self._counts[chunk] = left
            else:
                del self._bitmaps[chunk], self._counts[chunk]
        self._dirty.add(seq >> _GROUP_BITS)

    # -- questions --------------------------------------------------------------------------------------------------

    def __contains__(self, seq: int) -> bool:
        bitmap = self._bitmaps.get(seq >> CHUNK_BITS)
        if bitmap is not None:
            return bool(bitmap[(seq & _LOW) >> 3] >> (seq & 7) & 1)
        return bool(self._full_first) and self._run_of(seq >> CHUNK_BITS) >= 0

    def next_absent(self, seq: int) -> int:
        """The least sequence ≥ ``seq`` that is no member."""
        while True:
            chunk = seq >> CHUNK_BITS
            bitmap = self._bitmaps.get(chunk)
            if bitmap is None:
                run = self._run_of(chunk)
                if run < 0:
                    return seq
                seq = (self._full_last[run] + 1) << CHUNK_BITS
                continue
            free = (int.from_bytes(bitmap, "little") ^ _ALL) >> (seq & _LOW)
            if free:
                return seq + (free & -free).bit_length() - 1
            seq = (chunk + 1) << CHUNK_BITS

    def previous_absent(self, seq: int) -> int:
        """The greatest sequence ≤ ``seq`` that is no member; may be 0 or less."""
        while seq > 0:
            chunk = seq >> CHUNK_BITS
            bitmap = self._bitmaps.get(chunk)
            if bitmap is None:
                run = self._run_of(chunk)
                if run < 0:
                    return seq
                seq = (self._full_first[run] << CHUNK_BITS) - 1
                continue
            mask = (2 << (seq & _LOW)) - 1
            free = (int.from_bytes(bitmap, "little") ^ _ALL) & mask
            if free:
                return (chunk << CHUNK_BITS) + free.bit_length() - 1
            seq = (chunk << CHUNK_BITS) - 1
        return seq

    def absent(self, first: int, last: int, max_count: int) -> list[int]:
        """Up to ``max_count`` sequences of the closed range that are no members, in order."""
        return self._select(first, last, max_count, members=False)

    def members(self, first: int, last: int, max_count: int) -> list[int]:
        """Up to ``max_count`` members in the closed range, in order."""
        return self._select(first, last, max_count, members=True)

    def _select(self, first: int, last: int, max_count: int, *, members: bool) -> list[int]:
        found: list[int] = []
        seq = first
        while seq <= last and len(found) < max_count:
            chunk = seq >> CHUNK_BITS
            end = min(last + 1, (chunk + 1) << CHUNK_BITS)
            bitmap = self._bitmaps.get(chunk)
            if bitmap is not None:
                table = _MEMBERS if members else _ABSENT
                low, high = (seq & _LOW) >> 3, ((end - 1) & _LOW) >> 3
                base = (chunk << CHUNK_BITS) + (low << 3)
                bits = chain.from_iterable(map(table.__getitem__, bitmap[low : high + 1]))
                seqs = list(compress(range(base, base + ((high - low + 1) << 3)), bits))
                seqs = seqs[bisect_left(seqs, seq) : bisect_left(seqs, end)]
                found += seqs[: max_count - len(found)]
            else:
                run = self._run_of(chunk)
                if run >= 0:
                    end = min(last + 1, (self._full_last[run] + 1) << CHUNK_BITS)
                elif not self._bitmaps and not self._full_first:
                    end = last + 1
                if (run >= 0) == members:
                    found += range(seq, min(end, seq + max_count - len(found)))
                elif run < 0:
                    end = min(last + 1, self._next_used(chunk) << CHUNK_BITS)
            seq = end
        return found

    def _next_used(self, chunk: int) -> int:
        """The next chunk that has members, for skipping over absent ones (far beyond any sequence if none)."""
        if (chunk + 1) in self._bitmaps:
            return chunk + 1
        at = bisect_right(self._full_first, chunk)
        nearest = self._full_first[at] if at < len(self._full_first) else 1 << 60
        return min(nearest, min((c for c in self._bitmaps if c > chunk), default=nearest))

    def without(self, seqs: list[int]) -> list[int]:
        """These increasing sequences except the members. Costs nothing where no chunk between has members."""
        if not seqs or not self.count:
            return seqs
        chunks = range(seqs[0] >> CHUNK_BITS, (seqs[-1] >> CHUNK_BITS) + 1)
        if len(chunks) <= 64 and not any(chunk in self._bitmaps or self._run_of(chunk) >= 0 for chunk in chunks):
            return seqs
        return [seq for seq in seqs if seq not in self]

    def count_between(self, first: int, last: int) -> int:
        """Number of members in the closed range."""
        if first > last:
            return 0
        low, high = first >> CHUNK_BITS, last >> CHUNK_BITS
        total = 0
        for chunk in self._bitmaps if len(self._bitmaps) < high - low else range(low, high + 1):
            bitmap = self._bitmaps.get(chunk)
            if bitmap is None or not low <= chunk <= high:
                continue
            if low < chunk < high:
                total += self._counts[chunk]
            else:
                value = int.from_bytes(bitmap, "little")
                if chunk == high:
                    value &= (2 << (last & _LOW)) - 1
                if chunk == low:
                    value >>= first & _LOW
                total += value.bit_count()
        for a, b in zip(self._full_first, self._full_last, strict=True):
            start, end = max(a << CHUNK_BITS, first), min(((b + 1) << CHUNK_BITS) - 1, last)
            total += max(0, end - start + 1)
        return total

    # -- checkpoint -------------------------------------------------------------------------------------------------

    def full_runs(self) -> list[tuple[int, int]]:
        """Runs of full chunks (first, last chunk number) in order, without those that the images of groups mark."""
        runs: list[tuple[int, int]] = []
        mixed = self.groups()
        for first, last in zip(self._full_first, self._full_last, strict=True):
            start = first
            for group in mixed[bisect_left(mixed, first >> 6) : bisect_right(mixed, last >> 6)]:
                if start < group << 6:
                    runs.append((start, (group << 6) - 1))
                start = (group + 1) << 6
            if start <= last:
                runs.append((start, last))
        return runs

    def groups(self) -> list[int]:
        """Numbers of the groups that have a bitmap, in order. Members elsewhere are in full runs."""
        return sorted({chunk >> 6 for chunk in self._bitmaps})

    def take_changed_groups(self) -> set[int]:
        """Groups that may have changed since the last call."""
        changed, self._dirty = self._dirty, set()
        return changed

    def encode_group(self, group: int) -> bytes:
        """A checksummed image of the bitmaps of one group; full chunks of it are marked, so it can be read alone."""
        chunks = range(group << 6, (group + 1) << 6)
        states = bytes(1 if c in self._bitmaps else 2 if self._run_of(c) >= 0 else 0 for c in chunks)
        bitmaps = [self._bitmaps[c] for c in chunks if c in self._bitmaps]
        body = b"".join([_HEAD.pack(_MAGIC, 0, group, states), *bitmaps])
        return body + crc32c(body).to_bytes(4, "little")

    @classmethod
    def decode(cls, groups: Sequence[tuple[str, bytes]], full_runs: Sequence[tuple[int, int]]) -> SeqSet:
        """The set of these group images (name for error texts, bytes) and full runs.

        Raises ``Corruption`` or ``FormatUnknown`` naming the image.
        """
        result = cls()
        for name, data in groups:
            result._decode_group(name, data)
        for first, last in full_runs:
            result._set_full(first, last)
            result.count += (last - first + 1) * CHUNK_SEQS
        return result

    def _decode_group(self, name: str, data: bytes) -> None:
        if len(data) < _HEAD.size + 4 or crc32c(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise Corruption("deleted sequences", file=name, offset=0)
        magic, version, group, states = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != 0:
            raise FormatUnknown("deleted sequences", file=name, offset=0, expected=0, actual=version)
        at = _HEAD.size
        for position, state in enumerate(states):
            if state == 1:
                bitmap = bytearray(data[at : at + _CHUNK_BYTES])
                at += _CHUNK_BYTES
                chunk = (group << 6) + position
                self._bitmaps[chunk] = bitmap
                self._counts[chunk] = int.from_bytes(bitmap, "little").bit_count()
                self.count += self._counts[chunk]
            elif state == 2:
                self._set_full((group << 6) + position, (group << 6) + position)
                self.count += CHUNK_SEQS
        if at != len(data) - 4:
            raise Corruption("deleted sequences", file=name, offset=at, expected=at, actual=len(data) - 4)
