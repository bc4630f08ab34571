"""Which blocks count: the chain of previous-header crcs, the verdict about the last block, and the holes.

``docs/format/journal.md`` has the table of verdicts; every branch here is a row of it.

1. The newest readable head is the end of the chain. If some of its sectors are bad and all of the bad ones are zero, it
   is *torn*: never acknowledged, void. If a bad sector is not zero it is *corrupt* and counts: its unreadable records
   are FAULTY.
2. From there back: the block one lsn before, whose header crc is the one named. Anything else is void. Where that
   block's head is unreadable, readable blocks with lower lsns of the same file still count (the lsn bridges the hole).
3. Older files: only those that the newest list names, each only up to the lsn that the list gives as its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jetstore.store.journal import format as fmt
from jetstore.store.journal.format import Line
from jetstore.store.journal.scan import FoundBlock, FoundFile


@dataclass(slots=True)
class Step:
    """One thing to fold, in order: a block that counts, or what stands in its place."""

    file: int
    block: FoundBlock | None
    """None: the block is unreadable; ``lines`` are what the next block repeats of it."""
    lines: list[Line] | None
    """None: a hole with unknown lines."""


@dataclass(slots=True)
class Verdict:
    """What of the journal counts."""

    steps: list[Step] = field(default_factory=list)
    """Oldest first."""
    last: FoundBlock | None = None
    """The last block that counts."""
    newest_file: int = 0
    """The highest file that has readable heads, void ones included."""
    unlisted_below: int = 0
    """Files below this number that are not in ``listed`` are named by no list, and the newest list stands twice."""
    listed: frozenset[int] = frozenset()
    findings: list[str] = field(default_factory=list)


class _Chain:
    """Walks back from the newest block."""

    def __init__(self, find: Callable[[int], FoundFile | None]) -> None:
        self.find = find
        self.verdict = Verdict()
        self.steps: list[Step] = []
        """Newest first."""
        self.later: FoundBlock | None = None
        """The block walked over last: the next newer one."""
        self.ends: dict[int, int] | None = None
        """The newest list of needed files, once it was met: file → lsn of its last block that counts (0 = open)."""
        self.list_file = 0
        self.list_lsn = 0

    def note(self, file: int, block: FoundBlock, text: str) -> None:
        self.verdict.findings.append(
            f"journal file {file}, block {block.header.lsn} at byte {block.header.block_offset}: {text}"
        )

    def end_with(self, file: FoundFile) -> None:
        """Judge the newest block."""
        last = file.blocks[-1]
        if last.has_zero_sector and not last.has_bad_sector:
            self.note(file.number, last, "torn, never acknowledged: void")
        elif last.has_bad_sector:
            self.note(file.number, last, "corrupt (it is the last one)")
            self.take(file.number, last)
        else:
            self.take(file.number, last)
        self.later = last

    def take(self, number: int, block: FoundBlock) -> None:
        """``block`` counts; so do what the later block repeats of it if its own lines are unreadable."""
        lines = block.lines
        if lines is None and self.later is not None and self._is_previous(block, self.later):
            lines = self.later.repeated
        if lines is None:
            self.note(number, block, "its lines are unreadable: a hole")
        self.steps.append(Step(number, block, lines))
        if self.verdict.last is None:
            self.verdict.last = block
        if self.ends is None and lines is not None:
            self._look_for_list(number, lines, block.header.lsn)
        self.later = block

    def walk_file(self, file: FoundFile) -> None:
        """Take what counts of a file, from its end."""
        end = (self.ends or {}).get(file.number, 0)
        for block in reversed(file.blocks):
            later = self.later
            assert later is not None
            if block is later:
                continue
            if block.header.lsn >= later.header.lsn or (end and block.header.lsn > end):
                self.note(file.number, block, "not on the chain: void")
                continue
            if not self._is_previous(block, later):
                if block.header.lsn == later.header.lsn - 1:
                    self.note(file.number, block, "not on the chain: void")
                    continue
                if end == block.header.lsn and later.header.file_number != file.number:
                    self._repeat(later)  # what stood between was judged when the list was written
                else:
                    self.bridge(later, block)
            if block.has_zero_sector or block.has_bad_sector:
                self.note(file.number, block, "corrupt")
            self.take(file.number, block)

    def bridge(self, later: FoundBlock, earlier: FoundBlock | None) -> None:
        """Blocks before ``later`` are unreadable; the lines of the last of them stand in ``later``."""
        lost = later.header.lsn - 1 - (earlier.header.lsn if earlier is not None else 0)
        if self._repeat(later):
            lost -= 1
        is_table = is_whole_table(later.repeated)
        if (lost > 0 or earlier is None or later.repeated is None) and not (earlier is None and is_table):
            self.steps.append(Step(later.header.file_number, None, None))
        self.note(later.header.file_number, later, "one or more blocks before it are unreadable")

    def _repeat(self, later: FoundBlock) -> bool:
        """Fold what ``later`` repeats of the block before it; False if that is unreadable too."""
        if later.repeated is None:
            return False
        self.steps.append(Step(later.header.previous_file, None, later.repeated))
        if self.ends is None:
            self._look_for_list(later.header.previous_file, later.repeated, later.header.lsn - 1)
        return True

    def _look_for_list(self, number: int, lines: list[Line], lsn: int) -> None:
        named = {line.first_index: line.aux for line in lines if line.kind == fmt.KIND_FILES}
        if named:
            self.ends, self.list_file, self.list_lsn = named, number, lsn

    @staticmethod
    def _is_previous(block: FoundBlock, later: FoundBlock) -> bool:
        return block.header.lsn == later.header.lsn - 1 and block.header.header_crc == later.header.previous_crc


def is_whole_table(lines: list[Line] | None) -> bool:
    """Whether these are the lines of a group table that fits into one block."""
    return lines is not None and any(line.kind == fmt.KIND_FILES and line.message_count == 1 for line in lines)


def judge(files: list[int], find: Callable[[int], FoundFile | None]) -> Verdict:
    """The verdict over the files that are there (numbers ascending); ``find`` scans one.

    ``find`` gives None for a file that is missing. Files are asked for from the newest back, each once, and only as far
    back as the newest list of needed files says.
    """
    chain = _Chain(find)
    verdict = chain.verdict
    remaining = list(files)
    blank_above: list[FoundFile] = []
    newest: FoundFile | None = None
    while remaining:
        file = find(remaining.pop())
        if file is None:
            continue
        if file.blocks:
            newest = file
            break
        blank_above.append(file)
    if newest is None:
        return verdict
    verdict.newest_file = newest.number
    chain.end_with(newest)
    _judge_end(chain, newest, blank_above)
    chain.walk_file(newest)
    previous = newest.number
    while True:
        number = _older_file(chain, remaining, previous)
        if number == 0:
            break
        file = find(number) if number in remaining else None
        if file is None:
            verdict.findings.append(f"journal file {number} is missing: a hole")
            chain.steps.append(Step(number, None, None))
        elif not file.blocks:
            verdict.findings.append(f"journal file {number} has no readable block: a hole")
            chain.steps.append(Step(number, None, None))
        else:
            end = (chain.ends or {}).get(number, 0)
            chain.walk_file(file)
            if end and file.blocks[-1].header.lsn < end:
                verdict.findings.append(f"journal file {number} ends at block {file.blocks[-1].header.lsn}, not {end}")
        previous = number
    if chain.later is not None and chain.later.header.table_part != 1:
        chain.bridge(chain.later, None)
    if chain.ends is not None and verdict.last is not None and chain.list_lsn < verdict.last.header.lsn:
        verdict.unlisted_below, verdict.listed = chain.list_file, frozenset(chain.ends)
    verdict.steps = chain.steps[::-1]
    verdict.findings.reverse()
    return verdict


def _older_file(chain: _Chain, present: list[int], below: int) -> int:
    """The next older file that must be read; 0 = none."""
    if chain.ends is None:  # no list yet: the file that the oldest block so far refers to
        assert chain.later is not None
        named = chain.later.header.previous_file
        if named and named < below:
            return named
        return max((number for number in present if number < below), default=0) if named else 0
    needed = [number for number in chain.ends if number < below]
    between = [number for number in present if chain.list_file <= number < below]
    return max(needed + between, default=0)


def _judge_end(chain: _Chain, newest: FoundFile, above: list[FoundFile]) -> None:
    """Whether acknowledged blocks may have stood behind the newest readable one."""
    header = newest.blocks[-1].header
    steps = chain.steps
    problems = []
    if newest.tail == "corrupt":
        problems.append(f"journal file {newest.number}: an unreadable block at byte {newest.end}")
    elif newest.tail == "cut" and newest.size_bytes < header.file_bytes:
        problems.append(f"journal file {newest.number} is cut at byte {newest.size_bytes}")
    elif newest.tail in ("torn", "stale"):
        chain.verdict.findings.append(
            f"journal file {newest.number}: {newest.tail} bytes at {newest.end}, never acknowledged: void"
        )
    there = {file.number: file for file in above}
    for number in range(newest.number + 1, header.spare_through + 1):
        file = there.get(number)
        if file is None:
            problems.append(f"journal file {number} is missing")
        elif file.tail in ("corrupt", "cut"):
            problems.append(f"journal file {number} is unreadable")
    if problems:
        chain.verdict.findings.extend(f"{problem}: a hole" for problem in problems)
        steps.insert(0, Step(newest.number, None, None))
