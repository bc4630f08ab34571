"""Pure questions about subjects as text: validity, whether two patterns can meet, whether one covers the other."""

from __future__ import annotations

from collections.abc import Sequence


def is_valid_subject(subject: str) -> bool:
    """Whether it is a subject or pattern: no blanks, no empty tokens, ``>`` only last. Wildcards allowed."""
    if not subject:
        return False
    tokens = subject.split(".")
    last = len(tokens) - 1
    for i, token in enumerate(tokens):
        if not token or any(character in token for character in " \t\n\r\f\0"):
            return False
        if token == ">" and i != last:
            return False
    return True


def is_literal(subject: str) -> bool:
    """Whether it holds no wildcard token."""
    return not any(token in ("*", ">") for token in subject.split("."))


def is_valid_literal(subject: str) -> bool:
    """Whether one can publish to it."""
    return is_valid_subject(subject) and is_literal(subject)


def collide(left: str, right: str) -> bool:
    """Whether some literal subject matches both patterns."""
    if left == right:
        return True
    left_tokens, right_tokens = left.split("."), right.split(".")
    for i in range(max(len(left_tokens), len(right_tokens))):
        if i >= len(left_tokens) or i >= len(right_tokens):
            return False
        a, b = left_tokens[i], right_tokens[i]
        if a == ">" or b == ">":
            return True
        if a != b and a != "*" and b != "*":
            return False
    return True


def is_subset(subject: str, pattern: str) -> bool:
    """Whether everything ``subject`` matches is matched by ``pattern`` too."""
    subject_tokens, pattern_tokens = subject.split("."), pattern.split(".")
    for i, expected in enumerate(pattern_tokens):
        if i >= len(subject_tokens):
            return False
        token = subject_tokens[i]
        if expected == ">":
            return True
        if token == ">":
            return False
        if token == "*":
            if expected != "*":
                return False
        elif expected not in ("*", token):
            return False
    return len(subject_tokens) == len(pattern_tokens)


def collides_any(subject: str, patterns: Sequence[str]) -> bool:
    """Whether it collides with one of them."""
    return any(collide(subject, pattern) for pattern in patterns)
