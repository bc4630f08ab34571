"""Opening a journal: what it proves about each group, and a ``Journal`` that goes on in a new file.

Nothing may be answered, voted or appended before ``open_journal`` returned: it has then synced every file it relied on
and their directory (after a kill the page cache may show what the disk does not have) and has written the group table
and all records of the last block that counts again, in the next fully zeroed file.
"""

from __future__ import annotations

from collections.abc import Sequence

from jetstore.errors import Corruption, DiskFull
from jetstore.hot.crc import crc32c
from jetstore.limits import SECTOR_BYTES, Limits
from jetstore.store.journal import format as fmt
from jetstore.store.journal.append import Journal, Position
from jetstore.store.journal.entries import iter_entries, salvage_entries
from jetstore.store.journal.files import JOURNAL_DIR, TEMP_PATH, FileSet, Spare, file_numbers, file_path
from jetstore.store.journal.format import Line
from jetstore.store.journal.scan import FoundBlock, FoundFile, scan_file
from jetstore.store.journal.table import NOWHERE, GroupState, GroupTable, Run
from jetstore.store.journal.verdicts import Step, Verdict, is_whole_table, judge
from jetstore.store.keys import shown
from jetstore.store.ports import PLAIN, EntryRef, GroupRecovery, JournalRecovery, Kind, Record
from jetstore.store.vfs import Vfs
from jetstore.types import GroupUid, RaftIndex, Term

_TABLE_KINDS = (fmt.KIND_ROW, fmt.KIND_RUN, fmt.KIND_FILES)


def open_journal(
    vfs: Vfs, limits: Limits, journal_id: bytes, least_lsn: int = 0, *, accepts_losses: bool = False
) -> tuple[Journal, JournalRecovery]:
    """The open journal below ``journal/`` and what it proves; makes a new one if there is none (``is_new``).

    ``least_lsn``: it is known to have had a durable block of this number. If its last one is lower, it is an older
    journal that was put back, and what each group had last is unknown.

    Raises Corruption, with nothing changed, if files are there but nothing in them can be read; and, unless the caller
    ``accepts_losses``, if the device refused to read what there may be lines in: it may read it the next time, and a
    table written now would say that it is gone. FormatUnknown for another format version, DiskFull if there is no room
    for the files that must exist. OSError from a write or sync is final.
    """
    numbers = vfs_numbers(vfs)
    scanned: dict[int, FoundFile] = {}

    def find(number: int) -> FoundFile | None:
        if number not in scanned:
            scanned[number] = scan_file(vfs, number, journal_id)
        return scanned[number]

    verdict = judge(numbers, find)
    if verdict.newest_file == 0:
        if numbers:
            _require_unborn(numbers, scanned)
        return _create(vfs, limits, journal_id, numbers, scanned)
    return _Opening(vfs, limits, journal_id, numbers, scanned, verdict, least_lsn).run(accepts_losses)


def read_journal(vfs: Vfs, limits: Limits, journal_id: bytes, least_lsn: int = 0) -> JournalRecovery:
    """What ``open_journal`` would prove, without writing anything. Raises as it does."""
    numbers = vfs_numbers(vfs)
    scanned = {number: scan_file(vfs, number, journal_id) for number in numbers}
    verdict = judge(numbers, scanned.get)
    if verdict.newest_file == 0:
        if numbers:
            _require_unborn(numbers, scanned)
        return JournalRecovery({}, [], is_new=True)
    recovery, _ = _Opening(vfs, limits, journal_id, numbers, scanned, verdict, least_lsn).read()
    return recovery


def vfs_numbers(vfs: Vfs) -> list[int]:
    """Numbers of the journal files that are there, ascending."""
    return file_numbers(vfs.list_dir(JOURNAL_DIR))


def _require_unborn(numbers: list[int], scanned: dict[int, FoundFile]) -> None:
    """Files without any readable head are an unfinished birth only if nothing can have been durable in them."""
    for number in numbers:
        if scanned[number].tail in ("corrupt", "stale"):
            raise Corruption("no block of this journal can be read", file=file_path(number), offset=scanned[number].end)
    if numbers[0] != 1:
        raise Corruption("the journal's used files are missing", file=file_path(1), offset=0)


