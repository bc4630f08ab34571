"""Goal: every checker passes a good history and fails on one that has exactly the defect it is there to find."""

from __future__ import annotations

from typing import Any

import pytest

from jepsen.checker import consumer, stream
from jepsen.checker.admin import check_admin
from jepsen.checker.limits import check_limits
from jepsen.checker.linearizable import Step, check_register
from jepsen.checker.live import check_live
from jepsen.checker.stream import Removals
from jepsen.history import NEVER_NS, FinalStream, History, Operation, Seen, payload, value_of


class Run:
    """A history made by hand: one nanosecond per event."""

    def __init__(self) -> None:
        self.now = 0
        self.history = History(self.tick)
        self.messages: dict[int, Seen] = {}
        self.last = 0

    def tick(self) -> int:
        self.now += 1
        return self.now

    def publish(self, value: str, seq: int = 0, *, stored: bool = True, subject: str = "s", **args: Any) -> Operation:
        operation = self.history.begin(1, "publish", stream="S", subject=subject, value=value, **args)
        if seq:
            operation.ok(seq=seq)
            if stored:
                self.store(seq, value, subject)
        return operation

    def store(self, seq: int, value: str, subject: str = "s") -> None:
        self.messages[seq] = Seen("S", seq, subject, payload(value, 50))
        self.last = max(self.last, seq)

    def final(self, **changes: Any) -> FinalStream:
        facts: dict[str, Any] = {
            "messages": self.messages,
            "first_seq": min(self.messages, default=self.last + 1),
            "last_seq": self.last,
            "count": len(self.messages),
        }
        return FinalStream("S", **{**facts, **changes})

    def problems(self, removals: Removals | None = None, **changes: Any) -> list[str]:
        history, final = self.history, self.final(**changes)
        removals = removals or Removals(history, "S")
        return [
            *stream.check_lost(history, final, removals),
            *stream.check_unexpected(history, final),
            *stream.check_phantom(history, final),
            *stream.check_dup_seq(history, final),
            *stream.check_dup_msg(history, final),
            *stream.check_order(history, final),
            *stream.check_gap(history, final, removals),
            *stream.check_contents(final),
            *stream.check_removed(history, final, removals),
        ]


def good() -> Run:
    run = Run()
    for seq in range(1, 6):
        run.publish(f"v{seq}", seq)
    return run


def kinds(problems: list[str]) -> set[str]:
    return {problem.split(":")[0] for problem in problems}


def test_a_good_history_passes_everything() -> None:
    run = good()
    run.publish("unknown but stored")
    run.store(6, "unknown but stored")
    run.publish("unknown and not stored")
    run.publish("refused").fail("503")
    assert run.problems() == []


def test_lost() -> None:
    run = good()
    del run.messages[3]
    assert kinds(run.problems()) == {"lost", "gap"}
    (told,) = stream.check_lost(run.history, run.final(), Removals(run.history, "S"))
    assert "seq 3 (middle)" in told


def test_lost_at_the_end_is_lost_and_not_a_gap_in_the_middle() -> None:
    run = good()
    del run.messages[5]
    assert kinds(run.problems(last_seq=4)) == {"lost", "gap"}


def test_replaced_by_something_else() -> None:
    run = good()
    run.publish("other")
    run.store(3, "other")
    assert {"lost", "dup-seq"} <= kinds(run.problems())


def test_damage_must_be_named_to_be_excused() -> None:
    run = good()
    del run.messages[3]
    final, removals = run.final(unreadable=frozenset([3])), Removals(run.history, "S")
    assert stream.check_lost(run.history, final, removals, allowed=[3]) == []
    assert stream.check_gap(run.history, final, removals, allowed=[3]) == []
    assert kinds(stream.check_lost(run.history, final, removals)) == {"lost"}
    silent = run.final()
    assert kinds(stream.check_lost(run.history, silent, removals, allowed=[3])) == {"lost"}


def test_unexpected() -> None:
    run = good()
    run.store(6, "never published")
    assert "unexpected" in kinds(run.problems())


