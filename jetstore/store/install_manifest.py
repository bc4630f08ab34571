"""What a group has received from its peers and not installed yet: a small file that says which bytes of which files.

The files stand among the group's segments under names that no head has; opening the group leaves those that the
manifest names alone. It is written after the bytes it names are durable, so what it says survives every crash. Received
records stay good whatever happens meanwhile: a sequence has one message for ever. Source: ``docs/format/catch-up.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jetstore.errors import Corruption, FormatUnknown
from jetstore.store.checkpoint_files import KIND_MANIFEST, group_dir, read_framed
from jetstore.store.vfs import Vfs
from jetstore.types import GroupUid

MANIFEST_VERSION = 0
MANIFEST_NAME = "INSTALL"


def manifest_path(uid: int) -> str:
    """Path of a group's manifest."""
    return f"{group_dir(GroupUid(uid))}/{MANIFEST_NAME}"


def encode_manifest(fields: Mapping[str, Any]) -> bytes:  # Any: JSON values
    """Content of the file."""
    return json.dumps({"version": MANIFEST_VERSION, **fields}, separators=(",", ":")).encode()


def read_manifest(vfs: Vfs, uid: int) -> dict[str, Any] | None:  # Any: JSON values
    """The manifest's fields; None if there is none that can be read: then what was received is fetched again."""
    path = manifest_path(uid)
    if not vfs.exists(path):
        return None
    try:
        fields = json.loads(read_framed(vfs, GroupUid(uid), KIND_MANIFEST, path))
    except (Corruption, OSError, ValueError):
        return None
    if not isinstance(fields, dict) or fields.get("version") != MANIFEST_VERSION:
        raise FormatUnknown("version of a manifest", file=path, offset=0, expected=MANIFEST_VERSION)
    return fields


def received_names(vfs: Vfs, uid: int) -> set[str]:
    """Names among the group's segments that must stay although no head has them."""
    fields = read_manifest(vfs, uid)
    return {row[0] for row in fields["files"]} if fields is not None else set()


def keep_received(vfs: Vfs, uid: int, named: set[str]) -> set[str]:
    """The same at an opening, where the head has ``named``.

    A manifest of files that the head has is left over from an install that was cut off at its very end: it goes before
    it can be taken for what is still to be installed, and its other files go with it.
    """
    names = received_names(vfs, uid)
    if names.isdisjoint(named):
        return names
    vfs.unlink(manifest_path(uid))
    vfs.fsync_dir(group_dir(GroupUid(uid)))
    return set()
