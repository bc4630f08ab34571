"""Checkpoint files of a group: two copies of its head and immutable chunks (``docs/format/checkpoint.md``).

What is inside is the state machine's business; here it is bytes in a frame. Each file is written under a temporary
name, synced, renamed, its directory synced, and read back, before anything refers to it; ``HEAD.b`` is touched only
when ``HEAD.a`` is done, so at any moment at least one head is whole. In an encrypted store contents are sealed
(those of KEYS have a seal of their own).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from jetstore.errors import Corruption, DiskFull, FormatUnknown, ReadBackFailed
from jetstore.hot.crc import crc32c
from jetstore.store.keys import check_plain, opened
from jetstore.store.vfs import Vfs
from jetstore.types import Buffer, GroupUid

GROUPS_DIR = "groups"
HEAD_NAMES = ("HEAD.a", "HEAD.b")
TEMP_SUFFIX = ".tmp"
FULL_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT))

MAGIC = b"JSCKPT\x00\x00"
VERSION = 0
KIND_HEAD = 1
KIND_CHUNK = 2
KIND_MANIFEST = 3
KIND_KEYS = 4
FLAG_INSTALLED = 1
"""A head that came from a peer: the group's own journal need not lead up to it."""
FLAG_SEALED = 2
"""The content is sealed (``keys.py``); its length and checksum are those of what stands in the file."""
_FLAGS = FLAG_INSTALLED | FLAG_SEALED
_FRAME = struct.Struct("<8sHHIQQQI")
"""magic, version, kind, flags, group uid, content length, journal block, content crc; then their crc; the content."""
_CRC = struct.Struct("<I")
FRAME_BYTES = _FRAME.size + _CRC.size


class HeadCopy(NamedTuple):
    """One readable copy of a group's head."""

    content: bytes
    hash: int
    """``head_hash`` of the content: what its CKPT line carries."""
    is_installed: bool = False
    """It came from a peer."""
    journal_lsn: int = 0
    """The journal had a durable block of this number when the copy was written."""


def group_dir(uid: GroupUid) -> str:
    """Directory of a group."""
    return f"{GROUPS_DIR}/{uid}"


def segment_path(uid: GroupUid, name: str) -> str:
    """Path of a segment file."""
    return f"{GROUPS_DIR}/{uid}/segments/{name}"


def chunk_path(uid: GroupUid, name: str) -> str:
    """Path of a chunk."""
    return f"{GROUPS_DIR}/{uid}/chunks/{name}"


def head_hash(head: Buffer) -> int:
    """64 bits that name a head's content."""
    return int.from_bytes(blake2b(head, digest_size=8).digest(), "little")


def make_group_dir(vfs: Vfs, uid: GroupUid) -> None:
    """The group's directories, durable. Idempotent."""
    vfs.mkdir(GROUPS_DIR)
    vfs.fsync_dir("")
    vfs.mkdir(group_dir(uid))
    vfs.fsync_dir(GROUPS_DIR)
    for name in ("segments", "chunks"):
        vfs.mkdir(f"{group_dir(uid)}/{name}")
    vfs.fsync_dir(group_dir(uid))


def write_head(vfs: Vfs, uid: GroupUid, head: bytes, *, is_installed: bool = False, journal_lsn: int = 0) -> int:
    """Both copies durable and read back; the head's hash. ``journal_lsn``: the journal's last durable block.

    DiskFull, ReadBackFailed: at least one whole head is there as before.
    """
    flags = FLAG_INSTALLED if is_installed else 0
    for name in HEAD_NAMES:
        write_framed(vfs, uid, KIND_HEAD, f"{group_dir(uid)}/{name}", head, flags, journal_lsn)
    return head_hash(head)


def write_chunks(vfs: Vfs, uid: GroupUid, chunks: Mapping[str, bytes]) -> None:
    """All chunks durable and read back. Nothing refers to them yet, so DiskFull leaves only unnamed files."""
    for name, content in chunks.items():
        write_framed(vfs, uid, KIND_CHUNK, chunk_path(uid, name), content)


def read_heads(vfs: Vfs, uid: GroupUid) -> tuple[list[HeadCopy], list[str]]:
    """The readable copies of the head, and what was wrong with the others. No head at all: two empty lists."""
    found: list[HeadCopy] = []
    findings: list[str] = []
    for name in HEAD_NAMES:
        path = f"{group_dir(uid)}/{name}"
        if not vfs.exists(path):
            continue
        try:
            content, flags, journal_lsn = _read_framed(vfs, uid, KIND_HEAD, path)
        except FormatUnknown:
            raise
        except (Corruption, OSError) as error:
            findings.append(str(error))
            continue
        found.append(HeadCopy(content, head_hash(content), bool(flags & FLAG_INSTALLED), journal_lsn))
    return found, findings


def read_chunk(vfs: Vfs, uid: GroupUid, name: str) -> bytes:
    """A chunk's content. Corruption if it is missing or not what was written."""
    path = chunk_path(uid, name)
    try:
        return read_framed(vfs, uid, KIND_CHUNK, path)
    except OSError as error:
        raise Corruption(f"chunk unreadable: {error}", file=path, offset=0) from error