def _create(
    vfs: Vfs, limits: Limits, journal_id: bytes, numbers: list[int], scanned: dict[int, FoundFile]
) -> tuple[Journal, JournalRecovery]:
    """A new journal; also finishes a birth that was interrupted before its first block was durable."""
    file_bytes = limits.journal_file_bytes
    wanted = 1 + limits.journal_spare_files
    if vfs.free_bytes() < file_bytes * (wanted - len(numbers)):
        raise DiskFull(f"no room for the journal's first {wanted} files of {file_bytes} bytes")
    vfs.mkdir(JOURNAL_DIR)
    vfs.fsync_dir("")
    files = FileSet(vfs, limits, file_bytes)
    made = []
    for number in range(1, max([wanted, *numbers]) + 1):
        found = scanned.get(number)
        if found is not None and found.is_blank and found.size_bytes == file_bytes:
            _sync_file(vfs, number)
            made.append(Spare(number, zeroed=file_bytes))
        else:
            made.append(files.create(number))
    vfs.fsync_dir(JOURNAL_DIR)
    files.through = made[-1].number
    files.spares = made[1:]
    position = Position(made[0])
    journal = Journal(vfs, limits, journal_id, files, GroupTable(keeps_lines=False), position)
    journal.begin_file(made[0], ())
    return journal, JournalRecovery({}, [], is_new=True)


def _sync_file(vfs: Vfs, number: int) -> None:
    handle = vfs.open(file_path(number))
    try:
        vfs.fsync(handle)
    finally:
        vfs.close(handle)


