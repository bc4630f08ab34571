"""mirror (M1–M3): a mirror has its origin's messages under their own sequences; a source brings each exactly once.

Of an origin from which nothing was removed, and after both were read to their ends.
"""

from __future__ import annotations

from jepsen.checker.counter import header_field
from jepsen.checker.tally import compared
from jepsen.history import FinalStream

SOURCE = "Nats-Stream-Source"


def check_mirror(origin: FinalStream, mirror: FinalStream) -> list[str]:
    """Same sequences, subjects, headers, bytes."""
    compared("mirror", len(origin.messages))
    problems = []
    for seq in sorted(origin.messages.keys() | mirror.messages.keys()):
        there, here = origin.messages.get(seq), mirror.messages.get(seq)
        if there is None or here is None or there[2:] != here[2:]:
            problems.append(f"mirror: seq {seq} of {origin.name} is {there!r:.80}, of {mirror.name} {here!r:.80}")
    return problems


def check_source(origin: FinalStream, copy: FinalStream) -> list[str]:
    """Each once, in the order of the origin, and nothing else."""
    compared("mirror", len(origin.messages))
    problems = []
    came: list[int] = []
    for seq, message in sorted(copy.messages.items()):
        words = header_field(message, SOURCE).split()
        came.append(int(words[1]) if len(words) > 1 and words[1].isdigit() else 0)
        there = origin.messages.get(came[-1])
        if there is None or (there.subject, there.data) != (message.subject, message.data):
            problems.append(f"mirror: seq {seq} of {copy.name} is not seq {came[-1]} of {origin.name}: {there!r:.80}")
    if came != sorted(set(came)):
        problems.append(f"mirror: {copy.name} has messages of {origin.name} twice, or out of order: {came}")
    missing = sorted(origin.messages.keys() - set(came))
    return problems + [f"mirror: seq {seq} of {origin.name} never came to {copy.name}" for seq in missing]
