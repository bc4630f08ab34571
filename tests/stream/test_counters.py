"""Counters: what a stream of them stores and answers, against a dict of numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_driver import Driver

from jetstore.errors import ApiError

STEP = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "-2", "+5", "0", "9" * 30, "x", ""])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2), st.lists(st.tuples(STEP, st.booleans()), min_size=1, max_size=6))
def test_counters_add_up(per_subject: int, entries: list[tuple[list[tuple[str, str]], bool]]) -> None:
    driver = Driver(allow_msg_counter=True, max_msgs_per_subject=per_subject)
    values: dict[str, int] = {}
    for messages, is_cached in entries:
        given_ = [(subject, {"Nats-Incr": text} if text else {"K": "v"}, "") for subject, text in messages]
        outcome = driver.publish(*given_, cached=is_cached)
        for position, (subject, text) in enumerate(messages):
            if text in ("", "x"):
                assert outcome.exceptions[position].err_code == (10171 if text else 10169)
                assert position not in outcome.values
                continue
            values[subject] = values.get(subject, 0) + int(text)
            assert outcome.values[position] == values[subject]
    for subject, value in values.items():
        contents = driver.stream.contents
        message = contents.read(contents.last_seq_of(subject.encode()))
        assert message is not None
        assert message.data == b'{"val":"%d"}' % value


def test_a_counter_whose_message_is_gone_begins_anew() -> None:
    driver = Driver(allow_msg_counter=True, max_msgs=2)
    outcome = driver.publish(*[(subject, {"Nats-Incr": "1"}, "") for subject in "abca"])
    assert outcome.values == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"Nats-Incr": "1"}, "x", 10170),
        ({"Nats-Incr": "1" * 4_001}, "", 10171),
        ({"Nats-Incr": "1", "Nats-Rollup": "sub"}, "", 10171),
        ({"Nats-Incr": "1", "Nats-Schedule": "@every 1s"}, "", 10188),
        ({}, "x", 10169),
    ],
)
def test_what_is_no_increment(headers: dict[str, str], body: str, code: int) -> None:
    driver = Driver(allow_msg_counter=True)
    refusal: Any = driver.publish(("a", headers, body)).exceptions[0]
    assert isinstance(refusal, ApiError)
    assert refusal.err_code == code
    assert driver.publish(("a", {"Nats-Incr": "2"}, "")).values == {0: 2}


def test_a_broken_counter_says_so() -> None:
    driver = Driver()
    driver.put("a", "not a number")
    driver.put("b", '{"val":5}')
    driver.configure(allow_msg_counter=True)
    for subject in "ab":
        assert driver.put(subject, Nats_Incr="1").err_code == 10172
    nines = "9" * 4_000
    assert driver.put("c", Nats_Incr=nines) == 3
    assert driver.put("c", Nats_Incr="1").err_code == 10172
