"""Random configurations and operations: ``Stream`` and the dumb model agree on every outcome and on all contents.

Beside it a second stream gets the same entries as bytes only (no cached columns) and is checkpointed and restored at
random points: outcomes and logical heads stay equal.
"""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
from deep import IS_DEEP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_driver import SECOND, Driver, frames_of
from stream_model import StreamModel

from jetstore.errors import ApiError
from jetstore.limits import Limits
from jetstore.model.requests import PurgeRequest
from jetstore.stream import entries
from jetstore.stream.logical import logical_head
from jetstore.stream.outcomes import Duplicate
from jetstore.stream.stream import Stream
from jetstore.types import RaftIndex, Term

EXAMPLES = 1_000 if IS_DEEP else 60
SEEDS = 1_000 if IS_DEEP else 80
SUBJECTS = ["a", "b", "c.x", "c.y", "d.e.f"]

maybe = st.sampled_from

configs = st.fixed_dictionaries(
    {},
    optional={
        "max_msgs": maybe([1, 2, 4, 7]),
        "max_bytes": maybe([60, 150, 400]),
        "max_msgs_per_subject": maybe([1, 2, 3]),
        "max_msg_size": maybe([2, 40, 200]),
        "max_age": maybe([SECOND, 5 * SECOND]),
        "discard": maybe(["old", "new"]),
        "discard_new_per_subject": st.booleans(),
        "allow_rollup_hdrs": st.booleans(),
        "allow_msg_ttl": st.booleans(),
        "duplicate_window": maybe([SECOND, 20 * SECOND]),
        "first_seq": maybe([0, 1, 10]),
        "storage": maybe(["file", "memory"]),
    },
)

