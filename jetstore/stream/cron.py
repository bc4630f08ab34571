"""When a schedule fires next: ``@at``, ``@every``, six-field cron and its short names. Times are nanoseconds, UTC.

Source: ADR-51. Cron fields: second, minute, hour, day of month, month, day of week (0–6, Sunday = 0); ``*`` or ``?``,
lists, ranges, steps, names. Where both kinds of day are restricted, one of them suffices.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from jetstore.model.times import parse_time
from jetstore.stream.headers import duration_ns

SECOND_NS: Final = 1_000_000_000
EVERY_MIN_NS: Final = SECOND_NS
DAYS_AHEAD_MAX: Final = 5 * 366
"""A cron pattern that finds no day within these never fires."""
_SHORT: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_MONTHS: Final = {
    "jan": 1,
    "feb": 2,
    "mar": 3,
    "apr": 4,
    "may": 5,
    "jun": 6,
    "jul": 7,
    "aug": 8,
    "sep": 9,
    "oct": 10,
    "nov": 11,
    "dec": 12,
}
_DAYS: Final = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_Names = dict[str, int]
_FIELDS: Final[tuple[tuple[int, int, _Names], ...]] = (
    (0, 59, {}),
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 6, _DAYS),
)


class Cron(NamedTuple):
    """A parsed pattern: the values that match, sorted; whether the days were restricted."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def has_day(self, day: datetime) -> bool:
        """Whether it fires on this day."""
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day and by_weekday if self.any_day or self.any_weekday else by_day or by_weekday


def is_once(pattern: str) -> bool:
    """Whether the schedule fires a single time."""
    return pattern.startswith("@at ")


def takes_zone(pattern: str) -> bool:
    """Whether a time zone means something to it."""
    return not pattern.startswith(("@at ", "@every "))


def next_time_ns(pattern: str, after_ns: int) -> int:
    """The first time it fires after this one; ``@at``: its time, be it past (at least 1).

    ``ValueError`` if it is no schedule or never fires.
    """
    if is_once(pattern):
        return max(parse_time(pattern[4:]), 1)
    if pattern.startswith("@every "):
        period_ns = duration_ns(pattern[7:].encode())
        if period_ns < EVERY_MIN_NS:
            raise ValueError("period below a second")
        return (after_ns + SECOND_NS // 2) // SECOND_NS * SECOND_NS + period_ns
    parsed = parse_cron(_SHORT.get(pattern, pattern))
    try:
        return _next_of(parsed, after_ns)
    except (OverflowError, OSError) as error:
        raise ValueError("beyond the calendar") from error


@lru_cache(4_096)
def parse_cron(pattern: str) -> Cron:
    """The values of a six-field pattern. ``ValueError`` if it is none."""
    fields = pattern.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{len(fields)} fields")
    values = [_values(text, *bounds) for text, bounds in zip(fields, _FIELDS, strict=True)]
    seconds, minutes, hours = (tuple(sorted(found)) for found in values[:3])
    days, months, weekdays = (frozenset(found) for found in values[3:])
    return Cron(seconds, minutes, hours, days, months, weekdays, fields[3] in "*?", fields[5] in "*?")


def _values(text: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, {}) if slash else 1
        if not step:
            raise ValueError("step of zero")
        if span in ("*", "?"):
            first, last = low, high
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(first_text, names)
            last = _number(last_text, names) if dash else (high if slash else first)
        if not low <= first <= last <= high:
            raise ValueError(f"{part!r} is out of range")
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, names: dict[str, int]) -> int:
    known = names.get(text.lower())
    if known is not None:
        return known
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _next_of(cron: Cron, after_ns: int) -> int:
    start = datetime.fromtimestamp(after_ns // SECOND_NS, UTC) + timedelta(seconds=1)
    day = start.replace(hour=0, minute=0, second=0)
    earliest = (start.hour, start.minute, start.second)
    for _ in range(DAYS_AHEAD_MAX):
        if cron.has_day(day):
            found = _time_of_day(cron, earliest)
            if found is not None:
                when = day.replace(hour=found[0], minute=found[1], second=found[2])
                return round(when.timestamp()) * SECOND_NS
        day += timedelta(days=1)
        earliest = (0, 0, 0)
    raise ValueError("it never fires")


def _time_of_day(cron: Cron, earliest: tuple[int, int, int]) -> tuple[int, int, int] | None:
    hour0, minute0, second0 = earliest
    for hour in cron.hours:
        if hour < hour0:
            continue
        for minute in cron.minutes:
            if (hour, minute) < (hour0, minute0):
                continue
            for second in cron.seconds:
                if (hour, minute, second) >= (hour0, minute0, second0):
                    return hour, minute, second
    return None
