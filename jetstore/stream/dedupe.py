"""Message ids and the sequence each was stored at, for as long as the duplicate window lasts.

Ids live in time buckets (a 64th of the window each): forgetting is in bulk, closed buckets are immutable chunks of a
checkpoint. Whether an id still counts is exact: every frame that brought ids left a mark (sequence, logged time).
Times are the leader's logged times, so every replica forgets the same ids at the same entry.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jetstore.errors import Corruption
from jetstore.hot.crc import crc32c

BUCKETS_PER_WINDOW = 64


class _Bucket:
    __slots__ = ("ids", "mark_seqs", "mark_times", "number", "seqs", "sum")

    def __init__(self, number: int) -> None:
        self.number = number
        self.ids: list[bytes] = []
        self.seqs: list[int] = []
        self.mark_seqs: list[int] = []
        self.mark_times: list[int] = []
        self.sum: tuple[int, int, int] | None = None
        """Number of ids, length and crc32c of the chunk as it was when somebody asked."""


class Dedupe:
    """The ids of one stream, bounded by the owner through ``len``."""

    def __init__(self, window_ns: int) -> None:
        """Empty. A window of 0 remembers nothing."""
        self.window_ns = window_ns
        self._seq_by_id: dict[bytes, int] = {}
        self._buckets: deque[_Bucket] = deque()
        self._next_number = 1

    def __len__(self) -> int:
        return len(self._seq_by_id)

    def find(self, msg_id: bytes, now_ns: int) -> int:
        """The sequence this id was stored at within the window before ``now_ns``, or 0."""
        seq = self._seq_by_id.get(msg_id, 0)
        return seq if seq and now_ns - self._time_of(seq) < self.window_ns else 0

    def has_any(self, msg_ids: Sequence[bytes]) -> bool:
        """Whether one of these may be known, or is given twice: then each must be looked at."""
        return len(set(msg_ids)) < len(msg_ids) or not self._seq_by_id.keys().isdisjoint(msg_ids)

    def add(self, msg_ids: Sequence[bytes], seqs: Sequence[int], time_ns: int) -> None:
        """Remember ids stored at these increasing sequences by one frame of this time."""
        if not self.window_ns or not msg_ids:
            return
        buckets = self._buckets
        span_ns = max(self.window_ns // BUCKETS_PER_WINDOW, 1)
        if not buckets or time_ns - buckets[-1].mark_times[0] >= span_ns:
            buckets.append(_Bucket(self._next_number))
            self._next_number += 1
        bucket = buckets[-1]
        bucket.ids += msg_ids
        bucket.seqs += seqs
        bucket.mark_seqs.append(seqs[0])
        bucket.mark_times.append(time_ns)
        self._seq_by_id.update(zip(msg_ids, seqs, strict=True))

    def forget(self, now_ns: int) -> None:
        """Drop the buckets that lie wholly before the window."""
        buckets = self._buckets
        known = self._seq_by_id
        while buckets and now_ns - buckets[0].mark_times[-1] >= self.window_ns:
            bucket = buckets.popleft()
            last = bucket.seqs[-1]
            for msg_id in bucket.ids:
                if known.get(msg_id, last + 1) <= last:
                    del known[msg_id]

    def next_forget_ns(self) -> int:
        """When the oldest bucket leaves the window; 0 if there is none."""
        return self._buckets[0].mark_times[-1] + self.window_ns if self._buckets else 0

    def _time_of(self, seq: int) -> int:
        for bucket in reversed(self._buckets):
            if bucket.mark_seqs[0] <= seq:
                return bucket.mark_times[bisect_right(bucket.mark_seqs, seq) - 1]
        return 0

    # -- checkpoint -----------------------------------------------------------------------------------------------

    def to_head(self) -> list[list[int]]:
        """Number and length of every bucket, in order: what names its chunk."""
        return [[bucket.number, len(bucket.ids)] for bucket in self._buckets]

    def chunks(self) -> dict[str, bytes]:
        """Every bucket's chunk by name; one name never has two contents."""
        return {self.chunk_name(b.number, len(b.ids)): _encode(b) for b in self._buckets}

    def sum_some(self) -> bool:
        """Add up one bucket more; True when none is left: then ``sums`` is cheap. For event loops."""
        for bucket in self._buckets:
            if bucket.sum is None:
                _sum(bucket)
                return False
        return True

    def sums(self) -> list[tuple[str, int, int]]:
        """Name, length and crc32c of every bucket's chunk, in order."""
        return [(self.chunk_name(b.number, len(b.ids)), *_sum(b)) for b in self._buckets]

    def frozen_chunks(self) -> dict[str, Callable[[], bytes]]:
        """Every bucket's chunk by name, made when called; the ids as of now, whatever happens later."""
        found: dict[str, Callable[[], bytes]] = {}
        for position, bucket in enumerate(self._buckets, 1):
            name = self.chunk_name(bucket.number, len(bucket.ids))
            if position < len(self._buckets):
                found[name] = partial(_encode, bucket)  # closed: it never changes again
            else:
                found[name] = partial(bytes, _encode(bucket))
        return found

    @staticmethod
    def chunk_name(number: int, length: int) -> str:
        """Name of the chunk of a bucket with so many ids."""
        return f"ids-{number:010d}-{length}"

    @classmethod
    def from_head(cls, window_ns: int, rows: list[list[int]], next_number: int, chunks: Mapping[str, bytes]) -> Dedupe:
        """What ``to_head`` and ``chunks`` described. Raises ``Corruption`` for a missing or odd chunk."""
        dedupe = cls(window_ns)
        dedupe._next_number = next_number
        for number, length in rows:
            name = cls.chunk_name(number, length)
            if name not in chunks:
                raise Corruption("a chunk named by the head is missing", file=name, offset=0)
            bucket = _decode(name, number, chunks[name])
            if len(bucket.ids) != length:
                raise Corruption("wrong number of ids", file=name, offset=0, expected=length, actual=len(bucket.ids))
            dedupe._buckets.append(bucket)
            dedupe._seq_by_id.update(zip(bucket.ids, bucket.seqs, strict=True))
        return dedupe

    @property
    def next_number(self) -> int:
        """Number of the next bucket."""
        return self._next_number


