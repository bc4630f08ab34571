"""Message schedules: what fires when, what ends them, and that they live in checkpoints."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stream_driver import SECOND, Driver

from jetstore.store.memory_index import MemoryIndex
from jetstore.stream import entries
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid


def rig(**config: Any) -> Driver:
    return Driver(subjects=(">",), **({"allow_msg_schedules": True, "allow_rollup_hdrs": True} | config))


def schedule(driver: Driver, pattern: str, subject: str = "s", target: str = "t", body: str = "b", **more: str) -> Any:
    return driver.put(subject, body, Nats_Schedule=pattern, Nats_Schedule_Target=target, **more)


def expire(driver: Driver, seconds: float) -> Any:
    driver.now_ns += int(seconds * SECOND)
    return driver.apply(entries.encode_expire(driver.now_ns))


def last(driver: Driver, subject: str) -> Any:
    contents = driver.stream.contents
    return contents.read(contents.last_seq_of(subject.encode()))


def test_a_schedule_fires_once_and_is_gone() -> None:
    driver = rig()
    assert schedule(driver, "@at 2023-11-14T22:13:25Z", K="v", Nats_Msg_Id="i") == 1
    assert expire(driver, 4).fired == 0
    outcome = expire(driver, 2)
    assert (outcome.fired, driver.subjects()) == (1, ["t"])
    assert last(driver, "t").header == b"NATS/1.0\r\nK: v\r\nNats-Scheduler: s\r\nNats-Schedule-Next: purge\r\n\r\n"
    assert expire(driver, 60).fired == 0
    assert driver.stream.next_expiry_ns() is None


def test_missed_runs_become_one() -> None:
    driver = rig(allow_msg_ttl=True)
    schedule(driver, "@every 2s", Nats_Schedule_TTL="5s", Nats_Schedule_Rollup="sub")
    assert expire(driver, 11).fired == 1
    assert b"Nats-Schedule-Next: 2023-11-14T22:13:33Z\r\nNats-TTL: 5s\r\nNats-Rollup: sub" in last(driver, "t").header
    assert expire(driver, 2).fired == 1
    assert driver.subjects() == ["s", "t"]
    driver.apply(entries.encode_delete(1))
    outcome = expire(driver, 9)
    assert (outcome.fired, outcome.removed, driver.subjects()) == (0, 1, [])


def test_whatever_follows_on_its_subject_ends_a_schedule() -> None:
    driver = rig()
    schedule(driver, "@every 1s")
    schedule(driver, "@every 5s", body="new")
    assert driver.seqs() == [2]  # a schedule rolls its subject up
    driver.put("s", "plain")
    assert expire(driver, 60).fired == 0
    schedule(driver, "@every 1s", subject="u")
    assert driver.put("v", Nats_Schedule_Next="purge", Nats_Scheduler="u") == 5
    assert driver.put("v", Nats_Schedule_Next="purge", Nats_Scheduler="s").err_code == 10212
    assert expire(driver, 60).fired == 0
    assert driver.subjects() == ["s", "s", "v"]


def test_a_source_gives_the_body() -> None:
    driver = rig()
    schedule(driver, "@every 1s", Nats_Schedule_Source="src")
    assert expire(driver, 1).fired == 1
    assert last(driver, "t").data == b"b"
    driver.put("src", "sampled", K="v", Nats_TTL="")
    expire(driver, 1)
    assert last(driver, "t").data == b"sampled"
    assert last(driver, "t").header.startswith(b"NATS/1.0\r\nK: v\r\nNats-Scheduler: s\r\n")


def test_a_sealed_stream_fires_nothing_and_does_not_ask_for_it() -> None:
    driver = rig()
    schedule(driver, "@every 1s")
    driver.configure(sealed=True)
    assert driver.stream.next_expiry_ns() is None
    assert expire(driver, 5).fired == 0


PATTERN = st.sampled_from(["@every 1s", "@every 7s", "@at 2023-11-14T22:13:30Z", "* * * * * *", "0 * * * * *"])
STEP = st.one_of(
    st.tuples(st.just("schedule"), st.sampled_from("abc"), PATTERN),
    st.tuples(st.just("plain"), st.sampled_from("abct"), st.just("")),
    st.tuples(st.just("expire"), st.integers(0, 20), st.just("")),
    st.tuples(st.just("delete"), st.integers(1, 12), st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=12), st.sampled_from([0, 3]), st.sampled_from(["limits", "interest"]))
def test_replays_and_checkpoints_agree(steps: list[tuple[str, Any, str]], max_msgs: int, retention: str) -> None:
    driver = rig(max_msgs=max_msgs, retention=retention)
    due: dict[str, int] = {}
    """Subject → sequence of the schedule that counts, of a stream without limits."""
    for kind, what, pattern in steps:
        if kind == "schedule":
            due[what] = schedule(driver, pattern, subject=what)
        elif kind == "plain":
            driver.put(what)
            due.pop(what, None)
        elif kind == "expire":
            outcome = expire(driver, what)
            assert outcome.fired <= len(due)
            assert outcome.is_complete
        else:
            driver.apply(entries.encode_delete(what))
    stream = driver.stream
    for seq, _ in stream.schedules.to_rows():
        assert stream.contents.is_live(seq)
    twin = rig(max_msgs=max_msgs, retention=retention)
    for data in driver.log[1:]:
        twin.apply(data)
    assert twin.stream.logical_head() == stream.logical_head()
    taken = stream.checkpoint(stream.applied_term)
    restored = Stream.restore(GroupUid(2), taken.head, taken.chunks, stream.log, MemoryIndex(), driver.limits)
    assert restored.logical_head() == stream.logical_head()
    assert restored.schedules.next_ns() == stream.schedules.next_ns()
