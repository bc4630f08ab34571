"""What must be true of a consumer: at least once, never again after a committed ack, floors that only rise.

Operations: ``fetch`` (args ``stream``, ``consumer``; ok with ``seen`` and ``deliveries``: per message (stream_seq,
consumer_seq, num_delivered)), ``ack`` (args ``stream``, ``consumer``, ``seq``; ok = the server confirmed it), ``nak``,
``term`` alike, and ``consumer_info`` (ok with ``ack_floor``, ``delivered``, ``last_seq``; sequences of the stream).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from jepsen.checker.tally import compared
from jepsen.history import FAIL, OK, FinalStream, History, Operation


def _of(history: History, consumer: str, *names: str) -> list[Operation]:
    return [op for op in history.of(*names) if op.args.get("consumer") == consumer]


def check_redelivered(history: History, consumer: str) -> list[str]:
    """Handed out by a fetch that began after the message's ack was confirmed."""
    confirmed: dict[int, Operation] = {}
    for operation in _of(history, consumer, "ack", "term"):
        if operation.outcome == OK:
            confirmed.setdefault(operation.args["seq"], operation)
    compared("redelivered", len(confirmed))
    return [
        f"wq: seq {message.seq} was acked by {confirmed[message.seq].line()} and delivered again by {fetch.line()}"
        for fetch in _of(history, consumer, "fetch")
        for message in fetch.seen
        if message.seq in confirmed and confirmed[message.seq].end_ns < fetch.start_ns
    ]


def check_holders(history: History, consumer: str, ack_wait_ns: int) -> list[str]:
    """Two holders of one message inside the ack wait (only for runs whose clocks did not jump)."""
    arrivals: list[tuple[int, int, int, Operation]] = []
    for fetch in _of(history, consumer, "fetch"):
        times = fetch.result.get("arrived_ns") or [fetch.end_ns] * len(fetch.seen)
        arrivals += [
            (at_ns, fetch.number, message.seq, fetch) for at_ns, message in zip(times, fetch.seen, strict=True)
        ]
    compared("holders", len(arrivals))
    naks: dict[int, list[tuple[int, float]]] = {}
    for operation in _of(history, consumer, "nak"):
        end_ns = operation.end_ns if operation.outcome == OK else math.inf
        naks.setdefault(operation.args["seq"], []).append((operation.start_ns, end_ns))
    last: dict[int, tuple[int, Operation]] = {}
    problems = []
    for at_ns, _, seq, operation in sorted(arrivals, key=lambda event: event[:3]):
        before_ns, before = last.get(seq, (0, None))
        last[seq] = at_ns, operation
        # A copy was sent at some time between its fetch's start and its arrival, and what arrived earlier need not have
        # been sent earlier. A nak that took effect since then may have ended the wait, also one of somebody who had the
        # message before.
        if before is None or max(at_ns - before.start_ns, before_ns - operation.start_ns) >= ack_wait_ns:
            continue
        since_ns = min(before.start_ns, operation.start_ns)
        if not any(since_ns <= end_ns and start_ns <= at_ns for start_ns, end_ns in naks.get(seq, ())):
            problems.append(f"wq: seq {seq} held by {before.line()} and by {operation.line()}")
    return problems


def check_work_queue(
    history: History, final: FinalStream, consumers: Iterable[str], *, until: int | None = None
) -> list[str]:
    """Of a work queue: acked = removed, never acked = still there. ``until``: operations from this number on began
    after the final read."""
    acked: dict[int, Operation] = {}
    touched: set[int] = set()
    for consumer in consumers:
        for operation in _of(history, consumer, "ack", "term"):
            if until is not None and operation.number >= until:
                break
            if operation.outcome == OK:
                acked.setdefault(operation.args["seq"], operation)
            if operation.outcome != FAIL:
                touched.add(operation.args["seq"])
    compared("wq", len(acked))
    problems = [
        f"wq: seq {seq} is still there, acked by {operation.line()}"
        for seq, operation in sorted(acked.items())
        if seq in final.messages
    ]
    problems += [
        f"wq: seq {op.result['seq']} is gone and nobody acked it: {op.line()}"
        for op in history.of("publish", outcome=OK)
        if op.args["stream"] == final.name
        and op.result["seq"] not in final.messages
        and op.result["seq"] not in final.unreadable
        and op.result["seq"] not in touched
    ]
    return problems


def check_floor(history: History, consumer: str) -> list[str]:
    """A floor or a delivered position that fell, a floor above delivered, delivered above the stream's last."""
    problems = []
    infos = [op for op in _of(history, consumer, "consumer_info") if op.outcome == OK]
    compared("floor", len(infos))
    for operation in infos:
        told = operation.result
        if not told["ack_floor"] <= told["delivered"] <= told["last_seq"]:
            problems.append(f"floor: ack_floor ≤ delivered ≤ last_seq does not hold in {operation.line()}")
    for field in ("ack_floor", "delivered"):
        by_end = sorted(infos, key=lambda op: op.end_ns)
        highest: Operation | None = None
        position = 0
        for operation in sorted(infos, key=lambda op: op.start_ns):
            while position < len(by_end) and by_end[position].end_ns < operation.start_ns:
                if highest is None or by_end[position].result[field] > highest.result[field]:
                    highest = by_end[position]
                position += 1
            if highest is not None and operation.result[field] < highest.result[field]:
                problems.append(f"floor: {field} fell from {highest.line()} to {operation.line()}")
    return problems


def check_drained(history: History, final: FinalStream, consumer: str, *, above_seq: int = 0) -> list[str]:
    """Stored above this sequence, matching, and never delivered although the consumer was read to its end."""
    delivered = {message.seq for fetch in _of(history, consumer, "fetch") for message in fetch.seen}
    compared("drained", sum(seq > above_seq for seq in final.messages))
    missing = sorted(seq for seq in set(final.messages) - delivered if seq > above_seq)
    return [f"drained: seq {seq} was never delivered to {consumer}" for seq in missing]
