"""Goal: archives and S2 streams read the same however they are cut; any other bytes are a clear error, soon."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jetstore.consumer.pending import Run
from jetstore.consumer.state import ConsumerState
from jetstore.errors import ArchiveError
from jetstore.model.consumer import AckPolicy, ConsumerConfig
from jetstore.model.json import encode
from jetstore.node.backup import archive, s2
from jetstore.node.backup.archive import ArchiveReader, Entry, EntryHead
from jetstore.node.backup.consumer_json import decode_consumer, encode_consumer, rows_of, take
from jetstore.store.memory_log import MemoryLog
from jetstore.store.ports import Message

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "format" / "archive-nats-server-2.15.1.hex"
"""Of a stream with gaps, headers, a consumer with pending messages: compressed, with repeated offsets."""
BODY_MAX = 100_000


def check(head: EntryHead) -> None:
    if head.header_bytes + head.body_bytes > BODY_MAX:
        raise ArchiveError("too large")


def unpacked(pieces: Iterable[bytes]) -> bytes:
    reader = s2.S2Reader()
    found = b"".join(bytes(part) for piece in pieces for part in reader.feed(piece))
    if not reader.is_between:
        raise ArchiveError("cut off")
    return found


def entries_of(pieces: Iterable[bytes]) -> list[Entry]:
    reader = ArchiveReader(check)
    found = [entry for piece in pieces for entry in reader.feed(piece)]
    if not reader.is_between:
        raise ArchiveError("cut off")
    return found


def last_of(steps: Iterable[Any]) -> Any:
    *_, last = steps
    return last


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in pairwise(places)] or [b""]


messages = st.lists(
    st.builds(
        Message,
        st.integers(1, 2**63),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(max_size=40),
        st.binary(max_size=40),
        st.binary(max_size=3_000),
    ),
    max_size=12,
)
cuts = st.lists(st.integers(0, 2**20), max_size=8)


@given(messages, cuts, cuts)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_however_it_is_cut(given: list[Message], first: list[int], second: list[int]) -> None:
    plain = archive.MAGIC + archive.encode_messages(given) + archive.END
    assert unpacked(cut(s2.MAGIC + s2.plain_chunks(plain), first)) == plain
    found = entries_of(cut(plain, second))
    assert found.pop() == (EntryHead(b"", 0, 0, 0, 0), b"")
    again = [Message(h.seq, h.time_ns, h.name, b[: h.header_bytes], b[h.header_bytes :]) for h, b in found]
    assert again == given


@given(st.binary(max_size=400), cuts)
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_an_archive_or_an_error(data: bytes, at: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        try:
            return entries_of(pieces)
        except ArchiveError:
            return None

    for start in (b"", archive.MAGIC):
        assert outcome([start + data]) == outcome(cut(start + data, at))


@given(st.binary(max_size=400), st.binary(max_size=4), st.integers(0, 3_000), cuts)
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_an_s2_block_or_an_error(data: bytes, crc: bytes, size: int, at: list[int]) -> None:
    length = bytes([size & 0x7F | 0x80, size >> 7]) if size > 0x7F else bytes([size])
    body = crc.ljust(4, b"\1") + length + data
    with suppress(ArchiveError):
        assert len(unpacked(cut(s2.MAGIC + b"\0" + len(body).to_bytes(3, "little") + body, at))) == size
    with suppress(ArchiveError):
        *_, made = s2.decode_block(length + data, 0)
        assert len(made) == size


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=70), st.tuples(st.integers(1, 90), st.integers(1, 300)))))
@settings(deadline=None, max_examples=150)
def test_blocks_made_of_literals_copies_and_repeats(operations: list[bytes | tuple[int, int]]) -> None:
    """Every way to write an operation, against copying byte by byte."""
    expected, block, before = bytearray(), bytearray(), 0
    for operation in operations:
        if isinstance(operation, bytes):
            expected += operation
            size = len(operation) - 1
            block += (bytes([size << 2]) if size < 60 else bytes([60 << 2, size])) + operation
            continue
        offset, length = operation
        if offset > len(expected):
            continue
        for _ in range(length):
            expected.append(expected[-offset])
        if offset == before and length >= 8:
            if length < 8 + 256:
                block += bytes([5 << 2 | 1, 0, length - 8])
            else:
                block += bytes([6 << 2 | 1, 0]) + (length - 260).to_bytes(2, "little")
        elif offset == before and length >= 4 and length < 8:
            block += bytes([length - 4 << 2 | 1, 0])
        elif 4 <= length <= 11:
            block += bytes([offset >> 8 << 5 | length - 4 << 2 | 1, offset & 0xFF])
        else:
            while length:
                part = min(length, 64)
                kind = 2 if length % 2 else 3
                block += bytes([part - 1 << 2 | kind]) + offset.to_bytes(2 if kind == 2 else 4, "little")
                length -= part
        before = offset
    if not expected:
        return
    size = len(expected)
    head = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    *_, made = s2.decode_block(head + bytes(block), 0)
    assert made == expected


@pytest.mark.parametrize("length", [4, 7, 8, 9, 263, 260, 515, 65_795, 65_540, 70_000])
def test_every_width_of_a_repeat(length: int) -> None:
    if length < 8:
        repeat = bytes([length - 4 << 2 | 1, 0])
    elif length < 260:
        repeat = bytes([5 << 2 | 1, 0, length - 8])
    elif length < 65_540:
        repeat = bytes([6 << 2 | 1, 0]) + (length - 260).to_bytes(2, "little")
    else:
        repeat = bytes([7 << 2 | 1, 0]) + (length - 65_540).to_bytes(3, "little")
    expected = (b"abc" * (length + 7))[: 7 + length]
    size = len(expected)
    head = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    *_, made = s2.decode_block(head + b"\x08abc" + b"\x01\x03" + repeat, 0)
    assert made == expected


def test_an_archive_of_nats_server() -> None:
    data = bytes.fromhex(GOLDEN.read_text())
    found = entries_of([unpacked([data])])
    state, consumer, *stored, end = found
    assert state[0].name == b"state.json"
    assert end == (EntryHead(b"", 0, 0, 0, 0), b"")
    assert [head.seq for head, _ in stored] == [seq for seq in range(1, 302) if seq not in (5, 17, 18, 19)]
    assert stored[-1][1] == b"NATS/1.0\r\nNats-Msg-Id: id1\r\nA: b\r\n\r\nwith"
    read = last_of(decode_consumer("d1", consumer[1]))
    assert (read.delivered, read.ack_floor) == ((11, 11), (3, 3))
    assert [seq for first, last, *_ in read.pending for seq in range(first, last + 1)] == [4, 7, 8, 9, 10, 11]
    assert read.config.durable_name == "d1"


@given(st.integers(0, 12_795 // 2), st.integers(1, 255))
@example(1122, 224)
@settings(deadline=None, max_examples=80)
def test_a_changed_byte_of_it_is_found(at: int, change: int) -> None:
    data = bytearray(bytes.fromhex(GOLDEN.read_text()))
    data[at % len(data)] ^= change
    with suppress(ArchiveError):  # a copy from elsewhere of the same bytes is as good
        assert unpacked([bytes(data)]) == unpacked([bytes.fromhex(GOLDEN.read_text())])


def test_nothing_is_kept_for_a_size_that_is_only_claimed() -> None:
    reader = s2.S2Reader()
    with pytest.raises(ArchiveError):
        list(reader.feed(s2.MAGIC + b"\1\xff\xff\xff"))
    block = bytes([0xFF, 0xFF, 0xFF, 0x01])  # 4 MiB - 1 from a few bytes: never more than that
    with pytest.raises(ArchiveError):
        list(s2.decode_block(block + b"\0a" + bytes([7 << 2 | 1, 0, 0xFF, 0xFF, 0xFF]) * 3, 0))


# -- consumers --------------------------------------------------------------------------------------------------------


def test_a_consumer_comes_back() -> None:
    log = MemoryLog()
    config = ConsumerConfig(
        name="c", durable_name="c", ack_policy=AckPolicy.EXPLICIT, ack_wait=5, backoff=(5, 7), max_deliver=3
    )
    state = ConsumerState("c", config, 1, None, _View(log))  # type: ignore[arg-type]  # what it asks for
    state.delivered = state.delivered._replace(consumer_seq=30, stream_seq=20)
    state.ack_floor = state.ack_floor._replace(consumer_seq=2, stream_seq=2)
    for row in ((3, 5, 3, 100, 105, 1), (8, 8, 9, 100, 107, 2), (9, 9, 10, 90, 200, 0)):
        state.pending.put(Run(*row))
    state.exhausted.put(Run(7, 7, 8, 0, 0, 3))
    read = last_of(decode_consumer("c", last_of(encode_consumer(take(state)))))
    assert (read.delivered, read.ack_floor, read.config) == ((30, 20), (2, 2), config)
    pending, exhausted = rows_of(read, config)
    assert [[row[i] for i in (0, 1, 2, 4, 5)] for row in pending] == [
        [3, 5, 3, 105, 1],
        [8, 8, 9, 107, 2],
        [9, 9, 10, 200, 0],
    ]
    assert [[row[0], row[1], row[5]] for row in exhausted] == [[7, 7, 3]]


class _View:
    first_seq, last_seq, messages = 1, 0, 0

    def __init__(self, log: object) -> None: ...


def test_the_same_sequence_twice_is_refused() -> None:
    state = {"delivered": {"consumer_seq": 5, "stream_seq": 5}}
    pending = {"3": {"Sequence": 3}, "03": {"Sequence": 4}}
    with pytest.raises(ArchiveError, match="'03' is not how a sequence is written"):
        last_of(decode_consumer("c", encode({"config": {}, "state": state | {"pending": pending}})))


numbers = st.one_of(st.integers(-5, 40), st.just(2**64), st.text(max_size=3), st.none(), st.booleans())
objects = st.dictionaries(st.sampled_from(["1", "2", "x", "-1", "consumer_seq", "stream_seq", "Sequence"]), numbers)


@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda **fields: encode({"config": {"ack_policy": "explicit"}, "state": fields}),
            delivered=objects,
            ack_floor=objects,
            pending=st.one_of(objects, st.dictionaries(st.sampled_from(["1", "2", "0"]), objects)),
            redelivered=objects,
        ),
    )
)
@settings(deadline=None, max_examples=200)
def test_any_consumer_is_taken_or_refused(content: bytes) -> None:
    try:
        read = last_of(decode_consumer("c", content))
    except ArchiveError:
        return
    rows_of(read, read.config)
