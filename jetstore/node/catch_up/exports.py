"""A group as a catch-up reads it: where it stands, its records, and its whole state at one moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from jetstore.errors import Corruption
from jetstore.meta.state import MetaState
from jetstore.store.install_records import read_range
from jetstore.store.message_log import SegmentedLog
from jetstore.stream.logical import decode_head, take_logical
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid

Part = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a state stands."""

    index: int
    term: int
    first_seq: int
    last_seq: int


@dataclass(slots=True)
class Taken:
    """A whole state as of one moment; nothing that happens later changes it."""

    position: Position
    configuration: bytes
    running: int
    head: bytes
    parts: dict[str, Part] = field(default_factory=dict)
    sizes: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, length and crc32c of the parts, in the order in which they are sent."""
    tail: list[bytes] = field(default_factory=list)
    """Records of the sequences behind those that were fetched before."""


class Export(Protocol):
    """What a source needs of a group. Synchronous; everything short."""

    def position(self) -> Position:
        """Where it stands now."""

    def read(self, first_seq: int, last_seq: int, budget_bytes: int) -> tuple[list[bytes], int]:
        """Records of a closed range (``install_records.read_range``)."""

    def prepare(self) -> bool:
        """Do a bounded piece of what ``take`` needs; True when nothing is left."""

    def take(self, copied_seq: int, tail_bytes: int) -> Taken | None:
        """The state now, with the records behind ``copied_seq``; None if those are more than ``tail_bytes``."""


class StreamExport:
    """A stream."""

    def __init__(self, uid: GroupUid, stream: Callable[[], Stream]) -> None:
        """``stream`` gives the state as it is now: it may be replaced at any time."""
        self.uid = uid
        self._stream = stream

    def _ready(self) -> tuple[Stream, SegmentedLog]:
        stream = self._stream()
        if stream.is_torn:
            raise Corruption("the state is damaged", file=f"group {self.uid}", offset=0)
        assert isinstance(stream.log, SegmentedLog)
        return stream, stream.log

    def position(self) -> Position:
        stream, log = self._ready()
        return Position(stream.applied_index, stream.applied_term, log.first_seq, log.last_seq)

    def read(self, first_seq: int, last_seq: int, budget_bytes: int) -> tuple[list[bytes], int]:
        return read_range(self._ready()[1], first_seq, last_seq, budget_bytes)

    def prepare(self) -> bool:
        return self._ready()[0].dedupe.sum_some()

    def take(self, copied_seq: int, tail_bytes: int) -> Taken | None:
        stream, log = self._ready()
        tail: list[bytes] = []
        if copied_seq < log.last_seq:
            tail, next_seq = read_range(log, copied_seq + 1, log.last_seq, tail_bytes)
            if next_seq <= log.last_seq:
                return None
        head, parts = take_logical(stream)
        sizes = _sizes(head)
        return Taken(self.position(), stream.raft_configuration, stream.running.value, head, parts, sizes, tail)


class MetaExport:
    """The metadata: its head is all of it."""

    def __init__(self, state: Callable[[], MetaState]) -> None:
        """``state`` gives the state as it is now."""
        self._state = state

    def position(self) -> Position:
        state = self._state()
        return Position(state.applied_index, state.applied_term, 1, 0)

    def read(self, first_seq: int, last_seq: int, budget_bytes: int) -> tuple[list[bytes], int]:
        return [], last_seq + 1

    def prepare(self) -> bool:
        return True

    def take(self, copied_seq: int, tail_bytes: int) -> Taken | None:
        state = self._state()
        head = state.checkpoint().head
        return Taken(self.position(), state.raft_configuration, state.running.value, head)


def _sizes(head: bytes) -> list[tuple[str, int, int]]:
    rows: list[Any] = decode_head(head)["parts"]
    return [(name, length, crc) for name, length, crc in rows]
