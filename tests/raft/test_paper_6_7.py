"""Raft paper §6 (membership changes) and §7 (log compaction), rule by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from raft_paper import K, alone, group, hear, isolate, kinds, propose, run, settle, tick, values, win
from raft_world import World

from jetstore.errors import ConfChangeRefused, NotNow
from jetstore.raft.core import RaftOptions
from jetstore.raft.membership import ChangeKind, ChangeStep, ConfChange, NodeIncarnation, Transition
from jetstore.raft.message import Message
from jetstore.raft.ready import CheckpointFetch
from jetstore.types import RaftIndex, Term

JOINT = Transition.JOINT


def change(world: World, leader: int, wish: ConfChange) -> None:
    """Propose it and let everybody have it; new members' nodes start."""
    world.members[leader].running.propose_conf_change(wish)
    world.members[leader].pump()
    for number in world.members[leader].running.configuration.all_members:
        if number not in world.members:
            world.add(number).start()
    settle(world)


def grow(world: World, node: str) -> int:
    """Learner, caught up, voter. Its number."""
    change(world, 1, ConfChange.add_learner(node, 1))
    number = max(world.members)
    run(world, 2)
    change(world, 1, ConfChange.promote(number))
    run(world, 2)
    return number


# -- §6 ---------------------------------------------------------------------------------------------------------------


def test_paper_6_a_configuration_is_used_from_the_moment_it_is_in_the_log() -> None:
    world = group(3)
    world.members[1].running.propose_conf_change(ConfChange.remove(3))
    assert world.members[1].running.configuration.voters == {1, 2}
    assert world.members[2].running.configuration.voters == {1, 2, 3}
    world.members[1].pump()
    world.in_flight = [m for m in world.in_flight if m.to == 2]
    settle(world)
    assert world.members[2].running.configuration.voters == {1, 2}


def test_paper_6_it_is_taken_back_when_its_entry_is_truncated() -> None:
    world = group(3)
    isolate(world, 1)
    world.members[1].running.propose_conf_change(ConfChange.remove(3))
    world.members[1].pump()
    run(world, 30, 2, 3)
    world.cuts.clear()
    run(world, 5)
    assert world.members[1].running.configuration.voters == {1, 2, 3}


def test_paper_6_in_the_joint_configuration_both_majorities_commit() -> None:
    world = group(5)
    isolate(world, 4, 5)
    wish = ConfChange(ConfChange.remove(2, 3).steps, JOINT, auto_leave=False)
    world.members[1].running.propose_conf_change(wish, is_forced=True)
    world.members[1].pump()
    settle(world)
    leader = world.members[1].running
    assert leader.configuration.is_joint
    assert leader.log.committed_index == 1, "1, 2, 3 are a majority of the old five, not of {1 4 5}"
    world.cuts.clear()
    run(world, 3)
    assert leader.log.committed_index >= 2


def test_paper_6_in_the_joint_configuration_both_majorities_elect() -> None:
    world = group(5)
    change(world, 1, ConfChange(ConfChange.remove(2, 3).steps, JOINT, auto_leave=False))
    run(world, 2)
    world.members[1].crash()
    isolate(world, 4, 5)
    run(world, 60)
    assert not any(m.running.is_leader for m in world.members.values() if m.is_up)
    world.cuts.clear()
    run(world, 60)
    assert any(m.running.is_leader for m in world.members.values() if m.is_up)


def test_paper_6_the_leader_leaves_the_joint_configuration_when_it_is_committed() -> None:
    world = group(3)
    change(world, 1, ConfChange.add_learner("n4", 1))
    run(world, 2)
    change(world, 1, ConfChange.replace(3, 4))
    run(world, 2)
    for number in (1, 2, 4):
        configuration = world.members[number].running.configuration
        assert (configuration.voters, configuration.is_joint) == ({1, 2, 4}, False)


