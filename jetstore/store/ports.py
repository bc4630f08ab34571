"""The seams of the store: what the rest of the engine sees of journal, segments, checkpoints and index.

Everything here is a plain value or a ``Protocol``. Real ones live beside this file; in-memory twins ship with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jetstore.hot.columns import Columns as Columns
from jetstore.hot.columns import Frame as Frame
from jetstore.types import GroupUid, RaftIndex, Term

if TYPE_CHECKING:  # the writer process starts without it
    import asyncio


class Kind(IntEnum):
    """Kinds of journal line (``docs/format/journal.md``). An unknown kind stops the group that has it."""

    ENTRIES = 1
    """A run of Raft entries of one term. At first_index i it removes everything ≥ i that stands before it."""
    HARD = 2
    """Term and vote; durable before any message that implies them."""
    CKPT = 3
    """A durable checkpoint (first_index = last_index = its index, crc = its head's hash)."""
    RESET = 4
    """A checkpoint was installed: entries ≤ its index are ignored."""
    REPAIR = 5
    """One repaired slot."""
    GROUP = 6
    """This member's generation in the group (0 = the group is gone: its tombstone)."""
    PEERS = 7
    """No line: what was heard of other nodes (the body). First in a block, it goes into the head of this one and of all
    that follow, until there is a newer one."""


PLAIN = 1
"""``aux`` of ENTRIES and REPAIR: no entry in there is a configuration of the group (0: nothing is known about that)."""


class Record(NamedTuple):
    """One line of a journal block and its body. ``body`` is one bytes object; its crc32c is computed by the writer."""

    kind: Kind
    group: GroupUid
    term: Term
    prev_term: Term
    first_index: RaftIndex
    last_index: RaftIndex
    message_count: int
    """Messages in the record's publishes: what ``jetstore recover`` must skip if the body is lost."""
    aux: int
    """HARD: voted-for member number (0 = none) · CKPT/RESET: head hash · GROUP: generation · ENTRIES, REPAIR: ``PLAIN``
    or 0."""
    body: bytes


@dataclass(frozen=True, slots=True)
class EntryRef:
    """Where recovery found an entry. ``faulty`` ones are evidenced by a line but unreadable."""

    index: RaftIndex
    term: Term
    message_count: int
    data: bytes | None
    """The entry's bytes as the raft log encodes them; None when FAULTY."""
    is_count_known: bool = True
    """False: not even its line is readable; ``message_count`` says nothing."""
    is_plain: bool = False
    """FAULTY, and its line says that it carries no configuration of the group."""


@dataclass(slots=True)
class GroupRecovery:
    """What the journal proves about one group."""

    uid: GroupUid
    generation: int = 1
    term: Term = Term(0)
    vote: int = 0
    hard_state_known: bool = True
    """False: term and vote are unreadable everywhere (a lone voter may raise its term)."""
    checkpoint_index: RaftIndex = RaftIndex(0)
    checkpoint_term: Term = Term(0)
    checkpoint_hash: int = 0
    entries: list[EntryRef] = field(default_factory=list)
    """Every index from checkpoint_index + 1 to last_index, in order, without holes (FAULTY ones included)."""
    last_index: RaftIndex = RaftIndex(0)
    """Evidenced last (term, index): from lines and group tables, never from what happens to be readable."""
    last_term: Term = Term(0)
    last_known: bool = True
    """False: blocks are unreadable that may have held later entries. The group must take no write (R1: an alarm)."""
    is_stopped: bool = False
    """A line of a kind that this build does not know: the group must not run."""


@dataclass(slots=True)
class JournalRecovery:
    """What opening the journal found."""

    groups: dict[GroupUid, GroupRecovery]
    findings: list[str]
    """One human-readable line per torn block, corruption, gap or skipped file, in file order."""
    is_new: bool
    """No journal was there."""
    peers: bytes = b""
    """What was heard of other nodes, as of the last block (``Kind.PEERS``)."""


class JournalStatus(NamedTuple):
    """Where the journal stands after a block. Drives checkpoints, re-appends and refusal of publishes."""

    lsn: int
    used_bytes: int
    """Files that are still needed, in bytes."""
    max_bytes: int
    accepts_publishes: bool
    """False at the maximum minus four files, and when the next group table might take more than half a file."""
    pinned_by: tuple[tuple[GroupUid, RaftIndex], ...]
    """Groups with live entries in the oldest needed file, and the first live index there (at most 64 named)."""
    spare_files: int
    wants_relief: bool = False
    """Live entries should leave the oldest files: the journal is half full, or the group table takes too much of a
    file (a group has a line there for each file that holds entries of it)."""
    sync_ns: int = 0
    """How long writing and syncing the block took, where that is measured; else 0."""


class Disk(Protocol):
    """Durable writes, off the event loop, strictly in the order submitted.

    A future that fails with ``DiskPoisoned`` is final: every later call fails too and the node must stop.
    ``DiskFull`` fails that call only and changed nothing that counts.
    """

    def append(self, records: Sequence[Record]) -> asyncio.Future[JournalStatus]:
        """Write one journal block (one write, one sync). Done when durable. Empty ``records`` = an idle block."""

    def call(self, method: str, *args: Any) -> asyncio.Future[Any]:
        """Run a writer command (``store/writer.py`` lists them) after everything submitted before it.

        Segment writes and index commits may be overtaken by journal blocks, never by each other.
        """

    def close(self) -> asyncio.Future[None]:
        """Finish what was submitted, then release the store."""


class Message(NamedTuple):
    """One stored message."""

    seq: int
    time_ns: int
    subject: bytes
    header: bytes
    """The whole header block including ``NATS/1.0`` and the blank line, or b""."""
    data: bytes


class MessageMeta(NamedTuple):
    """What removal and accounting need of a stored message without reading its body."""

    seq: int
    time_ns: int
    subject: bytes
    size_bytes: int
    """Stored size as users see it (``stream state bytes``)."""


class IndexRow(NamedTuple):
    """What the subject index knows of one subject of one stream."""

    first: int
    """Lower bound of the first sequence of the subject."""
    last: int
    messages: int
    last_size_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state machine at one applied index, ready to be made durable. Immutable."""

    uid: GroupUid
    index: RaftIndex
    term: Term
    head: bytes
    """Small: names of chunks, configuration, counters, cursors."""
    chunks: dict[str, bytes]
    """New immutable chunks by name; unchanged ones are named in the head only."""
    keep_chunks: frozenset[str]
    """Every chunk name the head refers to."""
    segments: dict[str, int]
    """Segment name → bytes of it that belong to this checkpoint (what lies beyond is cut at recovery)."""


class MessageLog(Protocol):
    """The messages of one stream: an in-memory tail of applied frames, then segment files. One user: its stream.

    Synchronous; never awaits. Reads of what is no longer in memory go to the page cache through ``Vfs.pread``.
    Removal is logical at once (``deleted`` runs and ``first_seq``) and physical later (whole segments, compaction).
    A bad frame raises ``Corruption`` naming the sequences; nothing is ever returned from an unverified frame.
    """

    first_seq: int
    """First sequence that may be live; ``last_seq + 1`` when empty."""
    last_seq: int
    """Last sequence ever appended or skipped; strictly monotone."""
    is_erasing: bool
    """What is removed now was erased on purpose: its bytes are to leave the disk soon (``start_erasure``)."""
    is_compressing: bool
    """Frames written from now on are compressed where that makes them smaller. Changes no answer."""

    def append(self, first_seq: int, frame: Frame) -> None:
        """Take a frame whose messages get first_seq …; first_seq > last_seq (a jump is an explicit gap)."""

    def skip_to(self, last_seq: int) -> None:
        """Make ``last_seq`` at least this: the sequences between are an explicit gap."""

    def remove(self, seq: int) -> MessageMeta | None:
        """Remove one message; None if it is not there."""

    def remove_range(self, first_seq: int, last_seq: int) -> tuple[list[bytes], list[int]]:
        """Remove all live messages in the closed range; their subjects and stored sizes, in order."""

    def is_live(self, seq: int) -> bool:
        """Whether a message is stored at this sequence."""

    def meta(self, seq: int) -> MessageMeta | None:
        """What is known of a live message without reading its body."""

    def read(self, seq: int) -> Message | None:
        """The live message at this sequence."""

    def read_many(self, seqs: Sequence[int], max_bytes: int) -> list[Message]:
        """Live messages at these increasing sequences (missing ones left out), stopping after ``max_bytes``."""

    def next_seqs(self, start_seq: int, subject_filter: SubjectFilter | None, max_count: int) -> list[int]:
        """Up to ``max_count`` live sequences ≥ ``start_seq`` whose subject matches, in order.

        Cost is proportional to the matches plus the number of segments, not to the messages between.
        """

    def previous_seq(self, below_seq: int, subject_filter: SubjectFilter | None) -> int:
        """The greatest live matching sequence < ``below_seq``, or 0."""

    def seq_at_time(self, time_ns: int) -> int:
        """The first live sequence whose time is ≥ ``time_ns``; ``last_seq + 1`` if none."""

    def deleted_count(self) -> int:
        """Removed or skipped sequences from first_seq to last_seq (both included: the last may be removed)."""

    def deleted_seqs(self, max_count: int) -> list[int]:
        """Those sequences, at most this many."""


class SubjectFilter(Protocol):
    """A set of subjects: one or several NATS subject patterns (``jetstore/stream/subjects.py``)."""

    patterns: tuple[bytes, ...]
    """All of them: what searches derive their prefixes from."""
    literals: frozenset[bytes]
    """The patterns without wildcards."""
    has_wildcards: bool

    def __call__(self, subject: bytes) -> bool:
        """Whether this subject matches (memoised inside, bounded)."""


class SubjectIndex(Protocol):
    """Rows (subject → first, last, count, size of last) of one stream, as of its applied index.

    Derived and self-checked: an answer that might be wrong is never given (``IndexDoubt`` is raised and the owner
    rebuilds). ``first`` is a lower bound: removals at the head of a stream do not look for the next one.
    """

    def get(self, subject: bytes) -> IndexRow | None:
        """The row, or None if the subject has no message."""

    def get_many(self, subjects: Sequence[bytes]) -> list[IndexRow | None]:
        """The same for many subjects."""

    def put(self, subject: bytes, row: IndexRow) -> None:
        """Replace the row."""

    def delete(self, subject: bytes) -> None:
        """The subject has no message any more."""

    def __len__(self) -> int:
        """Number of subjects."""

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        """Rows whose subject matches, sorted by subject, after ``after``; at most ``max_count`` (0 = all)."""
