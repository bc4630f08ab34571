"""A segment's table finds the first record of a time, also where several have it, as those of archives may."""

from __future__ import annotations

from itertools import product

import pytest

from jetstore.store.segment_table import SegmentTable

BASES = (0, 1, 2, 3)


def table_of(frames: list[tuple[int, int]], *, has_times: bool) -> tuple[SegmentTable, list[int]]:
    """(time of the first, records) of each frame; the table, and all times."""
    table = SegmentTable("s", 1, 0)
    times: list[int] = []
    for base, count in frames:
        first = 1 + len(times)
        own = range(base, base + count)
        table.add(range(first, first + count), own, int(has_times), 10, 20, [b"x"] * count, [1] * count)
        times += own
    return table, times


@pytest.mark.parametrize("has_times", [False, True])
def test_the_first_of_equal_times(has_times: bool) -> None:
    seen = 0
    for bases, counts in product(product(BASES, repeat=3), product((1, 2, 3), repeat=3)):
        table, times = table_of(list(zip(bases, counts, strict=True)), has_times=has_times)
        if times != sorted(times):
            continue  # records of a stream never go back in time
        seen += 1
        for time_ns in range(-1, times[-1] + 3):
            expected = next((at for at, each in enumerate(times) if each >= time_ns), len(times))
            assert table.ordinal_at_time(time_ns) == expected, (bases, counts, time_ns)
    assert seen > 50
