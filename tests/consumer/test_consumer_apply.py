"""What entries do that the model does not cover: no acknowledgements, unknown consumers, generations."""

from __future__ import annotations

from typing import Any

from test_consumer_model import View

from jetstore.consumer import counts, entries
from jetstore.consumer.apply import Applied, apply_entry
from jetstore.consumer.entries import AckOp, AckRuns
from jetstore.consumer.state import ConsumerState
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.stream.subjects import filter_of


class Host:
    """A log and its consumers, as a stream has them."""

    def __init__(self, *subjects: bytes) -> None:
        self.view = View()
        self.consumers: dict[str, ConsumerState] = {}
        self.store(*subjects)

    def store(self, *subjects: bytes) -> None:
        if subjects:
            first = self.view.last_seq + 1
            (frame,) = encode_frames(Columns(list(subjects), (), [b""] * len(subjects)), first, 1 << 15)
            self.view.append(first, frame)
            for consumer in self.consumers.values():
                consumer.on_stored(first, subjects)

    def apply(self, data: bytes) -> Applied:
        return apply_entry(self.consumers, data, filter_of, self.view)

    def make(self, time_ns: int = 10, **config: Any) -> ConsumerState:
        fields = {"name": "c", "deliver_policy": "all", "ack_policy": "explicit", "replay_policy": "instant"}
        self.apply(entries.encode_set("c", time_ns, fields | {"num_replicas": 0} | config))
        return self.consumers["c"]


def test_set_creates_then_updates() -> None:
    host = Host(b"a", b"b")
    first = host.apply(entries.encode_set("c", 10, {"name": "c", "ack_policy": "explicit", "filter_subject": "a"}))
    assert first.result == counts.SetOutcome(True)
    state = host.consumers["c"]
    assert state.counters().num_pending == 1
    again = host.apply(entries.encode_set("c", 11, {"name": "c", "ack_policy": "explicit"}))
    assert again.result == counts.SetOutcome(False)
    assert host.consumers["c"] is state
    assert state.counters().num_pending == 2


def test_delete_only_the_generation_that_was_meant() -> None:
    host = Host()
    state = host.make()
    assert host.apply(entries.encode_delete("c", 20, state.generation - 1)) == ("c", (False,), [], False, 0)
    gone = host.apply(entries.encode_delete("c", 20, state.generation))
    assert (gone.result, gone.gone) == (counts.DeleteOutcome(True), True)
    assert host.apply(entries.encode_delete("c", 20)).result == counts.DeleteOutcome(False)


def test_entries_for_nobody() -> None:
    host = Host(b"a")
    for data in (
        entries.encode_delivered("c", 1, 2, [(1, 1, 1)]),
        entries.encode_acks("c", 1, 2, [AckRuns(AckOp.ACK, 0, [(1, 1)])]),
        entries.encode_returned("c", 1, 2, [(1, 1)]),
        entries.encode_exhausted("c", 1, 2, [(1, 1)]),
        entries.encode_cursor("c", 1, 2, 1, 1),
    ):
        assert host.apply(data) == Applied("c", None, [], time_ns=2)
    assert host.apply(entries.encode_reset("c", 1, 5)).result == counts.ResetOutcome(0)
    assert host.apply(entries.encode_pause("c", 1, 5)).result == counts.PauseOutcome(5, False)


def test_cursor_without_acknowledgements() -> None:
    host = Host(b"a", b"b", b"a", b"a")
    state = host.make(ack_policy="none", filter_subject="a")
    assert state.counters().num_pending == 3
    done = host.apply(entries.encode_cursor("c", state.generation, 50, 2, 3))
    assert done.settled == [(1, 3)]
    assert state.counters() == ((2, 3, 50), (2, 3, 0), 0, 0, 1)
    assert host.apply(entries.encode_cursor("c", state.generation, 60, 1, 2)).settled == []
    assert host.apply(entries.encode_cursor("c", state.generation - 1, 60, 3, 4)).settled == []
    assert state.counters().num_pending == 1


