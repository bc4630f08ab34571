"""Configurations: what a change comes to, what is refused and why, the bytes; consecutive quorums meet (R8)."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jetstore.errors import ConfChangeRefused, Corruption, FormatUnknown
from jetstore.raft.membership import (
    MEMBERS_MAX,
    ChangeKind,
    ChangeStep,
    ConfChange,
    Configuration,
    NodeIncarnation,
    Transition,
    decode_configuration,
    is_configuration,
)
from jetstore.raft.quorum import is_quorum

GOLDEN = Path(__file__).parent.parent / "golden" / "format" / "raft-configuration-0.hex"


def three() -> Configuration:
    return Configuration.founding([("A", 1), ("B", 1), ("C", 1)])


def test_founding_numbers_the_members_from_one() -> None:
    found = three()
    assert found.voters == {1, 2, 3}
    assert found.members[2] == NodeIncarnation("B", 1)
    assert found.next_member == 4
    assert not found.is_joint
    assert found.all_members == (1, 2, 3)


def test_a_learner_gets_a_new_number_and_no_vote() -> None:
    found = three().changed(ConfChange.add_learner("D", 7))
    assert found.voters == {1, 2, 3}
    assert found.learners == {4}
    assert found.members[4] == ("D", 7)
    assert found.is_learner(4)
    assert not found.is_voter(4)


def test_a_learner_may_get_a_number_that_was_set_aside() -> None:
    before = Configuration.founding([("a", 1)])
    after = before.changed(ConfChange.add_learner("b", 1, 7))
    assert (after.learners, after.next_member) == ({7}, 8)
    with pytest.raises(ConfChangeRefused, match="given before"):
        after.changed(ConfChange.add_learner("c", 1, 3))


def test_promote_and_demote_move_one_member() -> None:
    found = three().changed(ConfChange.add_learner("D", 1)).changed(ConfChange.promote(4))
    assert (found.voters, found.learners) == ({1, 2, 3, 4}, frozenset())
    found = found.changed(ConfChange.demote(1))
    assert (found.voters, found.learners) == ({2, 3, 4}, {1})


def test_a_number_is_never_given_twice() -> None:
    found = three().changed(ConfChange.add_learner("D", 1)).changed(ConfChange.remove(4))
    assert found.all_members == (1, 2, 3)
    found = found.changed(ConfChange.add_learner("D", 2))
    assert found.all_members == (1, 2, 3, 5)
    found = found.changed(ConfChange.remove(5)).changed(ConfChange.add_voter("E", 1))
    assert found.voters == {1, 2, 3, 6}


def test_replace_is_one_joint_change() -> None:
    """STORAGE: {A, B, C1} → {A, B, C2}, the new one being a learner of the same node already."""
    learner = three().changed(ConfChange.add_learner("C", 2))
    joint = learner.changed(ConfChange.replace(3, 4))
    assert joint.is_joint
    assert joint.auto_leave
    assert (joint.voters, joint.voters_outgoing) == ({1, 2, 4}, {1, 2, 3})
    assert joint.members[3] == ("C", 1)
    left = joint.changed(ConfChange.leave_joint())
    assert (left.voters, left.is_joint, left.auto_leave) == ({1, 2, 4}, False, False)
    assert left.all_members == (1, 2, 4)
    assert left.member_on("C") == 4
    assert left.member_on("X") == 0


def test_a_voter_that_becomes_a_learner_waits_while_joint() -> None:
    four = three().changed(ConfChange.add_voter("D", 1))
    steps = (ChangeStep(ChangeKind.DEMOTE, 1), ChangeStep(ChangeKind.REMOVE, 2))
    joint = four.changed(ConfChange(steps, auto_leave=False))
    assert (joint.voters, joint.voters_outgoing) == ({3, 4}, {1, 2, 3, 4})
    assert (joint.learners, joint.learners_next) == (frozenset(), {1})
    assert not joint.auto_leave
    assert joint.is_voter(1)
    left = joint.changed(ConfChange.leave_joint())
    assert (left.voters, left.learners) == ({3, 4}, {1})


def test_one_voter_to_three_goes_by_learners_and_one_joint_change() -> None:
    found = Configuration.founding([("A", 1)])
    found = found.changed(ConfChange.add_learner("B", 1)).changed(ConfChange.add_learner("C", 1))
    joint = found.changed(ConfChange.promote(2, 3))
    assert (joint.voters, joint.voters_outgoing) == ({1, 2, 3}, {1})
    assert joint.changed(ConfChange.leave_joint()).voters == {1, 2, 3}


def test_a_simple_change_stays_simple_and_may_be_demanded_joint() -> None:
    assert not three().changed(ConfChange.remove(3)).is_joint
    assert three().changed(ConfChange(ConfChange.remove(3).steps, Transition.JOINT)).is_joint


JOINT = three().changed(ConfChange.remove(2, 3))
LEARNING = three().changed(ConfChange.add_learner("D", 1))


@pytest.mark.parametrize(
    ("before", "change", "text"),
    [
        (three(), ConfChange.leave_joint(), "no joint change to leave"),
        (JOINT, ConfChange.remove(1), "joint change is under way"),
        (three(), ConfChange.remove(1, 2, 3), "no voter would be left"),
        (three(), ConfChange.remove(9), "member 9 is not in the group"),
        (three(), ConfChange.promote(9), "member 9 is not in the group"),
        (three(), ConfChange.promote(2), "member 2 is a voter already"),
        (LEARNING, ConfChange.demote(4), "member 4 is a learner already"),
        (three(), ConfChange.add_voter("A", 2), "two voters on node 'A': members 1 and 4"),
        (LEARNING, ConfChange.add_learner("D", 2), "two learners on node 'D': members 4 and 5"),
        (three(), ConfChange((ChangeStep(ChangeKind.ADD_VOTER),)), "no node named"),
        (three(), ConfChange(ConfChange.remove(2, 3).steps, Transition.SIMPLE), r"this one changes \[2, 3\]"),
        (three(), ConfChange.add_learner("", 1), "1 to 255 bytes"),
        (three(), ConfChange.add_learner("x" * 256, 1), "1 to 255 bytes"),
        (three(), ConfChange.add_learner("D", 1 << 64), "does not fit 64 bits"),
    ],
)
def test_what_does_not_fit_is_named(before: Configuration, change: ConfChange, text: str) -> None:
    with pytest.raises(ConfChangeRefused, match=text):
        before.changed(change)


def test_a_configuration_that_is_none_is_refused() -> None:
    node = NodeIncarnation("A", 1)
    other = NodeIncarnation("B", 1)
    with pytest.raises(ConfChangeRefused, match="without a role"):
        Configuration(frozenset({1}), {1: node, 2: other}, 3)
    with pytest.raises(ConfChangeRefused, match="not below the next number"):
        Configuration(frozenset({1}), {1: node}, 1)
    with pytest.raises(ConfChangeRefused, match="learner and voter at once"):
        Configuration(frozenset({1}), {1: node}, 2, learners=frozenset({1}))
    with pytest.raises(ConfChangeRefused, match="outgoing half only"):
        Configuration(frozenset({1}), {1: node, 2: other}, 3, learners_next=frozenset({2}))
    with pytest.raises(ConfChangeRefused, match="no voter"):
        Configuration(frozenset(), {1: node}, 2, learners=frozenset({1}))
    with pytest.raises(ConfChangeRefused, match="nothing to leave"):
        Configuration(frozenset({1}), {1: node}, 2, auto_leave=True)
    many = {number: NodeIncarnation(f"n{number}", 1) for number in range(1, MEMBERS_MAX + 2)}
    with pytest.raises(ConfChangeRefused, match="at most 64"):
        Configuration(frozenset(many), many, MEMBERS_MAX + 2)


def test_nobody_is_a_configuration_that_decides_nothing() -> None:
    nobody = Configuration.none()
    assert nobody.all_members == ()
    assert decode_configuration(nobody.encode()) == nobody
    assert not is_quorum(nobody.voters, nobody.voters_outgoing, {1})


def test_it_cannot_be_changed_from_outside() -> None:
    members = {1: NodeIncarnation("A", 1)}
    found = Configuration(frozenset({1}), members, 2)
    members[2] = NodeIncarnation("B", 1)
    assert found.all_members == (1,)
    assert dict(found.members) == {1: ("A", 1)}
    with pytest.raises(TypeError):
        found.members[2] = NodeIncarnation("B", 1)  # type: ignore[index]
    assert hash(found) == hash(Configuration(frozenset({1}), {1: NodeIncarnation("A", 1)}, 2))


# -- bytes ------------------------------------------------------------------------------------------------------------


def golden() -> bytes:
    lines = [line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    return bytes.fromhex("".join(line[8:].replace(" ", "") for line in lines))


def example() -> Configuration:
    """Members 1, 2 and 5 become voters in place of 1, 3 and 4; 4 will learn, 6 learns already."""
    return Configuration(
        frozenset({1, 2, 5}),
        {
            1: NodeIncarnation("alpha", 1),
            2: NodeIncarnation("beta", 3),
            3: NodeIncarnation("gamma", 1),
            4: NodeIncarnation("delta", 258),
            5: NodeIncarnation("gamma", 2),
            6: NodeIncarnation("zêta", 1),
        },
        9,
        frozenset({1, 3, 4}),
        frozenset({6}),
        frozenset({4}),
        True,
    )


def test_the_golden_bytes() -> None:
    """Format goldens are append-only: a new version adds a file, this one must still be read."""
    assert example().encode() == golden()
    assert decode_configuration(golden()) == example()
    assert is_configuration(golden())
    assert not is_configuration(b"")


@pytest.mark.parametrize("at", range(len(golden())))
def test_a_flipped_byte_is_never_another_encoding_of_the_same(at: int) -> None:
    """Bytes come from a checksummed record; still nothing but a configuration with these very bytes is accepted."""
    for flip in (1, 0x80):
        data = bytearray(golden())
        data[at] ^= flip
        try:
            found = decode_configuration(bytes(data))
        except Corruption:
            continue
        assert found.encode() == bytes(data)
        assert found != example()


def test_bytes_that_are_no_configuration() -> None:
    data = golden()
    for cut in range(len(data)):
        with pytest.raises(Corruption):
            decode_configuration(data[:cut])
    with pytest.raises(Corruption, match="canonical"):
        decode_configuration(data + b"\0")
    with pytest.raises(FormatUnknown):
        decode_configuration(b"\xc0\x01" + data[2:])
    with pytest.raises(FormatUnknown):
        decode_configuration(data[:2] + b"\x02" + data[3:])
    with pytest.raises(FormatUnknown):
        decode_configuration(data[:29] + b"\x10" + data[30:])


# -- machine ----------------------------------------------------------------------------------------------------------


def quorums(configuration: Configuration) -> list[frozenset[int]]:
    """The sets of voters that decide something and would not without any one of them."""
    c = configuration
    ids = sorted(c.all_voters)
    found: list[frozenset[int]] = []
    for size in range(1, len(ids) + 1):
        for chosen in map(frozenset, combinations(ids, size)):
            if is_quorum(c.voters, c.voters_outgoing, chosen) and not any(smaller < chosen for smaller in found):
                found.append(chosen)
    return found


class Membership(RuleBasedStateMachine):
    """Random changes; a model of sets says what is left; any quorum before meets any quorum after (R8)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Configuration.none()
        self.given: set[int] = set()
        self.nodes = 0

    @initialize(count=st.integers(1, 5))
    def found(self, count: int) -> None:
        self.now = Configuration.founding([(f"n{i}", 1) for i in range(count)])
        self.given = set(range(1, count + 1))
        self.nodes = count

    def move(self, change: ConfChange) -> bool:
        before = self.now
        try:
            after = before.changed(change)
        except ConfChangeRefused:
            return False
        for one in quorums(before):
            for other in quorums(after):
                assert one & other, f"{sorted(one)} and {sorted(other)} do not meet"
        new = set(after.all_members) - set(before.all_members)
        assert not new & self.given, "a number was given twice"
        assert after.next_member >= before.next_member
        self.given |= new
        assert decode_configuration(after.encode()) == after
        self.now = after
        return True

    def pick(self, data: st.DataObject, wanted: frozenset[int]) -> int:
        return data.draw(st.sampled_from(sorted(wanted) or [999]))

    @rule(voter=st.booleans())
    def add(self, voter: bool) -> None:
        if len(self.now.members) >= 7:
            return
        self.nodes += 1
        name = f"n{self.nodes}"
        moved = self.move(ConfChange.add_voter(name, 1) if voter else ConfChange.add_learner(name, 1))
        assert moved != self.now.is_joint
        if moved:
            newest = max(self.now.members)
            assert self.now.is_voter(newest) == voter

    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        member = self.pick(data, self.now.learners)
        if self.move(ConfChange.promote(member)):
            assert member in self.now.voters

    @rule(data=st.data(), joint=st.booleans())
    def demote(self, data: st.DataObject, joint: bool) -> None:
        member = self.pick(data, self.now.voters)
        steps = ConfChange.demote(member).steps
        if self.move(ConfChange(steps, Transition.JOINT if joint else Transition.AUTO)):
            assert member in (self.now.learners_next if joint else self.now.learners)

    @rule(data=st.data(), count=st.integers(1, 3), automatic=st.booleans())
    def remove(self, data: st.DataObject, count: int, automatic: bool) -> None:
        victims = data.draw(st.permutations(sorted(self.now.members)))[:count]
        if self.move(ConfChange(ConfChange.remove(*victims).steps, auto_leave=automatic)):
            assert not set(victims) & self.now.voters
            if self.now.is_joint:
                assert self.now.auto_leave == automatic
            else:
                assert not set(victims) & set(self.now.members)

    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        old = self.pick(data, self.now.voters)
        new = self.pick(data, self.now.learners)
        before = self.now.voters
        if self.move(ConfChange.replace(old, new)):
            assert self.now.is_joint
            assert self.now.voters == (before - {old}) | {new}
            assert self.now.voters_outgoing == before

    @rule()
    def leave(self) -> None:
        was_joint, after, learners = self.now.is_joint, self.now.voters, self.now.learners | self.now.learners_next
        assert self.move(ConfChange.leave_joint()) == was_joint
        if was_joint:
            assert (self.now.voters, self.now.learners) == (after, learners)
            assert not self.now.is_joint

    @invariant()
    def it_is_whole(self) -> None:
        if self.given:
            assert self.now.voters
        assert set(self.now.all_members) == self.now.all_voters | self.now.learners | self.now.learners_next


TestMembership = Membership.TestCase
TestMembership.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_two_voters_differing_need_a_joint_change(old: int, new: int, shared: int) -> None:
    """Why: without the joint step there are majorities of old and new that do not meet."""
    shared = min(shared, old, new)
    before = frozenset(range(old))
    after = frozenset(range(old - shared, old - shared + new))
    apart = any(
        not set(one) & set(other)
        for one in combinations(sorted(before), old // 2 + 1)
        for other in combinations(sorted(after), new // 2 + 1)
    )
    if len(before ^ after) <= 1:
        assert not apart
