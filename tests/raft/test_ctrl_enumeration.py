"""Choreography 6 of the fault matrix: 4 committed entries on 3 replicas, every pattern of damaged copies.

Goal: as long as one intact copy of each entry exists, the group recovers exactly; where an entry has none, it waits:
nothing is dropped, replaced, applied or accepted from there on. 2,401 = 7⁴ of the 4,096 patterns recover (each entry
has at least one intact copy), 1,695 wait. Method: real cores and the repair protocol; no pattern is told what to
expect, only counted. The same enumeration as in Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage"
(FAST '18).

Members are alike, so patterns that differ only in who has which damage stand for each other and are counted as often as
they occur; JETSTORE_DEEP runs each of the 4,096, and each with one of the members crashed at first and back later.
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from deep import IS_DEEP
from raft_paper import configuration, entry, run
from raft_world import Member, World

from jetstore.errors import NotNow
from jetstore.raft.core import RaftOptions
from jetstore.raft.ready import HardState
from jetstore.types import Term

ENTRIES = 4
MEMBERS = (1, 2, 3)
OPTIONS = RaftOptions(election_ticks=3, faulty_campaign_timeouts=1)
WHOLE = [(i, 1, b"e%d" % i) for i in range(1, ENTRIES + 1)]

Pattern = tuple[int, int, int]
"""Per member a bit mask: bit i - 1 set = its copy of entry i is damaged."""


def build(pattern: Pattern) -> World:
    world = World(lambda number: lambda bound: min(number - 1, bound - 1), OPTIONS)
    world.found(configuration(len(MEMBERS)))
    for member, mask in zip(world.members.values(), pattern, strict=True):
        member.disk.hard_state = HardState(Term(1), 0)
        member.disk.entries = [
            entry(index, term, None if mask >> (index - 1) & 1 else data) for index, term, data in WHOLE
        ]
    return world


def lost(pattern: Pattern) -> list[int]:
    """Entries without an intact copy, ascending."""
    one, two, three = pattern
    return [index for index in range(1, ENTRIES + 1) if (one & two & three) >> (index - 1) & 1]


def has_recovered(world: World) -> bool:
    return all(m.applied_index > ENTRIES for m in world.members.values())


def check_recovered(member: Member) -> None:
    """Byte for byte what it was, applied in order, and nothing unreadable left."""
    assert [(e.index, e.term, e.data) for e in member.disk.entries[:ENTRIES]] == WHOLE
    assert not member.running.log.faulty


def check_waits(member: Member, first_lost: int) -> None:
    """Nothing from the lost entry on was dropped, replaced, applied or accepted."""
    disk = member.disk
    assert disk.last[1] == ENTRIES, "its evidence was shortened or overwritten"
    assert [e.term for e in disk.entries] == [1] * ENTRIES
    for found, (_, _, data) in zip(disk.entries, WHOLE, strict=True):
        assert found.data in (None, data)
    assert disk.entries[first_lost - 1].data is None
    assert member.applied_index < first_lost
    with pytest.raises(NotNow):
        member.running.propose(b"x")


def outcome(world: World, pattern: Pattern) -> bool:
    """Whether it recovered; that it is whole, or waits rightly, is checked here."""
    for _ in range(8):
        run(world, OPTIONS.election_ticks)
        if has_recovered(world):
            break
    if has_recovered(world):
        for member in world.members.values():
            check_recovered(member)
        return True
    for member in world.members.values():
        check_waits(member, lost(pattern)[0])
    return False


def all_patterns() -> list[Pattern]:
    return list(product(range(1 << ENTRIES), repeat=len(MEMBERS)))


def weighed_patterns() -> list[tuple[Pattern, int]]:
    """What is to be run, and how many patterns it stands for."""
    if IS_DEEP:
        return [(pattern, 1) for pattern in all_patterns()]
    counts = Counter(tuple(sorted(pattern)) for pattern in all_patterns())
    # one way round or another: which of the members is the one that stands first must not matter
    return [(pattern[k % 3 :] + pattern[: k % 3], count) for k, (pattern, count) in enumerate(sorted(counts.items()))]  # type: ignore[misc]


def test_all_4096_damage_patterns() -> None:
    recovered = waiting = 0
    for pattern, count in weighed_patterns():
        world = build(pattern)
        for member in world.members.values():
            member.start()
        if outcome(world, pattern):
            assert not lost(pattern), f"{pattern} recovered, although entries {lost(pattern)} are gone"
            recovered += count
        else:
            assert lost(pattern), f"{pattern} waits, although each entry has an intact copy"
            waiting += count
    assert (recovered, waiting) == (2_401, 1_695)


@pytest.mark.parametrize("last", MEMBERS)
def test_damage_with_one_member_back_last(last: int) -> None:
    """Two members are up with what they have; the third returns. Before, nothing may be given up that it could have."""
    patterns = all_patterns() if IS_DEEP else all_patterns()[last::61]
    recovered = 0
    for pattern in patterns:
        world = build(pattern)
        for number, member in world.members.items():
            if number != last:
                member.start()
        run(world, 5 * OPTIONS.election_ticks)
        early = [m for n, m in world.members.items() if n != last]
        seen = [mask for number, mask in zip(MEMBERS, pattern, strict=True) if number != last]
        gone = [index for index in range(1, ENTRIES + 1) if (seen[0] & seen[1]) >> (index - 1) & 1]
        if gone:
            for member in early:
                check_waits(member, gone[0])
        world.members[last].start()
        is_whole = outcome(world, pattern)
        assert is_whole != bool(lost(pattern)), pattern
        recovered += is_whole
    if IS_DEEP:
        assert (recovered, len(patterns)) == (2_401, 4_096)
