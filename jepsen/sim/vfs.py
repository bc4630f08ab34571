"""``SimVfs``: a disk in memory that forgets, tears, reorders and fails exactly as much as the contract allows.

Implements ``jetstore.store.vfs.Vfs``. What it adds for tests:

* ``crash(rng)`` is a power cut: every un-synced write survives not at all, wholly, or in some of its 512-byte sectors;
  every un-synced create, rename, unlink, mkdir and truncate survives or not; all independently of each other.
  ``unsynced()`` names these parts one by one and ``crash_keep`` keeps exactly the chosen ones: for enumeration.
* ``kill()`` is a process kill: handles are gone, the page cache stays.
* ``crash_at(n)`` makes the machine die just before its n-th boundary operation (``faults.BOUNDARY_OPS``);
  ``boundaries`` counts them. ``clone()`` forks the whole disk in microseconds, for trying many crashes at one boundary.
* ``inject(fault)`` makes calls fail, see ``faults.py``. A failed sync throws the pages away although reads go on
  showing them; the next sync "succeeds".
* ``poke``/``peek`` change and show bytes behind the owner's back; ``bad_sectors`` makes ranges unreadable.

After a crash was raised every call raises ``SimCrash`` until ``crash``, ``crash_keep`` or ``kill`` "reboots" it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from random import Random

from jepsen.sim.faults import BOUNDARY_OPS, Fault, SimCrash
from jepsen.sim.image import (
    LINK,
    RENAME,
    UNLINK,
    Atom,
    Change,
    Directory,
    File,
    NameChange,
    clone_tree,
    random_survival,
)
from jetstore.limits import GIB
from jetstore.store.keys import Keys
from jetstore.types import Buffer

Node = tuple[str, File | Directory]
"""A path (``name~2`` for a second node that could come back under a name that is taken) and what is there."""


class SimVfs:
    """A simulated file system. See the module docstring."""

    keys: Keys | None = None

    def __init__(self, *, capacity_bytes: int = 64 * GIB, full_errno: int = errno.ENOSPC) -> None:
        self.capacity_bytes = capacity_bytes
        self.full_errno = full_errno
        self.boundaries = 0
        """Boundary operations begun so far, over all reboots."""
        self.faults: list[Fault] = []
        self.fault_counts: dict[str, int] = {}
        """How often an injected error was returned, by ``op:ERRNO``."""
        self.op_log: list[tuple[str, str, int, int]] | None = None
        """Set to a list to record every call as (op, path, number, number)."""
        self.on_op: Callable[[str, str, int, int], None] | None = None
        """Called before every call; for traces."""
        self.on_crash: Callable[[], None] | None = None
        """Called once, just before ``SimCrash`` is raised for the first time."""
        self.is_crashed = False
        self._root = Directory()
        self._handles: dict[int, tuple[File, str, bool]] = {}
        self._next_handle = 3
        self._used_bytes = 0
        self._crash_at = 0
        self._latency_ns = 0

    # -- the port -------------------------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        parent, name = self._parent(path)
        node = parent.names.get(name)
        if node is None and not create:
            self._enter("open", path)
            raise _error(errno.ENOENT, path)
        if node is None:
            self._enter("create", path)
            node = File()
            parent.change(LINK, name, node)
        else:
            self._enter("open", path)
            if isinstance(node, Directory):
                raise _error(errno.EISDIR, path)
            if create and exclusive:
                raise _error(errno.EEXIST, path)
        assert isinstance(node, File)
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = (node, path, write)
        return handle

    def close(self, handle: int) -> None:
        _, path, _ = self._handle(handle)
        self._enter("close", path)
        del self._handles[handle]

    def pread(self, handle: int, size_bytes: int, offset: int) -> bytes:
        file, path, _ = self._handle(handle)
        self._enter("pread", path, offset, size_bytes)
        if file.bad and file.is_unreadable(offset, offset + size_bytes):
            self._count("pread", errno.EIO)
            raise _error(errno.EIO, path)
        return bytes(memoryview(file.image)[offset : offset + size_bytes])

    def pwrite(self, handle: int, buffers: Sequence[Buffer], offset: int) -> None:
        file, path, is_writable = self._handle(handle)
        data = b"".join(buffers)
        fired = self._check("pwrite", path, offset, len(data))
        if not is_writable:
            raise _error(errno.EBADF, path)
        error = fired.errno if fired is not None else 0
        if error:
            assert fired is not None
            data = data[: fired.partial_bytes]
        growth = offset + len(data) - len(file.image)
        room = self.capacity_bytes - self._used_bytes
        if growth > room and growth > 0:
            error = error or self.full_errno
            data = data[: max(0, len(data) - growth + max(0, room))]
            growth = offset + len(data) - len(file.image)
        if data:
            file.write(data, offset)
            self._used_bytes += max(0, growth)
        if error:
            raise self._injected("pwrite", path, error)

    def fdatasync(self, handle: int) -> None:
        self._sync("fdatasync", handle)

    def fsync(self, handle: int) -> None:
        self._sync("fsync", handle)

    def fsync_dir(self, path: str) -> None:
        directory = self._directory(path)
        fired = self._check("fsync_dir", path)
        if fired is not None and fired.errno:
            directory.fail_sync()
            raise self._injected("fsync_dir", path, fired.errno)
        directory.sync()

    def rename(self, source: str, target: str) -> None:
        source_dir, source_name = self._parent(source)
        target_dir, target_name = self._parent(target)
        self._enter("rename", target)
        node = source_dir.names.get(source_name)
        if node is None:
            raise _error(errno.ENOENT, source)
        replaced = target_dir.names.get(target_name)
        if isinstance(replaced, Directory):
            raise _error(errno.EISDIR, target)
        if replaced is node:
            return
        if replaced is not None:
            self._used_bytes -= len(replaced.image)
        if source_dir is target_dir:
            source_dir.change(RENAME, target_name, node, source_name)
        else:
            target_dir.change(LINK, target_name, node)
            source_dir.change(UNLINK, source_name, node)
        for handle, (file, _, is_writable) in self._handles.items():
            if file is node:
                self._handles[handle] = (file, target, is_writable)

    def unlink(self, path: str) -> None:
        parent, name = self._parent(path)
        self._enter("unlink", path)
        node = parent.names.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if isinstance(node, Directory):
            raise _error(errno.EISDIR, path)
        self._used_bytes -= len(node.image)
        parent.change(UNLINK, name, node)

    def truncate(self, handle: int, size_bytes: int) -> None:
        file, path, is_writable = self._handle(handle)
        self._enter("truncate", path, size_bytes)
        if not is_writable:
            raise _error(errno.EBADF, path)
        growth = size_bytes - len(file.image)
        if growth > 0 and growth > self.capacity_bytes - self._used_bytes:
            raise self._injected("truncate", path, self.full_errno)
        if growth:
            file.truncate(size_bytes)
            self._used_bytes += growth

    def size(self, handle: int) -> int:
        file, path, _ = self._handle(handle)
        self._enter("size", path)
        return len(file.image)

    def exists(self, path: str) -> bool:
        self._enter("exists", path)
        return self._find(path) is not None

    def list_dir(self, path: str) -> list[str]:
        self._enter("list_dir", path)
        node = self._find(path)
        if isinstance(node, File):
            raise _error(errno.ENOTDIR, path)
        return [] if node is None else sorted(node.names)

    def mkdir(self, path: str) -> None:
        parent, name = self._parent(path)
        node = parent.names.get(name)
        if node is None:
            self._enter("mkdir", path)
            parent.change(LINK, name, Directory())
        elif isinstance(node, File):
            raise _error(errno.EEXIST, path)

    def rmdir(self, path: str) -> None:
        parent, name = self._parent(path)
        self._enter("rmdir", path)
        node = parent.names.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if isinstance(node, File):
            raise _error(errno.ENOTDIR, path)
        if node.names:
            raise _error(errno.ENOTEMPTY, path)
        parent.change(UNLINK, name, node)

    def free_bytes(self) -> int:
        self._enter("free_bytes", "")
        return max(0, self.capacity_bytes - self._used_bytes)

    # -- death and rebirth ----------------------------------------------------------------------------------------

    def crash(self, rng: Random | None = None) -> None:
        """Power cut and reboot. ``rng`` decides what of the un-synced survives; without one nothing does."""
        if rng is None:
            self._reboot(lambda *_: None, lambda *_: False)
            return
        keep_chance = rng.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        name_chance = rng.choice((0.0, 0.5, 0.5, 1.0))
        self._reboot(
            lambda path, position, change: random_survival(rng, change, keep_chance),
            lambda path, position, change: rng.random() < name_chance,
        )

    def crash_keep(self, atoms: Collection[Atom]) -> None:
        """Power cut and reboot: of everything in ``unsynced()`` exactly ``atoms`` survive."""
        chosen: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for atom in atoms:
            if atom.kind == "name":
                continue
            start = atom.end if atom.kind == "size" else atom.start
            chosen.setdefault((atom.path, atom.change), []).append((start, atom.end))
        names = {(atom.path, atom.change) for atom in atoms if atom.kind == "name"}
        self._reboot(
            lambda path, position, change: chosen.get((path, position)),
            lambda path, position, change: (f"{path}/{change.name}" if path else change.name, position) in names,
        )

    def kill(self) -> None:
        """The process died, the machine did not: handles are gone, un-synced changes stay in the page cache."""
        self._handles.clear()
        self.is_crashed = False
        self._crash_at = 0

    def crash_at(self, boundary: int) -> None:
        """Die just before boundary operation number ``boundary`` (1 = the first ever on this disk); 0 = never."""
        self._crash_at = boundary

    def clone(self) -> SimVfs:
        """A fork of the disk as it is, un-synced changes and open handles included; faults and hooks are not copied."""
        twin = SimVfs(capacity_bytes=self.capacity_bytes, full_errno=self.full_errno)
        twin.keys = self.keys
        twin._root, twins = clone_tree(self._root)
        twin._used_bytes = self._used_bytes
        twin._next_handle = self._next_handle
        for handle, (file, path, is_writable) in self._handles.items():
            copied = twins.get(id(file))
            if isinstance(copied, File):
                twin._handles[handle] = (copied, path, is_writable)
        twin.boundaries = self.boundaries
        return twin

    def replace(self) -> SimVfs:
        """The same disk for the next process, as after ``kill``; this object raises ``SimCrash`` from now on."""
        heir = SimVfs(capacity_bytes=self.capacity_bytes, full_errno=self.full_errno)
        heir._root, heir._used_bytes, heir._next_handle = self._root, self._used_bytes, self._next_handle
        heir.boundaries, heir.faults, heir.fault_counts = self.boundaries, self.faults, self.fault_counts
        heir.op_log, heir.on_op, heir.on_crash = self.op_log, self.on_op, self.on_crash
        self.on_crash = None
        self.is_crashed = True
        self._root = Directory()
        return heir

    # -- faults ---------------------------------------------------------------------------------------------------

    def inject(self, rule: Fault) -> Fault:
        """Add a rule; rules are asked in the order they were added and the first that acts wins."""
        self.faults.append(rule)
        return rule

    def heal(self) -> None:
        """Forget every rule."""
        self.faults.clear()

    def take_latency_ns(self) -> int:
        """How long the calls since the last question would have taken beyond nothing."""
        latency_ns, self._latency_ns = self._latency_ns, 0
        return latency_ns

    # -- behind the owner's back ----------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """Bytes of all named files."""
        return self._used_bytes

    def files(self) -> list[str]:
        """Paths of all files that are seen now, sorted."""
        return sorted(path for path, node in self._walk(self._root, "", seen_only=True) if isinstance(node, File))

    def peek(self, path: str) -> bytes:
        """The bytes that a read would show."""
        return bytes(self._file(path).image)

    def poke(self, path: str, offset: int, data: bytes) -> None:
        """Overwrite bytes inside the file as they are now and as they would be after a power cut."""
        self._file(path).poke(offset, data)

    def cut(self, path: str, size_bytes: int) -> None:
        """Make the file that long, durably, as damage does."""
        file = self._file(path)
        self._used_bytes += size_bytes - len(file.image)
        file.truncate(size_bytes)
        file.log.clear()

    def lose(self, path: str) -> None:
        """The file's name is gone, durably."""
        parent, name = self._parent(path)
        file = self._file(path)
        self._used_bytes -= len(file.image)
        parent.change(UNLINK, name, file)
        if parent.durable is not None:
            parent.durable.pop(name, None)
        parent.log = [change for change in parent.log if change.node is not file]

    def bad_sectors(self, path: str, start: int, end: int) -> None:
        """Reads that touch this byte range fail with EIO until it is written again."""
        self._file(path).bad.append((start, end))

    def readable_again(self, path: str) -> None:
        """What ``bad_sectors`` did to a file is over: its bytes were there all the time."""
        self._file(path).bad.clear()

    def unsynced(self) -> list[Atom]:
        """Everything a power cut would decide now, in a fixed order."""
        found: list[Atom] = []
        for path, node in self._walk(self._root, ""):
            found.extend(node.atoms(path))
        return found

    # -- inside ---------------------------------------------------------------------------------------------------

    def _enter(self, op: str, path: str, first: int = 0, second: int = 0) -> None:
        fired = self._check(op, path, first, second)
        if fired is not None and fired.errno:
            raise self._injected(op, path, fired.errno)

    def _check(self, op: str, path: str, first: int = 0, second: int = 0) -> Fault | None:
        if self.is_crashed:
            raise SimCrash(f"{op} {path}: the machine is down")
        if self.op_log is not None:
            self.op_log.append((op, path, first, second))
        if self.on_op is not None:
            self.on_op(op, path, first, second)
        if op in BOUNDARY_OPS:
            self.boundaries += 1
            if self.boundaries == self._crash_at:
                self._die(op, path)
        for rule in self.faults:
            if rule.matches(op, path):
                self._latency_ns += rule.latency_ns
                if rule.crash:
                    self._die(op, path)
                if rule.errno:
                    return rule
        return None

    def _die(self, op: str, path: str) -> None:
        self.is_crashed = True
        if self.on_crash is not None:
            self.on_crash()
        raise SimCrash(f"boundary {self.boundaries}: {op} {path}")

    def _count(self, op: str, code: int) -> None:
        key = f"{op}:{errno.errorcode.get(code, str(code))}"
        self.fault_counts[key] = self.fault_counts.get(key, 0) + 1

    def _injected(self, op: str, path: str, code: int) -> OSError:
        self._count(op, code)
        return _error(code, path)

    def _sync(self, op: str, handle: int) -> None:
        file, path, _ = self._handle(handle)
        fired = self._check(op, path)
        if fired is not None and fired.errno:
            file.fail_sync()
            raise self._injected(op, path, fired.errno)
        file.sync()

    def _handle(self, handle: int) -> tuple[File, str, bool]:
        found = self._handles.get(handle)
        if found is None:
            if self.is_crashed:
                raise SimCrash("the machine is down")
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return found

    def _find(self, path: str) -> File | Directory | None:
        node: File | Directory = self._root
        if not path:
            return node
        for part in path.split("/"):
            if not isinstance(node, Directory):
                return None
            child = node.names.get(part)
            if child is None:
                return None
            node = child
        return node

    def _directory(self, path: str) -> Directory:
        node = self._find(path)
        if node is None:
            if self.is_crashed:
                raise SimCrash("the machine is down")
            raise _error(errno.ENOENT, path)
        if isinstance(node, File):
            raise _error(errno.ENOTDIR, path)
        return node

    def _parent(self, path: str) -> tuple[Directory, str]:
        head, _, name = path.rpartition("/")
        assert name not in ("", ".", ".."), path
        return self._directory(head), name

    def _file(self, path: str) -> File:
        node = self._find(path)
        if not isinstance(node, File):
            raise _error(errno.ENOENT, path)
        return node

    def _walk(self, directory: Directory, path: str, *, seen_only: bool = False) -> Iterator[Node]:
        yield path, directory
        children = directory.names.items() if seen_only else directory.children()
        for name, node in children:
            child = f"{path}/{name}" if path else name
            if isinstance(node, Directory):
                yield from self._walk(node, child, seen_only=seen_only)
            else:
                yield child, node

    def _reboot(
        self,
        kept: Callable[[str, int, Change], list[tuple[int, int]] | None],
        named: Callable[[str, int, NameChange], bool],
    ) -> None:
        for path, node in list(self._walk(self._root, "")):
            if isinstance(node, File):
                node.reboot(partial(kept, path))
            else:
                node.reboot(partial(named, path))
        self._used_bytes = sum(
            len(node.image) for _, node in self._walk(self._root, "", seen_only=True) if isinstance(node, File)
        )
        self.kill()


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
