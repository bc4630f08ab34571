"""Which configuration counts at which index: that of the checkpoint, then each one that an entry of the log carries.

The one in effect is the last in the log, from the moment it is appended, committed or not (Raft paper §6); truncating
the log takes it back, since it is only ever computed from (checkpoint, log prefix) and never edited.
"""

from __future__ import annotations

from jetstore.raft.log import RaftLog
from jetstore.raft.membership import Configuration, decode_configuration, is_configuration
from jetstore.types import RaftIndex


class Configurations:
    """The configurations of one log, oldest first."""

    def __init__(self, base: Configuration, log: RaftLog) -> None:
        """``base`` is in effect at the log's checkpoint."""
        self._log = log
        self._steps = [(log.checkpoint_index, base)]
        self.current = base
        self.index = log.checkpoint_index
        """Index of the entry that carries ``current``."""
        self._scan()

    def at(self, index: RaftIndex) -> Configuration:
        """The one in effect as of an index that is not below what ``forget_below`` was told."""
        found = self._steps[0][1]
        for start, configuration in self._steps:
            if start > index:
                break
            found = configuration
        return found

    def may_vote(self, member: int, committed_index: RaftIndex) -> bool:
        """Whether a member is a voter now, or still is if what is not known to be committed never will be.

        A leader that removes itself may be the only one that can bring its own removal about (thesis §4.2.2).
        """
        if self.current.is_voter(member):
            return True
        steps = self._steps
        return any(
            configuration.is_voter(member)
            for position, (_, configuration) in enumerate(steps)
            if position + 1 < len(steps) and steps[position + 1][0] > committed_index
        )

    def everybody(self) -> list[int]:
        """Every member that one of these configurations names, ascending."""
        return sorted({member for _, configuration in self._steps for member in configuration.all_members})

    def appended(self, index: RaftIndex, data: bytes) -> bool:
        """Look at a new entry; whether it carries a configuration."""
        if not is_configuration(data):
            return False
        self._steps.append((index, decode_configuration(data)))
        self._set_current()
        return True

    def truncated(self, index: RaftIndex) -> bool:
        """The entries ≥ ``index`` are gone; whether one of them carried a configuration."""
        count = len(self._steps)
        while self._steps[-1][0] >= index:
            self._steps.pop()
        self._set_current()
        return len(self._steps) < count

    def repaired(self) -> bool:
        """Bytes came back; whether they changed what is in effect."""
        before = self.index
        first_index = self._log.first_index  # what is not in memory any more is not scanned again
        self._steps = [step for step in self._steps if step[0] < first_index] or self._steps[:1]
        self._scan()
        return self.index != before

    def restored(self, configuration: Configuration) -> None:
        """The log restarts at a checkpoint with this configuration."""
        self._steps = [(self._log.checkpoint_index, configuration)]
        self._scan()

    def forget_below(self, index: RaftIndex) -> None:
        """Nobody asks about anything before ``index`` any more."""
        while len(self._steps) > 1 and self._steps[1][0] <= index:
            del self._steps[0]

    def hidden(self) -> int:
        """Unreadable entries that may carry a newer configuration than the one in effect."""
        log = self._log
        entries = (log.entry(index) for index in log.faulty if index > self.index)
        return sum(entry.data is None and not entry.is_plain for entry in entries)

    def carriers(self, first_index: RaftIndex, last_index: RaftIndex) -> list[RaftIndex]:
        """Entries of a range above the checkpoint that carry a configuration, ascending."""
        if self.index < first_index:
            return []
        return [index for index, _ in self._steps if first_index <= index <= last_index]

    def _scan(self) -> None:
        log = self._log
        start = max(RaftIndex(self._steps[0][0] + 1), log.first_index)
        if start <= log.last_index:
            for entry in log.slice(start, log.last_index):
                if entry.data is not None and is_configuration(entry.data):
                    self._steps.append((entry.index, decode_configuration(entry.data)))
        self._set_current()

    def _set_current(self) -> None:
        self.index, self.current = self._steps[-1]
