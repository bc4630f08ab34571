"""A message whose way is told, at a stream's ingest: each way it can end is told once, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from test_ingest import FakeGroup

from jetstore.hot.frame import frame_columns
from jetstore.limits import Limits
from jetstore.model.api_errors import api_error
from jetstore.node.ingest import Ingest
from jetstore.node.ports import Inbound
from jetstore.stream.entries import decode_publish
from jetstore.stream.outcomes import Duplicate, PublishOutcome

HEADER = b"NATS/1.0\r\nNats-Trace-Dest: t\r\nNats-Expected-Last-Sequence: 4\r\n\r\n"
Told = list[tuple[str, bool, str]]


class Trace:
    """Collects what the stream says."""

    is_only = False

    def __init__(self) -> None:
        self.told: Told = []

    def at_stream(self, stream: str) -> Callable[[str, bool, str], None]:
        assert stream == "S"
        return lambda subject, unwanted, problem: self.told.append((subject, unwanted, problem))


def begin(reply: bytes = b"r", **limits: int) -> tuple[FakeGroup, Ingest, Trace]:
    group = FakeGroup(Limits(**limits))
    group.stream = SimpleNamespace(
        next_time_ns=lambda now_ns, count=1: now_ns, settings=SimpleNamespace(is_interest=False)
    )
    ingest = Ingest(group)  # type: ignore[arg-type]  # a fake with the same members
    trace = Trace()
    ingest.on_messages(Inbound([b"s.x"], [b"r0"], (), [b"before"], "$G", None))
    ingest.on_messages(Inbound([b"s.x"], [reply], [len(HEADER)], [HEADER + b"body"], "$G", None, trace))
    ingest.on_messages(Inbound([b"s.x"], [b"r2"], (), [b"after"], "$G", None))
    return group, ingest, trace


def test_stored_messages_are_followed_no_further() -> None:
    group, ingest, trace = begin(reply=b"")
    ingest.fill(1 << 20)
    data, count, applied = group.proposed[0]
    stored = frame_columns(decode_publish(data)[1][0])
    assert stored.payloads[1] == HEADER.replace(b"Dest: t", b"Dest: trace disabled") + b"body"
    assert (count, trace.told) == (3, [])
    applied(PublishOutcome(first_seq=1, count=3))
    assert trace.told == [("s.x", False, "")]
    assert set(group.outlet.by_reply) - {b""} == {b"r0", b"r2"}


def test_refusals_are_told_with_their_reasons() -> None:
    for outcome, problem in (
        (Duplicate(3), "msgid is duplicate"),
        (api_error("JSStreamWrongLastSequenceErrF", seq=9), "last sequence mismatch: 4 vs 9"),
        (api_error("JSStreamSealedErr"), "invalid operation on sealed stream (10109)"),
        (api_error("JSStreamMessageExceedsMaximumErr"), "maximum payload exceeded"),
    ):
        group, ingest, trace = begin()
        ingest.fill(1 << 20)
        group.proposed[0][2](PublishOutcome(first_seq=1, count=3, exceptions={1: outcome}))
        assert trace.told == [("", False, problem)]
        assert set(group.outlet.by_reply) == {b"r0", b"r", b"r2"}


def test_what_was_never_proposed_is_told_too() -> None:
    _, ingest, trace = begin()
    ingest.resign()
    assert [problem for _, _, problem in trace.told] == ["JetStream system temporarily unavailable (10008)"]
    group, ingest, trace = begin(uncommitted_messages_max=1)
    assert [problem for _, _, problem in trace.told] == ["too many requests (10167)"]
    assert group.outlet.by_reply[b"r"]["error"]["err_code"] == 10167


def test_without_acknowledgements_it_is_told_all_the_same() -> None:
    group, ingest, trace = begin()
    group.answers = False
    ingest.fill(1 << 20)
    group.proposed[0][2](PublishOutcome(first_seq=1, count=3))
    assert (trace.told, group.outlet.by_reply) == ([("s.x", False, "")], {})