@pytest.mark.parametrize(
    "message",
    [
        Seen("S", 2, "other.subject", payload("v2", 50)),
        Seen("S", 2, "s", payload("v2", 50)[:-1] + b"X"),
        Seen("S", 2, "s", b""),
    ],
)
def test_a_wrong_subject_or_byte_is_unexpected(message: Seen) -> None:
    run = good()
    run.messages[2] = message
    assert "unexpected" in kinds(run.problems())


def test_phantom() -> None:
    run = good()
    run.publish("refused").fail("10077")
    run.store(6, "refused")
    assert "phantom" in kinds(run.problems())
    retried = good()
    retried.publish("x").fail("503")
    retried.publish("x", 6)
    assert retried.problems() == []


def test_dup_seq_over_time() -> None:
    run = good()
    read = run.history.begin(2, "get", stream="S", seq=3)
    read.ok(seen=[Seen("S", 3, "s", payload("v2", 50))])
    assert "dup-seq" in kinds(run.problems())


def test_dup_msg() -> None:
    run = good()
    run.publish("twice", msg_id="m")
    run.publish("twice", 6, msg_id="m")
    assert run.problems() == []
    run.store(7, "twice")
    assert kinds(run.problems()) == {"dup-msg"}


def test_dup_msg_without_id_allows_one_copy_per_attempt_that_was_not_refused() -> None:
    run = good()
    run.publish("twice")
    run.publish("twice", 6)
    run.store(7, "twice")
    assert run.problems() == []
    run.publish("twice").fail("503")
    run.store(8, "twice")
    assert kinds(run.problems()) == {"dup-msg"}


def test_a_duplicate_answer_must_point_at_the_copy() -> None:
    run = good()
    run.publish("x", 6, msg_id="m")
    run.publish("x", msg_id="m").ok(seq=6, duplicate=True)
    assert run.problems() == []
    run.publish("x", msg_id="m").ok(seq=5, duplicate=True)
    assert "dup-msg" in kinds(run.problems())


def test_order() -> None:
    run = Run()
    first = run.publish("a")
    second = run.publish("b")
    first.ok(seq=2)
    second.ok(seq=1)
    run.store(1, "b")
    run.store(2, "a")
    assert run.problems() == [], "concurrent publishes may come in any order"
    run.publish("c", 4)
    run.publish("d", 3)
    assert kinds(run.problems()) == {"order"}


def test_gap() -> None:
    run = good()
    run.publish("later", 7)
    assert kinds(run.problems()) == {"gap"}


def test_contents() -> None:
    assert kinds(good().problems(count=4)) == {"contents"}
    assert kinds(good().problems(first_seq=2)) == {"contents"}
    assert kinds(Run().problems(first_seq=1, last_seq=5)) >= {"contents"}
    assert Run().problems() == []


def test_whole() -> None:
    assert stream.check_whole(good().final()) == []
    assert len(stream.check_whole(good().final(unreadable=frozenset([1, 2])))) == 2
    assert len(stream.check_whole(good().final(is_halted=True))) == 1


def test_bytes() -> None:
    run = good()
    size = 5 * (30 + 1 + 50)
    assert run.problems(stored_bytes=size) == []
    assert kinds(run.problems(stored_bytes=size + 1)) == {"bytes"}
    assert run.problems(stored_bytes=5 * (16 + 1 + 50), storage="memory") == []
    run.messages[1] = run.messages[1]._replace(header=b"NATS/1.0\r\n\r\n")
    assert run.problems(stored_bytes=size + 4 + 12) == []


def test_removals_explain_and_demand() -> None:
    run = good()
    run.history.begin(1, "remove", stream="S", seq=2).ok()
    run.history.begin(1, "remove", stream="S", seq=4)
    del run.messages[2]
    assert run.problems() == []
    del run.messages[4]
    assert run.problems() == []
    run.store(2, "v2")
    assert kinds(run.problems()) == {"removed"}


