"""fast: of each fast batch everything that was acknowledged, in order, once; with ``fail`` nothing behind a hole.

A batch is an operation ``fast`` with the numbers that were ``sent``, those among them that are ``wrong`` (they must be
refused) or ``denied`` (refused before they were in the log), the highest number that a flow ack named (``acked``), and
when ok results ``seq`` and ``count`` of its end.
"""

from __future__ import annotations

from jepsen.checker.tally import compared
from jepsen.history import OK, FinalStream, History, Operation, value_of


def check_fast(history: History, final: FinalStream) -> list[str]:
    """All batches of the stream, and that it holds nothing else."""
    tried = {op.args["batch"]: op for op in history.of("fast") if op.args["stream"] == final.name}
    compared("fast", len(tried))
    found: dict[str, list[tuple[int, int]]] = {batch: [] for batch in tried}
    problems = []
    for seq, message in sorted(final.messages.items()):
        batch, _, number = (value_of(message.data) or "?.0").rpartition(".")
        if batch in tried:
            found[batch].append((int(number), seq))
        else:
            problems.append(f"unexpected: seq {seq} holds {message.data[:60]!r}")
    for batch, operation in tried.items():
        problems += [f"fast: of {operation.line()} {what}" for what in _wrong_in(operation, found[batch])]
    gaps = sorted(set(range(1, final.last_seq + 1)) - set(final.messages) - final.unreadable)
    return problems + [f"gap: seq {seq} of {final.name} is missing" for seq in gaps]


def _wrong_in(operation: Operation, stored: list[tuple[int, int]]) -> list[str]:
    facts = operation.args
    numbers = [number for number, _ in stored]
    sent, refused = set(facts["sent"]), {*facts["wrong"], *facts["denied"]}
    is_ended = operation.outcome == OK
    count = operation.result["count"] if is_ended else 0
    told = max(facts["acked"], count)
    problems = []
    if numbers != sorted(set(numbers)):
        problems.append(f"there is, in the stream's order, {numbers}")
    if not set(numbers) <= sent - refused:
        problems.append(f"{sorted(set(numbers) - (sent - refused))} are there, which were refused or never sent")
    lost = {number for number in sent - refused if number <= told} - set(numbers)
    if lost:
        problems.append(f"{sorted(lost)} were acknowledged and are lost")
    if is_ended and numbers and numbers[-1] > count:
        problems.append(f"{numbers[-1]} is there, it ended at {count}")
    if is_ended and numbers and stored[-1][1] != operation.result["seq"]:
        problems.append(f"the last one is at {stored[-1][1]}, not at {operation.result['seq']}")
    if facts["mode"] == "fail":
        if numbers != list(range(1, len(numbers) + 1)):
            problems.append(f"there is a hole in {numbers}")
        if is_ended and len(numbers) != count:
            problems.append(f"{len(numbers)} are there, {count} were told")
    return problems
