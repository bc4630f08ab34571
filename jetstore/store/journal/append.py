"""``Journal``: writes blocks. One block is one write and one fdatasync; the next begins only after that returned.

What the fold (``table.GroupTable``) says after a block is what a recovery would say, so the journal itself knows which
files are still needed. A file that no list names any more is recycled only after the list stands on disk twice: in its
block and, as repeated lines, in the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jetstore.errors import DiskFull
from jetstore.hot.crc import crc32c
from jetstore.limits import KIB, SECTOR_BYTES, Limits
from jetstore.store.journal import format as fmt
from jetstore.store.journal.files import JOURNAL_DIR, FileSet, Spare, file_path
from jetstore.store.journal.format import Header, Line
from jetstore.store.journal.reread import Extent
from jetstore.store.journal.table import NOWHERE, GroupTable
from jetstore.store.keys import NO_MARK
from jetstore.store.ports import JournalStatus, Kind, Record
from jetstore.store.vfs import Vfs
from jetstore.types import Buffer, GroupUid, RaftIndex

KEEP_UP_BYTES = 256 * KIB
"""Least piece that is zeroed when spares run short under load."""
TABLE_LINE_BYTES = 4 * fmt.LINE_BYTES
"""A line of the group table: in both copies of its block's head, and repeated in the next block's."""
PINNED_NAMED_MAX = 64
"""Groups that ``JournalStatus.pinned_by`` names at most."""


@dataclass(slots=True)
class Position:
    """Where the next block goes and what it must refer to."""

    file: Spare
    offset: int = 0
    lsn: int = 0
    """Of the last block."""
    previous_crc: int = 0
    previous_lines: bytes = b""
    previous_file: int = 0
    listed: tuple[int, ...] = ()
    """Needed files as the newest list on disk has them."""
    ends: dict[int, int] = field(default_factory=dict)
    """Lsn of the last block that counts, for each older file that is needed."""
    uncounted: frozenset[int] = frozenset()
    """Groups that get no new publishes (FAULTY, paused): files that only they need do not fill the journal."""
    peers: bytes = b""
    """What was heard of other nodes last (``Kind.PEERS``): in the head of every block."""
    mark: bytes = NO_MARK
    """Of the file's stream, in an encrypted store."""
    dropped: list[int] = field(default_factory=list)
    """Files that the newest list no longer names: released once a later block is durable."""