def test_a_purge_covers_what_was_there_and_nothing_later() -> None:
    run = good()
    run.history.begin(1, "remove", stream="S", below_seq=None, subject=None).ok()
    run.publish("after", 6)
    for seq in range(1, 6):
        del run.messages[seq]
    assert run.problems() == []
    del run.messages[6]
    assert {"lost", "gap"} <= kinds(run.problems(first_seq=7))
    run.store(6, "after")
    run.store(5, "v5")
    assert kinds(run.problems()) == {"removed"}


def test_a_purge_by_subject_or_sequence() -> None:
    run = good()
    run.publish("t1", 6, subject="t")
    run.history.begin(1, "remove", stream="S", below_seq=None, subject="t").ok()
    run.history.begin(1, "remove", stream="S", below_seq=3).ok()
    for seq in (1, 2, 6):
        del run.messages[seq]
    assert run.problems() == []
    del run.messages[3]
    assert {"lost", "gap"} <= kinds(run.problems())


def test_limits_explain_the_oldest_only() -> None:
    run = good()
    del run.messages[1], run.messages[2]
    assert run.problems(Removals(run.history, "S", keep_last=3)) == []
    del run.messages[3]
    assert {"lost"} <= kinds(run.problems(Removals(run.history, "S", keep_last=3)))
    other = good()
    del other.messages[2]
    assert other.problems(Removals(other.history, "S", keep_per_subject=3)) == []
    assert "removed" not in kinds(other.problems(is_halted=True))
    assert "lost" in kinds(other.problems(Removals(other.history, "S", keep_per_subject=4)))


def test_a_publish_that_was_never_answered_may_be_evicted_in_the_middle() -> None:
    run = Run()
    run.publish("first", 1, subject="other")
    run.publish("unanswered")
    for seq in (3, 4):
        run.publish(f"later {seq}", seq)
    assert run.problems(Removals(run.history, "S", keep_per_subject=2)) == []
    assert "gap" in kinds(run.problems(Removals(run.history, "S", keep_per_subject=3)))


def test_what_one_connection_sent_is_stored_in_that_order() -> None:
    run = Run()
    first, second = (run.publish(value, link=7) for value in ("a", "b"))
    for operation, seq in ((second, 1), (first, 2)):
        operation.ok(seq=seq)
        run.store(seq, operation.args["value"])
    assert kinds(run.problems()) == {"order"}


# -- consumers --------------------------------------------------------------------------------------------------------


def fetch(run: Run, *seqs: int, who: int = 1) -> Operation:
    operation = run.history.begin(who, "fetch", stream="S", consumer="C")
    operation.ok(seen=[run.messages.get(seq, Seen("S", seq, "s", b"")) for seq in seqs])
    return operation


def ack(run: Run, seq: int, name: str = "ack") -> Operation:
    operation = run.history.begin(1, name, stream="S", consumer="C", seq=seq)
    operation.ok()
    return operation


def test_redelivered_after_a_confirmed_ack() -> None:
    run = good()
    fetch(run, 1, 2)
    ack(run, 1)
    run.history.begin(1, "ack", stream="S", consumer="C", seq=2)
    fetch(run, 2)
    assert consumer.check_redelivered(run.history, "C") == []
    fetch(run, 1)
    assert len(consumer.check_redelivered(run.history, "C")) == 1


def test_two_holders() -> None:
    run = good()
    fetch(run, 1, 2)
    ack(run, 2, "nak")
    fetch(run, 2, who=2)
    assert consumer.check_holders(run.history, "C", 100) == []
    fetch(run, 1, who=2)
    assert len(consumer.check_holders(run.history, "C", 100)) == 1
    assert consumer.check_holders(run.history, "C", 2) == []


def test_a_nak_may_take_effect_later_than_it_was_sent() -> None:
    run = good()
    run.history.begin(1, "nak", stream="S", consumer="C", seq=1)
    fetch(run, 1, who=2)
    fetch(run, 1, who=3)
    assert consumer.check_holders(run.history, "C", 100) == []
    ack(run, 2, "nak")
    fetch(run, 2, who=2)
    fetch(run, 2, who=3)
    assert len(consumer.check_holders(run.history, "C", 100)) == 1


