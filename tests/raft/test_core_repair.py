"""Entries that exist and cannot be read: who votes, who stands, who is asked, what is dropped; amnesia."""

from __future__ import annotations

import pytest
from raft_paper import (
    K,
    alone,
    configuration,
    elect,
    entry,
    group,
    hear,
    isolate,
    propose,
    run,
    said,
    settle,
    tick,
    values,
    win,
)
from raft_world import Checkpoint, Member

from jetstore.errors import NotNow
from jetstore.raft.core import RaftOptions, Role
from jetstore.raft.log import Entry, RaftLog
from jetstore.raft.membership import ChangeKind, ChangeStep, ConfChange, Configuration, is_configuration
from jetstore.raft.message import Answer, Message
from jetstore.raft.ready import CheckpointFetch, Fenced, HardState
from jetstore.raft.repair import Resolution, answer
from jetstore.types import RaftIndex, Term


def damaged(member: Member, *indexes: int, with_line: bool = False) -> Member:
    """Started again with these entries unreadable. ``with_line``: nobody knows whether they are configurations."""
    member.crash()
    for index in indexes:
        assert member.disk.damage(index, with_line=with_line)
    member.start()
    return member


def leading_faulty(options: RaftOptions | None = None) -> Member:
    """Member 1 of three leads with entry 2 of 3 unreadable; nobody has answered yet."""
    member = damaged(alone(term=1, log=[1, 1, 1], options=options), 2)
    timeouts = member.running.options.faulty_campaign_timeouts
    while member.running.role is not Role.PRE_CANDIDATE:
        tick(member)
    assert member.running.election.faulty_timeouts == timeouts
    hear(member, K.PRE_VOTE_RESPONSE, 2, 2)
    hear(member, K.VOTE_RESPONSE, 2, 2)
    assert member.running.is_leader
    return member


def reply(member: Member, other: int, what: Answer, index: int = 2, **fields: object) -> list[Message]:
    term = fields.pop("term", member.running.term)
    return hear(member, K.REPAIR_RESPONSE, other, term, index=index, log_term=1, answer=what, **fields)  # type: ignore[arg-type]


# -- the four answers -------------------------------------------------------------------------------------------------


def test_the_four_answers() -> None:
    entries = [entry(3, 1), entry(4, 2, None), entry(5, 2)]
    log = RaftLog(checkpoint_index=RaftIndex(2), checkpoint_term=Term(1), entries=entries, resident_bytes_max=99)

    def says(index: int, term: int) -> Answer:
        return answer(log, RaftIndex(index), Term(term))[0]

    assert says(1, 1) is says(2, 9) is Answer.COMPACTED
    assert says(3, 1) is Answer.HAVE
    assert says(3, 2) is Answer.NEVER
    assert says(4, 2) is Answer.FAULTY
    assert says(4, 1) is Answer.FAULTY, "a line of another term proves nothing about its bytes"
    assert says(6, 2) is Answer.NEVER
    log.commit(RaftIndex(3))
    log.applied(RaftIndex(3))
    assert answer(log, RaftIndex(3), Term(2)) == (Answer.COMPACTED, (), 3), "what is applied never answers never"
    assert answer(log, RaftIndex(3), Term(1)) == (Answer.HAVE, (entries[0],), 0)


def test_never_needs_a_majority_of_both_halves() -> None:
    before = configuration(3)
    joint = before.changed(
        ConfChange((ChangeStep(ChangeKind.REMOVE, 1), ChangeStep(ChangeKind.REMOVE, 2))),
    )
    assert joint.is_joint
    resolution = Resolution()
    for member in (1, 2):
        resolution.heard(member, RaftIndex(7), Answer.NEVER)
    assert resolution.is_never(RaftIndex(7), before)
    assert not resolution.is_never(RaftIndex(7), joint)
    assert not resolution.is_never(RaftIndex(8), before)
    assert resolution.missing(RaftIndex(7), joint, 1) == (3,)
    resolution.heard(3, RaftIndex(7), Answer.FAULTY)
    assert resolution.missing(RaftIndex(7), joint, 1) == ()


# -- who stands -------------------------------------------------------------------------------------------------------


def test_who_cannot_read_all_lets_others_go_first() -> None:
    member = damaged(alone(term=1, log=[1, 1, 1], options=RaftOptions(faulty_campaign_timeouts=2)), 2)
    member.running.campaign()
    assert {m.kind for m in said(member)} == {K.REPAIR}
    seen = [{m.kind for m in tick(member, 10)} for _ in range(2)]
    assert seen == [{K.REPAIR}, {K.REPAIR, K.PRE_VOTE}]


