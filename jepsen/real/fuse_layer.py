"""A file system of our own that forgets at a power cut what was not synced; needs libfuse, /dev/fuse and root.

``python -m jepsen.real.fuse_layer BACKING MOUNT NAMES`` serves a ``disk_image.DiskImage`` at MOUNT. While it is mounted
it only serves. When it is unmounted it reads one line: ``cut``, ``cut SEED`` or ``quit``; after a cut it answers with
what was lost and mounts again: the kernel has nothing cached then. ``PowerDisk`` is the other side of this talk.
With a number of seconds in the place of NAMES it is a disk that loses nothing, and takes so long for each sync
(``SlowDisk``): for that, requests are served side by side.

Writes reach this process at once (no write-back cache in the kernel); mmap reads work, since direct_io is off.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from ctypes.util import find_library
from itertools import count
from pathlib import Path
from typing import Any

from .disk_image import DiskImage, Names, Node, SlowImage

UNMOUNT_TIMEOUT_S = 20.0
SYNCS_AT_ONCE = 256
"""Of a slow disk; a cloud's disks take as many requests in parallel."""


def missing() -> str:
    """Why this cannot run here; "" when it can."""
    if sys.platform != "linux":
        return "not Linux"
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if not (find_library("fuse3") or find_library("fuse")):
        return "no libfuse"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"no mfusepy: {error}"
    return ""


