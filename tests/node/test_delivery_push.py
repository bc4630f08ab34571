"""Push consumers: interest, queue groups, heartbeats, flow control, pace."""

from __future__ import annotations

from typing import Any

from delivery_world import Got, S, World

from jetstore.node.push import WINDOW_FIRST_BYTES


def seqs(gots: list[Got]) -> list[int]:
    return [got.seq for got in gots if got.reply.startswith(b"$JS.ACK")]


def statuses(gots: list[Got]) -> list[str]:
    return [got.status for got in gots if got.status]


def push(world: World, **config: Any) -> None:
    world.consumer(deliver_subject="to", max_waiting=0, **config)


def test_waits_for_interest_and_stops_without() -> None:
    world = World()
    world.fill(2)
    push(world)
    assert not world.delivery.consumer_info("c").push_bound
    world.outlet.listen(b"to")
    world.run()
    assert [g.numbers for g in world.outlet.taken(b"to")] == [(1, 1, 1, 1), (1, 2, 2, 0)]
    assert world.delivery.consumer_info("c").push_bound
    world.fill(1)
    assert seqs(world.outlet.taken()) == [3]
    world.outlet.leave(b"to")
    world.fill(1)
    world.pass_s(1)
    assert world.outlet.taken() == []
    assert not world.delivery.consumer_info("c").push_bound
    world.outlet.listen(b"to")
    world.run()
    assert seqs(world.outlet.taken()) == [4]


def test_without_acks_what_was_not_taken_comes_again() -> None:
    world = World()
    world.fill(5)
    world.outlet.listen(b"to")
    world.outlet.take[b"to"] = 2
    push(world, ack_policy="none")
    assert seqs(world.outlet.taken()) == [1, 2]
    assert world.info() == "del c2 s2 floor c2 s2 ackp 0 redel 0 wait 0 pend 3"
    del world.outlet.take[b"to"]
    world.pass_s(2)
    assert seqs(world.outlet.taken()) == [3, 4, 5]


def test_with_acks_what_was_not_taken_comes_again_as_the_same_attempt() -> None:
    world = World()
    world.fill(3)
    world.outlet.listen(b"to")
    world.outlet.take[b"to"] = 1
    push(world)
    assert seqs(world.outlet.taken()) == [1]
    del world.outlet.take[b"to"]
    world.pass_s(2)
    assert [g.numbers[:2] for g in world.outlet.taken()] == [(1, 2), (1, 3)]


def test_queue_group() -> None:
    world = World()
    world.fill(1)
    push(world, deliver_group="g")
    world.outlet.listen(b"to")
    world.run()
    assert world.outlet.taken() == []
    world.outlet.listen(b"to", b"g")
    world.run()
    assert seqs(world.outlet.taken()) == [1]


def test_pull_requests_are_refused() -> None:
    world = World()
    push(world)
    assert [g.status for g in world.fetch(batch=1)] == ["409 Consumer is push based"]


def test_max_ack_pending_holds_and_acks_release() -> None:
    world = World()
    world.fill(5)
    world.outlet.listen(b"to")
    push(world, max_ack_pending=2)
    got = world.outlet.taken()
    assert seqs(got) == [1, 2]
    world.ack(got[0])
    assert seqs(world.outlet.taken()) == [3]


