"""Header values, durations and the rewrites before storing."""

from __future__ import annotations

import pytest

from jetstore.stream import headers

BLOCK = b"NATS/1.0\r\nA: Nats-TTL: no\r\nNats-TTL:   5s\r\nNats-TTL: 6s\r\nNats-Msg-Id: x y\r\nEmpty:\r\n\r\n"


def test_value_is_of_the_first_line_of_that_name() -> None:
    assert headers.value(BLOCK, headers.TTL) == b"5s"
    assert headers.value(BLOCK, headers.MSG_ID) == b"x y"
    assert headers.value(BLOCK, b"Empty") == b""
    assert headers.value(BLOCK, b"nats-ttl") == b""
    assert headers.value(b"", headers.TTL) == b""


def test_fields_agree_with_value() -> None:
    fields = headers.fields(BLOCK)
    assert fields == {headers.TTL: b"5s", headers.MSG_ID: b"x y"}


def test_msg_ids_of_many_blocks() -> None:
    blocks = [BLOCK, b"", b"NATS/1.0\r\nX: y\r\n\r\n", b"NATS/1.0\r\nNats-Msg-Id:z\r\n\r\n"]
    assert (
        headers.msg_ids(blocks)
        == [headers.value(block, headers.MSG_ID) for block in blocks]
        == [b"x y", b"", b"", b"z"]
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"", 0), (b"never", -1), (b"NEVER", -1), (b"1s", 1), (b"1.5s", 1), (b"90", 90), (b"1h", 3600), (b"1m30s", 90),
     (b"1h1m1.9s", 3661), (b"1000ms", 1), (b"+2s", 2), (b".5m", 30), (b"1.m", 60), ("1500000µs".encode(), 1)],
)  # fmt: skip
def test_ttl(text: bytes, seconds: int) -> None:
    assert headers.ttl_s(text) == seconds


@pytest.mark.parametrize(
    "text", [b"0", b"-1", b"-5s", b"999ms", b"1", b"soon", b"5 s", b"s", b".s", b"1d", b"9" * 30 + b"h", b"\xb2"]
)
def test_bad_ttl(text: bytes) -> None:
    if text == b"1":
        assert headers.ttl_s(text) == 1
        return
    with pytest.raises(ValueError):
        headers.ttl_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, b"1s"), (60, b"1m0s"), (90, b"1m30s"), (3600, b"1h0m0s"), (90061, b"25h1m1s")]
)
def test_duration_text_is_go_s(seconds: int, text: bytes) -> None:
    assert headers.duration_text(seconds) == text
    assert headers.ttl_s(text) == seconds


def test_without_and_with_line() -> None:
    shorter = headers.without(BLOCK, headers.TTL)
    assert shorter == b"NATS/1.0\r\nA: Nats-TTL: no\r\nNats-Msg-Id: x y\r\nEmpty:\r\n\r\n"
    assert headers.without(b"NATS/1.0\r\nA: b\r\n\r\n", b"A") == b""
    assert headers.with_line(b"", b"A", b"b") == b"NATS/1.0\r\nA: b\r\n\r\n"
    assert headers.with_line(b"NATS/1.0\r\nA: b\r\n\r\n", b"C", b"d") == b"NATS/1.0\r\nA: b\r\nC: d\r\n\r\n"


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"),
        (b"NATS/1.0 503\r\n\r\n", b""),
        (b"NATS/1.0 404 Not Found\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"),
        (b"NATS/1.0\r\nNats-Request-Info: {}\r\n\r\n", b""),
    ],
)
def test_storable(given: bytes, stored: bytes) -> None:
    assert headers.storable(given) == stored


def test_markers() -> None:
    assert headers.is_marker(headers.marker_header(5))
    assert headers.is_marker(b"NATS/1.0\r\nKV-Operation: PURGE\r\n\r\n")
    assert not headers.is_marker(b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n")


def test_a_number_that_python_does_not_read_is_none() -> None:
    assert headers.sequence(b"0017") == 17
    assert headers.sequence(b"-1") == headers.sequence(b"") == headers.sequence(b"x") == -1
    assert headers.sequence(b"9" * 5_000) == -1
