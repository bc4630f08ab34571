"""The codec of a stream's log: round trips, and refusal of everything unknown."""

from __future__ import annotations

import pytest
from stream_driver import START_NS, frames_of

from jetstore.errors import Corruption, FormatUnknown
from jetstore.model.requests import PurgeRequest
from jetstore.model.stream import StreamConfig
from jetstore.stream import entries
from jetstore.stream.entries import EntryKind

MESSAGES = [("a", {}, "one"), ("b", {"Nats-Msg-Id": "x"}, "two")]


def test_publish() -> None:
    frames = frames_of(MESSAGES, START_NS, frame_bytes_max=16)
    data = entries.encode_publish(START_NS, frames)
    assert entries.entry_kind(data) is EntryKind.PUBLISH
    time_ns, decoded = entries.decode_publish(data)
    assert time_ns == START_NS == entries.publish_time_ns(data)
    assert [(f.count, f.base_time_ns, f.body) for f in decoded] == [
        (1, START_NS + i, f.body) for i, f in enumerate(frames)
    ]


def test_the_worked_example_of_the_document() -> None:
    data = entries.encode_publish(START_NS, frames_of([("a", {}, "hi"), ("b", {}, "yo")], START_NS))
    assert data.hex() == (
        "010000002a36fe9c9717000000000100 0000c206ac6a0200000000002a36fe9c97170f000000c7036ae5"
        "0402000000010001006162 6869796f"
    ).replace(" ", "")


def test_rare_kinds() -> None:
    config = StreamConfig(name="S", subjects=("a",), max_age=5)
    assert entries.decode_config(entries.encode_config(3, 7, config)) == (3, 7, config)
    request = PurgeRequest("a.>", 5, 0)
    assert entries.decode_purge(entries.encode_purge(request)) == request
    assert entries.decode_delete(entries.encode_delete(9)) == 9
    assert entries.decode_expire(entries.encode_expire(12, 3)) == (12, 3)
    assert entries.entry_kind(b"") is EntryKind.NOOP
    assert entries.entry_kind(entries.NOOP) is EntryKind.NOOP


@pytest.mark.parametrize("kind", [10, 15, 26, 99, 255])
def test_unknown_kinds(kind: int) -> None:
    with pytest.raises(FormatUnknown):
        entries.entry_kind(bytes((kind,)))


def test_unknown_flags_and_damage_of_a_publish() -> None:
    data = entries.encode_publish(START_NS, frames_of(MESSAGES, START_NS))
    with pytest.raises(FormatUnknown):
        entries.decode_publish(data[:1] + b"\x01" + data[2:])
    with pytest.raises(Corruption):
        entries.decode_publish(data[:5])
    for at in range(10, len(data)):
        with pytest.raises(Corruption):
            entries.decode_publish(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])


def test_unknown_fields_and_damage_of_rare_kinds() -> None:
    with pytest.raises(Corruption):
        entries.decode_delete(b"\x04{seq")
    with pytest.raises(FormatUnknown):
        entries.decode_delete(b'\x04{"seq":1,"erase":true}')
    with pytest.raises(FormatUnknown):
        entries.decode_purge(b'\x03{"filter":""}')
    with pytest.raises(FormatUnknown):
        entries.decode_expire(b"\x05[1]")


def test_consumer_kinds_are_those_of_the_consumer_room() -> None:
    from jetstore.consumer.entries import ConsumerEntryKind

    assert {kind.value for kind in ConsumerEntryKind} == {kind.value for kind in EntryKind if kind >= 16}
