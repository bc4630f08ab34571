"""The group table: what every group stands at, as a fold over journal lines. The same fold serves append and recovery.

A group's log above its checkpoint is a list of *runs* without holes: consecutive indexes of one term whose bytes are in
one file. A run in file 0 is nowhere: something proves that those entries exist, but not what they are (FAULTY).

Doubt: after a hole (blocks whose lines are unreadable, ``hole``) a group's term, vote and last index may be newer than
anything known. A row of a later table, or a later line that proves the one or the other, ends the doubt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from jetstore.store.journal import format as fmt
from jetstore.store.journal.format import Line
from jetstore.store.ports import Kind

NOWHERE = 0
"""File number of runs whose bytes are lost."""


class Run:
    """Entries first … last of one term in one file. ``line`` locates the bytes (None where nobody will read them)."""

    __slots__ = ("file", "first", "last", "line", "term")

    def __init__(self, first: int, last: int, term: int, file: int, line: Line | None) -> None:
        self.first = first
        self.last = last
        self.term = term
        self.file = file
        self.line = line


class GroupState:
    """What the lines so far say about one group."""

    __slots__ = (
        "checkpoint_hash",
        "checkpoint_index",
        "checkpoint_term",
        "generation",
        "hard_known",
        "last_index",
        "last_known",
        "last_term",
        "runs",
        "stopped",
        "term",
        "uid",
        "vote",
    )

    def __init__(self, uid: int, *, in_doubt: bool) -> None:
        self.uid = uid
        self.generation = 1
        self.term = 0
        self.vote = 0
        self.hard_known = not in_doubt
        self.last_known = not in_doubt
        self.stopped = False
        self.checkpoint_index = 0
        self.checkpoint_term = 0
        self.checkpoint_hash = 0
        self.runs: list[Run] = []
        self.last_index = 0
        self.last_term = 0

    def run_at(self, index: int) -> Run | None:
        """The run that covers an index above the checkpoint."""
        runs = self.runs
        if not runs or index > self.last_index or index < runs[0].first:
            return None
        if index >= runs[-1].first:
            return runs[-1]
        return runs[bisect_right(runs, index, key=_first_of) - 1]

    @property
    def is_tombstone(self) -> bool:
        return self.generation == 0


class GroupTable:
    """All groups of the node. ``keeps_lines`` (recovery) remembers where each run's bytes are."""

    def __init__(self, *, keeps_lines: bool) -> None:
        self.groups: dict[int, GroupState] = {}
        self.keeps_lines = keeps_lines
        self.removals = 0
        """Grows whenever entries stop being live: what was derived from ``first_live`` is out of date then."""
        self.live: dict[int, dict[int, int]] = {}
        """File number → group → number of its runs there."""
        self.in_doubt = False
        """A hole was passed and no complete table since: a group seen for the first time may be older than it looks."""
        self._superseded: list[Run] = []
        """What the group of the last ROW had before it: its RUN lines pick what still counts."""

    # -- what is known ----------------------------------------------------------------------------------------------

    def needed_files(self) -> list[int]:
        """Numbers of the files that hold live entries, ascending."""
        return sorted(file for file in self.live if file != NOWHERE)

    def first_live(self, file: int, count: int) -> list[tuple[int, int]]:
        """Up to ``count`` groups with live entries in ``file``, each with the first such index."""
        found: list[tuple[int, int]] = []
        for uid in self.live.get(file, ()):
            if len(found) == count:
                break
            found.append((uid, next((run.first for run in self.groups[uid].runs if run.file == file), 0)))
        return found

    def rows(self) -> Iterator[list[Line]]:
        """The table as lines, group by group."""
        for uid in sorted(self.groups):
            yield self._row(self.groups[uid])

    @staticmethod
    def _row(group: GroupState) -> list[Line]:
        flags = (
            (0 if group.hard_known else fmt.FLAG_HARD_UNKNOWN)
            | (0 if group.last_known else fmt.FLAG_LAST_UNKNOWN)
            | (fmt.FLAG_STOPPED if group.stopped else 0)
        )
        last = group.last_index
        row = Line(
            fmt.KIND_ROW,
            flags,
            group.generation,
            group.uid,
            group.term,
            group.last_term,
            last,
            last,
            0,
            0,
            0,
            group.vote,
        )
        lines = [row]
        if group.checkpoint_index:
            at, aux = group.checkpoint_index, group.checkpoint_hash
            lines.append(Line(Kind.CKPT, 0, 0, group.uid, group.checkpoint_term, 0, at, at, 0, 0, 0, aux))
        named: tuple[int, int] | None = None
        for run in group.runs:
            if named == (run.term, run.file):
                lines[-1] = lines[-1]._replace(last_index=run.last)
                continue
            named = (run.term, run.file)
            lines.append(Line(fmt.KIND_RUN, 0, 0, group.uid, run.term, 0, run.first, run.last, 0, 0, 0, run.file))
        return lines

    # -- the fold ---------------------------------------------------------------------------------------------------

    def hole(self) -> None:
        """Blocks were here whose lines are unreadable."""
        self.in_doubt = True
        for group in self.groups.values():
            if not group.is_tombstone:
                group.hard_known = False
                group.last_known = False

    def forget(self, uid: int) -> None:
        """A tombstone is not needed any more (a durable meta checkpoint covers it)."""
        group = self.groups.get(uid)
        if group is not None and group.is_tombstone:
            del self.groups[uid]

    def table_complete(self, uids: set[int]) -> None:
        """A whole table was read and these are its groups: the set is known again.

        Any other one is dead, also without a tombstone: that may have stood in a file that is needed no more.
        """
        self.in_doubt = False
        for uid in sorted(self.groups.keys() - uids):
            self._void(self.groups.pop(uid))
            for file in [file for file, members in self.live.items() if uid in members]:  # it was stopped there
                self._count(file, uid, -self.live[file][uid])

    def apply(self, line: Line, file: int) -> str:
        """Fold one line that stands in ``file``. "" or, for a line without effect that should have one, why."""
        kind = line.kind
        if kind == fmt.KIND_FILES:
            return ""  # the block's list is taken as a whole, by the caller
        group = self.groups.get(line.group)
        if group is None:
            group = self.groups[line.group] = GroupState(line.group, in_doubt=self.in_doubt)
        if kind == fmt.KIND_ROW:
            return self._apply_row(group, line)
        if kind == fmt.KIND_RUN:
            return self._apply_run(group, line)
        if kind == Kind.GROUP:
            return self._apply_group(group, line)
        if group.is_tombstone:
            return ""
        if kind == Kind.ENTRIES:
            return self._apply_entries(group, line, file)
        if kind == Kind.HARD:
            return self._apply_hard(group, line)
        if kind == Kind.CKPT:
            return self._apply_checkpoint(group, line)
        if kind == Kind.RESET:
            return self._apply_reset(group, line)
        if kind == Kind.REPAIR:
            return self._apply_repair(group, line, file)
        if not group.stopped:
            group.stopped = True
            self._count(file, group.uid, 1)  # a build that knows the kind will need this file
        return f"group {group.uid}: a line of unknown kind {kind}: the group is stopped"

    def goes_on(self, uid: int, term: int, prev_term: int, first: int, last: int, file: int) -> bool:
        """Fold an ENTRIES line that only lengthens the group's last run, as nearly all do; else False: ``apply`` it."""
        group = self.groups.get(uid)
        if group is None or first != group.last_index + 1 or not group.runs or not group.last_known:
            return False
        tail = group.runs[-1]
        if tail.term != term or prev_term != term or tail.file != file or tail.line is not None or self.keeps_lines:
            return False
        tail.last = group.last_index = last
        return True

    def _apply_entries(self, group: GroupState, line: Line, file: int) -> str:
        first, last, term = line.first_index, line.last_index, line.term
        at = group.checkpoint_index
        if last <= at:
            return ""
        if first <= at:
            if term != group.checkpoint_term:
                return f"group {group.uid}: entries {first}–{last} do not pass through the checkpoint at {at}: dead"
        elif first == at + 1:
            if line.prev_term != group.checkpoint_term:
                return f"group {group.uid}: entries {first}–{last} do not follow the checkpoint at {at}: dead"
        elif first > group.last_index + 1:
            if group.last_known:
                return f"group {group.uid}: entries {first}–{last} leave a gap after {group.last_index}: dead"
            self._push(group, Run(group.last_index + 1, first - 1, line.prev_term, NOWHERE, None))
        else:
            before = group.run_at(first - 1)
            assert before is not None
            if before.file != NOWHERE and before.term != line.prev_term:
                if group.last_known:
                    return f"group {group.uid}: entries {first}–{last} do not follow the term at {first - 1}: dead"
                self._lose(group, first - 1, line.prev_term)
        self._truncate(group, first)
        self._push(group, Run(max(first, at + 1), last, term, file, line if self.keeps_lines else None))
        group.last_known = True
        if term > group.term:  # its HARD line is lost: no vote may be given in this term
            group.term, group.vote, group.hard_known = term, 0, False
        return ""

    @staticmethod
    def _apply_hard(group: GroupState, line: Line) -> str:
        if line.term < group.term:
            return f"group {group.uid}: term {line.term} is below {group.term}: dead"
        if line.term > group.term or not group.vote or not group.hard_known:
            group.vote = line.aux
        group.term = line.term
        group.hard_known = True
        return ""

    def _apply_checkpoint(self, group: GroupState, line: Line) -> str:
        at = line.first_index
        if at < group.checkpoint_index:
            return ""
        group.checkpoint_index, group.checkpoint_term, group.checkpoint_hash = at, line.term, line.aux
        if at >= group.last_index:
            self._truncate(group, 0)
            group.last_index, group.last_term = at, line.term
        else:
            self._trim(group, at)
        return ""

    def _apply_reset(self, group: GroupState, line: Line) -> str:
        at = line.first_index
        if at < group.checkpoint_index:
            return ""
        own = group.checkpoint_term if at == group.checkpoint_index else None
        run = group.run_at(at)
        if run is not None:
            own = run.term  # also of an entry whose file is gone, as it may be from now on: its term is evidenced
        if own != line.term:
            self._truncate(group, 0)
        if at >= group.last_index:
            group.last_known = True  # whatever a hole held, this is where the log stands from now on
        return self._apply_checkpoint(group, line)

    def _apply_group(self, group: GroupState, line: Line) -> str:
        if line.aux == group.generation:
            return ""
        if line.aux and line.aux < group.generation:
            return f"group {group.uid}: generation {line.aux} is below {group.generation}: dead"
        self._void(group)
        group.generation = line.aux
        return ""

    def _apply_repair(self, group: GroupState, line: Line, file: int) -> str:
        index = line.first_index
        run = group.run_at(index)
        if run is None or run.term != line.term:
            return ""
        position = group.runs.index(run)
        self._count(run.file, group.uid, -1)
        pieces = [Run(index, index, line.term, file, line if self.keeps_lines else None)]
        if run.first < index:
            pieces.insert(0, Run(run.first, index - 1, run.term, run.file, run.line))
        if run.last > index:
            pieces.append(Run(index + 1, run.last, run.term, run.file, run.line))
        group.runs[position : position + 1] = pieces
        for piece in pieces:
            self._count(piece.file, group.uid, 1)
        return ""

    def _apply_row(self, group: GroupState, line: Line) -> str:
        """A row, with the CKPT and RUN lines behind it, is the truth about everything before it."""
        generation = line.message_count
        if generation != group.generation:
            self._void(group)
            group.generation = generation
        group.term, group.vote = line.term, line.aux
        group.hard_known = not line.flags & fmt.FLAG_HARD_UNKNOWN
        group.last_known = not line.flags & fmt.FLAG_LAST_UNKNOWN
        group.stopped = group.stopped or bool(line.flags & fmt.FLAG_STOPPED)
        self._superseded = group.runs
        for run in group.runs:
            self._count(run.file, group.uid, -1)
        group.runs = []
        group.last_index, group.last_term = group.checkpoint_index, group.checkpoint_term
        return ""

    def _apply_run(self, group: GroupState, line: Line) -> str:
        """What the lines before the table gave with this index and term is the entry; all else is superseded."""
        for old in self._superseded:
            first, last = max(old.first, line.first_index), min(old.last, line.last_index)
            if first > last or old.term != line.term or old.file == NOWHERE:
                continue
            if first > group.last_index + 1:
                self._push(group, Run(group.last_index + 1, first - 1, line.term, NOWHERE, None))
            self._push(group, Run(first, last, line.term, old.file, old.line))
        if group.last_index < line.last_index:
            self._push(group, Run(group.last_index + 1, line.last_index, line.term, NOWHERE, None))
        return ""

    # -- runs -------------------------------------------------------------------------------------------------------

    def _push(self, group: GroupState, run: Run) -> None:
        assert run.first == group.last_index + 1
        group.last_index, group.last_term = run.last, run.term
        if group.runs:
            tail = group.runs[-1]
            if tail.line is run.line is None and tail.file == run.file and tail.term == run.term:
                tail.last = run.last
                return
        group.runs.append(run)
        self._count(run.file, group.uid, 1)

    def _truncate(self, group: GroupState, first: int) -> None:
        """Remove every entry ≥ ``first`` (and above the checkpoint)."""
        self.removals += 1
        runs = group.runs
        while runs and runs[-1].last >= first:
            tail = runs[-1]
            if tail.first < first:
                tail.last = first - 1
                break
            runs.pop()
            self._count(tail.file, group.uid, -1)
        if runs:
            group.last_index, group.last_term = runs[-1].last, runs[-1].term
        else:
            group.last_index, group.last_term = group.checkpoint_index, group.checkpoint_term

    def _trim(self, group: GroupState, through: int) -> None:
        """Remove every entry ≤ ``through``; there are some beyond."""
        self.removals += 1
        runs = group.runs
        gone = 0
        while runs[gone].last <= through:
            self._count(runs[gone].file, group.uid, -1)
            gone += 1
        del runs[:gone]
        runs[0].first = max(runs[0].first, through + 1)

    def _lose(self, group: GroupState, last: int, last_term: int) -> None:
        """The log up to ``last`` was replaced where nobody can see it: evidenced, not readable."""
        self._truncate(group, 0)
        self._push(group, Run(group.checkpoint_index + 1, last, last_term, NOWHERE, None))

    def _void(self, group: GroupState) -> None:
        """Forget everything but the term, which stays as a floor."""
        group.checkpoint_index = group.checkpoint_term = group.checkpoint_hash = 0
        self._truncate(group, 0)
        group.vote = 0
        group.hard_known = group.last_known = True

    def _count(self, file: int, uid: int, change: int) -> None:
        members = self.live.get(file)
        if members is None:
            members = self.live[file] = {}
        count = members.get(uid, 0) + change
        if count:
            members[uid] = count
        else:
            members.pop(uid, None)
            if not members:
                del self.live[file]


def _first_of(run: Run) -> int:
    return run.first
