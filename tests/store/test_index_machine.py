"""The subject index over LMDB and its durable twin against a dict, through captures, commits, failures and restarts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from typing import Any

from deep import IS_DEEP
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jepsen.sim.vfs import SimVfs
from jetstore.errors import IndexDoubt
from jetstore.store import memory_index
from jetstore.store.index import IndexWriter, LmdbIndexes
from jetstore.store.index_layers import index_chunk_names
from jetstore.store.memory_index import FileIndexes, FileIndexWriter, MemoryIndex
from jetstore.store.ports import IndexRow
from jetstore.stream.subjects import Filter

UID = 5
MEMORY_DIR = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Hundreds of commits, each with its syncs: on a real disk they would take minutes."""
LONG = b"long." + b"x" * 500
SUBJECTS = [b"a", b"ab", b"b.1", b"b.2", b"b.2.x", b"\xff\xff", b"c" * 450, b"c" * 451, b"c" * 452]
SUBJECTS += [LONG + b"1", LONG + b"0", LONG + b".y", LONG[:450]]
FILTERS = [
    None,
    Filter([b"a", b"b.2", b"nope"]),
    Filter([b"b.*"]),
    Filter([b"b.>", b"a", LONG + b"1"]),
    Filter([b"long.>"]),
    Filter([b"*"]),
]


class Rows:
    """Stands for the message log that an index is rebuilt from."""

    def __init__(self, rows: dict[bytes, IndexRow]) -> None:
        self.rows = rows
        self.asked = 0

    def index_rows(self) -> dict[bytes, IndexRow]:
        self.asked += 1
        return dict(self.rows)


class IndexMachine(RuleBasedStateMachine):
    """A crash goes back to the last durable checkpoint; the base may be at it, behind it, lost or wrong."""

    @initialize(kind=st.sampled_from(["lmdb", "twin"]), others=st.booleans())
    def start(self, kind: str, others: bool) -> None:
        self.kind = kind
        self.root = tempfile.mkdtemp(dir=MEMORY_DIR) if kind == "lmdb" else ""
        self.vfs = SimVfs()
        self.writer: IndexWriter | FileIndexWriter = (
            IndexWriter(self.root, 1 << 17) if kind == "lmdb" else FileIndexWriter(self.vfs)
        )
        self.indexes: LmdbIndexes | FileIndexes = self.opener()
        self.model: dict[bytes, IndexRow] = {}
        self.saved: tuple[dict[str, Any] | None, dict[str, bytes], dict[bytes, IndexRow]] = None, {}, {}
        if others:
            for uid in (UID - 1, UID + 1):
                other = self.indexes.open(uid, None, {}, Rows({}))
                other.put(b"a", IndexRow(uid, uid, 1, 1))
                other.capture()
                args = other.commit_args()
                assert args is not None
                self.writer.commit(*args)
        self.index = self.indexes.open(UID, None, {}, Rows({}))
        self.is_hurt = False
        """A fault was injected and no commit has replaced what it hit."""

    def opener(self) -> LmdbIndexes | FileIndexes:
        return LmdbIndexes(self.root) if self.kind == "lmdb" else FileIndexes(self.vfs)

    def teardown(self) -> None:
        if getattr(self, "kind", "") == "lmdb":
            self.indexes.close()
            self.writer.close()
            shutil.rmtree(self.root)

    @rule(subject=st.sampled_from(SUBJECTS), number=st.integers(1, 1 << 40))
    def put(self, subject: bytes, number: int) -> None:
        row = IndexRow(number, number + 5, number % 7 + 1, number % 1000)
        self.index.put(subject, row)
        self.model[subject] = row

    @rule(numbers=st.sets(st.integers(0, 500), max_size=200))
    def put_many(self, numbers: set[int]) -> None:
        for number in sorted(numbers):
            self.put(b"many.%d" % number, number + 1)

    @rule(subject=st.sampled_from(SUBJECTS))
    def delete(self, subject: bytes) -> None:
        self.index.delete(subject)
        self.model.pop(subject, None)

    @rule(part=st.integers(0, 3))
    def delete_some(self, part: int) -> None:
        for subject in [s for n, s in enumerate(sorted(self.model)) if n % 4 == part]:
            self.delete(subject)

    @rule(durable=st.booleans(), commits=st.sampled_from(["no", "done", "unheard"]), slice_rows=st.integers(1, 50))
    def checkpoint(self, durable: bool, commits: str, slice_rows: int) -> None:
        parts = self.index.capture()
        self.index.prepare(slice_rows)
        if not durable:
            return
        head = json.loads(json.dumps(parts.head))
        chunks = {name: self.saved[1].get(name, parts.chunks.get(name)) for name in index_chunk_names(head)}
        assert None not in chunks.values()
        assert parts.keep_chunks == chunks.keys()
        self.saved = head, chunks, dict(self.model)  # type: ignore[assignment]
        if commits == "no":
            return
        args = self.index.commit_args()
        if args is not None:
            self.writer.commit(*args)
            self.is_hurt = False
            if commits == "done":
                self.index.committed()

    @rule()
    def late_commit(self) -> None:
        """A commit that is done only after more changes."""
        self.checkpoint(True, "no", 1)
        args = self.index.commit_args()
        self.put(b"late", 77)
        self.delete(b"a")
        if args is not None:
            self.writer.commit(*args)
            self.is_hurt = False
            self.index.committed()

    @rule(fault=st.sampled_from(["", "", "", "lose", "older", "corrupt", "wrong"]))
    def crash(self, fault: str) -> None:
        if self.kind == "lmdb":
            self.indexes.close()
            self.writer.close()
        else:
            self.vfs.kill()
        self.is_hurt |= self.apply_fault(fault)
        self.indexes = self.opener()
        head, chunks, rows = self.saved
        log = Rows(rows)
        self.index = self.indexes.open(UID, head, chunks, log)
        self.model = dict(rows)
        if log.asked:
            assert self.is_hurt, self.indexes.findings
            assert self.indexes.findings

    def apply_fault(self, fault: str) -> bool:
        if self.kind == "lmdb":
            if fault == "lose":
                shutil.rmtree(f"{self.root}/index", ignore_errors=True)
            return fault == "lose"
        if not self.vfs.exists(f"index/{UID}"):
            return False
        match fault:
            case "lose":
                memory_index.lose(self.vfs, UID)
            case "older":
                return memory_index.make_older(self.vfs, UID)
            case "corrupt":
                memory_index.make_corrupt(self.vfs, UID)
            case "wrong":
                with suppress(IndexDoubt):  # it is damaged already
                    memory_index.make_wrong(self.vfs, UID, lambda values: values.pop(max(values)) and None)
        return bool(fault)

    @invariant()
    def same(self) -> None:
        index, model = self.index, self.model
        assert len(index) == len(model)
        probes = [*SUBJECTS, b"nope", b"many.7"]
        assert index.get_many(probes) == [model.get(s) for s in probes]
        twin = MemoryIndex(model)
        for subject_filter in FILTERS:
            for after in (b"", b"b.2", LONG + b"0", b"c" * 450):
                for count in (0, 1, 3):
                    found = index.matching(subject_filter, after, count)
                    assert found == twin.matching(subject_filter, after, count)


IndexMachine.TestCase.settings = settings(max_examples=300 if IS_DEEP else 30, stateful_step_count=20, deadline=None)
test_index = IndexMachine.TestCase