def operations(image: DiskImage) -> Any:
    """The mfusepy operations of an image; prints "mounted" when the kernel has taken it."""
    import mfusepy

    handles: dict[int, Node] = {}
    numbers = count(1)

    def node_of(path: str | None, handle: int | None) -> Node:
        if handle is not None and handle in handles:
            return handles[handle]
        if path is None:
            raise OSError(errno.ENOENT, "no path")
        return image.find(path)

    def opened(node: Node) -> int:
        image.open(node)
        handle = next(numbers)
        handles[handle] = node
        return handle

    class Operations(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no type information
        use_ns = True

        def init(self, path: str) -> None:
            print("mounted", flush=True)

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            node = node_of(path, fh)
            return {
                "st_mode": node.mode,
                "st_nlink": max(1, node.links),
                "st_size": node.size,
                "st_blocks": (node.size + 511) // 512,
                "st_mtime": node.mtime_ns,
                "st_ctime": node.mtime_ns,
                "st_atime": node.mtime_ns,
                "st_uid": 0,
                "st_gid": 0,
            }

        def readdir(self, path: str, fh: int) -> Iterator[str]:
            yield "."
            yield ".."
            yield from list(image.find(path).names)

        def mkdir(self, path: str, mode: int) -> int:
            image.create(path, stat.S_IFDIR | mode)
            return 0

        def create(self, path: str, mode: int, fi: int | None = None) -> int:
            return opened(image.create(path, stat.S_IFREG | (mode & 0o7777)))

        def open(self, path: str, flags: int) -> int:
            node = image.find(path)
            if flags & os.O_TRUNC:
                image.truncate(node, 0)
            return opened(node)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(node_of(path, fh).seen, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            return image.write(node_of(path, fh), data, offset)

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            image.truncate(node_of(path, fh), length)
            return 0

        def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
            node = node_of(path, fh)
            if mode & ~1:  # all but KEEP_SIZE
                raise OSError(errno.EOPNOTSUPP, path)
            if not mode and offset + size > node.size:
                image.truncate(node, offset + size)
            return 0

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            image.sync(node_of(path, fh))
            return 0

        def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
            image.sync(image.find(path))
            return 0

        def release(self, path: str, fh: int) -> int:
            image.close(handles.pop(fh))
            return 0

        def unlink(self, path: str) -> int:
            image.remove(path)
            return 0

        def rmdir(self, path: str) -> int:
            image.remove(path)
            return 0

        def rename(self, old: str, new: str) -> int:
            image.rename(old, new)
            return 0

        def link(self, target: str, source: str) -> int:
            image.link(source, target)
            return 0

        def chmod(self, path: str, mode: int) -> int:
            node = image.find(path)
            node.mode = stat.S_IFMT(node.mode) | (mode & 0o7777)
            return 0

        def chown(self, path: str, uid: int, gid: int) -> int:
            return 0

        def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
            image.find(path).mtime_ns = time.time_ns() if times is None else times[1]
            return 0

        def statfs(self, path: str) -> dict[str, int]:
            real = os.statvfs(image.backing)
            return {key: getattr(real, key) for key in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail")}

    return Operations()


def main(argv: list[str]) -> int:
    """Serve, and obey the line that comes after each unmount."""
    import mfusepy

    backing, mount, kind = argv
    image: DiskImage
    threads: dict[str, int]
    if kind in list(Names):
        image, threads = DiskImage(Path(backing), Names(kind)), {"nothreads": True}
    else:
        image, threads = SlowImage(Path(backing), float(kind)), {"max_threads": SYNCS_AT_ONCE}
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    while True:
        mfusepy.FUSE(operations(image), mount, foreground=True, hard_remove=True, fsname="jepsen", **threads)
        words = sys.stdin.readline().split()
        if not words or words[0] == "quit":
            return 0
        lost = image.cut(int(words[1]) if len(words) > 1 else None)
        print(json.dumps(lost | {"syncs": image.syncs, "written": image.bytes_written}), flush=True)


class FuseDisk:
    """The layer in a process of its own. Everything is under ``folder``; ``mount`` is where stores go."""

    def __init__(self, folder: Path, kind: str) -> None:
        """OSError when it does not get mounted; ask ``missing`` first."""
        self.mount = folder / "mount"
        self.mount.mkdir(parents=True)
        self._log = (folder / "layer.log").open("wb")
        self._layer = subprocess.Popen(
            [sys.executable, "-m", "jepsen.real.fuse_layer", str(folder / "backing"), str(self.mount), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=Path(__file__).resolve().parents[2],
            text=True,
        )
        self._wait_mounted()

    def close(self) -> None:
        """Unmount and end the layer. Idempotent."""
        if self._layer.poll() is None:
            try:
                self._unmount()
                assert self._layer.stdin is not None
                self._layer.stdin.write("quit\n")
                self._layer.stdin.close()
                self._layer.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                self._layer.kill()
                self._layer.wait()
        if self._layer.stdout is not None:
            self._layer.stdout.close()
        self._log.close()

    def _say(self, line: str) -> str:
        assert self._layer.stdin is not None
        assert self._layer.stdout is not None
        self._layer.stdin.write(line + "\n")
        self._layer.stdin.flush()
        answer = self._layer.stdout.readline()
        if not answer:
            raise OSError(f"the layer ended: {self._tail()}")
        return answer

    def _wait_mounted(self) -> None:
        assert self._layer.stdout is not None
        answer = self._layer.stdout.readline().strip()
        if answer != "mounted":
            raise OSError(f"not mounted: {answer} {self._tail()}")
        deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
        while not os.path.ismount(self.mount):
            if time.monotonic() > deadline:
                raise OSError("mounted, but not in the mount table")
            time.sleep(0.002)

    def _unmount(self) -> None:
        program = shutil.which("umount") or "/bin/umount"
        deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
        while os.path.ismount(self.mount):
            done = subprocess.run([program, str(self.mount)], capture_output=True, text=True, check=False)
            if done.returncode and time.monotonic() > deadline:
                raise OSError(f"cannot unmount: {done.stderr}")
            if done.returncode:
                time.sleep(0.01)

    def _tail(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")[-2000:]


class PowerDisk(FuseDisk):
    """A mounted file system whose power can be cut."""

    def __init__(self, folder: Path, names: Names = Names.STRICT) -> None:
        super().__init__(folder, names.value)

    def cut(self, seed: int | None = None) -> dict[str, int]:
        """Cut the power (the server must be dead already) and mount what the disk has; what was lost."""
        self._unmount()
        lost: dict[str, int] = json.loads(self._say("cut" if seed is None else f"cut {seed}"))
        self._wait_mounted()
        return lost


class SlowDisk(FuseDisk):
    """A mounted file system on which a sync takes ``sync_s`` seconds; so do ``SYNCS_AT_ONCE`` of different files."""

    def __init__(self, folder: Path, sync_s: float) -> None:
        super().__init__(folder, repr(sync_s))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
