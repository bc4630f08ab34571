"""A store that held something before it had its newest key: what must hold before it gets one at all, and what goes.

The rest is written anew while the store is served (``jetstore/node/sealing.py``); until KEYS says that nothing of it is
left, all of it is read as it is. Source: ``docs/format/keys.md``, "What was stored before".
"""

from __future__ import annotations

from jetstore.errors import Corruption, OperatingError
from jetstore.limits import SECTOR_BYTES, Limits
from jetstore.store.checkpoint_files import GROUPS_DIR, HEAD_NAMES, TEMP_SUFFIX, sealed_with
from jetstore.store.install_manifest import MANIFEST_NAME
from jetstore.store.journal import format as fmt
from jetstore.store.journal.files import JOURNAL_DIR, file_numbers, file_path
from jetstore.store.vfs import Vfs

INDEX_DIR = "index"


def check_beginning(vfs: Vfs, limits: Limits) -> None:
    """Nothing, if this plain store may get keys now.

    Raises Corruption if it has lost the keys that it had; OperatingError if there is no room for writing it anew, one
    segment at a time.
    """
    path = _sealed_path(vfs)
    if path:
        raise Corruption("this store is encrypted and its KEYS and KEYS.b are gone: put one back", file=path, offset=0)
    needed = limits.disk_resume_bytes + limits.segment_bytes
    free = vfs.free_bytes()
    if free < needed:
        raise OperatingError(
            f"no room to encrypt what this store holds: {free} bytes are free, {needed} are needed; nothing was changed"
        )


def _sealed_path(vfs: Vfs) -> str:
    """A file that only a store with keys has; "" if there is none."""
    for number in file_numbers(vfs.list_dir(JOURNAL_DIR)):
        path = file_path(number)
        try:
            handle = vfs.open(path, write=False)
            try:
                header = fmt.unpack_header(vfs.pread(handle, SECTOR_BYTES, 0))
            finally:
                vfs.close(handle)
        except OSError:
            continue  # opening the journal will say so
        if header is not None and header.version == fmt.MARKED_VERSION:
            return path
    for name in vfs.list_dir(GROUPS_DIR):
        for path in [f"{GROUPS_DIR}/{name}/{head}" for head in HEAD_NAMES]:
            if sealed_with(vfs, path):
                return path
    return ""


def drop_leftovers(vfs: Vfs, newest: int) -> None:
    """What nobody needs goes, durably: the index on the disk, unfinished files, and what was half received.

    An encrypted store has its index in memory; what peers sent before key number ``newest`` was there is asked for
    again. Before the groups are opened.
    """
    _unlink(vfs, INDEX_DIR, vfs.list_dir(INDEX_DIR))
    for name in vfs.list_dir(GROUPS_DIR):
        directory = f"{GROUPS_DIR}/{name}"
        manifest = f"{directory}/{MANIFEST_NAME}"
        gone = [file for file in vfs.list_dir(directory) if file.endswith(TEMP_SUFFIX)]
        if vfs.exists(manifest) and sealed_with(vfs, manifest) != newest:
            gone.append(MANIFEST_NAME)
        _unlink(vfs, directory, gone)
        chunks = f"{directory}/chunks"
        _unlink(vfs, chunks, [file for file in vfs.list_dir(chunks) if file.endswith(TEMP_SUFFIX)])


def _unlink(vfs: Vfs, directory: str, names: list[str]) -> None:
    for name in names:
        vfs.unlink(f"{directory}/{name}")
    if names:
        vfs.fsync_dir(directory)
