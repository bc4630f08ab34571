"""Random consumers on interest, work-queue and limits streams against a dumb bookkeeping of who still needs what.

A twin gets the same entries as bytes and is restored from checkpoints in between: heads stay equal, consumers included.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from deep import IS_DEEP
from stream_driver import SECOND, Driver
from stream_model import match
from test_retention import ack, consume, deliver
from test_stream_against_model import Twin

from jetstore.consumer.entries import AckOp, encode_delete
from jetstore.model.requests import PurgeRequest
from jetstore.stream import entries
from jetstore.stream.logical import logical_head
from jetstore.types import RaftIndex, Term

SEEDS = 400 if IS_DEEP else 40
SUBJECTS = ["a", "b", "c.x", "c.y"]
FILTERS: list[tuple[str, ...]] = [(), ("a",), ("b",), ("c.*",), ("a", "c.x"), (">",)]


class Needs:
    """Live messages, each with the names of the consumers that still need it."""

    def __init__(self, retention: str, max_msgs: int) -> None:
        self.retention = retention
        self.max_msgs = max_msgs
        self.last_seq = 0
        self.messages: dict[int, dict[str, Any]] = {}
        self.filters: dict[str, tuple[str, ...]] = {}
        self.pending: dict[str, set[int]] = {}

    def wants(self, name: str, subject: str) -> bool:
        return not self.filters[name] or any(match(pattern, subject) for pattern in self.filters[name])

    def publish(self, subject: str) -> None:
        self.last_seq += 1
        needed = {name for name in self.filters if self.wants(name, subject)}
        if needed or self.retention != "interest":
            self.messages[self.last_seq] = {"subject": subject, "needed": needed}
        while len(self.messages) > self.max_msgs:
            self.remove(min(self.messages))

    def remove(self, seq: int) -> None:
        self.messages.pop(seq, None)
        for pending in self.pending.values():
            pending.discard(seq)

    def consume(self, name: str, filters: tuple[str, ...]) -> None:
        self.filters[name] = filters
        self.pending[name] = set()
        for message in self.messages.values():
            if self.wants(name, message["subject"]):
                message["needed"].add(name)

    def forget(self, name: str) -> None:
        del self.filters[name], self.pending[name]
        for seq, message in list(self.messages.items()):
            message["needed"].discard(name)
            if self.retention == "interest" and not message["needed"]:
                self.remove(seq)

    def deliver(self, name: str, count: int) -> list[int]:
        coming = [s for s, m in sorted(self.messages.items()) if name in m["needed"] and s not in self.pending[name]]
        self.pending[name].update(coming[:count])
        return coming[:count]

    def settle(self, name: str, seqs: list[int]) -> None:
        for seq in seqs:
            if seq not in self.pending[name]:
                continue
            self.pending[name].discard(seq)
            needed = self.messages[seq]["needed"]
            needed.discard(name)
            if self.retention == "workqueue" or (self.retention == "interest" and not needed):
                self.remove(seq)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_consumers_agree_with_the_bookkeeping(seed: int) -> None:
    dice = Random(seed)
    retention = dice.choice(["interest", "workqueue", "limits"])
    max_msgs = dice.choice([8, 1_000])
    driver = Driver(retention=retention, max_msgs=max_msgs)
    twin = Twin(driver)
    model = Needs(retention, max_msgs)
    for _ in range(80):
        before = len(driver.log)
        step(dice, driver, model)
        if len(driver.log) > before:
            follow(twin)
        if dice.random() < 0.1:
            twin.restart()
        check(driver, model)


def follow(twin: Twin) -> None:
    """Catch up; outcomes were compared by what the state says."""
    while twin.applied < len(twin.driver.log):
        twin.applied += 1
        twin.stream.apply(RaftIndex(twin.applied), Term(1), twin.driver.log[twin.applied - 1])
    assert logical_head(twin.stream) == logical_head(twin.driver.stream)


def step(dice: Random, driver: Driver, model: Needs) -> None:
    names = sorted(model.filters)
    kind = dice.choice(
        ["publish", "publish", "deliver", "deliver", "ack", "ack", "consume", "forget", "remove", "wait"]
    )
    if kind == "publish":
        subjects = dice.choices(SUBJECTS, k=dice.choice([1, 4, 9]))
        driver.publish(*subjects)
        for subject in subjects:
            model.publish(subject)
    elif kind == "consume" and len(names) < (3 if model.retention != "workqueue" else 1):
        name = f"c{len(driver.log)}"
        filters = dice.choice(FILTERS)
        consume(driver, name, *filters)
        model.consume(name, filters)
    elif kind == "forget" and names and dice.random() < 0.3:
        name = dice.choice(names)
        driver.apply(encode_delete(name, driver.now_ns))
        model.forget(name)
    elif kind == "deliver" and names:
        name = dice.choice(names)
        count = dice.choice([1, 3, 50])
        assert deliver(driver, name, count) == model.deliver(name, count)
    elif kind == "ack" and names:
        name = dice.choice(names)
        seqs = sorted({dice.randrange(1, driver.stream.contents.last_seq + 2) for _ in range(dice.choice([1, 4, 20]))})
        ack(driver, name, *seqs, op=dice.choice([AckOp.ACK, AckOp.ACK, AckOp.TERM]))
        model.settle(name, seqs)
    elif kind == "remove" and dice.random() < 0.4:
        if dice.random() < 0.5:
            seq = dice.randrange(1, driver.stream.contents.last_seq + 2)
            driver.apply(entries.encode_delete(seq))
            model.remove(seq)
        else:
            pattern = dice.choice(["a", "c.*", "", "b"])
            driver.apply(entries.encode_purge(PurgeRequest(filter=pattern)))
            for seq, message in list(model.messages.items()):
                if not pattern or match(pattern, message["subject"]):
                    model.remove(seq)
    elif kind == "wait":
        driver.now_ns += SECOND // 1000  # never so long that something is due again


def check(driver: Driver, model: Needs) -> None:
    assert driver.seqs() == sorted(model.messages)
    assert driver.stream.contents.last_seq == model.last_seq
    for name, consumer in driver.stream.consumers.items():
        counters = consumer.counters()
        coming = [s for s, m in model.messages.items() if name in m["needed"] and s not in model.pending[name]]
        assert counters.num_pending == len(coming)
        assert counters.num_ack_pending == len(model.pending[name])
        assert counters.ack_floor.stream_seq <= counters.delivered.stream_seq <= driver.stream.contents.last_seq
