"""The twins themselves: small known histories, so that what other tests compare against is known to be right."""

from __future__ import annotations

from jetstore.hot.columns import Columns
from jetstore.hot.frame import encode_columns
from jetstore.store.memory_index import MemoryIndex
from jetstore.store.memory_log import MemoryLog
from jetstore.store.ports import IndexRow, Message, MessageLog, MessageMeta, SubjectIndex
from jetstore.stream.subjects import Filter


def log_of_six() -> MemoryLog:
    """1 a, 2 b, 3 a, gap 4..6, 7 c (with a header), 8 a, 9 b."""
    log = MemoryLog()
    log.append(1, encode_columns(Columns([b"a", b"b", b"a"], (), [b"1", b"22", b"333"]), 100))
    log.append(7, encode_columns(Columns([b"c", b"a", b"b"], (2, 0, 0), [b"HHx", b"8", b"9"]), 200))
    return log


def test_log_answers() -> None:
    log: MessageLog = log_of_six()
    assert (log.first_seq, log.last_seq, log.deleted_count(), log.deleted_seqs(9)) == (1, 9, 3, [4, 5, 6])
    assert log.next_seqs(2, None, 3) == [2, 3, 7]
    assert log.next_seqs(2, Filter([b"a", b"c"]), 9) == [3, 7, 8]
    assert log.next_seqs(1, Filter([b"*"]), 9) == [1, 2, 3, 7, 8, 9]
    assert log.previous_seq(8, Filter([b"a"])) == 3
    assert log.previous_seq(1, None) == 0
    assert log.read(7) == Message(7, 200, b"c", b"HH", b"x")
    assert log.meta(7) == MessageMeta(7, 200, b"c", 22 + 1 + (4 + 2) + 1 + 8)
    assert [log.seq_at_time(t) for t in (0, 101, 150, 202, 203)] == [1, 2, 7, 9, 10]
    assert [m.seq for m in log.read_many([1, 2, 4, 7, 8], 4)] == [1, 2]


def test_log_removals() -> None:
    log = log_of_six()
    removed = log.remove(1)
    assert removed is not None
    assert removed.subject == b"a"
    assert log.remove(1) is None
    assert log.first_seq == 2
    assert log.remove_range(2, 8) == ([b"b", b"a", b"c", b"a"], [33, 34, 38, 32])
    assert (log.first_seq, log.last_seq, log.deleted_count()) == (9, 9, 0)
    log.remove(9)
    assert (log.first_seq, log.last_seq, log.deleted_count(), log.deleted_seqs(5)) == (10, 9, 0, [])
    log.skip_to(12)
    assert (log.first_seq, log.last_seq) == (13, 12)


def test_memory_storage_sizes() -> None:
    log = MemoryLog("memory")
    log.append(5, encode_columns(Columns([b"abc"], (2,), [b"HHdata"]), 1))
    meta = log.meta(5)
    assert meta is not None
    assert meta.size_bytes == 3 + 2 + 4 + 16
    assert log.first_seq == 5


def test_index_answers() -> None:
    index: SubjectIndex = MemoryIndex()
    for position, subject in enumerate([b"a.x", b"a.y", b"b", b"a.x.z", b"aa"]):
        index.put(subject, IndexRow(position, position, 1, 10))
    subjects = [s for s, _ in index.matching(None)]
    assert subjects == [b"a.x", b"a.x.z", b"a.y", b"aa", b"b"]
    assert [s for s, _ in index.matching(Filter([b"a.*"]))] == [b"a.x", b"a.y"]
    assert [s for s, _ in index.matching(Filter([b"a.>", b"b"]), after=b"a.x")] == [b"a.x.z", b"a.y", b"b"]
    assert [s for s, _ in index.matching(Filter([b"b", b"aa", b"zz"]))] == [b"aa", b"b"]
    assert [s for s, _ in index.matching(Filter([b">"]), max_count=2)] == [b"a.x", b"a.x.z"]
    index.delete(b"a.x")
    index.delete(b"nothing")
    index.put(b"a.a", IndexRow(9, 9, 1, 1))
    assert [s for s, _ in index.matching(Filter([b"*.*"]))] == [b"a.a", b"a.y"]
    index.put(b"a.x", IndexRow(10, 10, 1, 1))
    assert [s for s, _ in index.matching(Filter([b"*.*"]))] == [b"a.a", b"a.x", b"a.y"]
    assert (len(index), index.get(b"a.x"), index.get(b"q")) == (6, IndexRow(10, 10, 1, 1), None)
    assert index.get_many([b"b", b"q"]) == [IndexRow(2, 2, 1, 10), None]
