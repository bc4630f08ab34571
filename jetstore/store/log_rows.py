"""Subject index rows computed from segment tables: what an index is rebuilt from."""

from __future__ import annotations

from jetstore.store.ports import IndexRow
from jetstore.store.segment_table import SegmentTable
from jetstore.store.seqset import SeqSet


def segment_rows(table: SegmentTable, first_seq: int, dead: SeqSet) -> dict[bytes, IndexRow]:
    """Rows of one segment's records from ``first_seq`` on, without the dead ones."""
    rows: dict[int, list[int]] = {}
    low = table.ordinal_from(first_seq)
    seqs = table.seqs_of(range(low, table.message_count))
    for seq, id_, size in zip(seqs, table.ids[low:], table.sizes[low:], strict=True):
        if seq in dead:
            continue
        row = rows.get(id_)
        if row is None:
            rows[id_] = [seq, seq, 1, size]
        else:
            row[1], row[3] = seq, size
            row[2] += 1
    return {table.subjects[id_]: IndexRow(*row) for id_, row in rows.items()}


def merge_rows(rows: dict[bytes, IndexRow], later: dict[bytes, IndexRow]) -> None:
    """Add rows of later sequences to ``rows``."""
    for subject, row in later.items():
        before = rows.get(subject)
        if before is not None:
            rows[subject] = IndexRow(before.first, row.last, before.messages + row.messages, row.last_size_bytes)
        else:
            rows[subject] = row
