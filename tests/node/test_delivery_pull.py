"""Pull consumers: what each request gets, in the words of nats-server."""

from __future__ import annotations

from typing import Any

import pytest
from delivery_world import Got, S, World

from jetstore.limits import Limits


def numbers(gots: list[Got]) -> list[tuple[int, int, int, int]]:
    return [got.numbers for got in gots if got.reply]


def statuses(gots: list[Got]) -> list[str]:
    return [got.status for got in gots if got.status]


def left(got: Got) -> tuple[int, int]:
    """Nats-Pending-Messages and Nats-Pending-Bytes of a status."""
    fields = dict(line.split(b": ") for line in got.header.split(b"\r\n")[1:] if line)
    return int(fields[b"Nats-Pending-Messages"]), int(fields[b"Nats-Pending-Bytes"])


LIMITED = {"max_batch": 10, "max_expires": 5 * S, "max_bytes": 5000}


@pytest.mark.parametrize(
    ("config", "body", "expected"),
    [
        (LIMITED, {"batch": 11}, "409 Exceeded MaxRequestBatch of 10"),
        (LIMITED, {"expires": 6 * S}, "409 Exceeded MaxRequestExpires of 5s"),
        (LIMITED, {"max_bytes": 6000}, "409 Exceeded MaxRequestMaxBytes of 5000"),
        ({}, {"batch": 1, "idle_heartbeat": S}, "400 Bad Request - heartbeat value too large"),
        ({}, {"idle_heartbeat": S, "expires": S}, "400 Bad Request - heartbeat value too large"),
        (
            {},
            {"batch": "x"},
            "400 Bad Request - json: cannot unmarshal string into Go struct field .batch of type int",
        ),
        (
            {},
            {"batch": 1.5},
            "400 Bad Request - json: cannot unmarshal number 1.5 into Go struct field .batch of type int",
        ),
        (
            {},
            {"no_wait": 1},
            "400 Bad Request - json: cannot unmarshal number into Go struct field .no_wait of type bool",
        ),
        (
            {},
            {"expires": "1s"},
            "400 Bad Request - json: cannot unmarshal string into Go struct field .expires of type time.Duration",
        ),
        ({}, b"{bad", "400 Bad Request - invalid character 'b' looking for beginning of object key string"),
        ({}, b"{", "400 Bad Request - unexpected end of JSON input"),
        ({}, b"{}x", "400 Bad Request - invalid character 'x' after top-level value"),
        ({}, {"priority": 10}, "400 Bad Request - Priority must be between 0 and 9"),
        ({}, {"min_pending": 3}, "400 Bad Request - Not a Overflow Priority consumer"),
        ({}, {"min_ack_pending": 1}, "400 Bad Request - Not a Overflow Priority consumer"),
        ({}, {"id": "zz", "batch": 1}, "400 Bad Request - Not a Pinned Client Priority consumer"),
        ({}, {"batch": 1, "expires": -5}, "408 Request Timeout"),
        ({}, {"no_wait": True, "max_bytes": 10}, "409 Message Size Exceeds MaxBytes"),
    ],
)
def test_refusals_leave_the_messages_alone(config: dict[str, Any], body: dict[str, Any] | bytes, expected: str) -> None:
    world = World()
    world.fill(3)
    world.consumer(**config)
    world.request("in", body)
    (got,) = world.outlet.taken()
    assert (got.status, got.target, got.reply, got.data) == (expected, b"in", b"", b"")
    assert got.header.endswith(b"\r\n\r\n")
    assert world.info() == "del c0 s0 floor c0 s0 ackp 0 redel 0 wait 0 pend 3"


MORE = [({"batch": 2, "unknown": {}}, 2), ({"priority": 3}, 1), ({"group": "A"}, 1), ({"batch": -1}, 1), (b" 2 ", 2)]


@pytest.mark.parametrize(
    ("body", "count"),
    [(b"", 1), (b"2", 2), (b"abc", 1), (b"0", 1), (b"-3", 1), (b"[1]", 1), ({"batch": 0}, 1), ({"Batch": 2}, 2), *MORE],
)
def test_body_forms(body: dict[str, Any] | bytes, count: int) -> None:
    world = World()
    world.fill(3)
    world.consumer()
    world.request("in", body)
    assert numbers(world.outlet.taken()) == [(1, seq, seq, 3 - seq) for seq in range(1, count + 1)]


