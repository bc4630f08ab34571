"""Changing members as a leader: guards, what follows a commit, who may stand, who is told."""

from __future__ import annotations

import pytest
from raft_paper import K, alone, configuration, entry, group, hear, isolate, propose, run, said, settle, tick, win
from raft_world import World

from jetstore.errors import ConfChangeRefused, NotNow
from jetstore.raft.core import RaftOptions, Role
from jetstore.raft.membership import ChangeKind, ChangeStep, ConfChange, Configuration, NodeIncarnation, Transition
from jetstore.raft.message import Message
from jetstore.raft.ready import Removed
from jetstore.types import RaftIndex, Term


def change(world: World, number: int, wish: ConfChange, *, is_forced: bool = False) -> None:
    member = world.members[number]
    member.running.propose_conf_change(wish, is_forced=is_forced)
    member.pump()


def join(world: World, number: int) -> None:
    world.add(number).start()


def with_learner(options: RaftOptions | None = None) -> World:
    world = group(options=options)
    change(world, 1, ConfChange.add_learner("n4", 1))
    join(world, 4)
    run(world, 3)
    return world


def test_one_change_at_a_time() -> None:
    world = group()
    isolate(world, 1)
    change(world, 1, ConfChange.add_learner("n4", 1))
    with pytest.raises(NotNow, match="another configuration change"):
        world.members[1].running.propose_conf_change(ConfChange.add_learner("n5", 1))


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    member = alone()
    win(member)
    with pytest.raises(NotNow, match="nothing of this leader's term"):
        member.running.propose_conf_change(ConfChange.remove(3))
    follower = alone()
    with pytest.raises(NotNow, match="no leader"):
        follower.running.propose_conf_change(ConfChange.remove(3))


def test_a_learner_far_behind_is_not_promoted() -> None:
    world = with_learner(RaftOptions(promote_lag_entries=2))
    isolate(world, 4)
    propose(world, 1, b"a", b"b", b"c")
    settle(world, 1, 2, 3)
    with pytest.raises(NotNow, match="learner 4 is 3 entries behind"):
        world.members[1].running.propose_conf_change(ConfChange.promote(4))
    world.cuts.clear()
    run(world, 3)
    change(world, 1, ConfChange.promote(4))
    settle(world)
    assert world.members[4].running.configuration.voters == {1, 2, 3, 4}


def test_a_removal_that_leaves_no_live_quorum_is_refused_unless_forced() -> None:
    world = group()
    isolate(world, 3)
    run(world, 25, 1, 2)
    with pytest.raises(ConfChangeRefused, match=r"\[1, 3\] only \[1\] are alive"):
        world.members[1].running.propose_conf_change(ConfChange.remove(2))
    world.members[1].running.propose_conf_change(ConfChange.remove(2), is_forced=True)
    assert world.members[1].running.configuration.voters == {1, 3}


def test_a_joint_change_is_left_when_it_is_committed() -> None:
    world = with_learner()
    change(world, 1, ConfChange.replace(3, 4))
    assert world.members[1].running.configuration.is_joint
    settle(world)
    now = world.members[1].running.configuration
    assert (now.voters, now.is_joint) == ({1, 2, 4}, False)


def test_a_joint_change_without_auto_leave_stays_until_told() -> None:
    world = group()
    steps = (ChangeStep(ChangeKind.REMOVE, 3),)
    change(world, 1, ConfChange(steps, Transition.JOINT, auto_leave=False))
    settle(world)
    leader = world.members[1].running
    assert leader.configuration.is_joint
    run(world, 2)
    assert not leader.quiesce()
    change(world, 1, ConfChange.leave_joint())
    settle(world)
    assert leader.configuration.voters == {1, 2}


def test_a_new_leader_leaves_the_joint_configuration_it_finds() -> None:
    world = with_learner()
    leader = world.members[1]
    change(world, 1, ConfChange.replace(3, 4))
    settle(world, 1, 2)
    world.in_flight.clear()
    leader.crash()
    world.members[2].running.forget_leader()
    for number in (2, 3, 4):
        world.members[number].running.forget_leader()
    run(world, 60, 2, 3, 4)
    assert world.members[2].running.configuration.voters == {1, 2, 4}
    assert not world.members[2].running.configuration.is_joint


