"""SeqSet against a plain set of ints, around chunk and group borders."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jetstore.errors import Corruption
from jetstore.store.seqset import CHUNK_SEQS, GROUP_CHUNKS, SeqSet

BASE = CHUNK_SEQS * (GROUP_CHUNKS - 2) + 5
TOP = BASE + 4 * CHUNK_SEQS

near_borders = st.integers(GROUP_CHUNKS - 2, GROUP_CHUNKS + 2).flatmap(
    lambda chunk: st.integers(-3, 3).map(lambda d: min(max(chunk * CHUNK_SEQS + d, BASE), TOP))
)
seqs = near_borders | st.integers(BASE, TOP)
steps = st.lists(
    st.tuples(st.just("add"), seqs)
    | st.tuples(st.just("range"), seqs, seqs)
    | st.tuples(st.just("discard"), seqs)
    | st.tuples(st.just("save")),
    min_size=1,
    max_size=14,
)


def saved(real: SeqSet, images: dict[int, bytes]) -> SeqSet:
    """Write what changed, as a checkpoint does, and read everything back."""
    live = real.groups()
    for group in real.take_changed_groups():
        if group in live:
            images[group] = real.encode_group(group)
    return SeqSet.decode([(str(g), images[g]) for g in live], real.full_runs())


@settings(max_examples=120, deadline=None)
@example([("add", BASE), ("discard", TOP), ("add", BASE), ("discard", TOP)], BASE, BASE, 1)
@given(steps, seqs, seqs, st.integers(1, 40))
def test_against_a_set(plan: list[tuple[object, ...]], first: int, last: int, many: int) -> None:
    real, model = SeqSet(), set[int]()
    images: dict[int, bytes] = {}
    first, last = min(first, last), max(first, last)
    for step in plan:
        match step:
            case ("add", int(seq)):
                assert real.add(seq) == (seq not in model)
                model.add(seq)
            case ("range", int(a), int(b)):
                real.add_range(a, b)
                model.update(range(a, b + 1))
            case ("discard", int(seq)):
                real.discard_below(seq)
                model = {m for m in model if m >= seq}
            case _:
                real = saved(real, images)
        assert real.count == len(model)
        assert real.count_between(first, last) == sum(first <= m <= last for m in model)
    ordered = sorted(m for m in model if first <= m <= last)
    for candidate in (real, saved(real, images)):
        assert candidate.count == len(model)
        assert candidate.members(first, last, many) == ordered[:many]
        assert candidate.members(first, last, 1 << 30) == ordered
        expected = [s for s in range(first, last + 1) if s not in model]
        assert candidate.absent(first, last, many) == expected[:many]
        assert candidate.absent(first, last, 1 << 30) == expected
        probes = list(range(first, min(first + 300, TOP))) + list(range(max(first, last - 5), last + 1))
        assert [s in candidate for s in probes] == [s in model for s in probes]
        assert candidate.without(sorted(set(probes))) == [s for s in sorted(set(probes)) if s not in model]
        seq = first
        while seq in model:
            seq += 1
        assert candidate.next_absent(first) == seq
        seq = last
        while seq in model:
            seq -= 1
        assert candidate.previous_absent(last) == seq


def test_a_jump_of_billions_costs_nothing() -> None:
    real = SeqSet()
    real.add_range(10, 10**15)
    assert real.count == 10**15 - 9
    assert real.next_absent(10) == 10**15 + 1
    assert real.previous_absent(10**15) == 9
    assert real.absent(1, 10**15 + 3, 100) == [*range(1, 10), 10**15 + 1, 10**15 + 2, 10**15 + 3]
    assert len(real.groups()) == 2
    again = SeqSet.decode([(str(g), real.encode_group(g)) for g in real.groups()], real.full_runs())
    assert again.count == real.count
    real.discard_below(10**15)
    assert real.count == 1
    real.discard_below(10**15 + 1)
    assert real.count == 0


def test_every_flipped_byte_is_noticed() -> None:
    real = SeqSet()
    real.add_range(5, 70)
    image = real.encode_group(0)
    for at in (*range(100), *range(100, len(image), 97), *range(len(image) - 6, len(image))):
        bad = bytearray(image)
        bad[at] ^= 0x40
        with pytest.raises(Corruption):
            SeqSet.decode([("x", bytes(bad))], [])
    with pytest.raises(Corruption):
        SeqSet.decode([("x", image[:-1])], [])


def test_members_across_an_empty_chunk_a_full_one_and_a_partial_one() -> None:
    real = SeqSet()
    real.add_range(2 * CHUNK_SEQS, 4 * CHUNK_SEQS + 10)
    assert real.members(5, 9 * CHUNK_SEQS, 3) == [2 * CHUNK_SEQS, 2 * CHUNK_SEQS + 1, 2 * CHUNK_SEQS + 2]
    assert len(real.members(5, 9 * CHUNK_SEQS, 1 << 30)) == real.count
