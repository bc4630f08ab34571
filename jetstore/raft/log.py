"""What one group remembers of its entries: from its checkpoint to the last index, durable or not.

Three boundaries move forward only, ``applied ≤ committed ≤ durable ≤ last`` for a lone voter:

::

    checkpoint      applied         committed       durable         last
        |---------------|---------------|---------------|---------------|
          may be dropped  to be applied    being decided    being written

Entries that are applied are kept only while all of the log above the checkpoint is small (``resident_bytes_max``): then
the journal can be told them again instead of being held back by a quiet group (STORAGE: re-append).
"""

from __future__ import annotations

from dataclasses import dataclass

from jetstore.types import RaftIndex, Term


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. Immutable; ``data`` is what is stored, ``cache`` what its proposer already knows decoded."""

    term: Term
    index: RaftIndex
    data: bytes | None
    """None: FAULTY (a line proves that the entry exists, its bytes are unreadable)."""
    message_count: int = 0
    cache: object = None


class RaftLog:
    """Entries above the checkpoint, in memory, with the boundaries drawn above."""

    def __init__(
        self,
        *,
        checkpoint_index: RaftIndex,
        checkpoint_term: Term,
        entries: list[Entry],
        resident_bytes_max: int,
    ) -> None:
        """A log as recovery found it: everything in ``entries`` is durable."""
        expected = checkpoint_index + 1
        for entry in entries:
            assert entry.index == expected, f"hole in the log: index {entry.index}, expected {expected}"
            expected += 1
        self.checkpoint_index = checkpoint_index
        self.checkpoint_term = checkpoint_term
        self.resident_bytes_max = resident_bytes_max
        self._entries = entries  # _entries[i] has index first_index + i
        self.first_index = RaftIndex(checkpoint_index + 1)
        self.last_index = RaftIndex(checkpoint_index + len(entries))
        self.last_term = entries[-1].term if entries else checkpoint_term
        self.durable_index = self.last_index
        self.committed_index = checkpoint_index
        self.applied_index = checkpoint_index
        self.applied_term = checkpoint_term
        self._bytes_total = sum(len(e.data or b"") for e in entries)
        self.applied_bytes_total = 0
        """Bytes of all entries applied so far: remember it with a checkpoint, hand it to ``checkpointed``."""
        self._covered_bytes_total = 0
        self.faulty_index = next((e.index for e in entries if e.data is None), None)

    def append(self, entry: Entry) -> None:
        """Take the next entry; not durable until ``stored`` says so."""
        assert entry.index == self.last_index + 1
        assert entry.term >= self.last_term
        assert entry.data is not None
        self._entries.append(entry)
        self.last_index, self.last_term = entry.index, entry.term
        self._bytes_total += len(entry.data)

    def entry(self, index: RaftIndex) -> Entry:
        """The entry at an index that is still in memory."""
        return self._entries[index - self.first_index]

    def term_at(self, index: RaftIndex) -> Term | None:
        """Its term, or None if the index is not in memory (and is not the checkpoint's)."""
        if index == self.checkpoint_index:
            return self.checkpoint_term
        if self.first_index <= index <= self.last_index:
            return self._entries[index - self.first_index].term
        return None

    def slice(self, first_index: RaftIndex, last_index: RaftIndex) -> list[Entry]:
        """The entries of the closed range, which must be in memory."""
        assert self.first_index <= first_index
        assert last_index <= self.last_index
        return self._entries[first_index - self.first_index : last_index - self.first_index + 1]

    def stored(self, term: Term, index: RaftIndex) -> bool:
        """Note that the log is durable up to (term, index).

        False when that slot meanwhile holds an entry of another term: a completion of an older write at the same
        index says nothing about the newer entry (the ABA trap).
        """
        if self.term_at(index) != term:
            return False
        self.durable_index = max(self.durable_index, index)
        return True

    def commit(self, index: RaftIndex) -> None:
        """Move the commit index forward."""
        assert index <= self.durable_index, "a lone voter commits only what is durable"
        self.committed_index = max(self.committed_index, index)

    def to_apply(self) -> list[Entry]:
        """Committed entries that are not applied, up to (not including) a FAULTY one."""
        last = self.committed_index
        if self.faulty_index is not None:
            last = min(last, RaftIndex(self.faulty_index - 1))
        if last <= self.applied_index:
            return []
        return self.slice(RaftIndex(self.applied_index + 1), last)

    def applied(self, index: RaftIndex) -> None:
        """Note that everything up to ``index`` is applied; forget bytes that nobody needs any more."""
        assert self.applied_index <= index <= self.committed_index
        term = self.term_at(index)
        assert term is not None
        if index > self.applied_index:
            applied = self.slice(RaftIndex(self.applied_index + 1), index)
            self.applied_bytes_total += sum(len(e.data or b"") for e in applied)
        self.applied_index, self.applied_term = index, term
        if self.bytes_above_checkpoint > self.resident_bytes_max:
            self._drop_through(index)

    @property
    def bytes_above_checkpoint(self) -> int:
        """Bytes of entries that the journal must keep for this group."""
        return self._bytes_total - self._covered_bytes_total

    def checkpointed(self, index: RaftIndex, term: Term, applied_bytes_total: int) -> None:
        """A durable checkpoint covers everything up to ``index``; ``applied_bytes_total`` as it stood there."""
        assert self.checkpoint_index <= index <= self.applied_index
        if index >= self.first_index:
            self._drop_through(index)
        self.checkpoint_index, self.checkpoint_term = index, term
        self._covered_bytes_total = applied_bytes_total

    def resident(self) -> list[Entry] | None:
        """All durable entries above the checkpoint, or None if they are many, some were dropped, or some are FAULTY.

        Right after recovery all of them are in memory, however many: they are still too many to be written again.
        """
        if self.first_index != self.checkpoint_index + 1 or self.faulty_index is not None:
            return None
        if self.bytes_above_checkpoint > self.resident_bytes_max:
            return None
        return self.slice(self.first_index, self.durable_index) if self.durable_index >= self.first_index else []

    def _drop_through(self, index: RaftIndex) -> None:
        count = index - self.first_index + 1
        if count > 0:
            del self._entries[:count]
            self.first_index = RaftIndex(index + 1)
