"""Archives of streams as nats-server 2.15 makes them: a magic word, and entries with a head of varints.

::

    archive = "NATSARC1" entry…
    entry   = name-len:uvarint time_ns:varint seq:uvarint header-len:uvarint body-len:uvarint  name header body

The entries of a stream: ``state.json``; ``consumers/<name>`` as many as the state says; the messages by sequence, each
under its subject; at the end an entry that is all zeros, without which an archive was cut off.
Source: ``docs/format/archive.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from jetstore.errors import ArchiveError
from jetstore.store.ports import Message

MAGIC: Final = b"NATSARC1"
NAME_BYTES_MAX: Final = 65_535
"""Of an entry: a subject cannot be longer here."""
_INT64_MAX: Final = 2**63 - 1


class EntryHead(NamedTuple):
    """What stands in front of an entry's bytes."""

    name: bytes
    time_ns: int
    seq: int
    """0 = no message."""
    header_bytes: int
    body_bytes: int


Entry = tuple[EntryHead, bytes]
"""A head, and header block and body behind each other."""
END: Final = bytes(5)
"""The entry at the end."""


def encode_entry(name: bytes, time_ns: int, content: bytes) -> bytes:
    """An entry that is no message."""
    return b"%b%b%b" % (_head(len(name), time_ns, 0, 0, len(content)), name, content)


def encode_messages(messages: Iterable[Message]) -> bytes:
    """Entries of messages."""
    parts: list[bytes] = []
    for seq, time_ns, subject, header, data in messages:
        parts += (_head(len(subject), time_ns, seq, len(header), len(data)), subject, header, data)
    return b"".join(parts)


def _head(name_bytes: int, time_ns: int, seq: int, header_bytes: int, body_bytes: int) -> bytes:
    made = bytearray()
    for value in (name_bytes, (time_ns << 1) ^ (time_ns >> 63), seq, header_bytes, body_bytes):
        while value > 0x7F:
            made.append(value & 0x7F | 0x80)
            value >>= 7
        made.append(value)
    return bytes(made)


class ArchiveReader:
    """The entries of an archive that arrives in pieces. Keeps one entry at most, as large as ``check`` lets pass."""

    def __init__(self, check: Callable[[EntryHead], None]) -> None:
        """``check`` sees every head before the bytes behind it are waited for; it raises ``ArchiveError``."""
        self._check = check
        self._waiting = bytearray()
        self._has_magic = False
        self._head: EntryHead | None = None

    @property
    def is_between(self) -> bool:
        """Whether everything fed so far was whole entries."""
        return self._has_magic and not self._waiting and self._head is None

    def feed(self, data: bytes | bytearray) -> list[Entry]:
        """The entries that ``data`` completes, in order. Raises ``ArchiveError``; then nothing more can be read."""
        waiting = self._waiting
        waiting += data
        entries: list[Entry] = []
        at = 0
        if not self._has_magic:
            if not MAGIC.startswith(waiting[: len(MAGIC)]):
                raise ArchiveError("not an archive of nats-server 2.15 or later")
            if len(waiting) < len(MAGIC):
                return entries
            self._has_magic = True
            at = len(MAGIC)
        while True:
            if self._head is None:
                found = _read_head(waiting, at)
                if found is None:
                    break
                self._head, at = found
                self._check(self._head)
            size = self._head.header_bytes + self._head.body_bytes
            if len(waiting) - at < size:
                break
            entries.append((self._head, bytes(waiting[at : at + size])))
            self._head = None
            at += size
        del waiting[:at]
        return entries


def _read_head(data: bytearray, at: int) -> tuple[EntryHead, int] | None:
    """The head at ``at`` and where it ends; None if it is not there as a whole yet."""
    end = len(data)
    values: list[int] = []
    while len(values) < 5:
        value = shift = 0
        while True:
            if at >= end:
                return None
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise ArchiveError("invalid archive stream: a number of more than 64 bits")
        values.append(value)
        if len(values) == 1 and value > NAME_BYTES_MAX:
            raise ArchiveError(f"invalid archive stream: a name of {value} bytes")
    name_bytes, zigzag, seq, header_bytes, body_bytes = values
    if max(zigzag, seq) > 2 * _INT64_MAX + 1 or header_bytes + body_bytes > _INT64_MAX:
        raise ArchiveError("invalid archive stream: a number of more than 64 bits")
    if end - at < name_bytes:
        return None
    time_ns = (zigzag >> 1) ^ -(zigzag & 1)
    name = bytes(data[at : at + name_bytes])
    return EntryHead(name, time_ns, seq, header_bytes, body_bytes), at + name_bytes