def test_paper_6_a_new_leader_leaves_a_joint_configuration_that_it_finds() -> None:
    world = group(3)
    change(world, 1, ConfChange.add_learner("n4", 1))
    run(world, 2)
    isolate(world, 3)  # so that leaving has to wait for somebody else
    world.members[1].running.propose_conf_change(ConfChange.replace(3, 4))
    world.members[1].pump()
    settle(world)
    world.members[1].crash()
    world.members[1].start()
    world.cuts.clear()
    run(world, 60)
    leader = next(m for m in world.members.values() if m.running.is_leader)
    assert not leader.running.configuration.is_joint
    assert leader.running.configuration.voters == {1, 2, 4}


def test_paper_6_new_members_learn_before_they_vote() -> None:
    """A member without entries would hold up commits: a learner that is behind is not promoted."""
    world = group(3, options=RaftOptions(promote_lag_entries=2))
    propose(world, 1, b"a", b"b", b"c", b"d")
    settle(world)
    world.members[1].running.propose_conf_change(ConfChange.add_learner("n4", 1))
    world.members[1].pump()
    settle(world)
    with pytest.raises(NotNow, match="learner 4 is 6 entries behind"):
        world.members[1].running.propose_conf_change(ConfChange.promote(4))
    world.add(4).start()
    run(world, 3)
    world.members[1].running.propose_conf_change(ConfChange.promote(4))


def test_paper_6_a_leader_that_is_not_in_the_new_configuration_steps_down_when_it_is_committed() -> None:
    world = group(3)
    leader = world.members[1]
    leader.running.propose_conf_change(ConfChange.remove(1))
    leader.pump()
    assert leader.running.is_leader
    message = next(m for m in world.in_flight if m.to == 2 and m.kind is K.APPEND)
    world.in_flight = []
    world.deliver(message)
    world.members[2].pump()
    settle(world, 1, 2)
    assert leader.running.is_leader, "it does not count itself: one of {2 3} is no majority"
    run(world, 4)
    assert not leader.running.is_leader
    assert leader.is_archived


def test_paper_6_removed_members_do_not_disturb() -> None:
    """They time out and stand; who hears a leader does not listen (§6, third problem)."""
    world = group(3)
    isolate(world, 3)
    change(world, 1, ConfChange.remove(3))
    world.cuts.clear()
    term = world.members[1].running.term
    for _ in range(50):
        world.members[3].running.tick()
        world.members[3].pump()
        run(world, 1, 1, 2)
        settle(world)
    assert world.members[1].running.is_leader
    assert world.members[1].running.term == term
    assert world.members[3].is_archived, "and it is told"


@pytest.mark.parametrize("kind", [K.VOTE, K.PRE_VOTE])
def test_paper_6_requests_for_votes_are_disregarded_while_a_leader_is_heard(kind: object) -> None:
    member = alone(term=1)
    hear(member, K.HEARTBEAT, 2, 1)
    assert hear(member, kind, 3, 9) == []  # type: ignore[arg-type]
    assert member.running.term == 1
    tick(member, 10)
    assert hear(member, kind, 3, 9) != []  # type: ignore[arg-type]


def test_paper_6_a_transfer_is_heard_although_a_leader_is() -> None:
    member = alone(term=1)
    hear(member, K.HEARTBEAT, 2, 1)
    (reply,) = hear(member, K.VOTE, 3, 2, is_forced=True)
    assert not reply.is_rejected


def test_paper_6_from_one_to_five_and_back() -> None:
    world = group(1)
    for node in ("b", "c", "d", "e"):
        grow(world, node)
        propose(world, 1, node.encode())
        settle(world)
    assert world.members[1].running.configuration.voters == {1, 2, 3, 4, 5}
    change(world, 1, ConfChange.remove(2, 3))
    run(world, 3)
    change(world, 1, ConfChange.remove(4))
    run(world, 3)
    change(world, 1, ConfChange.remove(5))
    run(world, 3)
    leader = world.members[1].running
    assert leader.configuration.voters == {1}
    propose(world, 1, b"alone")
    assert world.members[1].applied_index == leader.log.last_index


