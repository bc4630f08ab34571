"""Purge, delete, expiry with delete markers, and what a changed configuration removes."""

from __future__ import annotations

from typing import Any

import pytest
from stream_driver import SECOND, START_NS, Driver

from jetstore.errors import ApiError
from jetstore.model.requests import PurgeRequest
from jetstore.stream import entries
from jetstore.stream.outcomes import ConfigOutcome, DeleteOutcome, ExpireOutcome, PurgeOutcome
from jetstore.stream.ttl import TICK_NS


def purge(driver: Driver, **fields: Any) -> Any:  # Any: read by each test
    outcome = driver.apply(entries.encode_purge(PurgeRequest(**fields)))
    return outcome.purged if isinstance(outcome, PurgeOutcome) else outcome


def delete(driver: Driver, seq: int) -> Any:  # Any: read by each test
    return driver.apply(entries.encode_delete(seq))


def expire(driver: Driver, max_messages: int = 10_000) -> ExpireOutcome:
    outcome = driver.apply(entries.encode_expire(driver.now_ns, max_messages))
    assert isinstance(outcome, ExpireOutcome)
    return outcome


# -- purge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({}, []),
        ({"filter": ">"}, []),
        ({"filter": "a"}, [2, 3, 5, 6]),
        ({"filter": "c.*"}, [1, 2, 4, 5]),
        ({"filter": "none"}, [1, 2, 3, 4, 5, 6]),
        ({"seq": 1}, [1, 2, 3, 4, 5, 6]),
        ({"seq": 3}, [3, 4, 5, 6]),
        ({"seq": 6}, [6]),
        ({"seq": 7}, []),
        ({"keep": 2}, [5, 6]),
        ({"keep": 6}, [1, 2, 3, 4, 5, 6]),
        ({"keep": 9}, [1, 2, 3, 4, 5, 6]),
        ({"filter": "c.*", "keep": 1}, [1, 2, 4, 5, 6]),
        ({"filter": "a", "seq": 4}, [2, 3, 4, 5, 6]),
        ({"filter": "c.*", "seq": 99}, [1, 2, 4, 5]),
    ],
)
def test_purge(fields: dict[str, Any], left: list[int]) -> None:
    driver = Driver()
    driver.publish("a", "b", "c.x", "a", "b", "c.y")
    assert purge(driver, **fields) == 6 - len(left)
    assert driver.seqs() == left
    assert driver.stream.contents.last_seq == 6


def test_purge_beyond_the_last_message_moves_the_next_sequence() -> None:
    driver = Driver()
    driver.publish("a", "b")
    assert purge(driver, seq=10) == 2
    state = driver.stream.state()
    assert (state.messages, state.bytes, state.first_seq, state.last_seq, state.num_deleted) == (0, 0, 10, 9, 0)
    assert driver.put("a") == 10


def test_state_after_a_full_purge() -> None:
    driver = Driver()
    driver.publish("a", "b")
    purge(driver)
    state = driver.stream.state()
    assert (state.first_seq, state.last_seq, state.first_ts_ns, state.last_ts_ns) == (3, 2, 0, START_NS + 1)
    assert state.num_subjects == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sealed": True}, (400, 10109, "invalid operation on sealed stream")),
        ({"deny_purge": True}, (500, 10110, "stream purge not permitted")),
    ],
)
def test_purge_refused(config: dict[str, Any], expected: tuple[int, int, str]) -> None:
    driver = Driver()
    driver.put("a")
    driver.configure(**config)
    error = purge(driver)
    assert isinstance(error, ApiError)
    assert (error.code, error.err_code, error.description) == expected
    assert driver.seqs() == [1]


def test_purge_with_both_seq_and_keep_is_a_bad_request() -> None:
    error = purge(Driver(), seq=5, keep=1)
    assert isinstance(error, ApiError)
    assert error.err_code == 10003


# -- delete -------------------------------------------------------------------------------------------------------


def test_delete() -> None:
    driver = Driver()
    driver.publish("a", "b", "a")
    assert delete(driver, 2) == DeleteOutcome(2)
    state = driver.stream.state()
    assert (state.messages, state.num_deleted, state.first_seq, state.num_subjects) == (2, 1, 1, 1)
    assert delete(driver, 1) == DeleteOutcome(1)
    assert driver.stream.state().first_seq == 3
    assert driver.stream.state().num_deleted == 0


@pytest.mark.parametrize(
    ("config", "seq", "expected"),
    [
        ({}, 7, (400, 10043, "sequence 7 not found")),
        ({"deny_delete": True}, 1, (500, 10057, "message delete not permitted")),
        ({"sealed": True}, 1, (400, 10109, "invalid operation on sealed stream")),
    ],
)
def test_delete_refused(config: dict[str, Any], seq: int, expected: tuple[int, int, str]) -> None:
    driver = Driver()
    driver.put("a")
    driver.configure(**config)
    error = delete(driver, seq)
    assert isinstance(error, ApiError)
    assert (error.code, error.err_code, error.description) == expected


def test_the_last_sequence_of_a_subject_follows_deletes() -> None:
    driver = Driver()
    driver.publish("a", "b", "a", "b")
    delete(driver, 3)
    assert driver.stream.contents.last_seq_of(b"a") == 1
    assert driver.put("a", Nats_Expected_Last_Subject_Sequence="1") == 5


# -- expiry -------------------------------------------------------------------------------------------------------


def test_nothing_expires_without_age_or_ttl() -> None:
    driver = Driver()
    driver.put("a")
    assert driver.stream.next_expiry_ns() is None


