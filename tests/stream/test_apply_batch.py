"""Atomic batches: all of it or nothing, and what is stored is what plain publishes would have stored."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_driver import Driver, Given, frames_of

from jetstore.errors import ApiError
from jetstore.limits import Limits
from jetstore.stream import entries
from jetstore.stream.outcomes import BatchOutcome

HEADERS = st.sampled_from(
    [
        {},
        {"K": "v"},
        {"Nats-Msg-Id": "i1"},
        {"Nats-Msg-Id": "i2"},
        {"Nats-TTL": "5"},
        {"Nats-TTL": "wrong"},
        {"Nats-Rollup": "sub"},
        {"Nats-Rollup": "all"},
        {"Nats-Expected-Last-Sequence": "3"},
        {"Nats-Expected-Last-Subject-Sequence": "0"},
        {"Nats-Expected-Last-Subject-Sequence": "2", "Nats-Expected-Last-Subject-Sequence-Subject": "*"},
    ]
)
MESSAGE = st.tuples(st.sampled_from("abc"), HEADERS, st.sampled_from(["", "x", "yy" * 20]))
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "max_msgs": st.integers(1, 4),
        "max_msgs_per_subject": st.integers(1, 2),
        "max_bytes": st.integers(100, 400),
        "discard": st.sampled_from(["old", "new"]),
        "retention": st.sampled_from(["limits", "interest"]),
    },
)
FLAGS: dict[str, Any] = {"allow_atomic": True, "allow_rollup_hdrs": True, "allow_msg_ttl": True}


def batch(driver: Driver, messages: list[Given], frame_bytes_max: int = 60) -> Any:
    time_ns = driver.stream.next_time_ns(driver.now_ns, len(messages))
    frames = frames_of(messages, time_ns, frame_bytes_max)
    return driver.apply(entries.encode_publish(time_ns, frames, is_atomic=True))


def seen(driver: Driver) -> tuple[object, ...]:
    stream = driver.stream
    messages = [
        message._replace(header=message.header.replace(b"Xats", b"Nats"))
        for message in stream.log.read_many(driver.seqs(), 1 << 30)
    ]
    return stream.state(), messages, stream.dedupe.to_head(), stream.ttls.to_rows(), stream.last_msg_id


def without_expectations(message: Given) -> Given:
    subject, headers, body = message
    return subject, {name.replace("Nats-Expected", "Xats-Expected"): text for name, text in headers.items()}, body


@settings(max_examples=300, deadline=None)
@given(CONFIG, st.lists(MESSAGE, max_size=5), st.lists(MESSAGE, min_size=1, max_size=6))
def test_a_batch_is_stored_whole_or_not_at_all(config: dict[str, Any], before: list[Given], given: list[Given]) -> None:
    driver = Driver(Limits(), **FLAGS, **config)
    twin = Driver(Limits(), **FLAGS, **config)
    for message in before:
        driver.publish(message)
        twin.publish(message)
    untouched = seen(driver)
    outcome = batch(driver, given)
    if isinstance(outcome, ApiError):
        assert seen(driver) == untouched
        return
    assert isinstance(outcome, BatchOutcome)
    assert (outcome.last_seq, outcome.count) == (driver.stream.contents.last_seq, len(given))
    plain = twin.publish(*map(without_expectations, given))
    if not plain.exceptions:  # a stream that discards new messages counts room by the message, a batch as a whole
        assert seen(driver) == seen(twin)
    assert driver.stream.contents.last_seq == untouched[0].last_seq + len(given)  # type: ignore[attr-defined]


def test_what_refuses_a_batch() -> None:
    driver = Driver(Limits(), **FLAGS)
    driver.put("a", Nats_Msg_Id="old")
    for messages, code in (
        ([("a", {}, ""), ("a", {"Nats-Expected-Last-Subject-Sequence": "1"}, "")], 10164),
        ([("b", {}, ""), ("a", {"Nats-Expected-Last-Subject-Sequence": "2"}, "")], 10071),
        ([("a", {}, ""), ("b", {"Nats-Msg-Id": "old"}, "")], 10201),
        ([("a", {"Nats-Msg-Id": "n"}, ""), ("b", {"Nats-Msg-Id": "n"}, "")], 10201),
        ([("a", {"Nats-Expected-Last-Msg-Id": "old"}, "")], 10177),
        ([("a", {}, ""), ("b", {"Nats-Rollup": "all"}, "")], 10111),
        ([("a", {"Nats-Stream-Source": "S 1"}, "")], 10227),
    ):
        outcome = batch(driver, messages)  # type: ignore[arg-type]
        assert isinstance(outcome, ApiError)
        assert outcome.err_code == code
    assert driver.stream.contents.last_seq == 1
    driver.configure(allow_atomic=False)
    assert batch(driver, [("a", {}, "")]).err_code == 10174
