"""Encode a batch of messages as frames, and back: the bytes that Raft entries and segments share.

A frame body is columnar: one packed array per column, then the joined subjects, then the joined payloads. So the cost
per message is a few C-speed list operations, never an object and never a Python-level statement::

    body    = flags:u8 [count × header_len:u16]  payload_lens  subjects  payloads
    lens    = SAME_SIZE ? one u32 : count × u32
    subjects= ONE_SUBJECT ? len:u16 bytes : count × len:u16, joined bytes

The body carries no sequence and no time: the header around it does (a segment's frame header, or the table of a frame
run), together with count, length and crc32c of the body. Numbers are little-endian.

Source: ``docs/format/segment.md``.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise, repeat
from operator import add
from struct import Struct, iter_unpack, pack, unpack_from

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.columns import Columns, Frame
from jetstore.hot.crc import crc32c

ONE_SUBJECT = 1
"""All subjects of the frame are equal: stored once."""
HAS_HEADERS = 2
"""At least one message has a header block; else the column is left out."""
SAME_SIZE = 4
"""All payloads have the same length: stored once."""
_KNOWN_FLAGS = ONE_SUBJECT | HAS_HEADERS | SAME_SIZE

SUBJECT_BYTES_MAX = 65_535
HEADER_BYTES_MAX = 65_535
FRAME_MESSAGES_MAX = 8_192
"""Bounds what a frame of empty messages can hold."""

_RUN_HEAD = Struct("<BBHII")
"""version, reserved, reserved, frames, crc32c of the table that follows."""
_RUN_ROW = Struct("<IqII")
"""count, base_time_ns, body length, crc32c of the body."""
_RUN_VERSION = 0
_SINGLE = Struct("<BIH")
_SINGLE_WITH_HEADER = Struct("<BHIH")
"""Bodies of one message up to its subject: flags, header length, payload length, subject length."""


def encode_frames(columns: Columns, base_time_ns: int, frame_bytes_max: int) -> list[Frame]:
    """Frames holding all messages in order; message i of the batch has time ``base_time_ns + i``.

    Each body is ≤ ``frame_bytes_max`` bytes or holds one message. ``columns`` of each frame stay attached to it.
    Raises ``ValueError`` for a subject or header block above 65,535 bytes.
    """
    subjects, header_lens, payloads = columns
    count = len(subjects)
    if count == 1:
        body = _encode_single(subjects[0], header_lens[0] if header_lens else 0, payloads[0])
        return [Frame(1, base_time_ns, body, crc32c(body), columns)]
    if not count:
        return []
    payload_lens = list(map(len, payloads))
    if header_lens and not any(header_lens):
        header_lens = ()
    is_one_subject = list(subjects).count(subjects[0]) == count
    per_message = 4 + (2 if header_lens else 0)
    if is_one_subject:
        fixed = 3 + len(subjects[0])
        ends = list(accumulate(payload_lens))
    else:
        fixed = 1
        per_message += 2
        ends = list(accumulate(map(add, payload_lens, map(len, subjects))))
    if ends[-1] + fixed + per_message * count <= frame_bytes_max and count <= FRAME_MESSAGES_MAX:
        body = _encode_body(subjects, header_lens, payloads, payload_lens, is_one_subject)
        return [Frame(count, base_time_ns, body, crc32c(body), columns)]

    frames: list[Frame] = []
    ends = list(map(add, ends, range(per_message, per_message * (count + 1), per_message)))
    start = 0
    while start < count:
        taken = ends[start - 1] if start else 0
        stop = bisect_right(ends, taken + frame_bytes_max - fixed, start)
        stop = min(max(stop, start + 1), start + FRAME_MESSAGES_MAX)
        part = Columns(subjects[start:stop], header_lens[start:stop], payloads[start:stop])
        is_one = is_one_subject or list(part.subjects).count(part.subjects[0]) == stop - start
        body = _encode_body(*part, payload_lens[start:stop], is_one)
        frames.append(Frame(stop - start, base_time_ns + start, body, crc32c(body), part))
        start = stop
    return frames


def encode_columns(columns: Columns, base_time_ns: int) -> Frame:
    """One frame holding exactly these messages, whatever its size (compaction, tests). At least one message."""
    subjects, header_lens, payloads = columns
    if header_lens and not any(header_lens):
        header_lens = ()
    is_one = list(subjects).count(subjects[0]) == len(subjects)
    body = _encode_body(subjects, header_lens, payloads, list(map(len, payloads)), is_one)
    return Frame(len(subjects), base_time_ns, body, crc32c(body), columns)


def _encode_single(subject: bytes, header_len: int, payload: bytes) -> bytes:
    """The body of one message: what ``_encode_body`` makes of it."""
    try:
        if header_len:
            head = _SINGLE_WITH_HEADER.pack(
                SAME_SIZE | ONE_SUBJECT | HAS_HEADERS, header_len, len(payload), len(subject)
            )
        else:
            head = _SINGLE.pack(SAME_SIZE | ONE_SUBJECT, len(payload), len(subject))
    except struct.error:
        raise ValueError("a subject or header block is longer than 65535 bytes") from None
    return b"%b%b%b" % (head, subject, payload)


def _encode_body(
    subjects: Sequence[bytes],
    header_lens: Sequence[int],
    payloads: Sequence[bytes],
    payload_lens: list[int],
    is_one_subject: bool,
) -> bytes:
    count = len(subjects)
    flags = 0
    parts: list[bytes] = [b""]
    try:
        if header_lens and any(header_lens):
            flags |= HAS_HEADERS
            parts.append(pack(f"<{count}H", *header_lens))
        if payload_lens.count(payload_lens[0]) == count:
            flags |= SAME_SIZE
            parts.append(pack("<I", payload_lens[0]))
        else:
            parts.append(pack(f"<{count}I", *payload_lens))
        if is_one_subject:
            flags |= ONE_SUBJECT
            parts.append(pack("<H", len(subjects[0])))
            parts.append(subjects[0])
        else:
            parts.append(pack(f"<{count}H", *map(len, subjects)))
            parts.extend(subjects)
    except struct.error:
        raise ValueError("a subject or header block is longer than 65535 bytes") from None
    parts.extend(payloads)
    parts[0] = bytes((flags,))
    return b"".join(parts)


def verify_frame(frame: Frame) -> bool:
    """Whether the body is what its crc32c says."""
    return bool(crc32c(frame.body) == frame.body_crc)


def frame_columns(frame: Frame) -> Columns:
    """The frame's columns, decoded at most once. The body must have been verified."""
    if frame.columns is None:
        frame.columns = decode_frame(frame.body, frame.count)
    return frame.columns


