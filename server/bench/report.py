"""Results as text: one table row per measurement, the servers side by side, with ratios to the first server."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .measure import Outcome, Row


@dataclass
class RowResult:
    """All measurements of one row: outcomes by server, and why a server has none."""

    row: Row
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def median(self, server: str) -> float | None:
        """The median value of a server; None without one."""
        outcomes = self.outcomes.get(server)
        return statistics.median(outcome.value for outcome in outcomes) if outcomes else None

    def ratio(self, server: str, other: str) -> float | None:
        """``server`` divided by ``other``."""
        mine, theirs = self.median(server), self.median(other)
        return mine / theirs if mine is not None and theirs else None

    def as_json(self, first: str) -> dict[str, Any]:
        """Everything measured, medians and ratios."""
        servers: dict[str, Any] = {}
        for server, outcomes in self.outcomes.items():
            values = [outcome.value for outcome in outcomes]
            details = {
                key: statistics.median(outcome.details[key] for outcome in outcomes if key in outcome.details)
                for key in outcomes[0].details
            }
            servers[server] = {
                "median": statistics.median(values),
                "min": min(values),
                "max": max(values),
                "values": values,
                "details": details,
            }
        for server, reason in self.absent.items():
            servers.setdefault(server, {})["absent"] = reason
        others = [server for server in self.outcomes if server != first]
        return {
            "row": self.row.name,
            "title": self.row.title,
            "unit": self.row.unit,
            "more_is_better": self.row.more_is_better,
            "servers": servers,
            "ratios": {f"{first}/{other}": self.ratio(first, other) for other in others},
        }


def number(value: float | None) -> str:
    """A value with three digits that count."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cells(results: Sequence[RowResult], servers: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table."""
    first, *others = servers
    headings = ["work", "unit", *servers, *(f"{first} / {other}" for other in others)]
    rows = []
    for result in results:
        line = [result.row.title, result.row.unit + ("" if result.row.more_is_better else " (less is better)")]
        for server in servers:
            text = number(result.median(server))
            outcomes = result.outcomes.get(server, [])
            if len(outcomes) > 1:
                values = [outcome.value for outcome in outcomes]
                text += f" ({number(min(values))}–{number(max(values))})"
            line.append(text)
        for other in others:
            ratio = result.ratio(first, other)
            line.append("-" if ratio is None else f"{ratio:.2f}×")
        rows.append(line)
    return headings, rows


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned for reading in a terminal."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = []
    for position, row in enumerate([headings, *rows]):
        padded = [
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(padded) + " |")
        if position == 0:
            ends = ["-" * (width + 1) + ("-" if column < 2 else ":") for column, width in enumerate(widths)]
            lines.append("|" + "|".join(ends) + "|")
    return "\n".join(lines)


def details(results: Sequence[RowResult], first: str) -> str:
    """The side figures of each row, one line per server."""
    lines = []
    for result in results:
        for server, values in result.as_json(first)["servers"].items():
            if values.get("details"):
                text = ", ".join(f"{key} {number(value)}" for key, value in values["details"].items())
                lines.append(f"{result.row.name}, {server}: {text}")
            if "absent" in values:
                lines.append(f"{result.row.name}, {server}: {values['absent']}")
    return "\n".join(lines)
