"""Catch-up between replicas with different histories: the same state at the end, whatever happens on the way."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from catch_up_world import KIB, UID, Feed, Pipe, Replica, limits

from jetstore.errors import Corruption, FormatUnknown
from jetstore.node.catch_up.messages import BEGIN, DONE, RANGE, STATE, TAKE, PeerRefused, decode, encode, refusal
from jetstore.node.catch_up.sink import CatchUpIncomplete
from jetstore.types import RaftIndex, Term

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
    one_rows, other_rows = ([(subject, row[1:]) for subject, row in found] for found in rows)
    assert one_rows == other_rows, "first is a lower bound, all else is exact"


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
    for data in more:
        for stream in (leader.group.stream, follower.group.stream):
            stream.apply(RaftIndex(stream.applied_index + 1), Term(1), data)
    assert_same(leader, follower)
    close(leader, follower)


async def test_histories_of_files_leave_no_trace_in_heads() -> None:
    dice = Random(5)
    one, other = await Replica(bounds=limits(2 * KIB, 300)).open(), await Replica(bounds=limits(9 * KIB, 600)).open()
    feed = Feed(dice, max_msgs_per_subject=40, max_bytes=20_000)
    script = [feed.configure(), feed.consumer("C"), feed.consumer("D", filter_subject="s.2")]
    for _ in range(40):
        script.append(feed.publish(dice.randrange(1, 25)))
        script += [feed.delete(dice.randrange(1, 300)) for _ in range(dice.randrange(4))]
    script += [feed.deliver("C", 1, 200, 240), feed.configure(max_msgs_per_subject=20)]
    for start in range(0, len(script), 30):
        part = script[start : start + 30]
        await one.feed(part)
        for data in part:
            await other.feed([data])
        await one.compact()
        await one.checkpoint()
        assert_same(one, other)
    assert one.group.messages.segment_files() != other.group.messages.segment_files()
    close(one, other)


@pytest.mark.parametrize("is_checkpointed", [False, True])
async def test_only_what_is_lacking_is_fetched(is_checkpointed: bool) -> None:
    leader, follower, feed = await pair()
    await follower.feed([feed.configure()])
    await leader.feed([feed.configure()])
    shared = [feed.publish(20) for _ in range(10)]
    for replica in (leader, follower):
        await replica.feed(shared)
    prefix = follower.group.messages.last_seq
    if is_checkpointed:
        await follower.checkpoint()
    await leader.feed([feed.publish(20) for _ in range(15)] + [feed.delete(seq) for seq in range(50, 90)])
    pipe = Pipe(leader.source)
    await follower.catch_up(pipe)
    assert pipe.ranges == [(prefix + 1, leader.group.messages.last_seq)]
    assert_same(leader, follower)
    close(leader, follower)


async def churn(leader: Replica, feed: Feed, dice: Random) -> None:
    """Anything that may happen at a leader while somebody catches up."""
    what = dice.random()
    last = leader.group.messages.last_seq
    if what < 0.35:
        await leader.feed([feed.publish(dice.randrange(1, 30))])
    elif what < 0.55:
        await leader.feed([feed.delete(dice.randrange(1, last + 1)) for _ in range(dice.randrange(1, 20))])
    elif what < 0.65:
        await leader.feed([feed.purge(filter=f"s.{dice.randrange(5)}", seq=dice.randrange(1, last + 1))])
    elif what < 0.7:
        await leader.feed([feed.purge(seq=dice.randrange(1, last + 1))])
    elif what < 0.75:
        await leader.feed([feed.configure(max_msgs_per_subject=dice.randrange(5, 60))])
    elif what < 0.85:
        await leader.feed([feed.consumer(f"C{dice.randrange(4)}"), feed.deliver("C1", 1, last // 2, last // 2 + 3)])
    elif what < 0.93:
        await leader.compact()
    else:
        await leader.checkpoint()


@pytest.mark.parametrize("seed", range(14))
async def test_while_everything_changes(seed: int) -> None:
    """From seed 12 on both have compressed files."""
    dice = Random(seed)
    config = {"compression": "s2"} if seed >= 12 else {}
    leader, follower, feed = await pair(**config)
    feed.dice = dice
    script = [feed.publish(25) for _ in range(15)] + [feed.delete(seq) for seq in range(20, 300, 3)]
    await leader.feed(script)
    if seed % 2:
        await follower.feed([Feed(**config).configure(), *script[: 1 + seed]])
    pipe = Pipe(leader.source)

    async def before(method: str) -> None:
        if dice.random() < 0.5:
            await churn(leader, feed, dice)

    pipe.before = before
    await follower.catch_up(pipe)
    pipe.before = None
    if leader.group.stream.applied_index > follower.group.stream.applied_index:
        await follower.catch_up(pipe)
    assert_same(leader, follower)
    for _ in range(20):
        await churn(leader, feed, dice)
    await follower.catch_up(pipe)
    assert_same(leader, follower)
    follower.abandon()
    follower.vfs.crash(dice)
    follower = await Replica(follower.vfs, follower.limits).open()  # and it goes on from there like any other
    for _ in range(4):
        more = [feed.publish(dice.randrange(1, 30)), feed.purge(filter="s.3"), feed.deliver("C1", 1, 1, 9)]
        await leader.feed(more)
        await follower.feed(more)
        await follower.compact()
        await follower.checkpoint()
    assert leader.records() == follower.records()
    follower.abandon()
    follower.vfs.crash(dice)
    follower = await Replica(follower.vfs, follower.limits).open()
    assert leader.records() == follower.records()
    rows = [replica.group.stream.contents.matching(None) for replica in (leader, follower)]
    assert [(subject, row[1:]) for subject, row in rows[0]] == [(subject, row[1:]) for subject, row in rows[1]]
    close(leader, follower)


async def test_compaction_of_stored_segments_while_a_state_is_put_in_their_place() -> None:
    leader, follower, feed = await pair()
    script = [feed.publish(25) for _ in range(10)] + [feed.delete(seq) for seq in range(20, 200, 2)]
    await leader.feed(script)
    await follower.feed([Feed().configure(), *script])
    await leader.feed([feed.publish(25) for _ in range(4)])
    pipe = Pipe(leader.source)
    compacting: list[asyncio.Task[None]] = []

    async def before(method: str) -> None:
        if method == DONE:
            compacting.append(asyncio.ensure_future(follower.compact()))

    pipe.before = before
    paths = {segment.path for segment in follower.group.messages.segment_files()}
    await follower.catch_up(pipe)
    await asyncio.gather(*compacting)
    assert_same(leader, follower)
    assert not paths <= {segment.path for segment in follower.group.messages.segment_files()}
    await follower.checkpoint()
    follower.abandon()
    follower.vfs.crash()
    follower = await Replica(follower.vfs, follower.limits).open()
    assert leader.records() == follower.records()
    close(leader, follower)


@pytest.mark.parametrize("is_crash", [False, True])
async def test_cut_off_again_and_again_it_goes_on_where_it_was(is_crash: bool) -> None:
    leader, follower, feed = await pair()
    await leader.feed([feed.publish(25) for _ in range(30)])
    whole = Pipe(leader.source)
    await (await Replica().open()).catch_up(whole)
    fetched, cuts, firsts = 0, 0, []
    while True:
        pipe = Pipe(leader.source)
        left = 9

        async def before(method: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise ConnectionResetError("cut off")

        pipe.before = before
        try:
            await follower.catch_up(pipe)
        except OSError:
            cuts += 1
            assert cuts < 100, "it makes no progress"
        else:
            break
        finally:
            fetched += pipe.stream_bytes
            firsts += [first for first, _ in pipe.ranges]
        if is_crash:
            follower.abandon()
            follower.vfs.crash(Random(cuts))
            follower = await Replica(follower.vfs, follower.limits).open()
    assert cuts > 4
    assert firsts == sorted(firsts)
    assert firsts[-1] > firsts[0]
    assert fetched < whole.stream_bytes + cuts * 2_000, "what was received was not fetched again"
    if not is_crash:
        assert_same(leader, follower)
    assert leader.records() == follower.records()
    close(leader, follower)


@pytest.mark.parametrize("seed", range(40))
async def test_wrong_bytes_are_noticed(seed: int) -> None:
    dice = Random(seed)
    leader, follower, feed = await pair()
    await leader.feed([feed.publish(20) for _ in range(6)] + [feed.delete(9), feed.consumer("C")])
    pipe = Pipe(leader.source)
    wrong = dice.randrange(12)
    turned = 0

    def change(method: str, data: bytes) -> bytes:
        nonlocal wrong, turned
        wrong -= 1
        if wrong != -1 or not data:
            return data
        turned += 1
        at = dice.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]

    pipe.change = change
    try:
        await follower.catch_up(pipe)
    except (Corruption, PeerRefused):
        assert turned
        assert follower.group.stream.messages == 0, "nothing was installed"
        await follower.catch_up(Pipe(leader.source))
    else:
        assert not turned
    assert_same(leader, follower)
    close(leader, follower)


async def test_every_flipped_byte_of_a_state_is_noticed() -> None:
    leader, follower, feed = await pair()
    await leader.feed([feed.publish(9), feed.delete(4), feed.consumer("C")])
    first = Pipe(leader.source)
    total = 0

    def count(method: str, data: bytes) -> bytes:
        nonlocal total
        total += len(data) if method == STATE else 0
        return data

    first.change = count
    await (await Replica().open()).catch_up(first)
    assert total > 1_000
    for at in range(0, total, 23):
        pipe = Pipe(leader.source)
        left = at

        def change(method: str, data: bytes) -> bytes:
            nonlocal left
            if method != STATE:
                return data
            left, here = left - len(data), left
            return data[:here] + bytes([data[here] ^ 2]) + data[here + 1 :] if 0 <= here < len(data) else data

        pipe.change = change
        with pytest.raises(Corruption):
            await follower.catch_up(pipe)
        assert follower.group.stream.applied_index == 1
    await follower.catch_up(Pipe(leader.source))
    assert_same(leader, follower)
    close(leader, follower)


def damage(replica: Replica, seq: int) -> tuple[int, int]:
    """Flip a byte of the frame of a stored sequence; the frame's first and last sequence."""
    log = replica.group.messages
    segment = log.segment_at(seq)
    number = log.reader.table(segment).frame_of(log.reader.table(segment).ordinal_of(seq))
    table = log.reader.table(segment)
    offset = table.offsets[number] + 60
    byte = replica.vfs.peek(segment.path)[offset]
    replica.vfs.poke(segment.path, offset, bytes([byte ^ 1]))
    log.forget_file(segment.path)  # no longer in the cache
    log.take_dropped()
    return table.first_seqs[number], table.seq_of(table.frame_end(number) - 1)


