"""Subjects against a dumb enumeration: every pattern and subject over a small alphabet."""

from __future__ import annotations

import itertools

import pytest

from jetstore.stream import subjects
from jetstore.stream.subjects import Filter, filter_of

TOKENS = [b"a", b"b", b"*", b">"]
PATTERNS = [
    b".".join(p) for n in (1, 2, 3) for p in itertools.product(TOKENS, repeat=n) if b">" not in p[:-1]
]  # fmt: skip
LITERALS = [b".".join(p) for n in (1, 2, 3, 4) for p in itertools.product([b"a", b"b", b"c"], repeat=n)]


def dumb_match(pattern: list[bytes], subject: list[bytes]) -> bool:
    if not pattern or not subject:
        return not pattern and not subject
    if pattern[0] == b">":
        return True
    return pattern[0] in (b"*", subject[0]) and dumb_match(pattern[1:], subject[1:])


SETS = {p: frozenset(s for s in LITERALS if dumb_match(p.split(b"."), s.split(b"."))) for p in PATTERNS}


def test_match_agrees_with_enumeration() -> None:
    for pattern in PATTERNS:
        compiled = Filter([pattern])
        for subject in LITERALS:
            expected = subject in SETS[pattern]
            assert subjects.matches(pattern, subject) == expected
            assert compiled(subject) == expected == compiled(subject)


def test_overlap_and_subset_agree_with_enumeration() -> None:
    for left, right in itertools.product(PATTERNS, repeat=2):
        assert subjects.overlap(left, right) == bool(SETS[left] & SETS[right]), (left, right)
        assert subjects.is_subset(left, right) == (SETS[left] <= SETS[right]), (left, right)


@pytest.mark.parametrize(
    ("pattern", "valid", "literal"),
    [
        (b"a", True, True),
        (b"a.b", True, True),
        (b"", False, True),
        (b".", False, True),
        (b"a.", False, True),
        (b".a", False, True),
        (b"a..b", False, True),
        (b"a b", False, True),
        (b"a\tb", False, True),
        (b"a.\n", False, True),
        (b"*", True, False),
        (b"a.>", True, False),
        (b">.a", False, False),
        (b"a*.b>", True, True),
        (b"a.>.b", False, False),
    ],
)
def test_validity(pattern: bytes, valid: bool, literal: bool) -> None:
    assert subjects.is_valid_pattern(pattern) is valid
    assert subjects.is_literal(pattern) is literal
    assert subjects.is_valid_subject(pattern) is (valid and literal)


def test_filter_of_several_patterns() -> None:
    compiled = Filter([b"a.b", b"c.*", b"d.>"])
    assert compiled.literals == {b"a.b"}
    assert compiled.has_wildcards
    assert [compiled(s) for s in (b"a.b", b"a.c", b"c.x", b"c.x.y", b"d.x.y", b"d")] == [
        True, False, True, False, True, False,
    ]  # fmt: skip
    assert not Filter([b"a"]).has_wildcards
    assert not Filter([b"a"])(b"b")


def test_filter_with_regular_expression_characters_and_line_feeds() -> None:
    assert Filter([b"a+.*"])(b"a+.x")
    assert not Filter([b"a+.*"])(b"aa.x")
    assert Filter([b"x.>"])(b"x.\x85.\n")


def test_filter_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "_MEMO_ENTRIES_MAX", 4)
    compiled = Filter([b"a.*"])
    for i in range(20):
        assert compiled(b"a.%d" % i)
        assert len(compiled._memo) <= 4


def test_filter_of_everything_is_none() -> None:
    assert filter_of([]) is None
    assert filter_of([b"a", b">"]) is None
    assert filter_of([b"a"]) is not None