def test_the_evidence_counts_for_votes_not_what_is_readable() -> None:
    member = damaged(alone(term=1, log=[1, 1, 1]), 2, 3)
    (message,) = hear(member, K.VOTE, 2, 2, last_index=2, last_term=1)
    assert message.is_rejected
    (message,) = hear(member, K.VOTE, 3, 2, last_index=3, last_term=1)
    assert not message.is_rejected


def test_the_bytes_come_from_anybody_and_without_a_leader() -> None:
    member = damaged(alone(term=1, log=[1, 1, 1]), 2)
    reply(member, 3, Answer.NEVER)
    reply(member, 3, Answer.FAULTY)
    assert list(member.running.log.faulty) == [2]
    reply(member, 9, Answer.HAVE, term=0, entries=(entry(2, 1),))
    assert list(member.running.log.faulty) == []
    assert member.disk.entries[1].data == b"x"
    reply(member, 3, Answer.HAVE, entries=(entry(2, 1),))


def test_other_bytes_than_those_asked_for_stop_the_group() -> None:
    member = damaged(alone(term=1, log=[1, 1, 1]), 2)
    with pytest.raises(AssertionError, match="another entry"):
        reply(member, 3, Answer.HAVE, entries=(entry(2, 7),))


def test_a_repair_waits_for_its_disk() -> None:
    member = damaged(alone(term=1, log=[1, 1, 1]), 2)
    member.is_async = True
    reply(member, 3, Answer.HAVE, entries=(entry(2, 1),))
    assert [e.index for e in member.pending[0].repairs] == [2]
    assert list(member.running.log.faulty) == [2]
    member.store()
    assert list(member.running.log.faulty) == []


def test_repairs_come_before_entries_and_within_the_bytes_of_a_block() -> None:
    member = damaged(alone(term=1, log=[1, 1, 1]), 1, 2, 3)
    core = member.running
    for index in (1, 2, 3):
        core.step(
            Message(
                K.REPAIR_RESPONSE,
                2,
                1,
                Term(1),
                RaftIndex(index),
                Term(1),
                answer=Answer.HAVE,
                entries=(entry(index, 1, b"x" * 10),),
            )
        )
    core.step(Message(K.APPEND, 2, 1, Term(1), RaftIndex(3), Term(1), entries=(entry(4, 1), entry(5, 1)), sequence=1))
    blocks = []
    while core.has_ready():
        ready = core.ready(11)
        core.stored(ready.token)
        blocks.append(([e.index for e in ready.repairs], [e.index for e in ready.entries]))
    assert blocks == [([1, 2], []), ([3], [4]), ([], [5])]
    assert list(core.log.faulty) == []


def test_many_unreadable_entries_are_asked_about_in_turns() -> None:
    options = RaftOptions(repair_batch=2)
    member = damaged(alone(count=2, term=1, log=[1] * 5, options=options), 1, 2, 3, 4, 5)
    member.running.campaign()
    assert [m.index for m in said(member)] == [1, 2]
    assert reply(member, 2, Answer.HAVE, 1, entries=(entry(1, 1),)) == []
    assert [m.index for m in reply(member, 2, Answer.HAVE, 2, entries=(entry(2, 1),))] == [3, 4]


def test_who_may_not_know_the_voters_does_not_stand() -> None:
    """Even one hidden change is too much: what it changed to may have been changed again meanwhile."""
    options = RaftOptions(faulty_campaign_timeouts=1)
    for indexes, with_line, stands in (((2,), False, True), ((2, 3), False, True), ((2,), True, False)):
        member = damaged(alone(term=1, log=[1, 1, 1], options=options), *indexes, with_line=with_line)
        tick(member, 10)
        assert (member.running.role is Role.PRE_CANDIDATE) is stands
    assert member.running.configurations.hidden() == 1


