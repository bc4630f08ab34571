"""What a simulated disk holds: files and directories with what they show now and what would survive a power cut.

A file keeps one image (what reads see) and a log of the changes since its last sync, each with the bytes it replaced.
A sync only empties the log, so it costs nothing; the durable image is computed when somebody asks for it, by undoing
the log and applying again what is decided to have survived. A failed sync marks changes as dropped: they stay visible
until the reboot and never become durable, however many later syncs succeed.

Survival of one write is decided per 512-byte sector of the file, independently of every other write. Overlapping
writes are applied again in their order: any subset in order already gives every state that reordering could give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from jetstore.limits import SECTOR_BYTES

PENDING, DROPPED, SYNCED = 0, 1, 2
"""Fate of a change in a log: a power cut decides · a failed sync threw it away · durable (kept beside dropped ones)."""

WRITE, TRUNCATE = 0, 1
LINK, UNLINK, RENAME = 0, 1, 2


class Atom(NamedTuple):
    """One thing that survives a power cut as a whole or not at all."""

    kind: str
    """``sector`` (bytes of one sector of one write) · ``size`` (a write's new end, zeros) · ``truncate`` · ``name``."""
    path: str
    change: int
    """Position of the change in its file's or directory's log."""
    start: int
    end: int
    """Byte range of a sector atom; the size of a size or truncate atom; 0 for names."""


class Change:
    """One logged change of a file."""

    __slots__ = ("fate", "kind", "new", "offset", "old", "old_size")

    def __init__(self, kind: int, offset: int, new: bytes, old: bytes, old_size: int, fate: int = PENDING) -> None:
        self.kind = kind
        self.offset = offset
        self.new = new
        self.old = old
        self.old_size = old_size
        self.fate = fate

    def copy(self) -> Change:
        return Change(self.kind, self.offset, self.new, self.old, self.old_size, self.fate)


class File:
    """One file: the image that reads see, and the log of changes that are not durable yet."""

    __slots__ = ("bad", "has_dropped", "image", "is_shared", "log")

    def __init__(self) -> None:
        self.image = bytearray()
        self.is_shared = False
        self.log: list[Change] = []
        self.has_dropped = False
        self.bad: list[tuple[int, int]] = []
        """Byte ranges that cannot be read until they are written again."""

    def own(self) -> bytearray:
        """The image, for modification: copied first if a clone shares it."""
        if self.is_shared:
            self.image = bytearray(self.image)
            self.is_shared = False
        return self.image

    def clone(self) -> File:
        twin = File()
        twin.image = self.image
        twin.is_shared = self.is_shared = True
        twin.log = [change.copy() for change in self.log]
        twin.has_dropped = self.has_dropped
        twin.bad = list(self.bad)
        return twin

    def write(self, data: bytes, offset: int) -> None:
        image = self.own()
        size = len(image)
        end = offset + len(data)
        old = bytes(image[offset:end])
        if offset > size:
            image.extend(bytes(offset - size))
        image[offset:end] = data
        self.log.append(Change(WRITE, offset, data, old, size))
        if self.bad:
            self.bad = [piece for bad in self.bad for piece in _without(bad, offset, end)]

    def truncate(self, size: int) -> None:
        image = self.own()
        old_size = len(image)
        self.log.append(Change(TRUNCATE, size, b"", bytes(image[size:]), old_size))
        if size < old_size:
            del image[size:]
        else:
            image.extend(bytes(size - old_size))

    def sync(self) -> None:
        """Everything pending is durable. What an earlier sync dropped stays lost."""
        if not self.has_dropped:
            self.log.clear()
            return
        for change in self.log:
            if change.fate == PENDING:
                change.fate = SYNCED

    def fail_sync(self) -> None:
        """The sync failed: pages count as clean now, the disk never gets them. A size that was set is no page: it goes
        with the next commit, as names do."""
        for change in self.log:
            if change.fate == PENDING and change.kind == WRITE:
                change.fate = DROPPED
                self.has_dropped = True

    def poke(self, offset: int, data: bytes) -> None:
        """Change bytes behind the file system's back: in the image and in whatever the log would restore."""
        image = self.own()
        data = data[: max(0, len(image) - offset)]
        end = offset + len(data)
        image[offset:end] = data
        for change in self.log:
            if change.kind != WRITE:
                continue
            change.new = _overlaid(change.new, change.offset, data, offset)
            change.old = _overlaid(change.old, change.offset, data, offset)

    def is_unreadable(self, start: int, end: int) -> bool:
        return any(start < bad_end and bad_start < end for bad_start, bad_end in self.bad)

    def atoms(self, path: str) -> Iterator[Atom]:
        """Everything of this file that a power cut decides, in order."""
        for position, change in enumerate(self.log):
            if change.fate != PENDING:
                continue
            if change.kind == TRUNCATE:
                yield Atom("truncate", path, position, change.offset, change.offset)
                continue
            end = change.offset + len(change.new)
            if end > change.old_size:
                yield Atom("size", path, position, end, end)
            for start, stop in _sectors(change.offset, end):
                yield Atom("sector", path, position, start, stop)

    def reboot(self, kept: Callable[[int, Change], list[tuple[int, int]] | None]) -> None:
        """Become what survived. ``kept(position, change)`` gives the byte ranges of a pending write that did (a range
        of no length sets the size), or None for none; for a truncate any list means that it survived."""
        log, self.log, self.has_dropped = self.log, [], False
        if not log:
            return
        image = self.own()
        for change in reversed(log):
            if change.kind == WRITE:
                image[change.offset : change.offset + len(change.old)] = change.old
                del image[change.old_size :]
            elif change.offset < change.old_size:
                del image[change.offset :]
                image.extend(change.old)
            else:
                del image[change.old_size :]
        for position, change in enumerate(log):
            if change.fate == DROPPED:
                continue
            end = change.offset + len(change.new)
            ranges = [(change.offset, end)] if change.fate == SYNCED else kept(position, change)
            if ranges is None:
                continue
            if change.kind == TRUNCATE:
                if change.offset < len(image):
                    del image[change.offset :]
                else:
                    image.extend(bytes(change.offset - len(image)))
                continue
            for start, stop in ranges:
                if stop > len(image):
                    image.extend(bytes(stop - len(image)))
                image[start:stop] = change.new[start - change.offset : stop - change.offset]


class NameChange:
    """One logged change of a directory."""

    __slots__ = ("kind", "name", "node", "source")

    def __init__(self, kind: int, name: str, node: File | Directory, source: str = "") -> None:
        self.kind = kind
        self.name = name
        self.node = node
        self.source = source

    def apply(self, names: dict[str, File | Directory]) -> None:
        if self.kind == UNLINK:
            if names.get(self.name) is self.node:
                del names[self.name]
            return
        if self.kind == RENAME:
            for name in [name for name, node in names.items() if node is self.node]:
                del names[name]
        names[self.name] = self.node


class Directory:
    """One directory: the names that are seen, and the changes since its last sync."""

    __slots__ = ("durable", "log", "names")

    def __init__(self) -> None:
        self.names: dict[str, File | Directory] = {}
        self.durable: dict[str, File | Directory] | None = None
        """The names before the log's first change; None when the log is empty."""
        self.log: list[NameChange] = []

    def change(self, kind: int, name: str, node: File | Directory, source: str = "") -> None:
        if self.durable is None:
            self.durable = dict(self.names)
        change = NameChange(kind, name, node, source)
        self.log.append(change)
        change.apply(self.names)

    def sync(self) -> None:
        """Every name is durable."""
        self.log.clear()
        self.durable = None

    def fail_sync(self) -> None:
        """The sync failed. File systems that keep names in a journal either stop altogether or keep the change for the
        next commit; unlike pages of a file, names are not thrown away while they are shown."""

    def children(self) -> Iterator[tuple[str, File | Directory]]:
        """Every node that is or could again be named here, once each, in a fixed order; taken names get a suffix."""
        seen: set[int] = set()
        uses: dict[str, int] = {}
        sources: list[tuple[str, File | Directory]] = [*self.names.items(), *(self.durable or {}).items()]
        sources += [(change.name, change.node) for change in self.log]
        for name, node in sources:
            if id(node) not in seen:
                seen.add(id(node))
                use = uses[name] = uses.get(name, 0) + 1
                yield (name if use == 1 else f"{name}~{use}"), node

    def atoms(self, path: str) -> Iterator[Atom]:
        for position, change in enumerate(self.log):
            yield Atom("name", f"{path}/{change.name}" if path else change.name, position, 0, 0)

    def reboot(self, kept: Callable[[int, NameChange], bool]) -> None:
        """Become what survived: ``kept`` says which pending changes did."""
        if self.durable is None:
            return
        names = self.durable
        for position, change in enumerate(self.log):
            if kept(position, change):
                change.apply(names)
        self.names, self.durable, self.log = names, None, []


def clone_tree(root: Directory) -> tuple[Directory, dict[int, File | Directory]]:
    """A copy of the whole tree that shares file images until one side writes; and twin by ``id`` of the original."""
    twins: dict[int, File | Directory] = {}

    def twin(node: File | Directory) -> File | Directory:
        found = twins.get(id(node))
        if found is not None:
            return found
        if isinstance(node, File):
            copy = twins[id(node)] = node.clone()
            return copy
        fresh = twins[id(node)] = Directory()
        fresh.names = {name: twin(child) for name, child in node.names.items()}
        if node.durable is not None:
            fresh.durable = {name: twin(child) for name, child in node.durable.items()}
        fresh.log = [NameChange(c.kind, c.name, twin(c.node), c.source) for c in node.log]
        return fresh

    copied = twin(root)
    assert isinstance(copied, Directory)
    return copied, twins


def random_survival(rng: Random, change: Change, keep_chance: float) -> list[tuple[int, int]] | None:
    """Which byte ranges of a pending change survive: nothing, all, one aligned run, or sectors picked one by one."""
    end = change.offset + len(change.new)
    roll = rng.random()
    if roll < keep_chance / 2:
        return [(change.offset, end)]
    if roll > 0.5 + keep_chance / 2:
        return None
    if change.kind == TRUNCATE:
        return [] if rng.random() < keep_chance else None
    first, last = change.offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES
    ranges: list[tuple[int, int]] = []
    if end > change.old_size and rng.random() < 0.5:
        ranges.append((end, end))
    if last - first < 64 and rng.random() < 0.5:
        picked = [sector for sector in range(first, last + 1) if rng.random() < keep_chance]
    else:
        low, high = sorted((rng.randint(first, last), rng.randint(first, last)))
        picked = list(range(low, high + 1))
    ranges += [(max(s * SECTOR_BYTES, change.offset), min((s + 1) * SECTOR_BYTES, end)) for s in picked]
    return ranges


def _sectors(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield start, stop
        start = stop


def _without(bad: tuple[int, int], start: int, end: int) -> Iterator[tuple[int, int]]:
    if bad[0] < min(start, bad[1]):
        yield bad[0], min(start, bad[1])
    if bad[1] > max(end, bad[0]):
        yield max(end, bad[0]), bad[1]


def _overlaid(target: bytes, target_offset: int, data: bytes, offset: int) -> bytes:
    start = max(target_offset, offset)
    end = min(target_offset + len(target), offset + len(data))
    if start >= end:
        return target
    return target[: start - target_offset] + data[start - offset : end - offset] + target[end - target_offset :]
