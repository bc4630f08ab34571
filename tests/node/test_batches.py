"""Atomic batches while clients send them: what is kept, dropped, committed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from jetstore.errors import ApiError
from jetstore.limits import Limits
from jetstore.node.batches import IDLE_S, MESSAGES_MAX, OPEN_MAX, Batches
from jetstore.store.ports import Columns


class FakeLoop:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> None:
        self.timers.append((when_s, callback))

    def run_to(self, when_s: float) -> None:
        self.now_s = when_s
        due, self.timers = [t for t in self.timers if t[0] <= when_s], [t for t in self.timers if t[0] > when_s]
        for _, callback in due:
            callback()


class Rig:
    def __init__(self, max_msg_size: int = -1) -> None:
        self.loop = FakeLoop()
        self.committed: list[tuple[Columns, bytes, bytes]] = []
        self.abandoned: list[tuple[str, str]] = []
        group: Any = SimpleNamespace(
            loop=self.loop,
            limits=Limits(),
            stream=SimpleNamespace(settings=SimpleNamespace(max_msg_size_bytes=max_msg_size)),
        )
        self.batches = Batches(
            group, lambda *given: self.committed.append(given), lambda *given: self.abandoned.append(given)
        )

    def send(self, batch: str, number: int | str, commit: str = "", body: bytes = b"x") -> Any:
        """b"" kept, None committed, or the code of the refusal."""
        header = f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
        header += f"Nats-Batch-Commit: {commit}\r\n" if commit else ""
        answer = self.batches.take(b"s", b"r", header.encode() + b"\r\n", body)
        return answer.err_code if isinstance(answer, ApiError) else answer


def test_a_batch_is_handed_over_at_its_commit() -> None:
    rig = Rig()
    assert [rig.send("a", 1), rig.send("b", 1), rig.send("a", 2), rig.send("a", 3, "1")] == [b"", b"", b"", None]
    (columns, batch_id, reply) = rig.committed[0]
    assert (len(columns.payloads), batch_id, reply) == (3, b"a", b"r")
    assert rig.send("a", 4) == 10176


def test_the_end_of_a_batch_without_a_message_marks_the_one_before() -> None:
    rig = Rig()
    assert [rig.send("a", 1), rig.send("a", 2, "eob")] == [b"", None]
    (columns, _, _) = rig.committed[0]
    cut = columns.header_lens[0]
    assert columns.payloads[0][:cut].endswith(b"Nats-Batch-Sequence: 1\r\nNats-Batch-Commit: 1\r\n\r\n")
    assert columns.payloads[0][cut:] == b"x"
    assert rig.send("b", 1, "eob") == 10176


@pytest.mark.parametrize(
    ("number", "commit", "code"), [(3, "", 10176), (1, "", 10176), ("x", "", 10175), (2, "0", 10200)]
)
def test_a_wrong_member_ends_the_batch(number: int | str, commit: str, code: int) -> None:
    rig = Rig()
    rig.send("a", 1)
    assert rig.send("a", number, commit) == code
    assert rig.send("a", 2, "1") == 10176
    assert not rig.committed


def test_an_idle_batch_is_abandoned() -> None:
    rig = Rig()
    rig.send("a", 1)
    rig.loop.run_to(100 + IDLE_S / 2)
    rig.send("b", 1)
    rig.send("a", 2)
    rig.loop.run_to(100 + IDLE_S)
    assert rig.abandoned == []
    rig.loop.run_to(100 + IDLE_S * 1.5)
    assert sorted(rig.abandoned) == [("a", "timeout"), ("b", "timeout")]
    assert rig.send("a", 3, "1") == 10176
    assert rig.loop.timers == []


def test_batches_are_bounded() -> None:
    rig = Rig(max_msg_size=200)
    for number in range(OPEN_MAX):
        assert rig.send(f"b{number}", 1) == b""
    assert rig.send("more", 1) == 10210
    assert rig.send("b0", 2, body=b"x" * 200) == 10054
    for number in range(2, MESSAGES_MAX + 1):
        assert rig.send("b1", number, body=b"") == b""
    assert rig.send("b1", MESSAGES_MAX + 1) == 10199
    assert rig.abandoned == [("b0", "large"), ("b1", "large")]
    rig = Rig()
    big = b"x" * (Limits().entry_bytes_max // 2)
    assert [rig.send("a", 1, body=big), rig.send("a", 2, body=big)] == [b"", 10199]
    rig.send("c", 1)
    rig.batches.clear("unsupported")
    assert rig.abandoned == [("a", "large"), ("c", "unsupported")]
