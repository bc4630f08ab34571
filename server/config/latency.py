"""``latency`` of a service's export: which requests are measured, and where the measurements go."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jetstore.model.subjects import is_subset, is_valid_literal
from server.config.tree import Entry, kind_of
from server.config.values import Fields, Mistake, Reader

BY_HEADERS: Final = 0
EVERY: Final = 100
BAD_SAMPLING: Final = "bad sampling percentage, should be 1-100"
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class LatencyOptions:
    """What is measured of a service."""

    subject: str
    """Of the measurements, in the exporter's account."""
    sampling: int = EVERY
    """Percent of the requests; 0: those alone whose headers say that they are traced."""

    def problem(self, is_single: bool, services: Iterable[str]) -> str:
        """Why this cannot be for a service; "" if it can. ``services``: what the account exports until there."""
        if not is_single:
            return "bad service response type"
        is_looping = any(is_subset(self.subject, each) for each in services)
        return "invalid publish subject" if is_looping or not is_valid_literal(self.subject) else ""


def latency(_reader: Reader, _name: str, entry: Entry) -> Fields:
    """A subject alone, or a block with ``subject`` and ``sampling``."""
    if isinstance(entry.value, str):
        return {"latency": LatencyOptions(entry.value)}
    if not isinstance(entry.value, dict):
        raise Mistake(f"Expected latency entry to be a map/struct or string, got {kind_of(entry.value)}")
    block: dict[str, Entry] = entry.value
    unknown = [key for key, each in block.items() if key not in ("sampling", "subject") and not each.is_used]
    if unknown:
        raise Mistake(f'unknown field "{unknown[0]}"')
    sampling = _sampling(block["sampling"]) if "sampling" in block else EVERY
    if "subject" not in block:
        raise Mistake("Latency subject required, but missing")
    subject = block["subject"].value
    if not isinstance(subject, str):
        raise Mistake(f"Expected latency subject to be a string, got {kind_of(subject)}")
    return {"latency": LatencyOptions(subject, sampling)}


def _sampling(entry: Entry) -> int:
    value = entry.value
    if isinstance(value, str):
        if value.strip().lower() == "headers":
            return BY_HEADERS
        number = value.removesuffix("%")
        if not _WHOLE.fullmatch(number):
            raise Mistake(f'Failed to parse latency sample: "{number}" is not a number')
        value = int(number)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Mistake(f"Expected latency sample to be a string or map/struct, got {kind_of(value)}")
    if not 1 <= value <= EVERY:
        raise Mistake(BAD_SAMPLING)
    return value