async def test_what_a_peer_cannot_read_comes_from_another_one() -> None:
    leader, follower, feed = await pair()
    second = await Replica(bounds=limits(6 * KIB)).open()
    script = [feed.publish(25) for _ in range(20)]
    await leader.feed(script)
    await second.feed([Feed().configure(), *script])
    await leader.checkpoint()
    bad = [damage(leader, 40), damage(leader, 300)]
    pipe = Pipe(leader.source)
    with pytest.raises(CatchUpIncomplete) as lacking:
        await follower.catch_up(pipe)
    assert lacking.value.missing == bad
    assert follower.group.stream.messages == 0
    pipe = Pipe(second.source)
    await follower.catch_up(pipe)
    assert pipe.ranges == bad
    assert_same(second, follower)
    close(leader, follower, second)


async def test_a_state_that_diverged_is_replaced_as_a_whole() -> None:
    leader, follower, feed = await pair()
    await leader.feed([feed.publish(20) for _ in range(8)])
    other = Feed(Random(99))
    await follower.feed([other.configure(), *[other.publish(20) for _ in range(8)], other.consumer("X")])
    await follower.checkpoint()
    assert follower.group.stream.running.value != leader.group.stream.running.value
    await leader.feed([feed.publish(1) for _ in range(4)])
    await follower.catch_up(Pipe(leader.source), keeps_local=False)
    assert_same(leader, follower)
    follower.abandon()
    follower.vfs.crash(Random(1))
    follower = await Replica(follower.vfs).open()
    assert follower.records() == leader.records()
    close(leader, follower)