def test_a_message_keeps_its_subject_headers_and_body() -> None:
    world = World()
    world.publish(("s.one", b"body"), header=b"NATS/1.0\r\nA: b\r\n\r\n")
    world.consumer()
    (got,) = world.fetch(batch=1)
    assert (got.subject, got.header, got.data) == (b"s.one", b"NATS/1.0\r\nA: b\r\n\r\n", b"body")
    time_ns = world.stream.log.read(1).time_ns  # type: ignore[union-attr]
    assert got.reply == b"$JS.ACK.S.c.1.1.1.%d.0" % time_ns


def test_headers_only_says_how_long_the_body_was() -> None:
    world = World()
    world.publish(("s.a", b"12345"), header=b"NATS/1.0\r\nA: b\r\n\r\n")
    world.publish(("s.a", b""))
    world.consumer(headers_only=True)
    first, second = world.fetch(batch=2)
    assert (first.header, first.data) == (b"NATS/1.0\r\nA: b\r\nNats-Msg-Size: 5\r\n\r\n", b"")
    assert (second.header, second.data) == (b"NATS/1.0\r\nNats-Msg-Size: 0\r\n\r\n", b"")


def test_higher_api_level_is_refused() -> None:
    world = World()
    world.fill(1)
    world.consumer()
    world.request("in", b"", header=b"NATS/1.0\r\nNats-Required-Api-Level: 99\r\n\r\n")
    assert statuses(world.outlet.taken()) == ["412 Required Api Level"]
    world.request("in", b"", header=b"NATS/1.0\r\nNats-Required-Api-Level: 1\r\n\r\n")
    assert len(world.outlet.taken()) == 1


# -- no_wait ----------------------------------------------------------------------------------------------------------


def test_no_wait_with_nothing_there() -> None:
    world = World()
    world.consumer()
    assert statuses(world.fetch(batch=2, no_wait=True)) == ["404 No Messages"]
    assert world.fetch(batch=2, no_wait=True, expires=S) == []
    world.pass_s(1)
    (got,) = world.outlet.taken()
    assert (got.status, left(got)) == ("408 Request Timeout", (2, 0))


def test_no_wait_takes_what_there_is() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    got = world.fetch(batch=5, no_wait=True)
    assert [g.seq for g in got[:3]] == [1, 2, 3]
    assert got[3].status == "404 No Messages"
    assert got[3].header == b"NATS/1.0 404 No Messages\r\n\r\n"
    assert len(got) == 4


def test_no_wait_with_expires_ends_after_the_first_messages() -> None:
    world = World()
    world.consumer()
    world.request("in", {"batch": 5, "no_wait": True, "expires": S})
    world.fill(2)
    got = world.outlet.taken()
    assert [g.seq for g in got[:2]] == [1, 2]
    assert statuses(got) == ["404 No Messages"]


def test_no_wait_behind_a_longer_queue() -> None:
    world = World()
    world.fill(3)
    world.consumer(max_ack_pending=1)
    world.request("first", {"batch": 10})
    world.outlet.taken()
    assert statuses(world.fetch(batch=1, no_wait=True)) == ["408 Requests Pending"]


def test_no_wait_at_max_ack_pending_is_answered_when_there_is_room() -> None:
    world = World()
    world.fill(2)
    world.consumer(max_ack_pending=1)
    (first,) = world.fetch(batch=5, no_wait=True)
    world.pass_s(1)
    assert world.outlet.taken() == []
    world.ack(first)
    got = world.outlet.taken()
    assert [g.seq for g in got if g.reply] == [2]


