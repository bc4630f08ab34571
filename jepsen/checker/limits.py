"""limit: what a stream said it holds, whenever it was asked, against the limits that were in force then.

Operations: ``stream_update`` (args ``stream`` and the limits by name) and ``stream_info`` (ok with what there was of
each: ``max_msgs`` messages, ``max_bytes`` bytes, ``max_msgs_per_subject`` the most on one subject). Limits are kept by
whoever applies a message, before it is acknowledged: what is in flight is no excuse.
"""

from __future__ import annotations

from collections.abc import Mapping

from jepsen.checker.tally import compared
from jepsen.history import FAIL, OK, History, Operation


def check_limits(history: History, stream: str, created: Mapping[str, int], *, removes: bool = True) -> list[str]:
    """``created``: the limits that the stream was made with. ``removes``: whether a lowered limit removes what is above
    it (a stream that discards new messages keeps what it has)."""
    updates = [op for op in history.of("stream_update") if op.args["stream"] == stream and op.outcome != FAIL]
    problems = []
    for info in history.of("stream_info", outcome=OK):
        if info.args["stream"] != stream:
            continue
        for name, limit in _in_force(info, updates, created, removes).items():
            compared("limit")
            if info.result[name] > limit:
                problems.append(f"limit: {name} is {limit} at most, but: {info.line()}")
    return problems


def _in_force(info: Operation, updates: list[Operation], created: Mapping[str, int], removes: bool) -> dict[str, int]:
    """The highest that each limit may have been when the question was answered."""
    begun = [op for op in updates if op.start_ns < info.end_ns]
    last = max((op for op in begun if op.outcome == OK and op.end_ns < info.start_ns), key=_start, default=None)
    if last is None or not removes:
        return {name: max([created[name], *(op.args[name] for op in begun)]) for name in created}
    possible = [op for op in begun if op is last or op.end_ns > last.start_ns]
    return {name: max(op.args[name] for op in possible) for name in created}


def _start(operation: Operation) -> int:
    return operation.start_ns
