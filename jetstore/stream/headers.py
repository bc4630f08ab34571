"""The publish headers that apply acts on: finding them, their values, and the few rewrites before storing.

Names are case-sensitive. A header block is ``NATS/1.0\\r\\n`` then ``name: value\\r\\n`` lines, then ``\\r\\n``.
"""

from __future__ import annotations

import re

MSG_ID = b"Nats-Msg-Id"
EXPECTED_STREAM = b"Nats-Expected-Stream"
EXPECTED_LAST_SEQ = b"Nats-Expected-Last-Sequence"
EXPECTED_LAST_SUBJECT_SEQ = b"Nats-Expected-Last-Subject-Sequence"
EXPECTED_LAST_SUBJECT_SEQ_SUBJECT = b"Nats-Expected-Last-Subject-Sequence-Subject"
EXPECTED_LAST_MSG_ID = b"Nats-Expected-Last-Msg-Id"
ROLLUP = b"Nats-Rollup"
TTL = b"Nats-TTL"
INCR = b"Nats-Incr"
BATCH_ID = b"Nats-Batch-Id"
BATCH_SEQUENCE = b"Nats-Batch-Sequence"
BATCH_COMMIT = b"Nats-Batch-Commit"
BATCH_ID_LINE = b"\r\nNats-Batch-Id:"
REQUIRED_LEVEL = b"Nats-Required-Api-Level"
SCHEDULE = b"Nats-Schedule"
SCHEDULE_NEXT = b"Nats-Schedule-Next"
SCHEDULE_TARGET = b"Nats-Schedule-Target"
SCHEDULE_SOURCE = b"Nats-Schedule-Source"
SCHEDULE_TTL = b"Nats-Schedule-TTL"
SCHEDULE_ROLLUP = b"Nats-Schedule-Rollup"
SCHEDULE_TIME_ZONE = b"Nats-Schedule-Time-Zone"
SCHEDULER = b"Nats-Scheduler"
STREAM_SOURCE = b"Nats-Stream-Source"
REQUEST_INFO = b"Nats-Request-Info"
MARKER_REASON = b"Nats-Marker-Reason"
KV_OPERATION = b"KV-Operation"

PLAIN_START = b"NATS/1.0\r\n"
NEVER = -1

MSG_ID_LINE = b"\r\nNats-Msg-Id:"
SPECIAL_LINES = re.compile(
    rb"\r\nNats-(?:Expected-|Rollup:|TTL:|Incr:|Batch-Id:|Schedule|Stream-Source:|Request-Info:)"
)
"""Any header besides the message id that makes apply look closer."""

LINES = re.compile(rb"\r\n(Nats-[^:\r\n]+): *(.*?)(?=\r\n)", re.DOTALL)
"""Name and value of every header that could mean something here."""