numbers = st.integers(0, 12).map(str)
header_sets = st.one_of(
    st.just({}),
    st.just({}),
    st.just({"X": "y"}),
    st.fixed_dictionaries({"Nats-Msg-Id": maybe(["i", "j", "k"])}),
    st.fixed_dictionaries(
        {},
        optional={
            "Nats-Msg-Id": maybe(["i", "j", "k"]),
            "Nats-Expected-Last-Sequence": numbers,
            "Nats-Expected-Last-Subject-Sequence": numbers,
            "Nats-Expected-Last-Msg-Id": maybe(["i", "j"]),
            "Nats-TTL": maybe(["1", "3", "never"]),
            "Nats-Rollup": maybe(["sub", "all"]),
        },
    ),
    st.fixed_dictionaries(
        {"Nats-Expected-Last-Subject-Sequence": numbers,
         "Nats-Expected-Last-Subject-Sequence-Subject": maybe(["a", "c.*", ">", "z"])}
    ),
)  # fmt: skip
messages = st.tuples(maybe(SUBJECTS), header_sets, st.integers(0, 60).map("x".__mul__))
plain_messages = st.tuples(maybe(SUBJECTS), st.just({}), st.just("x"))
operations = st.one_of(
    st.tuples(st.just("publish"), st.lists(messages, min_size=1, max_size=12), maybe([40, 200, 32_768])),
    st.tuples(st.just("publish"), st.lists(plain_messages, min_size=1), st.just(9999)),
    st.tuples(st.just("delete"), st.integers(1, 40)),
    st.tuples(st.just("purge"), maybe(["", ">", "a", "c.*", "z"]), maybe([0, 0, 1, 2, 5, 20, 50]), st.just(0)),
    st.tuples(st.just("purge"), maybe(["", "a", "c.*"]), st.just(0), maybe([1, 2, 5])),
    st.tuples(st.just("wait"), maybe([1, SECOND // 2, SECOND, 3 * SECOND])),
    st.tuples(st.just("expire"), maybe([1, 3, 10_000])),
    st.tuples(st.just("limits"), maybe(["max_msgs", "max_bytes", "max_msgs_per_subject"]), maybe([-1, 1, 2, 5, 120])),
    st.tuples(st.just("restart")),
)  # fmt: skip


class Twin:
    """The same entries without cached columns, thrown away and restored from a checkpoint now and then."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.stream = copy.deepcopy(driver.stream)
        self.applied = len(driver.log)
        self.chunks: dict[str, bytes] = {}

    def follow(self, outcome: Any) -> None:
        while self.applied < len(self.driver.log):
            data = self.driver.log[self.applied]
            self.applied += 1
            mine = self.stream.apply(RaftIndex(self.applied), Term(1), data)
        assert comparable(mine) == comparable(outcome)
        assert logical_head(self.stream) == logical_head(self.driver.stream)

    def restart(self) -> None:
        done = self.stream.checkpoint(Term(1))
        self.chunks = {name: chunk for name, chunk in (self.chunks | done.chunks).items() if name in done.keep_chunks}
        assert self.chunks.keys() == done.keep_chunks
        self.stream.checkpointed(done)
        old = self.stream
        self.stream = Stream.restore(
            old.uid, done.head, self.chunks, copy.deepcopy(old.log), copy.deepcopy(old.index), old.limits
        )
        assert logical_head(self.stream) == logical_head(old)
        again = self.stream.checkpoint(Term(1))
        assert again.head == done.head
        assert not again.chunks


def comparable(outcome: Any) -> Any:
    if isinstance(outcome, ApiError):
        return (outcome.code, outcome.err_code, outcome.description)
    if hasattr(outcome, "exceptions"):
        exceptions = {k: comparable(v) for k, v in outcome.exceptions.items()}
        return (outcome.first_seq, outcome.count, exceptions)
    return outcome


def check_contents(driver: Driver, model: StreamModel) -> None:
    stream = driver.stream
    contents = stream.contents
    state = stream.state()
    assert (
        state.messages, state.bytes, state.first_seq, state.first_ts_ns, state.last_seq, state.num_subjects,
        state.num_deleted,
    ) == model.state()  # fmt: skip
    assert driver.seqs() == [m["seq"] for m in model.messages]
    for expected in model.messages:
        got = contents.read(expected["seq"])
        assert got is not None
        assert (got.subject.decode(), got.data.decode(), got.time_ns) == (
            expected["subject"], expected["body"], expected["time"],
        )  # fmt: skip
        assert got.header.count(b"\r\n") == (len(expected["headers"]) + 2 if expected["headers"] else 0)
    exact = stream.log.index_rows()  # type: ignore[attr-defined]  # the in-memory twin's own check
    for subject, row in exact.items():
        mine = contents.index.get(subject)
        assert mine is not None
        assert mine[1:] == row[1:], subject
        assert mine.first <= row.first
        assert row.messages > 1 or mine.first == row.first
    assert len(contents.index) == len(exact)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(config=configs, steps=st.lists(operations, max_size=30), cached=st.booleans())
def test_agrees_with_the_model(config: dict[str, Any], steps: list[tuple[Any, ...]], cached: bool) -> None:
    run(config, steps, cached)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_agrees_with_the_model_on_dense_scripts(seed: int) -> None:
    """The same with scripts in which features meet more often than hypothesis tries by itself."""
    dice = Random(seed)
    run(dense_config(dice), [dense_step(dice) for _ in range(60)], bool(seed % 2))


def run(config: dict[str, Any], steps: list[tuple[Any, ...]], cached: bool) -> None:
    fields = dict(config)
    storage = fields.pop("storage", "file")
    fields.setdefault("duplicate_window", 120 * SECOND)
    driver = Driver(limits=Limits(), storage=storage, **fields)
    model = StreamModel(fields | {"storage": storage})
    twin = Twin(driver)
    for step in steps:
        outcome = run_step(driver, model, step, cached)
        if step[0] == "restart":
            twin.restart()
        elif outcome is not None:
            twin.follow(outcome)
        check_contents(driver, model)


def dense_config(dice: Random) -> dict[str, Any]:
    """Two or three features at a time, tight."""
    choices: dict[str, list[Any]] = {
        "max_msgs": [2, 5, 9],
        "max_bytes": [150, 400],
        "max_msgs_per_subject": [1, 2, 3],
        "max_age": [SECOND, 4 * SECOND],
        "discard": ["new", "new", "old"],
        "duplicate_window": [SECOND, 3 * SECOND],
    }
    config: dict[str, Any] = {name: dice.choice(choices[name]) for name in dice.sample(sorted(choices), 3)}
    config["discard_new_per_subject"] = dice.random() < 0.3
    config["allow_msg_ttl"] = dice.random() < 0.6
    config["allow_rollup_hdrs"] = dice.random() < 0.6
    config["storage"] = dice.choice(["file", "file", "memory"])
    return config


def dense_step(dice: Random) -> tuple[Any, ...]:
    kind = dice.choices(["publish", "delete", "purge", "wait", "expire", "limits", "restart"], [12, 2, 1, 5, 4, 1, 2])[
        0
    ]
    if kind == "publish":
        batch = []
        for _ in range(dice.choice([1, 1, 3, 8])):
            headers = {}
            if dice.random() < 0.3:
                headers["Nats-Msg-Id"] = dice.choice("ijklm")
            if dice.random() < 0.08:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(dice.randrange(30))
            if dice.random() < 0.08:
                headers["Nats-Expected-Last-Subject-Sequence"] = "0"
            if dice.random() < 0.05:
                headers["Nats-Expected-Last-Msg-Id"] = dice.choice("ijklm")
            if dice.random() < 0.15:
                headers["Nats-TTL"] = dice.choice(["1", "2", "never"])
            if dice.random() < 0.04:
                headers["Nats-Rollup"] = dice.choice(["sub", "sub", "all"])
            batch.append((dice.choice(SUBJECTS[:4]), headers, "x" * dice.choice([0, 1, 10, 10, 50])))
        return (kind, batch, dice.choice([100, 32_768]))
    if kind == "delete":
        return (kind, dice.randrange(1, 60))
    if kind == "purge":
        seq, keep = dice.choice([(0, 0), (dice.randrange(60), 0), (0, dice.randrange(4))])
        return (kind, dice.choice(["", "a", "c.*"]), seq, keep)
    if kind == "wait":
        return (kind, dice.choice([SECOND // 2, SECOND, SECOND, 2 * SECOND]))
    if kind == "expire":
        return (kind, dice.choice([1, 2, 10_000]))
    if kind == "limits":
        return (kind, dice.choice(["max_msgs", "max_bytes", "max_msgs_per_subject"]), dice.choice([-1, 2, 5, 200]))
    return (kind,)


def run_step(driver: Driver, model: StreamModel, step: tuple[Any, ...], cached: bool) -> Any:
    what = step[0]
    if what == "publish":
        _, batch, frame_bytes = step
        time_ns = driver.stream.next_time_ns(driver.now_ns, len(batch))
        frames = frames_of(batch, time_ns, frame_bytes)
        outcome = driver.apply(entries.encode_publish(time_ns, frames), frames if cached else None)
        starts = [frame.base_time_ns for frame in frames for _ in range(frame.count)]
        accepted = 0
        for position, (subject, headers, body) in enumerate(batch):
            expected = model.publish(subject, headers, body, time_ns + position, starts[position])
            exception = outcome.exceptions.get(position)
            if exception is None:
                assert expected == outcome.first_seq + accepted
                accepted += 1
            elif isinstance(exception, Duplicate):
                assert expected == ("duplicate", exception.seq)
            else:
                assert expected == exception.description
        assert outcome.count == len(batch)
        retime(driver, model, outcome.first_seq)
        return outcome
    if what == "delete":
        outcome = driver.apply(entries.encode_delete(step[1]))
        assert model.delete(step[1]) is not isinstance(outcome, ApiError)
        return outcome
    if what == "purge":
        outcome = driver.apply(entries.encode_purge(PurgeRequest(step[1], step[2], step[3])))
        assert outcome.purged == model.purge(*step[1:])
        return outcome
    if what == "expire":
        due_ns = driver.stream.next_expiry_ns()
        removed = 0
        while True:
            outcome = driver.apply(entries.encode_expire(driver.now_ns, step[1]))
            removed += outcome.removed
            if outcome.is_complete:
                break
        assert removed == model.expire(driver.now_ns)
        assert not removed or (due_ns is not None and due_ns <= driver.now_ns)
        next_ns = driver.stream.next_expiry_ns()
        assert next_ns is None or next_ns > driver.now_ns
        return None
    if what == "limits":
        model.configure({step[1]: step[2]})
        return driver.configure(**{step[1]: step[2]})
    if what == "wait":
        driver.now_ns += step[1]
    return None


def retime(driver: Driver, model: StreamModel, first_seq: int) -> None:
    """Messages behind a refused neighbour may be up to some nanoseconds earlier than their place: take theirs."""
    for message in model.messages:
        if message["seq"] >= first_seq:
            meta = driver.stream.contents.meta(message["seq"])
            assert meta is not None, message["seq"]
            assert 0 <= message["time"] - meta.time_ns < 1000
            message["time"] = meta.time_ns
