"""Times and durations as Go writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.model.times import ZERO_TIME, format_duration, format_time, parse_duration, parse_time

NANOS = 1_000_000_000


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, ZERO_TIME),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_700_000_000 * NANOS, "2023-11-14T22:13:20Z"),
        (1_700_000_000 * NANOS + 500_000_000, "2023-11-14T22:13:20.5Z"),
        (1_709_210_096 * NANOS + 120, "2024-02-29T12:34:56.00000012Z"),
        (-NANOS, "1969-12-31T23:59:59Z"),
    ],
)
def test_times(time_ns: int, text: str) -> None:
    assert format_time(time_ns) == text
    assert parse_time(text) == time_ns


def test_offsets_and_extra_digits() -> None:
    assert parse_time("1970-01-01T02:00:00+02:00") == 0
    assert parse_time("1970-01-01T00:00:00-00:30") == 1800 * NANOS
    assert parse_time("1970-01-01T00:00:00.1234567899Z") == 123_456_789
    assert parse_time("1970-01-01T00:00:00,5Z") == NANOS // 2


@given(st.integers(1, 2**63 - 1))
def test_every_time_comes_back(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zz", 'parsing time "zz" as "2006-01-02T15:04:05Z07:00": cannot parse "zz" as "2006"'),
        ("2024-02-20", 'parsing time "2024-02-20" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        ("2024-02-20T01:00:00Zx", 'parsing time "2024-02-20T01:00:00Zx": extra text: "x"'),
        ("2024-13-01T00:00:00Z", 'parsing time "2024-13-01T00:00:00Z": month out of range'),
        ("2023-02-29T00:00:00Z", 'parsing time "2023-02-29T00:00:00Z": day out of range'),
        ("2024-02-20T25:00:00Z", 'parsing time "2024-02-20T25:00:00Z": hour out of range'),
        ("2024-02-20T01:60:00Z", 'parsing time "2024-02-20T01:60:00Z": minute out of range'),
    ],
)
def test_bad_times_are_worded_as_in_go(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_time(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0", 0),
        ("1h30m", 5400 * NANOS),
        ("1.5s", 1_500_000_000),
        ("-2m", -120 * NANOS),
        ("+5ms", 5_000_000),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("7ns", 7),
        (".5s", NANOS // 2),
        ("1.s", NANOS),
        ("1h1h", 7200 * NANOS),
    ],
)
def test_durations(text: str, duration_ns: int) -> None:
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("x", 'time: invalid duration "x"'),
        (".s", 'time: invalid duration ".s"'),
        ("5", 'time: missing unit in duration "5"'),
        ("2x", 'time: unknown unit "x" in duration "2x"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
    ],
)
def test_bad_durations_are_worded_as_in_go(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (2_000_000, "2ms"),
        (NANOS, "1s"),
        (90 * NANOS + 500_000_000, "1m30.5s"),
        (3600 * NANOS, "1h0m0s"),
        (-5 * NANOS, "-5s"),
    ],
)
def test_duration_texts(duration_ns: int, text: str) -> None:
    assert format_duration(duration_ns) == text


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_every_duration_comes_back(duration_ns: int) -> None:
    assert parse_duration(format_duration(duration_ns)) == duration_ns