class _Opening:
    """One opening of an existing journal."""

    def __init__(
        self,
        vfs: Vfs,
        limits: Limits,
        journal_id: bytes,
        numbers: list[int],
        scanned: dict[int, FoundFile],
        verdict: Verdict,
        least_lsn: int,
    ) -> None:
        self.vfs = vfs
        self.limits = limits
        self.journal_id = journal_id
        self.numbers = numbers
        self.scanned = scanned
        self.verdict = verdict
        self.findings = verdict.findings
        self.least_lsn = least_lsn
        self.table = GroupTable(keeps_lines=True)
        self.handles: dict[int, int] = {}
        self.damaged: dict[int, list[FoundBlock]] = {}
        """File → its blocks that have bad body sectors."""

    def run(self, accepts_losses: bool) -> tuple[Journal, JournalRecovery]:
        recovery, again = self.read()
        if not accepts_losses:
            self._require_read()
        journal = self._continue(again)
        faulty = [uid for uid, group in recovery.groups.items() if any(entry.data is None for entry in group.entries)]
        journal.leave_uncounted(faulty)
        return journal, recovery

    def read(self) -> tuple[JournalRecovery, list[Record]]:
        """What the journal proves, and the records that opening writes again. Writes nothing."""
        parts_read = 0
        uids: set[int] = set()
        for step in self.verdict.steps:
            parts_read, uids = self._fold(step, parts_read, uids)
        last_lsn = self.verdict.last.header.lsn if self.verdict.last is not None else 0
        if last_lsn < self.least_lsn:
            self.findings.append(
                f"this journal is an older one: it ends with block {last_lsn}, and block {self.least_lsn} was durable"
            )
            self.table.hole()
        try:
            groups = {GroupUid(uid): self._recover_group(self.table.groups[uid]) for uid in sorted(self.table.groups)}
            again = self._last_records(groups)
        finally:
            for handle in self.handles.values():
                self.vfs.close(handle)
        return JournalRecovery(groups, self.findings, is_new=False, peers=self._peers()), again

    def _require_read(self) -> None:
        """Nothing is written over what the device did not show."""
        refused = [file for file in self.scanned.values() if file.has_read_error]
        if refused and any(step.lines is None for step in self.verdict.steps):
            raise Corruption(
                f"the device refuses to read the journal, nothing was changed ({'; '.join(self.findings[:4])})",
                file=file_path(refused[0].number),
                offset=0,
            )

    # -- folding ----------------------------------------------------------------------------------------------------

    def _fold(self, step: Step, parts_read: int, uids: set[int]) -> tuple[int, set[int]]:
        """Fold one step; returns how many consecutive parts of a table were read and the groups in them."""
        table = self.table
        block = step.block
        if block is not None and not all(block.good):
            self.damaged.setdefault(step.file, []).append(block)
        if step.lines is None:
            table.hole()
            return 0, set()
        part, parts = (block.header.table_part, block.header.table_parts) if block is not None else (0, 0)
        if block is None and is_whole_table(step.lines):
            part = parts = 1
        if part == 1:
            parts_read, uids = 0, set()
        for line in step.lines:
            problem = table.apply(line, step.file)
            if problem:
                self.findings.append(f"journal file {step.file}: {problem}")
            if line.kind == fmt.KIND_ROW:
                uids.add(line.group)
        if part and part == parts_read + 1:
            parts_read = part
            if part == parts:
                table.table_complete(uids | {line.group for line in step.lines})
        return parts_read, uids

    # -- reading bodies ---------------------------------------------------------------------------------------------

    def _recover_group(self, group: GroupState) -> GroupRecovery:
        entries: list[EntryRef] = []
        for run in group.runs:
            entries += self._entries_of(run)
        return GroupRecovery(
            uid=GroupUid(group.uid),
            generation=group.generation,
            term=Term(group.term),
            vote=group.vote,
            hard_state_known=group.hard_known,
            checkpoint_index=RaftIndex(group.checkpoint_index),
            checkpoint_term=Term(group.checkpoint_term),
            checkpoint_hash=group.checkpoint_hash,
            entries=entries,
            last_index=RaftIndex(group.last_index),
            last_term=Term(group.last_term),
            last_known=group.last_known,
            is_stopped=group.stopped,
        )

    def _entries_of(self, run: Run) -> list[EntryRef]:
        """One reference per index of a run; FAULTY where its bytes cannot be read."""
        line = run.line
        found: list[tuple[int, bytes]] = []
        lost_messages = 0
        if line is not None and run.file != NOWHERE:
            body = self._read_body(run.file, line)
            if body is not None:
                found = list(iter_entries(body))
                assert len(found) == line.last_index - line.first_index + 1, "a good record holds other entries"
            else:
                found = self._salvage(run.file, line)
                lost_messages = line.message_count - sum(count for count, _ in found)
                self.findings.append(
                    f"journal file {run.file}: entries {line.first_index}–{line.last_index} of group {line.group}: "
                    f"{line.last_index - line.first_index + 1 - len(found)} are FAULTY"
                )
        skip = run.first - line.first_index if line is not None else 0
        entries = []
        for index in range(run.first, run.last + 1):
            position = index - run.first + skip
            if position < len(found):
                count, data = found[position]
                entries.append(EntryRef(RaftIndex(index), Term(run.term), count, data))
            else:
                is_plain = line is not None and line.aux == PLAIN
                entries.append(
                    EntryRef(RaftIndex(index), Term(run.term), lost_messages, None, line is not None, is_plain)
                )
                lost_messages = 0
        return entries

    def _read_body(self, file: int, line: Line) -> bytes | None:
        """The record's body if it is what the line says."""
        body = self._pread(file, line.offset, line.length)
        if body is None or len(body) != line.length or crc32c(body) != line.crc:
            return None
        return self._shown(file, line.offset, body)

    def _shown(self, file: int, offset: int, body: bytes) -> bytes | None:
        """A body as it was before an encrypted store hid it; None if no head of its file tells how."""
        keys = self.vfs.keys
        if keys is None:
            return body
        found = self.scanned.get(file)
        if not found or not found.blocks:
            return None
        return shown(keys, found.blocks[0].header.mark, offset, body)

    def _salvage(self, file: int, line: Line) -> list[tuple[int, bytes]]:
        """The first entries of a damaged record that stand in good sectors."""
        for block in self.damaged.get(file, ()):
            start = block.header.body_offset
            if start <= line.offset and line.offset + line.length <= start + block.header.body_bytes:
                body = self._pread(file, line.offset, line.length)
                if body is None or len(body) != line.length:
                    return []
                body = self._shown(file, line.offset, body)
                assert body is not None, "the block's own head was read"
                first, skew = divmod(line.offset - start, SECTOR_BYTES)
                last = (line.offset - start + line.length - 1) // SECTOR_BYTES
                found = salvage_entries(body, block.good[first : last + 1], SECTOR_BYTES, skew)
                return found if len(found) <= line.last_index - line.first_index + 1 else []
        return []

    def _pread(self, file: int, offset: int, length: int) -> bytes | None:
        try:
            handle = self.handles.get(file)
            if handle is None:
                handle = self.handles[file] = self.vfs.open(file_path(file), write=False)
            return self.vfs.pread(handle, length, offset)
        except OSError:
            return None  # a read error is damage of what it covers, not of the node

    # -- going on ---------------------------------------------------------------------------------------------------

    def _last_records(self, groups: dict[GroupUid, GroupRecovery]) -> list[Record]:
        """All records of the last block that counts (a table that was not finished is passed over)."""
        for step in reversed(self.verdict.steps):
            block = step.block
            if block is not None and block.header.table_part < block.header.table_parts:
                continue
            return self._records_of(step) if step.lines is not None else []
        return []

    def _records_of(self, step: Step) -> list[Record]:
        assert step.lines is not None
        found: list[tuple[Line, bytes]] = []
        skipped: set[int] = set()
        row_of = -1
        for line in step.lines:
            is_rows_checkpoint = line.kind == Kind.CKPT and line.group == row_of
            row_of = line.group if line.kind == fmt.KIND_ROW else -1
            group = self.table.groups.get(line.group)
            if line.kind in _TABLE_KINDS or is_rows_checkpoint or group is None or group.stopped:
                continue
            if line.kind == Kind.GROUP:  # what stands before it is void, and must not be said again after it
                found = [(other, body) for other, body in found if other.group != line.group]
            body: bytes | None = b""
            if line.length:
                body = self._read_body(step.file, line)
            if body is None:
                skipped.add(line.group)  # its evidence stays where it is
            else:
                found.append((line, body))
        return [
            Record(
                Kind(line.kind),
                GroupUid(line.group),
                Term(line.term),
                Term(line.prev_term),
                RaftIndex(line.first_index),
                RaftIndex(line.last_index),
                line.message_count,
                line.aux,
                body,
            )
            for line, body in found
            if line.group not in skipped
        ]

    def _continue(self, again: Sequence[Record]) -> Journal:
        """Sync what was relied on (spares too: blocks will claim that they exist); go on in the next zeroed file."""
        vfs = self.vfs
        last = self.verdict.last
        file_bytes = last.header.file_bytes if last is not None else self.limits.journal_file_bytes
        needed = self.table.needed_files()
        newest = self.verdict.newest_file
        for number in self.numbers:
            if number >= newest or number in needed or (last is not None and number == last.header.file_number):
                _sync_file(vfs, number)
        if vfs.exists(TEMP_PATH):
            vfs.unlink(TEMP_PATH)
        vfs.fsync_dir(JOURNAL_DIR)

        files = FileSet(vfs, self.limits, file_bytes)
        files.through = max([*self.numbers, *([last.header.spare_through] if last is not None else [])])
        for number in range(newest + 1, files.through + 1):
            found = self.scanned.get(number)
            if found is None or found.size_bytes != file_bytes:  # what blocks claim to exist must exist
                try:
                    files.spares.append(files.create(number))
                except DiskFull:
                    files.spares.append(files.create_thin(number))
            else:
                files.spares.append(Spare(number, zeroed=file_bytes if found.is_blank else 0))
        files.released = [
            number
            for number in self.numbers
            if number < self.verdict.unlisted_below and number not in self.verdict.listed and number not in needed
        ]
        chosen = next((spare for spare in files.spares if spare.is_ready(file_bytes)), None)
        if chosen is None:
            files.make_ready()
            chosen = files.spares[0]
        passed = [spare.number for spare in files.spares if spare.number < chosen.number]
        files.spares = [spare for spare in files.spares if spare.number > chosen.number]

        older = [number for number in vfs_numbers(vfs) if number <= newest and number not in files.released]
        position = Position(
            file=chosen,
            lsn=last.header.lsn if last is not None else 0,
            previous_crc=last.header.header_crc if last is not None else 0,
            previous_lines=fmt.pack_lines(last.lines) if last is not None and last.lines is not None else b"",
            previous_file=last.header.file_number if last is not None else 0,
            listed=tuple(sorted({*older, *passed, *needed})),
            ends=self._ends(needed),
            peers=self._peers(),
        )
        table = _without_lines(self.table)
        journal = Journal(vfs, self.limits, self.journal_id, files, table, position)
        journal.begin_file(chosen, again, is_again=True)
        journal.idle()  # the new list stands twice: however often a node restarts, its files go round
        files.drop_surplus()
        return journal

    def _peers(self) -> bytes:
        """What was heard of other nodes, as the last block says of which that is readable."""
        blocks = (step.block for step in reversed(self.verdict.steps))
        return next((block.peers for block in blocks if block is not None and block.peers is not None), b"")

    def _ends(self, needed: list[int]) -> dict[int, int]:
        """The lsn of the last block that counts, for each needed file."""
        ends: dict[int, int] = {}
        for step in self.verdict.steps:
            if step.block is not None and step.file in needed:
                ends[step.file] = max(ends.get(step.file, 0), step.block.header.lsn)
        return ends


def _without_lines(table: GroupTable) -> GroupTable:
    """The same table for appending: nobody will read the bodies again."""
    for group in table.groups.values():
        for run in group.runs:
            run.line = None
    table.keeps_lines = False
    return table
