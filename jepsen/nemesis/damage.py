"""Damage to stored bytes while nobody looks: flips, stale and misdirected sectors, truncation, lost files (D1–D5)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from random import Random
from typing import Protocol

from jetstore.store.journal.format import unpack_header

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


def strike(
    disk: DamagedDisk, rng: Random, file_class: str, kind: str, earlier: DamagedDisk | None = None
) -> str | None:
    """Damage one file of the class (bytes that are not blank, where that matters); what was done, None if nothing.

    ``earlier``: the same disk as it was some time ago, for what is stale. A sector of the journal's last block is never
    made blank: that is how a power cut leaves a block that nobody was promised, and until the idle block behind it is
    durable nothing tells the two apart (docs/format/journal.md, residual).
    """
    pattern = FILE_CLASSES[file_class]
    if kind in ("stale", "old"):
        return _go_back(disk, rng, pattern, kind, earlier)
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
        return f"zeroed sector at {sector} of {path}" if _replace(disk, path, sector, b"") else None
    if kind == "misdirect":
        source = rng.randrange(used) // SECTOR_BYTES * SECTOR_BYTES
        is_done = _replace(disk, path, sector, data[source : source + SECTOR_BYTES])
        return f"sector at {source} of {path} written to {sector}" if is_done else None
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


def _replace(disk: DamagedDisk, path: str, sector: int, data: bytes) -> bool:
    """Put other bytes (short ones: and blank ones) into a sector; False: they would blank a part of the last block."""
    if not data.strip(b"\0") and fnmatchcase(path, FILE_CLASSES["journal"]):
        last_path, start, end = last_block(disk)
        if path == last_path and start <= sector < end:
            return False
    disk.poke(path, sector, data.ljust(SECTOR_BYTES, b"\0"))
    return True


def last_block(disk: DamagedDisk) -> tuple[str, int, int]:
    """File, start and end of the journal's newest block, by either copy of its head; no file when there is none."""
    highest_lsn, found = 0, ("", 0, 0)
    for path in disk.files():
        if not fnmatchcase(path, FILE_CLASSES["journal"]):
            continue
        data = memoryview(disk.peek(path))
        for at in range(0, len(data), SECTOR_BYTES):
            header = unpack_header(data[at : at + SECTOR_BYTES])
            if header is not None and header.lsn > highest_lsn and at in (header.block_offset, header.second_offset):
                highest_lsn, found = header.lsn, (path, header.block_offset, header.block_offset + header.block_bytes)
    return found


def _go_back(disk: DamagedDisk, rng: Random, pattern: str, kind: str, earlier: DamagedDisk | None) -> str | None:
    """Bring back one sector, one file, or all files of the class, as they were.

    Journal files go back all together, and only if IDENTITY stays and the server was started since: on a single disk
    nothing else proves what the newest of them held (docs/format/journal.md, residual). A known gap, not a pass.
    """
    if earlier is None:
        return None
    there = set(earlier.files()) & set(disk.files())
    paths = [path for path in sorted(there) if fnmatchcase(path, pattern)]
    changed = [path for path in paths if disk.peek(path) != earlier.peek(path)]
    journal: list[str] = []
    if kind == "old":
        journal = [path for path in changed if path.startswith("journal/")]
        changed = [path for path in changed if not path.startswith("journal/")]
        is_covered = all(name in there and disk.peek(name) != earlier.peek(name) for name in ("IDENTITY", "IDENTITY.b"))
        if journal and is_covered and not changed:
            return _old_journal(disk, earlier, journal)
    if not changed:
        return None
    path = rng.choice(changed)
    now, before = disk.peek(path), earlier.peek(path)
    if kind == "stale":
        sectors = [
            at
            for at in range(0, len(now), SECTOR_BYTES)
            if now[at : at + SECTOR_BYTES] != before[at : at + SECTOR_BYTES]
        ]
        if not sectors:
            return None
        sector = rng.choice(sectors)
        is_done = _replace(disk, path, sector, before[sector : sector + SECTOR_BYTES])
        return f"stale sector at {sector} of {path}" if is_done else None
    chosen = changed if rng.random() < 0.4 else [path]
    for old in chosen:
        before = earlier.peek(old)
        disk.cut(old, len(before))
        disk.poke(old, 0, before)
    return f"old content of {', '.join(chosen)}"


def _old_journal(disk: DamagedDisk, earlier: DamagedDisk, changed: list[str]) -> str:
    """The whole journal as it was."""
    for path in changed:
        before = earlier.peek(path)
        disk.cut(path, len(before))
        disk.poke(path, 0, before)
    for path in disk.files():
        if path.startswith("journal/") and path not in earlier.files():
            disk.lose(path)
    return f"the journal as it was: {', '.join(changed)}"


KINDS = ("flip", "flip", "flip", "zero", "misdirect", "garbage", "unreadable", "cut", "lose", "stale", "stale", "old")
