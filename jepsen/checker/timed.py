"""timed: of each acknowledged schedule exactly one message, at its time or later, and then no schedule any more.

A schedule is a ``publish`` to ``….plan.<value>`` with arg ``due_ns``; what it stores is on ``….then.<value>``.
"""

from __future__ import annotations

from collections.abc import Mapping

from jepsen.checker.tally import compared
from jepsen.history import FAIL, OK, FinalStream, History, Seen, value_of


def check_timed(history: History, final: FinalStream, times_ns: Mapping[int, int], *, all_came: bool) -> list[str]:
    """``times_ns``: of what schedules stored, by sequence. ``all_came``: every time has come and gone."""
    tried = {op.args["value"]: op for op in history.of("publish") if op.args["stream"] == final.name}
    found: dict[str, dict[str, list[int]]] = {"plan": {}, "then": {}}
    problems = []
    for seq, message in sorted(final.messages.items()):
        kind, value = _where(message)
        if kind not in found or value_of(message.data) != value or value not in tried:
            problems.append(f"unexpected: seq {seq} on {message.subject} holds {message.data[:60]!r}")
            continue
        found[kind].setdefault(value, []).append(seq)
    compared("timed", len(tried))
    for value, operation in tried.items():
        plans, stored = found["plan"].get(value, []), found["then"].get(value, [])
        if operation.outcome == FAIL and (plans or stored):
            problems.append(f"phantom: {operation.line()} was refused, there is {plans} and {stored}")
        if len(stored) > 1 or (stored and plans):
            problems.append(f"timed: {operation.line()} came at {stored}, the schedule is at {plans}")
        if operation.outcome == OK and not stored and not plans:
            problems.append(f"lost: {operation.line()}: neither the schedule nor its message is there")
        if plans and all_came:
            problems.append(f"timed: {operation.line()} has not come, the schedule is at {plans}")
        problems += [
            f"timed: {operation.line()} came {(operation.args['due_ns'] - times_ns[seq]) / 1e9} s too early, at {seq}"
            for seq in stored
            if times_ns.get(seq, operation.args["due_ns"]) < operation.args["due_ns"]
        ]
    return problems


def _where(message: Seen) -> tuple[str, str]:
    kind, _, value = message.subject.partition(".")[2].partition(".")
    return kind, value
