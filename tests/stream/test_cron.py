"""When schedules fire next, by table and against trying every second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetstore.model.times import format_time, parse_time
from jetstore.stream.cron import next_time_ns, parse_cron

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("pattern", "after", "expected"),
    [
        ("@at 2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("@at 2030-01-01T02:00:00.5+02:00", "2026-01-01T00:00:00Z", "2030-01-01T00:00:00.5Z"),
        ("@every 1s", "2026-01-01T00:00:00.4Z", "2026-01-01T00:00:01Z"),
        ("@every 1s", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:02Z"),
        ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ("* * * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ("0 0 0 1 1 *", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@yearly", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
        ("@monthly", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("@weekly", "2026-11-22T12:00:00Z", "2026-11-29T00:00:00Z"),
        ("@daily", "2026-11-22T12:00:00Z", "2026-11-23T00:00:00Z"),
        ("@hourly", "2026-11-22T12:00:00.1Z", "2026-11-22T13:00:00Z"),
        ("0 0 12 29 feb ?", "2026-01-01T00:00:00Z", "2028-02-29T12:00:00Z"),
        ("0 0 0 13 * fri", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),  # one kind of day suffices
        ("0 0 0 * * MON-wed", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("30 5-10/5 8,20 * * *", "2026-11-22T08:05:30Z", "2026-11-22T08:10:30Z"),
        ("0 50/3 * * * *", "2026-11-22T08:59:00Z", "2026-11-22T09:50:00Z"),
    ],
)
def test_next_time(pattern: str, after: str, expected: str) -> None:
    assert format_time(next_time_ns(pattern, parse_time(after))) == expected


@pytest.mark.parametrize(
    "pattern",
    ["", "@at", "@at x", "@every", "@every 999ms", "@every -5s", "@every 300000000h", "@Daily", "* * * * *",
     "60 * * * * *", "* * * 0 * *", "* * * * 13 *", "* * * * * 7", "5-3 * * * * *", "*/0 * * * * *", "a * * * * *",
     "1- * * * * *", "0 0 0 31 2 *", "-1 * * * * *", "99999 * * * * *", "* * * * foo *"],
)  # fmt: skip
def test_what_is_no_schedule(pattern: str) -> None:
    with pytest.raises(ValueError):
        next_time_ns(pattern, 1_700_000_000 * SECOND)


FIELD60 = st.sampled_from(["*", "0", "*/7", "10-20", "3,59", "30/4"])


@settings(max_examples=60, deadline=None)
@given(FIELD60, FIELD60, st.sampled_from(["*", "*/2", "5-6"]), st.integers(0, 4 * 365 * 86_400))
def test_against_every_second(seconds: str, minutes: str, hours: str, offset: int) -> None:
    pattern = f"{seconds} {minutes} {hours} * * *"
    cron = parse_cron(pattern)
    start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=offset)
    when = start
    while True:
        when += timedelta(seconds=1)
        if when.hour in cron.hours and when.minute in cron.minutes and when.second in cron.seconds:
            break
        if when - start > timedelta(hours=2):  # too far to try
            return
    assert next_time_ns(pattern, round(start.timestamp()) * SECOND) == round(when.timestamp()) * SECOND


def test_the_end_of_the_calendar_is_never() -> None:
    with pytest.raises(ValueError, match="calendar"):
        next_time_ns("0 0 0 1 1 *", parse_time("9999-06-01T00:00:00Z"))