_UNIT_NS = {
    b"ns": 1,
    b"us": 1_000,
    "µs".encode(): 1_000,
    "μs".encode(): 1_000,
    b"ms": 1_000_000,
    b"s": 1_000_000_000,
    b"m": 60_000_000_000,
    b"h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(rb"(\d*)(?:\.(\d*))?(ns|us|\xc2\xb5s|\xce\xbcs|ms|s|m|h)")
_DURATION_MAX_NS = 2**63 - 1
_DIGITS_MAX = 1_000
"""Leading zeros count. Python reads a few thousand at most, and raises where there are more."""


def value(header: bytes, name: bytes) -> bytes:
    """The value of the first line of this name without leading blanks; b"" if it is absent or empty."""
    start = header.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = header.find(b"\r\n", start)
    return header[start : end if end >= 0 else len(header)].lstrip(b" ")


def fields(header: bytes) -> dict[bytes, bytes]:
    """Every ``Nats-…`` header by name; of several lines of one name the first counts."""
    return dict(reversed(LINES.findall(header)))


def msg_ids(blocks: list[bytes]) -> list[bytes]:
    """The message id of each header block; b"" where there is none."""
    return [block.partition(MSG_ID_LINE)[2].partition(b"\r\n")[0].lstrip(b" ") for block in blocks]


def asks_for_level(payload: bytes) -> bool:
    """Whether there may be a header that asks for an API level."""
    return REQUIRED_LEVEL in payload


def sequence(text: bytes) -> int:
    """A decimal number, or -1 for anything else (which no sequence equals), also for what is too long for one."""
    return int(text) if text.isdigit() and len(text) <= _DIGITS_MAX else -1


def duration_ns(text: bytes) -> int:
    """A Go duration such as ``1h30m`` or ``1.5s``. ``ValueError`` for anything else."""
    sign = -1 if text[:1] == b"-" else 1
    rest = text[1:] if text[:1] in (b"-", b"+") else text
    if rest == b"0":
        return 0
    if not rest:
        raise ValueError("empty duration")
    total = 0
    at = 0
    while at < len(rest):
        part = _DURATION_PART.match(rest, at)
        if part is None or not (part[1] or part[2]):
            raise ValueError(f"bad duration {text!r}")
        unit = _UNIT_NS[part[3]]
        total += int(part[1] or b"0") * unit
        if part[2]:
            total += int(part[2]) * unit // 10 ** len(part[2])
        if total > _DURATION_MAX_NS:
            raise ValueError(f"duration {text!r} is too long")
        at = part.end()
    return sign * total


def ttl_s(text: bytes) -> int:
    """Whole seconds to live; ``NEVER``; 0 for none given. ``ValueError`` for an invalid value.

    ``never`` in any letter case, a Go duration of at least a second, or an integer of seconds.
    """
    if not text:
        return 0
    if text.lower() == b"never":
        return NEVER
    try:
        parsed_ns = duration_ns(text)
    except ValueError:
        if not text.isdigit():
            raise
        return int(text)
    if parsed_ns < 1_000_000_000:
        raise ValueError(f"time to live {text!r} is below a second")
    return parsed_ns // 1_000_000_000


def duration_text(seconds: int) -> bytes:
    """Whole seconds as Go prints a duration: ``1h0m0s``, ``1m30s``, ``5s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest)
    if minutes:
        return b"%dm%ds" % (minutes, rest)
    return b"%ds" % rest


def without(header: bytes, name: bytes) -> bytes:
    """The block without lines of this name; b"" if none is left."""
    start = header.find(b"\r\n" + name + b":")
    while start >= 0:
        end = header.find(b"\r\n", start + 2)
        if end < 0:
            return header
        header = header[:start] + header[end:]
        start = header.find(b"\r\n" + name + b":")
    return b"" if header == PLAIN_START + b"\r\n" else header


def with_line(header: bytes, name: bytes, text: bytes) -> bytes:
    """The block with one more line at its end."""
    if not header:
        header = PLAIN_START + b"\r\n"
    return b"%b%b: %b\r\n\r\n" % (header[:-2], name, text)


def replaced(header: bytes, name: bytes, text: bytes) -> bytes:
    """The block with this value in the first line of this name, which is added at the end if there is none."""
    start = header.find(b"\r\n" + name + b":")
    if start < 0:
        return with_line(header, name, text)
    start += len(name) + 3
    start += header[start : start + 1] == b" "
    return header[:start] + text + header[header.find(b"\r\n", start) :]


def storable(header: bytes) -> bytes:
    """The block as it is stored: no status in its first line, no ``Nats-Request-Info``; b"" if nothing is left."""
    if not header.startswith(PLAIN_START):
        header = PLAIN_START + header[header.find(b"\r\n") + 2 :]
        if header == PLAIN_START + b"\r\n":
            return b""
    return without(header, REQUEST_INFO) if REQUEST_INFO in header else header


def is_marker(header: bytes) -> bool:
    """Whether the message itself says that its subject was deleted, so that no marker follows when it goes."""
    return bool(value(header, MARKER_REASON)) or value(header, KV_OPERATION) == b"PURGE"


def marker_header(ttl_seconds: int) -> bytes:
    """The header block of a delete marker that replaces an expired last message."""
    return (
        b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: %b\r\nNats-Rollup: sub\r\n\r\n"
        % duration_text(ttl_seconds)
    )  # fmt: skip
