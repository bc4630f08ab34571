"""What a publishing connection is to do, and what came of it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishSpec:
    """One publishing connection."""

    tag: int
    subjects: tuple[str, ...]
    total: int
    window: int = 4096
    size: int = 128


@dataclass
class Published:
    """What one connection published: ``numbers[i]`` was acknowledged at ``sequences[i]``."""

    tag: int
    subjects: tuple[str, ...]
    sent: int
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    sequences: array[int] = field(default_factory=lambda: array("Q"))
    refusals: list[bytes] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    """time.perf_counter() at the first publish and the last answer; one clock for all processes of the machine."""
