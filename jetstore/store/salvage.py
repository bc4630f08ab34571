"""Reading what can be read: a sector that the disk refuses becomes bytes that no checksum will accept."""

from __future__ import annotations

from jetstore.limits import SECTOR_BYTES
from jetstore.store.vfs import Vfs

REFUSED = b"\xee"
"""Stands for each byte that could not be read."""


def pread_salvaged(vfs: Vfs, handle: int, size_bytes: int, offset: int, refused: list[int] | None = None) -> bytes:
    """As ``Vfs.pread``, but an unreadable sector does not fail the others: a read error is damage, no reason to stop.

    Checksums over the result then name what is lost. Sectors are those of the file, so neighbours of a bad one survive.
    Positions that could not be read are added to ``refused``.
    """
    try:
        return vfs.pread(handle, size_bytes, offset)
    except OSError:
        size_bytes = min(size_bytes, max(0, vfs.size(handle) - offset))
    parts: list[bytes] = []
    position, end = offset, offset + size_bytes
    while position < end:
        stop = min(end, (position // SECTOR_BYTES + 1) * SECTOR_BYTES)
        try:
            parts.append(vfs.pread(handle, stop - position, position))
        except OSError:
            parts.append(REFUSED * (stop - position))
            if refused is not None:
                refused.append(position)
        position = stop
    return b"".join(parts)
