"""What is removed without anybody asking: limits, rollups, messages that every interested consumer is done with."""

from __future__ import annotations

from collections.abc import Sequence
from operator import or_
from typing import TYPE_CHECKING

from jetstore.consumer.state import ConsumerState
from jetstore.store.ports import SubjectFilter
from jetstore.stream.contents import Overfull
from jetstore.stream.subjects import Filter, is_subset

if TYPE_CHECKING:
    from jetstore.stream.stream import Stream

_TRIM_CHUNK = 256
"""Messages looked at together while a stream is brought below max_bytes."""
_SCAN_CHUNK = 4_096
"""Messages looked at together while a whole stream is searched for ones nobody wants."""


def enforce_limits(stream: Stream, overfull: Sequence[Overfull]) -> int:
    """Remove what is above the limits: per subject, then by number, then by bytes, oldest first; how many.

    A stream that discards new messages only replaces within a subject.
    """
    removed = 0
    settings = stream.settings
    contents = stream.contents
    if overfull:
        removed += contents.remove_seqs(_excess(stream, overfull, settings.max_msgs_per_subject))
    if settings.discard_new:
        return removed
    if settings.max_msgs and contents.messages > settings.max_msgs:
        removed += contents.remove_oldest(contents.messages - settings.max_msgs)
    if settings.max_bytes and contents.bytes > settings.max_bytes:
        removed += _trim_bytes(stream, settings.max_bytes)
    return removed


def overfull_subjects(stream: Stream) -> list[Overfull]:
    """Every subject with more messages than the limit per subject, after that limit was lowered."""
    limit = stream.settings.max_msgs_per_subject
    if not limit:
        return []
    return [(subject, 0) for subject, row in stream.contents.matching(None) if row.messages > limit]


def _excess(stream: Stream, overfull: Sequence[Overfull], limit: int) -> list[int]:
    """The oldest messages of these subjects that are above the limit, sorted."""
    contents = stream.contents
    seqs = []
    for subject, known in overfull:
        if known:
            seqs.append(known)
            continue
        row = contents.row(subject)
        assert row is not None
        seqs += contents.next_seqs(row.first, Filter((subject,)), row.messages - limit)
    seqs.sort()
    return seqs


def _trim_bytes(stream: Stream, max_bytes: int) -> int:
    contents = stream.contents
    removed = 0
    while contents.bytes > max_bytes:
        excess = contents.bytes - max_bytes
        surely = excess // contents.largest_bytes
        if surely > 1:
            removed += contents.remove_oldest(surely)
            continue
        seqs = contents.next_seqs(contents.first_seq, None, _TRIM_CHUNK)
        count = 0
        for seq in seqs:
            if excess <= 0:
                break
            meta = contents.meta(seq)
            assert meta is not None
            excess -= meta.size_bytes
            count += 1
        removed += contents.remove_run(seqs[0], seqs[count - 1])
    return removed


def roll_up(stream: Stream, keep_from: int) -> int:
    """Remove every message below this sequence; how many."""
    contents = stream.contents
    removed = 0
    if keep_from > contents.last_seq:
        removed = contents.remove_all()
    elif contents.messages and contents.first_seq < keep_from:
        removed = contents.remove_run(contents.first_seq, keep_from - 1)
    move_consumers(stream, None)
    return removed


def roll_up_subject(stream: Stream, subject: bytes, keep_from: int) -> int:
    """Remove the messages of one literal subject below this sequence; how many."""
    subject_filter = Filter((subject,))
    removed = remove_matching(stream, subject_filter, keep_from - 1)
    move_consumers(stream, subject_filter)
    return removed


def remove_matching(stream: Stream, subject_filter: SubjectFilter, last_seq: int, first_seq: int = 0) -> int:
    """Remove the matching messages of the closed range; how many. In bounded steps."""
    contents = stream.contents
    removed = 0
    start = max(contents.log.first_seq, first_seq)
    while start <= last_seq:
        seqs = contents.next_seqs(start, subject_filter, _SCAN_CHUNK)
        is_last = len(seqs) < _SCAN_CHUNK
        if seqs and seqs[-1] > last_seq:
            seqs = [seq for seq in seqs if seq <= last_seq]
            is_last = True
        removed += contents.remove_seqs(seqs)
        if is_last:
            break
        start = seqs[-1] + 1
    return removed


# -- interest and work queue --------------------------------------------------------------------------------------


def is_wanted(stream: Stream, subject: bytes) -> bool:
    """Whether some consumer's filter matches."""
    for consumer in stream.consumers.values():
        if consumer.subject_filter is None or consumer.subject_filter(subject):
            return True
    return False


def remove_settled(stream: Stream, name: str, settled: Sequence[tuple[int, int]]) -> int:
    """Remove what a consumer needs no more, as the retention policy says; how many.

    Work queue: at once. Interest: when no other consumer needs it, either.
    """
    settings = stream.settings
    if not settled or not (settings.is_workqueue or settings.is_interest):
        return 0
    contents = stream.contents
    others = [] if settings.is_workqueue else [state for other, state in stream.consumers.items() if other != name]
    consumer = stream.consumers[name]
    only = consumer.subject_filter if settings.is_workqueue and consumer.is_sourcing else None
    removed = 0
    for first, last in settled:
        if only is not None:  # a range passed, with what is not of this consumer in between
            removed += remove_matching(stream, only, last, first)
        elif others:
            removed += _remove_unneeded(stream, others, first, last)
        elif first == last:
            removed += contents.remove(first) is not None
        else:
            removed += contents.remove_run(first, last)
    return removed


def remove_unneeded(stream: Stream) -> int:
    """Under interest retention: remove every message that no consumer needs; how many."""
    if not stream.settings.is_interest:
        return 0
    contents = stream.contents
    if not stream.consumers:
        return contents.remove_all()
    return _remove_unneeded(stream, list(stream.consumers.values()), contents.first_seq, contents.last_seq)


def _remove_unneeded(stream: Stream, consumers: Sequence[ConsumerState], first: int, last: int) -> int:
    """Remove the live messages of the closed range that none of these consumers needs; how many."""
    contents = stream.contents
    removed = 0
    while first <= last:
        seqs = contents.next_seqs(first, None, min(_SCAN_CHUNK, last - first + 1))
        if seqs and seqs[-1] > last:
            seqs = [seq for seq in seqs if seq <= last]
        if not seqs:
            break
        metas = [contents.meta(seq) for seq in seqs]
        subjects = [meta.subject for meta in metas if meta is not None]
        needed = [False] * len(seqs)
        for consumer in consumers:
            needed = list(map(or_, needed, consumer.needs(seqs, subjects)))
        removed += contents.remove_seqs([seq for seq, keep in zip(seqs, needed, strict=True) if not keep])
        first = seqs[-1] + 1
    return removed


# -- consumers after a purge --------------------------------------------------------------------------------------


def move_consumers(stream: Stream, purged: Filter | None) -> None:
    """After a purge: consumers whose subjects all lie in what was purged go on at the first message left for them."""
    contents = stream.contents
    for consumer in stream.consumers.values():
        own = consumer.subject_filter
        if purged is not None:
            patterns = own.patterns if isinstance(own, Filter) else (b">",)
            if not all(is_subset(pattern, outer) for pattern in patterns for outer in purged.patterns):
                continue
        left = contents.next_seqs(contents.log.first_seq, own, 1)
        consumer.on_purged(left[0] if left else contents.last_seq + 1)
