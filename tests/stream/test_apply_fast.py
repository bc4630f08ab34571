"""Entries with messages of fast batches: a refusal ends what it is to end, however messages are cut into entries."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_driver import START_NS, Driver, Given, frames_of

from jetstore.errors import ApiError, Corruption, FormatUnknown
from jetstore.stream import entries
from jetstore.stream.entries import FastHead
from jetstore.stream.install import PeerState, build
from jetstore.stream.logical import logical_head, take_logical
from jetstore.stream.outcomes import BatchEnded, Duplicate
from jetstore.stream.stream import Stream
from jetstore.types import RaftIndex, Term

WRONG = {"Nats-Expected-Last-Sequence": "999"}
PLAIN = -1


def runs_of(keys: list[int]) -> list[tuple[int, int, int]]:
    """One run for each message of a batch."""
    return [(at, 1, key) for at, key in enumerate(keys) if key != PLAIN]


def publish(
    driver: Driver, messages: list[Given], keys: list[int], *, ended: tuple[int, ...] = (), term: int = 1, **how: Any
) -> Any:
    """Apply one entry; a batch's key beside each message. ``frame_bytes_max``, ``time_ns``, ``cached``."""
    time_ns = how.get("time_ns") or driver.stream.next_time_ns(driver.now_ns, len(messages))
    frames = frames_of(messages, time_ns, how.get("frame_bytes_max", 32 * 1024))
    data = entries.encode_fast(time_ns, FastHead(runs_of(keys), list(ended)), frames)
    driver.log.append(data)
    cache = frames if how.get("cached") else None
    return driver.stream.apply(RaftIndex(len(driver.log)), Term(term), data, cache)


def said(outcome: Any) -> list[str]:
    """What became of each message."""
    words = {Duplicate: "dup", BatchEnded: "ended"}
    found = [outcome.exceptions.get(at) for at in range(outcome.count)]
    return ["ok" if one is None else words.get(type(one)) or str(one.err_code) for one in found]


@pytest.mark.parametrize("frame_bytes_max", [1, 40, 32 * 1024])
@pytest.mark.parametrize("cached", [False, True])
def test_a_refusal_ends_its_batch_and_no_other(frame_bytes_max: int, cached: bool) -> None:
    driver = Driver()
    good, bad = ("a", {}, "x"), ("a", WRONG, "x")
    how: dict[str, Any] = {"frame_bytes_max": frame_bytes_max, "cached": cached}
    outcome = publish(driver, [good, bad, good, bad, good, good, bad], [1, 1, 1, 0, 0, 2, PLAIN], **how)
    assert said(outcome) == ["ok", "10071", "ended", "10071", "ok", "ok", "10071"]
    outcome = publish(driver, [good, good, good, good], [1, 2, 0, PLAIN], **how)
    assert said(outcome) == ["ended", "ok", "ok", "ok"]
    assert driver.stream.contents.last_seq == 6
    assert driver.stream.ended_batches.keys == {1}


def test_an_ended_batch_is_forgotten_when_the_leader_knows_or_is_another() -> None:
    driver = Driver()
    publish(driver, [("a", WRONG, ""), ("a", WRONG, "")], [1, 2])
    assert said(publish(driver, [("a", {}, ""), ("a", {}, "")], [1, 2], ended=(1,))) == ["ok", "ended"]
    assert said(publish(driver, [("a", {}, "")], [2], term=2)) == ["ok"]
    assert driver.stream.ended_batches.to_row() == (2, [])


def test_duplicates_are_no_refusals() -> None:
    driver = Driver()
    message = ("a", {"Nats-Msg-Id": "i"}, "")
    assert said(publish(driver, [message, message, ("a", {}, "")], [1, 1, 1])) == ["ok", "dup", "ok"]


