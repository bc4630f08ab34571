"""Frames: what goes in comes out, bounds hold, and no flipped byte goes unnoticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.errors import Corruption
from jetstore.hot.columns import Columns, Frame
from jetstore.hot.frame import (
    FRAME_MESSAGES_MAX,
    decode_frame,
    decode_frame_run,
    decode_item,
    encode_columns,
    encode_frame_run,
    encode_frames,
    frame_columns,
    verify_frame,
)

messages = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"orders.new", b"orders." + b"x" * 300]),
        st.integers(0, 20),
        st.binary(max_size=40) | st.just(b"same size!"),
    ),
    min_size=1,
    max_size=60,
)


def columns_of(rows: list[tuple[bytes, int, bytes]], with_headers: bool) -> Columns:
    subjects = [r[0] for r in rows]
    lens = [min(r[1], len(r[2])) for r in rows] if with_headers else []
    return Columns(subjects, lens, [r[2] for r in rows])


def plain(columns: Columns) -> tuple[list[bytes], list[int], list[bytes]]:
    lens = list(columns.header_lens) or [0] * len(columns.subjects)
    return list(columns.subjects), lens, list(columns.payloads)


@given(messages, st.booleans(), st.integers(20, 2_000))
def test_round_trip_and_bound(rows: list[tuple[bytes, int, bytes]], with_headers: bool, bound: int) -> None:
    columns = columns_of(rows, with_headers)
    frames = encode_frames(columns, 1_000, bound)
    assert sum(f.count for f in frames) == len(rows)
    assert all(len(f.body) <= bound or f.count == 1 for f in frames)
    assert all(map(verify_frame, frames))
    times = [t for f in frames for t in range(f.base_time_ns, f.base_time_ns + f.count)]
    assert times == list(range(1_000, 1_000 + len(rows)))
    decoded = [decode_frame(f.body, f.count) for f in frames]
    for kind in range(3):
        assert [x for c in decoded for x in plain(c)[kind]] == plain(columns)[kind]
        assert [x for f in frames for x in plain(frame_columns(f))[kind]] == plain(columns)[kind]
    items = [decode_item(f.body, f.count, i) for f in frames for i in range(f.count)]
    assert items == list(zip(*plain(columns), strict=True))
    run = decode_frame_run(encode_frame_run(frames))
    assert [(f.count, f.base_time_ns, f.body, f.body_crc) for f in run] == [
        (f.count, f.base_time_ns, f.body, f.body_crc) for f in frames
    ]


def test_one_frame_of_everything() -> None:
    columns = Columns([b"s"] * 3, (), [b"1", b"22", b"333"])
    frame = encode_columns(columns, 5)
    assert plain(decode_frame(frame.body, 3)) == plain(columns)


def test_no_messages_no_frames() -> None:
    assert encode_frames(Columns([], (), []), 1, 1_000) == []
    assert decode_frame_run(encode_frame_run([])) == []


def test_empty_messages_are_bounded_too() -> None:
    count = 3 * FRAME_MESSAGES_MAX
    frames = encode_frames(Columns([b""] * count, (), [b""] * count), 1, 1 << 20)
    assert max(f.count for f in frames) <= FRAME_MESSAGES_MAX
    assert sum(f.count for f in frames) == count


def test_a_long_subject_is_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        encode_frames(Columns([b"x" * 65_536], (), [b""]), 1, 1_000)
    with pytest.raises(ValueError, match="65535"):
        encode_frames(Columns([b"x"], (65_536,), [b"x" * 65_536]), 1, 1_000)


def test_one_subject_is_stored_once() -> None:
    subject = b"a.long.subject.that.repeats"
    body = encode_columns(Columns([subject] * 9, (), [b"x"] * 9), 1).body
    assert body.count(subject) == 1


@given(messages, st.integers(0, 70))
def test_a_wrong_count_is_noticed_or_harmless(rows: list[tuple[bytes, int, bytes]], count: int) -> None:
    frame = encode_columns(columns_of(rows, True), 1)
    try:
        columns = decode_frame(frame.body, count)
    except Corruption:
        return
    assert len(columns.subjects) == count == len(columns.payloads)


def test_every_flipped_byte_of_a_run_is_noticed() -> None:
    columns = Columns([b"a", b"b", b"a"], (0, 3, 0), [b"one", b"two", b"three"])
    run = encode_frame_run(encode_frames(columns, 7, 20))
    for at in range(len(run)):
        for flip in (1, 0x80, 0xFF):
            bad = bytearray(run)
            bad[at] ^= flip
            with pytest.raises(Corruption):
                decode_frame_run(bytes(bad))
    for size in range(len(run)):
        with pytest.raises(Corruption):
            decode_frame_run(run[:size])
    with pytest.raises(Corruption):
        decode_frame_run(run + b"\0")


def test_verify_sees_a_flip() -> None:
    frame = encode_columns(Columns([b"a"], (), [b"data"]), 1)
    assert not verify_frame(Frame(1, 1, frame.body[:-1] + b"x", frame.body_crc))
