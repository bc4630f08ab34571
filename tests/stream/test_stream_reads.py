"""Reads: info, MSG.GET and DIRECT.GET."""

from __future__ import annotations

import pytest
from stream_driver import START_NS, Driver

from jetstore.errors import ApiError
from jetstore.model.requests import MessageGet, StreamInfoRequest
from jetstore.stream import entries


@pytest.fixture
def driver() -> Driver:
    made = Driver()
    made.publish("a", "b.x", "a", "b.y", ("a", {"X": "y"}, "body"), "b.x")
    made.apply(entries.encode_delete(4))
    return made


@pytest.mark.parametrize(
    ("request_", "seq"),
    [
        (MessageGet(seq=3), 3),
        (MessageGet(seq=4), 0),
        (MessageGet(seq=7), 0),
        (MessageGet(last_by_subj="a"), 5),
        (MessageGet(last_by_subj="b.*"), 6),
        (MessageGet(last_by_subj=">"), 6),
        (MessageGet(last_by_subj="none"), 0),
        (MessageGet(last_by_subj="b.y"), 0),
        (MessageGet(next_by_subj="a"), 1),
        (MessageGet(next_by_subj="a", seq=2), 3),
        (MessageGet(next_by_subj="b.*", seq=3), 6),
        (MessageGet(next_by_subj="b.*", seq=7), 0),
        (MessageGet(start_time_ns=START_NS + 1), 2),
        (MessageGet(start_time_ns=START_NS + 3), 5),
        (MessageGet(start_time_ns=START_NS + 6), 0),
        (MessageGet(start_time_ns=START_NS + 1, next_by_subj="a"), 3),
    ],
)
def test_one_message(driver: Driver, request_: MessageGet, seq: int) -> None:
    if seq:
        assert driver.stream.get_message(request_).seq == seq
    else:
        with pytest.raises(ApiError, match="no message found") as caught:
            driver.stream.get_message(request_)
        assert (caught.value.code, caught.value.err_code) == (404, 10037)


def test_without_headers(driver: Driver) -> None:
    assert driver.stream.get_message(MessageGet(seq=5)).header == b"NATS/1.0\r\nX: y\r\n\r\n"
    message = driver.stream.get_message(MessageGet(seq=5, no_hdr=True))
    assert (message.header, message.data) == (b"", b"body")


@pytest.mark.parametrize(
    ("request_", "seqs", "matched", "up_to"),
    [
        (MessageGet(batch=3), [1, 2, 3], 5, 0),
        (MessageGet(batch=9, seq=3), [3, 5, 6], 3, 0),
        (MessageGet(batch=2, next_by_subj="a", seq=2), [3, 5], 2, 0),
        (MessageGet(batch=2, next_by_subj="b.*"), [2, 6], 2, 0),
        (MessageGet(batch=9, start_time_ns=START_NS + 2), [3, 5, 6], 3, 0),
        (MessageGet(batch=9, max_bytes=1), [1], 5, 0),
        (MessageGet(multi_last=("a", "b.*")), [5, 6], 2, 6),
        (MessageGet(multi_last=(">",), batch=1), [5], 2, 6),
        (MessageGet(multi_last=("a", "b.x"), up_to_seq=4), [2, 3], 2, 4),
        (MessageGet(multi_last=("a", "b.x"), up_to_seq=1), [1], 1, 1),
        (MessageGet(multi_last=("a", "b.x"), up_to_time_ns=START_NS + 2), [1, 2], 2, 2),
        (MessageGet(multi_last=("a", "b.x"), seq=6), [6], 1, 6),
        (MessageGet(multi_last=("a",), up_to_seq=99), [5], 1, 99),
    ],
)
def test_several_messages(driver: Driver, request_: MessageGet, seqs: list[int], matched: int, up_to: int) -> None:
    messages, total, valid_to = driver.stream.get_batch(request_)
    assert [message.seq for message in messages] == seqs
    assert (total, valid_to) == (matched, up_to)


@pytest.mark.parametrize(
    "request_",
    [
        MessageGet(batch=1, seq=7),
        MessageGet(batch=1, next_by_subj="none"),
        MessageGet(multi_last=("none",)),
        MessageGet(multi_last=("a",), up_to_time_ns=START_NS - 1),
    ],
)
def test_several_of_nothing(driver: Driver, request_: MessageGet) -> None:
    with pytest.raises(ApiError, match="no message found"):
        driver.stream.get_batch(request_)


def test_too_many_subjects() -> None:
    driver = Driver()
    driver.publish(*[f"s.{i}" for i in range(1025)])
    with pytest.raises(ApiError) as caught:
        driver.stream.get_batch(MessageGet(multi_last=("s.*",)))
    assert caught.value.code == 413
    driver.apply(entries.encode_delete(1))
    assert driver.stream.get_batch(MessageGet(multi_last=("s.*",)))[1] == 1024


def test_info(driver: Driver) -> None:
    info = driver.stream.info(StreamInfoRequest(deleted_details=True, subjects_filter="b.>"))
    assert info.config.name == "S"
    assert info.created_ns == START_NS
    assert list(info.state.deleted) == [4]
    assert info.state.subjects == {"b.x": 2}
    assert info.subjects_total == 1
    assert driver.stream.info(StreamInfoRequest()).state.subjects is None
    paged = driver.stream.info(StreamInfoRequest(subjects_filter=">", offset=1))
    assert (paged.state.subjects, paged.subjects_total) == ({"b.x": 2}, 2)
    assert driver.stream.info(StreamInfoRequest(subjects_filter=">", offset=9)).state.subjects == {}


def test_nothing_was_ever_written() -> None:
    state = Driver().stream.state()
    assert (state.first_seq, state.last_seq, state.first_ts_ns, state.last_ts_ns) == (0, 0, 0, 0)