def test_a_slow_link_is_no_second_holder() -> None:
    """Sent to 2, given back by whom it had before, sent to 3; and 3 is nearer."""
    run = good()
    slow = run.history.begin(2, "fetch", stream="S", consumer="C")
    ack(run, 1, "nak")
    fetch(run, 1, who=3)
    slow.ok(seen=[run.messages[1]])
    assert consumer.check_holders(run.history, "C", 100) == []


def test_a_copy_that_a_cut_held_back_may_have_been_sent_an_ack_wait_before_the_next() -> None:
    run = good()
    slow = run.history.begin(2, "fetch", stream="S", consumer="C")
    run.now += 100
    fetch(run, 1, who=3)
    slow.ok(seen=[run.messages[1]])
    assert consumer.check_holders(run.history, "C", 100) == []
    assert len(consumer.check_holders(run.history, "C", 200)) == 1


def test_work_queue() -> None:
    run = good()
    ack(run, 1)
    del run.messages[1]
    assert consumer.check_work_queue(run.history, run.final(), ["C"]) == []
    del run.messages[2]
    assert "gone and nobody acked" in consumer.check_work_queue(run.history, run.final(), ["C"])[0]
    ack(run, 2)
    ack(run, 3)
    assert "still there" in consumer.check_work_queue(run.history, run.final(), ["C"])[0]


def test_floor() -> None:
    def sample(run: Run, floor: int, delivered: int, last: int = 5) -> None:
        operation = run.history.begin(1, "consumer_info", stream="S", consumer="C")
        operation.ok(ack_floor=floor, delivered=delivered, last_seq=last)

    run = good()
    sample(run, 1, 2)
    sample(run, 1, 3)
    sample(run, 3, 3)
    assert consumer.check_floor(run.history, "C") == []
    sample(run, 2, 4)
    assert len(consumer.check_floor(run.history, "C")) == 1
    for bad in ((3, 2, 5), (1, 6, 5)):
        run = good()
        sample(run, *bad)
        assert len(consumer.check_floor(run.history, "C")) == 1


def test_drained() -> None:
    run = good()
    fetch(run, 1, 2, 3, 4)
    assert consumer.check_drained(run.history, run.final(), "C") == ["drained: seq 5 was never delivered to C"]
    fetch(run, 5)
    assert consumer.check_drained(run.history, run.final(), "C") == []


def test_live() -> None:
    run = good()
    run.history.begin(0, "probe").ok()
    assert check_live(run.history, 5) == []
    assert len(check_live(run.history, 0)) == 1
    run.history.begin(0, "probe")
    run.history.begin(0, "probe").fail("10008")
    assert len(check_live(run.history, 5)) == 2


# -- linearizability --------------------------------------------------------------------------------------------------

W, R, C, F = "write", "read", "cas", "cas_fail"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], True),
        ([Step(R, None, None, 0, 1)], True),
        ([Step(W, "a", None, 0, 1), Step(R, "a", None, 2, 3)], True),
        ([Step(W, "a", None, 0, 1), Step(R, None, None, 2, 3)], False),
        # A read concurrent with a write may see either, but not back and forth.
        ([Step(W, "a", None, 0, 9), Step(R, None, None, 1, 2), Step(R, "a", None, 3, 4)], True),
        ([Step(W, "a", None, 0, 9), Step(R, "a", None, 1, 2), Step(R, None, None, 3, 4)], False),
        # An unknown write may happen, late, or never.
        ([Step(W, "a", None, 0, NEVER_NS), Step(R, None, None, 2, 3), Step(R, "a", None, 4, 5)], True),
        ([Step(W, "a", None, 0, NEVER_NS), Step(R, None, None, 2, 3)], True),
        ([Step(W, "a", None, 4, NEVER_NS), Step(R, "a", None, 2, 3)], False),
        # Compare and set.
        ([Step(C, "a", None, 0, 1), Step(C, "b", "a", 2, 3), Step(R, "b", None, 4, 5)], True),
        ([Step(C, "a", None, 0, 1), Step(C, "b", None, 2, 3)], False),
        ([Step(C, "a", None, 0, 5), Step(C, "b", None, 0, 5)], False),
        ([Step(C, "a", None, 0, 5), Step(F, None, None, 0, 5)], True),
        ([Step(F, None, None, 0, 1), Step(C, "a", None, 2, 5)], False),
        ([Step(W, "a", None, 0, 1), Step(F, None, "a", 2, 3)], False),
    ],
)
def test_registers(steps: list[Step], expected: bool) -> None:
    assert check_register(steps)[0] is expected


