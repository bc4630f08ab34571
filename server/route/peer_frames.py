"""What the routers of two nodes tell each other: bodies of ROUTE frames. Pure; little-endian; ``docs/format/link.md``.

::

    body     = session (8) · record…
    record   = what (1) · zero (3) · length of the fields (4) · fields
    SYNC     = wants (1)
    INTEREST = account · change…        change = kind (1) · weight (4) · subject · queue
    RUN      = flags (1) · hops (1) · account · target · queues (2) · queue… · patterns (2) · pattern…
               · messages (4) · which columns (1) · lengths (4 each) of subjects · replies · headers · payloads · bytes

Texts are a length (4) and bytes. Lengths of a column that is not there are left out; one subject may stand for all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from jetstore.node.link.frames import FrameError
from jetstore.types import Buffer
from server.route.delivery import Columns

_SESSION = struct.Struct("<Q")
_RECORD = struct.Struct("<B3xI")
_TEXT = struct.Struct("<I")
_CHANGE = struct.Struct("<BI")
_RUN = struct.Struct("<BB")
_NAMES = struct.Struct("<H")
_COLUMNS = struct.Struct("<IB")

_PLAIN: Final = 1
_API: Final = 2
_ONE_SUBJECT: Final = 1
_REPLIES: Final = 2
_HEADERS: Final = 4


class What(IntEnum):
    """Kinds of records."""

    SYNC = 1
    """What was told before is void; all interest follows."""
    INTEREST = 2
    RUN = 3


class Kind(IntEnum):
    """Kinds of interest."""

    PLAIN = 0
    QUEUE = 1
    ENGINE = 2
    """Of the engine, where it leads something: one node at a time, the last that said so."""


class Change(NamedTuple):
    """Interest in a pattern; weight 0 = none any more, of a queue group: how many members."""

    kind: int
    subject: bytes
    queue: bytes
    weight: int


class Run(NamedTuple):
    """Messages for those who subscribe at the receiver: to ``target`` where it is not empty, else to each subject."""

    account: bytes
    target: bytes
    is_plain: bool
    """Plain subscriptions get a copy."""
    queues: Sequence[bytes]
    """One member of each of these groups gets it."""
    patterns: Sequence[bytes]
    """Subscriptions of the engine get it: those to these patterns."""
    columns: Columns
    is_api: bool = False
    """Requests of the JetStream API, for nobody but the receiver's."""
    hops: int = 0
    """Nodes that have passed on the request."""


class Interest(NamedTuple):
    """Changes of interest in one account."""

    account: bytes
    changes: list[Change]


class Sync(NamedTuple):
    """A new session begins."""

    wants: bool
    """Whether the receiver is asked to tell all of its own."""


Record = Sync | Interest | Run


def _text(data: bytes) -> bytes:
    return _TEXT.pack(len(data)) + data


def _record(what: What, parts: list[Buffer]) -> list[Buffer]:
    return [_RECORD.pack(what, sum(map(len, parts))), *parts]


def session_head(session: int) -> bytes:
    """The beginning of a body."""
    return _SESSION.pack(session)


def encode_sync(*, wants: bool) -> list[Buffer]:
    """A SYNC record."""
    return _record(What.SYNC, [bytes([wants])])


def encode_interest(account: bytes, changes: Sequence[Change]) -> list[Buffer]:
    """An INTEREST record."""
    parts = [_text(account)]
    for kind, subject, queue, weight in changes:
        parts.append(_CHANGE.pack(kind, weight) + _text(subject) + _text(queue))
    return _record(What.INTEREST, [b"".join(parts)])


def encode_columns(columns: Columns) -> list[Buffer]:
    """Messages, the end of a RUN record: may be sent to several peers."""
    subjects, replies, header_lens, payloads = columns
    count = len(payloads)
    which = 0
    if subjects.count(subjects[0]) == count:
        which |= _ONE_SUBJECT
        subjects = subjects[:1]
    lengths = list(map(len, subjects))
    if replies and any(replies):
        which |= _REPLIES
        lengths += map(len, replies)
    else:
        replies = ()
    if header_lens and any(header_lens):
        which |= _HEADERS
        lengths += header_lens
    lengths += map(len, payloads)
    head = _COLUMNS.pack(count, which) + struct.pack(f"<{len(lengths)}I", *lengths)
    return [b"".join([head, *subjects, *replies]), *(payloads if count <= 4 else [b"".join(payloads)])]


