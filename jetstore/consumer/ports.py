"""What a consumer needs of its stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from jetstore.store.ports import IndexRow, MessageMeta, SubjectFilter


class StreamView(Protocol):
    """The applied messages of the stream, as of the entry being applied (``MessageLog`` plus ``SubjectIndex``)."""

    @property
    def first_seq(self) -> int:
        """First sequence that may be live; ``last_seq + 1`` when empty."""

    @property
    def last_seq(self) -> int:
        """Last sequence ever given."""

    @property
    def messages(self) -> int:
        """Number of live messages."""

    def is_live(self, seq: int) -> bool:
        """Whether a message is stored at this sequence."""

    def meta(self, seq: int) -> MessageMeta | None:
        """Subject, time and size of a live message."""

    def next_seqs(self, start_seq: int, subject_filter: SubjectFilter | None, max_count: int) -> list[int]:
        """Up to ``max_count`` live matching sequences ≥ ``start_seq``, in order."""

    def previous_seq(self, below_seq: int, subject_filter: SubjectFilter | None) -> int:
        """The greatest live matching sequence < ``below_seq``, or 0."""

    def seq_at_time(self, time_ns: int) -> int:
        """The first live sequence whose time is ≥ ``time_ns``; ``last_seq + 1`` if none."""

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        """Index rows whose subject matches, sorted by subject."""


MakeFilter = Callable[[Sequence[bytes]], SubjectFilter | None]
"""Patterns to a filter; None where they let everything through (``jetstore.stream.subjects.filter_of``)."""
