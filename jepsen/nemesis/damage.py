"""Damage to stored bytes while nobody looks: flips, stale and misdirected sectors, truncation, lost files (D1–D5)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from random import Random
from typing import Protocol

SECTOR_BYTES = 512

FILE_CLASSES = {
    "journal": "journal/*",
    "segment": "groups/*/segments/*",
    "head": "groups/*/HEAD.*",
    "chunk": "groups/*/chunks/*",
    "identity": "IDENTITY*",
    "index": "index/*",
    "everything": "*",
}


class DamagedDisk(Protocol):
    """A disk whose bytes can be changed behind its owner's back."""

    def files(self) -> list[str]: ...

    def peek(self, path: str) -> bytes: ...

    def poke(self, path: str, offset: int, data: bytes) -> None: ...

    def cut(self, path: str, size_bytes: int) -> None: ...

    def lose(self, path: str) -> None: ...

    def bad_sectors(self, path: str, start: int, end: int) -> None: ...


def strike(disk: DamagedDisk, rng: Random, file_class: str, kind: str) -> str | None:
    """Damage one file of the class (bytes that are not blank, where that matters); what was done, None if nothing."""
    pattern = FILE_CLASSES[file_class]
    paths = [path for path in disk.files() if fnmatchcase(path, pattern) and disk.peek(path).strip(b"\0")]
    if not paths:
        return None
    path = rng.choice(paths)
    data = disk.peek(path)
    used = len(data.rstrip(b"\0"))
    offset = rng.randrange(used)
    sector = offset // SECTOR_BYTES * SECTOR_BYTES
    if kind == "flip":
        count = rng.choice((1, 1, 3))
        for _ in range(count):
            disk.poke(path, offset, bytes([disk.peek(path)[offset] ^ (1 << rng.randrange(8))]))
            offset = rng.randrange(used)
        return f"{count} flipped bits in {path}, the first at {sector}"
    if kind == "zero":
        disk.poke(path, sector, bytes(SECTOR_BYTES))
        return f"zeroed sector at {sector} of {path}"
    if kind == "misdirect":
        source = rng.randrange(used) // SECTOR_BYTES * SECTOR_BYTES
        disk.poke(path, sector, data[source : source + SECTOR_BYTES])
        return f"sector at {source} of {path} written to {sector}"
    if kind == "garbage":
        disk.poke(path, sector, rng.randbytes(SECTOR_BYTES))
        return f"garbage in the sector at {sector} of {path}"
    if kind == "unreadable":
        disk.bad_sectors(path, sector, sector + SECTOR_BYTES)
        return f"unreadable sector at {sector} of {path}"
    if kind == "cut":
        disk.cut(path, offset)
        return f"{path} cut to {offset} bytes"
    assert kind == "lose", kind
    disk.lose(path)
    return f"{path} is gone"


KINDS = ("flip", "flip", "flip", "zero", "misdirect", "garbage", "unreadable", "cut", "lose")
