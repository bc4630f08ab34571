"""Messages between the server and its writer: any chunking gives the same messages, and what was sent."""

from __future__ import annotations

import pytest

from jetstore.store import frames
from jetstore.store.ports import JournalStatus, Kind, Record
from jetstore.types import Buffer, GroupUid, RaftIndex, Term

TOP = (1 << 64) - 1


def record(body: bytes, kind: Kind = Kind.ENTRIES) -> Record:
    return Record(kind, GroupUid(7), Term(TOP), Term(2), RaftIndex(3), RaftIndex(TOP), (1 << 32) - 1, TOP, body)


def received(buffers: list[Buffer], chunk: int) -> list[tuple[tuple[object, ...], list[bytes]]]:
    data = b"".join(buffers)
    decoder = frames.Decoder()
    found = []
    at = 0
    while at < len(data):
        space = decoder.space()
        count = min(chunk, len(space), len(data) - at)
        space[:count] = data[at : at + count]
        at += count
        decoder.filled(count)
        while (message := decoder.take()) is not None:
            found.append((message[0], message[1]))
    return [(message, [bytes(buffer) for buffer in views]) for message, views in found]


@pytest.mark.parametrize("chunk", [13, 4096, 1 << 20])
@pytest.mark.parametrize("sizes", [(), (0,), (1, 0, 190), (200,) * 300, (frames.JOINED_BYTES + 1, 5), (70_000, 70_000)])
def test_blocks_and_their_answers(chunk: int, sizes: tuple[int, ...]) -> None:
    records = [record(bytes([size % 251]) * size) for size in sizes]
    records += [record(b"", Kind.CKPT)]
    status = JournalStatus(TOP, 2, 3, True, ((GroupUid(4), RaftIndex(TOP)), (GroupUid(5), RaftIndex(6))), 7, True)
    sent = [
        *frames.encode_append(1, records),
        frames.encode_status(2, status, 99),
        *frames.encode_append(3, ()),
        *frames.encode((4, "ok", None)),
    ]
    append, answer, empty, other = received(sent, chunk)
    assert append[0][:2] == (1, "append")
    assert frames.records_of(append[0][2], append[1]) == records  # type: ignore[arg-type]  # the heads
    assert answer == ((2, "ok", status._replace(sync_ns=99)), [])
    assert frames.records_of(empty[0][2], empty[1]) == []  # type: ignore[arg-type]  # the heads
    assert other == ((4, "ok", None), [])
