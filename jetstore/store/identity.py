"""IDENTITY: who this node is, in two checksummed copies (``docs/format/identity.md``).

The boot counter is durable in both copies before ``open_identity`` returns, so no two lives of a node share a number,
and a copied or reverted disk is recognised by (boot counter, nonce).
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from jetstore.errors import Corruption, FormatUnknown
from jetstore.hot.crc import crc32c
from jetstore.store.vfs import Vfs

NAMES = ("IDENTITY", "IDENTITY.b")
FORMAT_VERSION = 0
_TITLE = f"jetstore identity {FORMAT_VERSION}\n"
_CRC_KEY = "crc32c = "


class FoundingNode(NamedTuple):
    """One of the nodes that founded the cluster together."""

    name: str
    node_id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is. Immutable; changes go through ``save_identity``."""

    node_name: str
    node_id: str
    """16 hexadecimal digits, drawn when the store was made."""
    incarnation: int
    """Raised when the node has lost what it promised under the old one."""
    cluster_id: str
    """"" until the node belongs to a cluster."""
    boot_counter: int
    boot_nonce: str
    """16 hexadecimal digits, drawn at every start."""
    journal_id: str
    """32 hexadecimal digits: seeds every checksum of this incarnation's journal."""
    journal_born: bool
    """A journal was made: if there is none later, it was lost, and with it everything this incarnation promised."""
    founding: tuple[FoundingNode, ...] = ()
    """The nodes that founded the cluster, by name: the metadata group's first voters are 1, 2, … in this order."""
    journal_lsn: int = 0
    """The journal had a durable block of this number: one that ends before is older than what this node promised."""
    excused_lsn: int = 0
    """Heads of checkpoints that name a journal block up to this one were judged by at an earlier start: ``journal_lsn``
    says as much, or the journal was an older one and its own table has said so since."""

    disowned: str = ""
    """Who refused this disk as an old or cloned one, and why: nothing is served from it any more. "" = nobody."""

    @property
    def journal_id_bytes(self) -> bytes:
        return bytes.fromhex(self.journal_id)


def open_identity(vfs: Vfs, node_name: str, draw: Callable[[int], bytes]) -> tuple[Identity, list[str]]:
    """This start's identity, with its boot counter already durable, and what was found wrong.

    ``draw(n)`` gives n random bytes. A store without any copy gets a new identity named ``node_name``; an existing one
    keeps the name it has. Corruption if copies are there and none is readable. OSError from a write or sync is final.
    """
    found, findings = read_identity(vfs)
    if found is None:
        if findings:
            raise Corruption("no copy of the identity is readable: " + "; ".join(findings), file=NAMES[0], offset=0)
        found = Identity(node_name, draw(8).hex(), 1, "", 0, "", draw(16).hex(), journal_born=False)
    identity = replace(found, boot_counter=found.boot_counter + 1, boot_nonce=draw(8).hex())
    save_identity(vfs, identity)
    return identity, findings


def read_identity(vfs: Vfs) -> tuple[Identity | None, list[str]]:
    """The readable copy of the latest boot, or None; and what was wrong with the others. Writes nothing."""
    best: Identity | None = None
    findings: list[str] = []
    for name in NAMES:
        if not vfs.exists(name):
            continue
        try:
            handle = vfs.open(name, write=False)
            try:
                data = vfs.pread(handle, vfs.size(handle), 0)
            finally:
                vfs.close(handle)
            copy = decode(data, name)
        except FormatUnknown:
            raise
        except (Corruption, OSError) as error:
            findings.append(str(error))
            continue
        if best is None or copy.boot_counter > best.boot_counter:
            best = copy
    if best is not None and not findings:
        findings += [f"{name} is missing: written again" for name in NAMES if not vfs.exists(name)]
    return best, findings


def save_identity(vfs: Vfs, identity: Identity) -> None:
    """Both copies durable and read back, one after the other: at any moment one of them is whole."""
    data = encode(identity)
    for name in NAMES:
        try:
            _replace(vfs, name, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not _is_other_whole(vfs, name):
                raise
            _overwrite(vfs, name, data)  # a full disk must not keep a store from being opened
        handle = vfs.open(name, write=False)
        try:
            if vfs.pread(handle, len(data) + 1, 0) != data:
                raise Corruption("read back differs", file=name, offset=0)
        finally:
            vfs.close(handle)


def note_journal(vfs: Vfs, lsn: int, excused_lsn: int = 0) -> None:
    """Remember that the journal has a durable block of this number. OSError from a write or sync is final."""
    identity, _ = read_identity(vfs)
    if identity is not None:
        noted = replace(identity, journal_lsn=lsn, excused_lsn=max(identity.excused_lsn, excused_lsn))
        if noted != identity:
            save_identity(vfs, noted)


def _replace(vfs: Vfs, name: str, data: bytes) -> None:
    temp = name + ".tmp"
    handle = vfs.open(temp, create=True)
    try:
        vfs.truncate(handle, 0)
        vfs.pwrite(handle, [data], 0)
        vfs.fsync(handle)
    finally:
        vfs.close(handle)
    vfs.rename(temp, name)
    vfs.fsync_dir("")


def _is_other_whole(vfs: Vfs, name: str) -> bool:
    """Whether this copy may be overwritten in place: the other one is readable."""
    (other,) = (each for each in NAMES if each != name)
    if not (vfs.exists(name) and vfs.exists(other)):
        return False
    handle = vfs.open(other, write=False)
    try:
        decode(vfs.pread(handle, vfs.size(handle), 0), other)
    except Corruption:
        return False
    finally:
        vfs.close(handle)
    return True


def _overwrite(vfs: Vfs, name: str, data: bytes) -> None:
    """Write into the copy that is there: it needs no room, and the other copy is whole meanwhile."""
    handle = vfs.open(name)
    try:
        vfs.pwrite(handle, [data], 0)
        vfs.truncate(handle, len(data))
        vfs.fsync(handle)
    finally:
        vfs.close(handle)


def encode(identity: Identity) -> bytes:
    """The file's bytes: a title, one ``key = JSON value`` a line, and the crc32c of everything before its line."""
    lines = [f"{field.name} = {json.dumps(getattr(identity, field.name))}\n" for field in fields(identity)]
    body = (_TITLE + "".join(lines)).encode("ascii")
    return body + f"{_CRC_KEY}{crc32c(body):08x}\n".encode("ascii")


def decode(data: bytes, name: str) -> Identity:
    """The identity in a file's bytes. Corruption unless every byte is as ``encode`` would have written it."""
    body, key, crc = data.rpartition(_CRC_KEY.encode("ascii"))
    if not key or crc != f"{crc32c(body):08x}\n".encode("ascii"):
        raise Corruption("identity checksum", file=name, offset=max(0, len(body)))
    if not body.startswith(_TITLE.encode("ascii")):
        raise FormatUnknown("identity format", file=name, offset=0, expected=_TITLE, actual=body[: len(_TITLE)])
    values: dict[str, Any] = {}
    for line in body.decode("ascii").splitlines()[1:]:
        field, _, value = line.partition(" = ")
        values[field] = json.loads(value)
    try:
        values["founding"] = tuple(FoundingNode(*node) for node in values["founding"])
        return Identity(**values)
    except (TypeError, KeyError) as error:
        raise FormatUnknown(f"identity fields: {error}", file=name, offset=0) from error
