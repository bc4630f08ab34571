"""Until when the hours of a user let it stay."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from server.auth.times import allowed_until_s
from server.config.claims import Hours

DAY, NIGHT = Hours(time(8), time(17, 30)), Hours(time(22), time(6))


def epoch_s(day: int, hour: int, minute: int = 0, zone: str = "") -> int:
    return int(datetime(2026, 3, day, hour, minute, tzinfo=ZoneInfo(zone) if zone else UTC).timestamp())


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        ((DAY,), (1, 8, 1), (1, 17, 30)),
        ((DAY,), (1, 8), None),
        ((DAY,), (1, 17, 30), None),
        ((NIGHT,), (1, 23), (2, 6)),
        ((NIGHT,), (2, 5), (2, 6)),
        ((NIGHT,), (2, 6), None),
        ((NIGHT,), (2, 21), None),
        ((DAY, Hours(time(9), time(18))), (1, 10), (1, 18)),
        ((), (1, 10), None),
    ],
)
def test_ranges(hours: tuple[Hours, ...], now: tuple[int, ...], end: tuple[int, ...] | None) -> None:
    assert allowed_until_s(hours, "UTC", epoch_s(*now)) == (epoch_s(*end) if end else 0)


def test_time_zones() -> None:
    tokyo = "Asia/Tokyo"
    assert allowed_until_s((DAY,), tokyo, epoch_s(1, 1)) == epoch_s(1, 17, 30, tokyo)
    assert allowed_until_s((DAY,), tokyo, epoch_s(1, 10)) == 0
    # The night in which clocks go forward is an hour shorter.
    assert allowed_until_s((NIGHT,), "Europe/Berlin", epoch_s(28, 22, 0)) == epoch_s(29, 4)
    for location in ("No/Where", "../x", "\0"):
        assert allowed_until_s((DAY,), location, epoch_s(1, 10)) == 0
