"""Bad frames of stored records, repaired from a peer: by sequence, verified, and durable; nothing else changes."""

from __future__ import annotations

from random import Random

import pytest
from catch_up_world import KIB, Feed, Pipe, Replica, limits
from test_catch_up import assert_same, close, damage

from jepsen.sim.faults import SimCrash
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption, OutcomeUnknown
from jetstore.node.catch_up.repair import damaged_ranges
from jetstore.store.install_splice import SegmentRepair
from jetstore.store.keys import DataKey, Keys

pytestmark = pytest.mark.asyncio


async def twins(
    *, messages: int = 20, compression: str = "none", is_encrypted: bool = False
) -> tuple[Replica, Replica, Feed]:
    """Two replicas with the same log and other files; checkpointed."""
    disks = SimVfs(), SimVfs()
    if is_encrypted:
        for number, vfs in enumerate(disks):
            vfs.keys = Keys({1: DataKey("chacha", bytes([number]) * 32)}, Random(number).randbytes)
    one = await Replica(disks[0], bounds=limits(3 * KIB)).open()
    other = await Replica(disks[1], bounds=limits(5 * KIB, 300)).open()
    feed = Feed(compression=compression)
    script = [feed.configure(), *[feed.publish(20) for _ in range(messages)]]
    script += [feed.delete(seq) for seq in range(100, 140, 3)]
    for replica in (one, other):
        await replica.feed(script)
        await replica.checkpoint()
    return one, other, feed


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("compression", ["none", "s2"])
async def test_a_bad_frame_stops_being_bad(compression: str, is_encrypted: bool) -> None:
    one, other, _ = await twins(compression=compression, is_encrypted=is_encrypted)
    before = one.records()
    bad = [damage(one, seq) for seq in (40, 115, 301)]
    for first, _ in bad:
        with pytest.raises(Corruption):
            one.group.messages.read(first)
    paths = {segment.path for segment in one.group.messages.segment_files()}
    pipe = Pipe(other.source)
    assert await one.sink.repair_ranges(one.group, pipe, bad) == []
    assert pipe.ranges == bad, "only the bad frames are fetched"
    assert one.records() == before
    assert_same(one, other)
    now = {segment.path for segment in one.group.messages.segment_files()}
    assert len(now - paths) == len({one.group.messages.segment_at(first).path for first, _ in bad})
    assert not any(one.vfs.exists(path) for path in paths - now)
    one.abandon()
    one.vfs.crash()
    again = await Replica(one.vfs, one.limits).open()
    assert again.records() == before
    assert again.group.messages.findings == []
    close(again, other)


async def test_damaged_heads_and_footers_and_what_is_not_written_yet() -> None:
    one, other, feed = await twins()
    segments = one.group.messages.segment_files()
    for segment, offset in ((segments[0], 5), (segments[1], segments[1].file_bytes - 20)):
        byte = one.vfs.peek(segment.path)[offset]
        one.vfs.poke(segment.path, offset, bytes([byte ^ 4]))
        one.group.messages.forget_file(segment.path)
    one.group.messages.take_dropped()
    more = [feed.publish(9)]
    for replica in (one, other):
        await replica.feed(more)
    whole = [(1, one.group.messages.last_seq)]
    assert await one.sink.repair_ranges(one.group, Pipe(other.source), whole) == []
    found: list[Corruption] = []
    while not one.group.messages.scrub(1 << 20, found):
        pass
    assert found == []
    assert_same(one, other)
    close(one, other)


async def test_a_footer_that_becomes_unreadable_while_its_segment_is_examined() -> None:
    """Method: two frames are read; then footer and an earlier frame are damaged, so that the next table, made from the
    frames, knows fewer and counts them otherwise."""
    one, other, _ = await twins()
    before = one.records()
    log = one.group.messages
    segment = log.segment_files()[0]
    table = log.reader.table(segment)
    assert table.frame_count > 4
    frame, late = table.offsets[0], table.first_seqs[table.frame_count - 1]
    damage(one, late)
    repair = SegmentRepair(log, segment, one.limits, 900)
    for _ in range(2):
        assert not repair.examine(1)
    one.vfs.poke(segment.path, frame, b"\xff\xff")
    one.vfs.poke(segment.path, table.end_offset, bytes(segment.file_bytes - table.end_offset))
    log.reader.look_again(segment)
    while not repair.examine(1):
        pass
    assert repair.bad[0][0] <= late <= repair.bad[-1][1]
    assert await one.sink.repair_ranges(one.group, Pipe(other.source), [(1, log.last_seq)]) == []
    assert one.records() == before
    close(one, other)


