"""Stored size of messages as users see it (``bytes`` of a stream's state), by storage class."""

from __future__ import annotations

from jetstore.hot.columns import Columns


def file_size_bytes(subject_bytes: int, header_bytes: int, data_bytes: int) -> int:
    """Stored size of a message in a stream with file storage."""
    return 30 + subject_bytes + data_bytes + (4 + header_bytes if header_bytes else 0)


def memory_size_bytes(subject_bytes: int, header_bytes: int, data_bytes: int) -> int:
    """The same for memory storage."""
    return 16 + subject_bytes + header_bytes + data_bytes


def file_sizes(columns: Columns) -> list[int]:
    """``file_size_bytes`` of every message."""
    subjects, header_lens, payloads = columns
    if header_lens:
        return [
            30 + len(subject) + len(payload) + (4 if header else 0)
            for subject, header, payload in zip(subjects, header_lens, payloads, strict=True)
        ]
    return _sum_sizes(columns, 30)


def memory_sizes(columns: Columns) -> list[int]:
    """``memory_size_bytes`` of every message."""
    return _sum_sizes(columns, 16)


def _sum_sizes(columns: Columns, fixed: int) -> list[int]:
    subjects, _, payloads = columns
    first = subjects[0]
    if len(subjects) == 1:
        return [fixed + len(first) + len(payloads[0])]
    if subjects.count(first) == len(subjects):
        fixed += len(first)
        lens = list(map(len, payloads))
        if lens.count(lens[0]) == len(lens):
            return [fixed + lens[0]] * len(lens)
        return [fixed + size for size in lens]
    return [fixed + len(subject) + len(payload) for subject, payload in zip(subjects, payloads, strict=True)]
