"""Records of a range: bytes that never change their meaning, parsed in pieces of any size, read from any log."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_columns
from jetstore.limits import Limits
from jetstore.node.catch_up.messages import RANGE, decode, encode
from jetstore.store.checkpoint_files import make_group_dir
from jetstore.store.install_files import Received, free_number
from jetstore.store.install_manifest import read_manifest
from jetstore.store.install_records import END, MISSING, Note, RecordParser, encode_note, read_range
from jetstore.store.message_log import SegmentedLog
from jetstore.store.segment import decode_payload
from jetstore.types import GroupUid

GOLDEN = Path(__file__).parents[1] / "golden" / "format" / "catch-up-0.hex"
LIMITS = Limits(segment_bytes=1_500, frame_bytes_max=200)
START_NS = 1_700_000_000_000_000_000


def example() -> list[bytes]:
    log = SegmentedLog(SimVfs(), 7, Limits())
    log.append(1, encode_columns(Columns([b"a.b", b"a.b"], (), [b"hello", b"world"]), START_NS))
    buffers, next_seq = read_range(log, 1, 4, 1 << 20)
    assert next_seq == 5
    note = encode_note(7, Note(MISSING, 3, 4))
    end = encode_note(7, Note(END, 1, 4))
    return [buffers[0], buffers[1], note, end, encode({"uid": 7, "first_seq": 1, "last_seq": 4})]


def test_golden() -> None:
    assert [bytes.fromhex(line) for line in GOLDEN.read_text().split()] == example()
    assert all(line.hex() in (GOLDEN.parents[3] / "docs/format/catch-up.md").read_text() for line in example())
    assert decode(example()[-1]) == {"uid": 7, "first_seq": 1, "last_seq": 4}
    assert RANGE == "catch_up.range"


def filled(dice: Random, count: int = 120) -> tuple[SegmentedLog, SimVfs]:
    vfs = SimVfs()
    make_group_dir(vfs, GroupUid(7))
    log = SegmentedLog(vfs, 7, LIMITS)
    seq = 1
    log.is_compressing = count == 120  # where ranges are read after some frames were written
    for number in range(count):
        size = dice.randrange(1, 5)
        seq += dice.choice((0, 0, 0, 3))
        subjects = [b"s.%d" % dice.randrange(4) for _ in range(size)]
        payloads = [bytes([65 + number % 26]) * dice.randrange(30) for _ in range(size)]
        log.append(seq, encode_columns(Columns(subjects, (), payloads), START_NS + 1_000 * number))
        seq += size
        if dice.random() < 0.4:
            log.remove(dice.randrange(1, seq))
        if dice.random() < 0.3:
            flush(log, vfs)
    return log, vfs


def flush(log: SegmentedLog, vfs: SimVfs) -> None:
    writes = log.take_unflushed()
    for path, offset, buffers in writes:
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers, offset)
        vfs.close(handle)
    if writes:
        log.flushed()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_any_range_in_any_pieces(seed: int) -> None:
    dice = Random(seed)
    log, _ = filled(dice, 40)
    first = dice.randrange(1, log.last_seq + 5)
    last = dice.randrange(first, log.last_seq + 10)
    data = bytearray()
    at = first
    while at <= last:
        buffers, at = read_range(log, at, last, dice.randrange(1, 900))
        data += b"".join(buffers)
    parser = RecordParser(7, LIMITS)
    found: dict[int, tuple[int, bytes, bytes]] = {}
    previous = first - 1
    while data:
        size = dice.randrange(1, 200)
        for item in parser.feed(bytes(data[:size])):
            assert not isinstance(item, Note)
            stored = decode_payload(*item, None)
            assert stored.seqs[0] > previous
            assert stored.seqs[-1] <= last
            previous = stored.seqs[-1]
            for seq, time_ns, subject, payload in zip(
                stored.seqs, stored.times, stored.columns.subjects, stored.columns.payloads, strict=True
            ):
                found[seq] = (time_ns, subject, payload)
        del data[:size]
    assert parser.is_between
    live = [seq for seq in log.next_seqs(first, None, 10_000) if seq <= last]
    for message in log.read_many(live, 1 << 30):
        assert found[message.seq] == (message.time_ns, message.subject, message.data)


def is_noticed(data: bytes) -> bool:
    """Refused, or more is waited for: then the end of the stream refuses it."""
    parser = RecordParser(7, LIMITS)
    try:
        parser.feed(data)
    except Corruption:
        return True
    return not parser.is_between


def test_every_flipped_bit_is_noticed() -> None:
    data = b"".join(example()[:4])
    for at in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[at // 8] ^= 1 << at % 8
        assert is_noticed(bytes(wrong))
    for at in range(8 * len(example()[4])):
        wrong = bytearray(example()[4])
        wrong[at // 8] ^= 1 << at % 8
        with pytest.raises(Corruption):
            decode(bytes(wrong))


def test_records_of_another_group_and_endless_ones() -> None:
    data = b"".join(example()[:4])
    with pytest.raises(Corruption):
        RecordParser(8, LIMITS).feed(data)
    small = Limits(record_bytes_max=10)
    parser = RecordParser(7, small)
    parser._frame_bytes_max = 10
    with pytest.raises(Corruption):
        parser.feed(data[:40])
    with pytest.raises(FormatUnknown):
        RecordParser(7, LIMITS).feed(encode_note(7, Note(9, 1, 2)))


@pytest.mark.parametrize("seed", range(20))
def test_received_files_survive_and_say_what_is_missing(seed: int) -> None:
    dice = Random(seed)
    log, _ = filled(dice)
    vfs = SimVfs()
    make_group_dir(vfs, GroupUid(7))
    limits = Limits(segment_bytes=700, frame_bytes_max=200)
    received = Received(7, limits, vfs.keys, storage="file", number=free_number(vfs, 7), first_seq=1)
    from jetstore.store.checkpoint_files import KIND_MANIFEST, write_framed
    from jetstore.store.install_manifest import manifest_path

    def save() -> None:
        for path, offset, buffers in received.take_writes():
            handle = vfs.open(path, create=True)
            vfs.pwrite(handle, buffers, offset)
            vfs.fsync(handle)
            vfs.close(handle)
        vfs.fsync_dir("groups/7/segments")
        received.written()
        write_framed(vfs, GroupUid(7), KIND_MANIFEST, manifest_path(7), received.save()[0])

    for _ in range(200):
        regions = [*received.missing_seqs, (received.covered_seq + 1, log.last_seq)]
        first, last = regions[0]
        if first > last:
            break
        received.begin(first, last)
        data = b"".join(read_range(log, first, last, dice.randrange(100, 3_000))[0])
        for item in RecordParser(7, limits).feed(data):
            assert not isinstance(item, Note)
            seqs = decode_payload(*item, None).seqs
            if dice.random() < 0.15:
                received.note_missing(seqs[0], seqs[-1])
            else:
                received.take(item)
        if dice.random() < 0.3:
            received.seal()
        save()
        if dice.random() < 0.5:
            again = Received.resume(vfs, 7, limits)
            assert again is not None
            if again.files and not again.files[-1].is_sealed and dice.random() < 0.5:
                vfs.poke(again.files[-1].path, 50, b"\xff\xff")
            for _ in again.verify(vfs):
                pass
            assert set(missing_of(again)) >= set(missing_of(received))
            received = again
    else:
        raise AssertionError("it makes no progress")
    assert read_manifest(vfs, 7) is not None
    received.seal()
    save()
    names = [file.base_seq for file in received.files]
    assert names == sorted(set(names))
    held: set[int] = set()
    for file in received.files:
        reader = SegmentedLog(vfs, 7, limits).reader
        table = reader.table(file)
        assert not table.bad
        held.update(table.seqs_of(range(table.message_count)))
        assert table.message_count == file.messages
    live = set(log.next_seqs(1, None, 100_000))
    assert live <= held


def missing_of(received: Received) -> list[int]:
    return [seq for first, last in received.missing_seqs for seq in range(first, last + 1)]