def test_redelivery_without_any_request() -> None:
    world = World()
    world.fill(1)
    world.outlet.listen(b"to")
    push(world, ack_wait=2 * S)
    world.outlet.taken()
    world.pass_s(1.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    assert [g.numbers for g in world.outlet.taken()] == [(2, 1, 2, 0)]


def test_idle_heartbeats() -> None:
    world = World()
    world.outlet.listen(b"to")
    push(world, ack_policy="none", idle_heartbeat=S)
    world.pass_s(0.5)
    world.fill(2)
    world.outlet.taken()
    world.pass_s(0.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    (beat,) = world.outlet.taken()
    assert beat.header == b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 2\r\nNats-Last-Stream: 2\r\n\r\n"
    assert (beat.subject, beat.reply, beat.data) == (b"to", b"", b"")
    world.pass_s(2)
    assert len(world.outlet.taken()) == 2
    world.outlet.leave(b"to")
    world.pass_s(3)
    assert world.outlet.taken() == []


def test_heartbeats_go_on_while_paused() -> None:
    world = World()
    world.outlet.listen(b"to")
    push(world, idle_heartbeat=S)
    world.pause(seconds=10)
    world.fill(1)
    world.pass_s(2.5)
    assert statuses(world.outlet.taken()) == ["100 Idle Heartbeat"] * 2
    world.pass_s(8)
    assert seqs(world.outlet.taken()) == [1]


def test_flow_control() -> None:
    """Past half of the window a question; past the window silence, with heartbeats that name it; an answer doubles."""
    world = World()
    body = b"x" * 65_000
    count = 2 * WINDOW_FIRST_BYTES // 65_000
    world.publish(*[("s.a", body)] * count)
    world.outlet.listen(b"to")
    push(world, ack_policy="none", idle_heartbeat=S, flow_control=True)
    got = world.outlet.taken()
    (question,) = [g for g in got if g.status == "100 FlowControl Request"]
    assert question.header == b"NATS/1.0 100 FlowControl Request\r\n\r\n"
    assert question.reply.startswith(b"$JS.FC.S.c.")
    assert len(question.reply) == len(b"$JS.FC.S.c.") + 4
    before = seqs(got[: got.index(question)])
    assert (len(before) - 1) * 65_000 <= WINDOW_FIRST_BYTES // 2 < (len(before) + 1) * 65_000
    assert WINDOW_FIRST_BYTES - 65_000 < len(seqs(got)) * 65_000 < WINDOW_FIRST_BYTES + 2 * 65_100
    world.pass_s(1.1)
    (beat,) = world.outlet.taken()
    assert b"Nats-Consumer-Stalled: " + question.reply in beat.header
    world.outlet.send([(b"$JS.FC.S.c.zzzz", b"", b"")])
    world.run()
    assert world.outlet.taken() == []
    world.outlet.send([(question.reply, b"", b"")])
    world.run()
    more = world.outlet.taken()
    assert seqs(got) + seqs(more) == list(range(1, count + 1))
    world.pass_s(1.1)
    assert statuses(world.outlet.taken())[-1:] == ["100 Idle Heartbeat"]


def test_delivery_waits_for_a_full_connection() -> None:
    world = World()
    world.fill(3)
    world.outlet.pending[b"to"] = world.limits.write_pause_bytes
    world.outlet.listen(b"to")
    push(world, ack_policy="none")
    assert world.outlet.taken() == []
    world.outlet.drain(b"to")
    world.run()
    assert seqs(world.outlet.taken()) == [1, 2, 3]


def test_original_pace_for_the_backlog_only() -> None:
    world = World()
    for _ in range(3):
        world.fill(1)
        world.pass_s(2)
    world.outlet.listen(b"to")
    push(world, ack_policy="none", replay_policy="original")
    assert seqs(world.outlet.taken()) == [1]
    world.pass_s(1.9)
    assert world.outlet.taken() == []
    world.pass_s(0.2)
    assert seqs(world.outlet.taken()) == [2]
    world.pass_s(2)
    assert seqs(world.outlet.taken()) == [3]
    world.fill(1)
    world.fill(1)
    assert seqs(world.outlet.taken()) == [4, 5]


def test_rate_limit() -> None:
    world = World()
    world.publish(*[("s.a", b"x" * 99_997)] * 30)
    world.outlet.listen(b"to")
    push(world, ack_policy="none", rate_limit_bps=8_000_000)
    at_once = len(seqs(world.outlet.taken()))
    world.pass_s(1)
    assert 9 <= len(seqs(world.outlet.taken())) <= 11
    assert at_once <= 12
    world.pass_s(2)
    assert world.info().endswith("pend 0")


def test_an_ordered_consumer_gets_every_message_in_order() -> None:
    world = World()
    world.fill(100)
    world.outlet.listen(b"to")
    push(world, ack_policy="none", max_deliver=1, idle_heartbeat=5 * S, flow_control=True, mem_storage=True)
    for _ in range(20):
        world.fill(10)
        world.pass_s(0.01)
    got = [g for g in world.outlet.taken() if g.reply]
    assert [g.numbers[1:3] for g in got] == [(n, n) for n in range(1, 301)]


def test_last_per_subject_then_everything() -> None:
    world = World()
    world.publish("s.a", "s.b", "s.a", "s.c", "s.b")
    world.outlet.listen(b"to")
    push(world, ack_policy="none", deliver_policy="last_per_subject", filter_subject="s.>")
    assert [g.numbers for g in world.outlet.taken()] == [(1, 3, 1, 2), (1, 4, 2, 1), (1, 5, 3, 0)]
    world.publish("s.a", "s.a")
    assert seqs(world.outlet.taken()) == [6, 7]


def test_a_new_deliver_subject_gets_what_is_pending() -> None:
    world = World()
    world.fill(2)
    world.outlet.listen(b"to")
    push(world)
    assert seqs(world.outlet.taken(b"to")) == [1, 2]
    world.outlet.leave(b"to")
    world.outlet.listen(b"there")
    world.consumer(deliver_subject="there", max_waiting=0)
    assert [g.numbers[:2] for g in world.outlet.taken(b"there")] == [(2, 1), (2, 2)]
    assert world.delivery.consumer_info("c").push_bound


def test_inactive_without_interest() -> None:
    world = World()
    world.outlet.listen(b"to")
    push(world, inactive_threshold=5 * S)
    world.pass_s(20)
    assert "c" in world.stream.consumers
    world.outlet.leave(b"to")
    world.pass_s(4.9)
    assert "c" in world.stream.consumers
    world.pass_s(0.2)
    assert "c" not in world.stream.consumers


def test_after_a_crash_without_acks_at_most_the_last_moment_comes_twice() -> None:
    world = World()
    world.fill(4)
    world.outlet.listen(b"to")
    push(world, ack_policy="none")
    world.pass_s(0.3)
    world.fill(2)
    assert seqs(world.outlet.taken()) == [1, 2, 3, 4, 5, 6]
    state = world.stream.consumers["c"]
    world.refuses = True
    world.delivery.stop()
    world.refuses = False
    assert state.live is None
    world.delivery.start()
    world.run()
    assert seqs(world.outlet.taken()) == [5, 6]