def decode_frame(body: bytes, count: int) -> Columns:
    """The messages of a body whose crc was verified, as fresh bytes objects.

    Raises ``FormatUnknown`` for unknown flags and ``Corruption`` when lengths do not add up exactly.
    """
    try:
        flags = body[0]
        if flags & ~_KNOWN_FLAGS:
            raise FormatUnknown("unknown frame flags", file="frame", offset=0, expected=_KNOWN_FLAGS, actual=flags)
        at = 1
        header_lens: Sequence[int] = ()
        if flags & HAS_HEADERS:
            header_lens = unpack_from(f"<{count}H", body, at)
            at += 2 * count
        payload_lens: Sequence[int]
        if flags & SAME_SIZE:
            (size,) = unpack_from("<I", body, at)
            payload_lens = ()
            at += 4
        else:
            size = -1
            payload_lens = unpack_from(f"<{count}I", body, at)
            at += 4 * count
        subjects: list[bytes]
        if flags & ONE_SUBJECT:
            (length,) = unpack_from("<H", body, at)
            at += 2
            subjects = [body[at : at + length]] * count
            at += length
        else:
            subject_lens = unpack_from(f"<{count}H", body, at)
            at += 2 * count
            subjects = [body[a:b] for a, b in pairwise(accumulate(subject_lens, initial=at))]
            at += sum(subject_lens)
        total = size * count if size >= 0 else sum(payload_lens)
    except (struct.error, IndexError):
        raise Corruption("frame body shorter than its columns", file="frame", offset=0) from None
    if at + total != len(body) or count < 1:
        raise Corruption("frame lengths do not add up", file="frame", offset=0, expected=at + total, actual=len(body))
    payloads: list[bytes]
    if size > 0:
        payloads = list(chain.from_iterable(iter_unpack(f"{size}s", memoryview(body)[at:])))
    elif size == 0:
        payloads = list(repeat(b"", count))
    else:
        payloads = [body[a:b] for a, b in pairwise(accumulate(payload_lens, initial=at))]
    return Columns(subjects, header_lens, payloads)


