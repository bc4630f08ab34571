"""The message log of a state that a peer described: local segments as far as they reach, received ones behind them.

``LogInstall`` looks at every record's place once, in slices: it makes the subject index rows on the way and proves that
exactly the messages are there that the peer's state has, no more bytes and no fewer. It changes nothing: files and the
log that is in use stay as they are until the head that names the new list of segments is durable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, TypeVar

from jetstore.errors import Corruption
from jetstore.store.install_files import Received
from jetstore.store.log_checkpoint import SavedParts
from jetstore.store.log_rows import merge_rows
from jetstore.store.ports import IndexRow
from jetstore.store.segment_files import SegmentFile
from jetstore.store.segment_table import SegmentTable

if TYPE_CHECKING:
    from jetstore.store.message_log import SegmentedLog
    from jetstore.store.seqset import SeqSet

SLICE_RECORDS = 8_000
"""Records looked at between two turns of the event loop (about 2 ms)."""


Log = TypeVar("Log", bound="SegmentedLog")


def successor(old: Log, storage: str) -> Log:
    """An empty log of the same group, over the same files and cache: for a state that takes this one's place."""
    return type(old)(old.reader.vfs, old.uid, old._limits, storage=storage, cache=old._cache)


class LogInstall:
    """One log being put together. Run ``steps`` to its end, then ``finish``."""

    def __init__(
        self,
        old: SegmentedLog,
        received: Received | None,
        removed: SeqSet,
        *,
        first_seq: int,
        last_seq: int,
        keeps_local: bool,
    ) -> None:
        """``removed``, ``first_seq``, ``last_seq`` are the peer's. Without ``keeps_local`` only received files count.

        Raises ``Corruption`` if local and received files overlap.
        """
        self._old = old
        self._removed = removed
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.messages = 0
        self.bytes = 0
        self.rows: dict[bytes, IndexRow] = {}
        begin = received.first_seq if received is not None and received.files else last_seq + 1
        self.segments: list[SegmentFile] = []
        """What the log will consist of."""
        for segment in old.segment_files() if keeps_local else ():
            if segment.base_seq >= begin:
                break
            if segment.last_seq >= begin:
                raise Corruption("received records overlap stored ones", file=segment.path, offset=0)
            assert segment.is_sealed
            assert not segment.memory, "frames were not written"
            self._keep(segment)
        self._kept = {segment.path for segment in self.segments}
        for segment in received.files if received is not None else ():
            assert segment.has_footer, "received records were not sealed"
            self._keep(segment)

    @property
    def is_stale(self) -> bool:
        """A stored segment is not in the file any more that was looked at: compaction has rewritten it."""
        return not self._kept <= {segment.path for segment in self._old.segment_files()}

    def _keep(self, segment: SegmentFile) -> None:
        """Take a segment over, unless nothing of it is live."""
        first, last = max(segment.base_seq, self.first_seq), min(segment.last_seq, self.last_seq)
        if segment.last_seq > self.last_seq:
            raise Corruption("records beyond the end of the state", file=segment.path, offset=0)
        live = last - first + 1 - self._removed.count_between(first, last) if first <= last else 0
        if live > 0:
            self.segments.append(replace(segment, live=live, memory={}, is_dropped=False))

    def steps(self) -> Iterator[None]:
        """Look at all records, a slice at a time. Raises ``Corruption`` if a live one is missing."""
        reader = self._old.reader
        for segment in self.segments:
            before = self.messages
            count = reader.ask(segment, lambda table: table.message_count)
            rows: dict[bytes, IndexRow] = {}
            for low in range(0, count, SLICE_RECORDS):
                reader.ask(segment, partial(self._look, low=low, high=min(low + SLICE_RECORDS, count), rows=rows))
                yield
            merge_rows(self.rows, rows)
            if self.messages - before != segment.live:
                raise Corruption(
                    f"sequences {segment.base_seq}-{segment.last_seq}: live messages are missing",
                    file=segment.path,
                    offset=0,
                    expected=segment.live,
                    actual=self.messages - before,
                )

    def _look(self, table: SegmentTable, low: int, high: int, rows: dict[bytes, IndexRow]) -> None:
        seqs = table.seqs_of(range(low, high))
        ids: Sequence[int] = table.ids[low:high]
        sizes: Sequence[int] = table.sizes[low:high]
        removed, first_seq = self._removed, self.first_seq
        if seqs[0] < first_seq or removed.count_between(seqs[0], seqs[-1]):
            live = frozenset(removed.absent(max(seqs[0], first_seq), seqs[-1], len(seqs)))
            is_live = [seq in live for seq in seqs]
            seqs, ids, sizes = (list(compress(column, is_live)) for column in (seqs, ids, sizes))
        self.messages += len(seqs)
        self.bytes += sum(sizes)
        counts = Counter(ids)
        at = range(len(seqs))
        last_at = dict(zip(ids, at, strict=True))
        first_at = dict(zip(reversed(ids), reversed(at), strict=True))
        merge_rows(
            rows,
            {
                table.subjects[id_]: IndexRow(seqs[first_at[id_]], seqs[last], counts[id_], sizes[last])
                for id_, last in last_at.items()
            },
        )

    def check(self, messages: int, size_bytes: int) -> None:
        """Raises ``Corruption`` unless the records are as many and as large as the peer's state says."""
        if (messages, size_bytes) != (self.messages, self.bytes):
            raise Corruption(
                "the records do not add up to the peer's state",
                file=f"group {self._old.uid}",
                offset=0,
                expected=(messages, size_bytes),
                actual=(self.messages, self.bytes),
            )

    def fill(self, log: SegmentedLog, serial: int) -> None:
        """Make a new, empty log the one that was put together; its first checkpoint writes everything it needs."""
        log.adopt(self.first_seq, self.last_seq, self._removed, self.segments, SavedParts(serial=serial))
