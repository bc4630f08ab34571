"""Every kind of broken promise is found by the ledger, and a kept one is not."""

from __future__ import annotations

from array import array

import pytest

from jepsen.real.ledger import ConsumerLedger, Findings, StreamLedger
from jepsen.real.published import Published
from jepsen.real.readers import Contents
from jepsen.real.values import TAG_UNIT

TAG = 3
BASE = TAG * TAG_UNIT


def published(acks: list[tuple[int, int]], sent: int = 10) -> Published:
    numbers = array("Q", [number for number, _ in acks])
    sequences = array("Q", [sequence for _, sequence in acks])
    return Published(TAG, ("S.x",), sent, numbers, sequences)


def contents(messages: list[tuple[int, int]]) -> Contents:
    sequences = array("Q", [sequence for sequence, _ in messages])
    return Contents(sequences, array("Q", [BASE + number for _, number in messages]))


@pytest.fixture
def ledger() -> StreamLedger:
    """Messages 0, 1, 2 acknowledged at sequences 1, 2, 3."""
    ledger = StreamLedger("S")
    findings = Findings()
    assert ledger.published(published([(0, 1), (1, 2), (2, 3)]), findings) == 3
    assert not findings.counts
    return ledger


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([(1, 0), (2, 1), (3, 2), (4, 3)], None),
        ([(1, 0), (2, 1)], "acknowledged message lost"),
        ([(1, 0), (2, 1), (3, 4)], "sequence with another message than before"),
        ([(1, 0), (2, 1), (3, 2), (4, 0)], "message stored twice"),
        ([(1, 0), (2, 1), (3, 2), (3, 2)], "one sequence read twice"),
        ([(1, 0), (2, 1), (3, 2), (4, 10)], "message nobody sent"),
    ],
)
def test_read_against_acks(ledger: StreamLedger, messages: list[tuple[int, int]], kind: str | None) -> None:
    findings = Findings()
    ledger.check(contents(messages), findings)
    assert list(findings.counts) == ([kind] if kind else [])


def test_a_message_read_once_stays(ledger: StreamLedger) -> None:
    findings = Findings()
    ledger.check(contents([(1, 0), (2, 1), (3, 2), (4, 7)]), findings)
    assert not findings.counts
    ledger.check(contents([(1, 0), (2, 1), (3, 2)]), findings)
    assert findings.counts == {"message that was read has vanished": 1}


def test_a_sequence_given_twice(ledger: StreamLedger) -> None:
    findings = Findings()
    ledger.published(published([(5, 3)]), findings)
    assert findings.counts == {"acknowledged at a sequence of another message": 1}


def test_damaged_bytes() -> None:
    read = Contents()
    headers = [b"MSG S.x 1 $JS.ACK.S.c.1.1.1.5.0 22"] * 2
    read.add(headers, [b"%020d--" % BASE, b"%020d-x" % BASE], b"--")
    assert len(read.damaged) == 1
    findings = Findings()
    StreamLedger("S", sent={TAG: 1}).check(read, findings)
    assert "damaged bytes served" in findings.counts


def test_confirmed_acks_and_floor() -> None:
    consumer = ConsumerLedger()
    findings = Findings()
    consumer.floor_seen(2, findings)
    consumer.fetched(contents([(3, 2), (4, 3)]), {3}, 2, findings)
    consumer.floor_seen(3, findings)
    assert not findings.counts
    consumer.fetched(contents([(4, 3)]), {4}, 3, findings)
    assert not findings.counts
    consumer.fetched(contents([(3, 2)]), set(), 3, findings)
    assert findings.counts.pop("confirmed message delivered again") == 1
    assert findings.counts.pop("message below the ack floor delivered") == 1
    consumer.floor_seen(1, findings)
    assert findings.counts == {"ack floor went back": 1}


def test_tolerated_kinds_are_shown_but_not_counted() -> None:
    findings = Findings(frozenset({"a"}))
    findings.add("a", 2, "")
    assert findings.total == 0
    assert str(findings) == "a 2"
