"""Goal: an index that doubts itself, at whatever moment, changes nothing: same outcomes, same logical head.

Method: the dense scripts are recorded once; their entries are applied again over an index that refuses its n-th lookup
and forgets every row, for every n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest
from deep import IS_DEEP
from stream_driver import SECOND, Driver
from stream_model import StreamModel
from test_stream_against_model import comparable, dense_config, dense_step, run_step

from jetstore.errors import IndexDoubt
from jetstore.limits import Limits
from jetstore.model.requests import MessageGet, StreamInfoRequest
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.memory_log import MemoryLog
from jetstore.store.ports import IndexRow, SubjectFilter
from jetstore.stream.logical import logical_head
from jetstore.stream.stream import Stream
from jetstore.types import GroupUid, RaftIndex, Term

SCRIPTS = 30 if IS_DEEP else 4


class DoubtingIndex(MemoryIndex):
    """Refuses its n-th lookup (and every k-th after it), and has wrong rows from then on until it is rebuilt."""

    def __init__(self, refused: int, every: int = 0) -> None:
        super().__init__()
        self.refused, self.every = refused, every
        self.lookups = 0
        self.is_broken = False

    def _ask(self) -> None:
        self.lookups += 1
        if self.lookups == self.refused or (self.every and self.lookups % self.every == 0):
            self.is_broken = True
            super().__init__({b"nonsense": IndexRow(1, 1, 77, 1)})
        if self.is_broken:
            raise IndexDoubt(f"lookup {self.lookups}")

    def rebuild(self, rows: Mapping[bytes, IndexRow]) -> None:
        super().__init__(dict(rows))
        self.is_broken = False

    def get(self, subject: bytes) -> IndexRow | None:
        self._ask()
        return super().get(subject)

    def get_many(self, subjects: Sequence[bytes]) -> list[IndexRow | None]:
        self._ask()
        return super().get_many(subjects)

    def matching(
        self, subject_filter: SubjectFilter | None, after: bytes = b"", max_count: int = 0
    ) -> list[tuple[bytes, IndexRow]]:
        self._ask()
        return super().matching(subject_filter, after, max_count)


def recorded(seed: int) -> tuple[str, list[bytes]]:
    """A dense script's storage and entries."""
    dice = Random(7_000 + seed)
    config: dict[str, Any] = dense_config(dice)
    storage = config.pop("storage", "file")
    config.setdefault("duplicate_window", 120 * SECOND)
    driver = Driver(storage=storage, **config)
    model = StreamModel(config | {"storage": storage})
    for _ in range(40):
        step = dense_step(dice)
        if step[0] != "restart":
            run_step(driver, model, step, False)
    return storage, driver.log


def replay(storage: str, log: list[bytes], index: MemoryIndex) -> tuple[list[Any], bytes, Stream]:
    stream = Stream(GroupUid(2), MemoryLog(storage), index, Limits())
    outcomes = [comparable(stream.apply(RaftIndex(at), Term(1), data)) for at, data in enumerate(log, 1)]
    return outcomes, logical_head(stream), stream


@pytest.mark.parametrize("seed", range(SCRIPTS))
def test_a_doubt_at_any_lookup_changes_nothing(seed: int) -> None:
    storage, log = recorded(seed)
    counting = DoubtingIndex(0)
    outcomes, head, _ = replay(storage, log, counting)
    assert (outcomes, head) == replay(storage, log, MemoryIndex())[:2]
    assert counting.lookups > 20
    for refused in range(1, counting.lookups + 1):
        index = DoubtingIndex(refused)
        doubted, doubted_head, stream = replay(storage, log, index)
        assert doubted == outcomes, refused
        assert doubted_head == head, refused
        assert len(stream.contents.doubts) == 1
        check_rows(stream)


def test_a_doubt_again_and_again() -> None:
    for seed in range(SCRIPTS):
        storage, log = recorded(seed)
        outcomes, head, _ = replay(storage, log, MemoryIndex())
        for every in (2, 3, 7):
            doubted, doubted_head, stream = replay(storage, log, DoubtingIndex(0, every))
            assert (doubted, doubted_head) == (outcomes, head), (seed, every)
            check_rows(stream)


def check_rows(stream: Stream) -> None:
    """The index says what the log says; ``first`` may be lower."""
    index = stream.index
    assert isinstance(index, DoubtingIndex)
    index.refused = index.every = 0
    expected = MemoryIndex(stream.log.index_rows()).matching(None)  # type: ignore[attr-defined]  # MemoryLog
    found = index.matching(None)
    assert [(subject, row[1:]) for subject, row in found] == [(subject, row[1:]) for subject, row in expected]
    assert all(row.first <= exact.first for (_, row), (_, exact) in zip(found, expected, strict=True))


def test_reads_heal_too() -> None:
    driver = Driver()
    for number in range(6):
        driver.put(f"a.{number % 2}", str(number))
    for read in (
        lambda stream: stream.get_message(MessageGet(last_by_subj="a.1")),
        lambda stream: stream.get_batch(MessageGet(multi_last=("a.>",))),
        lambda stream: stream.info(StreamInfoRequest(subjects_filter="a.>")),
    ):
        _, _, stream = replay("file", driver.log, DoubtingIndex(0))
        index = stream.index
        assert isinstance(index, DoubtingIndex)
        expected = read(stream)
        index.refused = index.lookups + 1
        assert read(stream) == expected
        assert len(stream.contents.doubts) == 1


def test_a_doubt_that_cannot_be_healed_is_not_swallowed() -> None:
    class Stubborn(DoubtingIndex):
        def rebuild(self, rows: Mapping[bytes, IndexRow]) -> None:
            """Stays broken."""

    driver = Driver()
    driver.put("a", "1")
    _, _, stream = replay("file", driver.log, Stubborn(0))
    index = stream.index
    assert isinstance(index, Stubborn)
    index.refused = index.lookups + 1
    with pytest.raises(IndexDoubt):
        stream.get_message(MessageGet(last_by_subj="a"))
