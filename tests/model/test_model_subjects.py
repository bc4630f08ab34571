"""Validity, collision and cover of subject patterns, against brute force over a small alphabet."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.model.subjects import collide, collides_any, is_literal, is_subset, is_valid_literal, is_valid_subject

LITERALS = [".".join(tokens) for length in (1, 2, 3, 4) for tokens in product("ab", repeat=length)]

patterns = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from("ab*"), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
) | st.just(">")


def matches(pattern: str, subject: str) -> bool:
    expected, tokens = pattern.split("."), subject.split(".")
    for i, token in enumerate(expected):
        if token == ">":
            return len(tokens) > i
        if i >= len(tokens) or token not in ("*", tokens[i]):
            return False
    return len(tokens) == len(expected)


@given(patterns, patterns)
def test_collide_is_a_common_subject(left: str, right: str) -> None:
    expected = any(matches(left, subject) and matches(right, subject) for subject in LITERALS)
    assert collide(left, right) == collide(right, left) == expected
    assert collides_any(left, [right]) == expected
    assert not collides_any(left, [])


@given(patterns, patterns)
def test_subset_implies_cover(subject: str, pattern: str) -> None:
    if is_subset(subject, pattern):
        assert all(matches(pattern, literal) for literal in LITERALS if matches(subject, literal))
    assert is_subset(subject, subject)
    assert is_subset(subject, ">")


@pytest.mark.parametrize(
    ("subject", "pattern", "covered"),
    [
        ("a.b", "a.*", True),
        ("a.*", "a.b", False),
        ("a.*", "a.*", True),
        ("a.>", "a.>", True),
        ("a.>", "a.*", False),
        ("a.*", "a.>", True),
        ("a", "a.>", False),
        ("*.b", "a.b", False),
        ("a.b.c", "a.*", False),
    ],
)
def test_subset(subject: str, pattern: str, covered: bool) -> None:
    assert is_subset(subject, pattern) is covered


@pytest.mark.parametrize("subject", ["", ".", "a.", ".a", "a..b", "a b", "a\tb", ">.a", "a.>.b", "a\nb"])
def test_invalid_subjects(subject: str) -> None:
    assert not is_valid_subject(subject)


@pytest.mark.parametrize("subject", ["a", "a.b", "*", ">", "a.*.>", "$JS.API", "a>b", "a*"])
def test_valid_subjects(subject: str) -> None:
    assert is_valid_subject(subject)


def test_literals() -> None:
    assert is_literal("a*.b>")
    assert not is_literal("a.*")
    assert is_valid_literal("a.b")
    assert not is_valid_literal("a.>")
