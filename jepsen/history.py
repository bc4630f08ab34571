"""What happened in a run: every operation with its outcome, its times, and what readers saw.

Outcomes: ``ok`` · ``fail`` (definitely not done and never will be) · ``info`` (unknown: time-out, lost connection).
An operation that was begun and never finished is ``info``. Times are nanoseconds of the run's own monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

OK, FAIL, INFO = "ok", "fail", "info"
NEVER_NS = 1 << 62
"""End of an operation whose end nobody saw."""


class Seen(NamedTuple):
    """One stored message as a reader got it."""

    stream: str
    seq: int
    subject: str
    data: bytes
    header: bytes = b""


@dataclass(slots=True)
class Operation:
    """One operation of one process (a client; one operation at a time)."""

    number: int
    process: int
    f: str
    args: dict[str, Any]
    start_ns: int
    history: History = field(repr=False)
    outcome: str = INFO
    result: dict[str, Any] = field(default_factory=dict)
    end_ns: int = NEVER_NS
    note: str = ""

    def ok(self, **result: Any) -> None:
        """It was done, with this result."""
        self._end(OK, result, "")

    def fail(self, note: str, **result: Any) -> None:
        """It was definitely not done."""
        self._end(FAIL, result, note)

    def info(self, note: str) -> None:
        """Nobody knows; it may still happen later."""
        self.note = note

    def _end(self, outcome: str, result: dict[str, Any], note: str) -> None:
        assert self.end_ns == NEVER_NS, "an operation ends once"
        self.outcome, self.result, self.note = outcome, result, note
        self.end_ns = self.history.clock_ns()

    @property
    def seen(self) -> list[Seen]:
        """Messages that this operation read."""
        found: list[Seen] = self.result.get("seen", [])
        return found

    def line(self) -> str:
        """The operation as one line of text."""
        facts = {**self.args, **{k: v for k, v in self.result.items() if not isinstance(v, list)}}
        told = " ".join(f"{key}={value}" for key, value in facts.items())
        if self.seen:
            told += f" seen={[message.seq for message in self.seen[:20]]}" + "…" * (len(self.seen) > 20)
        end = "-" if self.end_ns == NEVER_NS else f"{self.end_ns / 1e9:.6f}"
        return (
            f"{self.number} p{self.process} {self.start_ns / 1e9:.6f} {end} {self.outcome} {self.f} {told} {self.note}"
        )


class History:
    """All operations of a run, in the order they began."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self.clock_ns = clock_ns
        self.operations: list[Operation] = []

    def begin(self, process: int, f: str, **args: Any) -> Operation:
        """A new operation; unknown until its end is reported."""
        operation = Operation(len(self.operations), process, f, args, self.clock_ns(), self)
        self.operations.append(operation)
        return operation

    def of(self, *names: str, outcome: str | None = None) -> Iterator[Operation]:
        """Operations of these kinds (with that outcome)."""
        for operation in self.operations:
            if operation.f in names and outcome in (None, operation.outcome):
                yield operation

    def counts(self) -> dict[str, int]:
        """How many operations of each kind and outcome, sorted."""
        found: dict[str, int] = {}
        for operation in self.operations:
            key = f"{operation.f}:{operation.outcome}"
            found[key] = found.get(key, 0) + 1
        return dict(sorted(found.items()))


@dataclass(slots=True)
class FinalStream:
    """A stream as it was read, message by message, after everything had healed."""

    name: str
    messages: dict[int, Seen]
    first_seq: int
    last_seq: int
    count: int
    unreadable: frozenset[int] = frozenset()
    """Sequences that got a definite "cannot be read now" (damage), as opposed to "not found"."""
    stored_bytes: int | None = None
    """What the stream says its messages take; None if it was not asked."""
    storage: str = "file"
    is_halted: bool = False
    """The stream refuses writes and reads other than by sequence, and said so: damage that one copy cannot repair."""


class RaftState(NamedTuple):
    """What one process believed of one group at one moment."""

    at_ns: int
    node: str
    incarnation: str
    """Of the node's store: another one after its disk was wiped."""
    boot: int
    """Number of the process's start."""
    group: str
    member: int
    """Its number in the group; never reused there."""
    term: int
    vote: int
    """Member voted for in ``term``; 0 = none."""
    role: str
    """``follower`` · ``pre-candidate`` · ``candidate`` · ``leader``."""
    commit: int
    applied: int
    voters: tuple[tuple[int, ...], ...]
    """The one or (joint) two sets of voting members, sorted."""
    last_index: int
    last_term: int
    """Of the evidenced log."""
    first_index: int = 0
    """First index still in the log; what is below lives in a checkpoint."""
    configuration_index: int = 0
    """Of the entry that carries the configuration with these voters."""


class RaftPromise(NamedTuple):
    """What a message that left a process says that its member holds durably."""

    at_ns: int
    node: str
    incarnation: str
    boot: int
    group: str
    member: int
    term: int
    vote: int = 0
    """Member that it voted for in ``term``."""
    last_term: int = 0
    last_index: int = 0
    """Evidenced end of its log: it may be overruled, never forgotten."""
    match_index: int = 0
    """Entries acknowledged to the leader of ``term``."""


class AppliedHash(NamedTuple):
    """Running hash over everything that one node has applied in a group, up to this index."""

    node: str
    group: str
    upto: int
    digest: str


# -- payloads that say what they are ----------------------------------------------------------------------------------


def payload(value: str, size: int = 0) -> bytes:
    """Bytes that name ``value`` and are determined by it and ``size`` (at least what the name needs)."""
    head = f"{value}|{size}|".encode()
    pattern = f"{value}.".encode()
    return (head + pattern * ((size - len(head)) // len(pattern) + 1))[: max(size, len(head))]


def value_of(data: bytes) -> str | None:
    """The value that a payload names, or None if it is not exactly a payload."""
    parts = data.split(b"|", 2)
    if len(parts) != 3 or not parts[1].isdigit() or len(parts[1]) > 9:
        return None
    value = parts[0].decode(errors="replace")
    return value if payload(value, int(parts[1])) == data else None
