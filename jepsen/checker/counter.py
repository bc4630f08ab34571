"""counter: values against the sum of what is stored up to them, and what clients were told against both.

Operations: ``add`` (args ``stream``, ``subject``, ``by``, ``value``: a name of its own that is stored with it; ok with
``seq`` and ``val``) and ``count`` (a read that must be up to date: args ``stream``, ``subject``; ok with ``seq``,
0 = none, and ``val``).
"""

from __future__ import annotations

import json

from jepsen.checker.tally import compared
from jepsen.history import FAIL, OK, FinalStream, History, Seen


def header_field(message: Seen, name: str) -> str:
    """One field of a stored message's header; "" = it has none."""
    for line in message.header.decode(errors="replace").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def check_counters(history: History, final: FinalStream) -> list[str]:
    """No counter may be removed from."""
    tried = {op.args["value"]: op for op in history.of("add") if op.args["stream"] == final.name}
    problems = []
    sums: dict[str, int] = {}
    values: dict[int, tuple[str, int]] = {}
    found: dict[str, int] = {}
    compared("counter", len(final.messages))
    for seq, message in sorted(final.messages.items()):
        value, by, shown = header_field(message, "X-Add"), header_field(message, "Nats-Incr"), _val(message)
        sums[message.subject] = total = sums.get(message.subject, 0) + int(by or 0)
        values[seq] = message.subject, total
        operation = tried.get(value)
        if operation is None or operation.args["by"] != int(by or 0) or operation.args["subject"] != message.subject:
            problems.append(f"unexpected: seq {seq} of {final.name} on {message.subject} has {message.header!r}")
        elif operation.outcome == FAIL:
            problems.append(f"phantom: seq {seq} was refused: {operation.line()}")
        if shown != total:
            problems.append(f"counter: seq {seq} of {final.name} shows {shown}, the sum is {total}")
        if value in found:
            problems.append(f"counter: {value} counts at {found[value]} and at {seq}")
        found[value] = seq
    for operation in tried.values():
        if operation.outcome == OK:
            told = operation.result
            if found.get(operation.args["value"]) != told["seq"]:
                problems.append(f"lost: {operation.line()} is at {found.get(operation.args['value'])}")
            elif values[told["seq"]][1] != int(told["val"]):
                problems.append(f"counter: {operation.line()} was told {told['val']}, stored {values[told['seq']][1]}")
    gaps = sorted(set(range(1, final.last_seq + 1)) - set(final.messages))
    problems += [f"gap: seq {seq} of {final.name} is missing" for seq in gaps]
    return problems + _check_reads(history, final.name, values)


def _check_reads(history: History, stream: str, values: dict[int, tuple[str, int]]) -> list[str]:
    """What was read was the value at that sequence, and as new as everything answered before."""
    problems = []
    adds = [op for op in history.of("add", outcome=OK) if op.args["stream"] == stream]
    for read in history.of("count", outcome=OK):
        if read.args["stream"] != stream:
            continue
        compared("counter")
        seq, subject = read.result["seq"], read.args["subject"]
        if seq and values.get(seq) != (subject, int(read.result["val"])):
            problems.append(f"counter: {read.line()} saw what is not stored: {values.get(seq)}")
        done = [op for op in adds if op.args["subject"] == subject and op.end_ns < read.start_ns]
        newest = max((op.result["seq"] for op in done), default=0)
        if seq < newest:
            problems.append(f"counter: {read.line()} is older than what was answered before: {newest}")
    return problems


def _val(message: Seen) -> int | None:
    try:
        return int(json.loads(message.data)["val"])
    except (ValueError, KeyError, TypeError):
        return None
