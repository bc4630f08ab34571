"""Two images of a tree of files: what processes see, and what the disk has. A power cut makes the second the first.

(``SlowImage`` at the end is the same tree without the second image: nothing is lost, but a sync takes its time.)

Each file is two backing files with the same name in ``seen/`` and ``disk/``; writes go to the first, and a sync copies
the ranges written since. Directories are two dicts. A name counts as on the disk as ``Names`` says. Metadata lives in
this process, which survives every power cut; nothing here is meant to survive itself.
"""

from __future__ import annotations

import enum
import errno
import os
import random
import stat
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

SECTOR = 512


class Names(enum.StrEnum):
    """When a created, renamed or removed name is on the disk."""

    STRICT = "strict"
    """After fsync of its directory: what POSIX promises."""
    JOURNALED = "journaled"
    """After any fsync of the file system: what ext4 with its default journal does."""
    AT_ONCE = "at-once"
    """Immediately: kinder than any real file system."""


@dataclass(eq=False)
class Node:
    """A file or directory."""

    number: int
    mode: int
    mtime_ns: int
    names: dict[str, Node] = field(default_factory=dict)
    names_on_disk: dict[str, Node] = field(default_factory=dict)
    seen: int = -1
    """File descriptor of the image that processes see."""
    disk: int = -1
    """File descriptor of the image on the disk."""
    written: list[tuple[int, int]] = field(default_factory=list)
    """(offset, length) of writes since the last sync."""
    shortest: int | None = None
    """The smallest size the file was truncated to since the last sync."""
    links: int = 0
    opens: int = 0

    @property
    def is_dir(self) -> bool:
        """Whether it has names rather than bytes."""
        return stat.S_ISDIR(self.mode)

    @property
    def size(self) -> int:
        """The size that processes see."""
        return 0 if self.is_dir else os.fstat(self.seen).st_size


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes as fewer (start, end) ranges, in order."""
    result: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        end = start + length
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def copy_range(source: int, target: int, start: int, end: int) -> None:
    """Copy bytes between descriptors; ends early at the source's end."""
    while start < end:
        data = os.pread(source, min(end - start, 1 << 20), start)
        if not data:
            return
        os.pwrite(target, data, start)
        start += len(data)


