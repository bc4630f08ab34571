"""``SegmentedLog``: the messages of one stream in segment files, with the applied ones that are not written yet on top.

Appending only changes memory: a frame gets its row in the table of the unsealed segment at once, its bytes wait in
``_tail``. The owner takes them from time to time (``take_unflushed``: now a frame is compressed, if the stream wants
that, and gets its place for good), has them written in order and says so (``flushed``); until then reads find them in
memory. A full segment is sealed: its footer is one more write, and then
its table leaves memory. So what is kept per stored message is a bit of ``SeqSet`` at most.

Removal is logical: ``dead`` holds removed and skipped sequences from ``first_seq`` to ``last_seq``; every other
sequence there is live. A segment without live messages is dropped from the log at once and its file reported for
unlinking after the next checkpoint.

Source: ``docs/format/segment.md``; opening and checkpoints are in ``log_checkpoint.py``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Self

from jetstore.errors import Corruption
from jetstore.hot.columns import Columns, Frame
from jetstore.hot.frame import frame_columns
from jetstore.limits import Limits
from jetstore.store.compaction import Compaction, is_compactable, worst_segment
from jetstore.store.frame_writing import footer_buffers, frame_buffers
from jetstore.store.log_checkpoint import LogParts, SavedParts, make_parts, restore
from jetstore.store.log_rows import merge_rows, segment_rows
from jetstore.store.log_scrub import Scrubber
from jetstore.store.log_search import search, search_back
from jetstore.store.ports import IndexRow, Message, MessageMeta, SubjectFilter
from jetstore.store.read_cache import ReadCache
from jetstore.store.segment import FRAME_HEAD_BYTES, SEGMENT_HEAD_BYTES
from jetstore.store.segment_files import SegmentFile, SegmentReader, segments_dir
from jetstore.store.segment_table import FRAMES_MAX, SUBJECTS_MAX, Place, SegmentTable
from jetstore.store.seqset import SeqSet
from jetstore.store.stored_frame import take_messages
from jetstore.store.stored_size import file_sizes, memory_sizes
from jetstore.store.vfs import Vfs

_FOOTER = -1
"""In ``_tail``, in place of a frame number: the segment's footer is due."""

Write = tuple[str, int, list[bytes]]
"""Path, offset, buffers to be written there one after another."""


