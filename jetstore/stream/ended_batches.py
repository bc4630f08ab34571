"""Fast batches that a refused message has ended: what is still on its way of them is not stored."""

from __future__ import annotations

from collections.abc import Iterable

Row = tuple[int, list[int]]


class EndedBatches:
    """Keys of the newest term in which there were fast batches. Part of the state, since later entries depend on it.

    Bounded: every entry of fast batches takes out the keys that its leader has seen ended, and one of a later term
    takes out all, because a leader knows no batch of the one before it.
    """

    def __init__(self, term: int = 0, keys: Iterable[int] = ()) -> None:
        """None, unless they are given."""
        self.term = term
        self.keys = set(keys)

    def begin(self, term: int, gone: Iterable[int]) -> None:
        """An entry of this term comes, before which these keys are done with."""
        if term != self.term:
            self.term = term
            self.keys.clear()
        elif self.keys:
            self.keys.difference_update(gone)

    def to_row(self) -> Row:
        """As a head has it."""
        return self.term, sorted(self.keys)

    @classmethod
    def from_row(cls, row: Row | None) -> EndedBatches:
        """What ``to_row`` gave; None = there were none."""
        return cls(row[0], row[1]) if row else cls()
