"""Message ids alone: the window is exact, forgetting is in bulk, chunks bring everything back."""

from __future__ import annotations

from random import Random

from jetstore.stream.dedupe import BUCKETS_PER_WINDOW, Dedupe

WINDOW = 6_400


def test_agrees_with_a_plain_table() -> None:
    for seed in range(30):
        dice = Random(seed)
        dedupe = Dedupe(WINDOW)
        table: dict[bytes, tuple[int, int]] = {}
        seq, now = 0, 10**6
        for _ in range(300):
            now += dice.choice([0, 1, 37, 200, WINDOW // 2])
            dedupe.forget(now)
            ids = [b"%d" % dice.randrange(40) for _ in range(dice.choice([1, 3]))]
            fresh, seqs = [], []
            for msg_id in ids:
                known = table.get(msg_id)
                expected = known[0] if known and now - known[1] < WINDOW else 0
                if msg_id in fresh:
                    continue
                assert dedupe.find(msg_id, now) == expected
                assert not expected or dedupe.has_any([msg_id])
                if not expected:
                    seq += dice.choice([1, 2])
                    fresh.append(msg_id)
                    seqs.append(seq)
            dedupe.add(fresh, seqs, now)
            table.update({msg_id: (at, now) for msg_id, at in zip(fresh, seqs, strict=True)})
            assert len(dedupe.to_head()) <= BUCKETS_PER_WINDOW + 2
            if dice.random() < 0.1:
                head, chunks = dedupe.to_head(), dedupe.chunks()
                dedupe = Dedupe.from_head(WINDOW, head, dedupe.next_number, chunks)
                assert (dedupe.to_head(), dedupe.chunks()) == (head, chunks)


def test_has_any_sees_ids_given_twice() -> None:
    dedupe = Dedupe(WINDOW)
    assert dedupe.has_any([b"a", b"a"])
    assert not dedupe.has_any([b"a", b"b"])


def test_without_a_window_nothing_is_remembered() -> None:
    dedupe = Dedupe(0)
    dedupe.add([b"a"], [1], 5)
    assert len(dedupe) == 0


def test_memory_is_given_back() -> None:
    dedupe = Dedupe(WINDOW)
    for i in range(1_000):
        dedupe.add([b"%d" % i], [i + 1], i * 100)
        dedupe.forget(i * 100)
    assert len(dedupe) <= 64 + 2
    dedupe.forget(10**9)
    assert len(dedupe) == 0
    assert dedupe.to_head() == []
