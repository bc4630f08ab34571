"""Interest and work-queue streams with real consumers: what is stored, and when it goes."""

from __future__ import annotations

from typing import Any

import pytest
from stream_driver import SECOND, Driver

from jetstore.consumer.entries import (
    AckOp,
    AckRuns,
    encode_acks,
    encode_cursor,
    encode_delete,
    encode_delivered,
    encode_set,
)
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.requests import PurgeRequest
from jetstore.stream import entries
from jetstore.stream.outcomes import ConsumerOutcome


def consume(driver: Driver, name: str, *filters: str, **fields: Any) -> Any:  # Any: fields, and the state
    config = ConsumerConfig(
        **{"name": name, "durable_name": name, "ack_policy": "explicit", "ack_wait": 30 * SECOND,
           "filter_subjects": filters} | fields
    )  # fmt: skip
    driver.apply(encode_set(name, driver.now_ns, config.to_json()))
    return driver.stream.consumers[name]


def deliver(driver: Driver, name: str, count: int = 100) -> list[int]:
    consumer = driver.stream.consumers[name]
    runs = consumer.plan(driver.now_ns, count)
    outcome = driver.apply(encode_delivered(name, consumer.generation, driver.now_ns, runs))
    assert isinstance(outcome, ConsumerOutcome)
    return [seq for run in outcome.result.deliveries for seq in range(run.first, run.last + 1)]


def ack(driver: Driver, name: str, *seqs: int, op: AckOp = AckOp.ACK) -> int:
    consumer = driver.stream.consumers[name]
    ranges = [(seq, seq) for seq in seqs]
    outcome = driver.apply(encode_acks(name, consumer.generation, driver.now_ns, [AckRuns(op, 0, ranges)]))
    assert isinstance(outcome, ConsumerOutcome)
    return outcome.removed


def test_limits_streams_keep_what_is_acknowledged() -> None:
    driver = Driver()
    consume(driver, "c")
    driver.publish("a", "b")
    assert deliver(driver, "c") == [1, 2]
    assert ack(driver, "c", 1, 2) == 0
    assert driver.seqs() == [1, 2]


def test_work_queue_removes_on_acknowledgement() -> None:
    driver = Driver(retention="workqueue")
    consume(driver, "c", "a")
    driver.publish("a", "b", "a", "a")
    assert deliver(driver, "c") == [1, 3, 4]
    assert ack(driver, "c", 3) == 1
    assert driver.seqs() == [1, 2, 4]
    assert ack(driver, "c", 1, op=AckOp.TERM) == 1
    assert ack(driver, "c", 4, op=AckOp.NAK) == 0
    assert driver.seqs() == [2, 4]
    assert ack(driver, "c", 4) == 1
    assert driver.seqs() == [2]


def test_interest_stores_only_what_somebody_wants_but_numbers_everything() -> None:
    driver = Driver(retention="interest")
    assert driver.put("a") == 1
    assert driver.seqs() == []
    consume(driver, "c", "b.*")
    outcome = driver.publish("a", "b.x", "a", "a", "b.y", "b.z", "a")
    assert (outcome.first_seq, outcome.count, outcome.exceptions) == (2, 7, {})
    assert driver.seqs() == [3, 6, 7]
    assert driver.stream.contents.last_seq == 8
    assert driver.put("b.x") == 9


def test_interest_remembers_ids_of_what_it_does_not_store() -> None:
    driver = Driver(retention="interest")
    assert driver.put("a", Nats_Msg_Id="i") == 1
    assert driver.put("a", Nats_Msg_Id="i").seq == 1


def test_interest_removes_when_everybody_is_done() -> None:
    driver = Driver(retention="interest")
    consume(driver, "all")
    consume(driver, "some", "a")
    driver.publish("a", "b", "a")
    deliver(driver, "all")
    deliver(driver, "some")
    assert ack(driver, "all", 1, 2, 3) == 1
    assert driver.seqs() == [1, 3]
    assert ack(driver, "some", 3) == 1
    assert driver.seqs() == [1]


def test_interest_of_a_consumer_without_acknowledgements_ends_with_its_cursor() -> None:
    driver = Driver(retention="interest")
    state = consume(driver, "c", ack_policy="none", ack_wait=0, deliver_subject="d")
    driver.publish("a", "b", "a")
    driver.apply(encode_cursor("c", state.generation, driver.now_ns, 2, 2))
    assert driver.seqs() == [3]


def test_deleting_consumers_of_an_interest_stream_removes_what_only_they_wanted() -> None:
    driver = Driver(retention="interest")
    consume(driver, "ab", "a", "b")
    consume(driver, "bc", "b", "c")
    driver.publish("a", "b", "c")
    outcome = driver.apply(encode_delete("ab", driver.now_ns))
    assert isinstance(outcome, ConsumerOutcome)
    assert outcome.removed == 1
    assert driver.seqs() == [2, 3]
    driver.apply(encode_delete("bc", driver.now_ns))
    assert driver.seqs() == []
    assert driver.stream.state().first_seq == 4


def test_becoming_an_interest_stream_drops_what_nobody_waits_for() -> None:
    driver = Driver()
    driver.publish("a", "b", "a")
    consume(driver, "c", "a")
    deliver(driver, "c", 1)
    ack(driver, "c", 1)
    driver.configure(retention="interest")
    assert driver.seqs() == [3]


@pytest.mark.parametrize(("filters", "left"), [((), [2]), (("a",), [2])])
def test_pending_counts_follow_removals(filters: tuple[str, ...], left: list[int]) -> None:
    driver = Driver(max_msgs_per_subject=1)
    state = consume(driver, "c", *filters)
    driver.publish("a", "b", "a", "a", "b")
    assert driver.seqs() == [4, 5]
    assert state.counters().num_pending == (1 if filters else 2)


def test_a_full_purge_moves_consumers_to_the_end() -> None:
    driver = Driver()
    state = consume(driver, "c")
    driver.publish("a", "b")
    driver.apply(entries.encode_purge(PurgeRequest()))
    counters = state.counters()
    assert (counters.num_pending, counters.delivered.stream_seq, counters.ack_floor.stream_seq) == (0, 2, 2)


def test_a_filtered_purge_moves_only_consumers_of_those_subjects() -> None:
    driver = Driver()
    inside = consume(driver, "inside", "a.x")
    wider = consume(driver, "wider", "a.x", "b")
    driver.publish("a.x", "b", "a.x")
    driver.apply(entries.encode_purge(PurgeRequest(filter="a.*")))
    assert inside.counters().delivered.stream_seq == 3
    assert wider.counters().delivered.stream_seq == 0
    assert wider.counters().num_pending == 1


def test_entries_of_unknown_consumers_change_nothing() -> None:
    driver = Driver()
    outcome = driver.apply(encode_delivered("gone", 1, driver.now_ns, [(1, 1, 1)]))
    assert isinstance(outcome, ConsumerOutcome)
    assert outcome.result is None


def test_consumers_survive_a_checkpoint() -> None:
    driver = Driver(retention="workqueue")
    consume(driver, "c", "a")
    driver.publish("a", "b", "a", "a")
    deliver(driver, "c", 2)
    stream = driver.stream
    done = stream.checkpoint(stream.applied_term)
    driver.stream = type(stream).restore(stream.uid, done.head, done.chunks, stream.log, stream.index, stream.limits)
    assert driver.stream.consumers["c"].to_head() == stream.consumers["c"].to_head()
    assert ack(driver, "c", 1, 3) == 2
    assert deliver(driver, "c") == [4]
    driver.put("b")
    assert driver.stream.consumers["c"].counters().num_pending == 0