class Journal:
    """The open journal of a node. Not thread-safe; every failure of a write or sync is final for the caller."""

    def __init__(
        self,
        vfs: Vfs,
        limits: Limits,
        journal_id: bytes,
        files: FileSet,
        table: GroupTable,
        position: Position,
    ) -> None:
        """Made by ``recovery.open_journal``, or in the writer process from what that one handed over."""
        assert len(journal_id) == fmt.JOURNAL_ID_BYTES
        self.vfs = vfs
        self.limits = limits
        self.journal_id = journal_id
        self.files = files
        self.table = table
        self.position = position
        self._handle = -1
        self._kept_up_at = 0
        self._pinned: tuple[tuple[GroupUid, RaftIndex], ...] = ()
        self._pinned_key = (-1, -1)
        self._runs = 0
        self._runs_key = (-1, -1, -1)
        files.vfs = vfs

    # -- moving to another process ----------------------------------------------------------------------------------

    def detach(self) -> tuple[bytes, FileSet, GroupTable, Position]:
        """Close the file and return what another process needs to go on (all of it picklable)."""
        self.close()
        return self.journal_id, self.files, self.table, self.position

    def close(self) -> None:
        """Give the file handle back."""
        if self._handle >= 0:
            self.vfs.close(self._handle)
            self._handle = -1

    # -- what it stands at ------------------------------------------------------------------------------------------

    @property
    def status(self) -> JournalStatus:
        """Where the journal stands now."""
        limits = self.limits
        current = self.position.file.number
        needed = self._counted()
        used = len(needed) * self.files.file_bytes
        table_bytes = self._next_table_bytes()
        spare_files = self.files.ready_count()
        key = (needed[0], self.table.removals)
        if key != self._pinned_key:
            self._pinned_key = key
            self._pinned = tuple(
                (GroupUid(uid), RaftIndex(index))
                for uid, index in (self.table.first_live(needed[0], PINNED_NAMED_MAX) if needed[0] != current else ())
            )
        return JournalStatus(
            lsn=self.position.lsn,
            used_bytes=used,
            max_bytes=limits.journal_bytes_max,
            accepts_publishes=used <= limits.journal_bytes_max - 4 * self.files.file_bytes
            and not (self.files.is_full and spare_files <= 1)
            and table_bytes * 2 <= self.files.file_bytes,
            pinned_by=self._pinned,
            spare_files=spare_files,
            wants_relief=used * 2 >= limits.journal_bytes_max or table_bytes * 8 > 3 * self.files.file_bytes,
        )

    @property
    def wants_idle_block(self) -> bool:
        """Whether the last block's lines stand only once, or the list of needed files on disk is out of date."""
        return bool(self.position.previous_lines) or self.position.listed != tuple(self._needed())

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> JournalStatus:
        """Write one block; everything in it is durable on return.

        DiskFull: nothing was written (the journal is at its maximum, or no successor file can be made).
        """
        if records and records[0].kind == Kind.PEERS:
            self.position.peers = bytes(records[0].body)
            records = records[1:]
        if not self.files.is_ready():
            self.files.make_ready()
        if not self._fits(records):
            has_bodies = any(record.body for record in records)  # lines alone free files, or cost nothing
            if has_bodies and (len(self._counted()) + 1) * self.files.file_bytes > self.limits.journal_bytes_max:
                raise DiskFull("the journal is at its maximum")
            self.begin_file(self.files.take(), records)
            return self.status
        lines = self._list_lines() if self.position.listed != tuple(self._needed()) else []
        self._write(lines, records)
        return self.status

    def idle(self) -> JournalStatus:
        """Write an empty block: the second evidence of the last block's lines."""
        try:
            return self.append(())
        except DiskFull:
            return self.status

    def keep_up(self) -> None:
        """After a block, when spares run short: prepare twice as many bytes as the block took."""
        if self.files.is_short():
            taken = self.position.offset - self._kept_up_at
            self.files.step(max(2 * taken, KEEP_UP_BYTES) if taken > 0 else KEEP_UP_BYTES)
        self._kept_up_at = self.position.offset

    def zero_some(self, most_bytes: int = 0) -> bool:
        """One step of preparing files, of ``most_bytes`` (0: ``zeroing_bytes``); False if there is nothing to do."""
        return self.files.step(most_bytes)

    def extents(self) -> tuple[bytes, int, list[Extent]]:
        """Journal id, size of each file, and the files that are needed: what there is to read again."""
        position = self.position
        current = position.file.number
        files = [
            Extent(number, position.lsn if number == current else position.ends.get(number, 0))
            for number in self._needed()
        ]
        return self.journal_id, self.files.file_bytes, files

    def leave_file(self, number: int) -> list[int]:
        """A file is damaged: go on in another one, if it is this one; the groups that have live entries in it.

        Once these entries are checkpointed or appended again, nothing needs the file. DiskFull: there is no other one.
        """
        if number == self.position.file.number:
            self.files.make_ready()
            self.begin_file(self.files.take(), ())
        return sorted(self.table.live.get(number, ()))

    def leave_older(self, before: int) -> tuple[list[int], bool]:
        """Give all files numbered below ``before`` back that nothing needs; whose entries keep others, and whether any
        is left, or a spare that still holds what was in one. Needs blocks: what it says changes with them.
        """
        position, files = self.position, self.files
        released = [number for number in files.released if number < before]
        for number in released:
            self.vfs.unlink(file_path(number))
        if released:
            self.vfs.fsync_dir(JOURNAL_DIR)
            files.released = [number for number in files.released if number >= before]
        keeping = {uid for number, uids in self.table.live.items() if NOWHERE < number < before for uid in uids}
        known = {*self._needed(), *position.listed, *position.dropped, *position.ends}
        is_left = min(known) < before or not all(spare.is_ready(files.file_bytes) for spare in files.spares)
        return sorted(keeping), is_left

    def leave_uncounted(self, groups: Iterable[int]) -> None:
        """Exactly these groups get no new publishes: what only they pin does not count against the maximum."""
        self.position.uncounted = frozenset(groups)
        self._pinned_key = (-1, -1)

    def begin_file(self, file: Spare, records: Sequence[Record], *, is_again: bool = False) -> None:
        """Go on in a ready file: the group table, then, in the table's last block, ``records``.

        ``is_again``: the records were folded before, so lines among them that are superseded are no mistake.
        """
        self.close()
        position = self.position
        if position.offset:
            position.ends[position.file.number] = position.lsn
        position.file, position.offset = file, 0
        position.mark = NO_MARK if self.vfs.keys is None else self.vfs.keys.new_mark()
        parts: list[list[Line]] = [[]]
        bound = max(self.limits.block_bytes_max // 4 // fmt.LINE_BYTES, 4)
        for row in self.table.rows():
            if len(parts[-1]) + len(row) > bound:
                parts.append([])
            parts[-1] += row
        for number, part in enumerate(parts[:-1]):
            self._write(part, (), table_part=number + 1, table_parts=len(parts))
        parts[-1] += self._list_lines(len(parts))
        self._write(parts[-1], records, table_part=len(parts), table_parts=len(parts), is_again=is_again)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _needed(self) -> list[int]:
        needed = self.table.needed_files()
        current = self.position.file.number
        if not needed or needed[-1] != current:
            needed.append(current)
        return needed

    def _counted(self) -> list[int]:
        """Needed files that count against the journal's maximum."""
        needed = self._needed()
        uncounted = self.position.uncounted
        if not uncounted:
            return needed
        current, live = self.position.file.number, self.table.live
        return [number for number in needed if number == current or not uncounted.issuperset(live[number])]

    def _next_table_bytes(self) -> int:
        """What the group table at the head of the next file takes, at most. Counted only where it may be much."""
        groups = len(self.table.groups)
        lines = groups * (3 + len(self.table.live))
        if lines * TABLE_LINE_BYTES * 4 > self.files.file_bytes:
            key = (self.position.file.number, self.table.removals, groups)
            if key != self._runs_key:
                self._runs_key = key
                self._runs = sum(sum(members.values()) for members in self.table.live.values())
            lines = groups * 3 + self._runs  # row and checkpoint; one more run each, until there is another file
        return lines * TABLE_LINE_BYTES

    def _list_lines(self, table_parts: int = 0) -> list[Line]:
        """The list of needed files, each with the lsn of its last block that counts (0: the current file)."""
        ends = self.position.ends
        return [
            Line(fmt.KIND_FILES, 0, table_parts, 0, 0, 0, number, number, 0, 0, 0, ends.get(number, 0))
            for number in self._needed()
        ]

    def _fits(self, records: Sequence[Record]) -> bool:
        body_bytes = sum(len(record.body) for record in records)
        room = self.files.file_bytes - self.position.offset
        repeated = len(self.position.previous_lines) // fmt.LINE_BYTES
        most_lines = len(records) + len(self.position.listed)
        head = fmt.head_sectors(most_lines, repeated, body_bytes, len(self.position.peers))
        return fmt.block_bytes(head, body_bytes) <= room

    def _write(
        self,
        own: list[Line],
        records: Sequence[Record],
        *,
        table_part: int = 0,
        table_parts: int = 0,
        is_again: bool = False,
    ) -> None:
        position = self.position
        number, offset = position.file.number, position.offset
        bodies: list[Buffer] = [record.body for record in records if record.body]
        body_bytes = sum(map(len, bodies))
        line_count = len(own) + len(records)
        repeat_count = len(position.previous_lines) // fmt.LINE_BYTES
        head_sectors = fmt.head_sectors(line_count, repeat_count, body_bytes, len(position.peers))
        block_bytes = fmt.block_bytes(head_sectors, body_bytes)
        if offset + block_bytes > self.files.file_bytes:
            raise ValueError(f"a block of {block_bytes} bytes does not fit into an empty journal file")

        at = offset + head_sectors * SECTOR_BYTES
        if bodies and self.vfs.keys is not None:
            records, bodies = self._hidden(records, at)
        lines = [fmt.pack_lines(own)]
        table, pack_line = self.table, fmt.pack_line
        for kind, group, term, prev_term, first, last, count, aux, body in records:
            line = (kind, 0, count, group, term, prev_term, first, last, at, len(body), crc32c(body), aux)
            at += len(body)
            lines.append(pack_line(*line))
            if kind != Kind.ENTRIES or not table.goes_on(group, term, prev_term, first, last, number):
                problem = table.apply(Line(*line), number)
                assert is_again or not problem, problem
        padding = -body_bytes % SECTOR_BYTES
        if padding:
            bodies.append(bytes(padding))
        body = b"".join(bodies)
        packed = b"".join(lines)
        header = Header(
            journal_id=self.journal_id,
            file_number=number,
            lsn=position.lsn + 1,
            block_offset=offset,
            file_bytes=self.files.file_bytes,
            spare_through=self.files.through,
            previous_file=position.previous_file,
            block_bytes=block_bytes,
            head_sectors=head_sectors,
            body_bytes=body_bytes,
            line_count=line_count,
            repeat_count=repeat_count,
            previous_crc=position.previous_crc,
            mark=position.mark,
            table_part=table_part,
            table_parts=table_parts,
        )
        head, header_crc = fmt.pack_head(header, packed, position.previous_lines, fmt.sector_map(body), position.peers)
        gap = block_bytes - 2 * len(head) - len(body)

        if self._handle < 0:
            self._handle = self.vfs.open(file_path(number))
        self.vfs.pwrite(self._handle, [head, body, bytes(gap), head], offset)
        self.vfs.fdatasync(self._handle)

        position.offset = offset + block_bytes
        position.lsn += 1
        position.previous_crc = header_crc
        position.previous_lines = packed
        position.previous_file = number
        self._release(own)

    def _hidden(self, records: Sequence[Record], offset: int) -> tuple[list[Record], list[Buffer]]:
        """The records with the bodies that are written at ``offset`` of an encrypted store's file, and these."""
        keys = self.vfs.keys
        assert keys is not None
        body = memoryview(keys.journal(self.position.mark, offset, b"".join([record.body for record in records])))
        hidden: list[Record] = []
        at = 0
        for record in records:
            end = at + len(record.body)
            hidden.append(record._replace(body=body[at:end]))  # type: ignore[arg-type]  # a view serves as bytes here
            at = end
        return hidden, [body]

    def _release(self, own: list[Line]) -> None:
        """The block is durable: what an earlier block's list dropped is free; what this one's drops, soon."""
        position = self.position
        if position.dropped:
            self.files.released += position.dropped
            position.dropped = []
        if own and own[-1].kind == fmt.KIND_FILES:
            named = [line.first_index for line in own if line.kind == fmt.KIND_FILES]
            position.dropped = [number for number in position.listed if number not in named]
            position.listed = tuple(named)
            position.ends = {number: lsn for number, lsn in position.ends.items() if number in named}
