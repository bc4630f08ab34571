"""Goal: wherever a consumer meets damage it stands still before it, says so, never skips, and goes on when it is gone.

Method: the log under a led stream refuses to read, or to search beyond, chosen sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from delivery_world import S, World

from jetstore.errors import Corruption
from jetstore.store.ports import Message, SubjectFilter

BAD = 7


@contextmanager
def damaged(world: World, *, searches: bool) -> Iterator[None]:
    """What needs message ``BAD`` fails meanwhile: reading it or, with ``searches``, searching past it."""
    log: Any = world.stream.log
    next_seqs: Callable[..., list[int]] = log.next_seqs
    read_many: Callable[..., list[Message]] = log.read_many

    def search(start_seq: int, subject_filter: SubjectFilter | None, max_count: int) -> list[int]:
        found = next_seqs(start_seq, subject_filter, max_count)
        if searches and start_seq <= BAD and (len(found) < max_count or found[-1] >= BAD):
            raise Corruption(f"sequences {BAD}-{BAD} unreadable", file="1.seg", offset=28)
        return found

    def read(seqs: Sequence[int], max_bytes: int) -> list[Message]:
        if BAD in seqs:
            raise Corruption(f"sequences {BAD}-{BAD} unreadable", file="1.seg", offset=28)
        return read_many(seqs, max_bytes)

    log.next_seqs, log.read_many = search, read
    yield
    log.next_seqs, log.read_many = next_seqs, read_many


KINDS: list[Any] = [
    pytest.param({"ack_policy": "explicit"}, id="pull"),
    pytest.param({"ack_policy": "none"}, id="pull without acks"),
    pytest.param({"ack_policy": "explicit", "deliver_subject": "in", "max_waiting": 0}, id="push"),
    pytest.param({"ack_policy": "none", "deliver_subject": "in", "max_waiting": 0}, id="push without acks"),
]


@pytest.mark.parametrize("searches", [False, True], ids=["read", "search"])
@pytest.mark.parametrize("config", KINDS)
def test_new_messages_up_to_the_damage_then_all_the_rest_once_it_is_gone(
    config: dict[str, Any], searches: bool
) -> None:
    world = World()
    world.fill(10)
    with damaged(world, searches=searches):
        world.outlet.listen(b"in")
        world.consumer(**config)
        if "deliver_subject" not in config:
            world.request("in", {"batch": 20, "expires": 60 * S})
        world.pass_s(5)
        assert [got.seq for got in world.outlet.taken(b"in")] == list(range(1, BAD))
        assert world.damage
        told = len(world.damage)
        world.pass_s(10)
        assert told < len(world.damage) < told + 50, "it looks again, not all the time"
        assert world.outlet.taken(b"in") == []
    world.pass_s(2)
    assert [got.seq for got in world.outlet.taken(b"in")] == [7, 8, 9, 10], "nobody woke it: it looked by itself"


def test_redelivery_waits_for_the_damage_too() -> None:
    world = World()
    world.fill(10)
    world.consumer(ack_wait=S)
    assert len(world.fetch(batch=10)) == 10
    world.request("in", {"batch": 20, "expires": 60 * S})
    with damaged(world, searches=False):
        world.pass_s(4)
        assert {got.seq for got in world.outlet.taken(b"in")} == set(range(1, BAD))
    world.pass_s(3)
    assert {got.seq for got in world.outlet.taken(b"in")} >= {7, 8, 9, 10}


def test_acknowledgements_and_expiry_go_on_meanwhile() -> None:
    world = World()
    world.fill(10)
    world.consumer()
    with damaged(world, searches=True):
        gots = world.fetch(batch=BAD, expires=3 * S)
        assert [got.seq for got in gots] == list(range(1, BAD))
        world.ack(*gots)
        world.pass_s(0.1)
        assert world.info() == "del c6 s6 floor c6 s6 ackp 0 redel 0 wait 1 pend 4"
        world.pass_s(3)
        assert [got.status for got in world.outlet.taken(b"in")] == ["408 Request Timeout"]
