"""What one group remembers of its entries: from its checkpoint to the last index, durable or not.

::

    checkpoint      applied         committed               last
        |---------------|---------------|---------------------|
          may be dropped  to be applied    being decided

``durable`` lies anywhere between checkpoint and last: a leader commits what a quorum holds, also before its own disk
does. What is applied is both committed and durable here. ``applied`` and ``committed`` only move forward; ``last`` and
``durable`` move back when a conflict truncates what was never committed (``truncate_from``).

Entries that are applied are kept only while all of the log above the checkpoint is small (``resident_bytes_max``): then
the journal can be told them again instead of being held back by a quiet group (STORAGE: re-append). Beyond that,
``retain_bytes`` of applied entries stay for followers that are a little behind.

A FAULTY slot is one that is proved to exist and whose bytes are unreadable: it counts for "how far does this log
reach" (votes), and stops what needs the bytes (apply, match, sending) until ``repair`` and ``repaired``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
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
    is_plain: bool = False
    """FAULTY, and yet certainly no configuration: its line says so. (Of readable ones it says nothing.)"""


def _term_of(entry: Entry) -> Term:
    return entry.term


class RaftLog:
    """Entries above the checkpoint, in memory, with the boundaries drawn above."""

    def __init__(
        self,
        *,
        checkpoint_index: RaftIndex,
        checkpoint_term: Term,
        entries: list[Entry],
        resident_bytes_max: int,
        retain_bytes: int = 0,
    ) -> None:
        """A log as recovery found it: everything in ``entries`` is durable."""
        expected = checkpoint_index + 1
        for entry in entries:
            assert entry.index == expected, f"hole in the log: index {entry.index}, expected {expected}"
            expected += 1
        self.checkpoint_index = checkpoint_index
        self.checkpoint_term = checkpoint_term
        self.resident_bytes_max = resident_bytes_max
        self.retain_bytes = retain_bytes
        self._entries = entries  # _entries[i] has index first_index + i
        self.first_index = RaftIndex(checkpoint_index + 1)
        self._prev_term = checkpoint_term  # of the entry before first_index
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
        self._dropped_bytes_total = 0
        self._faulty = [e.index for e in entries if e.data is None]
        self.faulty_index = self._faulty[0] if self._faulty else None
        """First slot whose bytes are not (yet again) durable here."""

    def append(self, entry: Entry) -> None:
        """Take the next entry; not durable until ``stored`` says so."""
        assert entry.index == self.last_index + 1
        assert entry.term >= self.last_term
        assert entry.data is not None
        self._entries.append(entry)
        self.last_index, self.last_term = entry.index, entry.term
        self._bytes_total += len(entry.data)

    def truncate_from(self, index: RaftIndex) -> None:
        """Remove the entries ≥ ``index``: a leader of a later term never had them. Fatal at or below commit (R7)."""
        assert self.committed_index < index, f"truncation at {index}, committed is {self.committed_index}"
        assert self.first_index <= index <= self.last_index
        position = index - self.first_index
        for entry in self._entries[position:]:
            self._bytes_total -= len(entry.data or b"")
        del self._entries[position:]
        self.last_index = RaftIndex(index - 1)
        self.last_term = self._entries[-1].term if self._entries else self._prev_term
        self.durable_index = min(self.durable_index, self.last_index)
        del self._faulty[bisect_left(self._faulty, index) :]
        self._set_faulty()

    def entry(self, index: RaftIndex) -> Entry:
        """The entry at an index that is still in memory."""
        return self._entries[index - self.first_index]

    def term_at(self, index: RaftIndex) -> Term | None:
        """Its term, or None if nothing here knows it any more (or yet)."""
        if self.first_index <= index <= self.last_index:
            return self._entries[index - self.first_index].term
        if index == self.first_index - 1:
            return self._prev_term
        if index == self.checkpoint_index:
            return self.checkpoint_term
        return None

    def slice(self, first_index: RaftIndex, last_index: RaftIndex) -> list[Entry]:
        """The entries of the closed range, which must be in memory."""
        assert self.first_index <= first_index
        assert last_index <= self.last_index
        return self._entries[first_index - self.first_index : last_index - self.first_index + 1]

    def slice_bytes(self, first_index: RaftIndex, last_index: RaftIndex, bytes_max: int) -> list[Entry]:
        """The same, cut at ``bytes_max``; at least one entry."""
        entries = self.slice(first_index, last_index)
        total = 0
        for position, entry in enumerate(entries):
            total += len(entry.data or b"")
            if position and total > bytes_max:
                return entries[:position]
        return entries

    def last_at_most(self, index: RaftIndex, term: Term) -> RaftIndex:
        """The greatest index ≤ ``index`` (and ≤ last) whose term is ≤ ``term``: where two logs may still agree.

        Stops at the entry before the first one in memory. Source: fast backtracking, Raft paper §5.3, end.
        """
        index = min(index, self.last_index)
        if index < self.first_index:
            return index
        count = bisect_right(self._entries, term, 0, index - self.first_index + 1, key=_term_of)
        return RaftIndex(self.first_index - 1 + count)

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
        assert index <= self.last_index, "committed, but not in the log"
        self.committed_index = max(self.committed_index, index)

    def to_apply(self) -> list[Entry]:
        """Committed and durable entries that are not applied, up to (not including) a FAULTY one."""
        last = min(self.committed_index, self.durable_index)
        if self.faulty_index is not None:
            last = min(last, RaftIndex(self.faulty_index - 1))
        if last <= self.applied_index:
            return []
        return self.slice(RaftIndex(self.applied_index + 1), last)

    def applied(self, index: RaftIndex) -> None:
        """Note that everything up to ``index`` is applied; forget bytes that nobody needs any more."""
        assert self.applied_index <= index <= self.committed_index
        if index == self.applied_index:
            return
        first_index = self.first_index
        for entry in self._entries[self.applied_index + 1 - first_index : index + 1 - first_index]:
            self.applied_bytes_total += len(entry.data or b"")
        self.applied_index, self.applied_term = index, entry.term
        if self._bytes_total - self._covered_bytes_total > self.resident_bytes_max:
            self._drop_through(index)

    @property
    def durable_term(self) -> Term:
        """Term of the entry at ``durable_index``."""
        term = self.term_at(self.durable_index)
        assert term is not None
        return term

    # -- FAULTY slots ---------------------------------------------------------------------------------------------

    @property
    def faulty(self) -> Sequence[RaftIndex]:
        """Every slot that is unreadable, or repaired and not yet durable; ascending."""
        return self._faulty

    def unreadable(self, index: RaftIndex, term: Term) -> bool:
        """Whether the slot holds this very entry without its bytes."""
        if not self.first_index <= index <= self.last_index:
            return False
        entry = self._entries[index - self.first_index]
        return entry.data is None and entry.term == term

    def repair(self, entry: Entry) -> None:
        """Put the bytes of an ``unreadable`` slot back; the slot stays FAULTY until ``repaired``."""
        assert self.unreadable(entry.index, entry.term)
        assert entry.data is not None
        self._entries[entry.index - self.first_index] = entry
        self._bytes_total += len(entry.data)

    def repaired(self, index: RaftIndex, term: Term) -> None:
        """The bytes that ``repair`` put into this slot are durable."""
        if self.term_at(index) != term:
            return  # truncated meanwhile, or covered by a checkpoint
        position = bisect_left(self._faulty, index)
        if self._faulty[position : position + 1] == [index]:
            del self._faulty[position]
            self._set_faulty()

    def _set_faulty(self) -> None:
        self.faulty_index = self._faulty[0] if self._faulty else None

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def bytes_above_checkpoint(self) -> int:
        """Bytes of entries that the journal must keep for this group."""
        return self._bytes_total - self._covered_bytes_total

    @property
    def unapplied_bytes(self) -> int:
        """Bytes of entries that are not applied: not committed yet, or waiting for the state machine."""
        return self._bytes_total - self.applied_bytes_total

    def checkpointed(self, index: RaftIndex, term: Term, applied_bytes_total: int) -> None:
        """A durable checkpoint covers everything up to ``index``; ``applied_bytes_total`` as it stood there."""
        assert self.checkpoint_index <= index <= self.applied_index
        self.checkpoint_index, self.checkpoint_term = index, term
        self._covered_bytes_total = applied_bytes_total
        self._drop_through(index)

    def restored(self, index: RaftIndex, term: Term) -> bool:
        """A checkpoint of another member was installed: the log starts there. Whether entries beyond it stay.

        They stay if the log holds the checkpoint's own entry, or begins right behind it: then they continue it.
        """
        assert index >= self.applied_index, "an installed checkpoint is behind what is applied"
        stays = self.term_at(index) == term
        if stays:
            self._dropped_bytes_total += sum(len(e.data or b"") for e in self._entries[: index + 1 - self.first_index])
            del self._entries[: index + 1 - self.first_index]
        else:
            assert self.last_index < index or self.committed_index < index, "a checkpoint contradicts what is committed"
            self._entries.clear()
            self.last_index, self.last_term = index, term
            self.durable_index = index
        self.first_index, self._prev_term = RaftIndex(index + 1), term
        self.checkpoint_index, self.checkpoint_term = index, term
        self.durable_index = max(self.durable_index, index)
        self.committed_index = max(self.committed_index, index)
        self.applied_index, self.applied_term = index, term
        rest = sum(len(e.data or b"") for e in self._entries)
        self.applied_bytes_total = self._covered_bytes_total = self._dropped_bytes_total = self._bytes_total - rest
        del self._faulty[: bisect_right(self._faulty, index)]
        if not stays:
            self._faulty.clear()
        self._set_faulty()
        return stays

    def resident(self) -> list[Entry] | None:
        """All durable entries above the checkpoint, or None if they are many, some were dropped, or some are FAULTY.

        Right after recovery all of them are in memory, however many: they are still too many to be written again.
        """
        if self.first_index > self.checkpoint_index + 1 or self.faulty_index is not None:
            return None
        if self.bytes_above_checkpoint > self.resident_bytes_max:
            return None
        first = RaftIndex(self.checkpoint_index + 1)
        return self.slice(first, self.durable_index) if self.durable_index >= first else []

    def compact(self, index: RaftIndex) -> None:
        """Drop applied entries up to ``index`` from memory, whoever may want them."""
        assert index <= self.applied_index
        self._drop(index - self.first_index + 1)

    def release(self) -> None:
        """Everybody has everything: keep in memory only what the journal may have to be told again."""
        covered = self.bytes_above_checkpoint <= self.resident_bytes_max
        self._drop((self.checkpoint_index if covered else self.applied_index) + 1 - self.first_index)

    def _drop_through(self, index: RaftIndex) -> None:
        """Drop up to ``index``, except the newest ``retain_bytes`` of applied entries."""
        count = index - self.first_index + 1
        if self.retain_bytes:
            spare = self.applied_bytes_total - self._dropped_bytes_total - self.retain_bytes
            if spare * 4 < self.retain_bytes:  # in steps: taking one off the front moves all the others
                return
            for position in range(count):
                spare -= len(self._entries[position].data or b"")
                if spare < 0:
                    count = position
                    break
        self._drop(count)

    def _drop(self, count: int) -> None:
        if count > 0:
            entries = self._entries
            self._prev_term = entries[count - 1].term
            if self.retain_bytes:
                self._dropped_bytes_total += sum(len(e.data or b"") for e in entries[:count])
            del entries[:count]
            self.first_index = RaftIndex(self.first_index + count)
