"""Messages as columns, and frames of them: the plain values that every batch on the data path is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Columns(NamedTuple):
    """Messages as columns, never as objects. All sequences have the same length, except ``header_lens``."""

    subjects: Sequence[bytes]
    header_lens: Sequence[int]
    """Bytes of header block at the start of each payload; an empty sequence = no message here has headers."""
    payloads: Sequence[bytes]
    """Header block followed by body."""


@dataclass(slots=True)
class Frame:
    """A run of messages with consecutive sequences: the unit of checksum and of reads (``docs/format/segment.md``).

    The body (all columns, encoded) carries no sequence, so one encoding serves the Raft entry and the segment;
    the frame header, which does, is packed when the frame is appended to a segment.
    Message i's time is ``base_time_ns + i``.
    """

    count: int
    base_time_ns: int
    body: bytes
    body_crc: int
    columns: Columns | None = None
    """The decoded columns where they are at hand (on the node that proposed); else decoded from the body."""