class DiskImage:
    """The tree. Methods raise OSError with the errno a file system would give."""

    def __init__(self, backing: Path, names: Names = Names.STRICT) -> None:
        self.backing = backing
        self.names = names
        for folder in ("seen", "disk"):
            (backing / folder).mkdir(parents=True, exist_ok=True)
        self._numbers = count(2)
        self.root = Node(1, stat.S_IFDIR | 0o755, time.time_ns(), links=1)
        self._files: set[Node] = set()
        self.syncs = 0
        self.bytes_written = 0

    # -- names ----------------------------------------------------------------------------------------------------

    def find(self, path: str) -> Node:
        """The node at a path; ENOENT, ENOTDIR."""
        node = self.root
        for part in path.split("/"):
            if part:
                if not node.is_dir:
                    raise OSError(errno.ENOTDIR, path)
                child = node.names.get(part)
                if child is None:
                    raise OSError(errno.ENOENT, path)
                node = child
        return node

    def create(self, path: str, mode: int) -> Node:
        """A new file or directory; EEXIST."""
        parent, name = self._place(path)
        if name in parent.names:
            raise OSError(errno.EEXIST, path)
        node = Node(next(self._numbers), mode, time.time_ns(), links=1)
        if not node.is_dir:
            self._back(node)
        parent.names[name] = node
        self._changed(parent)
        return node

    def remove(self, path: str) -> None:
        """unlink or rmdir; ENOTEMPTY."""
        parent, name = self._place(path)
        node = self.find(path)
        if node.names:
            raise OSError(errno.ENOTEMPTY, path)
        del parent.names[name]
        self._unlink(node)
        self._changed(parent)

    def rename(self, old: str, new: str) -> None:
        """As rename(2)."""
        node = self.find(old)
        from_parent, from_name = self._place(old)
        to_parent, to_name = self._place(new)
        target = to_parent.names.get(to_name)
        if target is node:
            return
        if target is not None:
            if target.names:
                raise OSError(errno.ENOTEMPTY, new)
            self._unlink(target)
        del from_parent.names[from_name]
        to_parent.names[to_name] = node
        self._changed(from_parent)
        self._changed(to_parent)

    def link(self, existing: str, new: str) -> None:
        """A second name of a file; EEXIST."""
        node = self.find(existing)
        parent, name = self._place(new)
        if name in parent.names:
            raise OSError(errno.EEXIST, new)
        parent.names[name] = node
        node.links += 1
        self._changed(parent)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def write(self, node: Node, data: bytes, offset: int) -> int:
        """Write where processes see it."""
        done = os.pwrite(node.seen, data, offset)
        node.written.append((offset, done))
        node.mtime_ns = time.time_ns()
        self.bytes_written += done
        return done

    def truncate(self, node: Node, length: int) -> None:
        """Cut or extend with zeros."""
        if length < node.size:
            node.shortest = length if node.shortest is None else min(node.shortest, length)
        os.ftruncate(node.seen, length)
        # Remembered even when nothing was cut: the size itself is new.
        node.written.append((length, 0))

    # -- durability -----------------------------------------------------------------------------------------------

    def sync(self, node: Node) -> None:
        """fsync of a file or directory."""
        self.syncs += 1
        if self.names is Names.JOURNALED:
            for directory in self._directories(on_disk=False):
                directory.names_on_disk = dict(directory.names)
        if node.is_dir:
            node.names_on_disk = dict(node.names)
            return
        if node.shortest is not None and node.shortest < os.fstat(node.disk).st_size:
            os.ftruncate(node.disk, node.shortest)
        for start, end in merged(node.written):
            copy_range(node.seen, node.disk, start, end)
        os.ftruncate(node.disk, node.size)
        node.written.clear()
        node.shortest = None

    def cut(self, seed: int | None = None) -> dict[str, int]:
        """The power goes: processes see what the disk has. Nothing may be open any more.

        Without a seed everything not synced is lost. With a seed each 512-byte sector of it survives or not by chance,
        and so do the unsynced names of each directory. The figures say how much was lost.
        """
        chance = random.Random(seed) if seed is not None else None
        lost = {"files": 0, "ranges": 0, "bytes": 0, "names": 0}
        if self.names is not Names.AT_ONCE:
            for directory in self._directories(on_disk=False):
                if chance is not None and chance.random() < 0.5:
                    directory.names_on_disk = dict(directory.names)
        for directory in self._directories(on_disk=True):
            lost["names"] += len(directory.names.keys() ^ directory.names_on_disk.keys())
            directory.names = dict(directory.names_on_disk)
        links: dict[Node, int] = {}
        for directory in self._directories(on_disk=False):
            for node in directory.names.values():
                links[node] = links.get(node, 0) + 1
        for node, number in links.items():
            node.links, node.opens = number, 0
            if node.is_dir or not (node.written or node.shortest is not None):
                continue
            ranges = merged(node.written)
            lost["files"] += 1
            lost["ranges"] += len(ranges)
            lost["bytes"] += sum(end - start for start, end in ranges)
            if chance is not None:
                self._tear(node, ranges, chance)
            self._restore(node, ranges)
        for node in self._files - links.keys():
            self._free(node)
        return lost

    def _free(self, node: Node) -> None:
        """No name leads to this file any more, not even on the disk."""
        self._files.discard(node)
        for folder, descriptor in (("seen", node.seen), ("disk", node.disk)):
            os.close(descriptor)
            (self.backing / folder / str(node.number)).unlink()

    def _tear(self, node: Node, ranges: list[tuple[int, int]], chance: random.Random) -> None:
        """Let a random part of what was not synced reach the disk."""
        size = node.size
        if node.shortest is not None and node.shortest < os.fstat(node.disk).st_size and chance.random() < 0.5:
            os.ftruncate(node.disk, node.shortest)
        share = chance.choice((0.1, 0.5, 0.9, 1.0))
        for start, end in ranges:
            at = start
            while at < end:
                stop = min(end, (at // SECTOR + 1) * SECTOR)
                if chance.random() < share:
                    copy_range(node.seen, node.disk, at, stop)
                at = stop
        if chance.random() < 0.5:
            os.ftruncate(node.disk, size)

    @staticmethod
    def _restore(node: Node, ranges: list[tuple[int, int]]) -> None:
        size = os.fstat(node.disk).st_size
        os.ftruncate(node.seen, size if node.shortest is None else min(size, node.shortest))
        os.ftruncate(node.seen, size)
        if node.shortest is not None and node.shortest < size:
            ranges = [*ranges, (node.shortest, size)]
        for start, end in ranges:
            copy_range(node.disk, node.seen, start, min(end, size))
        node.written.clear()
        node.shortest = None

    def open(self, node: Node) -> None:
        """A file is opened once more."""
        node.opens += 1

    def close(self, node: Node) -> None:
        """One open of a file ended."""
        node.opens -= 1

    def _back(self, node: Node) -> None:
        """Give a new file its bytes."""
        node.seen = self._backing_file("seen", node)
        node.disk = self._backing_file("disk", node)
        self._files.add(node)

    def _backing_file(self, folder: str, node: Node) -> int:
        return os.open(self.backing / folder / str(node.number), os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)

    def _unlink(self, node: Node) -> None:
        """A name less; the disk may still have it."""
        node.links -= 1

    def _place(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rstrip("/").rpartition("/")
        parent = self.find(folder)
        if not parent.is_dir:
            raise OSError(errno.ENOTDIR, path)
        return parent, name

    def _changed(self, directory: Node) -> None:
        directory.mtime_ns = time.time_ns()
        if self.names is Names.AT_ONCE:
            directory.names_on_disk = dict(directory.names)

    def _directories(self, on_disk: bool) -> list[Node]:
        found = [self.root]
        for directory in found:
            names = directory.names_on_disk if on_disk else directory.names
            found.extend(node for node in names.values() if node.is_dir)
        return found


class SlowImage(DiskImage):
    """A disk that keeps everything, and takes ``sync_s`` for each sync; beside it, others and what else comes go on.

    Its methods may be called from several threads (of the file system; for one directory or file the kernel orders
    what changes it).
    """

    def __init__(self, backing: Path, sync_s: float) -> None:
        super().__init__(backing)
        self.sync_s = sync_s
        self._counting = threading.Lock()
        """Opens and links: a file goes with the last of them."""

    def write(self, node: Node, data: bytes, offset: int) -> int:
        node.mtime_ns = time.time_ns()
        return os.pwrite(node.seen, data, offset)

    def truncate(self, node: Node, length: int) -> None:
        os.ftruncate(node.seen, length)

    def sync(self, node: Node) -> None:
        time.sleep(self.sync_s)

    def open(self, node: Node) -> None:
        with self._counting:
            super().open(node)

    def close(self, node: Node) -> None:
        with self._counting:
            super().close(node)
            self._free_unused(node)

    def _unlink(self, node: Node) -> None:
        with self._counting:
            super()._unlink(node)
            self._free_unused(node)

    def _back(self, node: Node) -> None:
        node.seen = self._backing_file("seen", node)

    def _free_unused(self, node: Node) -> None:
        if not node.is_dir and node.links == 0 and node.opens == 0 and node.seen >= 0:
            os.close(node.seen)
            node.seen = -1
            (self.backing / "seen" / str(node.number)).unlink()
