"""What must be equal on all replicas: what each node can show of a stream, and a running hash over what it applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jepsen.checker.tally import compared
from jepsen.history import OK, AppliedHash, History, Seen, value_of


def check_nodes(stream: str, contents: Mapping[str, Mapping[int, Seen]]) -> list[str]:
    """lost-on-node: at quiescence every node that answered shows the same messages."""
    everywhere = sorted({seq for messages in contents.values() for seq in messages})
    compared("lost-on-node", len(everywhere) * max(0, len(contents) - 1))
    problems = []
    for seq in everywhere:
        found = {node: messages.get(seq) for node, messages in sorted(contents.items())}
        missing = [node for node, message in found.items() if message is None]
        if missing:
            problems.append(f"lost-on-node: seq {seq} of {stream} is missing on {' '.join(missing)}")
            continue
        if len(set(found.values())) > 1:
            told = ", ".join(
                f"{node}: {message.subject} {message.data[:40]!r}" for node, message in found.items() if message
            )
            problems.append(f"lost-on-node: seq {seq} of {stream} differs: {told}")
    return problems


def check_hashes(hashes: Iterable[AppliedHash]) -> list[str]:
    """hash (R2, R4, R7): two nodes, or two lives of one, that applied different things up to one index."""
    first: dict[tuple[str, int], AppliedHash] = {}
    wrong: dict[str, str] = {}
    again = 0
    for told in hashes:
        before = first.setdefault((told.group, told.upto), told)
        again += before is not told
        if before.digest != told.digest and told.group not in wrong:
            wrong[told.group] = (
                f"hash: {told.group} up to index {told.upto} is {before.digest} on {before.node}, "
                f"{told.digest} on {told.node}"
            )
    compared("hash", again)
    return list(wrong.values())


def check_stale(history: History, stream: str) -> list[str]:
    """stale: a ``direct_get`` (any replica; args ``stream``, ``seq`` or ``subject``, perhaps ``min_seq``) returned
    something that was never stored there, or less than ``min_seq`` allows.

    ``min_seq``: the last sequence acknowledged to the same connection before it asked.
    """
    stored: dict[int, set[str | None]] = {}
    for operation in history.of("publish", outcome=OK):
        if operation.args["stream"] == stream and not operation.result.get("duplicate"):
            stored.setdefault(operation.result["seq"], set()).add(operation.args["value"])
    problems = []
    for operation in history.of("direct_get", outcome=OK):
        if operation.args["stream"] != stream:
            continue
        compared("stale")
        seen = operation.seen
        problems += [
            f"stale: seq {message.seq} was {sorted(map(str, stored[message.seq]))}: {operation.line()}"
            for message in seen
            if message.seq in stored and value_of(message.data) not in stored[message.seq]
        ]
        least = operation.args.get("min_seq", 0)
        if operation.args.get("subject") and least and (not seen or seen[0].seq < least):
            problems.append(f"stale: {least} was acknowledged to this connection before {operation.line()}")
    return problems
