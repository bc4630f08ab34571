"""The reply subject of a message of a fast batch, which says everything about it. Source: ADR-50, fast ingest."""

from __future__ import annotations

from typing import NamedTuple

SUFFIX = b".$FI"
"""Ends the reply subject of every message of a fast batch, and of no other."""
START, APPEND, COMMIT, END, PING = range(5)
"""Operations: the first message, a further one, the last one, the end without a message, what has come so far."""

_FLOW_DEFAULT = 10
"""For what is no positive number."""
_NUMBER_MAX = 2**64 - 1
_DIGITS_MAX = 20
_MODES = {b"ok": True, b"fail": False}


class FastReply(NamedTuple):
    """One reply subject."""

    batch_id: bytes
    flow: int
    """Messages between two flow acks, as the client wants it."""
    is_gap_ok: bool
    """Whether the batch goes on without messages that are missing or refused."""
    number: int
    """Of the message in its batch, from 1."""
    operation: int
    head: bytes
    """The subject up to the number."""


def is_fast(reply: bytes) -> bool:
    """Whether a message with this reply subject means to be a part of a fast batch."""
    return reply.endswith(SUFFIX) or reply == SUFFIX[1:]


def parse_reply(reply: bytes) -> FastReply | None:
    """What the subject says; None if that makes no sense."""
    words = reply.rsplit(b".", 6)
    if len(words) != 7:
        return None
    _, batch_id, flow, mode, number, operation, _ = words
    is_gap_ok = _MODES.get(mode)
    if is_gap_ok is None or not batch_id or not number.isdigit() or not operation.isdigit():
        return None
    if len(number) > _DIGITS_MAX or len(operation) > _DIGITS_MAX:
        return None
    numbered, meant = int(number), int(operation)
    if not 1 <= numbered <= _NUMBER_MAX or meant > PING:
        return None
    wanted = int(flow) if flow.isdigit() and len(flow) <= _DIGITS_MAX else 0
    head = reply[: len(reply) - len(number) - len(operation) - len(SUFFIX) - 1]
    return FastReply(batch_id, wanted or _FLOW_DEFAULT, is_gap_ok, numbered, meant, head)