async def test_a_step_back_is_refused() -> None:
    leader, follower, feed = await pair()
    await leader.feed([feed.publish(20)])
    await follower.catch_up(Pipe(leader.source))
    with pytest.raises(PeerRefused):
        await follower.catch_up(Pipe(leader.source))
    assert_same(leader, follower)
    close(leader, follower)


async def test_answers_of_another_version_are_refused_and_a_lost_goodbye_is_not() -> None:
    leader, follower, feed = await pair()
    await leader.feed([feed.publish(9)])
    pipe = Pipe(leader.source)
    answers = [encode({"hello": 1}), encode({"is_behind": False, **dict.fromkeys(("index", "term"), 1)}), refusal("no")]
    for answer in answers:
        pipe.change = lambda method, data, answer=answer: answer if method in (BEGIN, TAKE) else data
        with pytest.raises((FormatUnknown, PeerRefused)):
            await follower.catch_up(pipe)
    pipe.change = lambda method, data: refusal("gone") if method == DONE else data
    await follower.catch_up(pipe)
    assert_same(leader, follower)
    close(leader, follower)


async def test_a_source_answers_nonsense_with_refusals() -> None:
    leader, _, _ = await pair()
    source = leader.source
    for method, fields in (
        (BEGIN, {}),
        (BEGIN, {"uid": 99}),
        (TAKE, {"uid": 7}),
        ("catch_up.what", {"uid": 7}),
        (TAKE, {"uid": 7, "copied_seq": 0, "min_index": 1 << 40}),
    ):
        with pytest.raises(PeerRefused):
            decode(await source.request(method, encode(fields)))
    with pytest.raises(PeerRefused):
        [chunk async for chunk in source.stream(STATE, encode({"session": 5, "offset": 0}))]
    with pytest.raises(PeerRefused):
        [chunk async for chunk in source.stream(RANGE, encode({"uid": 7}))]
    for _ in range(9):  # states are kept for a few only
        taken = decode(await source.request(TAKE, encode({"uid": 7, "copied_seq": 0, "min_index": 1})))
    assert source.floor(UID) == taken["index"]
    first = taken["session"] - 8
    with pytest.raises(PeerRefused):
        [chunk async for chunk in source.stream(STATE, encode({"session": first, "offset": 0}))]
    rest = [chunk async for chunk in source.stream(STATE, encode({"session": taken["session"], "offset": 10}))]
    assert len(b"".join(rest)) == taken["head_bytes"] + sum(row[1] for row in taken["parts"]) - 10
    close(leader)
