"""Copied messages: nothing twice, nothing left out, whatever is repeated, whatever a checkpoint comes between."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_driver import Driver, header_block

from jetstore.hot.frame import encode_frames
from jetstore.model.source_checks import MIRROR_KEY, source_key
from jetstore.model.stream import StreamSource
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.ports import Columns, Frame, Message
from jetstore.stream import entries
from jetstore.stream.entries import SourcedHead
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid

ORIGIN = 77
SOURCE = StreamSource(name="O")


def mirror(**config: Any) -> Driver:
    return Driver(subjects=(), mirror=SOURCE, duplicate_window=0, **config)


def sourcing(**config: Any) -> Driver:
    return Driver(**({"subjects": ("own",), "sources": (SOURCE,), "duplicate_window": 0} | config))


def frames_of(messages: list[Message], time_ns: int | None) -> list[Frame]:
    """One frame a message with its own time, or all at one time."""
    if time_ns is not None:
        lens = [len(message.header) for message in messages]
        payloads = [message.header + message.data for message in messages]
        return encode_frames(Columns([message.subject for message in messages], lens, payloads), time_ns, 40)
    frames: list[Frame] = []
    for message in messages:
        frames += encode_frames(
            Columns([message.subject], [len(message.header)], [message.header + message.data]), message.time_ns, 40
        )
    return frames


def copy(driver: Driver, messages: list[Message], origin_uid: int = ORIGIN) -> int:
    is_mirror = driver.config.mirror is not None
    key = MIRROR_KEY if is_mirror else source_key(SOURCE)
    time_ns = driver.stream.next_time_ns(driver.now_ns, len(messages))
    frames = frames_of(messages, None if is_mirror else time_ns)
    head = SourcedHead(key, origin_uid, [message.seq for message in messages])
    return driver.apply(entries.encode_sourced(time_ns, head, frames)).taken  # type: ignore[union-attr]


def stored(driver: Driver) -> list[Message]:
    return driver.stream.log.read_many(driver.seqs(), 1 << 30)


def origin_messages(count: int, gaps: set[int]) -> list[Message]:
    origin = Driver()
    for number in range(count):
        origin.now_ns += number * 1_000
        origin.put(f"s{number % 3}", str(number), K="v" if number % 2 else "w")
    for seq in gaps:
        origin.apply(entries.encode_delete(seq))
    return stored(origin)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 12),
    st.sets(st.integers(1, 11), max_size=4),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=6),
    st.booleans(),
)
def test_every_message_once(count: int, gaps: set[int], repeats: list[tuple[int, int]], is_mirror: bool) -> None:
    messages = origin_messages(count, {gap for gap in gaps if gap < count})
    driver = mirror() if is_mirror else sourcing()
    done = 0
    for start, length in [*repeats, (0, 0)]:
        if length and start < done:  # an entry of an earlier leader, applied late
            assert copy(driver, messages[start : start + length]) == 0
        chunk = messages[done : done + length] if length else messages[done:]
        if chunk:
            assert copy(driver, chunk) == len(chunk)
            done += len(chunk)
    if is_mirror:
        assert stored(driver) == messages
        assert driver.stream.contents.last_seq == messages[-1].seq
    else:
        assert [message[2:] for message in stored(driver)] == [message[2:] for message in messages]
    twin = mirror() if is_mirror else sourcing()
    for data in driver.log[1:]:
        twin.apply(data)
    assert twin.stream.logical_head() == driver.stream.logical_head()
    taken = driver.stream.checkpoint(driver.stream.applied_term)
    restored = Stream.restore(
        GroupUid(2), taken.head, taken.chunks, driver.stream.log, MemoryIndex(), driver.limits
    )  # fmt: skip
    assert restored.origins == driver.stream.origins != {}


def test_a_full_stream_takes_the_rest_later() -> None:
    messages = origin_messages(5, set())
    driver = sourcing(discard="new", max_msgs=3)
    assert copy(driver, messages) == 3
    assert copy(driver, messages[3:]) == 0
    driver.apply(entries.encode_delete(1))
    assert copy(driver, messages[3:]) == 1
    assert driver.stream.origins == {source_key(SOURCE): (ORIGIN, 4)}


def test_ids_and_times_to_live_mean_what_they_do_in_publishes() -> None:
    block = header_block({"Nats-Msg-Id": "i", "Nats-TTL": "5s"})
    twice = [Message(seq, seq, b"a", block, b"") for seq in (1, 2)]
    driver = sourcing(duplicate_window=10_000_000_000, allow_msg_ttl=True)
    assert (copy(driver, twice), driver.seqs(), len(driver.stream.ttls)) == (2, [1], 1)
    driver = sourcing()
    assert (copy(driver, twice), driver.seqs(), len(driver.stream.ttls)) == (2, [1, 2], 0)
    driver = mirror(allow_msg_ttl=True)
    assert (copy(driver, twice), len(driver.stream.ttls)) == (2, 2)


def test_what_is_no_origin_any_more_brings_nothing() -> None:
    messages = origin_messages(3, set())
    driver = sourcing()
    assert copy(driver, messages[:1]) == 1
    assert copy(driver, messages[:1], origin_uid=ORIGIN + 1) == 1  # made anew: from its start
    driver.configure(sources=())
    assert driver.stream.origins == {}
    assert copy(driver, messages[1:]) == 0
    driver = sourcing()
    driver.configure(sealed=True)
    assert copy(driver, messages) == 0