def decode_item(body: bytes, count: int, position: int) -> tuple[bytes, int, bytes]:
    """Subject, header length and payload of one message of a verified body, without decoding the others.

    Raises as ``decode_frame`` does where it notices that lengths do not add up.
    """
    assert 0 <= position < count, (position, count)
    try:
        flags = body[0]
        if flags & ~_KNOWN_FLAGS:
            raise FormatUnknown("unknown frame flags", file="frame", offset=0, expected=_KNOWN_FLAGS, actual=flags)
        at = 1
        header_len = 0
        if flags & HAS_HEADERS:
            (header_len,) = unpack_from("<H", body, at + 2 * position)
            at += 2 * count
        if flags & SAME_SIZE:
            (size,) = unpack_from("<I", body, at)
            before, at = size * position, at + 4
        else:
            *lens, size = unpack_from(f"<{position + 1}I", body, at)
            before, at = sum(lens), at + 4 * count
        if flags & ONE_SUBJECT:
            (subject_len,) = unpack_from("<H", body, at)
            at += 2
            subject = body[at : at + subject_len]
            at += subject_len
        else:
            subject_lens = unpack_from(f"<{count}H", body, at)
            at += 2 * count
            start = at + sum(subject_lens[:position])
            subject = body[start : start + subject_lens[position]]
            at += sum(subject_lens)
    except (struct.error, IndexError):
        raise Corruption("frame body shorter than its columns", file="frame", offset=0) from None
    at += before
    if at + size > len(body):
        raise Corruption("frame lengths do not add up", file="frame", offset=0, expected=at + size, actual=len(body))
    return subject, header_len, body[at : at + size]


def encode_frame_run(frames: Sequence[Frame]) -> bytes:
    """Frames as one byte string for a Raft entry: a checksummed table (count, time, length, crc), then the bodies."""
    if len(frames) == 1:
        frame = frames[0]
        table = _RUN_ROW.pack(frame.count, frame.base_time_ns, len(frame.body), frame.body_crc)
        return b"%b%b%b" % (_RUN_HEAD.pack(_RUN_VERSION, 0, 0, 1, crc32c(table, 1)), table, frame.body)
    table = b"".join([_RUN_ROW.pack(f.count, f.base_time_ns, len(f.body), f.body_crc) for f in frames])
    head = _RUN_HEAD.pack(_RUN_VERSION, 0, 0, len(frames), crc32c(table, len(frames)))
    return b"".join([head, table, *[f.body for f in frames]])


def decode_frame_run(data: bytes | memoryview) -> list[Frame]:
    """The frames of ``encode_frame_run``; every body is verified. ``data`` must be exactly one run.

    Raises ``Corruption`` (file ``"entry"``, byte offset inside the run) or ``FormatUnknown``.
    """
    size = len(data)
    if size < _RUN_HEAD.size:
        raise Corruption(
            "frame run shorter than its head", file="entry", offset=0, expected=_RUN_HEAD.size, actual=size
        )
    version, zero, zero2, count, table_crc = _RUN_HEAD.unpack_from(data, 0)
    if version != _RUN_VERSION or zero or zero2:
        raise FormatUnknown("frame run version", file="entry", offset=0, expected=_RUN_VERSION, actual=version)
    at = _RUN_HEAD.size + count * _RUN_ROW.size
    if at > size or crc32c(data[_RUN_HEAD.size : at], count) != table_crc:
        raise Corruption("frame run table", file="entry", offset=_RUN_HEAD.size)
    frames: list[Frame] = []
    for messages, base_time_ns, length, crc in _RUN_ROW.iter_unpack(data[_RUN_HEAD.size : at]):
        body = bytes(data[at : at + length])
        actual = crc32c(body)
        if actual != crc or len(body) != length:
            raise Corruption("frame body in a run", file="entry", offset=at, expected=crc, actual=actual)
        frames.append(Frame(messages, base_time_ns, body, crc))
        at += length
    if at != size:
        raise Corruption("bytes after a frame run", file="entry", offset=at, expected=at, actual=size)
    return frames
