"""What must be true of a consumer: at least once, never again after a committed ack, floors that only rise.

Operations: ``fetch`` (args ``stream``, ``consumer``; ok with ``seen`` and ``deliveries``: per message (stream_seq,
consumer_seq, num_delivered)), ``ack`` (args ``stream``, ``consumer``, ``seq``; ok = the server confirmed it), ``nak``,
``term`` alike, and ``consumer_info`` (ok with ``ack_floor``, ``delivered``, ``last_seq``; sequences of the stream).
"""

from __future__ import annotations

from collections.abc import Iterable

from jepsen.history import FAIL, OK, FinalStream, History, Operation


def _of(history: History, consumer: str, *names: str) -> list[Operation]:
    return [op for op in history.of(*names) if op.args.get("consumer") == consumer]


def check_redelivered(history: History, consumer: str) -> list[str]:
    """Handed out by a fetch that began after the message's ack was confirmed."""
    confirmed: dict[int, Operation] = {}
    for operation in _of(history, consumer, "ack", "term"):
        if operation.outcome == OK:
            confirmed.setdefault(operation.args["seq"], operation)
    return [
        f"wq: seq {message.seq} was acked by {confirmed[message.seq].line()} and delivered again by {fetch.line()}"
        for fetch in _of(history, consumer, "fetch")
        for message in fetch.seen
        if message.seq in confirmed and confirmed[message.seq].end_ns < fetch.start_ns
    ]


def check_holders(history: History, consumer: str, ack_wait_ns: int) -> list[str]:
    """Two holders of one message inside the ack wait (only for runs whose clocks did not jump)."""
    last: dict[int, tuple[int, Operation]] = {}
    released: dict[int, int] = {}
    events: list[tuple[int, int, Operation]] = []
    for operation in _of(history, consumer, "fetch", "nak"):
        at_ns = operation.end_ns if operation.f == "fetch" else operation.start_ns
        events.append((at_ns, operation.number, operation))
    problems = []
    for at_ns, _, operation in sorted(events, key=lambda event: event[:2]):
        if operation.f == "nak":
            released[operation.args["seq"]] = at_ns
            continue
        for message in operation.seen:
            before = last.get(message.seq)
            if before is not None and released.get(message.seq, -1) < before[0]:
                # The wait began at the earliest when the earlier fetch did.
                held_ns = at_ns - before[1].start_ns
                if held_ns < ack_wait_ns:
                    problems.append(f"wq: seq {message.seq} held by {before[1].line()} and by {operation.line()}")
            last[message.seq] = (at_ns, operation)
    return problems


def check_work_queue(history: History, final: FinalStream, consumers: Iterable[str]) -> list[str]:
    """Of a work queue, after everything: acked = removed, never acked = still there."""
    acked: dict[int, Operation] = {}
    touched: set[int] = set()
    for consumer in consumers:
        for operation in _of(history, consumer, "ack", "term"):
            if operation.outcome == OK:
                acked.setdefault(operation.args["seq"], operation)
            if operation.outcome != FAIL:
                touched.add(operation.args["seq"])
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


def check_drained(history: History, final: FinalStream, consumer: str) -> list[str]:
    """Stored, matching, and never delivered although the consumer was read to its end."""
    delivered = {message.seq for fetch in _of(history, consumer, "fetch") for message in fetch.seen}
    missing = sorted(set(final.messages) - delivered)
    return [f"drained: seq {seq} was never delivered to {consumer}" for seq in missing]
