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
    """The end of the range that began today or yesterday and lasts; 0: neither does."""
    nights = 1 if hours.start > hours.end else 0
    for days_ago in range(nights + 1):
        start = _at(now - timedelta(days=days_ago), hours.start)
        end = _at(now + timedelta(days=nights - days_ago), hours.end)
        if start.timestamp() < now_s < end.timestamp():
            return int(end.timestamp())
    return 0


def _at(day: datetime, at: time) -> datetime:
    """This time of that day."""
    return datetime.combine(day.date(), at.replace(microsecond=0), day.tzinfo)
