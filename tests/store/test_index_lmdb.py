"""The LMDB environment itself: another process writes, the map grows, files vanish, shrink or rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deep import IS_DEEP

from jetstore.errors import DiskFull, IndexDoubt
from jetstore.store.index import IndexWriter, LmdbIndexes
from jetstore.store.index_layers import IndexParts, LayeredIndex
from jetstore.store.ports import IndexRow
from jetstore.stream.subjects import Filter

WRITER = """
import sys, pickle
from jetstore.store.index import IndexWriter
writer = IndexWriter(sys.argv[1], 1 << 17)
while True:
    try:
        args = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        writer.commands()[args[0]](*args[1:])
        answer = b"ok"
    except Exception as error:
        answer = repr(error).encode()
    sys.stdout.buffer.write(answer + b"\\n")
    sys.stdout.buffer.flush()
writer.close()
"""


class NoLog:
    """Must not be asked; with rows: may be."""

    def __init__(self, rows: dict[bytes, IndexRow] | None = None) -> None:
        self.rows = rows

    def index_rows(self) -> dict[bytes, IndexRow]:
        assert self.rows is not None, "a rebuild was not expected"
        return dict(self.rows)


class OtherProcess:
    """An ``IndexWriter`` in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> OtherProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self.process.stdout.close()

    def call(self, *args: Any) -> bytes:
        import pickle

        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump(args, self.process.stdin)
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def rows_of(count: int, step: int = 1) -> dict[bytes, IndexRow]:
    return {b"kv.%06d" % i: IndexRow(i + 1, i + step, step, 7) for i in range(count)}


def put(index: LayeredIndex, rows: dict[bytes, IndexRow]) -> None:
    for subject, row in rows.items():
        index.put(subject, row)


def commit(index: LayeredIndex, writer: IndexWriter) -> IndexParts:
    parts = index.capture()
    args = index.commit_args()
    assert args is not None
    writer.commit(*args)
    index.committed()
    return parts


def test_another_process_writes_and_the_map_grows(tmp_path: Path) -> None:
    indexes = LmdbIndexes(str(tmp_path))
    index = indexes.open(7, None, {}, NoLog())
    with OtherProcess(tmp_path) as writer:
        model: dict[bytes, IndexRow] = {}
        for count, step in ((10, 1), (3_000, 2), (3_000, 3), (20_000, 4)):
            put(index, rows_of(count, step))
            model |= rows_of(count, step)
            parts = index.capture()
            args = index.commit_args()
            assert args is not None
            assert writer.call("index_commit", *args) == b"ok"
            index.committed()
            assert index.changed_rows == 0
            assert index.get_many(list(model)) == list(model.values())
            assert index.get(b"nothing") is None
            assert index.matching(Filter([b"kv.>"]), max_count=3) == list(model.items())[:3]
        again = indexes.open(7, json.loads(json.dumps(parts.head)), parts.chunks, NoLog())
        assert len(again) == len(model)
        assert again.matching(None) == list(model.items())
        assert writer.call("index_drop", 7) == b"ok"
    indexes.close()
    assert indexes.findings == []


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, IndexParts, dict[bytes, IndexRow]]:
    """A store with one committed index; nothing has it open. Its checkpoint has no chunk to fall back to."""
    indexes, writer = LmdbIndexes(str(tmp_path)), IndexWriter(str(tmp_path))
    index = indexes.open(7, None, {}, NoLog())
    rows = rows_of(500)
    put(index, rows)
    commit(index, writer)
    parts = index.capture()
    assert parts.head["chunk"] == ""
    indexes.close()
    writer.close()
    return tmp_path, parts, rows


def open_again(root: Path, parts: IndexParts, rows: dict[bytes, IndexRow] | None) -> tuple[LayeredIndex, LmdbIndexes]:
    indexes = LmdbIndexes(str(root))
    return indexes.open(7, parts.head, {}, NoLog(rows)), indexes


def test_found_as_left(stored: tuple[Path, IndexParts, dict[bytes, IndexRow]]) -> None:
    root, parts, rows = stored
    index, indexes = open_again(root, parts, None)
    assert index.matching(None) == list(rows.items())
    indexes.close()


