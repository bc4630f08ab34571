"""Until when a user with hours may stay: the times of day of its claims, where they are counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from server.config.claims import Hours


def allowed_until_s(hours: Sequence[Hours], location: str, now_s: float) -> int:
    """The end, as seconds of the epoch, of the longest of the ranges that it is in now; 0: in none of them.

    A range whose end is before its start goes over midnight. ``location``: a time zone's name, "" = the server's own;
    in one that nobody knows no time is allowed.
    """
    try:
        now = datetime.fromtimestamp(now_s, _zone(location))
        return max((_end_s(each, now, now_s) for each in hours), default=0)
    except (ValueError, OSError, KeyError):
        return 0


def _zone(location: str) -> tzinfo | None:
    if location in ("", "Local"):
        return None
    return UTC if location == "UTC" else ZoneInfo(location)


def _end_s(hours: Hours, now: datetime, now_s: float) -> int:
    start, end = _at(now, hours.start), _at(now, hours.end)
    is_over_midnight = hours.start > hours.end
    if is_over_midnight and end.timestamp() <= now_s:
        end += timedelta(days=1)
    elif is_over_midnight:
        return int(end.timestamp())
    return int(end.timestamp()) if start.timestamp() < now_s < end.timestamp() else 0


def _at(day: datetime, at: time) -> datetime:
    return day.replace(hour=at.hour, minute=at.minute, second=at.second, microsecond=0, fold=0)
