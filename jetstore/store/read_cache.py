"""What was read of segments and is worth keeping: open handles, footers and decoded frames, within fixed bounds.

One per node, shared by all its logs, so that memory does not grow with the number of messages or streams.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from jetstore.store.segment_table import SegmentTable
from jetstore.store.stored_frame import StoredFrame
from jetstore.store.vfs import Vfs

HANDLES_MAX = 256
"""Open segment files; the least recently used is closed."""

T = TypeVar("T")


class ReadCache:
    """Least-recently-used handles (by number), tables and frames (by bytes)."""

    def __init__(self, vfs: Vfs, bytes_max: int, handles_max: int = HANDLES_MAX) -> None:
        assert handles_max >= 2
        self._vfs = vfs
        self._bytes_max = bytes_max
        self._handles_max = handles_max
        self._handles: OrderedDict[str, int] = OrderedDict()
        self._items: OrderedDict[tuple[str, int], tuple[SegmentTable | StoredFrame, int]] = OrderedDict()
        self.used_bytes = 0
        self.hits = 0
        self.misses = 0

    def handle(self, path: str) -> int:
        """A read handle, valid until the next call. OSError if the file cannot be opened."""
        found = self._handles.get(path)
        if found is not None:
            self._handles.move_to_end(path)
            return found
        handle = self._vfs.open(path, write=False)
        self._handles[path] = handle
        if len(self._handles) > self._handles_max:
            _, oldest = self._handles.popitem(last=False)
            self._vfs.close(oldest)
        return handle

    def get(self, path: str, number: int, kind: type[T]) -> T | None:
        """What was kept under this number of the file (frames ≥ 0, the table -1)."""
        item = self._items.get((path, number))
        if item is None:
            self.misses += 1
            return None
        self.hits += 1
        self._items.move_to_end((path, number))
        assert isinstance(item[0], kind)
        return item[0]

    def put(self, path: str, number: int, value: SegmentTable | StoredFrame, weight_bytes: int) -> None:
        """Keep it, or note its new weight. Something else may be forgotten; what is too large is not kept."""
        old = self._items.pop((path, number), None)
        if old is not None:
            self.used_bytes -= old[1]
        if weight_bytes > self._bytes_max:
            return
        self._items[path, number] = value, weight_bytes
        self.used_bytes += weight_bytes
        while self.used_bytes > self._bytes_max:
            _, (_, weight) = self._items.popitem(last=False)
            self.used_bytes -= weight

    def peek(self, path: str, number: int) -> SegmentTable | StoredFrame | None:
        """What was kept, without counting as a use."""
        item = self._items.get((path, number))
        return item[0] if item is not None else None

    def forget_item(self, path: str, number: int) -> None:
        """Drop one thing about a file."""
        item = self._items.pop((path, number), None)
        if item is not None:
            self.used_bytes -= item[1]

    def forget(self, path: str) -> None:
        """Drop everything about a file."""
        handle = self._handles.pop(path, None)
        if handle is not None:
            self._vfs.close(handle)
        for key in [key for key in self._items if key[0] == path]:
            self.used_bytes -= self._items.pop(key)[1]

    def close(self) -> None:
        """Give all handles back."""
        while self._handles:
            self._vfs.close(self._handles.popitem()[1])
        self._items.clear()
        self.used_bytes = 0
