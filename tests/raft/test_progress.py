"""What a leader may send to a member, and what an answer of it changes."""

from __future__ import annotations

from jetstore.raft.options import RaftOptions
from jetstore.raft.progress import Progress, ProgressState
from jetstore.types import RaftIndex

OPTIONS = RaftOptions(inflight_appends_max=3, inflight_bytes_max=100, append_bytes_max=100)


def at(index: int) -> RaftIndex:
    return RaftIndex(index)


def streaming(match: int = 5) -> Progress:
    progress = Progress(at(match + 1), OPTIONS)
    progress.acked(at(match))
    progress.replicate()
    return progress


def test_one_probe_at_a_time() -> None:
    progress = Progress(at(6), OPTIONS)
    assert progress.may_send
    progress.sent(at(8), 30)
    assert not progress.may_send
    assert progress.next_index == 6, "nothing is taken for granted"
    assert progress.acked(at(8))
    assert progress.may_send


def test_streaming_runs_ahead_until_count_or_bytes_are_full() -> None:
    progress = streaming()
    for last in (6, 7, 8):
        assert progress.may_send
        progress.sent(at(last), 10)
    assert (progress.next_index, progress.inflight_count, progress.inflight_bytes) == (9, 3, 30)
    assert not progress.may_send
    progress.acked(at(7))
    assert (progress.inflight_count, progress.inflight_bytes) == (1, 10)
    progress.sent(at(9), 90)
    assert not progress.may_send


def test_an_append_without_entries_takes_no_room() -> None:
    progress = streaming()
    progress.sent(at(5), 0)
    assert progress.inflight_count == 0


def test_a_refusal_while_streaming_goes_back_to_what_is_known() -> None:
    progress = streaming()
    progress.sent(at(9), 10)
    assert not progress.refused(at(5), at(3)), "older than what it has acknowledged since"
    assert progress.refused(at(9), at(8))
    assert progress.state is ProgressState.PROBE
    assert (progress.next_index, progress.inflight_count) == (6, 0)


def test_a_refusal_while_probing_follows_the_hint_but_never_below_the_match() -> None:
    progress = Progress(at(10), OPTIONS)
    progress.sent(at(9), 0)
    assert not progress.refused(at(7), at(3)), "an answer to another probe"
    assert not progress.may_send
    assert progress.refused(at(9), at(4))
    assert progress.may_send
    assert progress.next_index == 4
    assert progress.refused(at(3), at(9))
    assert progress.next_index == 3
    progress.match_index = at(1)
    assert progress.refused(at(2), at(0))
    assert progress.next_index == 2


def test_late_answers_change_nothing() -> None:
    progress = streaming(5)
    progress.acked(at(8))
    assert not progress.acked(at(6))
    assert (progress.match_index, progress.next_index) == (8, 9)


def test_news_is_what_was_certainly_said_later() -> None:
    progress = streaming()
    assert progress.is_news(1, 10)
    assert not progress.is_news(1, 10)
    assert not progress.is_news(1, 9)
    assert progress.is_news(2, 1), "started again: it counts anew"
    assert not progress.is_news(1, 99)


def test_nothing_back_between_two_heartbeats_asks_even_when_full() -> None:
    progress = streaming()
    for last in (6, 7, 8):
        progress.sent(at(last), 10)
    progress.beat()
    progress.beat()
    assert progress.is_stalled
    assert progress.may_send
    progress.acked(at(6))
    assert not progress.is_stalled


def test_damage_lowers_the_match_and_is_not_amnesia() -> None:
    progress = streaming(9)
    progress.damaged(at(3))
    assert (progress.match_index, progress.acked_index, progress.next_index) == (3, 9, 4)
    assert progress.status().is_damaged


def test_a_member_that_needs_a_checkpoint_gets_nothing_else() -> None:
    progress = streaming()
    progress.snapshot(at(40))
    assert not progress.may_send
    assert progress.status().state == "snapshot"
    progress.probe_from(at(41))
    assert progress.may_send
    assert progress.next_index == 41


def test_who_lost_what_it_promised_gets_nothing_and_is_not_alive() -> None:
    progress = streaming()
    progress.is_active = True
    assert progress.is_alive
    progress.is_fenced = True
    assert not progress.may_send
    assert not progress.is_alive
