"""Query parameters, and how Go words a bad one."""

from __future__ import annotations

from urllib.parse import parse_qsl

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class BadParameter(Exception):
    """A parameter that does not parse: 400 with this text."""


class Query:
    """The parameters of one request; the first of several counts."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, str] = {}
        for key, value in parse_qsl(text, keep_blank_values=True):
            self._values.setdefault(key, value)

    def text(self, name: str) -> str:
        """The value or ""."""
        return self._values.get(name, "")

    def flag(self, name: str) -> bool:
        """A boolean as Go parses it; absent or empty = false."""
        value = self.text(name)
        if not value or value in _FALSE:
            return False
        if value in _TRUE:
            return True
        raise BadParameter(
            f"Error decoding boolean for '{name}': strconv.ParseBool: parsing \"{value}\": invalid syntax"
        )

    def integer(self, name: str) -> int:
        """An integer; absent or empty = 0."""
        value = self.text(name)
        if not value:
            return 0
        if not _is_integer(value):
            raise BadParameter(f"Error decoding int for '{name}': strconv.Atoi: parsing \"{value}\": invalid syntax")
        return int(value)

    def unsigned(self, name: str) -> int:
        """A non-negative integer; absent or empty = 0."""
        value = self.text(name)
        if not value:
            return 0
        if not _is_integer(value) or value[0] in "+-":
            raise BadParameter(
                f"Error decoding uint64 for '{name}': strconv.ParseUint: parsing \"{value}\": invalid syntax"
            )
        return int(value)


def _is_integer(value: str) -> bool:
    digits = value[1:] if value[0] in "+-" else value
    return digits.isascii() and digits.isdigit() and len(digits) <= 19


def clamp_page(offset: int, limit: int, default_limit: int = 1024) -> tuple[int, int]:
    """Offset and limit as a listing uses them."""
    return max(offset, 0), limit if limit > 0 else default_limit


def uptime_text(duration_ns: int) -> str:
    """A duration as monitoring shows it: ``1y2d3h4m5s``, down to seconds, leading units left out."""
    seconds = max(duration_ns, 0) // 1_000_000_000
    minutes, hours = seconds // 60, seconds // 3_600
    days = hours // 24
    years = days // 365
    if years:
        return f"{years}y{days % 365}d{hours % 24}h{minutes % 60}m{seconds % 60}s"
    if days:
        return f"{days}d{hours % 24}h{minutes % 60}m{seconds % 60}s"
    if hours:
        return f"{hours}h{minutes % 60}m{seconds % 60}s"
    if minutes:
        return f"{minutes}m{seconds % 60}s"
    return f"{seconds}s"
