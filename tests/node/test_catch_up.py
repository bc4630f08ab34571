"""Catch-up between replicas with different histories: the same state at the end, whatever happens on the way."""

from __future__ import annotations

from typing import Any

import pytest
from catch_up_world import KIB, Feed, Pipe, Replica, limits

pytestmark = pytest.mark.asyncio


async def pair(*, bounds: Any = None, **config: Any) -> tuple[Replica, Replica, Feed]:
    """A leader and a blank follower; the leader has the stream."""
    leader = await Replica(bounds=bounds).open()
    follower = await Replica(bounds=limits(segment_bytes=3 * KIB)).open()
    feed = Feed(**config)
    await leader.feed([feed.configure()])
    return leader, follower, feed


def assert_same(one: Replica, other: Replica) -> None:
    """Equal states: heads, records, running hash, index; and equal behaviour from here on."""
    assert one.group.stream.logical_head() == other.group.stream.logical_head()
    whole = [(1, one.group.messages.last_seq)]
    assert one.group.stream.logical_hash(whole) == other.group.stream.logical_hash(whole)
    assert one.group.stream.running.value == other.group.stream.running.value
    assert one.records() == other.records()
    rows = [replica.group.stream.contents.matching(None) for replica in (one, other)]
    assert [row[:1] + row[1][1:] for row in rows[0]] == [row[:1] + row[1][1:] for row in rows[1]]


def close(*replicas: Replica) -> None:
    for replica in replicas:
        assert replica.failures == []
        replica.abandon()


async def test_a_blank_replica_gets_everything() -> None:
    leader, follower, feed = await pair()
    await leader.feed([feed.publish(20) for _ in range(20)])
    await leader.feed([feed.consumer("C"), feed.publish(3)])
    pipe = Pipe(leader.source)
    assert await follower.catch_up(pipe) == leader.group.stream.applied_index
    assert_same(leader, follower)
    more = [feed.publish(7), feed.delete(5), feed.purge(filter="s.1"), feed.publish(30)]
    for replica in (leader, follower):
        await replica.feed(more)
    assert_same(leader, follower)
    close(leader, follower)
