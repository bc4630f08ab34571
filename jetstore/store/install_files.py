"""``Received``: records fetched from peers, in segment files that nothing refers to until they are installed.

The owner feeds verified frames in the order of their sequences, has ``take_writes`` written, and from time to time has
the manifest written (``save``): what that says is durable and is not fetched again after a crash. Files are sealed at
the size of ordinary segments; all are sealed in the end, so the log that takes them over begins a new one.

Source: ``docs/format/catch-up.md``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise
from typing import Any

from jetstore.errors import Corruption
from jetstore.limits import Limits
from jetstore.store.checkpoint_files import group_dir
from jetstore.store.footer import encode_footer
from jetstore.store.install_manifest import encode_manifest, read_manifest
from jetstore.store.install_records import Record
from jetstore.store.keys import Keys
from jetstore.store.salvage import pread_salvaged
from jetstore.store.segment import (
    FRAME_HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    BadRange,
    check_segment_head,
    decode_payload,
    moved_frame_head,
    scan_frames,
    sealed_frame,
    segment_head,
)
from jetstore.store.segment_files import SegmentFile, segments_dir
from jetstore.store.segment_table import FRAMES_MAX, SUBJECTS_MAX, SegmentTable
from jetstore.store.stored_size import file_sizes, memory_sizes
from jetstore.store.vfs import Vfs
from jetstore.types import GroupUid

NUMBER_STEP = 1_000
"""Received files get numbers that are multiples of this; compaction, which counts on by one, never meets them."""
_SPAN_MAX = 1 << 32
VERIFY_BYTES = 256 * 1024
"""Read again between two turns of the event loop when an unfinished file is taken up."""

Write = tuple[str, int, list[bytes]]


def free_number(vfs: Vfs, uid: int) -> int:
    """A number that no file or chunk of the group has in its name: names are never used for two contents."""
    highest = 0
    for name in (*vfs.list_dir(segments_dir(uid)), *vfs.list_dir(f"{group_dir(GroupUid(uid))}/chunks")):
        for word in name.removesuffix(".seg").removesuffix(".tmp").replace(".", "-").split("-")[1:]:
            if word.isdigit() and len(word) < 16:
                highest = max(highest, int(word))
    return (highest // NUMBER_STEP + 1) * NUMBER_STEP


class Received:
    """See the module docstring. ``missing_seqs`` and what lies behind ``covered_seq`` are still to be fetched."""

    def __init__(
        self, uid: int, limits: Limits, keys: Keys | None, *, storage: str, number: int, first_seq: int
    ) -> None:
        """Nothing yet; the first record wanted is ``first_seq``. ``keys`` seal what is written."""
        self.uid = uid
        self.storage = storage
        self.number = number
        self.first_seq = first_seq
        self.covered_seq = first_seq - 1
        """Everything from ``first_seq`` to here was received or is among what is missing."""
        self.unsaved_bytes = 0
        """Received since the last manifest."""
        self._files: list[SegmentFile] = []
        self._missing: list[tuple[int, int]] = []
        self._at = self._end = 0
        """The region that is being received: what comes next is behind ``_at``; ``_at == _end`` between regions."""
        self._is_gap = False
        self.fixed_base = 0
        """Not 0: everything goes into one file with this base, whatever its size."""
        self._current: SegmentFile | None = None
        self._limits = limits
        self._keys = keys
        self._sizes_of = file_sizes if storage == "file" else memory_sizes
        self._writes: list[Write] = []
        self._saved: dict[str, int] = {}

    @property
    def files(self) -> list[SegmentFile]:
        """What was received, in the order of its sequences."""
        return sorted(self._files, key=lambda segment: segment.base_seq)

    @property
    def missing_seqs(self) -> list[tuple[int, int]]:
        """Closed ranges up to ``covered_seq`` that were not received, in order: nobody asked so far could read them."""
        rest = [(self._at + 1, self._end)] if self._is_gap and self._at < self._end else []
        return sorted(self._missing + rest)

    # -- taking records ---------------------------------------------------------------------------------------------

    def begin(self, first_seq: int, last_seq: int) -> None:
        """Records of this closed range come next: one of the missing ranges, or the one behind ``covered_seq``."""
        self.seal()
        self._missing = self.missing_seqs
        self._is_gap = first_seq <= self.covered_seq
        if self._is_gap:
            self._missing.remove((first_seq, last_seq))
        else:
            assert first_seq == self.covered_seq + 1
        self._at, self._end = first_seq - 1, last_seq

    def take(self, record: Record) -> None:
        """The next frame. Raises ``Corruption`` if it is not of the range, or not behind all that came before."""
        head, payload = record
        stored = decode_payload(head, payload, None)
        first, last = stored.seqs[0], stored.seqs[-1]
        in_order = isinstance(stored.seqs, range) or all(a < b for a, b in pairwise(stored.seqs))
        if first <= self._at or last > self._end or not in_order:
            raise Corruption("records of a range are out of order", file="range", offset=0, actual=(first, last))
        head, payload = sealed_frame(self._keys, head, payload)
        frame_bytes = FRAME_HEAD_BYTES + len(payload)
        segment = self._open_file(first, last, frame_bytes)
        table = segment.table
        assert table is not None
        offset = table.end_offset
        buffers = [moved_frame_head(head, self.uid, segment.base_seq, offset), payload]
        if not segment.messages:
            buffers.insert(0, segment_head(self.uid, segment.base_seq))
            offset = 0
            segment.first_time_ns = stored.times[0]
        columns = stored.columns
        table.add(
            stored.seqs, stored.times, head.flags, len(payload), frame_bytes, columns.subjects, self._sizes_of(columns)
        )
        segment.file_bytes = table.end_offset
        segment.messages = table.message_count
        segment.last_seq, segment.last_time_ns = last, stored.times[-1]
        self._write(segment.path, offset, buffers)
        self._advance(last)

    def note_missing(self, first_seq: int, last_seq: int) -> None:
        """The peer cannot read these; they come after everything that came before."""
        first_seq, last_seq = max(first_seq, self._at + 1), min(last_seq, self._end)
        if first_seq <= last_seq:
            self.seal()  # what somebody else has of them must fit between two files
            self._missing.append((first_seq, last_seq))
            self._advance(last_seq)

    def complete(self) -> None:
        """The region is complete: what did not come does not exist."""
        self._advance(self._end)

    def _advance(self, seq: int) -> None:
        self._at = seq
        self.covered_seq = max(self.covered_seq, seq)

    def _open_file(self, first: int, last: int, frame_bytes: int) -> SegmentFile:
        segment = self._current
        if segment is not None:
            table = segment.table
            assert table is not None
            if self.fixed_base or (
                table.end_offset + frame_bytes <= self._limits.segment_bytes
                and table.subject_count < SUBJECTS_MAX
                and table.frame_count < FRAMES_MAX
                and last - segment.base_seq < _SPAN_MAX
            ):
                return segment
            self.seal()
        base = self.fixed_base or first
        name = f"{base:020d}-{self.number}.seg"
        path = f"{segments_dir(self.uid)}/{name}"
        segment = SegmentFile(name, path, base, table=SegmentTable(path, base, SEGMENT_HEAD_BYTES))
        segment.was_taken = True
        self._files.append(segment)
        self._current = segment
        return segment

    def seal(self) -> None:
        """The file that takes records gets its footer; the next record begins another one."""
        segment, self._current = self._current, None
        if segment is None:
            return
        table = segment.table
        assert table is not None
        footer = encode_footer(table, self.uid, segment.last_seq, self._keys)
        self._write(segment.path, table.end_offset, [footer])
        segment.file_bytes = table.end_offset + len(footer)
        segment.is_sealed = segment.has_footer = True

    # -- writing ----------------------------------------------------------------------------------------------------

    def _write(self, path: str, offset: int, buffers: list[bytes]) -> None:
        self.unsaved_bytes += sum(map(len, buffers))
        if self._writes:
            last_path, last_offset, last_buffers = self._writes[-1]
            if last_path == path and last_offset + sum(map(len, last_buffers)) == offset:
                last_buffers.extend(buffers)
                return
        self._writes.append((path, offset, buffers))

    def take_writes(self) -> list[Write]:
        """What is to be written now, in this order."""
        writes, self._writes = self._writes, []
        return writes

    def written(self) -> None:
        """Everything taken was written: tables of sealed files are in their footers."""
        for segment in self._files:
            if segment.has_footer:
                segment.table = None

    def save(self) -> tuple[bytes, dict[str, int]]:
        """The manifest of everything whose writes were taken, and the files to be synced before it is written."""
        assert not self._writes, "records were not taken for writing"
        self.unsaved_bytes = 0
        rows = []
        for s in self._files:
            rows.append([s.name, s.base_seq, s.last_seq, s.messages, s.file_bytes, s.first_time_ns, s.last_time_ns])
            rows[-1].append(int(s.is_sealed))
        manifest = encode_manifest(
            {
                "storage": self.storage,
                "number": self.number,
                "first_seq": self.first_seq,
                "covered_seq": self.covered_seq,
                "missing": self.missing_seqs,
                "files": rows,
            }
        )
        changed = {s.name: s.file_bytes for s in self._files if self._saved.get(s.name) != s.file_bytes}
        self._saved |= changed
        return manifest, changed

    # -- after a crash ----------------------------------------------------------------------------------------------

    @classmethod
    def resume(cls, vfs: Vfs, uid: int, limits: Limits) -> Received | None:
        """What a manifest says was received; None if there is none. Run ``verify`` before anything else."""
        fields = read_manifest(vfs, uid)
        if fields is None:
            return None
        first_seq = fields["first_seq"]
        received = cls(uid, limits, vfs.keys, storage=fields["storage"], number=fields["number"], first_seq=first_seq)
        received.covered_seq = fields["covered_seq"]
        received._missing = [(first, last) for first, last in fields["missing"]]
        received._files = [_file_of(uid, row) for row in fields["files"]]
        received._saved = {segment.name: segment.file_bytes for segment in received._files}
        return received

    def verify(self, vfs: Vfs) -> Iterator[None]:
        """Look at what is there, in slices: an unfinished file is read again; what is not whole is missing again.

        Sealed files are judged by their length: their bytes were durable before the manifest said so, and every frame
        is verified whenever it is read.
        """
        for segment in tuple(self._files):
            is_good = vfs.exists(segment.path)
            if is_good:
                handle = vfs.open(segment.path, write=False)
                try:
                    is_good = vfs.size(handle) >= segment.file_bytes
                    if is_good and not segment.is_sealed:
                        is_good = yield from self._reread(vfs, handle, segment)
                finally:
                    vfs.close(handle)
            if not is_good:
                self._files.remove(segment)
                self._missing.append((segment.base_seq, segment.last_seq))
                self.number += 1  # what the manifest says of the name that goes must stay true
            elif not segment.is_sealed:
                self._current = segment
                self.seal()

    def _reread(self, vfs: Vfs, handle: int, segment: SegmentFile) -> Generator[None, None, bool]:
        table = SegmentTable(segment.path, segment.base_seq, SEGMENT_HEAD_BYTES)
        used = 0
        try:
            check_segment_head(
                pread_salvaged(vfs, handle, SEGMENT_HEAD_BYTES, 0), self.uid, segment.base_seq, segment.path
            )
            for item in scan_frames(vfs, handle, self.uid, segment.base_seq, segment.file_bytes):
                if isinstance(item, BadRange):
                    return False
                payload = pread_salvaged(vfs, handle, item.payload_bytes, item.offset + FRAME_HEAD_BYTES)
                stored = decode_payload(item, payload, self._keys)
                columns = stored.columns
                frame_bytes = FRAME_HEAD_BYTES + item.payload_bytes
                table.add(
                    stored.seqs,
                    stored.times,
                    item.flags,
                    item.payload_bytes,
                    frame_bytes,
                    columns.subjects,
                    self._sizes_of(columns),
                )
                used += frame_bytes
                if used >= VERIFY_BYTES:
                    used = 0
                    yield
        except Corruption:
            return False
        segment.table = table
        return table.message_count == segment.messages and table.end_offset == segment.file_bytes


def _file_of(uid: int, row: list[Any]) -> SegmentFile:  # Any: JSON values
    name, base_seq, last_seq, messages, file_bytes, first_time, last_time, is_sealed = row
    segment = SegmentFile(name, f"{segments_dir(uid)}/{name}", base_seq, last_seq, messages, 0, first_time, last_time)
    segment.file_bytes = file_bytes
    segment.is_sealed = segment.has_footer = bool(is_sealed)
    segment.was_taken = True
    return segment
