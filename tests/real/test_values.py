"""Bulk formatting gives the same bytes as formatting one by one, and PubAcks are read back with their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen.real.values import BLOCK, PREPARED_BYTES_MAX, Blocks, parse_acks, payload


@pytest.mark.parametrize("inbox", [b"_INBOX.x", b""])
@pytest.mark.parametrize("size", [1, 20, 128, PREPARED_BYTES_MAX + 1])
@pytest.mark.parametrize("subjects", [["a.1"], ["a.1", "b.2"], ["a.{n}.x"], ["a.1", "b.{n}"]])
def test_a_block_is_its_messages(inbox: bytes, size: int, subjects: list[str]) -> None:
    blocks = Blocks(subjects, inbox, 7, size)
    assert blocks.block(3000) == b"".join(blocks.one(number) for number in range(3000, 4000))


@given(st.integers(0, BLOCK - 1), st.integers(1, BLOCK), st.booleans())
def test_any_part_of_a_block(low: int, count: int, has_inbox: bool) -> None:
    blocks = Blocks(["a.1", "b.{n}"], b"_INBOX.x" if has_inbox else b"", 7, 30)
    count = min(count, BLOCK - low)
    expected = b"".join(blocks.one(number) for number in range(5000 + low, 5000 + low + count))
    assert blocks.part(5000 + low, count) == expected


def test_one_message_on_the_wire() -> None:
    line, body, end = Blocks(["a.1"], b"_I.x", 7, 128).one(12).split(b"\r\n")
    assert line == b"PUB a.1 _I.x.000000000012 128"
    assert body == payload(7 * 10**12 + 12, 128)
    assert len(body) == 128
    assert end == b""


def test_subjects_must_divide_a_block() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Blocks(["a", "b", "c"], b"", 1, 10)


def test_acks_are_read_and_refusals_left_out() -> None:
    raw = (
        b'MSG _I.x.000000000003 1 22\r\n{"stream":"S","seq":1}\r\n'
        b'MSG _I.x.000000000004 1 41\r\n{"stream":"S", "seq":22,"duplicate":true}\r\n'
        b'MSG _I.x.000000000005 1 60\r\n{"error":{"code":503,"err_code":10077},"stream":"S","seq":0}\r\n'
    )
    numbers, sequences = parse_acks(raw)
    assert list(zip(numbers, sequences, strict=True)) == [(3, 1), (4, 22)]