def test_paper_6_a_removal_that_leaves_no_living_quorum_is_refused_unless_forced() -> None:
    world = group(3)
    world.members[2].crash()
    run(world, 25, 1, 3)
    leader = world.members[1].running
    with pytest.raises(ConfChangeRefused, match="alive"):
        leader.propose_conf_change(ConfChange.remove(3))
    leader.propose_conf_change(ConfChange.remove(3), is_forced=True)


def test_paper_6_votes_and_acknowledgements_of_strangers_do_not_count() -> None:
    member = alone(3)
    member.running.campaign()
    for stranger in (7, 8, 9):
        hear(member, K.PRE_VOTE_RESPONSE, stranger, 1)
    assert member.running.term == 0
    win(member)
    for stranger in (7, 8):
        hear(member, K.APPEND_RESPONSE, stranger, 1, index=RaftIndex(1), last_index=RaftIndex(1), sequence=9)
    assert member.running.log.committed_index == 0


def test_paper_6_votes_of_learners_do_not_count() -> None:
    member = alone(3)
    member.crash()
    configuration = member.disk.checkpoint.configuration
    for node in ("n4", "n5"):
        configuration = configuration.changed(ConfChange.add_learner(node, 1))
    member.disk.checkpoint = replace(member.disk.checkpoint, configuration=configuration)
    member.start()
    member.running.campaign()
    for learner in (4, 5):
        hear(member, K.PRE_VOTE_RESPONSE, learner, 1)
    assert member.running.term == 0
    hear(member, K.PRE_VOTE_RESPONSE, 2, 1)
    for learner in (4, 5):
        hear(member, K.VOTE_RESPONSE, learner, 1)
    assert not member.running.is_leader
    hear(member, K.VOTE_RESPONSE, 3, 1)
    assert member.running.is_leader


def test_paper_6_the_same_node_comes_back_under_another_number() -> None:
    world = group(3)
    world.members[3].crash()
    steps = (ChangeStep(ChangeKind.ADD_LEARNER, node=NodeIncarnation("n3", 2)),)
    change(world, 1, ConfChange(steps))
    run(world, 3)
    change(world, 1, ConfChange.replace(3, 4))
    run(world, 3)
    configuration = world.members[1].running.configuration
    assert configuration.voters == {1, 2, 4}
    assert configuration.members[4] == ("n3", 2)
    assert values(world.members[4])[:1] == [b""]


# -- §7 ---------------------------------------------------------------------------------------------------------------


def test_paper_7_each_member_compacts_for_itself() -> None:
    world = group(3)
    propose(world, 1, b"a", b"b")
    settle(world)
    world.members[2].compact()
    propose(world, 1, b"c")
    settle(world)
    assert values(world.members[2]) == [b"c"]
    assert values(world.members[1]) == [b"", b"a", b"b", b"c"]
    assert world.members[2].state == world.members[1].state


def test_paper_7_what_is_not_applied_is_not_dropped() -> None:
    member = alone(log=[1, 1, 1], term=1)
    hear(member, K.APPEND, 2, 1, index=RaftIndex(3), log_term=Term(1), commit=RaftIndex(2), sequence=1)
    with pytest.raises(AssertionError):
        member.running.compact(RaftIndex(3))


def test_paper_7_a_follower_that_needs_what_is_dropped_gets_a_checkpoint() -> None:
    world = group(3)
    world.members[3].crash()
    propose(world, 1, b"a", b"b")
    settle(world)
    world.members[1].compact()
    world.members[2].compact()
    world.members[3].start()
    run(world, 3)
    assert world.members[3].applied_index == 3
    assert world.members[3].state == world.members[1].state
    propose(world, 1, b"c")
    settle(world)
    assert values(world.members[3]) == [b"c"]


