"""The logical head: canonical bytes, its parts, and a state built from them that goes on like the original."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_driver import SECOND, Driver

from jetstore.errors import Corruption
from jetstore.limits import Limits
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.seqset import SeqSet
from jetstore.stream.install import PeerState, build
from jetstore.stream.logical import decode_removed, encode_removed, logical_head, take_logical
from jetstore.types import GroupUid, RaftIndex, Term

SEQS = st.integers(1, 40_000)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(SEQS, st.integers(0, 20_000)), max_size=12), st.integers(0, 30_000), st.integers(0, 1 << 30))
def test_equal_sets_give_equal_bytes_however_they_came_about(
    ranges: list[tuple[int, int]], below: int, seed: int
) -> None:
    one, other = SeqSet(), SeqSet()
    for first, length in ranges:
        one.add_range(first, first + length)
    one.discard_below(below)
    members = one.members(0, 70_000, 100_000)
    Random(seed).shuffle(members)
    for seq in members:
        other.add(seq)
    other.discard_below(below)
    assert encode_removed(one) == encode_removed(other)
    again = decode_removed(encode_removed(one))
    assert again.members(0, 70_000, 100_000) == sorted(members)
    assert encode_removed(again) == encode_removed(one)


def test_damaged_removed_sequences_are_refused() -> None:
    removed = SeqSet()
    removed.add_range(5, 20_000)
    part = encode_removed(removed)
    for wrong in (part[:-1], part + b"x", b"x" + part, part[:40], b""):
        with pytest.raises(Corruption):
            decode_removed(wrong)


def filled() -> Driver:
    driver = Driver(allow_msg_ttl=True, duplicate_window=64 * SECOND)
    for i in range(9):
        driver.publish(*[("a", {"Nats-Msg-Id": f"{i}-{j}", "Nats-TTL": "1h" if j else "never"}, "") for j in range(3)])
        driver.now_ns += SECOND
    driver.stream.contents.remove_run(4, 9)
    return driver


def test_head_and_parts_are_the_whole_state_but_for_the_records() -> None:
    driver = filled()
    stream = driver.stream
    head, parts = take_logical(stream)
    made = {name: part() for name, part in parts.items()}
    state = PeerState(stream.uid, head, made)
    assert state.removed.members(1, 100, 100) == stream.log.deleted_seqs(100)
    twin, checkpoint = build(state, stream.log, Limits(), number=3_000, stamp=77)
    twin.contents.index = MemoryIndex(dict(stream.contents.matching(None)))
    assert logical_head(twin) == head
    assert b'"index_part":{"stamp":77,"previous":0,"chunk":""}' in checkpoint.head
    assert all(name.endswith(".3000") for name in checkpoint.chunks)
    assert stream.next_expiry_ns() == twin.next_expiry_ns()
    for name in made:
        with pytest.raises(Corruption):
            PeerState(stream.uid, head, made | {name: made[name][:-1] + bytes([made[name][-1] ^ 1])})
    with pytest.raises(Corruption):
        PeerState(GroupUid(9), head, made)


def test_parts_are_as_of_the_moment_they_were_taken() -> None:
    driver = filled()
    while not driver.stream.dedupe.sum_some():
        pass
    head, parts = take_logical(driver.stream)
    driver.put("b", Nats_Msg_Id="later", Nats_TTL="2h")
    driver.stream.contents.remove(12)
    driver.now_ns += 500 * SECOND
    driver.put("b", Nats_Msg_Id="much later")
    assert driver.stream.logical_head() != head
    PeerState(driver.stream.uid, head, {name: part() for name, part in parts.items()})


def test_the_hash_covers_records() -> None:
    one, other = Driver(), Driver()
    for driver, body in ((one, "x"), (other, "y")):
        driver.put("a", "same")
        driver.put("a", body)
    assert one.stream.running.value != other.stream.running.value
    other.stream.running = one.stream.running
    assert one.stream.logical_hash() == other.stream.logical_hash()
    assert one.stream.logical_hash([(1, 1)]) == other.stream.logical_hash([(1, 1)])
    assert one.stream.logical_hash([(1, 2)]) != other.stream.logical_hash([(1, 2)])
    one.stream.apply(RaftIndex(one.stream.applied_index + 1), Term(1), b"")
    assert one.stream.logical_hash() != other.stream.logical_hash()