def test_headers_of_atomic_batches_mean_nothing_in_a_fast_one() -> None:
    driver = Driver()
    message = ("a", {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"}, "")
    assert said(publish(driver, [message, message, message], [1, PLAIN, 0])) == ["ok", "10174", "ok"]


def test_what_has_ended_is_part_of_the_state() -> None:
    driver = Driver()
    before = logical_head(driver.stream)
    assert b"ended_batches" not in before
    publish(driver, [("a", {}, ""), ("a", WRONG, "")], [7, 8], term=1)
    stream = driver.stream
    done = stream.checkpoint(Term(1))
    again = Stream.restore(stream.uid, done.head, done.chunks, stream.log, stream.index, stream.limits)
    head, parts = take_logical(stream)
    made = {name: part() for name, part in parts.items()}
    installed, _ = build(PeerState(stream.uid, head, made), stream.log, stream.limits, number=1, stamp=1)
    for twin in (again, installed):
        assert twin.ended_batches.to_row() == (1, [8])
    assert logical_head(again) == logical_head(stream)


MESSAGE = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from(
        [
            {},
            {"K": "v"},
            {"Nats-Msg-Id": "i1"},
            {"Nats-Msg-Id": "i2"},
            {"Nats-TTL": "wrong"},
            {"Nats-Expected-Last-Sequence": "2"},
            {"Nats-Expected-Last-Subject-Sequence": "1"},
            {"Nats-Rollup": "sub"},
        ]
    ),
    st.sampled_from(["", "x", "y" * 40]),
)
SENT = st.lists(st.tuples(MESSAGE, st.sampled_from([PLAIN, 0, 1, 2, 3])), min_size=1, max_size=12)
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "max_msgs": st.integers(1, 4),
        "max_msgs_per_subject": st.integers(1, 2),
        "max_bytes": st.integers(100, 400),
        "discard": st.sampled_from(["old", "new"]),
    },
)


def shown(driver: Driver) -> Any:
    stream = driver.stream
    messages = [message._replace(time_ns=0) for message in stream.log.read_many(driver.seqs(), 1 << 30)]
    return stream.bytes, messages, stream.contents.last_seq, stream.ended_batches.keys, stream.last_msg_id


@settings(max_examples=150, deadline=None)
@given(CONFIG, SENT, st.sets(st.integers(1, 11)), st.sampled_from([1, 60, 32 * 1024]))
def test_it_makes_no_difference_how_messages_are_cut_into_entries(
    config: dict[str, Any], sent: list[tuple[Given, int]], cuts: set[int], frame_bytes_max: int
) -> None:
    flags: dict[str, Any] = {"allow_msg_ttl": True, "allow_rollup_hdrs": True}
    one, other = Driver(**flags, **config), Driver(**flags, **config)
    whole: list[str] = []
    edges = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    for start, end in pairwise(edges):
        messages, keys = zip(*sent[start:end], strict=True)
        time_ns = START_NS + 1_000 + start
        outcome = publish(one, list(messages), list(keys), time_ns=time_ns, frame_bytes_max=frame_bytes_max)
        whole += said(outcome)
    single: list[str] = []
    ended: set[int] = set()
    for at, (message, key) in enumerate(sent):
        if key in ended:
            single.append("ended")
            continue
        outcome = publish(other, [message], [0 if key > 0 else key], time_ns=START_NS + 1_000 + at)
        single += said(outcome)
        if key > 0 and isinstance(outcome.exceptions.get(0), ApiError):
            ended.add(key)
    assert whole == single
    assert one.stream.ended_batches.keys == ended
    other.stream.ended_batches.keys |= ended
    assert shown(one) == shown(other)


def test_the_entry_comes_back_as_it_was_written() -> None:
    frames = [replace(frame, columns=None) for frame in frames_of([("a", {}, "x"), ("b", {}, "y")], START_NS)]
    head = FastHead([(0, 2, 5)], [3, 4])
    data = entries.encode_fast(START_NS, head, frames)
    time_ns, again, decoded = entries.decode_fast(data)
    assert (time_ns, decoded) == (START_NS, frames)
    assert (again.runs, again.ended) == ([[0, 2, 5]], [3, 4])
    assert entries.decode_fast_head(data) == (START_NS, again)
    with pytest.raises(Corruption):
        entries.decode_fast(data[:9])
    with pytest.raises(FormatUnknown):
        entries.decode_fast(data[:1] + b"\x01" + data[2:])
