"""What the body of an ENTRIES record holds: a run of Raft entries with consecutive indexes and one term.

Each entry is ``u32 length | u32 message_count | data``, little-endian; nothing between, nothing behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import chain

from jetstore.types import Buffer

_ENTRY = struct.Struct("<II")
ENTRY_HEADER_BYTES = _ENTRY.size


def encode_entries(entries: Iterable[tuple[int, Buffer]]) -> bytes:
    """The body for entries given as (message_count, data)."""
    pack = _ENTRY.pack
    return b"".join(chain.from_iterable((pack(len(data), count), data) for count, data in entries))


def encode_entry(message_count: int, data: bytes) -> bytes:
    """The body for one entry."""
    return _ENTRY.pack(len(data), message_count) + data


def iter_entries(body: Buffer) -> Iterator[tuple[int, bytes]]:
    """(message_count, data) of each entry. ValueError if the body does not end where its last entry ends."""
    view = memoryview(body)
    size = len(view)
    offset = 0
    while offset < size:
        if size - offset < ENTRY_HEADER_BYTES:
            raise ValueError("an entry's head is cut short")
        length, count = _ENTRY.unpack_from(view, offset)
        offset += ENTRY_HEADER_BYTES
        if length > size - offset:
            raise ValueError("an entry is longer than its record")
        yield count, bytes(view[offset : offset + length])
        offset += length


def salvage_entries(body: Buffer, is_good: list[bool], sector_bytes: int, skew: int) -> list[tuple[int, bytes]]:
    """The first entries of a damaged body that lie wholly in good sectors.

    ``is_good[k]`` judges bytes ``k * sector_bytes - skew …`` of the body (``skew`` = how far into its first sector the
    body starts). Stops at the first entry that touches a bad sector: what follows cannot be located with certainty.
    """
    view = memoryview(body)
    first_bad = next((k * sector_bytes - skew for k, good in enumerate(is_good) if not good), len(view))
    found: list[tuple[int, bytes]] = []
    offset = 0
    while offset + ENTRY_HEADER_BYTES <= first_bad:
        length, count = _ENTRY.unpack_from(view, offset)
        offset += ENTRY_HEADER_BYTES
        if offset + length > min(first_bad, len(view)):
            break
        found.append((count, bytes(view[offset : offset + length])))
        offset += length
    return found