def test_a_leader_that_removes_itself_hands_over_when_that_is_committed() -> None:
    world = group()
    leader = world.members[1]
    propose(world, 1, b"a")
    change(world, 1, ConfChange.remove(1))
    assert leader.running.is_leader, "it leads on, and does not count itself"
    settle(world)
    assert leader.running.role is Role.FOLLOWER
    leads = [m.number for m in world.members.values() if m.running.is_leader]
    assert leads == [2], "without waiting for a timeout"
    assert leader.is_archived


def test_a_leader_that_removes_itself_does_not_count_itself() -> None:
    member = alone()
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=1)
    hear(member, K.HEARTBEAT_RESPONSE, 3, 1, sequence=1)
    member.running.propose_conf_change(ConfChange.remove(1))
    said(member)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=2, last_index=2, last_term=1, sequence=9)
    assert member.running.log.committed_index == 1
    tick(member, 10)
    assert member.running.is_leader
    hear(member, K.APPEND_RESPONSE, 3, 1, index=2, last_index=2, last_term=1, sequence=9)
    assert member.running.log.committed_index == 2
    assert member.running.role is Role.FOLLOWER


def test_who_demoted_itself_and_nobody_knows_may_still_stand() -> None:
    """Its log is the longest: nobody else can win, so it has to bring its own demotion about."""
    world = group(2)
    isolate(world, 1)
    change(world, 1, ConfChange.demote(1))
    world.in_flight.clear()
    world.members[1].crash()
    world.members[1].start()
    world.cuts.clear()
    run(world, 80)
    assert world.members[2].running.is_leader
    assert all(m.running.configuration.voters == {2} for m in world.members.values())


def test_a_configuration_that_is_truncated_is_gone() -> None:
    world = group()
    isolate(world, 1)
    change(world, 1, ConfChange.remove(3))
    assert world.members[1].running.configuration.voters == {1, 2}
    world.members[2].running.forget_leader()
    world.members[3].running.forget_leader()
    run(world, 40, 2, 3)
    propose(world, next(n for n in (2, 3) if world.members[n].running.is_leader), b"a")
    world.in_flight.clear()
    world.cuts.clear()
    run(world, 40)
    assert all(m.running.configuration.voters == {1, 2, 3} for m in world.members.values())


def test_removed_members_are_told_and_stop() -> None:
    world = group()
    isolate(world, 3)
    run(world, 12, 1, 2)
    change(world, 1, ConfChange.remove(3))
    settle(world, 1, 2)
    world.in_flight.clear()
    world.cuts.clear()
    run(world, 30)
    assert world.members[3].is_archived
    assert tick(world.members[3], 60) == []


def test_removal_is_told_once_and_only_of_those_who_were_members() -> None:
    member = alone()
    hear(member, K.REMOVED, 2, 0, index=7)
    member.running.take_events()
    member.running.step(Message(K.REMOVED, 2, 1, Term(0), RaftIndex(8)))
    assert member.running.take_events() == []
    newer = alone()
    (message,) = hear(newer, K.PRE_VOTE, 9, 1)
    assert not message.is_rejected, "a number that was never given: its configuration may be newer"


def test_what_strangers_grant_or_acknowledge_does_not_count() -> None:
    member = alone()
    member.running.campaign()
    said(member)
    hear(member, K.PRE_VOTE_RESPONSE, 8, 1)
    hear(member, K.PRE_VOTE_RESPONSE, 9, 1)
    assert member.running.role is Role.PRE_CANDIDATE
    hear(member, K.APPEND_RESPONSE, 9, 7)
    assert member.running.term == 0, "nor the terms they speak in"


def test_a_removal_is_an_event_when_it_is_committed() -> None:
    world = group()
    change(world, 1, ConfChange.remove(3))
    settle(world)
    assert not world.members[3].running.is_removed, "it is sent nothing any more"
    follower = alone(term=1)
    without = configuration(3).changed(ConfChange.remove(1))
    follower.running.step(Message(K.APPEND, 2, 1, Term(1), entries=(entry(1, 1, without.encode()),), sequence=1))
    while follower.running.has_ready():
        follower.running.stored(follower.running.ready().token)
    assert not [e for e in follower.running.take_events() if isinstance(e, Removed)]
    follower.running.step(Message(K.HEARTBEAT, 2, 1, Term(1), commit=RaftIndex(1), sequence=2))
    assert Removed(RaftIndex(1)) in follower.running.take_events()