def test_one_hidden_change_and_one_that_never_arrived_are_two() -> None:
    """{1 2 3} → {1 2 3 4} → {1 2 3 4 5}: 1 and 2 are a quorum of the first, 3, 4 and 5 one of the last."""
    world = group(3, options=RaftOptions(faulty_campaign_timeouts=1))
    one = world.members[1].running
    one.propose_conf_change(ConfChange.add_voter("n4", 1))
    world.add(4).start()
    world.members[1].pump()
    settle(world)
    one.transfer_leader(3)
    world.members[1].pump()
    settle(world)
    leader = world.members[3]
    isolate(world, 1, 2)
    leader.running.propose_conf_change(ConfChange.add_voter("n5", 1))
    world.add(5).start()
    isolate(world, 1, 2)
    leader.pump()
    run(world, 3, 3, 4, 5)
    assert leader.running.log.committed_index == leader.running.configurations.index, "by 3, 4 and 5"
    assert leader.running.configuration.voters == {1, 2, 3, 4, 5}
    hides = next(e.index for e in world.members[1].disk.entries if e.data and is_configuration(e.data))
    damaged(world.members[1], hides)
    damaged(world.members[2], hides)
    assert world.members[1].running.configuration.voters == {1, 2, 3}
    run(world, 200, 1, 2)
    assert not any(world.members[number].running.is_leader for number in (1, 2))
    world.cuts.clear()
    run(world, 60)
    assert not world.members[1].running.log.faulty
    assert world.members[1].running.configuration.voters == {1, 2, 3, 4, 5}


def test_a_lone_voter_applies_what_precedes_and_leads_if_it_knows_its_voters() -> None:
    member = damaged(alone(count=1, term=1, log=[1, 1, 1]), 2)
    tick(member, 30)
    assert member.running.is_leader
    assert member.applied_index == 1
    with pytest.raises(NotNow, match="unreadable"):
        member.running.propose(b"x")
    hidden = damaged(alone(count=1, term=1, log=[1, 1, 1, 1]), 2, with_line=True)
    tick(hidden, 30)
    assert not hidden.running.is_leader
    assert hidden.applied_index == 1


def test_a_lone_voter_does_not_know_what_others_who_voted_then_committed() -> None:
    alone_now = configuration(2).changed(ConfChange.remove(2)).encode()
    member = alone(count=2, term=1)
    member.crash()
    member.disk.entries = [entry(1, 1), entry(2, 1), entry(3, 1, alone_now), entry(4, 1), entry(5, 1)]
    assert member.disk.damage(2, with_line=True)
    assert member.disk.damage(4, with_line=True)
    member.start()
    tick(member, 60)
    assert not member.running.is_leader
    assert member.applied_index == 0


# -- a leader that cannot read all ------------------------------------------------------------------------------------


def test_it_takes_and_says_nothing_before_it_is_resolved() -> None:
    member = leading_faulty()
    core = member.running
    with pytest.raises(NotNow, match="unreadable"):
        core.propose(b"x")
    with pytest.raises(NotNow, match="unreadable"):
        core.propose_conf_change(ConfChange.add_learner("n4", 1))
    assert core.log.last_index == 3
    assert not core.serves
    assert not core.quiesce()
    assert core.status().waiting_for == (2, 3)
    out = hear(member, K.APPEND_RESPONSE, 2, 2, index=0, is_rejected=True, sequence=9)
    assert all(not m.entries or m.entries[-1].index < 2 for m in out if m.kind is K.APPEND)


def test_it_finds_out_about_others_only_below_what_it_may_drop() -> None:
    member = leading_faulty()
    out = hear(member, K.HEARTBEAT_RESPONSE, 3, 2, last_index=3, last_term=1, sequence=9)
    assert [(m.index, m.log_term, m.entries) for m in out if m.kind is K.APPEND] == [(1, 1, ())]


def test_have_repairs_and_the_term_begins() -> None:
    member = leading_faulty()
    reply(member, 3, Answer.HAVE, entries=(entry(2, 1),))
    assert member.running.log.last_index == 4
    assert member.running.status().waiting_for == ()
    member.running.propose(b"x")


def test_never_of_a_majority_drops_it_and_all_later_ones() -> None:
    member = leading_faulty()
    reply(member, 2, Answer.NEVER)
    reply(member, 2, Answer.NEVER)
    assert member.running.log.last_index == 3, "twice the same voter"
    assert member.running.status().waiting_for == (3,)
    reply(member, 3, Answer.NEVER)
    assert [e.term for e in member.disk.entries] == [1, 2], "its own no-op stands there now"
    reply(member, 3, Answer.HAVE, entries=(entry(2, 1),))
    assert [e.term for e in member.disk.entries] == [1, 2]


def test_never_of_another_term_or_of_a_stranger_does_not_count() -> None:
    member = leading_faulty()
    reply(member, 2, Answer.NEVER, term=1)
    reply(member, 3, Answer.NEVER)
    reply(member, 9, Answer.NEVER)
    assert member.running.log.last_index == 3


