"""Head copies and chunks: whatever dies when, one whole head is there, the old one or the new; damage is noticed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest
from journal_model import JOURNAL_ID, small_limits

from jepsen.sim.faults import SimCrash, fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption, DiskFull, DiskPoisoned, ReadBackFailed
from jetstore.store.checkpoint_files import (
    HEAD_NAMES,
    chunk_path,
    group_dir,
    head_hash,
    make_group_dir,
    read_chunk,
    read_heads,
    segment_path,
    write_head,
)
from jetstore.store.journal.recovery import open_journal
from jetstore.store.writer import Writer

LIMITS = small_limits()
UID = 12


def writer_on(vfs: SimVfs) -> Writer:
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)
    return Writer(vfs, journal, LIMITS)


def checkpointed() -> tuple[SimVfs, Writer]:
    vfs = SimVfs()
    writer = writer_on(vfs)
    writer.execute("make_group_dir", [UID])
    writer.execute("write_segment", [segment_path(UID, "s1"), 0, [b"old" * 100]])
    writer.execute("write_checkpoint", [UID, b"old head", {"c1": b"old chunk"}, {"s1": 300}])
    return vfs, writer


def test_round_trip_survives_a_power_cut() -> None:
    vfs, writer = checkpointed()
    found = writer.execute("write_checkpoint", [UID, b"new head" * 1000, {"c2": b"x" * 5000, "c3": b""}, {"s1": 300}])
    vfs.crash()
    copies, findings = read_heads(vfs, UID)
    assert not findings
    assert [(copy.content, copy.hash) for copy in copies] == [(b"new head" * 1000, found)] * 2
    assert found == head_hash(b"new head" * 1000)
    assert [read_chunk(vfs, UID, name) for name in ("c1", "c2", "c3")] == [b"old chunk", b"x" * 5000, b""]
    assert vfs.peek(segment_path(UID, "s1")) == b"old" * 100


def test_a_power_cut_at_every_boundary_leaves_a_whole_checkpoint(
    record_property: Callable[[str, object], None],
) -> None:
    base, _ = checkpointed()
    base.crash()
    cases = 0
    boundary = base.boundaries
    while True:
        boundary += 1
        vfs = base.clone()
        writer = writer_on(vfs)  # its own boundaries are not counted: the journal has tests of its own
        if boundary <= vfs.boundaries:
            boundary = vfs.boundaries + 1
        vfs.crash_at(boundary)
        acknowledged = False
        try:
            writer.execute("write_segment", [segment_path(UID, "s2"), 0, [b"seg" * 1000]])
            writer.execute("write_checkpoint", [UID, b"new head", {"c2": b"new chunk"}, {"s1": 300, "s2": 3000}])
            acknowledged = True
        except SimCrash:
            pass
        rng = Random(boundary)
        for attempt in range(8):
            after = vfs.clone()
            after.crash(None if attempt == 0 else rng)
            copies, findings = read_heads(after, UID)
            assert not findings
            contents = {copy.content for copy in copies}
            assert contents <= {b"old head", b"new head"}
            assert len(copies) == 2
            if acknowledged:
                assert contents == {b"new head"}
            if b"new head" in contents:  # everything it refers to is there
                assert read_chunk(after, UID, "c2") == b"new chunk"
                assert after.peek(segment_path(UID, "s2")) == b"seg" * 1000
            cases += 1
        if acknowledged:
            break
    record_property("cases", cases)
    assert cases > 100


def test_every_flipped_byte_is_noticed(record_property: Callable[[str, object], None]) -> None:
    vfs, _ = checkpointed()
    vfs.crash()
    cases = 0
    for name in HEAD_NAMES:
        path = f"{group_dir(UID)}/{name}"
        for offset in range(len(vfs.peek(path))):
            damaged = vfs.clone()
            damaged.poke(path, offset, bytes([vfs.peek(path)[offset] ^ 1]))
            copies, findings = read_heads(damaged, UID)
            assert [copy.content for copy in copies] == [b"old head"]
            assert len(findings) == 1
            cases += 1
    path = chunk_path(UID, "c1")
    for offset in range(len(vfs.peek(path))):
        damaged = vfs.clone()
        damaged.poke(path, offset, bytes([vfs.peek(path)[offset] ^ 1]))
        with pytest.raises(Corruption):
            read_chunk(damaged, UID, "c1")
        cases += 1
    vfs.lose(path)
    with pytest.raises(Corruption):
        read_chunk(vfs, UID, "c1")
    record_property("cases", cases)
    assert cases > 100


def test_a_head_of_another_group_is_not_taken() -> None:
    vfs, _ = checkpointed()
    make_group_dir(vfs, 13)
    write_head(vfs, 13, b"of 13")
    vfs.rename(f"{group_dir(13)}/HEAD.a", f"{group_dir(UID)}/HEAD.a")
    copies, findings = read_heads(vfs, UID)
    assert [copy.content for copy in copies] == [b"old head"]
    assert len(findings) == 1


@pytest.mark.parametrize("op", ["create", "pwrite"])
def test_no_space_fails_the_call_only(op: str) -> None:
    vfs, writer = checkpointed()
    vfs.inject(fault(op, "groups/*", error=errno.ENOSPC, sticky=True, partial_bytes=10))
    with pytest.raises(DiskFull):
        writer.execute("write_checkpoint", [UID, b"new head", {"c2": b"y"}, {"s1": 300}])
    with pytest.raises(DiskFull):
        writer.execute("write_segment", [segment_path(UID, "s9"), 0, [b"y" * 100]])
    assert [copy.content for copy in read_heads(vfs, UID)[0]] == [b"old head"] * 2
    vfs.heal()
    writer.execute("write_segment", [segment_path(UID, "s9"), 0, [b"z" * 100]])
    assert vfs.peek(segment_path(UID, "s9")) == b"z" * 100
    writer.execute("write_checkpoint", [UID, b"new head", {"c2": b"y"}, {"s1": 300}])
    assert [copy.content for copy in read_heads(vfs, UID)[0]] == [b"new head"] * 2


@pytest.mark.parametrize("op", ["pwrite", "fsync", "fsync_dir", "rename"])
def test_any_other_failure_poisons_for_good(op: str) -> None:
    vfs, writer = checkpointed()
    vfs.inject(fault(op, "groups*", error=errno.EIO))
    with pytest.raises(DiskPoisoned):
        writer.execute("write_checkpoint", [UID, b"new head", {"c2": b"y"}, {"s1": 300}])
    vfs.heal()
    for method, args in (("append", [[]]), ("sync", [[]]), ("write_checkpoint", [UID, b"h", {}, {}])):
        with pytest.raises(DiskPoisoned):
            writer.execute(method, args)
    with pytest.raises(DiskPoisoned):
        writer.idle()


def test_a_disk_that_does_not_read_fails_the_checkpoint_only() -> None:
    """Method: every read below groups/ fails from some call on; the old checkpoint counts, and later a new one."""
    for nth in range(1, 12):
        vfs, writer = checkpointed()
        chunks = {"c2": b"y"}
        vfs.inject(fault("pread", "groups/*", error=errno.EIO, nth=nth, sticky=True))
        try:
            writer.execute("write_checkpoint", [UID, b"new head", chunks, {"s1": 300}])
        except ReadBackFailed:
            pass
        else:
            assert nth > 3
        vfs.heal()
        copies, _ = read_heads(vfs, UID)
        assert copies
        assert {copy.content for copy in copies} <= {b"old head", b"new head"}
        writer.execute("append", [[]])
        writer.execute("write_checkpoint", [UID, b"new head", chunks, {"s1": 300}])
        assert {copy.content for copy in read_heads(vfs, UID)[0]} == {b"new head"}


def test_enospc_of_a_sync_poisons() -> None:
    vfs, writer = checkpointed()
    vfs.inject(fault("fsync", "groups/*", error=errno.ENOSPC))
    with pytest.raises(DiskPoisoned):
        writer.execute("write_checkpoint", [UID, b"new head", {}, {}])


def test_segments_are_synced_as_they_grow() -> None:
    vfs, writer = checkpointed()
    vfs.op_log = []
    for offset in range(0, 40_000, 1000):
        writer.execute("write_segment", [segment_path(UID, "s3"), offset, [b"q" * 1000]])
    syncs = [entry for entry in vfs.op_log if entry[0] == "fdatasync"]
    assert len(syncs) == 40_000 // 1000 // -(-LIMITS.segment_sync_bytes // 1000)


def test_many_segments_do_not_keep_many_handles() -> None:
    vfs, writer = checkpointed()
    for number in range(300):
        writer.execute("write_segment", [segment_path(UID, f"n{number}"), 0, [b"q"]])
    assert len(vfs._handles) < 140
    writer.execute("sync", [[segment_path(UID, f"n{number}") for number in range(300)]])
    vfs.crash()
    assert all(vfs.peek(segment_path(UID, f"n{number}")) == b"q" for number in range(300))


def test_removal_is_durable_and_a_group_goes_as_a_whole() -> None:
    vfs, writer = checkpointed()
    writer.execute("remove_files", [[chunk_path(UID, "c1"), chunk_path(UID, "never")]])
    vfs.crash()
    assert not vfs.exists(chunk_path(UID, "c1"))
    writer = writer_on(vfs)
    writer.execute("remove_group_dir", [UID])
    writer.execute("remove_group_dir", [UID])
    vfs.crash()
    assert not vfs.exists(group_dir(UID))


def test_extension_commands_refuse_for_themselves_only() -> None:
    vfs = SimVfs()
    journal, _ = open_journal(vfs, LIMITS, JOURNAL_ID)

    def refuse() -> None:
        raise Corruption("doubt", file="index", offset=0)

    writer = Writer(vfs, journal, LIMITS, {"index_commit": lambda a, b: a + b, "refuse": refuse})
    assert writer.execute("index_commit", [1, 2]) == 3
    with pytest.raises(Corruption):
        writer.execute("refuse", [])
    writer.execute("append", [[]])
    with pytest.raises(DiskPoisoned):
        writer.execute("unheard_of", [])
