"""Subject mappings of an account: published subjects become others before anything looks at them.

Source: the public description of subject mapping: weights are percent, one draw a message; what the weights leave over
stays on its subject unless that is among the destinations: then it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from jetstore.model.transforms import SubjectTransform
from server.route.delivery import Columns
from server.route.sublist import has_wildcard, pattern_matches

PERCENT = 100
_KNOWN_MAX = 4096


class Mapping:
    """One source and its weighted destinations. Raises ``TransformError``."""

    def __init__(self, source: str, destinations: Sequence[tuple[str, int]], rng: Random) -> None:
        """``destinations`` with their percent; together at most 100."""
        self.matches: Callable[[bytes], bool] = pattern_matches(source.encode())
        self._rng = rng
        chosen = list(destinations)
        left = PERCENT - sum(weight for _, weight in destinations)
        if left and not any(source == destination for destination, _ in destinations):
            chosen.append((source, left))
        self._choices: list[tuple[int, SubjectTransform | None]] = []
        """Upper end of each share, transform (None: stays as it is)."""
        end = 0
        for destination, weight in chosen:
            end += weight
            transform = None
            if destination != source:
                transform = SubjectTransform(source, _ordered(destination), _dice(rng))
            self._choices.append((end, transform))

    def apply(self, subject: bytes) -> bytes | None:
        """What a subject that matches becomes; None: the message is lost."""
        choices = self._choices
        draw = 0 if len(choices) == 1 and choices[0][0] >= PERCENT else int(self._rng.random() * PERCENT)
        for end, transform in choices:
            if draw < end:
                return subject if transform is None else transform.apply(subject) or subject
        return None


def _ordered(destination: str) -> str:
    star = 0
    tokens = []
    for token in destination.split("."):
        if token == "*":
            star += 1
            token = f"${star}"
        tokens.append(token)
    return ".".join(tokens)


def _dice(rng: Random) -> Callable[[int], int]:
    return lambda below: int(rng.random() * below)


class Mappings:
    """All mappings of an account; the first that matches counts, one for the very subject before any pattern."""

    def __init__(self, mappings: Sequence[tuple[str, Mapping]]) -> None:
        exact = [entry for entry in mappings if not has_wildcard(entry[0].encode())]
        self._mappings = [*exact, *(entry for entry in mappings if entry not in exact)]
        self._known: dict[bytes, Mapping | None] = {}

    def _find(self, subject: bytes) -> Mapping | None:
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        found = next((mapping for _, mapping in self._mappings if mapping.matches(subject)), None)
        self._known[subject] = found
        return found

    def apply(self, columns: Columns) -> Columns:
        """The messages that are left, on their new subjects."""
        known = self._known
        subjects: list[bytes] = []
        kept: list[int] = []
        for at, subject in enumerate(columns.subjects):
            mapping = known[subject] if subject in known else self._find(subject)
            new = subject if mapping is None else mapping.apply(subject)
            if new is not None:
                subjects.append(new)
                kept.append(at)
        if len(kept) < len(columns.subjects):
            columns = columns.pick(kept)
        return columns._replace(subjects=subjects)
