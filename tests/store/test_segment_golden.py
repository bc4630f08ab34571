"""Bytes of segments, chunks and index rows are what the format pages say: golden files are never rewritten.

A new format version adds a file; the old one must still be read.
"""

from __future__ import annotations

from pathlib import Path

from jepsen.sim.vfs import SimVfs
from jetstore.hot.columns import Columns
from jetstore.hot.frame import decode_frame_run, encode_frame_run, encode_frames
from jetstore.limits import Limits
from jetstore.store.index_rows import (
    Chunk,
    encode_chunk,
    mixed_hash,
    parse_row,
    row_key,
    row_value,
    stamp_value,
    uid_key,
)
from jetstore.store.message_log import SegmentedLog
from jetstore.store.ports import IndexRow, Message
from jetstore.store.seqset import SeqSet

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "format"
LIMITS = Limits(segment_bytes=200, frame_bytes_max=100, segment_flush_bytes=100)
UID = 7
T = 1_700_000_000_000_000_000


def golden(name: str) -> bytes:
    """The golden bytes: offset, then 32 bytes in hex a line; ``#`` starts a comment."""
    lines = (GOLDEN / f"{name}.hex").read_text(encoding="ascii").splitlines()
    return b"".join(bytes.fromhex(line[8:]) for line in lines if line and not line.startswith("#"))


def frames() -> tuple[Columns, Columns]:
    first = Columns([b"a.b", b"a.b"], (), [b"hello", b"world"])
    return first, Columns([b"a.b", b"a.c"], (12, 0), [b"NATS/1.0\r\n\r\nx", b"yy"])


def sealed_log(vfs: SimVfs) -> SegmentedLog:
    for path in ("groups", f"groups/{UID}", f"groups/{UID}/segments"):
        vfs.mkdir(path)
    log = SegmentedLog(vfs, UID, LIMITS)
    first, second = frames()
    log.append(1, encode_frames(first, T, 100)[0])
    log.append(5, encode_frames(second, T + 100, 100)[0])
    log.append(7, encode_frames(Columns([b"z"], (), [b"q" * 60]), T + 200, 100)[0])
    return log


def test_segment_written() -> None:
    writes = sealed_log(SimVfs()).take_unflushed()
    path, offset, buffers = writes[0]
    assert (path, offset) == ("groups/7/segments/00000000000000000001.seg", 0)
    assert b"".join(buffers) == golden("segment-0")


def test_segment_read() -> None:
    vfs = SimVfs()
    log = sealed_log(vfs)
    writes = log.take_unflushed()
    parts = log.checkpoint_parts()
    for path, offset, buffers in writes:
        handle = vfs.open(path, create=True)
        vfs.pwrite(handle, buffers if "0001.seg" not in path else [golden("segment-0")], offset)
        vfs.close(handle)
    read = SegmentedLog.open(vfs, UID, parts.head, parts.chunks, LIMITS)
    assert read.read_many([1, 2, 5, 6], 1_000) == [
        Message(1, T, b"a.b", b"", b"hello"),
        Message(2, T + 1, b"a.b", b"", b"world"),
        Message(5, T + 100, b"a.b", b"NATS/1.0\r\n\r\n", b"x"),
        Message(6, T + 101, b"a.c", b"", b"yy"),
    ]
    assert read.findings == []


def test_frame_run() -> None:
    expected = golden("frame-run-0")
    first, second = frames()
    run = encode_frame_run([*encode_frames(first, T, 100), *encode_frames(second, T + 100, 100)])
    assert run == expected
    assert [(f.count, f.base_time_ns) for f in decode_frame_run(expected)] == [(2, T), (2, T + 100)]


def test_deleted_chunk() -> None:
    dead = SeqSet()
    dead.add(3)
    dead.add_range(8_192, 16_383)
    dead.add(524_287)
    assert dead.encode_group(0) == golden("deleted-0")
    again = SeqSet.decode([("deleted-0-1", golden("deleted-0"))], [])
    assert (again.count, again.members(1, 9_000, 3)) == (8_194, [3, 8_192, 8_193])


def test_index_chunk_and_rows() -> None:
    row = IndexRow(1, 5, 3, 45)
    assert encode_chunk(UID, 2, 1, False, {b"a.b": row, b"a.c": None}) == golden("index-chunk-0")
    chunk = Chunk(golden("index-chunk-0"))
    assert (chunk.stamp, chunk.previous, chunk.is_whole) == (2, 1, False)
    assert chunk.rows == [(b"a.b", row), (b"a.c", None)]
    key = row_key(uid_key(UID), b"a.b")
    value = bytes.fromhex("0100000000000000 0500000000000000 03000000 2d000000 77d045f0")
    assert key == bytes.fromhex("0000000000000007 612e62")
    assert row_value(key, b"a.b", row) == value
    assert parse_row(key, value) == (b"a.b", row, 0xF045D077)
    stamp = bytes.fromhex("0200000000000000 0100000000000000 776a69db73391bbb 4e79526a")
    assert stamp_value(uid_key(UID), 2, 1, mixed_hash(key, 0xF045D077)) == stamp
