"""Reads without log entries, rest without ticks, and leaders that are missed."""

from __future__ import annotations

import pytest
from raft_paper import K, alone, group, hear, isolate, propose, run, said, settle, tick, win
from raft_world import Member, World

from jetstore.errors import NotNow
from jetstore.raft.core import RaftOptions, Role
from jetstore.raft.message import Message
from jetstore.raft.ready import ReadState
from jetstore.types import Term


def reads(member: Member) -> list[ReadState]:
    return [e for e in member.running.take_events() if isinstance(e, ReadState)]


def leading(options: RaftOptions | None = None, *, is_open: bool = True) -> Member:
    member = alone(options=options)
    win(member)
    if is_open:
        hear(member, K.APPEND_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=1)
    member.running.take_events()
    return member


def answer(member: Member, other: int, sequence: int) -> list[ReadState]:
    message = Message(K.HEARTBEAT_RESPONSE, other, 1, Term(1), sequence=sequence, last_index=1, last_term=1)  # type: ignore[arg-type]
    member.running.step(message)
    return reads(member)


def heartbeats(messages: list[Message]) -> list[int]:
    return [m.sequence for m in messages if m.kind is K.HEARTBEAT]


def test_a_read_waits_for_an_answer_to_something_sent_after_it() -> None:
    member = leading()
    (_, before) = heartbeats(tick(member))
    member.running.read_index("r")
    (after, _) = heartbeats(said(member))
    assert answer(member, 3, before) == []
    assert answer(member, 2, after) == [ReadState("r", 1)]


def test_one_round_serves_all_reads_before_it_and_none_after_it() -> None:
    member = leading()
    for context in range(3):
        member.running.read_index(context)
    first, _ = heartbeats(said(member))
    member.running.read_index("late")
    assert answer(member, 2, first) == [ReadState(0, 1), ReadState(1, 1), ReadState(2, 1)]
    last, _ = heartbeats(said(member))
    assert answer(member, 3, last) == [ReadState("late", 1)]
    assert heartbeats(said(member)) == []


def test_appends_prove_leadership_as_well() -> None:
    member = leading()
    member.running.read_index("r")
    member.running.propose(b"a")
    last = max(m.sequence for m in said(member))
    member.running.step(
        Message(K.APPEND_RESPONSE, 2, 1, Term(1), is_rejected=True, sequence=last, last_index=1, last_term=1)  # type: ignore[arg-type]
    )
    assert reads(member) == [ReadState("r", 1)], "a refusal answers, too"


def test_before_an_entry_of_its_term_is_committed_a_leader_does_not_know_what_is() -> None:
    member = leading(is_open=False)
    member.running.read_index("r")
    (sequence, _) = heartbeats(tick(member))
    assert answer(member, 2, sequence) == []
    hear(member, K.APPEND_RESPONSE, 2, 1, index=1, last_index=1, last_term=1, sequence=sequence)
    tick(member)
    assert answer(member, 3, 99) == [ReadState("r", 1)]


def test_too_many_reads_are_told_to_ask_again() -> None:
    member = leading(RaftOptions(reads_max=1))
    member.running.read_index("a")
    member.running.read_index("b")
    assert reads(member) == [ReadState("b", None)]
    early = leading(RaftOptions(reads_max=1), is_open=False)
    early.running.read_index("a")
    early.running.read_index("b")
    assert reads(early) == [ReadState("b", None)]
    follower = alone(options=RaftOptions(reads_max=1), term=1)
    hear(follower, K.HEARTBEAT, 2, 1, sequence=1)
    follower.running.read_index("a")
    follower.running.read_index("b")
    assert reads(follower) == [ReadState("b", None)]


def test_reads_of_a_leader_that_resigns_are_told_to_ask_again() -> None:
    member = leading()
    member.running.read_index("r")
    member.running.step(Message(K.READ_INDEX, 2, 1, Term(1), context=5))
    member.running.step(Message(K.HEARTBEAT, 3, 1, Term(2)))
    assert reads(member) == [ReadState("r", None)]
    refusals = [m for m in said(member) if m.kind is K.READ_INDEX_RESPONSE]
    assert [(m.to, m.context, m.is_rejected) for m in refusals] == [(2, 5, True)]


def test_a_lone_voter_reads_at_once() -> None:
    member = alone(count=1)
    member.running.campaign()
    member.pump()
    member.running.read_index("r")
    assert reads(member) == [ReadState("r", 1)]


