"""Acknowledgements, redelivery and what is told about them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from delivery_world import Got, S, World

from jetstore.node.acks import ACKS_FLUSH


def seqs(gots: list[Got]) -> list[int]:
    return [got.seq for got in gots if got.reply]


def advisories(world: World, kind: str) -> list[dict[str, Any]]:
    return [json.loads(got.data) for got in world.outlet.taken() if f".{kind}." in got.subject.decode()]


def listen(world: World, *kinds: str) -> None:
    for kind in kinds:
        world.outlet.listen(f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.S.c".encode())


def test_out_of_order_acks_move_the_floor_over_what_is_contiguous() -> None:
    world = World()
    world.fill(5)
    world.consumer()
    got = world.fetch(batch=5, expires=S)
    world.ack(got[1], got[3], reply=b"r")
    assert world.info() == "del c5 s5 floor c0 s0 ackp 3 redel 0 wait 0 pend 0"
    world.ack(got[0], reply=b"r")
    assert world.info() == "del c5 s5 floor c2 s2 ackp 2 redel 0 wait 0 pend 0"
    world.ack(got[2], got[4], reply=b"r")
    assert world.info() == "del c5 s5 floor c5 s5 ackp 0 redel 0 wait 0 pend 0"


def test_ack_all_takes_everything_below() -> None:
    world = World()
    world.fill(5)
    world.consumer(ack_policy="all")
    got = world.fetch(batch=5, expires=S)
    world.ack(got[3], reply=b"r")
    assert world.info() == "del c5 s5 floor c4 s4 ackp 1 redel 0 wait 0 pend 0"
    world.ack(got[1], body=b"-NAK")
    assert world.fetch(batch=1, no_wait=True)[0].status == "404 No Messages"
    world.ack(got[4], body=b"-NAK")
    assert world.fetch(batch=1, no_wait=True)[0].numbers[:3] == (2, 5, 6)


def test_acks_nobody_waits_for_go_together_after_a_moment() -> None:
    world = World()
    world.fill(50)
    world.consumer()
    got = world.fetch(batch=50, expires=S)
    before = world.index
    for one in got:
        world.ack(one)
    assert world.index == before
    world.pass_s(0.02)
    assert world.index == before + 1
    assert "ackp 0" in world.info()


def test_many_acks_are_logged_at_once() -> None:
    world = World()
    world.fill(ACKS_FLUSH)
    world.consumer()
    got = world.fetch(batch=ACKS_FLUSH, expires=S)
    world.ack(*got)
    assert "ackp 0" in world.info()


def test_acks_are_urgent_at_max_ack_pending() -> None:
    world = World()
    world.fill(4)
    world.consumer(max_ack_pending=2)
    got = world.fetch(batch=4, expires=60 * S)
    assert seqs(got) == [1, 2]
    world.ack(*got)
    assert seqs(world.outlet.taken()) == [3, 4]


@pytest.mark.parametrize(
    ("body", "confirmed", "pending"),
    [
        (b"", True, 2),
        (b"+ACK", True, 2),
        (b"+OK", True, 2),
        (b"NATS/1.0\r\nA: b\r\n\r\n+ACK", True, 2),
        (b"+TERM", True, 2),
        (b"+TERM because", True, 2),
        (b"+WPI", True, 3),
        (b"-NAK", True, 3),
        (b'-NAK {"delay": 1000000000}', True, 3),
        (b"what?", True, 3),
        (b"+NXT", False, 2),
    ],
)
def test_confirmation(body: bytes, confirmed: bool, pending: int) -> None:
    world = World()
    world.fill(3)
    world.consumer(max_ack_pending=3)
    got = world.fetch(batch=3, expires=S)
    world.ack(got[1], body=body, reply=b"answer")
    assert f"ackp {pending}" in world.info()
    assert [(g.header, g.data) for g in world.outlet.taken(b"answer")] == ([(b"", b"")] if confirmed else [])


def test_confirmation_waits_for_the_log() -> None:
    world = World()
    world.fill(1)
    world.consumer()
    (got,) = world.fetch(batch=1)
    world.hold = True
    world.ack(got, reply=b"answer")
    assert world.outlet.taken() == []
    world.hold = False
    world.run()
    assert len(world.outlet.taken(b"answer")) == 1
    world.ack(got, reply=b"again")
    assert len(world.outlet.taken(b"again")) == 1


def test_what_cannot_be_logged_is_not_confirmed_and_deliveries_go_on_later() -> None:
    world = World()
    world.fill(2)
    world.consumer()
    (got,) = world.fetch(batch=1)
    world.refuses = True
    world.ack(got, reply=b"answer")
    assert world.fetch("more", batch=1, expires=60 * S) == []
    world.pass_s(3)
    assert world.outlet.taken() == []
    world.refuses = False
    world.pass_s(2)
    assert seqs(world.outlet.taken(b"more")) == [2]
    world.ack(got, reply=b"answer")
    assert len(world.outlet.taken(b"answer")) == 1


def test_undelivered_sequences_are_not_confirmed() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    world.fetch(batch=1)
    for body in (b"", b"+TERM"):
        assert world.outlet.send([(b"$JS.ACK.S.c.1.3.3.1700000000000000000.0", b"r", body)])
        world.run()
    assert world.outlet.taken() == []
    assert world.info() == "del c1 s1 floor c0 s0 ackp 1 redel 0 wait 0 pend 2"
    for odd in (b"1.1.1.1700000000000000000", b"1.1.1.1.1700000000000000000.0", b"1.x.1.1700000000000000000.0", b"1"):
        world.outlet.send([(b"$JS.ACK.S.c." + odd, b"r", b"")] * 2)
        world.run()
    assert world.outlet.taken() == []
    assert "ackp 1" in world.info()


def test_next_acknowledges_and_asks() -> None:
    world = World()
    world.fill(4)
    world.consumer()
    (got,) = world.fetch(batch=1)
    world.outlet.listen(b"more")
    world.ack(got, body=b'+NXT {"batch": 2}', reply=b"more")
    assert seqs(world.outlet.taken(b"more")) == [2, 3]
    world.ack(got, body=b"+NXT 1", reply=b"more")
    assert seqs(world.outlet.taken(b"more")) == [4]
    assert world.info() == "del c4 s4 floor c1 s1 ackp 3 redel 0 wait 0 pend 0"


# -- redelivery -------------------------------------------------------------------------------------------------------


def test_ack_wait_runs_out_while_somebody_waits() -> None:
    world = World()
    world.fill(3)
    world.consumer(ack_wait=5 * S)
    got = world.fetch(batch=3, expires=S)
    world.ack(got[1])
    world.request("in", {"batch": 5, "expires": 60 * S})
    world.pass_s(4.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    assert [g.numbers for g in world.outlet.taken()] == [(2, 1, 4, 0), (2, 3, 5, 0)]
    assert world.info() == "del c5 s3 floor c0 s0 ackp 2 redel 2 wait 1 pend 0"


def test_progress_starts_the_wait_anew() -> None:
    world = World()
    world.fill(1)
    world.consumer(ack_wait=5 * S)
    (got,) = world.fetch(batch=1)
    world.request("in", {"batch": 5, "expires": 60 * S})
    world.pass_s(4)
    world.ack(got, body=b"+WPI")
    world.pass_s(4.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    assert [g.numbers[:2] for g in world.outlet.taken()] == [(2, 1)]


def test_backoff() -> None:
    world = World()
    world.fill(1)
    world.consumer(ack_wait=S, backoff=(S, 3 * S), max_deliver=4)
    world.request("in", {"batch": 9, "expires": 60 * S})
    times = []
    for _ in range(200):
        world.pass_s(0.1)
        times += [round(world.loop.now_s - 1000, 1)] * len(world.outlet.taken())
    assert times in ([0.1, 1.0, 4.0, 7.0], [0.1, 1.1, 4.1, 7.1])


def test_nak_goes_before_new_messages() -> None:
    world = World()
    world.fill(5)
    world.consumer()
    got = world.fetch(batch=2, expires=S)
    world.ack(got[1], body=b"-NAK")
    assert [g.numbers for g in world.fetch(batch=2, expires=S)] == [(2, 2, 3, 3), (1, 3, 4, 2)]


@pytest.mark.parametrize("asked", [{"expires": S}, {"no_wait": True}, {"no_wait": True, "expires": S}])
@pytest.mark.parametrize("more", [0, 3])
def test_nak_goes_before_new_messages_while_its_entry_is_on_its_way(more: int, asked: dict[str, Any]) -> None:
    world = World()
    world.fill(1)
    world.consumer()
    (got,) = world.fetch(expires=S)
    world.fill(more)
    world.hold = True
    world.ack(got, body=b"-NAK")
    assert world.fetch(**asked) == []
    world.hold = False
    world.run()
    assert [each.numbers[:2] for each in world.outlet.taken(b"in")] == [(2, 1)]


@pytest.mark.parametrize("body", [b'-NAK {"delay": 3000000000}', b"-NAK 3s"])
def test_nak_with_delay(body: bytes) -> None:
    world = World()
    world.fill(1)
    world.consumer(backoff=(60 * S,), ack_wait=60 * S)
    (got,) = world.fetch(batch=1)
    world.request("in", {"batch": 1, "expires": 60 * S})
    world.ack(got, body=body)
    world.pass_s(2.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    assert seqs(world.outlet.taken()) == [1]


@pytest.mark.parametrize("body", [b"-NAK nonsense", b'-NAK {"delay": "x"}', b"-NAK {", b"-NAK -5s"])
def test_nak_with_a_bad_delay_is_a_plain_one(body: bytes) -> None:
    world = World()
    world.fill(1)
    world.consumer()
    (got,) = world.fetch(batch=1)
    world.ack(got, body=body)
    assert seqs(world.fetch(batch=1, no_wait=True)) == [1]


@pytest.mark.parametrize("early_ns", range(0, 2_000_000, 100_000))
def test_what_becomes_due_while_we_look_is_not_forgotten(early_ns: int) -> None:
    """The clock moves between two looks at it, and a timer fires a little before what it was set for."""
    world = World()
    world.fill(1)
    world.consumer()
    (got,) = world.fetch(batch=1)
    world.request("in", {"batch": 1, "expires": 60 * S})
    world.ack(got, body=b"-NAK 1s")
    world.wall.step_ns = 100_000
    world.wall._stepped_ns = -early_ns
    world.pass_s(1)
    world.wall.step_ns = 0
    world.pass_s(1)
    assert seqs(world.outlet.taken()) == [1]


def test_max_deliver() -> None:
    world = World()
    world.fill(3)
    world.consumer(ack_wait=S, max_deliver=2)
    listen(world, "MAX_DELIVERIES")
    first = world.fetch(batch=2, expires=S)
    world.ack(first[1])
    world.pass_s(1.5)
    assert [g.numbers[:2] for g in world.fetch(batch=1, expires=S)] == [(2, 1)]
    world.pass_s(1.5)
    (told,) = advisories(world, "MAX_DELIVERIES")
    assert list(told) == ["type", "id", "timestamp", "stream", "consumer", "stream_seq", "deliveries"]
    assert told["type"] == "io.nats.jetstream.advisory.v1.max_deliver"
    assert (told["stream"], told["consumer"], told["stream_seq"], told["deliveries"]) == ("S", "c", 1, 2)
    assert world.info() == "del c3 s2 floor c0 s0 ackp 0 redel 1 wait 0 pend 1"
    assert seqs(world.fetch(batch=5, no_wait=True)) == [3]
    world.pass_s(0.1)
    world.ack(first[0], reply=b"r")
    assert "redel 0" in world.info()


def test_nak_after_the_last_attempt() -> None:
    world = World()
    world.fill(1)
    world.consumer(max_deliver=1)
    listen(world, "MAX_DELIVERIES")
    (got,) = world.fetch(batch=1)
    world.ack(got, body=b"-NAK")
    assert [a["deliveries"] for a in advisories(world, "MAX_DELIVERIES")] == [1]
    assert world.fetch(batch=1, no_wait=True)[0].status == "404 No Messages"
    assert world.info() == "del c1 s1 floor c0 s0 ackp 0 redel 0 wait 0 pend 0"


def test_exhausted_messages_make_room_for_others_without_any_request() -> None:
    world = World()
    world.fill(4)
    world.consumer(max_deliver=1, ack_wait=S, max_ack_pending=2)
    assert seqs(world.fetch(batch=4, expires=60 * S)) == [1, 2]
    world.pass_s(1.1)
    assert seqs(world.outlet.taken()) == [3, 4]


# -- advisories and metrics -------------------------------------------------------------------------------------------


def test_nak_and_term_advisories_say_what_the_ack_subject_said() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    listen(world, "MSG_NAKED", "MSG_TERMINATED")
    got = world.fetch(batch=3, expires=S)
    world.ack(got[1], body=b"-NAK")
    (told,) = advisories(world, "MSG_NAKED")
    assert (told["consumer_seq"], told["stream_seq"], told["deliveries"]) == (2, 2, 1)
    world.ack(got[2], body=b"+TERM  because", reply=b"r")
    (told,) = advisories(world, "MSG_TERMINATED")
    assert (told["stream_seq"], told["deliveries"], told["reason"]) == (3, 1, "because")
    world.ack(got[2], body=b"+TERM", reply=b"r")
    (again,) = advisories(world, "MSG_TERMINATED")
    assert (again["stream_seq"], again.get("reason")) == (3, None)
    world.ack(got[2], body=b"-NAK", reply=b"r")
    assert [g for g in world.outlet.taken() if b"ADVISORY" in g.subject] == []


def test_a_pending_message_that_is_deleted_counts_as_terminated() -> None:
    world = World()
    world.fill(3)
    world.consumer()
    listen(world, "MSG_TERMINATED")
    world.fetch(batch=2, expires=S)
    world.delete_message(1)
    (told,) = advisories(world, "MSG_TERMINATED")
    assert (told["stream_seq"], told["reason"]) == (1, "Unacknowledged message was deleted")
    assert world.info() == "del c2 s2 floor c1 s1 ackp 1 redel 0 wait 0 pend 1"


def test_created_and_deleted_are_told_and_a_restart_is_not() -> None:
    world = World()
    listen(world, "CREATED", "DELETED")
    world.consumer()
    assert [a["action"] for a in advisories(world, "CREATED")] == ["create"]
    world.consumer(ack_wait=S)
    world.delivery.stop()
    world.delivery.start()
    world.run()
    assert world.outlet.taken() == []
    world.delete_consumer()
    assert [a["action"] for a in advisories(world, "DELETED")] == ["delete"]


def test_pause_is_told_when_it_begins_and_when_it_ends() -> None:
    world = World()
    world.consumer()
    listen(world, "PAUSE")
    world.pause(seconds=3)
    (begun,) = advisories(world, "PAUSE")
    assert begun["paused"] is True
    world.pass_s(3.1)
    (ended,) = advisories(world, "PAUSE")
    assert (ended["paused"], ended["pause_until"]) == (False, begun["pause_until"])


def test_ack_metrics() -> None:
    world = World()
    world.fill(2)
    world.consumer(sample_freq="100%")
    world.outlet.listen(b"$JS.EVENT.METRIC.CONSUMER.ACK.S.c")
    got = world.fetch(batch=2, expires=S)
    world.pass_s(1)
    world.ack(got[1], reply=b"r")
    (told,) = [json.loads(g.data) for g in world.outlet.taken() if b"METRIC" in g.subject]
    assert told["type"] == "io.nats.jetstream.metric.v1.consumer_ack"
    assert (told["consumer_seq"], told["stream_seq"], told["deliveries"]) == (2, 2, 1)
    assert abs(told["ack_time"] - S) < 1_000_000


# -- work queue and interest ------------------------------------------------------------------------------------------


def test_work_queue_messages_go_with_their_ack() -> None:
    world = World(retention="workqueue")
    world.fill(3)
    world.consumer(max_deliver=1, ack_wait=S)
    got = world.fetch(batch=3, expires=S)
    world.ack(got[1], reply=b"r")
    assert world.stream.messages == 2
    world.ack(got[2], body=b"+TERM", reply=b"r")
    assert world.stream.messages == 1
    world.pass_s(1.5)
    assert world.stream.messages == 1
    world.ack(got[0], reply=b"r")
    assert world.stream.messages == 0


def test_interest_is_over_when_every_consumer_is_done() -> None:
    world = World(retention="interest")
    world.consumer("c")
    world.consumer("d", ack_policy="none")
    world.fill(2)
    got = world.fetch(batch=2, expires=S)
    world.ack(*got, reply=b"r")
    assert world.stream.messages == 2
    assert len(world.fetch("other", "d", batch=1)) == 1
    world.pass_s(0.3)
    assert world.stream.messages == 1
    assert world.info("d") == "del c1 s1 floor c1 s1 ackp 0 redel 0 wait 0 pend 1"
