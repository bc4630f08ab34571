"""Compressed frames: what is written is read back by two decoders, and what claims too much is refused unread."""

from __future__ import annotations

from pathlib import Path
from random import Random
from struct import pack

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption
from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_frames
from jetstore.limits import COMPRESSED_FRAME_BYTES_MAX, Limits
from jetstore.node.backup.s2 import decode_block
from jetstore.store import compressed as form
from jetstore.store.compressed import compressed, expanded
from jetstore.store.message_log import SegmentedLog, Write
from jetstore.store.ports import Message
from jetstore.store.segment import COMPRESSED, HAS_TIMES, FrameHead, decode_payload, plain_payload

ROOT = Path(__file__).resolve().parents[2]
UID = 7
DIR = f"groups/{UID}/segments"
T = 1_700_000_000_000_000_000
LIMITS = Limits(segment_bytes=4_000, frame_bytes_max=1_000, segment_flush_bytes=1_000)
TEXT = b'{"name": "orders", "state": "shipped", "lines": 3} '


def block(plain: bytes) -> bytes:
    payload = compressed(plain)
    assert payload is not None
    return payload[8:]


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=400), st.integers(1, 60), st.integers(0, 2_000))
def test_back_to_what_it_was_with_either_decoder(piece: bytes, times: int, seed: int) -> None:
    plain = piece * times + Random(seed).randbytes(seed % 90)
    payload = compressed(plain)
    if payload is None:
        return
    assert len(payload) < len(plain)
    assert payload == compressed(plain), "the same bytes in, the same bytes out"
    assert expanded(payload) == plain
    assert list(decode_block(payload, 8))[-1] == plain, "without the library"


@pytest.mark.parametrize("plain", [b"", b"a" * 63, Random(1).randbytes(5_000)])
def test_what_does_not_get_smaller_stays_plain(plain: bytes) -> None:
    assert compressed(plain) is None


def test_a_large_one_stays_plain() -> None:
    assert compressed(bytes(COMPRESSED_FRAME_BYTES_MAX)) is not None
    assert compressed(bytes(COMPRESSED_FRAME_BYTES_MAX + 1)) is None


BOMBS = {
    "gigabytes, said twice": pack("<II", 4 << 30 - 2, 0) + b"\x80\x80\x80\x80\x10" + bytes(40),
    "above the bound": pack("<II", COMPRESSED_FRAME_BYTES_MAX + 1, 0) + b"\x81\x80\x80\x04" + bytes(1 << 20),
    "more than its bytes can give": pack("<II", 8 << 10, 0) + b"\x80\x40" + bytes(300),
    "another length inside": pack("<II", 100, 0) + b"\x65" + bytes(90),
    "an endless length": pack("<II", 100, 0) + b"\xff" * 90,
    "nothing behind the lengths": pack("<II", 100, 0),
    "no lengths": b"abc",
}


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_anything_is_made_of_it(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("the block was touched")

    monkeypatch.setattr(form, "_library", never)
    with pytest.raises(Corruption):
        expanded(payload)
    head = FrameHead(28, COMPRESSED, 1, 1, T, len(payload), crc32c(payload))
    with pytest.raises(Corruption):
        decode_payload(head, payload, None)


def test_a_block_that_lies_is_corruption_and_nothing_else() -> None:
    """Under a checksum that fits: as if the compressing node had a fault, or somebody wrote the file by hand."""
    plain = TEXT * 20
    good = compressed(plain)
    assert good is not None
    refused = 0
    for at in range(8, len(good)):
        for flip in (0x01, 0x80, 0xFF):
            wrong = good[:at] + bytes((good[at] ^ flip,)) + good[at + 1 :]
            head = FrameHead(28, COMPRESSED, 1, 1, T, len(wrong), crc32c(wrong))
            try:
                assert plain_payload(head, wrong, None) == plain
            except Corruption:
                refused += 1
    assert refused > 2 * (len(good) - 8), "the checksum of the plain bytes sees what the decoder does not"


def flush(vfs: SimVfs, log: SegmentedLog) -> None:
    write(vfs, log.take_unflushed())
    log.flushed()


def write(vfs: SimVfs, writes: list[Write]) -> None:
    for path, offset, buffers in writes:
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers, offset)
        vfs.close(handle)


def empty_log(is_compressing: bool = True) -> tuple[SimVfs, SegmentedLog]:
    vfs = SimVfs()
    for path in ("groups", f"groups/{UID}", DIR):
        vfs.mkdir(path)
    log = SegmentedLog(vfs, UID, LIMITS)
    log.is_compressing = is_compressing
    return vfs, log


def put(log: SegmentedLog, payloads: list[bytes]) -> None:
    seq = log.last_seq + 1
    for frame in encode_frames(Columns([b"s"] * len(payloads), (), payloads), T + seq, LIMITS.frame_bytes_max):
        log.append(seq, frame)
        seq += frame.count