def test_a_followers_read_goes_through_the_leader() -> None:
    world = group()
    propose(world, 1, b"a")
    settle(world)
    member = world.members[3]
    seen: list[object] = []
    world.watchers = [*world.watchers, Events(seen)]  # type: ignore[list-item]
    member.running.read_index("r")
    member.pump()
    settle(world)
    assert seen == [ReadState("r", 2)]


class Events:
    """Keeps reads that are answered."""

    def __init__(self, seen: list[object]) -> None:
        self.seen = seen

    def __getattr__(self, name: str) -> object:
        return lambda *args: None

    def happened(self, member: Member, event: object) -> None:
        if isinstance(event, ReadState):
            self.seen.append(event)


def test_a_followers_read_is_given_up_without_an_answer_and_without_a_leader() -> None:
    member = alone(term=1)
    with pytest.raises(NotNow):
        member.running.read_index("r")
    hear(member, K.HEARTBEAT, 2, 1, sequence=1)
    member.running.read_index("a")
    (asked,) = [m for m in said(member) if m.kind is K.READ_INDEX]
    for sequence in range(2, 12):
        member.running.tick()
        member.running.step(Message(K.HEARTBEAT, 2, 1, Term(1), sequence=sequence))
    assert reads(member) == [ReadState("a", None)]
    member.running.step(Message(K.READ_INDEX_RESPONSE, 2, 1, Term(1), context=asked.context))
    assert reads(member) == [], "too late"
    member.running.read_index("b")
    member.running.step(Message(K.HEARTBEAT, 3, 1, Term(2)))
    assert reads(member) == [ReadState("b", None)]
    said(member)
    member.running.read_index("c")
    (asked,) = [m for m in said(member) if m.kind is K.READ_INDEX]
    member.running.step(Message(K.READ_INDEX_RESPONSE, 3, 1, Term(2), context=asked.context, is_rejected=True))
    assert reads(member) == [ReadState("c", None)]


def test_an_answer_that_is_delayed_over_a_restart_answers_nothing() -> None:
    member = alone(term=1)
    contexts = []
    for _ in range(2):
        hear(member, K.HEARTBEAT, 2, 1, sequence=1)
        member.running.read_index("r")
        contexts += [m.context for m in said(member) if m.kind is K.READ_INDEX]
        member.crash()
        member.start()
    assert len(set(contexts)) == 2


# -- rest -------------------------------------------------------------------------------------------------------------


def resting(world: World | None = None) -> World:
    world = world or group()
    run(world, 2)
    assert world.members[1].running.quiesce()
    world.members[1].pump()
    settle(world)
    assert all(m.running.is_quiescent for m in world.members.values())
    return world


def test_a_group_at_rest_says_nothing_and_waits_for_nobody() -> None:
    world = resting()
    for member in world.members.values():
        assert tick(member, 100) == []
    assert world.members[1].running.is_leader


@pytest.mark.parametrize("wakes", ["propose", "read", "transfer", "conf"])
def test_what_wakes_a_group(wakes: str) -> None:
    from jetstore.raft.membership import ConfChange

    world = resting()
    core = world.members[1].running
    if wakes == "propose":
        core.propose(b"a")
    elif wakes == "read":
        core.read_index("r")
    elif wakes == "transfer":
        core.transfer_leader(2)
    else:
        core.propose_conf_change(ConfChange.remove(3))
    world.members[1].pump()
    settle(world)
    run(world, 1)
    assert not world.members[2].running.is_quiescent


def test_a_dead_leader_of_a_group_at_rest_is_replaced_once_it_is_suspected() -> None:
    world = resting()
    world.members[1].crash()
    run(world, 50, 2, 3)
    assert not any(world.members[n].running.is_leader for n in (2, 3))
    for number in (2, 3):
        world.members[number].running.suspect_leader()
    run(world, 25, 2, 3)
    assert any(world.members[n].running.is_leader for n in (2, 3))


def test_a_leader_that_is_suspected_by_mistake_stays() -> None:
    world = resting()
    world.members[3].running.suspect_leader()
    world.members[1].running.suspect_leader()
    assert world.members[1].running.is_quiescent
    run(world, 30)
    assert world.members[1].running.is_leader
    assert world.members[1].running.term == 1


def test_nothing_rests_while_something_is_under_way_but_absent_members_do_not_count() -> None:
    world = group()
    isolate(world, 3)
    propose(world, 1, b"a")
    settle(world, 1, 2)
    core = world.members[1].running
    assert not core.quiesce()
    assert core.quiesce(absent=frozenset({3}))
    assert not core.quiesce(absent=frozenset({3})), "it rests already"
    core.wake()
    core.read_index("r")
    assert not core.quiesce(absent=frozenset({3}))


