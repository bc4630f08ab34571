"""Raft messages of many groups as the body of one frame, and back. Pure.

::

    body    = boot counter (8) · boot nonce (8) · durable lsn (8) · section…
    section = what (1) · zero (3) · count (4) · that many messages, heartbeats or heartbeat answers
    message = group (8) · sender (4) · to (4) · term (8) · kind (1) · flags (1) · fields (2) · entries (4)
              · the fields named by the bits, 8 bytes each · entry…
    entry   = term (8) · index (8) · message count (4) · length (4) · data

Little-endian. Heartbeats and their answers, of which an idle node has one per group and interval, are rows of fixed
size; everything else has one general form. Order is kept. Source: ``docs/format/link.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jetstore.node.link.frames import FrameError
from jetstore.raft.log import Entry
from jetstore.raft.message import Answer, Message, MessageKind
from jetstore.types import Buffer, GroupUid, RaftIndex, Term

Addressed = tuple[GroupUid, Message]

_HEAD = struct.Struct("<Q8sQ")
HEAD_BYTES = _HEAD.size
_SECTION = struct.Struct("<B3xI")
_MESSAGE = struct.Struct("<QIIQBBHI")
_ENTRY = struct.Struct("<QQII")
_HEARTBEAT = struct.Struct("<QIIQQQQB")
_ANSWER = struct.Struct("<QIIQQQQQ")

MESSAGE_BYTES_MAX = _MESSAGE.size + 10 * 8
ENTRY_BYTES = _ENTRY.size

_MESSAGES, _HEARTBEATS, _ANSWERS = 1, 2, 3
_IS_REJECTED, _IS_FORCED, _IS_QUIESCENT = 1, 2, 4
_ANSWER_SHIFT = 4

_FIELDS = (
    "index",
    "log_term",
    "commit",
    "hint_index",
    "hint_term",
    "last_index",
    "last_term",
    "sequence",
    "context",
    "boot",
)
"""Bit i of ``fields`` = field i is there; a field that is not there is 0."""
_FIELD_STRUCTS = [struct.Struct(f"<{count}Q") for count in range(len(_FIELDS) + 1)]
_KINDS = {int(kind): kind for kind in MessageKind}
_ANSWER_KINDS = {int(answer): answer for answer in Answer}
_WITH_ENTRIES = (MessageKind.APPEND, MessageKind.REPAIR_RESPONSE)

_INLINE_BYTES = 1024
"""Entry data up to this is copied into the buffer around it; larger data is passed on as it is."""


class Sender(NamedTuple):
    """Whose messages these are: told in every frame."""

    boot_counter: int
    boot_nonce: str
    durable_lsn: int


def message_bytes(message: Message) -> int:
    """How much of a frame a message takes, at most."""
    size = MESSAGE_BYTES_MAX
    for entry in message.entries:
        size += ENTRY_BYTES + len(entry.data or b"")
    return size


def encode_raft(sender: Sender, batch: Sequence[Addressed], frame_bytes: int) -> list[list[Buffer]]:
    """The bodies of as few frames as it takes, each ≤ ``frame_bytes`` unless one message alone is larger.

    A body is a list of buffers; large entry data is among them as it is, not copied. Entries must have their bytes.
    """
    head = _HEAD.pack(sender.boot_counter, bytes.fromhex(sender.boot_nonce), sender.durable_lsn)
    bodies: list[list[Buffer]] = []
    start = 0
    size = HEAD_BYTES
    for at, (_, message) in enumerate(batch):
        needed = _SECTION.size + message_bytes(message)
        if size + needed > frame_bytes and at > start:
            bodies.append(_body(head, batch[start:at]))
            start, size = at, HEAD_BYTES
        size += needed
    if start < len(batch):
        bodies.append(_body(head, batch[start:]))
    return bodies


def _body(head: bytes, batch: Sequence[Addressed]) -> list[Buffer]:
    parts: list[Buffer] = []
    out = bytearray(head)
    section, count, count_at, count_in = 0, 0, 0, out
    for group, m in batch:
        what = _section_of(m)
        if what != section:
            if section:
                _SECTION.pack_into(count_in, count_at, section, count)
            section, count, count_at, count_in = what, 0, len(out), out
            out += bytes(_SECTION.size)
        count += 1
        if what == _HEARTBEATS:
            out += _HEARTBEAT.pack(group, m.sender, m.to, m.term, m.commit, m.sequence, m.boot, m.is_quiescent)
            continue
        if what == _ANSWERS:
            out += _ANSWER.pack(group, m.sender, m.to, m.term, m.last_index, m.last_term, m.sequence, m.boot)
            continue
        _put_message(out, group, m)
        for entry in m.entries:
            data = entry.data
            assert data is not None, "an entry whose bytes are not readable cannot be sent"
            out += _ENTRY.pack(entry.term, entry.index, entry.message_count, len(data))
            if len(data) <= _INLINE_BYTES:
                out += data
            else:
                parts += (out, data)
                out = bytearray()
    _SECTION.pack_into(count_in, count_at, section, count)
    if out:
        parts.append(out)
    return parts


def _section_of(m: Message) -> int:
    """The short form if it holds everything that the message says."""
    if m.kind is MessageKind.HEARTBEAT:
        if not (
            m.index or m.log_term or m.entries or m.is_rejected or m.hint_index or m.hint_term
            or m.last_index or m.last_term or m.context or m.answer or m.is_forced
        ):  # fmt: skip
            return _HEARTBEATS
    elif m.kind is MessageKind.HEARTBEAT_RESPONSE and not (
        m.index or m.log_term or m.entries or m.is_rejected or m.hint_index or m.hint_term
        or m.commit or m.context or m.answer or m.is_forced or m.is_quiescent
    ):  # fmt: skip
        return _ANSWERS
    return _MESSAGES


def _put_message(out: bytearray, group: GroupUid, m: Message) -> None:
    present = 0
    there = []
    for bit, value in enumerate(
        (m.index, m.log_term, m.commit, m.hint_index, m.hint_term, m.last_index, m.last_term, m.sequence,
         m.context, m.boot)
    ):  # fmt: skip
        if value:
            present |= 1 << bit
            there.append(value)
    flags = m.is_rejected * _IS_REJECTED | m.is_forced * _IS_FORCED | m.is_quiescent * _IS_QUIESCENT
    flags |= m.answer << _ANSWER_SHIFT
    out += _MESSAGE.pack(group, m.sender, m.to, m.term, m.kind, flags, present, len(m.entries))
    out += _FIELD_STRUCTS[len(there)].pack(*there)


def decode_raft(body: memoryview) -> tuple[Sender, list[Addressed]]:
    """Whose messages, and the messages. Entry data is copied out of ``body`` once. FrameError: no such body."""
    try:
        boot_counter, nonce, durable_lsn = _HEAD.unpack_from(body)
        batch: list[Addressed] = []
        at, end = HEAD_BYTES, len(body)
        while at < end:
            what, count = _SECTION.unpack_from(body, at)
            at += _SECTION.size
            if what == _MESSAGES:
                at = _take_messages(body, at, count, batch)
            elif what == _HEARTBEATS:
                rows = body[at : at + count * _HEARTBEAT.size]
                at += count * _HEARTBEAT.size
                for group, sender, to, term, commit, sequence, boot, is_quiescent in _HEARTBEAT.iter_unpack(rows):
                    if is_quiescent > 1:
                        raise FrameError("unknown flags of a heartbeat")
                    batch.append((group, Message(
                        MessageKind.HEARTBEAT, sender, to, term,
                        commit=commit, sequence=sequence, boot=boot, is_quiescent=bool(is_quiescent),
                    )))  # fmt: skip
            elif what == _ANSWERS:
                rows = body[at : at + count * _ANSWER.size]
                at += count * _ANSWER.size
                for group, sender, to, term, last_index, last_term, sequence, boot in _ANSWER.iter_unpack(rows):
                    batch.append((group, Message(
                        MessageKind.HEARTBEAT_RESPONSE, sender, to, term,
                        last_index=last_index, last_term=last_term, sequence=sequence, boot=boot,
                    )))  # fmt: skip
            else:
                raise FrameError(f"unknown section of a Raft frame ({what})")
    except struct.error:
        raise FrameError("short Raft frame") from None
    if at != end:
        raise FrameError("short Raft frame")
    return Sender(boot_counter, nonce.hex(), durable_lsn), batch


def _take_messages(body: memoryview, at: int, count: int, batch: list[Addressed]) -> int:
    """Append ``count`` messages that begin at ``at``; where they end."""
    size = len(body)
    for _ in range(count):
        group, sender, to, term, kind_number, flags, present, entry_count = _MESSAGE.unpack_from(body, at)
        at += _MESSAGE.size
        kind = _KINDS.get(kind_number)
        answer = _ANSWER_KINDS.get(flags >> _ANSWER_SHIFT)
        if kind is None or answer is None or flags & 8 or present >> len(_FIELDS):
            raise FrameError(f"unknown kind or flags of a Raft message ({kind_number}, {flags}, {present})")
        if entry_count and kind not in _WITH_ENTRIES:
            raise FrameError(f"entries in {kind.name}")
        fields = _FIELD_STRUCTS[present.bit_count()]
        there = iter(fields.unpack_from(body, at))
        at += fields.size
        values: Iterator[Any] = (next(there) if present >> bit & 1 else 0 for bit in range(len(_FIELDS)))
        index, log_term, commit, hint_index, hint_term, last_index, last_term, sequence, context, boot = values
        entries = []
        for _ in range(entry_count):
            entry_term, entry_index, message_count, length = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            if at + length > size:
                raise FrameError("short Raft frame")
            entries.append(
                Entry(Term(entry_term), RaftIndex(entry_index), bytes(body[at : at + length]), message_count)
            )
            at += length
        batch.append((group, Message(
            kind, sender, to, term, index, log_term, commit, tuple(entries), bool(flags & _IS_REJECTED),
            hint_index, hint_term, last_index, last_term, sequence, context, answer,
            bool(flags & _IS_FORCED), bool(flags & _IS_QUIESCENT), boot,
        )))  # fmt: skip
    return at
