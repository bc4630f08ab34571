"""What must be true of one stream: nothing acknowledged is lost, nothing is there that should not be.

A publish is an operation ``publish`` with args ``stream``, ``subject``, ``value`` and perhaps ``msg_id``, and when ok
results ``seq`` and ``duplicate``. Removals are operations ``remove`` (see ``Removals``). Everything read is ``Seen``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jepsen.checker.tally import compared
from jepsen.history import FAIL, INFO, OK, FinalStream, History, Operation, Seen, value_of


class Removals:
    """Which messages somebody may have removed, and which must be gone.

    A ``remove`` has args ``stream`` and ``seq`` (one message) or ``below_seq`` (None = everything so far), perhaps
    with ``subject`` and ``keep`` (so many of the newest stay). A limit is told beside: ``keep_last`` messages of the
    stream, ``keep_per_subject`` of each subject, or ``ages`` (any message may be gone).
    """

    def __init__(
        self, history: History, stream: str, *, keep_last: int = 0, keep_per_subject: int = 0, ages: bool = False
    ) -> None:
        self._removes = [
            operation
            for operation in history.of("remove")
            if operation.args["stream"] == stream and operation.outcome != FAIL
        ]
        self._publishes: dict[str, list[Operation]] = {}
        for operation in publishes(history, stream):
            self._publishes.setdefault(operation.args["subject"], []).append(operation)
        self.keep_last = keep_last
        self.keep_per_subject = keep_per_subject
        self.ages = ages

    def allow(self, seq: int, publish: Operation | None, final: FinalStream) -> bool:
        """Whether this message may be gone."""
        if self.ages or (self.keep_last and seq <= final.last_seq - self.keep_last):
            return True
        if self.keep_per_subject and publish is not None:
            later = sum(
                operation.outcome == INFO or (operation.outcome == OK and operation.result["seq"] > seq)
                for operation in self._publishes.get(publish.args["subject"], ())
            )
            if later >= self.keep_per_subject:
                return True
        if self.keep_per_subject and publish is None and self._may_be_evicted(seq, final):
            return True
        return any(self._covers(operation, seq, publish, must=False) for operation in self._removes)

    def _may_be_evicted(self, seq: int, final: FinalStream) -> bool:
        """Whether some publish that was never answered may have been stored there, and as many of its subject after."""
        for subject, tried in self._publishes.items():
            if not any(operation.outcome == INFO for operation in tried):
                continue
            later = {message.seq for message in final.messages.values() if message.subject == subject}
            later |= {operation.result["seq"] for operation in tried if operation.outcome == OK}
            if sum(other > seq for other in later) >= self.keep_per_subject:
                return True
        return False

    def demand(self, seq: int, publish: Operation | None) -> bool:
        """Whether this message must be gone: a removal that began after its publish was answered has succeeded."""
        return any(
            operation.outcome == OK and self._covers(operation, seq, publish, must=True) for operation in self._removes
        )

    @staticmethod
    def _covers(removal: Operation, seq: int, publish: Operation | None, *, must: bool) -> bool:
        wanted = removal.args
        if "seq" in wanted:
            return bool(wanted["seq"] == seq)
        subject = wanted.get("subject")
        if subject is not None and (publish is None or publish.args["subject"] != subject):
            return publish is None and not must
        if must and wanted.get("keep"):
            return False
        if wanted.get("below_seq") is not None:
            return seq < int(wanted["below_seq"])
        if publish is None:
            return not must
        return publish.end_ns < removal.start_ns if must else publish.start_ns < removal.end_ns


def publishes(history: History, stream: str, outcome: str | None = None) -> Iterator[Operation]:
    """Publishes to that stream."""
    return (op for op in history.of("publish", outcome=outcome) if op.args["stream"] == stream)


def all_seen(history: History, final: FinalStream) -> Iterator[Seen]:
    """Every message of the stream that anybody ever read."""
    for operation in history.operations:
        for message in operation.seen:
            if message.stream == final.name:
                yield message
    yield from final.messages.values()


def check_lost(history: History, final: FinalStream, removals: Removals, allowed: Iterable[int] = ()) -> list[str]:
    """Acknowledged and not there. ``allowed``: sequences whose only copy was damaged on purpose: they may be
    unreadable (and must say so), never merely absent."""
    damaged = frozenset(allowed)
    missing: list[tuple[Operation, int]] = []
    for operation in publishes(history, final.name, OK):
        seq = operation.result["seq"]
        found = final.messages.get(seq)
        if found is not None:
            compared("lost")
            if value_of(found.data) != operation.args["value"] and not operation.result.get("duplicate"):
                missing.append((operation, seq))
            continue
        if seq in final.unreadable and (seq in damaged or final.is_halted):
            continue
        if not removals.allow(seq, operation, final):
            compared("lost")
            missing.append((operation, seq))
    acked = sorted({op.result["seq"] for op in publishes(history, final.name, OK)})
    return [f"lost: seq {seq} ({_where(seq, acked)}) acknowledged to {op.line()}" for op, seq in missing]


def _where(seq: int, acked: list[int]) -> str:
    rank = acked.index(seq) / max(1, len(acked) - 1)
    return "prefix" if rank < 0.05 else "postfix" if rank > 0.95 else "middle"


def check_unexpected(history: History, final: FinalStream) -> list[str]:
    """Read and never attempted: a value, or its subject, or one byte of its payload."""
    attempted = {(op.args["value"], op.args["subject"]) for op in publishes(history, final.name)}
    seen = list(all_seen(history, final))
    compared("unexpected", len(seen))
    problems = {
        f"unexpected: seq {message.seq} on {message.subject} holds {message.data[:60]!r}"
        for message in seen
        if (value_of(message.data), message.subject) not in attempted
    }
    return sorted(problems)


def check_phantom(history: History, final: FinalStream) -> list[str]:
    """Readable although every attempt was definitely refused."""
    outcomes: dict[str, set[str]] = {}
    for operation in publishes(history, final.name):
        outcomes.setdefault(operation.args["value"], set()).add(operation.outcome)
    refused = {value for value, found in outcomes.items() if found == {FAIL}}
    compared("phantom", len(refused))
    problems = {
        f"phantom: seq {message.seq} holds {value_of(message.data)}, which was definitely refused"
        for message in all_seen(history, final)
        if value_of(message.data) in refused
    }
    return sorted(problems)


def check_dup_seq(history: History, final: FinalStream) -> list[str]:
    """Two values under one sequence, over everything read and acknowledged."""
    values: dict[int, set[str | None]] = {}
    for message in all_seen(history, final):
        values.setdefault(message.seq, set()).add(value_of(message.data))
    for operation in publishes(history, final.name, OK):
        if not operation.result.get("duplicate"):
            values.setdefault(operation.result["seq"], set()).add(operation.args["value"])
    compared("dup-seq", len(values))
    return [
        f"dup-seq: seq {seq} was {sorted(map(str, found))}" for seq, found in sorted(values.items()) if len(found) > 1
    ]


def check_dup_msg(history: History, final: FinalStream) -> list[str]:
    """More copies of a value than its attempts allow: one per message id inside the window, else one per attempt.

    A publish with ``msg_id`` says with ``window`` (default True) whether all its attempts lie inside the window.
    A ``duplicate`` answer must point at a copy.
    """
    problems = []
    stored: dict[str, set[int]] = {}
    for message in all_seen(history, final):
        stored.setdefault(value_of(message.data) or "?", set()).add(message.seq)
    attempts: dict[str, list[Operation]] = {}
    for operation in publishes(history, final.name):
        attempts.setdefault(operation.args["value"], []).append(operation)
    compared("dup-msg", len(attempts))
    for value, tried in attempts.items():
        seqs = stored.get(value, set())
        acked = {op.result["seq"] for op in tried if op.outcome == OK and not op.result.get("duplicate")}
        copies = seqs | acked
        is_unique = all(op.args.get("msg_id") and op.args.get("window", True) for op in tried)
        possible = 1 if is_unique else sum(op.outcome != FAIL for op in tried)
        if len(copies) > possible:
            problems.append(f"dup-msg: {value} is stored at {sorted(copies)}, at most {possible} expected")
        problems += [
            f"dup-msg: {value} is stored at {sorted(copies)}, duplicate answer says {op.line()}"
            for op in tried
            if op.outcome == OK and op.result.get("duplicate") and copies and op.result["seq"] not in copies
        ]
    return problems


def check_order(history: History, final: FinalStream) -> list[str]:
    """Acknowledged before the other began, or sent before it on one connection, and yet not in front of it."""
    acked = [op for op in publishes(history, final.name, OK) if not op.result.get("duplicate")]
    compared("order", len(acked))
    by_end = sorted(acked, key=lambda op: op.end_ns)
    problems = []
    highest: Operation | None = None
    position = 0
    for operation in sorted(acked, key=lambda op: op.start_ns):
        while position < len(by_end) and by_end[position].end_ns < operation.start_ns:
            earlier = by_end[position]
            if highest is None or earlier.result["seq"] > highest.result["seq"]:
                highest = earlier
            position += 1
        if highest is not None and highest.result["seq"] >= operation.result["seq"]:
            problems.append(f"order: {highest.line()} was answered before {operation.line()} began")
    sent: dict[object, Operation] = {}
    for operation in acked:  # in the order in which they were sent
        link = operation.args.get("link")
        before = sent.get(link)
        if link is not None and before is not None and before.result["seq"] > operation.result["seq"]:
            problems.append(f"order: {before.line()} was sent before {operation.line()} on one connection")
        sent[link] = operation
    return problems


def check_gap(history: History, final: FinalStream, removals: Removals, allowed: Iterable[int] = ()) -> list[str]:
    """Sequences that are missing although nothing removed them; a last sequence below an acknowledged one."""
    damaged = frozenset(allowed)
    by_seq = {op.result["seq"]: op for op in publishes(history, final.name, OK)}
    compared("gap", final.last_seq)
    problems = [
        f"gap: seq {seq} of {final.first_seq}..{final.last_seq} is missing"
        for seq in range(1, final.last_seq + 1)
        if seq not in final.messages
        and not (seq in final.unreadable and (seq in damaged or final.is_halted))
        and not removals.allow(seq, by_seq.get(seq), final)
    ]
    highest = max(by_seq, default=0)
    if highest > final.last_seq and not final.is_halted:
        problems.append(f"gap: last_seq is {final.last_seq}, but {highest} was acknowledged")
    return problems


def check_contents(final: FinalStream) -> list[str]:
    """first, last, number and size of messages as the stream tells them, against what can be read."""
    if final.is_halted:
        return []
    compared("contents")
    problems = []
    readable = set(final.messages) | final.unreadable
    if len(readable) != final.count:
        problems.append(f"contents: {final.count} messages told, {len(readable)} there")
    if readable and (min(readable) != final.first_seq or max(readable) > final.last_seq):
        problems.append(f"contents: told {final.first_seq}..{final.last_seq}, there {min(readable)}..{max(readable)}")
    if not readable and final.first_seq != final.last_seq + 1 and final.last_seq:
        problems.append(f"contents: empty, but first_seq {final.first_seq} and last_seq {final.last_seq}")
    return problems + check_bytes(final)


def check_whole(final: FinalStream) -> list[str]:
    """Halted, or unreadable in part, although nobody damaged anything."""
    compared("whole")
    if final.is_halted:
        return [f"whole: {final.name} is halted"]
    return [f"whole: seq {seq} of {final.name} is unreadable" for seq in sorted(final.unreadable)]


def check_bytes(final: FinalStream) -> list[str]:
    """The size that the stream tells, against nats-server's formula over what can be read."""
    if final.stored_bytes is None or final.is_halted or final.unreadable:
        return []
    compared("bytes", len(final.messages))
    expected = sum(_stored_bytes(message, final.storage) for message in final.messages.values())
    if expected == final.stored_bytes:
        return []
    return [f"bytes: {final.stored_bytes} told, {len(final.messages)} messages take {expected}"]


def _stored_bytes(message: Seen, storage: str) -> int:
    header, rest = len(message.header), len(message.subject) + len(message.data)
    if storage == "memory":
        return 16 + header + rest
    return 30 + rest + (4 + header if header else 0)


def check_removed(history: History, final: FinalStream, removals: Removals) -> list[str]:
    """Removed with success, and there again. Not of a halted stream: what it still shows is how it once was."""
    if final.is_halted:
        return []
    compared("removed", sum(1 for op in history.of("remove", outcome=OK) if op.args["stream"] == final.name))
    by_value = {op.args["value"]: op for op in publishes(history, final.name) if op.outcome in (OK, INFO)}
    problems = []
    for seq, message in sorted(final.messages.items()):
        publish = by_value.get(value_of(message.data) or "?")
        acked = publish if publish is not None and publish.outcome == OK else None
        if removals.demand(seq, acked):
            problems.append(f"removed: seq {seq} ({value_of(message.data)}) was removed and is readable")
    return problems
