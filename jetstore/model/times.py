"""Times and durations as Go writes them, from and to integer nanoseconds."""

from __future__ import annotations

import re
from datetime import date

NANOS = 1_000_000_000
ZERO_TIME = "0001-01-01T00:00:00Z"
"""How "not set" looks in JSON."""

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NANOS,
    "m": 60 * NANOS,
    "h": 3600 * NANOS,
}


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC with as many fraction digits as needed; 0 gives the year 1 ("not set")."""
    if time_ns == 0:
        return ZERO_TIME
    seconds, nanos = divmod(time_ns, NANOS)
    days, second_of_day = divmod(seconds, 86_400)
    day = date.fromordinal(_EPOCH_DAY + days)
    hour, rest = divmod(second_of_day, 3_600)
    minute, second = divmod(rest, 60)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{day.year:04d}-{day.month:02d}-{day.day:02d}T{hour:02d}:{minute:02d}:{second:02d}{fraction}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time; the year-1 zero time gives 0. ``ValueError`` with Go's text."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(_time_error(text))
    year, month, day_number, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        day = date(year, month, day_number)
    except ValueError:
        what = "month" if not 1 <= month <= 12 else "day"
        raise ValueError(f'parsing time "{text}": {what} out of range') from None
    for value, bound, what in ((hour, 24, "hour"), (minute, 60, "minute"), (second, 60, "second")):
        if value >= bound:
            raise ValueError(f'parsing time "{text}": {what} out of range')
    nanos = int((match[7] or "0")[:9].ljust(9, "0"))
    offset_seconds = 0
    if match[8]:
        offset_seconds = (int(match[9]) * 60 + int(match[10])) * 60 * (-1 if match[8] == "-" else 1)
    seconds = (day.toordinal() - _EPOCH_DAY) * 86_400 + hour * 3_600 + minute * 60 + second - offset_seconds
    if seconds == -62_135_596_800 and nanos == 0:
        return 0
    return seconds * NANOS + nanos


def _time_error(text: str) -> str:
    """Go's wording of what did not parse: the layout element at the first place that differs."""
    layout = (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"), ("T", "T"),
              ("15", r"\d\d"), (":", ":"), ("04", r"\d\d"), (":", ":"), ("05", r"\d\d(?:[.,]\d+)?"),
              ("Z07:00", r"Z|[+-]\d\d:\d\d"))  # fmt: skip
    rest = text
    for name, pattern in layout:
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            return f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{rest}" as "{name}"'
        rest = rest[match.end() :]
    return f'parsing time "{text}": extra text: "{rest}"'


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration such as ``1h30m`` or ``-1.5s``. ``ValueError`` with Go's text."""
    if text in ("", "+", "-"):
        raise ValueError(f'time: invalid duration "{text}"')
    sign = -1 if text[0] == "-" else 1
    rest = text[1:] if text[0] in "+-" else text
    if rest == "0":
        return 0
    total = 0
    while rest:
        number = re.match(r"\d*(?:\.\d*)?", rest, re.ASCII)
        assert number is not None
        digits = number[0]
        if digits in ("", "."):
            raise ValueError(f'time: invalid duration "{text}"')
        rest = rest[len(digits) :]
        unit = re.match(r"[^.\d]*", rest)
        assert unit is not None
        if not unit[0]:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit[0] not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit[0]}" in duration "{text}"')
        whole, _, fraction = digits.partition(".")
        scale = _UNITS[unit[0]]
        total += int(whole or "0") * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
        rest = rest[len(unit[0]) :]
    if total > 2**63 - 1 + (sign < 0):
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total


def format_duration(duration_ns: int) -> str:
    """A duration as Go prints it: ``1h0m0s``, ``1.5s``, ``250ms``, ``0s``."""
    if duration_ns == 0:
        return "0s"
    sign = "-" if duration_ns < 0 else ""
    value = abs(duration_ns)
    if value < NANOS:
        for unit, scale in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if value >= scale:
                return f"{sign}{_decimal(value, scale)}{unit}"
    minutes, rest = divmod(value, 60 * NANOS)
    seconds = f"{_decimal(rest, NANOS)}s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{seconds}" if hours else f"{sign}{minutes}m{seconds}"


def _decimal(value: int, scale: int) -> str:
    whole, fraction = divmod(value, scale)
    if not fraction:
        return str(whole)
    return f"{whole}.{str(fraction).zfill(len(str(scale)) - 1).rstrip('0')}"
