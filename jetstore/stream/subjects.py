"""NATS subjects and patterns as bytes: validity, matching, overlap, subset, and compiled filters.

A subject is tokens separated by ``.``; no token is empty. In a pattern the token ``*`` stands for one token and a last
token ``>`` for one or more. A ``*`` or ``>`` inside a longer token is an ordinary character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_BLANK = re.compile(rb"[ \t\r\n\f]")
_MEMO_ENTRIES_MAX = 16_384
"""Remembered answers of one filter; at the bound all are forgotten, which costs time only."""


def is_valid_pattern(pattern: bytes) -> bool:
    """Whether these bytes may be subscribed to: non-empty tokens, no blanks, ``>`` only at the end."""
    if not pattern or _BLANK.search(pattern):
        return False
    tokens = pattern.split(b".")
    return b"" not in tokens and b">" not in tokens[:-1]


def is_literal(subject: bytes) -> bool:
    """Whether no token is a wildcard."""
    if b"*" not in subject and b">" not in subject:
        return True
    return not any(token in (b"*", b">") for token in subject.split(b"."))


def is_valid_subject(subject: bytes) -> bool:
    """Whether these bytes may be published to: a valid pattern without wildcards."""
    return is_valid_pattern(subject) and is_literal(subject)


def matches(pattern: bytes, subject: bytes) -> bool:
    """Whether a literal subject is in the pattern's set."""
    return is_subset(subject, pattern)


def is_subset(inner: bytes, outer: bytes) -> bool:
    """Whether every subject of pattern ``inner`` is also one of pattern ``outer``."""
    inner_tokens = inner.split(b".")
    outer_tokens = outer.split(b".")
    for position, token in enumerate(outer_tokens):
        if token == b">" and position == len(outer_tokens) - 1:
            return len(inner_tokens) > position
        if position >= len(inner_tokens):
            return False
        given = inner_tokens[position]
        if given == b">" and position == len(inner_tokens) - 1:
            return False
        if token != b"*" and token != given:
            return False
    return len(inner_tokens) == len(outer_tokens)


def overlap(left: bytes, right: bytes) -> bool:
    """Whether some subject is in both patterns' sets."""
    left_tokens = left.split(b".")
    right_tokens = right.split(b".")
    for position in range(max(len(left_tokens), len(right_tokens))):
        if position >= len(left_tokens) or position >= len(right_tokens):
            return False
        a, b = left_tokens[position], right_tokens[position]
        if b">" in (a, b):
            return True
        if a != b and b"*" not in (a, b):
            return False
    return True


def _expression(pattern: bytes) -> bytes:
    tokens = pattern.split(b".")
    parts = [rb"[^.]+" if token == b"*" else re.escape(token) for token in tokens]
    if tokens[-1] == b">":
        parts[-1] = rb".+"
    return rb"\.".join(parts)


class Filter:
    """A set of subjects given by one or several patterns; implements ``store.ports.SubjectFilter``.

    Answers for wildcard patterns are remembered, at most ``_MEMO_ENTRIES_MAX`` of them.
    """

    __slots__ = ("_expression", "_memo", "has_wildcards", "literals", "patterns")

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self.patterns: tuple[bytes, ...] = tuple(dict.fromkeys(patterns))
        wild = [pattern for pattern in self.patterns if not is_literal(pattern)]
        self.literals: frozenset[bytes] = frozenset(self.patterns).difference(wild)
        self.has_wildcards: bool = bool(wild)
        self._expression = re.compile(b"|".join(map(_expression, wild)), re.DOTALL) if wild else None
        self._memo: dict[bytes, bool] = {}

    def __call__(self, subject: bytes) -> bool:
        if subject in self.literals:
            return True
        if self._expression is None:
            return False
        known = self._memo.get(subject)
        if known is None:
            if len(self._memo) >= _MEMO_ENTRIES_MAX:
                self._memo.clear()
            known = self._memo[subject] = self._expression.fullmatch(subject) is not None
        return known

    def __repr__(self) -> str:
        return f"Filter({list(self.patterns)!r})"

    @property
    def is_everything(self) -> bool:
        """Whether every subject matches."""
        return b">" in self.patterns


def filter_of(patterns: Sequence[bytes]) -> Filter | None:
    """A filter, or None where the patterns let everything through (no pattern at all, or ``>`` among them)."""
    if not patterns or b">" in patterns:
        return None
    return Filter(patterns)
