"""Whatever bytes come as a pull request or an acknowledgement: a request, a refusal, or nothing. Never an exception."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from jetstore.model.consumer import ConsumerConfig
from jetstore.node.ack_parser import parse_acks
from jetstore.node.pull_request import PullRequest, Refused, level_refusal, parse_request

CONFIG = ConsumerConfig(max_batch=100)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.none(), max_size=1),
)
NAMES = st.sampled_from(
    [
        "batch",
        "Expires",
        "expires",
        "max_bytes",
        "no_wait",
        "idle_heartbeat",
        "group",
        "id",
        "priority",
        "min_pending",
        "z",
    ]
)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(NAMES, VALUES, max_size=4).map(lambda fields: json.dumps(fields).encode()),
    st.binary(max_size=9).map(lambda tail: b"{" + tail),
    st.integers(0, 10**40).map(lambda number: str(number).encode()),
    st.just(b"9" * 5000),
    st.just(b"[" * 100_000),
)


def outcome(body: bytes) -> tuple[bytes, PullRequest | None]:
    try:
        return b"", parse_request(b"in", body, CONFIG, 1000.0)
    except Refused as refused:
        return refused.block, None


@given(BODIES)
def test_any_body(body: bytes) -> None:
    block, request = outcome(body)
    if request is None:
        assert block.startswith(b"NATS/1.0 4")
        assert block.endswith(b"\r\n\r\n")
        assert block.count(b"\r\n\r\n") == 1
        return
    assert 1 <= request.left <= 100
    assert request.max_bytes >= 0
    assert request.expires_s == 0 or request.expires_s >= 1000.0


@given(st.lists(st.one_of(st.binary(max_size=30), BODIES.map(lambda body: b"-NAK " + body)), min_size=1, max_size=6))
def test_any_acknowledgement(payloads: list[bytes]) -> None:
    subjects = [b"$JS.ACK.S.c.1.%d.2.1700000000000000000.0" % (at + 1) for at in range(len(payloads))]
    for acks in parse_acks(subjects, [b"r"] * len(payloads), (), payloads).values():
        assert all(delay >= 0 for _, delay, _ in acks.ops)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_any_subject(subjects: list[bytes]) -> None:
    for replies in ([b""] * len(subjects), [b"r"] * len(subjects)):
        parse_acks(subjects, replies, (), [b""] * len(subjects))


@given(st.binary(max_size=30))
def test_any_level(value: bytes) -> None:
    block = b"NATS/1.0\r\nNats-Required-Api-Level:" + value + b"\r\n\r\n"
    assert level_refusal(block) in (b"", b"412 Required Api Level")
