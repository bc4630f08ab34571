"""Consumer entries come back as they went in, and damaged or unknown ones are never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.consumer import entries
from jetstore.consumer.entries import AckOp, AckRuns, ConsumerEntryKind
from jetstore.errors import Corruption, FormatUnknown
from jetstore.stream.entries import EntryKind

T = 1_700_000_000_000_000_000
SEQS = st.integers(1, 2**63 - 1)
RANGES = st.lists(st.tuples(SEQS, st.integers(0, 2**40)), max_size=20).map(
    lambda pairs: [(first, min(first + extra, 2**63 - 1)) for first, extra in pairs]
)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)


def test_golden() -> None:
    """The worked example of docs/format/consumer-entries.md."""
    data = entries.encode_delivered_new("c", T, T + 5, 6, [(7, 9), (12, 12)])
    page = Path(__file__).parents[2] / "docs" / "format" / "consumer-entries.md"
    block = page.read_text().split("## Worked example")[1].split("```")[1]
    shown = "".join(line[:48] for line in block.strip().splitlines())
    assert data == bytes.fromhex(shown)


def test_kinds_are_those_of_the_stream() -> None:
    stream_kinds = {kind.value for kind in EntryKind}
    assert {kind.value for kind in ConsumerEntryKind} <= stream_kinds


@given(NAMES, st.integers(0, 2**62), st.integers(0, 2**62), RANGES, st.data())
def test_delivered(
    name: str, generation: int, time_ns: int, ranges: list[tuple[int, int]], data: st.DataObject
) -> None:
    runs = [(first, last, data.draw(st.integers(1, 9))) for first, last in ranges]
    raw = memoryview(entries.encode_delivered(name, generation, time_ns, runs)) if runs else None
    if raw is not None:
        head, at = entries.decode_head(raw)
        assert head == (ConsumerEntryKind.DELIVERED, time_ns, generation, name)
        assert entries.decode_delivered(raw, at) == runs


@given(st.integers(0, 2**62), SEQS, RANGES)
def test_delivered_new(time_ns: int, from_seq: int, ranges: list[tuple[int, int]]) -> None:
    raw = memoryview(entries.encode_delivered_new("c", 1, time_ns, from_seq, ranges))
    head, at = entries.decode_head(raw)
    assert head == (ConsumerEntryKind.DELIVERED_NEW, time_ns, 1, "c")
    assert entries.decode_delivered_new(raw, at) == (from_seq, [(first, last, 1) for first, last in ranges])


@given(st.lists(st.tuples(st.sampled_from(AckOp), st.integers(0, 2**62), RANGES), max_size=6))
def test_acks(ops: list[tuple[AckOp, int, list[tuple[int, int]]]]) -> None:
    given_ops = [AckRuns(*op) for op in ops]
    raw = memoryview(entries.encode_acks("c", 1, 2, given_ops))
    _, at = entries.decode_head(raw)
    assert entries.decode_acks(raw, at) == given_ops


@given(RANGES)
def test_ranges(ranges: list[tuple[int, int]]) -> None:
    for encode in (entries.encode_returned, entries.encode_exhausted):
        raw = memoryview(encode("c", 1, 2, ranges))
        assert entries.decode_ranges(raw, entries.decode_head(raw)[1]) == ranges


def test_cursor() -> None:
    raw = memoryview(entries.encode_cursor("c", 1, 2, 3, 4))
    assert entries.decode_cursor(raw, entries.decode_head(raw)[1]) == (3, 4)


def test_rare_ones() -> None:
    for raw, kind, fields in (
        (entries.encode_set("c", 2, {"a": 1}), 16, {"name": "c", "time_ns": 2, "config": {"a": 1}}),
        (entries.encode_delete("c", 2, 7), 17, {"name": "c", "time_ns": 2, "generation": 7}),
        (entries.encode_reset("c", 2, 5), 22, {"name": "c", "time_ns": 2, "seq": 5}),
        (entries.encode_pause("c", 2, 9), 23, {"name": "c", "time_ns": 2, "pause_until_ns": 9}),
    ):
        assert entries.decode_json(raw) == (kind, fields)


def test_a_thousand_in_a_row_cost_no_more_than_one() -> None:
    assert len(entries.encode_delivered("c", T, T, [(1, 1000, 1)])) == 46
    assert len(entries.encode_delivered("c", T, T, [(1, 1, 1)])) == 46
    assert len(entries.encode_delivered_new("c", T, T, 1, [(1, 1000)])) == 49


def test_what_is_unknown_or_cut_is_refused() -> None:
    good = entries.encode_acks("c", 1, 2, [AckRuns(AckOp.ACK, 0, [(1, 2)])])
    with pytest.raises(FormatUnknown):
        entries.decode_head(memoryview(good[:1] + b"\1" + good[2:]))
    with pytest.raises(Corruption):
        entries.decode_head(memoryview(good[:9]))
    _, at = entries.decode_head(memoryview(good))
    with pytest.raises(Corruption):
        entries.decode_acks(memoryview(good[:-1]), at)
    with pytest.raises(FormatUnknown):
        entries.decode_acks(memoryview(good[: at + 2] + b"\x09" + good[at + 3 :]), at)
    with pytest.raises(FormatUnknown):
        entries.decode_json(b'\x10{"name":"c","time_ns":1,"config":{},"more":1}')
    with pytest.raises(Corruption):
        entries.decode_json(b"\x10{")