def test_a_member_that_knows_of_no_group_takes_what_a_leader_sends_and_never_stands() -> None:
    world = World(lambda number: lambda below: 0)
    member = world.add(4)
    member.start()
    assert tick(member, 60) == []
    grown = Configuration(frozenset({1, 4}), {1: NodeIncarnation("n1", 1), 4: NodeIncarnation("n4", 1)}, 5, frozenset())
    member.running.step(Message(K.APPEND, 1, 4, Term(3), entries=(entry(1, 3, grown.encode()),), sequence=1))
    (message,) = said(member)
    assert (message.index, message.is_rejected) == (1, False)
    assert member.running.configuration == grown


def test_configurations_of_a_checkpoint_are_those_of_its_index() -> None:
    world = group()
    for name in ("n4", "n5"):
        change(world, 1, ConfChange.add_learner(name, 1))
        settle(world)
    core = world.members[1].running
    assert [len(core.configuration_at(RaftIndex(i)).learners) for i in (0, 1, 2, 3)] == [0, 0, 1, 2]
    core.compact(RaftIndex(3))
    assert len(core.configuration_at(RaftIndex(3)).learners) == 2


def test_transfer_is_for_voters_and_ends_with_the_target() -> None:
    world = with_learner()
    core = world.members[1].running
    for member in (4, 9):
        with pytest.raises(ConfChangeRefused, match="no voter"):
            core.transfer_leader(member)
    core.transfer_leader(1)
    assert core.status().transfer_to == 0
    isolate(world, 3)
    propose(world, 1, b"a")
    settle(world, 1, 2)
    change(world, 1, ConfChange.demote(3))
    core.transfer_leader(2)
    core.transfer_leader(2)
    assert core.status().transfer_to == 2
    with pytest.raises(NotNow, match="transferred"):
        core.propose(b"b")
    with pytest.raises(NotNow, match="transferred"):
        core.propose_conf_change(ConfChange.add_learner("n9", 1))


def test_a_transfer_waits_for_the_target_and_proposals_resume_after_one_timeout() -> None:
    member = alone()
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=1)
    member.running.propose(b"a")
    said(member)
    member.running.transfer_leader(3)
    assert [m for m in said(member) if m.kind is K.TIMEOUT_NOW] == []
    out = hear(member, K.APPEND_RESPONSE, 3, 1, index=2, last_index=2, last_term=1, sequence=8)
    assert [(m.kind, m.to) for m in out if m.kind is K.TIMEOUT_NOW] == [(K.TIMEOUT_NOW, 3)]
    hear(member, K.HEARTBEAT_RESPONSE, 2, 1, index=2, last_index=2, last_term=1, sequence=9)
    tick(member, 10)
    member.running.propose(b"b")


def test_a_transfer_to_a_voter_that_is_demoted_ends() -> None:
    member = alone(log=[1], term=1)
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 2, index=2, last_index=2, last_term=2, sequence=1)
    core = member.running
    core.transfer_leader(3)
    assert core.leading is not None
    core.append_from_leader([entry(3, 2, core.configuration.changed(ConfChange.demote(3)).encode())])
    assert core.status().transfer_to == 0
    core.propose(b"a")


def test_which_entries_carry_a_configuration() -> None:
    """So that a journal line can say of all others that they are none."""
    grown = configuration(1).changed(ConfChange.add_learner("n2", 1)).encode()
    member = alone(count=1, term=1)
    member.crash()
    member.disk.entries = [entry(1, 1), entry(2, 1, grown), entry(3, 1), entry(4, 1)]
    member.start()
    carriers = member.running.configurations.carriers
    assert carriers(RaftIndex(1), RaftIndex(4)) == carriers(RaftIndex(2), RaftIndex(2)) == [2]
    assert carriers(RaftIndex(1), RaftIndex(1)) == carriers(RaftIndex(3), RaftIndex(4)) == []
