"""The stored subject indexes of a stopped store, read once: ``python -m jetstore.store.index_check ROOT UID…``.

A process of its own, because LMDB trusts the pages that it maps: reading a damaged file may end the reader. Prints one
JSON object a line: uid, stamp and digest of the rows, or the problem. Changes nothing, not even LMDB's lock file; the
caller must hold the store's lock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Any

import lmdb

from jetstore.errors import IndexDoubt
from jetstore.store.index_base import ProvenBase
from jetstore.store.ports import IndexRow

_ROW = Struct("<QQQ")
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class IndexState:
    """What is stored for one stream."""

    stamp: int = 0
    """0: nothing is stored."""
    digest: int = 0
    """``rows_digest`` of the rows."""
    problem: str = ""
    """Why the rows cannot be used; "" if they can."""


def rows_digest(rows: Iterable[tuple[bytes, IndexRow]]) -> int:
    """64 bits of what rows say, in any order; ``first`` is left out: it is a lower bound, and not unique."""
    digest = 0
    for subject, row in rows:
        packed = _ROW.pack(row.last, row.messages, row.last_size_bytes)
        digest ^= int.from_bytes(blake2b(packed + subject, digest_size=8).digest(), "little")
    return digest


def stored_indexes(root: str, uids: Sequence[int]) -> dict[int, IndexState]:
    """What ``<root>/index`` holds of these streams, read by a process of its own."""
    command = [sys.executable, "-m", "jetstore.store.index_check", root, *map(str, uids)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        lines, ended = done.stdout.splitlines(), f"its reader ended with code {done.returncode}"
    except subprocess.TimeoutExpired:
        lines, ended = [], f"its reader did not come to an end within {TIMEOUT_S} s"
    found = {}
    for line in lines:
        fields = json.loads(line)
        found[fields["uid"]] = IndexState(fields["stamp"], fields["digest"], fields["problem"])
    return {uid: found.get(uid) or IndexState(problem=f"the index cannot be read: {ended}") for uid in uids}


class _Rows:
    """Implements ``RawRows`` over an environment that nobody writes."""

    def __init__(self, env: Any) -> None:  # Any: py-lmdb has no types
        self._env = env

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        with self._env.begin() as txn:
            return list(map(txn.get, keys))

    def scan(self, start_key: bytes, *, look_up: bool = False) -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._env.begin() as txn, txn.cursor() as cursor:
                if not cursor.set_range(start_key):
                    return
                for key, value in cursor.iternext():
                    if look_up and txn.get(key) != value:
                        raise IndexDoubt(f"row {key!r} is not found by its key")
                    yield key, value
        except lmdb.Error as error:
            raise IndexDoubt(str(error)) from error

    def refresh(self) -> None:
        """Nothing is committed meanwhile."""


def _state(env: Any, uid: int) -> IndexState:
    base = ProvenBase(uid, _Rows(env))
    if base.finding:
        return IndexState(problem=base.finding)
    try:
        return IndexState(base.stamp, rows_digest(base.scan(b"", b"", lambda _: False)))
    except (IndexDoubt, lmdb.Error) as error:
        return IndexState(problem=str(error))


def main(root: str, uids: Sequence[int]) -> None:
    """Print what is stored."""
    path = f"{root}/index"
    env: Any = None
    problem = ""
    if os.path.exists(f"{path}/data.mdb"):
        try:
            env = lmdb.open(path, readonly=True, create=False, lock=False)
            used = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
            if os.path.getsize(f"{path}/data.mdb") < used:
                problem = "the index is cut short"
        except lmdb.Error as error:
            problem = str(error)
    for uid in uids:
        state = IndexState(problem=problem) if problem else _state(env, uid) if env is not None else IndexState()
        shown = {"uid": uid, "stamp": state.stamp, "digest": state.digest, "problem": state.problem}
        print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [int(uid) for uid in sys.argv[2:]])
