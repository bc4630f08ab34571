"""The running hash: equal histories give equal numbers, any difference another one; what is remembered is bounded."""

from __future__ import annotations

from jetstore.store.running_hash import RECENT, RunningHash


def run(entries: list[tuple[int, bytes]], start: RunningHash | None = None) -> RunningHash:
    running = start or RunningHash()
    for index, (term, data) in enumerate(entries, running.index + 1):
        running.take(index, term, data)
    return running


HISTORY = [(1, b""), (1, b"a"), (1, b"b" * 1000), (2, b""), (2, b"a")]


def test_every_difference_shows() -> None:
    known = run(HISTORY).value
    assert run(HISTORY).value == known
    assert run(HISTORY).at(5) == known
    others = [
        HISTORY[:-1],
        HISTORY[1:],
        [*HISTORY, (2, b"")],
        [(1, b"a"), (1, b""), *HISTORY[2:]],
        [*HISTORY[:-1], (3, b"a")],
        [*HISTORY[:-1], (2, b"A")],
    ]
    values = {known, *(run(other).value for other in others)}
    assert len(values) == len(others) + 1


def test_a_checkpoint_in_between_changes_nothing() -> None:
    first = run(HISTORY[:2])
    restored = RunningHash(first.index, first.value)
    assert run(HISTORY[2:], restored).value == run(HISTORY).value
    assert restored.at(1) is None
    assert [restored.at(index) for index in (2, 3, 4, 5)] == [run(HISTORY).at(index) for index in (2, 3, 4, 5)]
    assert restored.at(6) is None


def test_what_is_remembered_is_bounded() -> None:
    running = run([(1, b"%d" % n) for n in range(3 * RECENT)])
    assert running.at(2 * RECENT) is None
    whole = [running.at(index) for index in range(2 * RECENT + 1, 3 * RECENT + 1)]
    assert None not in whole
    assert len(set(whole)) == RECENT
    assert whole[-1] == running.value


def test_the_number_never_changes_its_meaning() -> None:
    assert f"{run(HISTORY).value:016x}" == "ad093cd4257c6392"