async def test_what_the_peer_has_not_stays_bad_and_is_named() -> None:
    one, other, feed = await twins()
    first, last = damage(one, 40)
    damage(one, 300)
    purge = feed.purge(seq=last + 1)
    await other.feed([purge])
    assert await one.sink.repair_ranges(one.group, Pipe(other.source), [(1, 310)]) == [(first, last)]
    with pytest.raises(Corruption):
        one.group.messages.read(first)
    assert one.group.messages.read(300) is not None, "the other segment was repaired"
    close(one, other)


async def test_wrong_records_are_refused() -> None:
    one, other, _ = await twins()
    first, last = damage(one, 60)
    pipe = Pipe(other.source)
    pipe.change = lambda method, data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    with pytest.raises(Corruption):
        await one.sink.repair_ranges(one.group, pipe, [(first, last)])
    with pytest.raises(Corruption):
        one.group.messages.read(first)
    close(one, other)


@pytest.mark.parametrize("seed", range(6))
async def test_a_power_cut_in_between_loses_nothing(seed: int) -> None:
    one, other, _ = await twins(messages=8)
    before = one.records()
    bad = damage(one, 50)
    one.abandon()
    one.vfs.crash()
    disk = one.vfs
    boundary = seed
    while True:
        member = await Replica(disk.clone(), one.limits).open()
        boundary += 6
        member.vfs.crash_at(member.vfs.boundaries + boundary)
        is_done = False
        try:
            await member.wait(member.sink.repair_ranges(member.group, Pipe(other.source), [bad]))
            is_done = True
        except SimCrash:
            pass
        member.abandon()
        member.vfs.crash(Random(boundary))
        again = await Replica(member.vfs, one.limits).open()
        if not is_done:
            await again.sink.repair_ranges(again.group, Pipe(other.source), [bad])
        assert again.records() == before
        again.abandon()
        if is_done:
            break
    close(other)


def wreck(replica: Replica, seq: int) -> str:
    """Make a whole segment unreadable; its path."""
    segment = replica.group.messages.segment_at(seq)
    for offset in range(40, segment.file_bytes, 16):
        byte = replica.vfs.peek(segment.path)[offset]
        replica.vfs.poke(segment.path, offset, bytes([byte ^ 8]))
    replica.group.messages.forget_file(segment.path)
    replica.group.messages.take_dropped()
    return segment.path


async def test_stored_segments_that_a_new_state_needs_are_repaired_on_the_way() -> None:
    one, other, feed = await twins()
    await other.feed([feed.publish(30), feed.delete(7)])
    wrecked = {wreck(one, 150), wreck(one, 300)}
    stored = one.group.messages.last_seq
    pipe = Pipe(other.source)
    await one.catch_up(pipe)
    assert pipe.ranges[0] == (stored + 1, other.group.messages.last_seq)
    assert len(pipe.ranges) == 3, "what was received was not fetched again"
    assert_same(one, other)
    assert wrecked.isdisjoint(segment.path for segment in one.group.messages.segment_files())
    one.abandon()
    one.vfs.crash()
    again = await Replica(one.vfs, one.limits).open()
    assert again.records() == other.records()
    close(again, other)


async def torn(seq: int = 5) -> tuple[Replica, Replica, Feed]:
    """Twins; one of them stands still inside an entry, for want of a segment that cannot be read at all."""
    one, other, feed = await twins()
    path = wreck(one, seq)
    limit = feed.configure(max_msgs=20) if seq > 40 else feed.configure(max_msgs=300)
    await other.feed([limit, feed.publish(5)])
    with pytest.raises(OutcomeUnknown):
        await one.group.propose(limit)
    assert one.group.is_faulty
    assert one.group.stream.is_torn
    one.group.note_damage(Corruption("unreadable", file=path, offset=40))
    return one, other, feed


async def test_a_state_torn_by_damage_is_replaced() -> None:
    one, other, _ = await torn()
    await one.catch_up(Pipe(other.source), keeps_local=False)
    assert not one.group.is_faulty
    assert_same(one, other)
    close(one, other)


@pytest.mark.parametrize("is_repaired_before", [False, True])
async def test_a_state_torn_by_damage_keeps_what_is_good(is_repaired_before: bool) -> None:
    one, other, _ = await torn(230)
    stored = one.group.messages.last_seq
    assert len(damaged_ranges(one.group)) == 1
    if is_repaired_before:
        await one.sink.repair_ranges(one.group, Pipe(other.source), damaged_ranges(one.group))
    pipe = Pipe(other.source)
    await one.catch_up(pipe)
    assert pipe.ranges[0][0] > stored
    assert not one.group.is_faulty
    assert not one.group.damage
    assert_same(one, other)
    close(one, other)
