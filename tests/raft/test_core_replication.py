"""What a leader sends, how it finds where logs agree, and how it goes on after losses."""

from __future__ import annotations

import pytest
from raft_paper import (
    K,
    alone,
    configuration,
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
from raft_world import Member, World

from jetstore.errors import NotNow
from jetstore.raft.core import RaftOptions
from jetstore.raft.membership import ConfChange
from jetstore.raft.message import Message
from jetstore.raft.ready import CheckpointWanted, LeaderChanged
from jetstore.types import RaftIndex, Term


def matches(member: Member, other: int, index: int, sequence: int, **fields: object) -> list[Message]:
    return hear(
        member, K.APPEND_RESPONSE, other, 1, index=index, last_index=index, last_term=1, sequence=sequence, **fields
    )


def appends(messages: list[Message], to: int = 2) -> list[list[int]]:
    return [[e.index for e in m.entries] for m in messages if m.kind is K.APPEND and m.to == to]


def leading(options: RaftOptions | None = None) -> Member:
    """Member 1 of three leads; 2 has acknowledged the no-op, 3 says nothing."""
    member = alone(options=options)
    win(member)
    matches(member, 2, 1, 1)
    said(member)
    return member


def test_what_was_proposed_together_goes_together() -> None:
    member = leading()
    for _ in range(5):
        member.running.propose(b"x")
    assert appends(said(member)) == [[2, 3, 4, 5, 6]]


def test_several_appends_are_under_way_up_to_a_bound() -> None:
    member = leading(RaftOptions(append_bytes_max=10, inflight_appends_max=3))
    for _ in range(5):
        member.running.propose(b"x" * 10)
    assert appends(said(member)) == [[2], [3], [4]]
    assert appends(matches(member, 2, 3, 5)) == [[5], [6]]


def test_a_silent_follower_is_probed_once_and_holds_up_nobody() -> None:
    member = leading()
    for value in range(3):
        member.running.propose(b"%d" % value)
        out = said(member)
        assert appends(out, 3) == []
        matches(member, 2, 2 + value, 10 + value)
        assert member.running.log.committed_index == 2 + value


def test_lost_appends_are_noticed_at_the_second_heartbeat_and_sent_again() -> None:
    member = leading()
    member.running.propose(b"a")
    assert appends(said(member)) == [[2]]
    for sequence in (50, 51):
        tick(member)
        out = hear(member, K.HEARTBEAT_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=sequence)
    assert appends(out) == [[]]
    out = hear(member, K.APPEND_RESPONSE, 2, 1, index=2, is_rejected=True, hint_index=1, hint_term=1, last_index=1,
               last_term=1, sequence=52)  # fmt: skip
    assert appends(out) == [[2]]


def test_a_broken_link_goes_back_to_probing() -> None:
    member = leading()
    member.running.propose(b"a")
    member.running.propose(b"b")
    said(member)
    member.running.report_unreachable(2)
    assert appends(said(member)) == [[2, 3]]
    member.running.report_unreachable(2)
    assert appends(said(member)) == [], "a probe is under way; a heartbeat's answer resumes it"
    member.running.report_unreachable(9)


def test_commit_is_told_at_once_and_once() -> None:
    member = leading()
    member.running.propose(b"a")
    said(member)
    out = matches(member, 2, 2, 7)
    assert [(m.commit, len(m.entries)) for m in out if m.kind is K.APPEND and m.to == 2] == [(2, 0)]
    assert appends(said(member)) == []


def test_commit_can_go_with_the_next_append_or_heartbeat() -> None:
    member = leading(RaftOptions(tells_commit_at_once=False))
    member.running.propose(b"a")
    said(member)
    assert matches(member, 2, 2, 7) == [], "nobody waits for it"
    assert member.running.log.committed_index == 2
    member.running.propose(b"b")
    assert [(m.to, m.commit, len(m.entries)) for m in said(member)] == [(2, 2, 1)]
    assert matches(member, 2, 3, 9) == []
    member.running.tick()
    assert [(m.to, m.kind, m.commit) for m in said(member)] == [(2, K.HEARTBEAT, 3), (3, K.HEARTBEAT, 0)]


def test_the_start_of_a_term_and_configurations_are_told_at_once_all_the_same() -> None:
    member = alone(options=RaftOptions(tells_commit_at_once=False))
    win(member)
    said(member)
    out = matches(member, 2, 1, 7)
    assert [(m.to, m.commit, len(m.entries)) for m in out] == [(2, 1, 0)]
    member.running.propose_conf_change(ConfChange.add_learner("lima", 1))
    said(member)
    out = matches(member, 2, 2, 8)
    assert [(m.to, m.commit, len(m.entries)) for m in out if m.to == 2] == [(2, 2, 0)]


def test_entries_of_older_terms_are_committed_only_through_one_of_its_own() -> None:
    member = alone(term=1, log=[1, 1])
    win(member)
    last = {"last_index": 2, "last_term": 1}
    hear(member, K.APPEND_RESPONSE, 2, 2, index=2, sequence=5, **last)
    hear(member, K.APPEND_RESPONSE, 3, 2, index=2, sequence=6, **last)
    assert member.running.log.committed_index == 0, "two of term 1 are everywhere"
    hear(member, K.APPEND_RESPONSE, 2, 2, index=3, last_index=3, last_term=2, sequence=7)
    assert member.running.log.committed_index == 3


def test_refusals_skip_whole_terms() -> None:
    world = group(leader=0)
    long, short = world.members[1], world.members[2]
    for member, terms in ((long, [1] * 5 + [4] * 5), (short, [1] * 5 + [2] * 20)):
        member.crash()
        member.disk.entries = [entry(i, t, b"%d" % t) for i, t in enumerate(terms, 1)]
        member.start()
    world.watchers = []
    isolate(world, 3)
    long.running.campaign()
    long.pump()
    refused = 0
    for _ in range(200):
        if not world.in_flight:
            break
        message = world.in_flight.pop(0)
        refused += message.kind is K.APPEND_RESPONSE and message.is_rejected
        if world.deliver(message):
            world.members[message.to].pump()
    assert refused <= 2
    assert values(short) == values(long)


def test_a_follower_behind_the_first_entry_gets_a_checkpoint_and_goes_on_from_there() -> None:
    world = group()
    isolate(world, 3)
    propose(world, 1, b"a", b"b", b"c")
    settle(world, 1, 2)
    leader = world.members[1]
    leader.compact()
    world.in_flight.clear()
    world.cuts.clear()
    run(world, 3)
    assert leader.running.status().progress[3].state == "replicate"
    assert world.members[3].applied_index == leader.applied_index
    assert world.members[3].disk.checkpoint.index == leader.disk.checkpoint.index


def test_an_offer_is_repeated_and_moves_with_the_log() -> None:
    member = leading()
    member.compact()
    refusal = {"is_rejected": True, "index": 0, "sequence": 9}
    offers = [m for m in hear(member, K.APPEND_RESPONSE, 3, 1, **refusal) if m.kind is K.SNAPSHOT]
    assert [(m.to, m.index, m.log_term) for m in offers] == [(3, 1, 1)]
    member.running.propose(b"a")
    matches(member, 2, 2, 30)
    member.compact()
    said(member)
    again = []
    for _ in range(12):
        again += [m for m in tick(member) if m.kind is K.SNAPSHOT]
        hear(member, K.HEARTBEAT_RESPONSE, 2, 1, index=2, last_index=2, last_term=1, sequence=99)
    assert [(m.to, m.index) for m in again] == [(3, 2)]
    member.running.report_snapshot(3, RaftIndex(0))
    assert [m.index for m in said(member) if m.kind is K.SNAPSHOT] == [2]
    matches(member, 3, 1, 100)
    assert member.running.status().progress[3].state == "snapshot", "not there yet"
    member.running.propose(b"b")
    said(member)
    member.running.report_snapshot(3, RaftIndex(2))
    assert appends(said(member), 3) == [[3]]
    member.running.report_snapshot(2, RaftIndex(2))
    assert member.running.status().progress[2].state == "replicate"


def test_a_member_that_contradicts_every_offer_is_asked_once_a_heartbeat() -> None:
    """It holds more than its leader, and committed: whatever it is offered, it has, and answers so at once."""
    member = leading()
    member.compact()
    offers = [m for m in matches(member, 3, 10, 9) if m.kind is K.SNAPSHOT]
    sequence, rounds = 1000, []
    for _ in range(5):
        for _ in range(20):  # no time passes
            sequence += 1
            offers += [m for m in matches(member, 3, 10, sequence) if m.kind is K.SNAPSHOT]
        rounds.append(len(offers))
        for _ in range(member.running.options.heartbeat_ticks):
            offers += [m for m in tick(member) if m.kind is K.SNAPSHOT]
        hear(member, K.HEARTBEAT_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=sequence)
    assert rounds == [1, 2, 3, 4, 5]


def test_a_member_that_refuses_what_it_acknowledged_is_asked_once_a_heartbeat() -> None:
    member = leading()
    member.running.propose(b"a")
    matches(member, 2, 2, 30)
    matches(member, 3, 2, 30)
    member.running.report_unreachable(3)
    asked, rounds, sequence = appends(said(member), 3), [], 1000
    for _ in range(3):
        for _ in range(20):  # no time passes
            refusal = {"is_rejected": True, "index": 2, "last_index": 2, "last_term": 1, "sequence": sequence}
            asked += appends(hear(member, K.APPEND_RESPONSE, 3, 1, **refusal), 3)
            sequence += 1
        rounds.append(len(asked))
        beat = {"index": 2, "last_index": 2, "last_term": 1, "sequence": sequence}
        asked += appends(hear(member, K.HEARTBEAT_RESPONSE, 3, 1, **beat), 3)
    assert rounds == [1, 2, 3]


def test_the_driver_is_told_who_needs_a_checkpoint() -> None:
    member = leading()
    member.compact()
    member.running.take_events()
    member.running.step(Message(K.APPEND_RESPONSE, 3, 1, Term(1), is_rejected=True, sequence=9))
    member.running.take_messages()
    assert member.running.take_events() == [CheckpointWanted(3, RaftIndex(1))]


def test_too_much_under_way_is_refused_and_taken_again_later() -> None:
    member = leading(RaftOptions(unapplied_bytes_max=100))
    member.running.propose(b"x" * 101)
    with pytest.raises(NotNow, match="too much"):
        member.running.propose(b"y")
    said(member)
    matches(member, 2, 2, 9)
    member.running.propose(b"y")


def test_a_slow_state_machine_refuses_too() -> None:
    member = leading(RaftOptions(unapplied_bytes_max=100))
    member.applies = False
    member.running.propose(b"x" * 101)
    said(member)
    matches(member, 2, 2, 9)
    assert member.running.log.committed_index == 2
    with pytest.raises(NotNow, match="too much"):
        member.running.propose(b"y")


def test_the_fence_and_the_follower_refuse() -> None:
    member = leading()
    with pytest.raises(NotNow, match="term is 1, not 3"):
        member.running.propose(b"x", term=Term(3))
    assert member.running.propose(b"x", term=Term(1)).index == 2
    follower = alone()
    for call in (
        lambda: follower.running.propose(b"x"),
        lambda: follower.running.transfer_leader(2),
        lambda: follower.running.read_index("r"),
    ):
        with pytest.raises(NotNow, match="no leader"):
            call()
    follower.running.report_snapshot(2, RaftIndex(1))
    follower.running.report_unreachable(2)
    assert not follower.running.quiesce()


def test_a_configuration_is_never_proposed_as_data() -> None:
    member = leading()
    with pytest.raises(AssertionError, match="change"):
        member.running.propose(configuration(1).encode())


def test_two_leaders_in_one_term_stop_the_group() -> None:
    with pytest.raises(AssertionError, match="R1"):
        hear(leading(), K.HEARTBEAT, 2, 1, sequence=1)
    follower = alone(term=1)
    hear(follower, K.HEARTBEAT, 2, 1, sequence=1)
    with pytest.raises(AssertionError, match="R1"):
        hear(follower, K.HEARTBEAT, 3, 1, sequence=1)


def test_a_leader_that_contradicts_what_is_committed_or_itself_stops_the_group() -> None:
    follower = alone(term=1)
    hear(follower, K.APPEND, 2, 1, entries=(entry(1, 1), entry(2, 1)), commit=1, sequence=1)
    with pytest.raises(AssertionError, match="R3"):
        hear(follower, K.APPEND, 2, 1, index=1, log_term=9, sequence=2)
    with pytest.raises(AssertionError, match="R2"):
        hear(follower, K.APPEND, 2, 1, index=1, log_term=1, entries=(entry(2, 5),), sequence=3)
    other = alone(term=1)
    hear(other, K.APPEND, 2, 1, entries=(entry(1, 1),), commit=1, sequence=1)
    with pytest.raises(AssertionError, match="truncation"):
        hear(other, K.APPEND, 3, 2, entries=(entry(1, 2),), sequence=1)


def test_entries_that_were_applied_and_dropped_are_skipped() -> None:
    follower = alone(term=1)
    sent = tuple(entry(i, 1) for i in range(1, 5))
    hear(follower, K.APPEND, 2, 1, entries=sent, commit=4, sequence=1)
    follower.compact()
    (answer,) = hear(follower, K.APPEND, 2, 1, index=1, log_term=1, entries=(*sent[1:], entry(5, 1)), sequence=2)
    assert (answer.index, answer.is_rejected) == (5, False)


def test_leadership_is_told_as_events() -> None:
    member = alone()
    events: list[object] = []
    run_events = lambda: events.extend(member.running.take_events())  # noqa: E731
    member.running.step(Message(K.HEARTBEAT, 2, 1, Term(3)))
    run_events()
    member.running.step(Message(K.VOTE, 3, 1, Term(4), is_forced=True))
    run_events()
    assert events == [LeaderChanged(2, Term(3)), LeaderChanged(0, Term(4))]


def test_a_checkpoint_that_is_already_here_is_answered_with_the_match() -> None:
    follower = alone(term=1)
    hear(follower, K.APPEND, 2, 1, entries=(entry(1, 1),), commit=1, sequence=1)
    (answer,) = hear(follower, K.SNAPSHOT, 2, 1, index=1, log_term=1, sequence=2)
    assert (answer.kind, answer.index) == (K.APPEND_RESPONSE, 1)
    assert hear(follower, K.SNAPSHOT, 2, 1, index=9, log_term=1, sequence=3) == []
    assert follower.fetch is not None
    assert (follower.fetch.source, follower.fetch.index) == (2, 9)


def everybody_has(world: World, *data: bytes) -> bool:
    return all([e for e in values(m) if e in data] == list(data) for m in world.members.values())


def test_a_follower_that_was_started_again_is_brought_up_to_date_without_new_entries() -> None:
    world = group()
    propose(world, 1, b"a")
    settle(world)
    world.members[3].crash()
    propose(world, 1, b"b")
    settle(world)
    world.members[3].start()
    run(world, 4)
    assert everybody_has(world, b"a", b"b")
    assert world.members[3].applied_index == world.members[1].applied_index