def test_cursor_within_the_list_of_last_messages() -> None:
    host = Host(b"a", b"b", b"a", b"c")
    state = host.make(ack_policy="none", deliver_policy="last_per_subject", filter_subject=">")
    assert state.plan_new(9) == [2, 3, 4]
    host.apply(entries.encode_cursor("c", state.generation, 50, 2, 3))
    assert state.counters().num_pending == 1
    host.store(b"a", b"a")
    assert state.plan_new(9) == [4, 5, 6]
    host.apply(entries.encode_cursor("c", state.generation, 50, 5, 6))
    assert state.counters().num_pending == 0


def test_a_leader_without_acknowledgements_is_ahead_of_the_log() -> None:
    host = Host(b"a", b"a", b"a", b"a")
    state = host.make(ack_policy="none")
    before = state.to_head()
    state.lead()
    assert state.live is not None
    state.live.cursor.advance(3, 2)
    assert state.plan_new(9) == [3, 4]
    assert state.to_head() == before
    host.store(b"a")
    meta = host.view.remove(1)
    assert meta is not None
    state.on_removed([1], [meta.subject])
    assert state.live.cursor.num_pending == 3
    assert state.cursor.num_pending == 4
    state.follow()
    assert state.plan_new(9) == [2, 3, 4, 5]


def test_a_delivery_planned_behind_one_that_never_came_is_void() -> None:
    host = Host(b"a", b"b", b"a", b"a")
    state = host.make(filter_subject="a")
    second = entries.encode_delivered_new("c", state.generation, 50, 2, [(3, 4)])
    outcome = host.apply(second).result
    assert isinstance(outcome, counts.DeliveredOutcome)
    assert (outcome.deliveries, outcome.num_pending) == ([], 3)
    assert state.plan_new(9) == [1, 3, 4]
    host.apply(entries.encode_delivered_new("c", state.generation, 50, 1, [(1, 1)]))
    outcome = host.apply(second).result
    assert isinstance(outcome, counts.DeliveredOutcome)
    assert [(run.first, run.last) for run in outcome.deliveries] == [(3, 4)]
    assert state.counters().num_pending == 0


def test_a_planned_delivery_never_overtakes_an_update_or_a_reset() -> None:
    host = Host(b"a", b"b", b"a", b"b")
    state = host.make(filter_subject="a")
    planned = entries.encode_delivered("c", state.generation, 50, [(1, 1, 1), (3, 3, 1)])
    host.make(time_ns=40, filter_subject="b")
    outcome = host.apply(planned).result
    assert isinstance(outcome, counts.DeliveredOutcome)
    assert outcome.deliveries == []
    assert state.plan_new(9) == [2, 4]
    planned = entries.encode_delivered("c", state.generation, 50, [(2, 2, 1), (4, 4, 1)])
    host.apply(entries.encode_reset("c", 30, 1))
    outcome = host.apply(planned).result
    assert isinstance(outcome, counts.DeliveredOutcome)
    assert outcome.deliveries == []
    assert state.plan_new(9) == [2, 4]


def test_a_future_start_counts_only_what_comes_then() -> None:
    host = Host(b"a")
    state = host.make(deliver_policy="by_start_sequence", opt_start_seq=4)
    host.store(b"a", b"a")
    assert state.counters().num_pending == 0
    host.store(b"a", b"a")
    assert state.counters().num_pending == 2
    assert state.plan_new(9) == [4, 5]
    host.store(b"a")
    assert state.counters().num_pending == 3


def test_waits_follow_a_changed_ack_wait_but_not_for_delayed_naks() -> None:
    host = Host(b"a", b"a")
    state = host.make(ack_wait=100)
    host.apply(entries.encode_delivered("c", state.generation, 1000, [(1, 2, 1)]))
    host.apply(entries.encode_acks("c", 0, 1000, [AckRuns(AckOp.NAK, 7, [(2, 2)])]))
    host.make(time_ns=1001, ack_wait=500)
    assert [(run.first, run.due_ns) for run in state.pending] == [(1, 1500), (2, 1007)]