def _sum(bucket: _Bucket) -> tuple[int, int]:
    if bucket.sum is None or bucket.sum[0] != len(bucket.ids):
        chunk = _encode(bucket)
        bucket.sum = len(bucket.ids), len(chunk), int(crc32c(chunk))
    return bucket.sum[1:]


def _encode(bucket: _Bucket) -> bytes:
    fields = {
        "seqs": bucket.seqs,
        "mark_seqs": bucket.mark_seqs,
        "mark_times": bucket.mark_times,
        "id_lens": list(map(len, bucket.ids)),
    }
    head = json.dumps(fields, separators=(",", ":")).encode()
    return b"%d\n%b%b" % (len(head), head, b"".join(bucket.ids))


def _decode(name: str, number: int, chunk: bytes) -> _Bucket:
    bucket = _Bucket(number)
    try:
        length, _, rest = chunk.partition(b"\n")
        fields: dict[str, Any] = json.loads(rest[: int(length)])  # Any: JSON values
        at = int(length)
        for id_len in fields["id_lens"]:
            bucket.ids.append(rest[at : at + id_len])
            at += id_len
        bucket.seqs = fields["seqs"]
        bucket.mark_seqs = fields["mark_seqs"]
        bucket.mark_times = fields["mark_times"]
    except (ValueError, KeyError, TypeError):
        raise Corruption("unreadable chunk of message ids", file=name, offset=0) from None
    if at != len(rest) or len(bucket.seqs) != len(bucket.ids) or not bucket.mark_seqs:
        raise Corruption("chunk of message ids does not add up", file=name, offset=0, expected=at, actual=len(rest))
    return bucket
