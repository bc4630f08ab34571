"""Searching one segment by subject: ids from its table, then ordinals, then sequences that are not dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.store.ports import SubjectFilter
from jetstore.store.segment_files import SegmentFile
from jetstore.store.segment_table import SegmentTable

if TYPE_CHECKING:
    from jetstore.store.message_log import SegmentedLog


def search(
    log: SegmentedLog, segment: SegmentFile, start_seq: int, subject_filter: SubjectFilter, max_count: int
) -> list[int]:
    """Up to ``max_count`` live matching sequences ≥ ``start_seq`` of the segment, in order."""

    def look(table: SegmentTable) -> list[int]:
        ids = table.matching_ids(subject_filter)
        if ids and len(ids) == table.subject_count and not table.bad:
            return log.dead.absent(max(start_seq, segment.base_seq), segment.last_seq, max_count)
        found: list[int] = []
        ordinal = table.ordinal_from(start_seq)
        step = max_count
        while ids and len(found) < max_count:
            ordinals = table.search(ids, ordinal, step)
            found += log.dead.without(table.seqs_of(ordinals))
            if len(ordinals) < step:
                break
            ordinal = ordinals[-1] + 1
            step = max(step, 4_096)
        del found[max_count:]
        if table.bad:
            log.check_readable(segment, table, start_seq, found[-1] if len(found) == max_count else segment.last_seq)
        return found

    return log.reader.ask(segment, look)


def search_back(log: SegmentedLog, segment: SegmentFile, below_seq: int, subject_filter: SubjectFilter) -> int:
    """The greatest live matching sequence < ``below_seq`` of the segment, or 0."""

    def look(table: SegmentTable) -> int:
        ids = table.matching_ids(subject_filter)
        if ids and len(ids) == table.subject_count and not table.bad:
            seq = log.dead.previous_absent(min(below_seq - 1, segment.last_seq))
            return seq if seq >= max(segment.base_seq, log.first_seq) else 0
        below = table.ordinal_from(below_seq)
        found = 0
        while ids and (below := table.search_back(ids, below)) >= 0:
            seq = table.seq_of(below)
            if seq < log.first_seq:
                break
            if seq not in log.dead:
                found = seq
                break
        if table.bad:
            log.check_readable(segment, table, found, min(below_seq - 1, segment.last_seq))
        return found

    return log.reader.ask(segment, look)
