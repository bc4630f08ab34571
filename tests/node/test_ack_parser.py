"""Acknowledgements, many at once: the quick ways say the same as the careful one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.consumer.entries import AckOp
from jetstore.node.ack_parser import Confirmation, NumberedAck, ParsedAcks, parse_acks


def subject(seq: int, consumer: str = "c", attempt: int = 1) -> bytes:
    return f"$JS.ACK.S.{consumer}.{attempt}.{seq}.{seq + 7}.1700000000000000000.3".encode()


def one(payload: bytes, reply: bytes = b"", header: bytes = b"") -> ParsedAcks:
    found = parse_acks([subject(5)], [reply], [len(header)] if header else (), [header + payload])
    assert list(found) == [b"$JS.ACK.S.c"]
    return found[b"$JS.ACK.S.c"]


@pytest.mark.parametrize(
    ("payload", "ops"),
    [
        (b"", [(AckOp.ACK, 0, [5])]),
        (b"+ACK", [(AckOp.ACK, 0, [5])]),
        (b"+OK", [(AckOp.ACK, 0, [5])]),
        (b"-NAK", [(AckOp.NAK, 0, [5])]),
        (b'-NAK {"delay": 1500}', [(AckOp.NAK, 1500, [5])]),
        (b"-NAK 2s", [(AckOp.NAK, 2_000_000_000, [5])]),
        (b"-NAK -2s", [(AckOp.NAK, 0, [5])]),
        (b"-NAK later", [(AckOp.NAK, 0, [5])]),
        (b"+WPI", [(AckOp.PROGRESS, 0, [5])]),
        (b"+TERM", [(AckOp.TERM, 0, [5])]),
        (b"+TERM no good", [(AckOp.TERM, 0, [5])]),
        (b"+NXT", [(AckOp.ACK, 0, [5])]),
        (b"+NXT 5", [(AckOp.ACK, 0, [5])]),
        (b"hello", []),
    ],
)
def test_payloads(payload: bytes, ops: list[object]) -> None:
    assert one(payload).ops == ops
    assert one(payload, header=b"NATS/1.0\r\n\r\n").ops == ops


def test_numbers_and_reasons() -> None:
    assert one(b"+TERM  no good ").terms == [NumberedAck(5, 12, 1, "no good")]
    assert one(b"-NAK").naks == [NumberedAck(5, 12, 1, "")]
    assert one(b"+NXT {}", reply=b"in").requests == [(b"in", b"{}")]
    assert one(b"+NXT {}").requests == []


def test_who_waits() -> None:
    for payload, is_settling in ((b"", True), (b"+TERM", True), (b"-NAK", False), (b"+WPI", False), (b"?", False)):
        acks = one(payload, reply=b"r")
        assert acks.confirmations == [Confirmation(b"r", 5, is_settling)]
        assert acks.is_urgent
    assert one(b"+NXT", reply=b"r").confirmations == []
    assert not one(b"").is_urgent
    assert not one(b"+WPI").is_urgent


SUBJECTS = st.builds(subject, st.integers(1, 2**63 - 1), st.sampled_from(["c", "dd"]), st.integers(1, 9))
BAD = st.sampled_from([b"$JS.ACK.S.c.1.x.3.4.5", b"$JS.ACK.S.c.1.0.3.4.5", b"$JS.ACK.S.c.1.-4.3.4.5"])


@given(st.lists(st.one_of(SUBJECTS, SUBJECTS, SUBJECTS, BAD), max_size=30), st.booleans())
def test_in_bulk_as_one_by_one(subjects: list[bytes], waiting: bool) -> None:
    replies = [b"r%d" % at if waiting else b"" for at in range(len(subjects))]
    bulk = parse_acks(subjects, replies, (), [b""] * len(subjects))
    single: dict[bytes, ParsedAcks] = {}
    for at, name in enumerate(subjects):
        # A header keeps a single message off the quick ways.
        for prefix, acks in parse_acks([name], [replies[at]], [12], [b"NATS/1.0\r\n\r\n"]).items():
            single.setdefault(prefix, ParsedAcks()).extend(acks)
    assert bulk == single


def test_order_is_kept() -> None:
    subjects = [subject(seq) for seq in (1, 2, 3, 4)]
    acks = parse_acks(subjects, [b""] * 4, (), [b"+WPI", b"", b"+ACK", b"-NAK"])[b"$JS.ACK.S.c"]
    assert acks.ops == [(AckOp.PROGRESS, 0, [1]), (AckOp.ACK, 0, [2, 3]), (AckOp.NAK, 0, [4])]
    assert acks.count == 4
