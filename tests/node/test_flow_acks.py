"""Consumers that are acknowledged by answers to flow control requests, as far as no wire is needed."""

from __future__ import annotations

from typing import Any

import pytest
from delivery_world import S, World

STATE = "del c{0} s{0} floor c{1} s{2} ackp {3} redel 0 wait 0 pend {4}"


def world_of(messages: int, **config: Any) -> World:
    world = World()
    world.fill(messages)
    world.outlet.listen(b"to")
    fields = {"ack_policy": "flow_control", "deliver_subject": "to", "flow_control": True, "idle_heartbeat": S}
    world.consumer(ack_wait=0, max_waiting=0, **(fields | {"max_ack_pending": 5} | config))
    return world


def asked(world: World) -> bytes:
    """The subject of the last request."""
    return [got.reply for got in world.outlet.taken() if got.status == "100 FlowControl Request"][-1]


def answer(world: World, subject: bytes, consumer_seq: object, stream_seq: object) -> None:
    header = f"NATS/1.0\r\nNats-Last-Consumer: {consumer_seq}\r\nNats-Last-Stream: {stream_seq}\r\n\r\n"
    world.outlet.send([(subject, b"", header.encode())])
    world.run()


def test_an_answer_acknowledges_and_makes_room() -> None:
    world = world_of(12)
    assert world.info() == STATE.format(5, 0, 0, 5, 7)
    answer(world, asked(world), 3, 4)
    assert world.info() == STATE.format(9, 3, 4, 5, 3)
    answer(world, asked(world), 9, 9)
    assert world.info() == STATE.format(12, 9, 9, 3, 0)
    world.pass_s(1.1)  # the rest: with the next heartbeat
    answer(world, asked(world), 12, 12)
    assert world.info() == STATE.format(12, 12, 12, 0, 0)
    world.pass_s(3)
    assert [got.status for got in world.outlet.taken()] == ["100 Idle Heartbeat"] * 3


@pytest.mark.parametrize("pair", [(0, 0), ("x", "y"), (3, 0), (0, 3), (6, 6), (3, 99), ("9" * 5_000, 3)])
def test_what_settles_nothing_is_asked_again_with_the_next_heartbeat(pair: tuple[object, object]) -> None:
    world = world_of(12)
    first = asked(world)
    answer(world, first, *pair)
    assert world.info() == STATE.format(5, 0, 0, 5, 7)
    assert world.outlet.taken() == []
    world.pass_s(1.1)
    again = asked(world)
    assert again != first
    answer(world, first, 5, 5)
    assert world.info() == STATE.format(5, 0, 0, 5, 7)
    answer(world, again, 5, 5)
    assert world.info() == STATE.format(10, 5, 5, 5, 2)


def test_who_leads_next_goes_on_from_what_was_acknowledged() -> None:
    world = world_of(7)
    answer(world, asked(world), 2, 2)
    world.outlet.taken()
    world.delivery.stop()
    world.delivery.start()
    world.run()
    assert [got.numbers for got in world.outlet.taken()[:5]] == [(1, seq, seq, 7 - seq) for seq in range(3, 8)]


def test_nothing_is_delivered_while_a_copy_has_it() -> None:
    world = world_of(7)
    answer(world, asked(world), 2, 2)
    world.outlet.taken()
    engine, holder = world.delivery.sourced("c"), object()
    assert engine is not None
    assert engine.bind(holder)
    assert not engine.bind(object())
    world.fill(1)
    world.pass_s(3)
    assert world.outlet.taken() == []
    assert world.info() == "del c2 s2 floor c2 s2 ackp 0 redel 0 wait 0 pend 6"
    engine.let_go(object())
    engine.let_go(holder)
    world.run()
    assert [got.numbers[:3] for got in world.outlet.taken()[:5]] == [(1, seq, seq) for seq in range(3, 8)]