def test_paused() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    world.pause(seconds=5)
    assert statuses(world.fetch(batch=1, no_wait=True)) == ["404 No Messages"]
    assert world.fetch(batch=1, expires=S) == []
    world.pass_s(1)
    assert statuses(world.outlet.taken()) == ["408 Request Timeout"]
    world.request("in", {"batch": 1, "expires": 60 * S})
    info = world.delivery.consumer_info("c")
    assert info.paused
    assert info.pause_remaining_ns == 4 * S
    world.pass_s(3.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    assert numbers(world.outlet.taken()) == [(1, 1, 1, 2)]
    assert not world.delivery.consumer_info("c").paused


def test_resumed_early() -> None:
    world = World()
    world.fill(1)
    world.consumer()
    world.pause(seconds=50)
    world.request("in", b"")
    assert world.outlet.taken() == []
    world.pause(seconds=0)
    assert numbers(world.outlet.taken()) == [(1, 1, 1, 0)]


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_a_request_waits_for_its_whole_batch() -> None:
    world = World()
    world.consumer()
    world.request("in", {"batch": 3, "expires": 10 * S})
    world.fill(2)
    assert numbers(world.outlet.taken()) == [(1, 1, 1, 1), (1, 2, 2, 0)]
    assert world.info().endswith("wait 1 pend 0")
    world.fill(2)
    assert numbers(world.outlet.taken()) == [(1, 3, 3, 1)]
    assert world.info().endswith("wait 0 pend 1")
    world.pass_s(11)
    assert world.outlet.taken() == []


def test_expiry_says_what_is_left() -> None:
    world = World()
    world.fill(1)
    world.consumer()
    got = world.fetch(batch=5, expires=2 * S, max_bytes=1000)
    size = sum(map(len, (got[0].subject, got[0].reply, got[0].header, got[0].data)))
    world.pass_s(1.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    (end,) = world.outlet.taken()
    assert (end.status, left(end)) == ("408 Request Timeout", (4, 1000 - size))


def test_requests_are_served_in_turn() -> None:
    world = World()
    world.consumer()
    for name in ("a", "b", "c1"):
        world.request(name, {"batch": 3, "expires": 60 * S})
    world.fill(7)
    assert [g.seq for g in world.outlet.taken(b"a")] == [1, 4, 7]
    assert [g.seq for g in world.outlet.taken(b"b")] == [2, 5]
    assert [g.seq for g in world.outlet.taken(b"c1")] == [3, 6]
    world.fill(1)
    assert [g.seq for g in world.outlet.taken(b"b")] == [8]


def test_batch_completed_within_the_budget() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    got = world.fetch(batch=2, max_bytes=500, expires=S)
    assert [g.seq for g in got[:2]] == [1, 2]
    used = sum(len(g.subject) + len(g.reply) + len(g.header) + len(g.data) for g in got[:2])
    assert (got[2].status, left(got[2])) == ("409 Batch Completed", (0, 500 - used))


def test_budget_too_small_for_the_next_message() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    got = world.fetch(batch=5, max_bytes=120, expires=S)
    assert [g.seq for g in got[:2]] == [1, 2]
    used = sum(len(g.subject) + len(g.reply) + len(g.header) + len(g.data) for g in got[:2])
    assert (got[2].status, left(got[2])) == ("409 Message Size Exceeds MaxBytes", (3, 120 - used))
    assert world.info() == "del c2 s2 floor c0 s0 ackp 2 redel 0 wait 0 pend 1"


def test_exactly_used_budget_ends_silently() -> None:
    world = World()
    world.fill(2)
    world.consumer()
    (first,) = world.fetch(batch=1)
    size = sum(map(len, (first.subject, first.reply, first.header, first.data)))
    got = world.fetch(batch=5, max_bytes=size, expires=S)
    assert [g.seq for g in got] == [2]
    assert world.info().endswith("wait 0 pend 0")


def test_max_waiting() -> None:
    world = World()
    world.consumer(max_waiting=2)
    world.request("a", {"expires": 60 * S})
    world.request("b", {"expires": 60 * S})
    assert statuses(world.fetch("c1", expires=60 * S)) == ["409 Exceeded MaxWaiting"]
    assert world.fetch("d", expires=60 * S, idle_heartbeat=S) == []
    assert "wait 2" in world.info()
    world.outlet.leave(b"a")
    assert world.fetch("e", expires=60 * S) == []
    assert "wait 2" in world.info()


def test_a_request_nobody_listens_to_any_more_gets_nothing() -> None:
    world = World()
    world.consumer()
    world.request("gone", {"batch": 5, "expires": 60 * S})
    world.request("here", {"batch": 5, "expires": 60 * S})
    world.outlet.leave(b"gone")
    assert "wait 1" in world.info()
    world.fill(4)
    assert [g.seq for g in world.outlet.taken(b"here")] == [1, 2, 3, 4]


def test_idle_heartbeats_until_it_expires() -> None:
    world = World()
    world.fill(3)
    world.consumer(deliver_policy="new")
    world.request("in", {"batch": 2, "expires": round(3.5 * S), "idle_heartbeat": S})
    world.pass_s(3.6)
    got = world.outlet.taken()
    assert statuses(got) == ["100 Idle Heartbeat"] * 3 + ["408 Request Timeout"]
    assert got[0].header == b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\nNats-Last-Stream: 3\r\n\r\n"


def test_a_message_puts_the_heartbeat_off() -> None:
    world = World()
    world.consumer()
    world.request("in", {"batch": 5, "expires": 60 * S, "idle_heartbeat": S})
    world.pass_s(0.6)
    world.fill(1)
    world.pass_s(0.6)
    assert statuses(world.outlet.taken()) == []
    world.pass_s(0.5)
    assert statuses(world.outlet.taken()) == ["100 Idle Heartbeat"]


# -- connections ------------------------------------------------------------------------------------------------------


def test_what_no_connection_took_goes_to_the_next_request_with_the_same_attempt() -> None:
    world = World()
    world.fill(5)
    world.consumer()
    world.outlet.take[b"in"] = 2
    assert [g.seq for g in world.fetch(batch=5, expires=S)] == [1, 2]
    assert world.info() == "del c5 s5 floor c0 s0 ackp 5 redel 0 wait 0 pend 0"
    assert numbers(world.fetch("other", batch=5, expires=S)) == [(1, 3, 6, 0), (1, 4, 7, 0), (1, 5, 8, 0)]


def test_deliveries_wait_while_the_connection_is_full() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    world.outlet.pending[b"in"] = world.limits.write_pause_bytes
    assert world.fetch(batch=2, expires=60 * S) == []
    world.outlet.drain(b"in")
    world.run()
    assert [g.seq for g in world.outlet.taken()] == [1, 2]


def test_a_full_connection_does_not_hold_up_the_others() -> None:
    world = World()
    world.consumer()
    world.request("full", {"batch": 2, "expires": 60 * S})
    world.request("free", {"batch": 2, "expires": 60 * S})
    world.outlet.pending[b"full"] = world.limits.write_pause_bytes
    world.fill(3)
    assert [g.seq for g in world.outlet.taken()] == [1, 2]
    world.outlet.drain(b"full")
    world.run()
    assert [(g.seq, g.target) for g in world.outlet.taken()] == [(3, b"full")]


def test_nothing_is_sent_before_its_delivery_is_in_the_log() -> None:
    world = World(limits=Limits(delivery_batch_messages=2))
    world.fill(5)
    world.consumer()
    world.hold = True
    assert world.fetch(batch=5, expires=60 * S) == []
    world.hold = False
    world.run()
    assert numbers(world.outlet.taken()) == [(1, seq, seq, 5 - seq) for seq in range(1, 6)]


def test_a_message_removed_on_the_way_is_not_sent_and_the_request_keeps_waiting() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    world.hold = True
    world.request("in", {"batch": 3, "expires": 60 * S})
    queue, world._queue = world._queue, []
    world.hold = False
    world.delete_message(2)
    world._queue = queue
    world.run()
    assert numbers(world.outlet.taken()) == [(1, 1, 1, 1), (1, 3, 2, 0)]
    world.fill(1)
    assert numbers(world.outlet.taken()) == [(1, 4, 3, 0)]


def test_a_reset_on_the_way_skips_nothing() -> None:
    world = World()
    world.fill(4)
    world.consumer()
    world.fetch(batch=2, expires=S)
    world.hold = True
    world.request("in", {"batch": 4, "expires": 60 * S})
    queue, world._queue = world._queue, []
    world.hold = False
    world.reset(seq=1)
    world._queue = queue + world._queue
    world.run()
    assert [g.numbers[:3] for g in world.outlet.taken()] == [(1, seq, seq) for seq in range(1, 5)]


# -- the end ----------------------------------------------------------------------------------------------------------


def test_consumer_deleted() -> None:
    world = World()
    world.consumer()
    world.request("in", {"expires": 60 * S})
    world.delete_consumer()
    (got,) = world.outlet.taken()
    assert got.header == b"NATS/1.0 409 Consumer Deleted\r\n\r\n"
    assert not world.request("in", b"")


def test_server_shutdown() -> None:
    world = World()
    world.consumer()
    world.request("in", {"batch": 7, "expires": 60 * S})
    world.delivery.stop()
    (got,) = world.outlet.taken()
    assert (got.status, left(got)) == ("409 Server Shutdown", (7, 0))
    assert world.outlet.handlers == []
    world.fill(1)
    world.pass_s(100)
    assert world.outlet.taken() == []


def test_leading_again_goes_on_where_the_log_is() -> None:
    world = World()
    world.fill(4)
    world.consumer(ack_wait=S)
    world.fetch(batch=2, expires=S)
    world.delivery.stop(b"409 Leadership Change")
    world.pass_s(2)
    world.outlet.taken()
    world.delivery.start()
    assert numbers(world.fetch(batch=3, expires=S)) == [(2, 1, 3, 2), (2, 2, 4, 2), (1, 3, 5, 1)]


def test_who_cannot_propose_sends_nothing() -> None:
    world = World()
    world.fill(4)
    world.consumer()
    world.refuses = True
    assert world.fetch(batch=2) == []


def test_nothing_is_skipped_when_a_delivery_is_refused_and_the_next_is_not() -> None:
    world = World()
    world.consumer()
    world.hold = True
    world.request("first", {"batch": 1, "expires": 20 * S})
    world.fill(1)
    world.commit()
    world.run()
    world.refuses = True
    world.request("in", {"batch": 9, "expires": 20 * S})
    for _ in range(2):
        world.fill(2)
        world.commit()
        world.run()
        world.refuses = False
    world.hold = False
    world.pass_s(5)
    assert [got.seq for got in world.outlet.taken(b"first") + world.outlet.taken(b"in")] == [1, 2, 3, 4, 5]


def test_inactive_consumer_is_deleted() -> None:
    world = World()
    world.consumer(inactive_threshold=5 * S)
    world.pass_s(4)
    world.request("in", {"expires": 3 * S})
    world.pass_s(4)
    assert "c" in world.stream.consumers
    world.pass_s(6)
    assert "c" not in world.stream.consumers


def test_without_acknowledgements_nothing_is_logged_per_delivery() -> None:
    world = World()
    world.fill(5)
    world.consumer(ack_policy="none")
    before = world.index
    assert numbers(world.fetch(batch=3, expires=S)) == [(1, seq, seq, 5 - seq) for seq in (1, 2, 3)]
    assert world.index == before
    assert world.info() == "del c3 s3 floor c3 s3 ackp 0 redel 0 wait 0 pend 2"
    assert not world.outlet.send([(b"$JS.ACK.S.c.1.1.1.5.5", b"r", b"")])
    world.pass_s(0.25)
    assert world.index == before + 1
    assert world.stream.consumers["c"].delivered[:2] == (3, 3)
    world.delete_message(2)
    world.delete_message(4)
    assert world.info() == "del c3 s3 floor c3 s3 ackp 0 redel 0 wait 0 pend 1"


def test_limits_bound_one_flight() -> None:
    world = World(limits=Limits(delivery_batch_messages=3))
    world.fill(20)
    world.consumer()
    got = world.fetch(batch=20, expires=S)
    assert numbers(got) == [(1, seq, seq, 20 - seq) for seq in range(1, 21)]


def test_who_does_not_wait_and_has_something_is_told_at_the_first_heartbeat_that_there_is_no_more() -> None:
    world = World()
    world.fill(5)
    world.consumer(max_ack_pending=2)
    asked = {"batch": 5, "expires": 2 * S, "idle_heartbeat": S // 2, "no_wait": True}
    assert len(numbers(world.fetch(**asked))) == 2
    world.pass_s(0.6)
    assert statuses(world.outlet.taken(b"in")) == ["404 No Messages"]
    assert world.info().endswith("wait 0 pend 3")
    world.request("in", asked)  # who has nothing goes on waiting
    world.pass_s(0.6)
    assert statuses(world.outlet.taken(b"in")) == ["100 Idle Heartbeat"]