def test_paper_7_a_checkpoint_replaces_a_log_that_contradicts_it() -> None:
    """Its entries of another term go, all of them."""
    world = group(3)
    isolate(world, 1)
    propose(world, 1, b"x", b"y", b"z", b"lost")
    elect_others(world)
    propose(world, 2, b"a")
    settle(world, 2, 3)
    world.members[2].compact()
    world.members[3].compact()
    world.in_flight.clear()
    world.cuts.clear()
    run(world, 5)
    assert world.members[1].state == world.members[2].state
    propose(world, 2, b"b")
    settle(world)
    assert values(world.members[1]) == [b"b"]


def elect_others(world: World) -> None:
    for number in (2, 3):
        world.members[number].running.forget_leader()
    world.members[2].running.campaign()
    world.members[2].pump()
    settle(world, 2, 3)
    assert world.members[2].running.is_leader


def test_paper_7_a_checkpoint_of_a_prefix_keeps_what_follows_it() -> None:
    """A retransmission by mistake, or a repair: entries behind it stay."""
    member = alone(log=[1, 1, 1, 1], term=1)
    hear(member, K.APPEND, 2, 1, index=RaftIndex(4), log_term=Term(1), commit=RaftIndex(1), sequence=1)
    member.running.restored(RaftIndex(3), Term(1), member.running.configuration)
    log = member.running.log
    assert (log.first_index, log.last_index, log.committed_index, log.applied_index) == (4, 4, 3, 3)


def test_paper_7_who_has_what_the_checkpoint_holds_declines_it() -> None:
    member = alone(log=[1, 1, 1], term=1)
    hear(member, K.APPEND, 2, 1, index=RaftIndex(3), log_term=Term(1), commit=RaftIndex(3), sequence=1)
    (reply,) = hear(member, K.SNAPSHOT, 2, 1, index=RaftIndex(2), log_term=Term(1), sequence=2)
    assert (reply.kind, reply.index) == (K.APPEND_RESPONSE, 3)


def test_paper_7_the_leader_offers_it_once_and_again_when_it_is_not_taken() -> None:
    member = alone(log=[1, 1], term=1)
    win(member)
    tick(member)
    fields = {"index": RaftIndex(3), "last_index": RaftIndex(3), "last_term": Term(2), "sequence": 90}
    hear(member, K.APPEND_RESPONSE, 2, 2, **fields)
    member.compact()
    member.running.propose(b"x")
    member.pump()
    messages = hear(
        member, K.APPEND_RESPONSE, 3, 2, is_rejected=True, index=RaftIndex(2), hint_index=RaftIndex(0), sequence=91
    )
    for _ in range(4):
        messages += tick(member)
        hear(member, K.HEARTBEAT_RESPONSE, 3, 2, sequence=200)
    assert [k for k in kinds(messages) if k[0] is K.SNAPSHOT] == [(K.SNAPSHOT, 3)]
    member.running.report_snapshot(3, RaftIndex(0))
    member.pump()
    again = tick(member)
    assert (K.SNAPSHOT, 3) in kinds(again)


def test_paper_7_events_name_who_fetches_what_from_whom() -> None:
    member = alone(term=1)
    member.running.step(Message(K.SNAPSHOT, 2, 1, Term(1), index=RaftIndex(7), log_term=Term(1), sequence=1))
    assert CheckpointFetch(2, RaftIndex(7), Term(1)) in member.running.take_events()


def test_paper_7_a_configuration_is_part_of_the_checkpoint() -> None:
    world = group(3)
    change(world, 1, ConfChange.add_learner("n4", 1))
    run(world, 3)
    propose(world, 1, b"a")
    settle(world)
    world.members[1].compact()
    world.members[1].crash()
    world.members[1].start()
    assert world.members[1].running.configuration.learners == {4}