def test_compacted_asks_for_the_checkpoint_and_goes_on_from_it() -> None:
    member = leading_faulty()
    events: list[object] = []
    member.running.step(
        Message(
            K.REPAIR_RESPONSE, 3, 1, member.running.term, RaftIndex(2), Term(1), RaftIndex(3), answer=Answer.COMPACTED
        )
    )
    events += member.running.take_events()
    assert events == [CheckpointFetch(3, RaftIndex(3), Term(0))]
    member.install(Checkpoint(3, 1, member.running.configuration))
    assert member.running.log.last_index == 4, "the no-op of its term"
    assert member.running.is_leader


def test_a_checkpoint_that_contradicts_a_leaders_log_ends_its_leadership() -> None:
    member = leading_faulty()
    member.install(Checkpoint(5, 1, member.running.configuration))
    assert member.running.role is Role.FOLLOWER
    other = leading_faulty()
    other.install(Checkpoint(5, 8, other.running.configuration))
    assert (other.running.role, other.running.term) == (Role.FOLLOWER, 8)


def test_it_asks_again_while_it_leads() -> None:
    member = leading_faulty()
    out: list[Message] = []
    for _ in range(11):
        hear(member, K.HEARTBEAT_RESPONSE, 2, 2, last_index=1, last_term=1, sequence=99)
        out += tick(member)
    assert {m.to for m in out if m.kind is K.REPAIR} == {2, 3}


def test_a_transfer_does_not_open_it() -> None:
    member = leading_faulty()
    member.running.transfer_leader(2)
    with pytest.raises(NotNow, match="transferred"):
        member.running.propose(b"x")
    hear(member, K.HEARTBEAT_RESPONSE, 2, 2, last_index=1, last_term=1, sequence=99)
    tick(member, 10)
    with pytest.raises(NotNow, match="unreadable"):
        member.running.propose(b"x")


# -- a follower that cannot read all ----------------------------------------------------------------------------------


def test_damage_is_repaired_by_the_leader_and_counts_again() -> None:
    world = group()
    propose(world, 1, b"a", b"b", b"c")
    settle(world)
    member = damaged(world.members[3], 3)
    run(world, 3)
    assert list(member.running.log.faulty) == []
    assert values(member) == values(world.members[1])
    status = world.members[1].running.status().progress[3]
    assert (status.match_index, status.is_damaged, status.is_fenced) == (4, False, False)


def test_amnesia_is_fenced_and_does_not_count() -> None:
    world = group(is_checked=False)
    propose(world, 1, b"a", b"b", b"c")
    settle(world)
    isolate(world, 2)
    member = world.members[3]
    member.crash()
    del member.disk.entries[2:]
    member.start()
    happened: list[object] = []
    leader = world.members[1]
    for _ in range(3):
        leader.running.tick()
        for message in leader.running.take_messages():
            if message.to == 3:
                member.running.step(message)
        while member.running.has_ready():
            member.running.stored(member.running.ready().token)
        for message in member.running.take_messages():
            leader.running.step(message)
        happened += [e for e in leader.running.take_events() if isinstance(e, Fenced)]
    assert happened == [Fenced(3, RaftIndex(4), RaftIndex(2))]
    assert leader.running.status().progress[3].is_fenced
    propose(world, 1, b"d")
    settle(world, 1, 3)
    assert leader.running.log.committed_index == 4
    run(world, 25, 1, 3)
    assert not leader.running.is_leader, "with a fenced member it has no quorum"


def test_what_a_fenced_member_acknowledged_does_not_count_any_more() -> None:
    member = alone()
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=5)
    member.is_async = True
    member.running.propose(b"a")
    said(member)
    hear(member, K.APPEND_RESPONSE, 3, 1, index=2, last_index=2, last_term=1, sequence=6)
    hear(member, K.HEARTBEAT_RESPONSE, 3, 1, index=0, last_index=0, last_term=0, sequence=7)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=2, last_index=2, last_term=1, sequence=8)
    assert member.running.log.committed_index == 1, "of three, one holds it: the leader's own disk is not done"
    member.store()
    assert member.running.log.committed_index == 2


def test_a_follower_with_other_entries_in_the_same_place_lost_what_it_had() -> None:
    member = alone(term=1, log=[1, 1])
    win(member)
    hear(member, K.APPEND_RESPONSE, 2, 2, index=3, last_index=3, last_term=2, sequence=5)
    hear(member, K.HEARTBEAT_RESPONSE, 2, 2, index=0, last_index=9, last_term=1, sequence=6)
    assert member.running.status().progress[2].is_fenced


