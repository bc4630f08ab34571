"""The publish side of a stream: what is refused before it is proposed, how columns are cut into entries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from jetstore.clock import RealClock
from jetstore.errors import ApiError
from jetstore.hot.frame import frame_columns
from jetstore.limits import Limits
from jetstore.model.api_errors import api_error
from jetstore.node.ingest import Ingest
from jetstore.node.ports import Inbound
from jetstore.stream.entries import decode_publish
from jetstore.stream.outcomes import Duplicate, PublishOutcome


class Answers:
    """An outlet that remembers what was answered, by reply subject."""

    domain = ""

    def __init__(self) -> None:
        self.by_reply: dict[bytes, Any] = {}

    def publish(self, subjects: Sequence[bytes], header_lens: Sequence[int], payloads: Sequence[bytes]) -> None:
        for number, (subject, payload) in enumerate(zip(subjects, payloads, strict=True)):
            body = payload[header_lens[number] :] if header_lens else payload
            self.by_reply[subject] = json.loads(body)

    def pub_acks(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        for reply, seq in zip(replies, seqs, strict=True):
            self.by_reply[reply] = {"stream": stream.decode(), "seq": seq}


class FakeGroup:
    """What Ingest needs of a stream's group; proposals are kept, with their callbacks."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.name = "S"
        self.limits = limits or Limits()
        self.clock = RealClock()
        self.outlet = Answers()
        self.answers = True
        self.refused: ApiError | None = None
        self.wanted = 0
        self.abandoned: list[tuple[str, str]] = []
        self.proposed: list[tuple[bytes, int, Callable[[PublishOutcome], None]]] = []
        self.stream = SimpleNamespace(next_time_ns=lambda now_ns, count=1: now_ns)

    def refusal(self) -> ApiError | None:
        return self.refused

    def want(self) -> None:
        self.wanted += 1

    def note_acks(self) -> None:
        """There is no journal block here."""

    def tell_abandoned(self, batch_id: str, reason: str) -> None:
        self.abandoned.append((batch_id, reason))

    def propose_with(self, data: bytes, on_outcome: Any, *, message_count: int = 0, cache: object = None) -> None:
        self.proposed.append((data, message_count, on_outcome))


def batch(count: int, size: int = 10, *, header_lens: Sequence[int] = (), start: int = 0) -> Inbound:
    return Inbound(
        subjects=[b"s.x"] * count,
        replies=[b"r.%d" % (start + number) for number in range(count)],
        header_lens=header_lens,
        payloads=[bytes([65 + number % 26]) * size for number in range(count)],
        account="$G",
        client=None,
    )


def make(limits: Limits | None = None) -> tuple[FakeGroup, Ingest]:
    group = FakeGroup(limits)
    return group, Ingest(group)  # type: ignore[arg-type]  # a fake with the same members


def test_waiting_columns_become_one_entry_and_are_answered_in_bulk() -> None:
    group, ingest = make()
    ingest.on_messages(batch(3))
    ingest.on_messages(batch(2, start=3))
    assert not ingest.fill(1 << 20)
    assert [count for _, count, _ in group.proposed] == [5]
    group.proposed[0][2](PublishOutcome(first_seq=7, count=5))
    assert {r: a["seq"] for r, a in group.outlet.by_reply.items()} == {b"r.%d" % n: 7 + n for n in range(5)}


def test_exceptions_are_answered_one_by_one_and_the_others_keep_consecutive_sequences() -> None:
    group, ingest = make()
    ingest.on_messages(batch(4))
    ingest.fill(1 << 20)
    wrong = api_error("JSStreamWrongLastSequenceErrF", seq=9)
    group.proposed[0][2](PublishOutcome(first_seq=5, count=4, exceptions={1: Duplicate(3), 2: wrong}))
    answers = group.outlet.by_reply
    assert [answers[b"r.%d" % n].get("seq") for n in range(4)] == [5, 3, 0, 6]
    assert answers[b"r.1"]["duplicate"] is True
    assert answers[b"r.2"]["error"]["err_code"] == 10071


def test_a_batch_larger_than_an_entry_is_cut_without_losing_or_reordering() -> None:
    group, ingest = make(Limits(entry_bytes_max=8192))
    ingest.on_messages(batch(100, size=1000))
    assert not ingest.fill(1 << 20)
    payloads: list[bytes] = []
    for data, _, _ in group.proposed:
        for frame in decode_publish(data)[1]:
            payloads += frame_columns(frame).payloads
    assert len(group.proposed) > 10
    assert payloads == list(batch(100, size=1000).payloads)


def test_a_header_block_that_no_record_holds_is_refused_alone() -> None:
    group, ingest = make()
    ingest.on_messages(batch(3, size=70_000, header_lens=[12, 66_000, 0]))
    assert group.outlet.by_reply[b"r.1"]["error"]["err_code"] == 10097
    ingest.fill(1 << 20)
    assert [count for _, count, _ in group.proposed] == [2]


def test_at_the_bounds_publishes_are_refused_and_nothing_waits() -> None:
    group, ingest = make(Limits(uncommitted_messages_max=5))
    ingest.on_messages(batch(4))
    ingest.on_messages(batch(2, start=10))
    assert group.outlet.by_reply[b"r.10"]["error"]["err_code"] == 10167
    ingest.fill(1 << 20)
    group.refused = api_error("JSInsufficientResourcesErr")
    ingest.on_messages(batch(1, start=20))
    assert group.outlet.by_reply[b"r.20"]["error"]["err_code"] == 10023
    assert not ingest.fill(1 << 20)
    assert [count for _, count, _ in group.proposed] == [4]
