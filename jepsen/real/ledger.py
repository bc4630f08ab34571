"""What must be true of one stream, whatever happened to the server: the promises made, held against what is read.

Made for hundreds of thousands of messages: everything is one dict or set operation over columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from .published import Published
from .readers import Contents
from .values import TAG_UNIT

CONSUMER_KINDS = frozenset(
    {"ack floor went back", "confirmed message delivered again", "message below the ack floor delivered"}
)
"""What nats-server does after kill -9; tolerated on request, so that its other promises can be looked at."""


@dataclass
class Findings:
    """Violations by name, with a few examples of each; counts are exact."""

    tolerated: frozenset[str] = frozenset()
    """Kinds that are counted and shown but are not in ``total``."""
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def add(self, kind: str, count: int, example: str) -> None:
        """Note ``count`` > 0 violations of a kind."""
        if count:
            self.counts[kind] = self.counts.get(kind, 0) + count
            if len(self.examples) < 50:
                self.examples.append(f"{kind} x{count}: {example}")

    def merge(self, other: Findings) -> None:
        """Take over all of another's."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
        self.examples.extend(other.examples[: max(0, 50 - len(self.examples))])

    @property
    def total(self) -> int:
        """All violations together, without the tolerated ones."""
        return sum(count for kind, count in self.counts.items() if kind not in self.tolerated)

    def __str__(self) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in sorted(self.counts.items())) or "none"


def _some(items: object) -> str:
    return ", ".join(str(item) for item in islice(items, 5))  # type: ignore[call-overload]  # any set or list


@dataclass
class StreamLedger:
    """Everything that was promised about one stream, over all its restarts."""

    name: str
    acked: dict[int, int] = field(default_factory=dict)
    """sequence → value of each PubAck."""
    seen: dict[int, int] = field(default_factory=dict)
    """sequence → value of everything acknowledged or read, ever."""
    sent: dict[int, int] = field(default_factory=dict)
    """tag → messages that were sent at all."""
    lost: set[int] = field(default_factory=set)
    """Sequences already reported as lost; reported once."""

    def published(self, result: Published, findings: Findings) -> int:
        """Take a connection's acknowledgements for this stream's subjects; how many they were.

        Subject i of a connection is this stream's when its first token is the stream's name.
        """
        width = len(result.subjects)
        mine = {index for index, subject in enumerate(result.subjects) if subject.split(".", 1)[0] == self.name}
        base = result.tag * TAG_UNIT
        self.sent[result.tag] = result.sent
        acked = {
            sequence: base + number
            for number, sequence in zip(result.numbers, result.sequences, strict=True)
            if number % width in mine
        }
        count = sum(1 for number in result.numbers if number % width in mine)
        if count != len(acked):
            findings.add("sequence acknowledged twice", count - len(acked), f"{self.name}: one connection")
        self._same("acknowledged at a sequence of another message", acked, findings)
        self.acked.update(acked)
        self.seen.update(acked)
        return count

    def check(self, contents: Contents, findings: Findings) -> None:
        """Hold a complete read of the stream against the promises, and remember what was read."""
        read = dict(zip(contents.sequences, contents.values, strict=True))
        doubles = len(contents.sequences) - len(read)
        findings.add("one sequence read twice", doubles, self.name)
        findings.add("damaged bytes served", len(contents.damaged), _some(contents.damaged))
        missing = [sequence for sequence in self.acked.keys() - read.keys() if sequence not in self.lost]
        self.lost.update(missing)
        missing.sort()
        if missing:
            span = f"{self.name}: {missing[0]}…{missing[-1]} of 1…{max(self.seen)}, read {len(read)}"
            findings.add("acknowledged message lost", len(missing), f"{span}: {_some(missing)}")
        vanished = self.seen.keys() - self.acked.keys() - read.keys() - self.lost
        self.lost.update(vanished)
        findings.add("message that was read has vanished", len(vanished), f"{self.name}: {_some(sorted(vanished))}")
        self._same("sequence with another message than before", read, findings)
        values = set(read.values())
        findings.add("message stored twice", len(read) - len(values), self.name)
        sent = self.sent
        unexpected = [value for value in values if value % TAG_UNIT >= sent.get(value // TAG_UNIT, 0)]
        findings.add("message nobody sent", len(unexpected), f"{self.name}: {_some(unexpected)}")
        self.seen.update(read)

    def _same(self, kind: str, now: dict[int, int], findings: Findings) -> None:
        seen = self.seen
        other = [sequence for sequence in now.keys() & seen.keys() if now[sequence] != seen[sequence]]
        if other:
            first = min(other)
            text = f"{self.name}: sequence {first} was {seen[first]}, is {now[first]}"
            findings.add(kind, len(other), text)
            # Reported once: from here on the new message is what the sequence holds.
            for sequence in other:
                self.acked.pop(sequence, None)


@dataclass
class ConsumerLedger:
    """What was promised about one durable consumer with explicit acknowledgements."""

    confirmed: set[int] = field(default_factory=set)
    """Stream sequences whose acknowledgement the server confirmed."""
    delivered: set[int] = field(default_factory=set)
    floor: int = 0
    """The highest ack floor the server ever reported, as stream sequence."""

    def fetched(self, delivered: Contents, confirmed: set[int], floor: int, findings: Findings) -> None:
        """Take what a fetch loop got that began when the floor was ``floor``. What was confirmed may not come again."""
        again = self.confirmed & set(delivered.sequences)
        findings.add("confirmed message delivered again", len(again), _some(sorted(again)))
        below = [sequence for sequence in delivered.sequences if sequence <= floor]
        findings.add("message below the ack floor delivered", len(below), _some(below))
        self.delivered.update(delivered.sequences)
        self.confirmed.update(confirmed)

    def floor_seen(self, floor: int, findings: Findings) -> None:
        """An ack floor reported by the server; it never goes back."""
        findings.add("ack floor went back", int(floor < self.floor), f"{self.floor} → {floor}")
        self.floor = max(self.floor, floor)