def test_what_was_said_before_a_restart_does_not_count_after_it() -> None:
    member = alone()
    win(member)
    hear(member, K.HEARTBEAT_RESPONSE, 2, 1, boot=5, sequence=3)
    hear(member, K.APPEND_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, boot=4, sequence=9)
    assert member.running.status().progress[2].match_index == 0


def test_a_checkpoint_covers_what_a_follower_cannot_read() -> None:
    world = group()
    propose(world, 1, b"a", b"b", b"c")
    settle(world)
    world.members[1].compact()
    member = damaged(world.members[3], 2)
    run(world, 15)
    assert list(member.running.log.faulty) == []
    assert member.applied_index == world.members[1].applied_index


def test_a_hidden_configuration_counts_as_soon_as_it_is_read() -> None:
    founding = configuration(2)
    grown = founding.changed(ConfChange.add_voter("n3", 1))
    member = alone(count=2, term=1)
    member.crash()
    member.disk.entries = [entry(1, 1), entry(2, 1, grown.encode())]
    assert member.disk.damage(2)
    member.start()
    assert member.running.configuration == founding
    reply(member, 2, Answer.HAVE, entries=(entry(2, 1, grown.encode()),))
    assert member.running.configuration == grown


def test_a_stranger_that_stands_is_asked_for_bytes() -> None:
    member = damaged(alone(count=2, term=1, log=[1, 1]), 2)
    out = hear(member, K.PRE_VOTE, 9, 2, last_index=2, last_term=1)
    assert [(m.kind, m.to) for m in out] == [(K.REPAIR, 9), (K.PRE_VOTE_RESPONSE, 9)]


def test_a_stranger_that_had_bytes_is_asked_for_the_next_ones() -> None:
    """Not when it stands again: that is one batch in each election timeout."""
    member = damaged(alone(count=2, term=1, log=[1] * 4, options=RaftOptions(repair_batch=1)), 1, 2, 3)
    hear(member, K.PRE_VOTE, 9, 2, last_index=4, last_term=1)
    for index in (1, 2):
        out = reply(member, 9, Answer.HAVE, index, entries=(entry(index, 1),))
        assert [(m.kind, m.to, m.index) for m in out] == [(K.REPAIR, 9, index + 1)]
    assert reply(member, 9, Answer.HAVE, 3, entries=(entry(3, 1),)) == []
    assert not member.running.log.faulty


def test_what_the_leader_cannot_read_either_is_not_asked_of_it_again_and_again() -> None:
    """A follower knows entry 2 to be committed, and neither it nor the leader can read it."""
    world = group(3, options=RaftOptions(faulty_campaign_timeouts=1))
    propose(world, 1, b"a")
    run(world, 1)
    for number in (1, 2):
        damaged(world.members[number], 2)
        world.members[number].running.log.commit(RaftIndex(2))
    isolate(world, 3)
    run(world, 60, 1, 2)
    assert any(world.members[number].running.is_leader for number in (1, 2))
    world.cuts.clear()
    run(world, 12)
    assert [list(member.running.log.faulty) for member in world.members.values()] == [[], [], []]


def test_a_leader_repairs_from_followers_end_to_end() -> None:
    world = group(leader=0, options=RaftOptions(faulty_campaign_timeouts=1))
    for number, lost in ((1, 1), (2, 2), (3, 3)):
        member = world.members[number]
        member.crash()
        member.disk.hard_state = HardState(Term(1), 0)
        member.disk.entries = [entry(i, 1, None if i == lost else b"%d" % i) for i in (1, 2, 3)]
        member.start()
    run(world, 40)
    assert all(values(m)[:3] == [b"1", b"2", b"3"] for m in world.members.values())
    assert all(not m.running.log.faulty for m in world.members.values())


def test_configurations_are_found_again_after_a_repair_when_older_ones_were_dropped() -> None:
    world = group(2)
    world.members[1].running.propose_conf_change(ConfChange.add_learner("n3", 1))
    world.members[1].pump()
    settle(world, 1, 2)
    propose(world, 1, b"a", b"b")
    settle(world, 1, 2)
    expected: Configuration = world.members[2].running.configuration
    assert expected.learners == {3}
    world.members[2].compact()
    member = damaged_above_checkpoint(world.members[2])
    elect_again = world.members[1].running
    assert elect_again.is_leader
    run(world, 5, 1, 2)
    assert member.running.configuration == expected
    elect(world, 1)


def damaged_above_checkpoint(member: Member) -> Member:
    member.crash()
    member.disk.entries = [Entry(e.term, e.index, None) for e in member.disk.entries]
    member.start()
    return member