def write_framed(
    vfs: Vfs, uid: GroupUid, kind: int, path: str, content: bytes, flags: int = 0, journal_lsn: int = 0
) -> None:
    """Replace ``path`` by a framed file: temp, sync, rename, sync of the directory, read back."""
    stored = content
    if vfs.keys is not None and kind != KIND_KEYS:
        stored, flags = vfs.keys.seal(content), flags | FLAG_SEALED
    frame = _FRAME.pack(MAGIC, VERSION, kind, flags, uid, len(stored), journal_lsn, crc32c(stored))
    temp = path + TEMP_SUFFIX
    try:
        handle = vfs.open(temp, create=True)
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise DiskFull(f"no space for {temp}") from error
        raise
    try:
        try:
            vfs.truncate(handle, 0)
            vfs.pwrite(handle, [frame, _CRC.pack(crc32c(frame)), stored], 0)
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            vfs.unlink(temp)
            raise DiskFull(f"no space for {temp}") from error
        vfs.fsync(handle)
    finally:
        vfs.close(handle)
    vfs.rename(temp, path)
    vfs.fsync_dir(path.rpartition("/")[0])
    try:
        found = read_framed(vfs, uid, kind, path)
    except OSError as error:  # a read error is damage of what it covers, not of the node
        raise ReadBackFailed(f"{path} cannot be read back: {error}") from error
    if found != content:
        raise Corruption("read back differs", file=path, offset=FRAME_BYTES)


def sealed_with(vfs: Vfs, path: str) -> int:
    """Number of the data key that seals a framed file; 0 if it is not sealed, not there, or nobody can tell."""
    frame, first = _frame_at(vfs, path)
    return first if frame is not None and frame[3] & FLAG_SEALED else 0


def seal_file(vfs: Vfs, uid: GroupUid, kind: int, path: str) -> str:
    """Replace a framed file by the same one, sealed with the newest key, if it is not; why that cannot be, or "".

    Everything but its form stays, so the file is always one that may be there. DiskFull: it is as it was.
    """
    try:
        content, flags, journal_lsn = _read_framed(vfs, uid, kind, path)
    except FileNotFoundError:
        return ""
    except (Corruption, OSError) as error:
        return str(error)
    if vfs.keys is not None and sealed_with(vfs, path) != vfs.keys.newest:
        write_framed(vfs, uid, kind, path, content, flags & FLAG_INSTALLED, journal_lsn)
    return ""


def read_framed(vfs: Vfs, uid: GroupUid, kind: int, path: str) -> bytes:
    """The content of a framed file. Corruption if anything is not as written; OSError if it cannot be read."""
    return _read_framed(vfs, uid, kind, path)[0]


def newest_journal_block(vfs: Vfs) -> tuple[int, str]:
    """The highest journal block that any head says was durable when it was written, and that head's path; (0, "").

    Reads a few bytes of each; an unreadable copy says nothing (it is a finding when its group is opened).
    """
    newest, where = 0, ""
    for name in vfs.list_dir(GROUPS_DIR) if vfs.exists(GROUPS_DIR) else ():
        for path in [f"{GROUPS_DIR}/{name}/{head}" for head in HEAD_NAMES]:
            lsn = _journal_block(vfs, path)
            if lsn > newest:
                newest, where = lsn, path
    return newest, where


def _journal_block(vfs: Vfs, path: str) -> int:
    frame, _ = _frame_at(vfs, path)
    return frame[6] if frame is not None and frame[2] == KIND_HEAD else 0


def _frame_at(vfs: Vfs, path: str) -> tuple[tuple[Any, ...] | None, int]:
    """The frame of a file, of this version, and the first byte behind it; None if there is none that can be read."""
    try:
        if not vfs.exists(path):
            return None, 0
        handle = vfs.open(path, write=False)
        try:
            data = vfs.pread(handle, FRAME_BYTES + 1, 0)
        finally:
            vfs.close(handle)
    except OSError:
        return None, 0
    frame = data[: _FRAME.size]
    if len(data) < FRAME_BYTES or crc32c(frame) != _CRC.unpack_from(data, _FRAME.size)[0]:
        return None, 0
    fields = _FRAME.unpack(frame)
    return (fields if fields[:2] == (MAGIC, VERSION) else None), int.from_bytes(data[FRAME_BYTES:])


def _read_framed(vfs: Vfs, uid: GroupUid, kind: int, path: str) -> tuple[bytes, int, int]:
    """Content, flags, journal block."""
    handle = vfs.open(path, write=False)
    try:
        data = vfs.pread(handle, vfs.size(handle), 0)
    finally:
        vfs.close(handle)
    if len(data) < FRAME_BYTES:
        raise Corruption("checkpoint file cut short", file=path, offset=len(data))
    frame = data[: _FRAME.size]
    if crc32c(frame) != _CRC.unpack_from(data, _FRAME.size)[0]:
        raise Corruption("checkpoint frame checksum", file=path, offset=0)
    magic, version, found_kind, flags, found_uid, length, journal_lsn, crc = _FRAME.unpack(frame)
    if magic != MAGIC or version != VERSION or flags & ~_FLAGS:
        raise FormatUnknown("checkpoint file version", file=path, offset=0, expected=VERSION, actual=version)
    if (found_kind, found_uid, length) != (kind, uid, len(data) - FRAME_BYTES):
        raise Corruption(
            "checkpoint file is not the one expected",
            file=path,
            offset=0,
            expected=(kind, uid, len(data) - FRAME_BYTES),
            actual=(found_kind, found_uid, length),
        )
    content = data[FRAME_BYTES:]
    if crc32c(content) != crc:
        raise Corruption("checkpoint content checksum", file=path, offset=FRAME_BYTES, expected=crc)
    if flags & FLAG_SEALED:
        content = opened(vfs.keys, content)
    elif kind != KIND_KEYS:
        check_plain(vfs.keys, path)
    return content, flags, journal_lsn