def test_a_late_order_to_rest_does_not_put_an_active_group_to_sleep() -> None:
    member = alone(term=1)
    hear(member, K.APPEND, 2, 1, sequence=5)
    (message,) = hear(member, K.HEARTBEAT, 2, 1, is_quiescent=True, sequence=4)
    assert message.kind is K.HEARTBEAT_RESPONSE
    assert not member.running.is_quiescent
    hear(member, K.HEARTBEAT, 2, 1, is_quiescent=True, sequence=6)
    assert member.running.is_quiescent


def test_a_fenced_member_keeps_a_group_awake() -> None:
    member = leading()
    hear(member, K.APPEND_RESPONSE, 3, 1, index=1, last_index=1, last_term=1, sequence=5)
    hear(member, K.HEARTBEAT_RESPONSE, 3, 1, index=0, last_index=0, last_term=0, sequence=6)
    assert member.running.status().progress[3].is_fenced
    assert not member.running.quiesce()


def test_heartbeats_come_as_often_as_the_options_say() -> None:
    member = leading(RaftOptions(heartbeat_ticks=3))
    assert [len(heartbeats(tick(member))) for _ in range(7)] == [0, 0, 2, 0, 0, 2, 0]


# -- leaders that are missed, or forgotten ----------------------------------------------------------------------------


def test_a_follower_protects_its_leader_for_a_timeout_and_forgets_it_on_request() -> None:
    member = alone(term=1)
    hear(member, K.HEARTBEAT, 2, 1, sequence=1)
    assert hear(member, K.VOTE, 3, 2) == []
    assert member.running.term == 1
    member.running.forget_leader()
    (message,) = hear(member, K.VOTE, 3, 2)
    assert not message.is_rejected
    leader = leading()
    leader.running.forget_leader()
    assert leader.running.is_leader
    assert hear(leader, K.PRE_VOTE, 3, 9) == [], "a leader is alive: itself"


def test_a_stale_candidate_learns_the_term() -> None:
    member = alone(term=5)
    for kind, reply in (
        (K.VOTE, K.VOTE_RESPONSE),
        (K.PRE_VOTE, K.PRE_VOTE_RESPONSE),
        (K.HEARTBEAT, K.HEARTBEAT_RESPONSE),
    ):
        (message,) = hear(member, kind, 2, 3)
        assert (message.kind, message.term) == (reply, 5)
    assert hear(member, K.READ_INDEX, 2, 3) == []
    hear(member, K.REMOVED, 2, 3, index=1)
    assert member.running.is_removed
    other = alone(term=5)
    (message,) = hear(other, K.REPAIR, 2, 3, index=1, log_term=1)
    assert message.kind is K.REPAIR_RESPONSE


def test_pre_votes_that_are_refused_by_a_majority_end_the_attempt() -> None:
    member = alone()
    member.running.campaign()
    said(member)
    hear(member, K.PRE_VOTE_RESPONSE, 2, 7)
    assert member.running.role is Role.PRE_CANDIDATE, "granted for another term"
    for other in (2, 3):
        hear(member, K.PRE_VOTE_RESPONSE, other, 0, is_rejected=True)
    assert member.running.role is Role.FOLLOWER
    hear(member, K.PRE_VOTE_RESPONSE, 2, 1)
    hear(member, K.VOTE_RESPONSE, 2, 0)
    hear(member, K.APPEND_RESPONSE, 2, 0)
    assert member.running.role is Role.FOLLOWER


def test_votes_that_are_refused_by_a_majority_end_the_candidacy() -> None:
    member = alone()
    member.running.campaign()
    said(member)
    hear(member, K.PRE_VOTE_RESPONSE, 2, 1)
    for other in (2, 3):
        hear(member, K.VOTE_RESPONSE, other, 1, is_rejected=True)
    assert (member.running.role, member.running.vote) == (Role.FOLLOWER, 1)


def test_a_campaign_of_a_leader_changes_nothing() -> None:
    member = leading()
    member.running.campaign()
    assert said(member) == []
    assert member.running.term == 1


def test_who_cannot_read_everything_does_not_take_over() -> None:
    from jetstore.raft.log import Entry
    from jetstore.types import RaftIndex

    member = alone(term=1, log=[1, 1])
    member.crash()
    member.disk.entries[1] = Entry(Term(1), RaftIndex(2), None)
    member.start()
    assert [m for m in hear(member, K.TIMEOUT_NOW, 2, 1) if m.kind is K.VOTE] == []