@pytest.mark.parametrize("damage", ["gone", "empty", "not lmdb", "short", "no lock file", "crashed on it"])
def test_files_that_are_not_there_or_not_lmdb(
    stored: tuple[Path, IndexParts, dict[bytes, IndexRow]], damage: str
) -> None:
    root, parts, rows = stored
    data = root / "index" / "data.mdb"
    match damage:
        case "gone":
            data.unlink()
        case "empty":
            data.write_bytes(b"")
        case "not lmdb":
            data.write_bytes(b"x" * 100_000)
        case "short":
            os.truncate(data, data.stat().st_size // 2)
        case "no lock file":
            (root / "index" / "lock.mdb").unlink()
        case "crashed on it":
            (root / "index" / "OPENING").touch()
    index, indexes = open_again(root, parts, rows)
    assert index.matching(None) == list(rows.items())
    assert bool(indexes.findings) == (damage != "no lock file")
    writer = IndexWriter(str(root))
    index.put(b"new", IndexRow(1, 1, 1, 1))
    parts = commit(index, writer)
    writer.close()
    indexes.close()
    index, indexes = open_again(root, parts, None)
    assert len(index) == len(rows) + 1
    indexes.close()


def test_the_writer_refuses_what_does_not_fit(stored: tuple[Path, IndexParts, dict[bytes, IndexRow]]) -> None:
    """The environment is lost while the server runs: a commit of changes is refused, one of everything is not."""
    root, parts, rows = stored
    index, indexes = open_again(root, parts, None)
    indexes.close()
    (root / "index" / "data.mdb").unlink()
    (root / "index" / "lock.mdb").unlink()
    writer = IndexWriter(str(root))
    index.put(b"new", IndexRow(1, 1, 1, 1))
    index.capture()
    args = index.commit_args()
    assert args is not None
    with pytest.raises(IndexDoubt, match="at stamp 0"):
        writer.commit(*args)
    with pytest.raises(IndexDoubt):
        index.get(b"kv.000001")
    index.rebuild(rows)
    commit(index, writer)
    assert index.get(b"kv.000001") == rows[b"kv.000001"]
    writer.close()


def test_a_full_disk_changes_nothing(
    stored: tuple[Path, IndexParts, dict[bytes, IndexRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, parts, rows = stored
    index, indexes = open_again(root, parts, None)
    writer = IndexWriter(str(root))
    index.put(b"new", IndexRow(1, 1, 1, 1))
    index.capture()
    args = index.commit_args()
    assert args is not None
    import lmdb

    def full(txn: object, prefix: bytes, **_: object) -> None:
        raise lmdb.Error("mdb_txn_commit: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jetstore.store.index.parse_stamp", full)
        with pytest.raises(DiskFull):
            writer.commit(*args)
    assert index.get(b"new") == IndexRow(1, 1, 1, 1)
    assert len(index.matching(None)) == len(rows) + 1
    writer.commit(*args)
    index.committed()
    assert index.get(b"new") == IndexRow(1, 1, 1, 1)
    writer.close()
    indexes.close()


FLIPPED = """
import sys, json
from jetstore.store.index import LmdbIndexes
from jetstore.store.ports import IndexRow
root, head = sys.argv[1], json.loads(sys.argv[2])
rows = {b"kv.%06d" % i: IndexRow(i + 1, i + 1, 1, 7) for i in range(500)}
data = root + "/index/data.mdb"
whole = open(data, "rb").read()
class Log:
    def index_rows(self): return dict(rows)
for at in range(int(sys.argv[3]), len(whole), int(sys.argv[4])):
    open(data, "wb").write(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1:])
    print(at, flush=True)
    indexes = LmdbIndexes(root)
    index = indexes.open(7, head, {}, Log())
    assert index.matching(None) == list(rows.items()), at
    assert index.get_many(list(rows)) == list(rows.values()), at
    indexes.close()
    open(data, "wb").write(whole)
print("done")
"""


@pytest.mark.timeout(3600 if IS_DEEP else 120)
def test_flipped_bytes_give_right_rows(
    stored: tuple[Path, IndexParts, dict[bytes, IndexRow]], record_property: Callable[[str, object], None]
) -> None:
    """In a process of its own: LMDB itself may crash on a damaged page, and then the answer was not wrong either."""
    root, parts, _ = stored
    start, crashes = 0, []
    step = 1 if IS_DEEP else 97
    while True:
        done = subprocess.run(
            [sys.executable, "-c", FLIPPED, str(root), json.dumps(parts.head), str(start), str(step)],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.split()
        if done.returncode == 0:
            assert lines[-1] == "done"
            break
        assert done.returncode < 0, done.stderr
        crashes.append(int(lines[-1]))
        start = crashes[-1] + step
        original = (root / "index" / "data.mdb").read_bytes()
        at = crashes[-1]
        (root / "index" / "data.mdb").write_bytes(original[:at] + bytes([original[at] ^ 0x10]) + original[at + 1 :])
    size = (root / "index" / "data.mdb").stat().st_size
    print(f"{len(crashes)} crashes of LMDB")
    record_property("cases", size // step)