def encode_run(run: Run, columns: Sequence[Buffer] = ()) -> list[Buffer]:
    """A RUN record; ``columns``: its messages as ``encode_columns`` gave them."""
    head = [
        _RUN.pack((_PLAIN if run.is_plain else 0) | (_API if run.is_api else 0), run.hops),
        _text(run.account),
        _text(run.target),
        _NAMES.pack(len(run.queues)),
        *map(_text, run.queues),
        _NAMES.pack(len(run.patterns)),
        *map(_text, run.patterns),
    ]
    return _record(What.RUN, [b"".join(head), *(columns or encode_columns(run.columns))])


def decode(body: memoryview) -> tuple[int, Iterator[Record]]:
    """Session and records; FrameError, there or while they are read, if the body is not one of these."""
    if len(body) < _SESSION.size:
        raise FrameError("short ROUTE frame")
    return _SESSION.unpack_from(body)[0], _records(bytes(body))


def _records(body: bytes) -> Iterator[Record]:
    at = _SESSION.size
    try:
        while at < len(body):
            what, length = _RECORD.unpack_from(body, at)
            at += _RECORD.size
            end = at + length
            if end > len(body):
                raise FrameError("a record reaches beyond its frame")
            if what == What.SYNC:
                yield Sync(bool(body[at]))
            elif what == What.INTEREST:
                yield _interest(body, at, end)
            elif what == What.RUN:
                yield _run(body, at, end)
            else:
                raise FrameError(f"unknown record of a ROUTE frame ({what})")
            at = end
    except (struct.error, IndexError) as error:
        raise FrameError(f"record of a ROUTE frame: {error}") from None


def _read_text(body: bytes, at: int) -> tuple[bytes, int]:
    (length,) = _TEXT.unpack_from(body, at)
    at += _TEXT.size
    if at + length > len(body):
        raise FrameError("a text reaches beyond its frame")
    return body[at : at + length], at + length


def _interest(body: bytes, at: int, end: int) -> Interest:
    account, at = _read_text(body, at)
    changes = []
    while at < end:
        kind, weight = _CHANGE.unpack_from(body, at)
        if kind > Kind.ENGINE:
            raise FrameError(f"unknown kind of interest ({kind})")
        subject, at = _read_text(body, at + _CHANGE.size)
        queue, at = _read_text(body, at)
        changes.append(Change(kind, subject, queue, weight))
    return Interest(account, changes)


def _read_names(body: bytes, at: int) -> tuple[list[bytes], int]:
    (count,) = _NAMES.unpack_from(body, at)
    at += _NAMES.size
    names = []
    for _ in range(count):
        name, at = _read_text(body, at)
        names.append(name)
    return names, at


def _run(body: bytes, at: int, end: int) -> Run:
    flags, hops = _RUN.unpack_from(body, at)
    account, at = _read_text(body, at + _RUN.size)
    target, at = _read_text(body, at)
    queues, at = _read_names(body, at)
    patterns, at = _read_names(body, at)
    count, which = _COLUMNS.unpack_from(body, at)
    at += _COLUMNS.size
    if not count:
        raise FrameError("a run of no messages")
    subject_count = 1 if which & _ONE_SUBJECT else count
    reply_count = count if which & _REPLIES else 0
    header_count = count if which & _HEADERS else 0
    number_count = subject_count + reply_count + header_count + count
    if at + 4 * number_count > end:
        raise FrameError("a run reaches beyond its record")
    numbers = struct.unpack_from(f"<{number_count}I", body, at)
    at += 4 * number_count
    texts = subject_count + reply_count
    header_lens = numbers[texts : texts + header_count]
    ends = accumulate(numbers[:texts] + numbers[texts + header_count :], initial=at)
    pieces = [body[begin:stop] for begin, stop in pairwise(ends)]
    payloads = pieces[texts:]
    if at + sum(numbers) - sum(header_lens) != end or any(map(int.__gt__, header_lens, map(len, payloads))):
        raise FrameError("lengths of a run")
    subjects = pieces[:subject_count]
    return Run(
        account,
        target,
        bool(flags & _PLAIN),
        queues,
        patterns,
        Columns(
            subjects * count if which & _ONE_SUBJECT else subjects,
            pieces[subject_count:texts],
            header_lens,
            payloads,
        ),
        bool(flags & _API),
        hops,
    )
