"""KEYS: the data keys of an encrypted store, each sealed with a key that is made of the operator's secret.

Two copies, ``KEYS`` and ``KEYS.b``, in frames like those of checkpoints. A new secret seals the same data keys anew and
adds one, which seals what is written from then on; so does another cipher. What was written before stays under the key
that it was written with, and goes when it is rewritten.

Source: ``docs/format/keys.md``; RFC 7914 (scrypt).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import scrypt
from typing import Any

from jetstore.errors import Corruption, FormatUnknown, OperatingError
from jetstore.store.checkpoint_files import KIND_KEYS, read_framed, write_framed
from jetstore.store.keys import KEY_BYTES, NONCE_BYTES, DataKey, Encryption, Keys
from jetstore.store.vfs import Vfs
from jetstore.types import GroupUid

NAMES = ("KEYS", "KEYS.b")
DATA_KEYS_MAX = 255
"""At this many a new secret or cipher seals the keys that are there and adds none."""
_SALT_BYTES = 16
_BLOCKS = 8
"""r of scrypt; p is 1."""
_MEMORY_BYTES_MAX = 256 << 20
_NO_GROUP = GroupUid(0)


def open_keys(
    vfs: Vfs, wanted: Encryption | None, draw: Callable[[int], bytes], *, is_new: bool
) -> tuple[Keys | None, list[str]]:
    """The store's keys, durable if they are new, and what there is to say about them; None: it is not encrypted.

    ``is_new``: nothing was stored yet. Raises OperatingError, nothing changed, if the store is encrypted and there is
    no secret that opens its keys, or is not and should be; Corruption if no copy of the keys can be read.
    """
    found, notes = _read_copies(vfs)
    if wanted is None:
        if found:
            raise OperatingError("this store is encrypted: it opens with the key that it was made with")
        return None, []
    if not found and not is_new:
        raise OperatingError(
            "this store is not encrypted and stays so: start with an empty store directory (the other servers of a"
            " cluster fill it), or move its streams there by backup and restore"
        )
    data_keys: dict[int, DataKey] = {}
    is_current = False
    if found:
        data_keys, is_current = _opened(found, wanted)
    is_complete = is_current and len(found) == len(NAMES) and found[0] == found[1] and not notes
    newest = data_keys[max(data_keys)] if data_keys else None
    if newest is None or not is_current or wanted.cipher not in (None, newest.cipher):
        is_complete = False
        if len(data_keys) < DATA_KEYS_MAX:
            cipher = wanted.cipher or (newest.cipher if newest is not None else "chacha")
            data_keys[max(data_keys, default=0) + 1] = DataKey(cipher, draw(KEY_BYTES))
        if newest is not None:
            notes.append("the data keys have a new seal" if not is_current else "another cipher seals from now on")
    if not is_complete:
        _save(vfs, wanted, data_keys, draw)
    return Keys(data_keys, draw), notes


def read_keys(vfs: Vfs, wanted: Encryption | None, draw: Callable[[int], bytes]) -> Keys | None:
    """The store's keys, just as they are: nothing is written. Raises as ``open_keys`` does."""
    found, _ = _read_copies(vfs)
    if not found:
        return None
    if wanted is None:
        raise OperatingError("this store is encrypted: it opens with the key that it was made with")
    data_keys, _ = _opened(found, wanted)
    return Keys(data_keys, draw)


def _read_copies(vfs: Vfs) -> tuple[list[dict[str, Any]], list[str]]:
    """The readable copies, and what was wrong with the others. Corruption if there are some and none is readable."""
    found: list[dict[str, Any]] = []
    findings: list[str] = []
    for name in NAMES:
        if not vfs.exists(name):
            continue
        try:
            found.append(json.loads(read_framed(vfs, _NO_GROUP, KIND_KEYS, name)))
        except FormatUnknown:
            raise
        except (Corruption, OSError) as error:
            findings.append(str(error))
    if findings and not found:
        raise Corruption("no copy of the keys is readable: " + "; ".join(findings), file=NAMES[0], offset=0)
    return found, findings


def _opened(found: list[dict[str, Any]], wanted: Encryption) -> tuple[dict[int, DataKey], bool]:
    """The data keys, and whether it is the secret itself that opens them, not the previous one."""
    for secret in (wanted.secret, wanted.previous):
        for copy in found if secret else ():
            data_keys = _unsealed(copy, secret)
            if data_keys is not None:
                return data_keys, secret == wanted.secret
    raise OperatingError(
        "the key does not open this store" + (", nor does the previous one" if wanted.previous else "")
    )


def _unsealed(copy: dict[str, Any], secret: str) -> dict[int, DataKey] | None:
    from cryptography.exceptions import InvalidTag

    seal = _seal_of(secret, bytes.fromhex(copy["salt"]), copy["cost"])
    data_keys: dict[int, DataKey] = {}
    for number, cipher, nonce, sealed in copy["keys"]:
        try:
            plain = seal.decrypt(bytes.fromhex(nonce), bytes.fromhex(sealed), _bound(number, cipher))
        except InvalidTag:
            return None
        data_keys[number] = DataKey(cipher, plain)
    return data_keys


def _save(vfs: Vfs, wanted: Encryption, data_keys: dict[int, DataKey], draw: Callable[[int], bytes]) -> None:
    """Both copies durable and read back."""
    salt = draw(_SALT_BYTES)
    seal = _seal_of(wanted.secret, salt, wanted.cost)
    rows = []
    for number, key in sorted(data_keys.items()):
        nonce = draw(NONCE_BYTES)
        sealed = seal.encrypt(nonce, key.secret, _bound(number, key.cipher))
        rows.append([number, key.cipher, nonce.hex(), sealed.hex()])
    content = json.dumps({"cost": wanted.cost, "salt": salt.hex(), "keys": rows}).encode()
    for name in NAMES:
        write_framed(vfs, _NO_GROUP, KIND_KEYS, name, content)


def _seal_of(secret: str, salt: bytes, cost: int) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(scrypt(secret.encode(), salt=salt, n=cost, r=_BLOCKS, p=1, dklen=KEY_BYTES, maxmem=_MEMORY_BYTES_MAX))


def _bound(number: int, cipher: str) -> bytes:
    """What a sealed data key is bound to."""
    return f"{number} {cipher}".encode()
