"""Fast batches on the node that leads: what is said when, how messages under way are treated, what is bounded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetstore.clock import RealClock
from jetstore.errors import ApiError, NotNow
from jetstore.limits import Limits
from jetstore.model.stream import StreamConfig
from jetstore.node.fast_batches import IDLE_S, OpenCount
from jetstore.node.fast_reply import parse_reply
from jetstore.node.ingest import Ingest
from jetstore.node.ports import Inbound
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.memory_log import MemoryLog
from jetstore.stream.entries import encode_config
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, RaftIndex, Term

WRONG = "Nats-Expected-Last-Sequence: 999"


class FakeLoop:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> None:
        self.timers.append((when_s, callback))

    def run_to(self, when_s: float) -> None:
        while due := sorted((t for t in self.timers if t[0] <= when_s), key=lambda timer: timer[0]):
            self.timers.remove(due[0])
            self.now_s = due[0][0]
            due[0][1]()
        self.now_s = when_s


class Rig:
    """Ingest over a real stream; entries are applied when the test says so. It stands for group and outlet, too."""

    domain = ""

    def __init__(self, limits: Limits | None = None, **config: Any) -> None:
        self.name = "S"
        self.limits = limits or Limits()
        self.loop = FakeLoop()
        self.clock = RealClock()
        self.outlet = self
        self.answers = not config.get("no_ack")
        self.refused: ApiError | None = None
        self.takes_proposals = True
        self.stream = Stream(GroupUid(2), MemoryLog("file"), MemoryIndex(), self.limits)
        made = StreamConfig(**{"name": "S", "subjects": (">",), "allow_batched": True} | config)
        self.applied = 0
        self.proposed: list[tuple[bytes, Any, Any]] = []
        self.said: list[tuple[str, Any]] = []
        self.propose_with(encode_config(1, 1, made), None)
        self.ingest = Ingest(self)  # type: ignore[arg-type]  # a fake with the same members
        self.ingest.fast.is_allowed = made.allow_batched
        self.apply()

    # -- what Ingest needs of a group

    def refusal(self) -> ApiError | None:
        return self.refused

    def want(self) -> None:
        pass

    def note_acks(self) -> None:
        pass

    def tell_abandoned(self, batch_id: str, reason: str) -> None:
        pass

    def propose_with(self, data: bytes, on_outcome: Any, *, message_count: int = 0, cache: Any = None) -> None:
        if not self.takes_proposals:
            raise NotNow("S")
        self.proposed.append((data, on_outcome, cache))

    def publish(self, subjects: Sequence[bytes], header_lens: Sequence[int], payloads: Sequence[bytes]) -> None:
        for subject, payload in zip(subjects, payloads, strict=True):
            self.said.append((subject.decode(), json.loads(payload)))

    def pub_acks(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        self.said += [(reply.decode(), seq) for reply, seq in zip(replies, seqs, strict=True) if reply]

    # -- what tests do

    def send(self, *messages: str | tuple[str, str]) -> None:
        """One read: reply subjects, each perhaps with a header line. Proposed at once."""
        self.read(*messages)
        self.ingest.fill(1 << 30)

    def read(self, *messages: str | tuple[str, str]) -> None:
        given = [(message, "") if isinstance(message, str) else message for message in messages]
        blocks = [f"NATS/1.0\r\n{line}\r\n\r\n".encode() if line else b"" for _, line in given]
        self.ingest.on_messages(
            Inbound(
                subjects=[b"s"] * len(given),
                replies=[reply.encode() for reply, _ in given],
                header_lens=[len(block) for block in blocks] if any(blocks) else (),
                payloads=[block + reply.encode() for block, (reply, _) in zip(blocks, given, strict=True)],
                account="$G",
                client=None,
            )
        )

    def apply(self, count: int = 1 << 30) -> None:
        while self.proposed and count:
            data, on_outcome, cache = self.proposed.pop(0)
            self.applied += 1
            frames = cache and [replace(frame, columns=None) for frame in cache]
            outcome = self.stream.apply(RaftIndex(self.applied), Term(1), data, frames)
            if on_outcome is not None:
                on_outcome(outcome)
            count -= 1

    def heard(self) -> list[Any]:
        """What was said since the last time: ``ack 2/4``, ``gap 2-5``, ``err 3``, ``end 7 of 3``, or a code."""
        said, self.said = self.said, []
        return [short(body) for _, body in said]


def short(body: Any) -> str:
    if isinstance(body, int):
        return f"seq {body}"
    match body.get("type"):
        case "ack":
            return f"ack {body['seq']}/{body['msgs']}"
        case "gap":
            return f"gap {body['last_seq']}-{body['seq']}"
        case "err":
            return f"err {body['seq']}"
    if "error" in body:
        return str(body["error"]["err_code"])
    return f"end {body['seq']} of {body['count']}" if "batch" in body else f"seq {body['seq']}"


def reply(number: int, operation: int = 1, batch: str = "a", mode: str = "fail", flow: int = 10) -> str:
    return f"p.{batch}.{flow}.{mode}.{number}.{operation}.$FI"


def test_nothing_is_acknowledged_before_it_is_applied() -> None:
    rig = Rig()
    rig.send(reply(1, 0, flow=2), reply(2, flow=2))
    rig.send(reply(3, flow=2), reply(4, flow=2))
    rig.send(reply(5, 2, flow=2))
    assert rig.heard() == ["ack 0/2"]
    rig.apply(1)
    assert rig.heard() == ["ack 2/2"]
    rig.apply(1)
    assert rig.heard() == ["ack 4/2"]
    rig.apply(1)
    assert rig.heard() == ["end 5 of 5"]
    assert rig.stream.messages == 5


def test_a_run_is_settled_at_once() -> None:
    rig = Rig()
    rig.send(reply(1, 0), *[reply(number) for number in range(2, 36)], "plain")
    assert len(rig.proposed) == 1
    rig.apply()
    assert rig.said == [
        ("p.a.10.fail.1.0.$FI", {"type": "ack", "seq": 0, "msgs": 10}),
        ("plain", 36),
        ("p.a.10.fail.30.1.$FI", {"type": "ack", "seq": 30, "msgs": 10}),
    ]


def test_what_is_sent_behind_a_refused_message_is_not_stored() -> None:
    rig = Rig()
    rig.send(reply(1, 0), reply(2))
    rig.send((reply(3), WRONG), reply(4), "plain")
    rig.send(reply(5))
    rig.send(reply(5, 4), reply(6))
    rig.send(reply(7, 2))
    assert rig.heard() == ["ack 0/10"]
    rig.apply()
    assert rig.heard() == ["seq 3", "err 3", "end 2 of 2", *["10208"] * 5]
    assert rig.stream.messages == 3
    rig.send(reply(8))
    assert rig.heard() == ["10208"]
    rig.send(reply(1, 0, "b"), reply(2, 2, "b"))
    assert not rig.stream.ended_batches.keys - {1}
    rig.apply()
    assert rig.heard() == ["ack 0/10", "end 5 of 2"]
    assert not rig.stream.ended_batches.keys


def test_what_waits_when_a_message_is_refused_is_not_stored() -> None:
    rig = Rig(replace(Limits(), entry_bytes_max=60))
    rig.send((reply(1, 0), WRONG))
    rig.read(reply(2), reply(3), reply(4), "plain")
    rig.apply()
    rig.ingest.fill(1)
    rig.send(reply(1, 0, "b"))
    rig.apply()
    assert sorted(rig.heard()) == ["10071", *["10208"] * 3, *["ack 0/10"] * 2, "seq 1"]
    assert rig.stream.messages == 2
    rig.send(reply(2, 2, "b"))
    rig.apply()
    assert not rig.stream.ended_batches.keys


def test_with_ok_a_refused_message_is_left_out() -> None:
    rig = Rig()
    rig.send(reply(1, 0, mode="ok"), (reply(2, mode="ok"), WRONG), reply(3, mode="ok"))
    rig.send((reply(4, 2, mode="ok"), WRONG))
    rig.apply()
    assert rig.heard() == ["ack 0/10", "err 2", "err 4", "end 2 of 3"]
    assert rig.stream.messages == 2


def test_a_gap_is_told_in_its_turn() -> None:
    rig = Rig()
    rig.send(reply(1, 0, mode="ok"), reply(5, mode="ok"), reply(6, 4, mode="ok"), reply(9, 3, mode="ok"))
    assert rig.heard() == ["ack 0/10"]
    rig.apply()
    assert rig.heard() == ["gap 2-5", "gap 6-7", "ack 0/10", "gap 7-9", "end 2 of 8"]
    rig.send(reply(1, 0, "b"), reply(3, batch="b"), reply(4, batch="b"))
    assert rig.heard() == ["ack 0/10", "10208"]
    rig.apply()
    assert rig.heard() == ["gap 2-3", "end 3 of 1"]


def test_an_entry_cut_in_the_middle_of_a_batch() -> None:
    rig = Rig(replace(Limits(), entry_bytes_max=100))
    rig.send(reply(1, 0), *[reply(number) for number in range(2, 12)], (reply(12), WRONG), reply(13), reply(14, 2))
    assert len(rig.proposed) > 4
    rig.apply()
    assert rig.heard() == ["ack 0/10", "ack 10/10", "err 12", "end 11 of 11", "10208", "10208"]
    assert rig.stream.messages == 11


def test_a_header_that_no_record_holds() -> None:
    rig = Rig(replace(Limits(), header_bytes_max=100))
    wide = "K: " + "v" * 200
    rig.send(reply(1, 0), (reply(2), wide), reply(3))
    assert rig.heard() == ["ack 0/10", "10208"]
    rig.apply()
    assert rig.heard() == ["err 2", "end 1 of 1"]
    rig.send(reply(1, 0, mode="ok"), (reply(2, mode="ok"), wide), reply(3, 2, mode="ok"))
    rig.apply()
    assert rig.heard() == ["ack 0/10", "err 2", "end 3 of 3"]
    rig.send((reply(1, 0), wide))
    assert rig.heard() == ["ack 0/10", "10097"]
    assert rig.stream.messages == 3


def test_an_idle_batch_is_forgotten() -> None:
    rig = Rig()
    rig.send(reply(1, 0))
    rig.loop.run_to(100 + 2 * IDLE_S)
    rig.apply()
    assert rig.heard() == ["ack 0/10"]
    rig.send(reply(2))  # it was not idle: its message waited for the disk
    rig.apply()
    rig.loop.run_to(100 + 2.9 * IDLE_S)
    rig.send(reply(2, 4))
    assert rig.heard() == ["ack 0/10"]
    rig.loop.run_to(100 + 4.1 * IDLE_S)
    rig.send(reply(3))
    assert rig.heard() == ["10208"]
    assert rig.loop.timers == []


def test_batches_are_bounded() -> None:
    limits = replace(Limits(), fast_batches_stream_max=3, fast_batches_max=4)
    one, other = Rig(limits), Rig(limits)
    one.ingest.fast.all = other.ingest.fast.all = OpenCount()
    one.send(*[reply(1, 0, name) for name in "abcd"])
    assert one.heard() == ["ack 0/10", "ack 0/1", "ack 0/1", "10211"]
    other.send(*[reply(1, 0, name) for name in "ab"])
    assert other.heard() == ["ack 0/10", "10211"]
    one.apply()
    one.send(reply(2, 3, "a"))
    other.send(reply(1, 0, "b"))
    assert other.heard() == ["ack 0/1"]
    one.ingest.fast.clear()
    other.ingest.fast.clear()
    assert one.ingest.fast.all.open == 0


def test_a_member_that_leads_no_longer() -> None:
    rig = Rig()
    rig.send(reply(1, 0))
    rig.read(reply(2), reply(3))
    rig.ingest.resign()
    assert rig.heard() == ["ack 0/10", "10008", "10008"]
    rig.send(reply(4))
    rig.apply()
    assert rig.heard() == ["10208"]
    assert rig.ingest.in_flight_messages <= 0


def test_what_cannot_be_proposed_ends_its_batch() -> None:
    rig = Rig()
    rig.send(reply(1, 0), (reply(2), WRONG))
    rig.apply()
    assert rig.heard() == ["ack 0/10", "err 2", "end 1 of 1"]
    rig.takes_proposals = False
    rig.send(reply(1, 0, "b"), reply(2, 1, "b"))
    assert rig.heard() == ["ack 0/10", "10008", "10008"]
    rig.takes_proposals = True
    rig.send(reply(3, 1, "b"))
    assert rig.heard() == ["10208"]
    rig.send(reply(1, 2, "c"))
    rig.apply()
    assert not rig.stream.ended_batches.keys  # the log was told in the end


def test_no_room_means_a_gap() -> None:
    rig = Rig(replace(Limits(), uncommitted_messages_max=2))
    rig.send(reply(1, 0), reply(2))
    rig.outlet.publish = lambda *given: rig.said.append(("", {"error": {"err_code": 429}}))  # type: ignore[method-assign]
    rig.send(reply(3))
    assert rig.heard() == ["ack 0/10", "429"]
    del rig.outlet.publish  # type: ignore[attr-defined]
    rig.apply()
    rig.send(reply(4))
    assert rig.heard() == ["gap 3-4", "end 2 of 2"]


def test_without_acknowledgements_only_the_end_is_told() -> None:
    rig = Rig(no_ack=True)
    rig.send(reply(1, 0), reply(2, 9), reply(2, 2))
    rig.apply()
    assert rig.heard() == ["end 2 of 2"]


@pytest.mark.parametrize(
    "subject", ["$FI", "x.$FI", "p.10.ok.1.0.$FI", "p..10.ok.1.0.$FI", "p.a.10.OK.1.0.$FI", "p.a.10.ok.1.5.$FI"]
)
def test_subjects_that_make_no_sense(subject: str) -> None:
    assert parse_reply(subject.encode()) is None
    rig = Rig()
    rig.send(subject)
    assert rig.heard() == ["10206"]


STEP = st.tuples(
    st.sampled_from("aabbc"),
    st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 2, -1]),
    st.sampled_from([1, 1, 1, 1, 1, 1, 4, 4, 2, 3, 7]),
    st.sampled_from(["", "", "", "", "K: v", WRONG, "Nats-Msg-Id: i", "Nats-Expected-Last-Subject-Sequence: 3"]),
    st.sampled_from(["", "", "", "read", "part", "fill", "apply", "all"]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=40), st.sets(st.sampled_from("abc")), st.sampled_from([60, 1 << 20]))
def test_it_makes_no_difference_how_far_the_log_is(
    steps: list[tuple[str, int, int, str, str]], ok: set[str], entry_bytes_max: int
) -> None:
    """One that applies every message before the next comes, one that lets them pile up: stored and said is the same."""
    limits = replace(Limits(), entry_bytes_max=entry_bytes_max)
    steady, late = Rig(limits, duplicate_window=10**11), Rig(limits, duplicate_window=10**11)
    numbers = dict.fromkeys("abc", 0)
    waiting: list[tuple[str, str]] = []
    for batch, jump, operation, line, then in steps:
        number = max(numbers[batch] + (operation != 4) + jump, 1 + (numbers[batch] > 0))  # no id begins twice
        numbers[batch] = max(numbers[batch], number)
        message = (
            reply(number, 0 if number == 1 and operation == 1 else operation, batch, "ok" if batch in ok else "fail"),
            line,
        )
        steady.send(message)
        steady.apply()
        waiting.append(message)
        if then:
            late.read(*waiting)
            waiting = []
        if then in ("part", "fill", "all"):
            late.ingest.fill(1 if then == "part" else 1 << 30)
        if then in ("apply", "all"):
            late.apply(1 if then == "apply" else 1 << 30)
    if waiting:
        late.send(*waiting)
    late.ingest.fill(1 << 30)
    late.apply()
    assert stored(steady) == stored(late)
    assert by_reply(steady) == by_reply(late)


def stored(rig: Rig) -> list[tuple[int, bytes]]:
    seqs = rig.stream.contents.next_seqs(1, None, 1_000)
    return [(message.seq, message.data) for message in rig.stream.log.read_many(seqs, 1 << 30)]


def by_reply(rig: Rig) -> dict[str, list[str]]:
    """What was said, but for flow acks, of which a run of messages has but one; last what came after an end."""
    found: dict[str, list[str]] = {}
    for subject, body in rig.said:
        answer = short(body)
        if not answer.startswith("ack"):
            found.setdefault(subject, []).append(answer)
    return {subject: sorted(answers, key="10208".__eq__) for subject, answers in found.items()}