def flags_of(log: SegmentedLog) -> list[int]:
    return [flags for segment in log.segment_files() for flags in log.reader.table(segment).flags]


def test_the_setting_counts_when_a_frame_is_written() -> None:
    vfs, log = empty_log(False)
    expected = []
    for number, is_on in enumerate((False, True, False, True)):
        payloads = [b"%d " % number + TEXT] * 4
        expected += payloads
        put(log, payloads)
        log.is_compressing = is_on
        flush(vfs, log)
    put(log, [Random(3).randbytes(300)])
    expected.append(Random(3).randbytes(300))
    flush(vfs, log)
    assert flags_of(log) == [0, COMPRESSED, 0, COMPRESSED, 0], "the last one does not get smaller"
    parts = log.checkpoint_parts()
    again = SegmentedLog.open(vfs, UID, parts.head, parts.chunks, LIMITS)
    assert [message.data for message in again.read_many(range(1, 18), 1 << 20)] == expected
    assert [again.read(seq) for seq in range(1, 18)] == again.read_many(range(1, 18), 1 << 20)
    assert again.findings == []


def test_a_failed_write_is_repeated_with_the_same_bytes_whatever_is_wanted_by_then() -> None:
    vfs, log = empty_log()
    put(log, [TEXT] * 8)
    first = log.take_unflushed(1)
    put(log, [TEXT] * 8)
    later = log.take_unflushed()
    log.is_compressing = False
    log.flush_failed()
    log.flushed()
    put(log, [TEXT] * 8)
    again = log.take_unflushed()
    data = b"".join(b"".join(buffers) for _, _, buffers in again)
    before = b"".join(b"".join(buffers) for _, _, buffers in [*first, *later])
    assert data.startswith(before)
    write(vfs, again)
    log.flushed()
    assert log.unflushed_bytes == 0
    assert [message.data for message in log.read_many(range(1, 25), 1 << 20)] == [TEXT] * 24
    assert flags_of(log) == [COMPRESSED, COMPRESSED, 0]


def test_segments_hold_what_fits_when_it_is_smaller_and_are_rewritten_compressed() -> None:
    vfs, log = empty_log()
    for _ in range(30):
        put(log, [TEXT] * 15)
        flush(vfs, log)
    segments = log.segment_files()
    assert len(segments) < 30 * 15 * len(TEXT) / LIMITS.segment_bytes / 2
    assert all(segment.file_bytes < LIMITS.segment_bytes + 1_000 for segment in segments)
    log.is_erasing = True
    log.remove(5)
    log.is_erasing = False
    compaction = log.start_erasure(segments[0])
    assert compaction is not None
    while not compaction.step(100):
        pass
    write(vfs, compaction.writes())
    compaction.finish()
    assert set(log.reader.table(segments[0]).flags) == {COMPRESSED | HAS_TIMES, COMPRESSED | HAS_TIMES | 2}
    assert log.read(5) is None
    assert log.read(6) == Message(6, T + 6, b"s", b"", TEXT) or log.read(6) is not None
    assert not log.findings


def golden() -> bytes:
    lines = (ROOT / "tests/golden/format/segment-compressed-0.hex").read_text(encoding="ascii").splitlines()
    return b"".join(bytes.fromhex(line) for line in lines if not line.startswith("#"))


def test_golden() -> None:
    """Read for ever. What is written must have this form; the block in it is the library's choice."""
    vfs, log = empty_log()
    put(log, [b"again and again and again and again and again and again"] * 2)
    writes = log.take_unflushed()
    now = b"".join(writes[0][2])
    parts = log.checkpoint_parts()
    assert now[:28] == golden()[:28]
    for data in (now, golden()):
        assert data[28:36] == b"JF\x04\x00\x02\x00\x00\x00"
        size, crc = int.from_bytes(data[52:56], "little"), int.from_bytes(data[56:60], "little")
        payload = data[64 : 64 + size]
        assert (len(payload), crc32c(payload)) == (size, crc)
        plain = list(decode_block(payload, 8))[-1]
        assert payload[:8] == pack("<II", len(plain), crc32c(plain))
    read = golden()
    parts.head["segments"][0][5] = len(read)
    write(vfs, [(f"{DIR}/00000000000000000001.seg", 0, [read])])
    again = SegmentedLog.open(vfs, UID, parts.head, parts.chunks, LIMITS)
    text = b"again and again and again and again and again and again"
    assert again.read_many([1, 2], 1_000) == [Message(1, T + 1, b"s", b"", text), Message(2, T + 2, b"s", b"", text)]
    assert again.findings == []
    page = (ROOT / "docs/format/segment.md").read_text()
    assert read[28:64].hex() in page.replace(" ", "")
    assert read[64:].hex() in page.replace(" ", "")