def test_age() -> None:
    driver = Driver(max_age=10 * SECOND)
    driver.publish("a", "b")
    assert driver.stream.next_expiry_ns() == START_NS + 10 * SECOND
    driver.now_ns += 10 * SECOND - 1
    assert expire(driver).removed == 0
    driver.now_ns += 1
    assert expire(driver).removed == 1
    driver.now_ns += 1
    assert expire(driver).removed == 1
    assert driver.stream.next_expiry_ns() is None
    assert driver.stream.state().first_seq == 3


def test_expiry_in_bounded_steps() -> None:
    driver = Driver(max_age=SECOND)
    driver.publish(*"abcdefg")
    driver.now_ns += 5 * SECOND
    assert expire(driver, 3) == ExpireOutcome(3, 0, is_complete=False)
    assert expire(driver, 3) == ExpireOutcome(3, 0, is_complete=False)
    assert expire(driver, 3) == ExpireOutcome(1, 0, is_complete=True)


def test_time_to_live_in_whole_seconds_and_never() -> None:
    driver = Driver(allow_msg_ttl=True, max_age=3 * SECOND)
    for ttl in ("1s", "1.9s", "2", "never", "1h"):
        driver.put("a", Nats_TTL=ttl)
    driver.now_ns += 2 * SECOND
    assert expire(driver).removed == 2
    assert driver.seqs() == [3, 4, 5]
    driver.now_ns += SECOND
    expire(driver)
    assert driver.seqs() == [4, 5]
    driver.now_ns += SECOND
    expire(driver)
    assert driver.seqs() == [4]
    assert driver.stream.next_expiry_ns() == START_NS + 3600 * SECOND + TICK_NS
    driver.now_ns += 3600 * SECOND
    assert expire(driver) == ExpireOutcome(0, 0, is_complete=True)
    assert driver.stream.next_expiry_ns() is None


def test_a_marker_stands_where_the_last_message_of_a_subject_expired() -> None:
    driver = Driver(
        max_age=10 * SECOND, allow_msg_ttl=True, allow_rollup_hdrs=True, subject_delete_marker_ttl=90 * SECOND
    )
    driver.publish("a", "b", "a")
    driver.now_ns += 11 * SECOND
    outcome = expire(driver)
    assert (outcome.removed, outcome.markers) == (3, 2)
    assert driver.seqs() == [4, 5]
    assert driver.subjects() == ["b", "a"]
    marker = driver.stream.contents.read(4)
    assert marker is not None
    assert marker.data == b""
    assert marker.header == (b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1m30s\r\nNats-Rollup: sub\r\n\r\n")
    assert marker.time_ns == driver.now_ns
    driver.now_ns += 11 * SECOND
    assert expire(driver).markers == 0  # the markers grew too old themselves: no marker for a marker
    assert driver.seqs() == []


def test_a_marker_expires_and_kv_purges_leave_none() -> None:
    driver = Driver(allow_msg_ttl=True, allow_rollup_hdrs=True, subject_delete_marker_ttl=SECOND)
    driver.put("a", Nats_TTL="1s")
    driver.put("b", Nats_TTL="1s", KV_Operation="PURGE")
    driver.now_ns += 2 * SECOND
    outcome = expire(driver)
    assert (outcome.removed, outcome.markers) == (2, 1)
    assert driver.subjects() == ["a"]
    driver.now_ns += 2 * SECOND
    outcome = expire(driver)
    assert (outcome.removed, outcome.markers) == (1, 0)
    assert driver.stream.messages == 0


def test_a_short_ttl_is_raised_to_that_of_the_marker() -> None:
    driver = Driver(allow_msg_ttl=True, allow_rollup_hdrs=True, subject_delete_marker_ttl=5 * SECOND)
    driver.put("a", "x", Nats_TTL="1s", Other="y")
    stored = driver.stream.contents.read(1)
    assert stored is not None
    assert stored.header == b"NATS/1.0\r\nOther: y\r\nNats-TTL: 5\r\n\r\n"
    assert driver.stream.next_expiry_ns() == START_NS + 5 * SECOND
    single = Driver(
        allow_msg_ttl=True, allow_rollup_hdrs=True, subject_delete_marker_ttl=5 * SECOND, max_msgs_per_subject=1
    )
    single.put("a", Nats_TTL="1s")
    assert single.stream.next_expiry_ns() == START_NS + SECOND


def test_a_removed_message_with_a_ttl_is_passed_over() -> None:
    driver = Driver(allow_msg_ttl=True)
    driver.put("a", Nats_TTL="1s")
    driver.put("a", Nats_TTL="1s")
    delete(driver, 1)
    driver.now_ns += 2 * SECOND
    assert expire(driver).removed == 1


# -- configuration ------------------------------------------------------------------------------------------------


def test_tighter_limits_trim() -> None:
    driver = Driver()
    driver.publish(*"aabbcc")
    assert driver.configure(max_msgs_per_subject=1) == ConfigOutcome(2, removed=3)
    assert driver.seqs() == [2, 4, 6]
    assert driver.configure(max_msgs=2) == ConfigOutcome(3, removed=1)
    assert driver.configure(max_bytes=40) == ConfigOutcome(4, removed=1)
    assert driver.seqs() == [6]


def test_an_older_configuration_changes_nothing() -> None:
    driver = Driver()
    driver.publish(*"ab")
    stale = entries.encode_config(1, 5, driver.config.model_copy(update={"max_msgs": 1}))
    assert driver.apply(stale) == ConfigOutcome(1, is_stale=True)
    assert driver.seqs() == [1, 2]
    assert driver.stream.created_ns == START_NS


def test_first_seq_of_an_update_has_no_effect() -> None:
    driver = Driver()
    driver.configure(first_seq=50)
    assert driver.put("a") == 1
