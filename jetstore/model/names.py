"""Random names: server-given consumer names and the ids of advisories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

_LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Dice(Protocol):
    """Where chance comes from (``random.Random`` or ``random.SystemRandom`` fits)."""

    def choices(self, population: Sequence[str], *, k: int) -> list[str]:
        """``k`` elements drawn with replacement."""


def consumer_name(dice: Dice) -> str:
    """Eight base-62 characters."""
    return "".join(dice.choices(_LETTERS, k=8))


def unique_id(dice: Dice) -> str:
    """Twenty-two base-62 characters."""
    return "".join(dice.choices(_LETTERS, k=22))