def test_a_register_search_that_is_too_long_is_unknown_not_passed() -> None:
    steps = [Step(W, f"v{i}", None, 0, NEVER_NS) for i in range(30)] + [Step(R, "never", None, 1, 2)]
    verdict, told = check_register(steps, budget=500)
    assert verdict is None
    assert "500" in told


def test_a_long_sequential_register_history_is_quick() -> None:
    steps = []
    for i in range(100):
        steps += [Step(W, f"v{i}", None, 10 * i, 10 * i + 5), Step(R, f"v{i}", None, 10 * i + 4, 10 * i + 9)]
    assert check_register(steps, budget=2000)[0] is True


# -- the history itself -----------------------------------------------------------------------------------------------


def test_payloads_name_their_value_and_are_checked_whole() -> None:
    for value in ("1-2", "x" * 40):
        for size in (0, 1, 10, 100, 5000):
            data = payload(value, size)
            assert len(data) >= size
            assert value_of(data) == value
            if size > 60:
                assert value_of(data[:-1]) is None
                assert value_of(data[:50] + b"!" + data[51:]) is None
    assert value_of(b"") is None
    assert value_of(b"a|b|c") is None


def test_operations_end_once_and_print_in_one_line() -> None:
    run = Run()
    operation = run.publish("v")
    operation.info("time-out")
    assert operation.outcome == "info"
    assert operation.end_ns == NEVER_NS
    operation.ok(seq=1)
    with pytest.raises(AssertionError):
        operation.fail("again")
    assert "\n" not in operation.line()
    assert run.history.counts() == {"publish:ok": 1}


def test_limits_are_those_in_force_when_the_question_was_answered() -> None:
    now = [0]
    history = History(lambda: now[0])

    def at(begin: int, end: int, f: str, **facts: int) -> None:
        now[0] = begin
        is_info = f == "stream_info"
        operation = history.begin(1, f, stream="K", **({} if is_info else facts))
        now[0] = end
        operation.ok(**(facts if is_info else {}))

    at(0, 1, "stream_info", max_msgs=5)
    at(2, 6, "stream_update", max_msgs=20)
    at(3, 4, "stream_info", max_msgs=20)  # it may be in force already
    at(7, 8, "stream_update", max_msgs=5)
    at(9, 10, "stream_info", max_msgs=5)
    assert check_limits(history, "K", {"max_msgs": 5}) == []
    at(11, 12, "stream_info", max_msgs=6)
    assert len(check_limits(history, "K", {"max_msgs": 5})) == 1
    assert check_limits(history, "K", {"max_msgs": 5}, removes=False) == []
    now[0] = 13
    history.begin(1, "stream_update", stream="K", max_msgs=20).info("lost")  # from then on nobody knows
    at(14, 15, "stream_info", max_msgs=20)
    assert len(check_limits(history, "K", {"max_msgs": 5})) == 1


def test_names_are_registers_of_things_that_come_and_go() -> None:
    now = [0]
    history = History(lambda: now[0])

    def at(begin: int, end: int, kind: str, version: str = "", **told: Any) -> None:
        now[0] = begin
        operation = history.begin(1, "admin", stream="H", name="c", kind=kind, version=version)
        now[0] = end
        if told and kind != "look":
            operation.fail("refused", **told)
        else:
            operation.ok(**told)

    at(0, 1, "create", "v1")
    at(2, 3, "create", "v2", there=True)
    at(4, 5, "look", there=True, shown="v1")
    at(6, 7, "delete")
    at(8, 9, "update", "v3", there=False)
    assert check_admin(history, "H") == []
    at(10, 11, "look", there=True, shown="v1")  # it is deleted
    assert [problem.split(":")[0] for problem in check_admin(history, "H")] == ["admin"]
