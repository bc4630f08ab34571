"""Goal: Raft messages of many groups come back as they were, in order, in frames of bounded size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.node.link.frames import FrameError
from jetstore.node.link.raft_codec import Addressed, Sender, decode_raft, encode_raft, message_bytes
from jetstore.raft.log import Entry
from jetstore.raft.message import Answer, Message, MessageKind
from jetstore.types import GroupUid, RaftIndex, Term

SENDER = Sender(7, "00112233445566aa", 300)
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
SPARSE = st.one_of(st.just(0), U64)
ENTRY = st.tuples(U64, U64, st.sampled_from([0, 1, 40, 1500]).map(bytes), U32).map(lambda row: Entry(*row))
WITH_ENTRIES = (MessageKind.APPEND, MessageKind.REPAIR_RESPONSE)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(MessageKind))
    names = [name for name in Message._fields if name not in ("kind", "sender", "to", "term", "entries", "answer")]
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=5))
    fields = {name: draw(st.booleans()) if name.startswith("is_") else draw(SPARSE) for name in chosen}
    return Message(
        kind,
        draw(U32),
        draw(U32),
        draw(U64),
        entries=tuple(draw(st.lists(ENTRY, max_size=3))) if kind in WITH_ENTRIES else (),
        answer=draw(st.sampled_from(Answer)),
        **fields,
    )


HEARTBEAT = st.tuples(U32, U32, U64, U64, U64, U64, st.booleans()).map(
    lambda row: Message(
        MessageKind.HEARTBEAT, *row[:3], commit=row[3], sequence=row[4], boot=row[5], is_quiescent=row[6]
    )
)
ANSWER = st.tuples(U32, U32, U64, U64, U64, U64, U64).map(
    lambda row: Message(
        MessageKind.HEARTBEAT_RESPONSE, *row[:3], last_index=row[3], last_term=row[4], sequence=row[5], boot=row[6]
    )
)
BATCH = st.lists(st.tuples(U64, st.one_of(messages(), HEARTBEAT, ANSWER)), max_size=8)


def whole(body: list[bytes]) -> memoryview:
    return memoryview(b"".join(map(bytes, body)))


@given(BATCH, st.integers(100, 5000))
def test_what_was_sent_is_what_comes(batch: list[Addressed], frame_bytes: int) -> None:
    bodies = encode_raft(SENDER, batch, frame_bytes)
    got: list[Addressed] = []
    for body in bodies:
        data = whole(body)
        sender, part = decode_raft(data)
        assert sender == SENDER
        assert len(data) <= frame_bytes or len(part) == 1
        got += part
    assert got == batch
    assert [type(message.kind) for _, message in got] == [MessageKind] * len(got)


@given(BATCH.filter(bool), st.data())
def test_damaged_bodies_are_refused_or_read_as_something_else_but_never_more(
    batch: list[Addressed], draw: st.DataObject
) -> None:
    """The frame's checksum keeps such bodies away; this is about a peer with another idea of the format."""
    data = bytearray(whole(encode_raft(SENDER, batch, 1 << 20)[0]))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = data[: draw.draw(st.integers(0, len(data)))]
    try:
        _, got = decode_raft(memoryview(data))
    except FrameError:
        return
    assert sum(len(entry.data or b"") for _, message in got for entry in message.entries) <= len(data)
    assert len(got) * 32 <= len(data)


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    try:
        decode_raft(memoryview(noise))
    except FrameError:
        pass


def test_every_cut_of_a_body_is_refused() -> None:
    append = Message(MessageKind.APPEND, 1, 2, Term(3), entries=(Entry(Term(3), RaftIndex(9), b"data", 1),))
    data = bytes(whole(encode_raft(SENDER, [(GroupUid(1), append)], 1 << 20)[0]))
    for size in range(len(data)):
        if size == 24:
            continue  # no section at all: an empty batch
        with pytest.raises(FrameError):
            decode_raft(memoryview(data)[:size])


def test_golden_message() -> None:
    message = Message(
        MessageKind.APPEND,
        sender=2,
        to=3,
        term=Term(5),
        index=RaftIndex(16),
        log_term=Term(4),
        commit=RaftIndex(15),
        entries=(Entry(Term(5), RaftIndex(17), b"abc", 2),),
        sequence=9,
        boot=7,
    )
    (body,) = encode_raft(SENDER, [(GroupUid(12), message)], 1 << 20)
    expected = """
        0700000000000000 00112233445566aa 2c01000000000000
        01 000000 01000000
        0c00000000000000 02000000 03000000 0500000000000000 05 00 8702 01000000
        1000000000000000 0400000000000000 0f00000000000000 0900000000000000 0700000000000000
        0500000000000000 1100000000000000 02000000 03000000 616263
    """
    assert whole(body).hex() == "".join(expected.split())


def test_golden_heartbeats_and_answers() -> None:
    beat = Message(MessageKind.HEARTBEAT, 2, 3, Term(5), commit=RaftIndex(15), sequence=9, boot=7, is_quiescent=True)
    answer = Message(
        MessageKind.HEARTBEAT_RESPONSE, 2, 1, Term(6), last_index=RaftIndex(8), last_term=Term(4), sequence=3, boot=7
    )
    batch = [(GroupUid(12), beat), (GroupUid(13), beat._replace(is_quiescent=False)), (GroupUid(14), answer)]
    (body,) = encode_raft(SENDER, batch, 1 << 20)
    expected = """
        0700000000000000 00112233445566aa 2c01000000000000
        02 000000 02000000
        0c00000000000000 02000000 03000000 0500000000000000 0f00000000000000 0900000000000000 0700000000000000 01
        0d00000000000000 02000000 03000000 0500000000000000 0f00000000000000 0900000000000000 0700000000000000 00
        03 000000 01000000
        0e00000000000000 02000000 01000000 0600000000000000 0800000000000000 0400000000000000 0300000000000000
        0700000000000000
    """
    assert whole(body).hex() == "".join(expected.split())


def test_the_numbers_on_the_wire_are_for_ever() -> None:
    assert [kind.value for kind in MessageKind] == list(range(1, 16))
    assert {answer.name: answer.value for answer in Answer} == {
        "NONE": 0, "HAVE": 1, "COMPACTED": 2, "NEVER": 3, "FAULTY": 4,
    }  # fmt: skip


def test_large_entries_are_not_copied_and_go_alone_if_they_are_larger_than_a_frame() -> None:
    large = bytes(3000)
    batch = [
        (GroupUid(1), Message(MessageKind.APPEND, 1, 2, Term(1), entries=(Entry(Term(1), RaftIndex(n), data, 1),)))
        for n, data in enumerate([b"x", large, b"y"], 1)
    ]
    bodies = encode_raft(SENDER, batch, 1000)
    assert [len(decode_raft(whole(body))[1]) for body in bodies] == [1, 1, 1]
    assert any(part is large for part in bodies[1])
    assert len(encode_raft(SENDER, batch, 10_000)) == 1
    assert all(len(whole(body)) <= 24 + 8 + message_bytes(m) for body, (_, m) in zip(bodies, batch, strict=True))


def test_an_unreadable_entry_cannot_be_sent() -> None:
    faulty = Message(MessageKind.APPEND, 1, 2, Term(1), entries=(Entry(Term(1), RaftIndex(1), None),))
    with pytest.raises(AssertionError):
        encode_raft(SENDER, [(GroupUid(1), faulty)], 1000)