class SegmentedLog:
    """Implements ``MessageLog``. See the module docstring; ``open_log`` makes one from a checkpoint."""

    def __init__(
        self,
        vfs: Vfs,
        uid: int,
        limits: Limits,
        *,
        storage: str = "file",
        cache: ReadCache | None = None,
        first_seq: int = 1,
    ) -> None:
        """An empty log whose next message may get ``first_seq``. ``storage`` decides how sizes are counted."""
        assert storage in ("file", "memory")
        self.uid = uid
        self.storage = storage
        self.first_seq = first_seq
        self.last_seq = first_seq - 1
        self.is_erasing = self.is_compressing = False
        self.erased_files = False
        """A file with erased records was dropped and goes with the next checkpoint."""
        self.unflushed_bytes = 0
        """Bytes of appended frames that were not taken for writing yet."""
        self.sizes_of = file_sizes if storage == "file" else memory_sizes
        self._limits = limits
        self._cache = cache or ReadCache(vfs, limits.read_cache_bytes)
        self.reader = SegmentReader(vfs, uid, self._cache, self.sizes_of)
        """Verified reads of the segments: for the log's own modules."""
        self.dead = SeqSet()
        """Removed and skipped sequences from ``first_seq`` to ``last_seq``: for the log's own modules."""
        self._segments: list[SegmentFile] = []
        self._bases: list[int] = []
        self._tail: deque[tuple[SegmentFile, int]] = deque()
        self._taken: deque[list[tuple[SegmentFile, int]]] = deque()
        self._void_takes = 0
        """Takes under way that were given up when one before them failed."""
        self._dropped: list[str] = []
        self._saved = SavedParts()
        self._scrubber = Scrubber()

    # -- what it holds ----------------------------------------------------------------------------------------------

    @property
    def message_count(self) -> int:
        """Live messages."""
        return self.last_seq - self.first_seq + 1 - self.dead.count

    @property
    def findings(self) -> list[Corruption]:
        """Damage met so far; the owner reports and clears it."""
        return self.reader.findings

    def scrub(self, budget_bytes: int, found: list[Corruption]) -> bool:
        """Read about this much again and add what is wrong to ``found``; True when a round is complete."""
        return self._scrubber.step(self, budget_bytes, found)

    def segment_files(self) -> Sequence[SegmentFile]:
        """The segments in order, for inspection."""
        return tuple(self._segments)

    # -- appending --------------------------------------------------------------------------------------------------

    def append(self, first_seq: int, frame: Frame) -> None:
        assert first_seq > self.last_seq, (first_seq, self.last_seq)
        columns = frame_columns(frame)
        count = frame.count
        frame_bytes = FRAME_HEAD_BYTES + len(frame.body)
        segment = self._active(first_seq, frame_bytes)
        table = segment.table
        assert table is not None
        if first_seq > self.last_seq + 1:
            self.skip_to(first_seq - 1)
        time_ns = frame.base_time_ns
        number = table.frame_count
        table.add(
            range(first_seq, first_seq + count),
            range(time_ns, time_ns + count),
            0,
            len(frame.body),
            frame_bytes,
            columns.subjects,
            self.sizes_of(columns),
        )
        segment.memory[number] = frame
        segment.file_bytes = table.end_offset
        segment.last_seq = self.last_seq = first_seq + count - 1
        segment.last_time_ns = time_ns + count - 1
        if not segment.messages:
            segment.first_time_ns = time_ns
        segment.messages += count
        segment.live += count
        self._tail.append((segment, number))
        self.unflushed_bytes += frame_bytes

    def _active(self, first_seq: int, frame_bytes: int) -> SegmentFile:
        """The segment that takes a frame of this size."""
        if self._segments and not self._segments[-1].is_sealed:
            segment = self._segments[-1]
            table = segment.table
            assert table is not None
            if (
                table.end_offset + frame_bytes <= self._limits.segment_bytes
                and table.subject_count < SUBJECTS_MAX
                and table.frame_count < FRAMES_MAX
            ):
                return segment
            self._seal(segment)
        name = f"{first_seq:020d}.seg"
        path = f"{segments_dir(self.uid)}/{name}"
        segment = SegmentFile(name, path, first_seq, table=SegmentTable(path, first_seq, SEGMENT_HEAD_BYTES))
        self._segments.append(segment)
        self._bases.append(first_seq)
        return segment

    def _seal(self, segment: SegmentFile) -> None:
        segment.is_sealed = True
        if segment.live:
            self._tail.append((segment, _FOOTER))
        else:
            self._drop(segment)

    def seal_last(self) -> None:
        """Nothing more goes into the segment that takes frames now; its footer waits for being written."""
        if self._segments and not self._segments[-1].is_sealed:
            self._seal(self._segments[-1])

    def _drop(self, segment: SegmentFile) -> None:
        """Nothing of this segment is live: forget it."""
        at = self._segments.index(segment)
        del self._segments[at], self._bases[at]
        segment.is_dropped = True
        if self._tail:
            waiting = [number for owner, number in self._tail if owner is segment and number != _FOOTER]
            self.unflushed_bytes -= sum(FRAME_HEAD_BYTES + len(segment.memory[number].body) for number in waiting)
            self._tail = deque(item for item in self._tail if item[0] is not segment)
        segment.memory.clear()
        segment.packed.clear()
        segment.table = None
        if segment.was_taken:
            self.erased_files = self.erased_files or bool(segment.erased)
            self.forget_file(segment.path)

    def skip_to(self, last_seq: int) -> None:
        if last_seq > self.last_seq:
            if self.first_seq > self.last_seq:
                self.first_seq = last_seq + 1
            else:
                self.dead.add_range(self.last_seq + 1, last_seq)
            self.last_seq = last_seq

    # -- flushing ---------------------------------------------------------------------------------------------------

    def take_unflushed(self, max_bytes: int = 0) -> list[Write]:
        """Writes for frames (and footers) that wait, in order: at least one, then until ``max_bytes`` (0 = all).

        They count as being written until ``flushed`` or ``flush_failed``; several takes may be under way, and each that
        was not empty is reported once, in order. The file of a first write at offset 0 does not exist yet.
        """
        writes: list[Write] = []
        taken: list[tuple[SegmentFile, int]] = []
        total = 0
        end = -1
        while self._tail and not (max_bytes and total >= max_bytes):
            segment, number = item = self._tail.popleft()
            taken.append(item)
            if number == _FOOTER:
                offset, buffers = footer_buffers(self.uid, segment, self.reader.vfs.keys)
            else:
                keys = self.reader.vfs.keys
                offset, buffers = frame_buffers(self.uid, segment, number, self.is_compressing, keys)
                self.unflushed_bytes -= FRAME_HEAD_BYTES + len(segment.memory[number].body)
            segment.was_taken = True
            if writes and writes[-1][0] == segment.path and end == offset:
                writes[-1][2].extend(buffers)
            else:
                writes.append((segment.path, offset, buffers))
            size = sum(map(len, buffers))
            end = offset + size
            total += size
        if taken:
            self._taken.append(taken)
        return writes

    def flushed(self) -> None:
        """The oldest take that was not reported yet is in the files: its frames leave memory."""
        if self._void_takes:
            self._void_takes -= 1
            return
        for segment, number in self._taken.popleft():
            if number == _FOOTER:
                segment.table = None
            else:
                segment.memory.pop(number, None)
                segment.packed.pop(number, None)

    def flush_failed(self) -> None:
        """The oldest take that was not reported yet did not get into the files, as far as anyone knows.

        It and all takes after it count as unflushed again and will be written to the same places; the outcome of the
        later ones is still to be reported, and makes no difference.
        """
        if self._void_takes:
            self._void_takes -= 1
            return
        self._void_takes = len(self._taken) - 1
        again = [item for taken in self._taken for item in taken if not item[0].is_dropped]
        self._taken.clear()
        self._tail.extendleft(reversed(again))
        for segment, number in again:
            if number == _FOOTER:
                table = segment.table
                assert table is not None
                segment.has_footer = False
                segment.file_bytes = table.end_offset
            else:
                self.unflushed_bytes += FRAME_HEAD_BYTES + len(segment.memory[number].body)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def checkpoint_parts(self) -> LogParts:
        """The log as of now, for a checkpoint. Everything must have been taken for writing (``take_unflushed``).

        Until ``checkpointed`` says that one of them is durable, each one carries everything that changed since the
        last that was.
        """
        assert not self._tail, "frames were not taken for writing"
        return make_parts(self, self._saved)

    def checkpointed(self, parts: LogParts) -> list[str]:
        """These parts are durable. Paths that nothing refers to any more: unlink them (some may not exist)."""
        self.erased_files = bool(self._dropped) and self.erased_files
        return self._saved.confirm(parts)

    @classmethod
    def open(
        cls,
        vfs: Vfs,
        uid: int,
        head_part: dict[str, Any] | None,
        chunks: Mapping[str, bytes],
        limits: Limits,
        *,
        storage: str = "file",
        cache: ReadCache | None = None,
    ) -> Self:
        """The log as of a checkpoint (None: a new one), its files cut back to it and unnamed ones unlinked.

        ``chunks`` holds at least those that ``log_chunk_names(head_part)`` names. Damage to segments does not fail:
        it is in ``findings``, and whatever needs the damaged part raises ``Corruption``. Raises ``Corruption`` or
        ``FormatUnknown`` for damaged chunks or an unknown format.
        """
        log = cls(vfs, uid, limits, storage=storage, cache=cache)
        restore(log, vfs, head_part, chunks)
        return log

    @property
    def has_dropped_files(self) -> bool:
        """Whether the next checkpoint gives room back."""
        return bool(self._dropped)

    def take_dropped(self) -> list[str]:
        """Paths of segments that left the log since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def adopt(
        self, first_seq: int, last_seq: int, dead: SeqSet, segments: list[SegmentFile], saved: SavedParts
    ) -> None:
        """Become the log that a checkpoint describes; reads the unsealed segment once."""
        self.first_seq, self.last_seq = first_seq, last_seq
        self.dead, self._saved = dead, saved
        self.sizes_of = file_sizes if self.storage == "file" else memory_sizes
        self._segments = segments
        self._bases = [segment.base_seq for segment in segments]
        if segments and not segments[-1].is_sealed:
            active = segments[-1]
            table = self.reader.scan(active)
            if table.bad or table.end_offset != active.file_bytes or table.message_count != active.messages:
                active.is_sealed = True  # Nothing is ever appended behind damage.
            else:
                active.table = table
                active.placed = table.frame_count

    # -- compaction -------------------------------------------------------------------------------------------------

    def start_compaction(self, live_share_max: float = 0.5) -> Compaction | None:
        """A rewrite of the segment with the smallest share of live records; None if all have more than this."""
        segment = worst_segment(self, live_share_max)
        return Compaction(self, segment, self._limits.frame_bytes_max) if segment is not None else None

    def start_erasure(self, segment: SegmentFile) -> Compaction | None:
        """A rewrite without what was erased; None while its footer is due for writing (it is sealed if it was not)."""
        if not segment.is_sealed:
            self.seal_last()
        if segment.is_dropped or not is_compactable(segment):
            return None
        return Compaction(self, segment, self._limits.frame_bytes_max)

    def replace_file(self, segment: SegmentFile, name: str, *, messages: int, file_bytes: int, last_seq: int) -> None:
        """A compacted file, written and complete, is the segment from now on."""
        self.forget_file(segment.path)
        segment.name, segment.path = name, f"{segments_dir(self.uid)}/{name}"
        segment.messages, segment.file_bytes, segment.last_seq = messages, file_bytes, last_seq

    def forget_file(self, path: str) -> None:
        """Nothing will refer to this file once the next checkpoint is durable."""
        self._cache.forget(path)
        self._dropped.append(path)

    # -- liveness ---------------------------------------------------------------------------------------------------

    def is_live(self, seq: int) -> bool:
        return self.first_seq <= seq <= self.last_seq and seq not in self.dead

    def deleted_count(self) -> int:
        return self.dead.count

    def deleted_seqs(self, max_count: int) -> list[int]:
        return self.dead.members(self.first_seq, self.last_seq, max_count)

    def segment_at(self, seq: int) -> SegmentFile:
        """The segment that holds a live sequence."""
        return self._segments[bisect_right(self._bases, seq) - 1]

    def check_readable(self, segment: SegmentFile, table: SegmentTable, first_seq: int, last_seq: int) -> None:
        """Raises ``Corruption`` if live sequences of the closed range are among those the table could not rebuild."""
        for bad in table.bad:
            first, last = max(bad.first_seq, first_seq, self.first_seq), min(bad.last_seq, last_seq)
            if first <= last and (live := self.dead.next_absent(first)) <= last:
                raise Corruption(
                    f"sequences {live}-{last} unreadable: {bad.what}", file=segment.path, offset=bad.offset
                )

    def _place(self, segment: SegmentFile, seq: int) -> Place:
        """Where a live sequence is in its segment."""
        place = self.reader.ask(segment, lambda table: table.place_of(seq))
        if place is None:
            self.reader.ask(segment, lambda table: self.check_readable(segment, table, seq, seq))
            raise Corruption(f"sequences {seq}-{seq} unreadable: not in its segment", file=segment.path, offset=0)
        return place

    # -- reading ----------------------------------------------------------------------------------------------------

    def meta(self, seq: int) -> MessageMeta | None:
        if not self.is_live(seq):
            return None
        segment = self.segment_at(seq)
        place = self._place(segment, seq)
        if segment.table is None:
            # One frame is less to read than the footer's columns, which are the second evidence if it is damaged.
            try:
                subject, header_len, payload = self.reader.item(segment, place)
            except Corruption as error:
                self.reader.report(error)
            else:
                size = self.sizes_of(Columns((subject,), (header_len,), (payload,)))[0]
                return MessageMeta(seq, place.time_ns, subject, size)
        return self.reader.ask(segment, lambda table: self._meta_in(segment, table, seq))

    def _meta_in(self, segment: SegmentFile, table: SegmentTable, seq: int) -> MessageMeta:
        """What one table says of a record. Never with an ordinal that another table gave."""
        ordinal = table.ordinal_of(seq)
        if ordinal < 0:
            self.check_readable(segment, table, seq, seq)
            raise Corruption(f"sequences {seq}-{seq} unreadable: not in its segment", file=segment.path, offset=0)
        return MessageMeta(seq, table.time_of(ordinal), table.subjects[table.ids[ordinal]], table.sizes[ordinal])

    def read(self, seq: int) -> Message | None:
        if not self.is_live(seq):
            return None
        segment = self.segment_at(seq)
        place = self._place(segment, seq)
        subject, header_len, payload = self.reader.item(segment, place)
        return Message(seq, place.time_ns, subject, payload[:header_len], payload[header_len:])

    def read_many(self, seqs: Sequence[int], max_bytes: int) -> list[Message]:
        if not seqs:
            return []
        if seqs[0] < self.first_seq or seqs[-1] > self.last_seq:
            seqs = [seq for seq in seqs if self.first_seq <= seq <= self.last_seq]
        live = self.dead.without(list(seqs))
        found: list[Message] = []
        total = at = 0
        while at < len(live) and total < max_bytes:
            segment = self.segment_at(live[at])
            place = self._place(segment, live[at])
            position = place.position
            stored = self.reader.frame(segment, place)
            stop = bisect_right(live, stored.seqs[-1], at)
            if (
                live[stop - 1] - live[at]
                == stored.seqs[position + stop - at - 1] - stored.seqs[position]
                == stop - at - 1
            ):
                part = stored.slice(position, position + stop - at)
            else:
                part = stored.pick([bisect_left(stored.seqs, seq) for seq in live[at:stop]])
            total = take_messages(found, part, total, max_bytes)
            at = stop
        return found

    # -- searching --------------------------------------------------------------------------------------------------

    def next_seqs(self, start_seq: int, subject_filter: SubjectFilter | None, max_count: int) -> list[int]:
        start_seq = max(start_seq, self.first_seq)
        if subject_filter is None:
            return self.dead.absent(start_seq, self.last_seq, max_count)
        found: list[int] = []
        at = max(0, bisect_right(self._bases, start_seq) - 1)
        for segment in self._segments[at:]:
            if len(found) >= max_count:
                break
            if segment.last_seq >= start_seq:
                found += search(self, segment, start_seq, subject_filter, max_count - len(found))
        return found

    def previous_seq(self, below_seq: int, subject_filter: SubjectFilter | None) -> int:
        below_seq = min(below_seq, self.last_seq + 1)
        if subject_filter is None:
            seq = self.dead.previous_absent(below_seq - 1)
            return seq if seq >= self.first_seq else 0
        for segment in reversed(self._segments[: bisect_left(self._bases, below_seq)]):
            found = search_back(self, segment, below_seq, subject_filter)
            if found:
                return found
        return 0

    def seq_at_time(self, time_ns: int) -> int:
        at = bisect_left(self._segments, time_ns, key=lambda segment: segment.last_time_ns)
        if at == len(self._segments):
            return self.last_seq + 1
        segment = self._segments[at]
        seq = segment.base_seq
        if segment.first_time_ns < time_ns:
            seq = self.reader.ask(segment, lambda table: self._seq_at_time(segment, table, time_ns))
        return min(self.dead.next_absent(max(seq, self.first_seq)), self.last_seq + 1)

    def _seq_at_time(self, segment: SegmentFile, table: SegmentTable, time_ns: int) -> int:
        ordinal = table.ordinal_at_time(time_ns)
        seq = table.seq_of(ordinal) if ordinal < table.message_count else segment.last_seq + 1
        if table.bad:
            before = table.seq_of(ordinal - 1) if ordinal else segment.base_seq
            self.check_readable(segment, table, before, min(seq, segment.last_seq))
        return seq

    # -- removing ---------------------------------------------------------------------------------------------------

    def remove(self, seq: int) -> MessageMeta | None:
        meta = self.meta(seq)
        if meta is None:
            return None
        segment = self.segment_at(seq)
        segment.live -= 1
        segment.erased += self.is_erasing
        if seq == self.first_seq:
            self._advance(seq + 1)
        else:
            self.dead.add(seq)
        if not segment.live and segment.is_sealed:
            self._drop(segment)
        return meta

    def _advance(self, seq: int) -> None:
        """The first live sequence is the first one ≥ ``seq`` that is not dead."""
        first = min(self.dead.next_absent(seq), self.last_seq + 1)
        if self.dead.count and first > self.first_seq + 1:
            self.dead.discard_below(first)
        self.first_seq = first

    def remove_range(self, first_seq: int, last_seq: int) -> tuple[list[bytes], list[int]]:
        first_seq, last_seq = max(first_seq, self.first_seq), min(last_seq, self.last_seq)
        subjects: list[bytes] = []
        sizes: list[int] = []
        if first_seq > last_seq:
            return subjects, sizes
        touched: list[tuple[SegmentFile, int]] = []
        at = max(0, bisect_right(self._bases, first_seq) - 1)
        for segment in self._segments[at : bisect_right(self._bases, last_seq)]:
            first, last = max(first_seq, segment.base_seq), min(last_seq, segment.last_seq)
            before = len(subjects)
            for part_subjects, part_sizes in self._live_rows(segment, first, last):
                subjects += part_subjects
                sizes += part_sizes
            touched.append((segment, len(subjects) - before))
        # Nothing has changed so far: a table that cannot be read leaves everything as it was.
        for segment, count in touched:
            segment.live -= count
            segment.erased += self.is_erasing and count > 0
        if first_seq == self.first_seq:
            self._advance(last_seq + 1)
        else:
            self.dead.add_range(first_seq, last_seq)
        for segment, _ in touched:
            if not segment.live and segment.is_sealed:
                self._drop(segment)
        return subjects, sizes

    def _live_rows(
        self, segment: SegmentFile, first_seq: int, last_seq: int
    ) -> list[tuple[Sequence[bytes], Sequence[int]]]:
        """Subjects and sizes of the live records of a closed range, in order, as one or more pairs of columns."""
        if first_seq > last_seq or not segment.live:
            return []

        def look(table: SegmentTable) -> list[tuple[Sequence[bytes], Sequence[int]]]:
            self.check_readable(segment, table, first_seq, last_seq)
            low, high = table.ordinal_from(first_seq), table.ordinal_from(last_seq + 1)
            ids, sizes = table.ids[low:high], table.sizes[low:high]
            if self.dead.count_between(first_seq, last_seq) or table.seqs:
                seqs = table.seqs_of(range(low, high))
                alive = [at for at, seq in enumerate(seqs) if seq not in self.dead]
                ids, sizes = ids[:0], sizes[:0]
                ids.extend([table.ids[low + at] for at in alive])
                sizes.extend([table.sizes[low + at] for at in alive])
            if table.subject_count == 1:
                return [(list(repeat(table.subjects[0], len(ids))), sizes.tolist())]
            return [(list(map(table.subjects.__getitem__, ids)), sizes.tolist())]

        return self.reader.ask(segment, look)

    # -- the subject index ------------------------------------------------------------------------------------------

    def index_rows(self) -> dict[bytes, IndexRow]:
        """What the subject index must say of this log: a row per subject, with exact first sequences."""
        rows: dict[bytes, IndexRow] = {}
        for part in self.index_rows_by_segment():
            merge_rows(rows, part)
        return rows

    def index_rows_by_segment(self) -> Iterator[dict[bytes, IndexRow]]:
        """The same one segment after another, so that an event loop can breathe between them (see ``merge_rows``)."""
        for segment in tuple(self._segments):
            yield self.reader.ask(segment, partial(self._rows_of, segment))

    def _rows_of(self, segment: SegmentFile, table: SegmentTable) -> dict[bytes, IndexRow]:
        first_seq = max(segment.base_seq, self.first_seq)
        self.check_readable(segment, table, first_seq, segment.last_seq)
        return segment_rows(table, first_seq, self.dead)
